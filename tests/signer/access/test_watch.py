"""`paraph tokens`: one pool over unlike hardware as the people see it who run it, on a real terminal and in a pipe."""

import asyncio
import contextlib
import fcntl
import itertools
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from rich.console import Console

from signer.cli.board import Rates, advice, age, board, summary
from signer.cli.printable import printable
from signer.cli.watching import SILENT_S, Feed, _Lines, picture
from signer.client import Profile
from signer.operator import WATCH_QUIET_S
from signer.sync import SyncClient
from signer.v1 import operator_pb2 as pb
from tests.daemon import REPOSITORY, Rig, Token, running, until
from tests.shim import Shim
from tests.signer.access.calls import Caller
from tests.signer.access.screen import Screen
from tests.signer.people.terminal import ENVIRONMENT, profile
from tests.softhsm import MODULE

SLOW_S = 0.185  # a signature of a national identity card


@pytest.fixture(scope="module")
def pool() -> Iterator[Rig]:
    """A slow card and a fast HSM with one key, a stick whose PIN was refused, one that is not there, one swapped, a person's."""
    rig = Rig()
    rig.shim = Shim(rig.directory / "shim", str(MODULE))
    rig.shim.script(f"C_Sign * delay {SLOW_S}")
    for label in ("card", "hsm", "stick", "other", "ada"):
        rig.store.token(label)
    for label in ("card", "hsm", "stick", "ada"):
        rig.store.keys(label, ["P-256"])
        _, spki = rig.store.made[label]["P-256"]
        rig.credentials[f"seal-{label}"] = (rig.pki.signer(f"Signer {label}", spki), "P-256", ["RAW"])
    rig.store.keys("other", ["P-256"])
    rig.tokens = [
        Token("card", "card", module=rig.shim.module),
        Token("rack-hsm", "hsm", kind="signing-server", more={"lanes": 2}),
        Token("stick", "stick", kind="signing-stick", pin="9999"),
        Token("gone", "nowhere"),
        Token("swapped", "other"),
        Token("ada-stick", "ada", kind="signing-stick", pin="", more={"personal": True}),
    ]
    with running(rig):
        until(lambda: states(rig)["gone"] == pb.Token.State.ABSENT and states(rig)["card"] == pb.Token.State.READY, 20)
        yield rig


def states(rig: Rig) -> dict[str, int]:
    async def ask() -> list[Any]:
        async with rig.client("operator") as client:
            return await client.tokens()

    return {token.name: token.state for token in asyncio.run(ask())}


def change(rig: Rig, what: str, token: str) -> None:
    async def ask() -> None:
        async with rig.client("operator") as client:
            await client.change_token(what, token)

    asyncio.run(ask())


