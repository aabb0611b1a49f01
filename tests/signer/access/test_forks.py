"""How processes come about: the daemon never forks, and nothing calls a module from a second thread."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from signer.v1 import signing_pb2 as pb
from tests.daemon import Rig, running, until
from tests.processes import children
from tests.signer.access.calls import Caller, ask, card_rig, digests, lane_pids, shim_of, statuses
from tests.signer.ledger.book import documents

# Written down by the daemon itself, from the interpreter's own audit events: every way to a new process that Python has.
# `before` runs for each fork that Python code can see, and for a start that runs code between fork and exec.
HOOK = """
import json, os, sys

if "serve" in sys.orig_argv:
    log = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def say(event, *words):
        os.write(log, (json.dumps([event, *words]) + "\\n").encode())

    def hook(event, arguments):
        if event == "subprocess.Popen":
            say(event, [os.fsdecode(word) for word in arguments[1]])
        elif event in {{"os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "os.exec"}}:
            say(event)

    sys.addaudithook(hook)
    os.register_at_fork(before=lambda: say("fork"))
    say("hook")
"""


def hooked(rig: Rig) -> Path:
    """The daemon of this rig writes to the file answered how it makes processes."""
    place = rig.directory / "hook"
    place.mkdir()
    log = place / "log"
    place.joinpath("sitecustomize.py").write_text(HOOK.format(log=str(log)))
    rig.environment["PYTHONPATH"] = str(place)
    return log


def events(log: Path) -> list[Any]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_row_2_9_no_fork_and_one_caller_thread() -> None:
    """
    Row 2.9: no os.fork after the start, nor before, by an audit hook in the gRPC process, while digests and documents are
    signed, calls cancelled and lanes and assembly processes killed and replaced: all are started by exec; and each worker
    has one thread, which calls the module.
    """
    rig = card_rig("P-256", lanes=2)
    log = hooked(rig)
    with running(rig), Caller(rig) as portal:
        assert statuses(portal.sign(digests=digests(400))) == ["SIGNED"] * 400
        assert signed_document(portal)
        shim_of(rig).script("C_Sign * delay 0.01")
        call = portal.signing.SignDigests.future(ask(digests=digests(100)), timeout=20)
        until(lambda: shim_of(rig).unfinished(), 5, "a signature under way")
        for pid in lane_pids(rig):
            assert [path.name for path in Path(f"/proc/{pid}/task").iterdir()] == [str(pid)], (
                "one thread, the one that is under C_Sign"
            )
        call.cancel()
        shim_of(rig).clear()
        assert rig.process is not None
        for module in ("pool.worker", "signer.assembler"):
            before = running_as(rig, module)
            assert before, module
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            until(lambda: running_as(rig, module) - before, 10, f"another {module}")  # noqa: B023 -- called at once
        until(lambda: len(lane_pids(rig)) == 2, 10, "both lanes")
        until(lambda: statuses(portal.sign(digests=digests(20, 900))) == ["SIGNED"] * 20, 10)
        assert signed_document(portal)
        told = events(log)
    assert told[0] == ["hook"]
    kinds = Counter(event for event, *_ in told)  # "fork": the daemon's code, or its libraries', in a forked copy of it
    assert set(kinds) == {"hook", "subprocess.Popen"}, kinds
    started = [words for event, words in told[1:]]
    assert all(words[1:3] == ["-I", "-m"] for words in started), started
    modules = Counter(words[3] for words in started)
    assert modules["pool.worker"] >= 4
    assert modules["signer.assembler"] >= 2


def signed_document(portal: Caller) -> bool:
    (result, content) = documents(portal, str(uuid.uuid4()), {0: b"any bytes"}, "CADES_B_B")[0]
    return bool(content) and result.status == pb.SIGNED


def running_as(rig: Rig, module: str) -> set[int]:
    assert rig.process is not None
    return {child.pid for child in children(rig.process.pid, module)}


def test_the_hook_hears_a_fork(tmp_path: Path) -> None:
    """Row 2.9: each way that it is to hear of is heard by it: what it does not say did not happen."""
    log = tmp_path / "log"
    tmp_path.joinpath("sitecustomize.py").write_text(HOOK.format(log=str(log)))
    ways = {
        "fork": "os.fork() or os._exit(0)",
        "forkpty": "os.forkpty()[0] or os._exit(0)",
        "posix_spawn": "os.posix_spawn('/bin/true', ['true'], {})",
        "system": "os.system('true')",
        "Popen": "subprocess.run(['true'])",
        "preexec_fn": "subprocess.run(['true'], preexec_fn=lambda: None)",
        "multiprocessing": "multiprocessing.get_context('fork').Process(target=print).start()",
    }
    heard = {}
    for way, code in ways.items():
        log.unlink(missing_ok=True)
        program = f"import multiprocessing, os, subprocess; {code}"
        subprocess.run(
            [sys.executable, "-c", program, "serve"],
            env=os.environ | {"PYTHONPATH": str(tmp_path)}, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        heard[way] = {event for event, *_ in events(log)} - {"hook"}
    assert heard["Popen"] == {"subprocess.Popen"}
    assert all(heard.values()), heard
    assert all("fork" in heard[way] for way in ("fork", "forkpty", "preexec_fn", "multiprocessing")), heard
