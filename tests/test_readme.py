"""What README.md shows is done, as a newcomer would do it: after a demo of its own, with `var/` in another place."""

import contextlib
import hashlib
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

import pool.pool
from pool import Status, TokenConfig
from signer import client, local, sync
from signer.v1 import signing_pb2 as pb
from tests.daemon import until
from tests.examples import run, shown_in
from tests.softhsm import MODULE, PIN, Store

ROOT = Path(__file__).parent.parent
PARAPH = Path(sys.executable).with_name("paraph")
USING = re.search(r"## Using it\n(.*?)\n## ", (ROOT / "README.md").read_text(), re.DOTALL)[1]
PYTHON = re.findall(r"```python\n(.*?)```", USING, re.DOTALL)
SHELL = re.findall(r"^    (.+)", re.sub(r"```.*?```", "", USING, flags=re.DOTALL), re.MULTILINE)
SHOWN_LINES_MAX = 30


@dataclass
class Newcomer:
    """Somebody at a terminal in the repository; `var` is a directory of this test's instead of the repository's."""

    var: Path
    printed: str  # by the demo
    environment: dict[str, str]

    def reads(self, text: str) -> str:
        """A text of the README with the places that are meant here."""
        return re.sub(r"\bvar/", f"{self.var}/", text).replace(".venv/bin/paraph", shlex.quote(str(PARAPH)))

    def types(self, line: str) -> subprocess.CompletedProcess[str]:
        """Type one line. What it exports stays for the lines after it."""
        if line.startswith("export "):
            name, _, value = self.reads(line).removeprefix("export ").partition("=")
            self.environment[name] = value
            return subprocess.CompletedProcess(line, 0, "", "")
        return subprocess.run(
            ["sh", "-c", self.reads(line)], env=self.environment, cwd=ROOT, check=False, text=True,
            capture_output=True, timeout=30,
        )  # fmt: skip


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Newcomer:
    """After `make demo`, whose last line is `paraph demo`."""
    var = tmp_path_factory.mktemp("readme") / "var"
    done = subprocess.run(
        [PARAPH, "demo", "--directory", var / "demo"], cwd=ROOT, check=False, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PARAPH_")}
    return Newcomer(var, done.stdout, environment)


@pytest.fixture(scope="module")
def daemon(newcomer: Newcomer) -> Iterator[Newcomer]:
    """The README's first command runs, and its tokens are READY as the README says; at the end Ctrl-C."""
    log = newcomer.var / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["sh", "-c", f"exec {newcomer.reads(SHELL[0])}"], env=newcomer.environment, cwd=ROOT,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        until(lambda: all(f"token {name} is READY" in log.read_text() for name in ("card", "stick", "server")), 30)
        yield newcomer
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, log.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def watched(newcomer: Newcomer, line: str) -> tuple[str, int]:
    """What a command that ends at Ctrl-C shows on a terminal until it has shown a table, and its exit code."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["sh", "-c", f"exec {newcomer.reads(line)}"], cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs,
        env=newcomer.environment | {"TERM": "xterm", "COLUMNS": "200", "LINES": "50"}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    os.set_blocking(ours, False)
    seen = b""
    end = time.monotonic() + 20
    try:
        while seen.count(b"READY") < 3 and time.monotonic() < end:
            with contextlib.suppress(BlockingIOError):
                seen += os.read(ours, 65536)
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        while process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(BlockingIOError, OSError):  # OSError: nobody has the other end any more
                os.read(ours, 65536)
            time.sleep(0.02)
        return seen.decode(), process.wait(1)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def verified(newcomer: Newcomer, file: Path, content: Path | None = None) -> list[str]:
    """Who of pdfsig and openssl finds the file good, by the script of the demo."""
    job = {"file": str(file), "content": None if content is None else str(content), "ed25519": False}
    done = subprocess.run(
        [sys.executable, ROOT / "deploy/demo/check.py", newcomer.var / "demo/pki", newcomer.var / "demo/nss"],
        input=json.dumps([job]), check=True, text=True, capture_output=True,
    )  # fmt: skip
    (answer,) = json.loads(done.stdout)
    assert not answer["problem"]
    return answer["by"]


def test_the_shown_output_is_the_demo_s(newcomer: Newcomer) -> None:
    """Every line between the marks is one that the demo prints, in its order, but for numbers and what '...' leaves out."""

    def plain(text: str) -> list[str]:
        return [re.sub(r"[\d.,]*\d", "0", " ".join(line.split())) for line in text.splitlines() if line.strip()]

    block = re.search(r"<!-- demo -->\n(.*?)<!-- end -->", (ROOT / "README.md").read_text(), re.DOTALL)[1].strip("\n")
    assert 0 < len(block.splitlines()) <= SHOWN_LINES_MAX
    printed = newcomer.printed.replace(os.path.relpath(newcomer.var, ROOT), "var")
    rest = iter(plain(printed.replace(os.path.relpath(PARAPH, ROOT), ".venv/bin/paraph")))
    for line in plain(block):
        assert line == "..." or line in rest, line


def test_the_commands_do_what_is_said(daemon: Newcomer) -> None:
    """Every command of the README ends with 0, the one that watches with that of Ctrl-C; pdfsig finds the PDF signed."""
    assert " serve " in SHELL[0]
    for line in SHELL[1:]:
        if "--watch" in line:
            seen, code = watched(daemon, line)
            assert seen.count("READY") >= 3, seen
            assert code == 130
            continue
        done = daemon.types(line)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert verified(daemon, daemon.var / "signed" / "lease-of-workshop.pdf") == ["pdfsig", "openssl"]


async def test_the_client_signs_as_shown(daemon: Newcomer, tmp_path: Path) -> None:
    """The block for back ends: openssl finds the CMS right over the document that stayed at home."""
    content = ROOT / "README.md"
    digest = hashlib.sha256(content.read_bytes()).digest()
    names = await run(daemon.reads(PYTHON[0]), {"digest": digest})
    assert [item.status for item in names["answer"].items] == [pb.SIGNED]
    (tmp_path / "readme.p7s").write_bytes(names["cms"])
    assert verified(daemon, tmp_path / "readme.p7s", content) == ["openssl"]


async def test_the_pool_signs_as_shown(own_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block without gRPC, over a software token with these labels."""
    own_store.token("my-token")
    _, spki = own_store.keys("my-token", ["P-256"], ["my-key"])["P-256"]
    for name, value in own_store.environment.items():
        monkeypatch.setenv(name, value)
    pin, digest = tmp_path / "pin", hashlib.sha256(b"document").digest()
    pin.write_text(PIN)
    pin.chmod(0o400)
    names = await run(PYTHON[1], {"module": MODULE, "pin": pin, "state": tmp_path / "state", "digest": digest})
    assert (names["outcome"].status, names["outcome"].token) == (Status.SIGNED, "card")
    key = serialization.load_der_public_key(spki)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(names["outcome"].signature, digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))


