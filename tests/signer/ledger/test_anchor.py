"""Places that take checkpoints, for real: a file, a Unix datagram socket, UDP, and HTTP servers on loopback."""

import asyncio
import contextlib
import errno
import hashlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from signer import anchor as anchors
from signer.anchor import (
    SYSLOG_BYTES_MAX,
    Anchor,
    AnchorChanged,
    AnchorError,
    FileAnchor,
    SyslogAnchor,
    WebhookAnchor,
    syslog_message,
)
from signer.clock import Clock
from signer.config import Ledger
from signer.note import NOTHING, Checkpoint, Head, NoteError, note_of, parse, sign
from tests.pki import Pki

KEY = Ed25519PrivateKey.generate()
SPKI = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
BEGIN = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


def notes(count: int, *, chains: int = 1, word: str = "") -> list[str]:
    """So many notes of one ledger, one behind the other; of another ledger with another word."""
    made, previous = [], NOTHING
    for number in range(1, count + 1):
        own, *others = (
            Head(f"{chain:032x}", 1, number, hashlib.sha256(f"{word}{chain}.{number}".encode()).digest())
            for chain in range(chains)
        )
        checkpoint = Checkpoint(number, BEGIN + timedelta(minutes=number), previous, own, tuple(others))
        made.append(str(sign(checkpoint, SPKI, "ED25519", KEY.sign)))
        previous = checkpoint.hash
    return made


# ---- a file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


async def test_a_file_of_notes(path: Path) -> None:
    """
    Row 4.5: a signed checkpoint every 60 s or 1 000 chunks at the latest, listing the head of every daemon's own chain,
    exported to an append-only file on another mount, syslog or a webhook.

    Here the file: notes one behind the other, each on the disk before it counts as put, readable by the group.
    """
    made, anchor = notes(3, chains=2), FileAnchor(path)
    old = os.umask(0o077)  # as the unit has it
    try:
        for note in made:
            await anchor.put(note)
    finally:
        os.umask(old)
    assert path.read_text() == "".join(made)
    assert [[head.instance[-1] for head in note.checkpoint.heads] for note in parse(path.read_text())] == [
        ["0", "1"]
    ] * 3
    assert path.stat().st_mode & 0o777 == 0o640


async def test_it_is_on_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the file each time, and of its directory when it is new: in this order, after what was written."""
    synced: list[tuple[bool, str]] = []

    def fsync(fd: int) -> None:
        place = Path(f"/proc/self/fd/{fd}").readlink()
        synced.append((place.is_dir(), path.read_text()))

    monkeypatch.setattr(os, "fsync", fsync)
    made, anchor = notes(2), FileAnchor(path)
    for note in made:
        await anchor.put(note)
    assert synced == [(True, ""), (False, made[0]), (False, made[0] + made[1])]


async def test_appending_is_all_that_is_done(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is opened with O_APPEND, so that it may be one that allows nothing else (chattr +a)."""
    opened: list[int] = []
    real = os.open

    def spied(place: Any, flags: int, *more: Any, **others: Any) -> int:
        if place == path:
            opened.append(flags)
        return real(place, flags, *more, **others)

    monkeypatch.setattr(os, "open", spied)
    anchor = FileAnchor(path)
    for note in notes(2):
        await anchor.put(note)
    assert all(flags & os.O_APPEND and not flags & os.O_TRUNC for flags in opened)
    assert [bool(flags & os.O_CREAT) for flags in opened] == [False, True, False], "made once, never again"