class Watching:
    """`paraph tokens --watch` on a terminal of this size."""

    def __init__(
        self, file: Path, columns: int = 100, rows: int = 40, *, tick_s: float = 1.0, **environment: str
    ) -> None:
        self.screen = Screen(columns, rows)
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        script = f"import signer.cli.watching as w; w.TICK_S = {tick_s}; from signer.__main__ import main; main()"
        command = ["setsid", "--ctty", sys.executable, "-c", script, "tokens", "--watch", "--profile", str(file)]
        self.process = subprocess.Popen(
            command, cwd=REPOSITORY, env=ENVIRONMENT | environment, stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def shows(self, *texts: str, timeout_s: float = 15.0) -> str:
        """The screen once all of these stand on it, in this order."""
        end = time.monotonic() + timeout_s
        while True:
            place = 0
            for text in texts:
                place = self.screen.picture.find(text, place) + len(text) if place >= 0 else -1
                place = -1 if place < len(text) else place
            if place >= 0 and self.screen.is_other:
                return self.screen.picture
            assert time.monotonic() < end and self._read(end), f"no {texts} on:\n{self.screen.picture}"

    def resize(self, columns: int, rows: int) -> None:
        old, self.screen = self.screen, Screen(columns, rows)
        self.screen.is_other, self.screen.has_cursor = old.is_other, old.has_cursor
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def end(self, *, by: int | None = None) -> int:
        """By Ctrl-C, or a signal: the exit code."""
        if by is None:
            os.write(self._master, b"\x03")
        else:
            self.process.send_signal(by)
        end = time.monotonic() + 10
        while self._read(end):
            pass
        return self.process.wait(5)

    def look(self, for_s: float) -> None:
        end = time.monotonic() + for_s
        while self._read(end):
            pass

    def _read(self, end: float) -> bool:
        if not select.select([self._master], [], [], max(0.0, end - time.monotonic()))[0]:
            return False
        try:
            self.screen.feed(os.read(self._master, 65536).decode())
        except OSError:  # EIO: nobody has the other end any more
            return False
        return True


@contextlib.contextmanager
def load(client: Profile) -> Iterator[None]:
    """The card and the HSM always have something to sign."""
    stop = threading.Event()

    def sign(credential: str, count: int) -> None:
        with SyncClient(client) as mine:
            while not stop.is_set():
                digests = [os.urandom(32) for _ in range(count)]
                mine.sign_digests(
                    credential, digests, output="RAW", digest_algorithm="SHA256", signature_algorithm="ECDSA"
                )

    threads = [threading.Thread(target=sign, args=work) for work in (("seal-card", 3), ("seal-hsm", 400))]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def line_of(text: str, token: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.startswith(f"{token} "))


# ---- on a terminal


def test_the_picture(pool: Rig, tmp_path: Path) -> None:
    """One pool over unlike hardware: each token with its state, since when, why and what to do; a person's need is marked."""
    with Watching(profile(tmp_path, pool, "operator"), 140) as watching:
        text = watching.shows(
            "live", "6 tokens, 2 ready, 1 waiting for a person's PIN", "! needs you: stick, gone, swapped"
        )
        assert line_of(text, "card")[1] == line_of(text, "rack-hsm")[1] == "READY"
        assert "smartcard, SoftHSM project SoftHSM v2, serial" in text
        assert "signs for seal-card; " in text
        assert line_of(text, "rack-hsm")[4:7] == ["2", "of", "2"]
        assert line_of(text, "stick")[1:3] == ["!", "LOCKED"]
        assert line_of(text, "stick")[-3:] == ["1", "of", "3"]
        watching.shows(
            "stick",
            "why: the token refused the PIN",
            "check its PIN file",
            "next: when it is seen to: paraph tokens --unlock stick",
        )
        watching.shows("gone", "! ABSENT", "why: no token answers to its label", "insert it or start its reader")
        watching.shows("swapped", "! CHANGED", "put the configured token back", "it was sent no PIN")
        watching.shows("ada-stick", "OPEN", "it waits for its person's PIN")
        assert watching.screen.colours
        assert not watching.screen.has_cursor


def test_under_load(pool: Rig, tmp_path: Path) -> None:
    """A slow card (185 ms) and a fast HSM beside a locked stick: each signs what it can, and that is what is shown."""
    with Watching(profile(tmp_path, pool, "operator")) as watching, load(pool.profile("portal")):
        watching.shows("1 of 1, 1 busy", "2 of 2, 2 busy")
        until(lambda: 3 <= rate(watching, "card") <= 1 / SLOW_S and rate(watching, "rack-hsm") > 50, 15)
        assert line_of(watching.screen.picture, "stick")[8] == "-"


def rate(watching: Watching, token: str) -> float:
    """NOW/S of a token with a busy lane, after a while in which the picture may have changed."""
    watching.look(0.3)
    words = line_of(watching.screen.picture, token)
    now = words[words.index("busy") + 1] if "busy" in words else "0"
    return 0.0 if now == "-" else float(now.replace(",", ""))


def test_a_change_is_seen_at_once(pool: Rig, tmp_path: Path) -> None:
    """A drained token is shown as that within a second, with the command that takes it back; the picture stands still else."""
    with Watching(profile(tmp_path, pool, "operator")) as watching:
        watching.shows("rack-hsm   READY")
        change(pool, "drain", "rack-hsm")
        try:
            watching.shows("rack-hsm   DRAINED", "why: by an operator", "paraph tokens --resume rack-hsm", timeout_s=2)
        finally:
            change(pool, "resume", "rack-hsm")
        watching.shows("rack-hsm   READY")
        before = watching.screen.pictures
        watching.look(2.0)
        assert 1 <= watching.screen.pictures - before <= 12, "flicker: no more than the clock and the news need"


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 24), (20, 10)])
def test_narrow_and_without_colours(columns: int, rows: int, pool: Rig, tmp_path: Path) -> None:
    """
    In a small window nothing is cut off at the side, and what has no room below is counted; with NO_COLOR there are no
    colours, and everything is still said.
    """
    with Watching(profile(tmp_path, pool, "operator"), columns, rows, tick_s=60.0, NO_COLOR="1") as watching:
        words = " ".join(watching.shows("live", "tokens").split())
        assert "needs you: stick, gone, swapped" in words
        assert "READY" in words
        if columns < 80:
            watching.shows("lines more")
        assert not watching.screen.colours
        if columns == 40:
            watching.resize(120, 50)
            watching.shows("TOKEN", "ada-stick", "it waits for its person's PIN", timeout_s=3)