async def test_the_docstrings_sign_as_shown(daemon: Newcomer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own examples, with and without asyncio, and of a PDF that stays at home: others find all good."""
    monkeypatch.chdir(tmp_path)
    source, target = tmp_path / "contract.pdf", tmp_path / "contract-signed.pdf"
    source.write_bytes((ROOT / "deploy/demo/corpus/lease-of-workshop.pdf").read_bytes())
    for module in (client, local):
        [example] = shown_in(module.__doc__)
        names = await run(daemon.reads(example), {"Path": Path, **vars(client), **vars(local)})
        assert module is local or names["signed"].size == target.stat().st_size
        assert verified(daemon, target) == ["pdfsig", "openssl"]
        target.unlink()
    [example] = shown_in(sync.__doc__)
    digest = hashlib.sha256(source.read_bytes()).digest()
    names = await run(daemon.reads(example), {"Path": Path, "digest": digest, **vars(sync)})
    (tmp_path / "contract.p7s").write_bytes(names["cms"])
    assert verified(daemon, tmp_path / "contract.p7s", source) == ["openssl"]


async def test_the_pool_s_docstring_signs_as_shown(
    own_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its two examples: a token of the service's, and a person's."""
    monkeypatch.chdir(tmp_path)
    own_store.token("my-token")
    own_store.keys("my-token", ["P-256"], ["my-key"])
    for name, value in own_store.environment.items():
        monkeypatch.setenv(name, value)
    pin, digest = tmp_path / "pin", hashlib.sha256(b"document").digest()
    pin.write_text(PIN)
    pin.chmod(0o400)
    first, second = shown_in(pool.pool.__doc__)
    public = {name: getattr(pool, name) for name in pool.__all__}
    names = await run(first, {**public, "Path": Path, "module": MODULE, "path": pin, "digest": digest})
    assert [outcome.status for outcome in names["outcomes"]] == [Status.SIGNED]
    personal = TokenConfig("signing-stick", MODULE, "my-token", kind="signing-stick", personal=True)
    async with pool.Pool([personal], state=tmp_path / "state") as made:
        await made.ready()
        names = await run(second, {**public, "pool": made, "typed": PIN, "digest": digest})
    assert [outcome.status for outcome in names["outcomes"]] == [Status.SIGNED]


def test_nothing_is_left_out() -> None:
    """The section has the commands and blocks that the tests above run, and no others."""
    words = [shlex.split(line) for line in SHELL]
    assert [command for program, command, *_ in words if program == ".venv/bin/paraph"] == [
        *("serve", "sign", "verify", "credential", "tokens", "audit", "audit")
    ]
    assert [program for program, *_ in words if program != ".venv/bin/paraph"] == ["export"]
    assert len(PYTHON) == 2