def shortened(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def cut_to_the_note_before(path: Path) -> None:
    path.write_text(notes(2)[0])


def changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def appended_to(path: Path) -> None:
    path.write_text(path.read_text() + notes(3, word="another's")[2])


def ahead(path: Path) -> None:
    path.write_text(path.read_text() + notes(3)[2] + "x")


def lengthened(path: Path) -> None:
    path.write_text(path.read_text() + "x" * 100_000)


SPOILERS = [shortened, emptied, cut_to_the_note_before, changed, appended_to, ahead, lengthened, Path.unlink]


@pytest.mark.parametrize("spoil", SPOILERS)
async def test_a_file_that_somebody_changed(path: Path, spoil: Callable[[Path], object]) -> None:
    """It no longer ends with the note that was put there last: it is left as it is, until it is put back as it was."""
    made, anchor = notes(3), FileAnchor(path)
    for note in made[:2]:
        await anchor.put(note)
    good = path.read_bytes()
    spoil(path)
    spoilt = path.read_bytes() if path.exists() else None
    for _ in range(2):
        with pytest.raises(AnchorChanged, match=r"restart the daemon"):
            await anchor.put(made[2])
        assert (path.read_bytes() if path.exists() else None) == spoilt
    path.write_bytes(good)
    await anchor.put(made[2])
    assert path.read_text() == "".join(made)


async def test_putting_again_changes_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who does not know whether a note arrived puts it again: in the same run, and after a start."""
    made, anchor = notes(2), FileAnchor(path)
    for note in (made[0], made[0], made[1], made[1]):
        await anchor.put(note)
    await FileAnchor(path).put(made[1])
    assert path.read_text() == "".join(made)
    path.write_text(made[1])
    await FileAnchor(path).put(made[1])
    assert path.read_text() == made[1]
    assert caplog.records == []


@pytest.mark.parametrize("there", [0, 1, 3])
async def test_a_start_goes_on(path: Path, there: int, caplog: pytest.LogCaptureFixture) -> None:
    """What an earlier run left is continued; what is missing between is said, and that a file begins in the middle."""
    made = notes(4)
    path.write_text("".join(made[:there]))
    await FileAnchor(path).put(made[3])
    assert path.read_text() == "".join([*made[:there], made[3]])
    assert [record.getMessage().removeprefix(f"file:{path} ") for record in caplog.records] == {
        0: ["begins with checkpoint 4: if it is not new, it was emptied"],
        1: ["lacks the checkpoints 2 to 3"],
        3: [],
    }[there]


async def test_a_file_that_is_longer_than_what_is_looked_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a start only the end is read: wherever the part that is read begins, the last note is found in it."""
    made = notes(4)
    before = "".join(made[:3])
    for size in (*range(len(made[2]) + 2, 2 * len(made[2]) + 3), len(before), len(before) + 1):
        monkeypatch.setattr(anchors, "LAST_NOTE_BYTES_MAX", size)
        path.write_text(before)
        await FileAnchor(path).put(made[3])
        assert path.read_text() == before + made[3]
    monkeypatch.setattr(anchors, "LAST_NOTE_BYTES_MAX", len(made[2]) - 1)
    path.write_text(before)
    with pytest.raises(AnchorChanged, match="whole checkpoint"):
        await FileAnchor(path).put(made[3])


@pytest.mark.parametrize(
    ("content", "put", "said"),
    [
        (lambda: "".join(notes(3)), lambda: notes(2)[1], "its last checkpoint, 3, is none that this ledger has"),
        (
            lambda: "".join(notes(2, word="x")),
            lambda: notes(2)[1],
            "its last checkpoint, 2, is none that this ledger has",
        ),
        (
            lambda: "".join(notes(1, word="x")),
            lambda: notes(2)[1],
            "its last checkpoint, 1, is none that this ledger has",
        ),
        (lambda: "".join(notes(1)) + "x", lambda: notes(2)[1], "does not end with a whole checkpoint"),
        (lambda: "".join(notes(1))[:-1], lambda: notes(2)[1], "does not end with a whole checkpoint"),
        (lambda: "root:x:0:0::/root:/bin/sh\n\n", lambda: notes(2)[1], "does not end with a whole checkpoint"),
        (lambda: "\xff", lambda: notes(2)[1], "does not end with a whole checkpoint"),
        (lambda: "\n\n", lambda: notes(2)[1], "does not end with a whole checkpoint"),
    ],
)
async def test_a_start_finds_another_file(
    path: Path, content: Callable[[], str], put: Callable[[], str], said: str
) -> None:
    """Of a ledger that is ahead, of another ledger, or none: an alarm, and nothing is written."""
    path.write_text(content())
    before = path.read_bytes()
    with pytest.raises(AnchorChanged, match=said):
        await FileAnchor(path).put(put())
    assert path.read_bytes() == before


async def test_half_a_note_is_completed(path: Path) -> None:
    """Wherever a power cut came, in the first note or in a later one, the start puts that note again and ends it."""
    made = notes(2)
    for before, note in (("", made[0]), (made[0], made[1])):
        for written in range(len(note)):
            path.write_text(before + note[:written])
            await FileAnchor(path).put(note)
            assert path.read_text() == before + note


@pytest.mark.parametrize("may_truncate", [True, False])
async def test_a_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch, may_truncate: bool) -> None:
    """Half a note is taken away again; where that is not allowed (chattr +a), the next attempt ends it."""
    made, anchor = notes(3), FileAnchor(path)
    await anchor.put(made[0])
    real, room = os.write, [100]

    def write(fd: int, content: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = real(fd, content[: room[0]])
        room[0] -= done
        return done

    def ftruncate(*_: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "write", write)
    if not may_truncate:
        monkeypatch.setattr(os, "ftruncate", ftruncate)
    with pytest.raises(AnchorError, match="No space left on device") as error:
        await anchor.put(made[1])
    assert not isinstance(error.value, AnchorChanged)
    assert path.read_text() == made[0] + ("" if may_truncate else made[1][:100])
    room[0] = 10**6
    for note in made[1:]:
        await anchor.put(note)
    assert path.read_text() == "".join(made)


async def test_a_file_that_cannot_be(tmp_path: Path) -> None:
    """A missing directory, a directory, a pipe: an error at once, no alarm, and it works when it is mended."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for name, said in (("none/file", "No such file"), ("directory", "Is a directory"), ("pipe", "not a regular file")):
        with pytest.raises(AnchorError, match=said) as error:
            await FileAnchor(tmp_path / name).put(notes(1)[0])
        assert not isinstance(error.value, AnchorChanged)
        assert str(tmp_path / name) in str(error.value)
    late = FileAnchor(tmp_path / "none" / "file")
    with pytest.raises(AnchorError):
        await late.put(notes(1)[0])
    (tmp_path / "none").mkdir()
    await late.put(notes(1)[0])


async def test_a_mount_that_hangs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop goes on, the attempt ends at its limit, no second thread is spent, and it works when it is back."""
    monkeypatch.setattr(anchors, "FILE_S", 0.05)
    hangs = threading.Event()
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (hangs.wait(10), real(fd)))
    made, anchor = notes(2), FileAnchor(path)
    began = time.monotonic()
    with pytest.raises(AnchorError, match=r"no answer within 0\.05 s"):
        await anchor.put(made[0])
    assert time.monotonic() - began < 2
    before = threading.active_count()
    with pytest.raises(AnchorError, match="the last attempt has not come back"):
        await anchor.put(made[0])
    assert threading.active_count() == before
    assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("anchor")), (
        "an end does not wait"
    )
    hangs.set()
    await until(lambda: anchor._thread._busy is False)
    for note in made:
        await anchor.put(note)
    assert path.read_text() == "".join(made), "what came late was not written twice"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 -- it is another thread's
            await asyncio.sleep(0.005)


