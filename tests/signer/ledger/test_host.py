"""What the daemon's host has not: random bytes, room in /tmp, inodes."""

import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from signer.cli.exits import TEMPORARY
from signer.v1 import signing_pb2 as pb
from tests import entropy
from tests.daemon import Rig, running, until
from tests.signer.access.calls import Caller, card_rig, digests, lane_pids, shim_of, signed, statuses
from tests.signer.ledger.book import documents

# In a mount namespace of the daemon's own; the words after the script are the command, which it ends by running.
ALONE = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--mount", "--propagation", "private"]
# Whatever is in /tmp and ours stays there; the rest is a disk without a byte and without an inode.
FULL_TMP = """
full=$(mktemp -d)
mount -t tmpfs -o size=1m,nr_inodes=4096,mode=1777 none "$full"
for place in /tmp/paraph-* /tmp/pytest-of-*; do
    [ -d "$place" ] || continue
    mkdir "$full/${place#/tmp/}"
    mount --rbind "$place" "$full/${place#/tmp/}"
done
mount -t tmpfs -o size=4k,nr_inodes=1,mode=1777 none /var/tmp
mount --move "$full" /tmp
head -c 2097152 /dev/zero >/tmp/filled 2>/dev/null || true
seq 4096 | sed s,^,/tmp/filler-, | xargs touch 2>/dev/null || true
exec "$@"
"""


def alone(rig: Rig, script: str) -> None:
    rig.before = [*ALONE, "sh", "-ec", script, "sh"]


def inside(rig: Rig, path: Path) -> Path:
    """The same path as the daemon sees it."""
    assert rig.process is not None
    return Path(f"/proc/{rig.process.pid}/root{path}")


def refused(rig: Rig) -> tuple[int, str]:
    """How a start ends that is refused, and what it says; no PIN was sent by then."""
    rig.start(wait=False)
    assert rig.process is not None
    try:
        code = rig.process.wait(20)
        assert shim_of(rig).logins() == []
        return code, rig.log.read_text()
    finally:
        rig.close()


def without_entropy(mode: str) -> Rig:
    rig = card_rig("P-256")
    # Python's own hash seed is no secret, and is what would fail first; with one given it is the daemon's turn.
    rig.environment["PYTHONHASHSEED"] = "1"
    rig.before = [sys.executable, "-I", entropy.__file__, mode, "--"]
    return rig


@pytest.mark.parametrize("mode", ["blocked", "5", "38"], ids=["blocked", "EIO", "ENOSYS"])
def test_f57_no_random_bytes(mode: str) -> None:
    """
    F57: getrandom is blocked, as it is too early after a boot, or fails: the start is refused at once, with exit code 75
    and what to look at; nothing listens, no PIN is sent, and nothing weaker takes its place.
    """
    began = time.monotonic()
    rig = without_entropy(mode)
    code, log = refused(rig)
    assert code == TEMPORARY, log
    assert "the system gives no random bytes" in log
    assert "start again when it does" in log
    assert time.monotonic() - began < 20


def test_f57_the_filter_is_what_refuses() -> None:
    """F57: the same daemon with the same words before it, and getrandom as it is, is SERVING."""
    rig = without_entropy("blocked")
    rig.before = [sys.executable, "-I", "-c", "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"]
    with running(rig), Caller(rig) as portal:
        assert statuses(portal.sign()) == ["SIGNED"]


def signed_documents(portal: Caller, output: str) -> list[bool]:
    pdf = Path("deploy/demo/corpus/notice-road-works.pdf").read_bytes()
    content = pdf if output == "PADES_B_B" else b"any bytes"
    answer = documents(portal, str(uuid.uuid4()), {0: content, 1: content}, output)
    return [result.status == pb.SIGNED and bool(signature) for result, signature in answer.values()]