@pytest.mark.parametrize(
    ("by", "code"), [(None, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP)]
)
def test_the_terminal_is_left_as_it_was(by: int | None, code: int, pool: Rig, tmp_path: Path) -> None:
    """Ctrl-C, or a signal, ends it: the first screen and the cursor are back, and nothing else was written."""
    with Watching(profile(tmp_path, pool, "operator")) as watching:
        watching.shows("live", "rack-hsm")
        assert watching.end(by=by) == code
        assert (watching.screen.is_other, watching.screen.has_cursor) == (False, True)
        assert "rack-hsm" in watching.screen.before


def test_ctrl_z_gives_the_terminal_back(pool: Rig, tmp_path: Path) -> None:
    """Stopped, it leaves the screen as it was; going on, it is back on its own."""
    with Watching(profile(tmp_path, pool, "operator")) as watching:
        watching.shows("live", "rack-hsm")
        watching.process.send_signal(signal.SIGTSTP)
        until(lambda: watching.look(0.05) or not watching.screen.is_other, 5)
        assert watching.screen.has_cursor
        watching.process.send_signal(signal.SIGCONT)
        until(lambda: watching.look(0.05) or watching.screen.is_other, 5)
        watching.shows("live", "rack-hsm", timeout_s=5)


def test_a_restart_is_survived(tmp_path: Path) -> None:
    """The daemon is killed and started again: the picture stays and says that it is not live; then it is again, by itself."""
    rig = Rig()
    rig.store.token("card")
    rig.store.keys("card", ["P-256"])
    rig.add_keys("card", ["P-256"])
    rig.tokens = [Token("card", "card")]
    with running(rig):
        file = profile(tmp_path, rig, "operator")
        command = [sys.executable, "-m", "signer", "tokens", "--watch", "--profile", str(file)]
        with Watching(file) as watching, piped([*command, "--json"]) as jsons, piped(command) as lines:
            watching.shows("live", "card   READY")
            assert json.loads(jsons.stdout.readline())["live"]
            assert lines.stdout.readline().split()[1:] == ["card", "READY"]
            rig.stop(signal.SIGKILL)
            watching.shows("NOT LIVE: the daemon cannot be reached", "card   READY")
            until(lambda: not json.loads(jsons.stdout.readline())["live"], 10)
            assert lines.stdout.readline().split()[1:3] == ["NOT", "LIVE:"]
            rig.launch()
            watching.shows("Z live  1 token, 1 ready", timeout_s=20)
            until(lambda: json.loads(jsons.stdout.readline())["live"], 10)
            assert lines.stdout.readline().split()[1:] == ["live", "again"]
            assert watching.process.poll() is None


# ---- in a pipe


