"""Each program that the daemon starts: it dies with its parent, whatever it is busy with, and leaves no core."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from pool.process import Child
from tests.daemon import until
from tests.pool.rig import gone
from tests.shim import Shim

ROOT = Path(__file__).parent.parent.parent
# A libpcsclite whose first call does not come back.
PCSC = "#include <unistd.h>\nlong SCardEstablishContext(void) { pause(); return 0; }\n" + "".join(
    f"long {name}(void) {{ return 0; }}\n" for name in ("SCardConnect", "SCardDisconnect")
)
PARENT = """
import asyncio, json, os, resource, socket, sys
from pool.process import Child, Pages

async def main():
    resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))
    order, started = json.load(sys.stdin), []
    page, (_, stream) = os.memfd_create("page"), socket.socketpair()
    os.ftruncate(page, 1 << 24)
    for program, words in order["programs"].items():
        words = [{"PAGE": str(page), "STREAM": str(stream.fileno())}.get(word, word) for word in words]
        started.append(await Child.start(program, *words, environment=order["environment"], fds=(page, stream.fileno())))
        if program == "pool.probe":
            started[-1].send(order["question"])
    print(json.dumps([child.pid for child in started]), flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def programs() -> set[str]:
    """What is started as a child, by the source."""
    files = [path for package in ("pool", "signer") for path in (ROOT / package).rglob("*.py")]
    return {word for path in files for word in re.findall(r'\.start\(\s*"([a-z_]+\.[a-z_]+)"', path.read_text())}


def test_row_7_4_each_program_dies_with_its_parent(shim: Shim, tmp_path: Path) -> None:
    """
    F51: the parent is killed: lanes, probes, resets, assemblers, hashers, judges, the ledger's writer and the reader of CRLs are
    gone within a second, also one that hangs in a driver or does nothing at all. Row 7.4: none has left the limit for
    cores as it was.
    """
    directory = tmp_path / "pcsc"
    directory.mkdir()
    (directory / "pcsc.c").write_text(PCSC)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", "libpcsclite.so.1", "pcsc.c"], cwd=directory, check=True)
    shim.script("C_GetSlotList * hang 60")
    words = {
        "pool.probe": [],
        "pool.card": ["a reader", '["reset"]'],
        "pool.worker": ["PAGE"],
        "signer.assembler": [],
        "signer.committer": ["STREAM"],
        "signer.crl_reader": [],
        "signer.hasher": [],
        "signer.judge": [],
    }
    assert words.keys() == programs(), "a program that this test does not know"
    question = {
        "t": "look",
        "module": shim.module,
        "sha256": None,
        "reader": None,
        "label": "",
        "serial": None,
        "keys": None,
    }
    order = {"programs": words, "question": question, "environment": shim.env | {"LD_LIBRARY_PATH": str(directory)}}
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    pids: list[int] = []
    try:
        with parent.stdin:
            parent.stdin.write(json.dumps(order))
        pids = json.loads(parent.stdout.readline())
        core = re.compile("^Max core file size +0 +0 ", re.MULTILINE)
        until(lambda: all(core.search(Path(f"/proc/{pid}/limits").read_text()) for pid in pids), 10)
        until(lambda: shim.number("C_GetSlotList") == 1)
        assert all(psutil.Process(pid).ppid() == parent.pid for pid in pids)
        for pid in pids:  # so that none sees that its socket closes
            os.kill(pid, signal.SIGSTOP)
        parent.kill()
        until(lambda: all(map(gone, pids)), 1.0)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_a_parent_that_is_gone_already() -> None:
    """The parent died before the child could ask to die with it: the child ends by itself, before it does anything."""
    parent = subprocess.Popen(["true"])
    parent.wait()
    program = "from pool import child; child.harden(); print('it goes on')"
    words = [sys.executable, "-c", program, str(parent.pid)]
    done = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the parent is gone" in done.stderr


def test_killed_when_the_loop_ends() -> None:
    """A process that is being closed while the loop ends is taken back all the same: nothing of it is left."""

    async def closing() -> Child:
        child = await Child.start("signer.hasher", environment={})
        close = asyncio.create_task(child.close())
        await asyncio.sleep(0)
        close.cancel()
        return child

    child = asyncio.run(closing())
    assert not psutil.pid_exists(child.pid), psutil.Process(child.pid)