def test_f57_tmp_is_full() -> None:
    """F57: /tmp and /var/tmp without a byte and without an inode: digests and documents are signed as ever."""
    rig = card_rig("P-256")
    alone(rig, FULL_TMP)
    with running(rig), Caller(rig) as portal:
        with pytest.raises(OSError, match="No space left"):
            inside(rig, Path("/tmp/another")).write_bytes(b"x")
        assert statuses(portal.sign(digests=digests(300))) == ["SIGNED"] * 300
        for output in ("CADES_B_B", "PADES_B_B"):
            assert signed_documents(portal, output) == [True, True]
        (lane,) = lane_pids(rig)
        os.kill(lane, signal.SIGKILL)
        until(lambda: lane_pids(rig) not in ([lane], []), 10, "another lane")
        until(lambda: statuses(portal.sign()) == ["SIGNED"], 10)


@pytest.fixture
def few_inodes() -> Iterator[Rig]:
    """A daemon whose state is on a disk of its own with 200 inodes."""
    rig = card_rig("P-256")
    rig.state.mkdir(mode=0o700)
    alone(
        rig,
        f"mv {rig.state} {rig.state}.before; mkdir {rig.state}; "
        f'mount -t tmpfs -o nr_inodes=200,size=64m none {rig.state}; cp -a {rig.state}.before/. {rig.state}/; exec "$@"',
    )
    with running(rig):
        yield rig


def test_f57_no_inodes(few_inodes: Rig) -> None:
    """
    F57: no inode left where the state is: what needs none is signed, a PIN whose try cannot be written down is not sent
    (requests are told UNAVAILABLE, or at their deadlines), and when there are inodes again it heals by itself.
    """
    rig = few_inodes
    state = inside(rig, rig.state)
    with Caller(rig) as portal:
        assert statuses(portal.sign()) == ["SIGNED"]
        fillers = []
        with pytest.raises(OSError, match="No space left"):
            for number in range(1_000):
                fillers.append(state / f"filler-{number}")
                fillers[-1].touch()
        answer = portal.sign(digests=digests(50))
        assert answer.code == "UNAVAILABLE" or statuses(answer) == ["SIGNED"] * 50, answer
        logins = len(shim_of(rig).logins())
        (lane,) = lane_pids(rig)
        os.kill(lane, signal.SIGKILL)
        until(lambda: "unable to open database file" in rig.log.read_text(), 10, "a try that cannot be written")
        made = signed(rig)
        answer = portal.sign(timeout_s=1)
        assert answer.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}, answer
        assert (len(shim_of(rig).logins()), signed(rig)) == (logins, made)
        for filler in fillers[:-1]:
            filler.unlink()
        until(lambda: portal.sign(timeout_s=3).code == "OK", 40, "a signature again")


def test_f57_a_start_without_inodes() -> None:
    """F57: a start that finds no inode for its state is refused, with exit code 75 and the path it could not write."""
    rig = card_rig("P-256")
    rig.state.mkdir(mode=0o700)
    alone(
        rig,
        f"mv {rig.state} {rig.state}.before; mkdir {rig.state}; mount -t tmpfs -o nr_inodes=200,size=64m none {rig.state}; "
        f"cp -a {rig.state}.before/. {rig.state}/; "
        f'n=0; while touch {rig.state}/filler-$n 2>/dev/null; do n=$((n + 1)); done; exec "$@"',
    )
    code, log = refused(rig)
    assert code == TEMPORARY, log
    assert "there is no room" in log
    assert str(rig.state) in log, "it does not say where"


@pytest.mark.parametrize("is_first", [True, False], ids=["first start", "later start"])
def test_a_start_without_room(is_first: bool) -> None:
    """A full disk passes: exit code 75, so that systemd tries again, and one line that says which."""
    rig = card_rig("P-256")
    rig.state.mkdir(mode=0o700)
    if is_first:
        rig.credentials.clear()
    alone(
        rig,
        f"mv {rig.state} {rig.state}.before; mkdir {rig.state}; mount -t tmpfs -o size=8m none {rig.state}; "
        f"cp -a {rig.state}.before/. {rig.state}/; "
        f'cat /dev/zero > {rig.state}/filler 2>/dev/null || true; exec "$@"',
    )
    code, log = refused(rig)
    assert code == TEMPORARY, log
    assert "there is no room" in log
    assert str(rig.state) in log, "it does not say where"
    assert "Traceback" not in log