@contextlib.contextmanager
def piped(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_json_is_a_line_a_change(pool: Rig, tmp_path: Path) -> None:
    """Each line is an object of its own, and another than the last one; who has read enough ends it."""
    file = profile(tmp_path, pool, "operator")
    with piped([sys.executable, "-m", "signer", "tokens", "--watch", "--json", "--profile", str(file)]) as process:
        seen = [process.stdout.readline()]
        first = json.loads(seen[0])
        assert (first["live"], first["problem"], len(first["tokens"])) == (True, "", 6)
        assert {"pin_tries_used", "pin_tries", "personal", "since", "detail", "lanes"} <= first["tokens"][0].keys()
        assert not select.select([process.stdout], [], [], 1.5)[0], "a line without a change"
        for what, state in (("drain", "DRAINED"), ("resume", "READY")):
            change(pool, what, "card")
            until(lambda: seen.append(process.stdout.readline()) or state_in(seen[-1], "card") == state, 15)  # noqa: B023
        assert all(a != b for a, b in itertools.pairwise(seen))
        process.stdout.close()
        change(pool, "drain", "card")
        change(pool, "resume", "card")
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


def state_in(line: str, name: str) -> str:
    return next(token["state"] for token in json.loads(line)["tokens"] if token["name"] == name)


def test_exit_codes(pool: Rig, tmp_path: Path) -> None:
    """Nobody there to begin with, or not allowed: told on one line, with its code; a restart is not waited for."""
    nowhere = tmp_path / "nowhere.toml"
    nowhere.write_text(profile(tmp_path, pool, "operator").read_text().replace(str(pool.port), "1"))
    for file, code, said in (
        (nowhere, 69, "cannot be reached"),
        (profile(tmp_path, pool, "portal"), 77, "RPC_NOT_ALLOWED"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "signer", "tokens", "--watch", "--profile", file],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (code, "")
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1


# ---- what is shown, without a daemon


def token(**fields: Any) -> Any:
    given = {"name": "t", "kind": "smartcard", "state": "READY", "since": "2026-01-02T03:04:05Z", "pin_tries": 3}
    return pb.Token(**given | fields)


def drawn(*tokens: Any, columns: int = 200) -> str:
    console = Console(width=columns, color_system=None)
    with console.capture() as captured:
        console.print(summary(tokens, None))
        console.print(board(tokens, None, 0.0, columns))
    return captured.get()


@pytest.mark.parametrize("state", [name for name in pb.Token.State.keys() if name != "STATE_UNSPECIFIED"])  # noqa: SIM118
def test_every_state_says_what_to_do(state: str) -> None:
    """Each state is shown by its word and with what the service says; a command is given whole, with the token's name."""
    shown = drawn(token(state=state, detail="so it is; do this"))
    assert state in shown
    assert "why: so it is; do this" in shown
    commands = {"LOCKED": "--unlock t", "QUARANTINED": "--unlock t", "TRIPPED": "--unlock t", "DRAINED": "--resume t"}
    assert ("next:" in shown) is (state in commands)
    assert f"paraph tokens {commands.get(state, '')}" in shown or state not in commands
    assert ("! needs you: t" in shown) is (state in {"ABSENT", "CHANGED", "UNREACHABLE", "LOCKED", "QUARANTINED"})
    assert "it is being opened" in drawn(token(state="OPEN"))


@pytest.mark.parametrize(("used", "override"), [(0, False), (1, False), (2, True), (3, True)])
def test_the_last_try_is_told(used: int, override: bool) -> None:
    """Where one more refusal could lock the token for good, the command is the one that says so; before that it is not."""
    assert ("--override-final-try" in advice(token(state="LOCKED", pin_tries_used=used))) is override


def test_a_stopped_ledger_comes_first() -> None:
    """Whatever the tokens could: in the picture, and as lines when it stops and when it goes on."""
    console = Console(width=200, height=30, color_system=None, force_terminal=True)
    first, second, *_ = picture([token()], {}, 0.0, "", console, "STORE_BUSY")
    assert first.endswith(
        "live  the ledger is stopped: STORE_BUSY: its disk or database does not answer; see to it: it goes on by itself"
    )
    assert second.startswith("1 token, 1 ready")
    lines, feed = _Lines(), Feed(tokens=[token()], is_heard=True)
    lines.changes(feed)
    feed.ledger = "CHECKPOINT_OVERDUE"
    [told] = lines.changes(feed)
    assert " the ledger is stopped: CHECKPOINT_OVERDUE: " in told
    assert json.loads(lines.json(feed)[0])["ledger"] == "CHECKPOINT_OVERDUE"
    feed.ledger = ""
    assert [line.partition(" ")[2] for line in lines.changes(feed)] == ["the ledger goes on"]


def test_nothing_of_a_token_moves_the_cursor(tmp_path: Path) -> None:
    """What a token or its driver says may be anything: it is shown without its control characters, in one line."""
    wild = "\x1b[2J\x1b]0;x\x07a\nb\r\u202ec\x9b1m[red]d"
    lane = pb.Lane(state="RESTING", problem=wild, losses=2, errors={wild: 1})
    shown = drawn(token(state="TRIPPED", model=wild, serial=wild, label=wild, detail="gone", lanes=[lane]))
    assert all(letter.isprintable() for letter in shown.replace("\n", ""))
    assert shown.count("\ufffd[2J\ufffd]0;x\ufffda\ufffdb\ufffd\ufffdc\ufffd1m[red]d") == 4
    assert printable(wild).isprintable()


def test_rates() -> None:
    """A rate is that of the last seconds: it comes down when a token stops, and begins anew when the daemon does."""
    rates, at = Rates(), 100.0

    def look(signed: int) -> float | None:
        nonlocal at
        at += 1.0
        return rates.look([token(lanes=[pb.Lane(signatures=signed)])], at).get("t")

    assert look(50) is None
    assert look(60) == 10
    assert [look(60 + 5 * second) for second in range(1, 5)][-1] == pytest.approx(5)
    assert [look(80) for _ in range(4)][-1] == 0
    assert look(3) is None
    assert look(5) == 2


def test_ages() -> None:
    """Two units at most a glance: seconds up to two minutes, minutes up to two hours; a clock that is behind shows 0 s."""
    since = "1970-01-01T00:00:00Z"
    assert [age(since, s) for s in (-5, 59.9, 119, 120, 7199, 7200, 172799, 172800)] == [
        "0 s", "59 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d",
    ]  # fmt: skip
    assert age("junk", 0) == "?"


def test_silence_is_told(pool: Rig, tmp_path: Path) -> None:
    """
    A daemon says every 5 s that its picture still holds. One that says nothing for longer is not taken for a pool that
    stands still: it is told, and called anew until it answers.
    """
    with Caller(pool, "operator") as operator:
        answers = operator.operator.WatchTokens(pb.WatchTokensRequest(), timeout=WATCH_QUIET_S * 2)
        first, began = next(answers), time.monotonic()
        assert (next(answers), time.monotonic() - began < WATCH_QUIET_S + 2) == (first, True)
        answers.cancel()
    assert WATCH_QUIET_S * 2 < SILENT_S
    script = "import signer.cli.watching as w; w.SILENT_S = 1.0; from signer.__main__ import main; main()"
    words = ["-c", script, "tokens", "--watch", "--json", "--profile", str(profile(tmp_path, pool, "operator"))]
    with piped([sys.executable, *words]) as process:
        told = [json.loads(process.stdout.readline()) for _ in range(3)]
        assert [(each["live"], each["problem"]) for each in told] == [
            (True, ""), (False, "the daemon has said nothing for 1 s"), (True, ""),
        ]  # fmt: skip


def test_a_window_that_is_too_low() -> None:
    """What a token is gives way first, then the lines at the bottom are counted; why and what to do stay longest."""
    tokens = [token(name=f"t{number}", state="LOCKED", detail="the PIN was refused") for number in range(4)]
    for rows, texts in ((30, ["smartcard", "t3"]), (16, ["why:", "next:", "t3"]), (8, ["lines more"])):
        console = Console(width=120, height=rows, color_system=None, force_terminal=True)
        lines = picture(tokens, {}, 0.0, "", console)
        assert len(lines) <= rows
        assert all(any(text in line for line in lines) for text in texts)
        assert any("smartcard" in line for line in lines) is (rows == 30)