# ---- syslog


class Noon(Clock):
    def wall(self) -> datetime:
        return BEGIN


@contextlib.contextmanager
def log_server(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(address)
        server.settimeout(5)
        yield server


async def test_syslog_over_a_unix_socket(tmp_path: Path) -> None:
    """One datagram of one line in RFC 5424's form, out of which the note comes back as it was, and stays verifiable."""
    (note,) = notes(1)
    with log_server(f"{tmp_path}/log") as server:
        await SyslogAnchor(f"{tmp_path}/log", Noon()).put(note)
        message = server.recv(65536).decode("ascii")
    header, _, _ = message.partition(" paraph-checkpoint-v1")
    host = socket.gethostname()
    assert header == f"<109>1 2026-11-26T12:00:00Z {host} paraph {os.getpid()} CHECKPOINT -"
    assert "\n" not in message
    for line in (message, f"Nov 26 12:00:00 {message}\n"):
        assert note_of(line) == note
        (found,) = parse(note_of(line))
        found.check(SPKI)
    with pytest.raises(NoteError):
        note_of("<109>1 - - paraph - - - all is well")


@pytest.mark.parametrize(("host", "shown"), [("h", "h"), ("a b", "-"), ("", "-"), ("x" * 256, "-"), ("bücher", "-")])
def test_the_host_s_name_is_one(monkeypatch: pytest.MonkeyPatch, host: str, shown: str) -> None:
    """RFC 5424, 6.2.4: printable ASCII without spaces, or '-'."""
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    assert syslog_message("x", Noon()).split(b" ")[2] == shown.encode()


def test_escapes_are_given_back() -> None:
    """Line ends and backslashes, next to each other, too: none becomes the other."""
    text = "paraph-checkpoint-v1\n\\n\\\n\\\\n\n"
    assert note_of(syslog_message(text, Noon()).decode()) == text


@pytest.mark.parametrize("family", ["127.0.0.1", "[::1]", "localhost"])
async def test_syslog_over_udp(family: str) -> None:
    """Whoever listens gets it; when nobody does, the refusal is seen."""
    (note,) = notes(1)
    kind, host = (socket.AF_INET6, "::1") if family == "[::1]" else (socket.AF_INET, "127.0.0.1")
    if family == "localhost" and socket.getaddrinfo("localhost", 1)[0][0] == socket.AF_INET6:
        kind, host = socket.AF_INET6, "::1"
    with socket.socket(kind, socket.SOCK_DGRAM) as server:
        server.bind((host, 0))
        server.settimeout(5)
        anchor = SyslogAnchor(f"{family}:{server.getsockname()[1]}")
        await anchor.put(note)
        assert note_of(server.recv(65536).decode()) == note
    with pytest.raises(AnchorError, match="refused"):
        await anchor.put(note)


async def test_a_log_server_that_is_away(tmp_path: Path) -> None:
    """No socket, nobody behind it, or one that takes streams only: an error that names it; when it is back it works."""
    address, (note,) = f"{tmp_path}/log", notes(1)
    anchor = SyslogAnchor(address)
    with pytest.raises(AnchorError, match=f"syslog:{address}: No such file"):
        await anchor.put(note)
    with log_server(address):
        pass
    with pytest.raises(AnchorError, match="refused"):
        await anchor.put(note)
    Path(address).unlink()
    with log_server(address) as server:
        await anchor.put(note)
        assert server.recv(65536)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as streams:
        streams.bind(f"{tmp_path}/streams")
        streams.listen()
        with pytest.raises(AnchorError, match="wrong type"):
            await SyslogAnchor(f"{tmp_path}/streams").put(note)


async def test_a_log_server_that_does_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue is full: the attempt ends at its limit, and the loop goes on meanwhile."""
    monkeypatch.setattr(anchors, "SYSLOG_S", 0.1)
    with log_server(f"{tmp_path}/log"):
        anchor, (note,) = SyslogAnchor(f"{tmp_path}/log"), notes(1)
        began = time.monotonic()
        with pytest.raises(AnchorError):
            while time.monotonic() - began < 5:
                await anchor.put(note)
        assert time.monotonic() - began < 5
        await until(lambda: anchor._thread._busy is False)


async def test_a_note_too_long_for_syslog(tmp_path: Path) -> None:
    """It is not cut off: it is refused, with what to use instead."""
    with log_server(f"{tmp_path}/log") as server:
        anchor = SyslogAnchor(f"{tmp_path}/log")
        with pytest.raises(AnchorError, match="use a file or a webhook"):
            await anchor.put(notes(1, chains=SYSLOG_BYTES_MAX // 100)[0])
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.recv(1)


# ---- a webhook


@dataclass
class Receiver:
    """What an HTTP server was sent, and what it answers."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hangs: threading.Event = field(default_factory=threading.Event)
    got: list[tuple[str, str, dict[str, str], str]] = field(default_factory=list)
    url: str = ""


@contextlib.contextmanager
def receiver(context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    made = Receiver()
    made.hangs.set()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            made.got.append((self.command, self.path, dict(self.headers), body))
            made.hangs.wait(10)
            with contextlib.suppress(OSError):
                self.send_response(made.status)
                for name, value in made.headers.items():
                    self.send_header(name, value)
                self.end_headers()

        do_POST = do_GET = answer  # noqa: N815 -- http.server's names

        def log_message(self, *_: Any) -> None:
            pass

    class Server(HTTPServer):
        def handle_error(self, *_: Any) -> None:
            pass  # a handshake that the other side ends

    with Server(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        made.url = f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made
        finally:
            made.hangs.set()
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("status", [200, 201, 204])
async def test_a_webhook(status: int) -> None:
    """The note arrives byte for byte, as text by POST, where the URL says; any 2xx means that it has it."""
    (note,) = notes(1)
    with receiver() as server:
        server.status = status
        await WebhookAnchor(f"{server.url}/notes/secret?for=me").put(note)
        ((method, target, headers, body),) = server.got
    assert (method, target, body) == ("POST", "/notes/secret?for=me", note)
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["Host"] == server.url.removeprefix("http://")


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 404, 500, 503])
async def test_a_webhook_that_refuses(status: int) -> None:
    """Anything but 2xx is an error; a redirect is not followed. The path, which may be a secret, is in no message."""
    with receiver() as server:
        server.status, server.headers = status, {"Location": f"{server.url}/elsewhere"}
        said = "give the URL that it redirects to" if status < 400 else "look at its log"
        with pytest.raises(AnchorError, match=f"answered {status}; {said}") as error:
            await WebhookAnchor(f"{server.url}/canary-4711").put(notes(1)[0])
        assert len(server.got) == 1
    assert "canary" not in str(error.value)


async def test_a_webhook_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody there, no HTTP, no answer in time: an error, and the loop goes on meanwhile; it works when it is back."""
    monkeypatch.setattr(anchors, "WEBHOOK_S", 0.2)
    with receiver() as server:
        anchor = WebhookAnchor(server.url)
        server.hangs.clear()
        began = time.monotonic()
        with pytest.raises(AnchorError, match=r"no answer within|timed out"):
            await anchor.put(notes(1)[0])
        assert time.monotonic() - began < 2
        server.hangs.set()
        await until(lambda: anchor._thread._busy is False)
        await anchor.put(notes(1)[0])
    with pytest.raises(AnchorError, match="refused"):
        await anchor.put(notes(1)[0])
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]

        def speak() -> None:
            other, _ = silent.accept()
            with other:
                other.recv(65536)
                other.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(AnchorError, match="does not answer in HTTP"):
            await WebhookAnchor(f"http://127.0.0.1:{port}/").put(notes(1)[0])
        thread.join()


async def test_a_webhook_s_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is checked: by the system's CAs this one is nobody's; by the file that says whose it is, it is good."""
    pki = Pki(tmp_path / "pki")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pki.server())
    with receiver(context) as server:
        anchor = WebhookAnchor(f"{server.url}/notes")
        with pytest.raises(AnchorError, match="its certificate is not good"):
            await anchor.put(notes(1)[0])
        assert not server.got
        monkeypatch.setenv("SSL_CERT_FILE", str(pki.ca_file))
        await anchor.put(notes(1)[0])
        assert server.got[0][3] == notes(1)[0]


async def test_no_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment says about proxies is for others."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with receiver() as server:
        await WebhookAnchor(server.url).put(notes(1)[0])


# ---- from the configuration


def test_anchors_of_the_configuration(tmp_path: Path) -> None:
    """Each section is an anchor of its kind; names are told apart and keep a webhook's path to themselves."""
    places = [
        {"file": tmp_path / "a"},
        {"syslog": "/dev/log"},
        {"webhook": "https://a.example/canary-1"},
        {"webhook": "https://a.example/canary-2"},
        {"webhook": "https://b.example:8443/"},
    ]
    ledger = Ledger.model_validate({"checkpoint_key": "/k", "data_key_file": "/d", "anchor": places})
    found: list[Anchor] = anchors.of(ledger)
    assert [type(each) for each in found] == [FileAnchor, SyslogAnchor, *[WebhookAnchor] * 3]
    assert [each.name for each in found] == [
        f"file:{tmp_path}/a",
        "syslog:/dev/log",
        "webhook:https://a.example",
        "webhook:https://a.example (2)",
        "webhook:https://b.example:8443",
    ]
