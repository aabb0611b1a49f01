"""The ledger's disk is full, read-only, slow, broken or gone: nothing is signed that is not in writing."""

import contextlib
import errno
import math
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from signer import growth
from signer.sync import SyncClient
from signer.v1 import operator_pb2 as op
from signer.writer import EX_IOERR
from tests.daemon import Rig, running, until
from tests.disk import Disk
from tests.processes import gone
from tests.signer.access.calls import Caller, Paraph, answer_of, ask, card_rig, digest, shim_of, signed, statuses
from tests.signer.ledger.book import book, kinds, request, result, signatures
from tests.signer.ledger.kept import Kept
from tests.signer.people.terminal import profile

SERVING, NOT_SERVING = 1, 2


def rig_on_disk() -> Rig:
    made = card_rig("P-256")
    made.disk = Disk(made.directory / "disk", "paraph.sqlite")  # type: ignore[attr-defined]
    made.environment = disk(made).environment
    return made


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """It is healed, and serves, after each test."""
    with running(rig_on_disk()) as made:
        yield made


@pytest.fixture
def own() -> Iterator[Rig]:
    """For a test that counts epochs."""
    with running(rig_on_disk()) as made:
        yield made


def disk(rig: Rig) -> Disk:
    found: Disk = rig.disk  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EIO], ids=["full", "read-only", "EIO"])
def test_f23_nothing_can_be_written(rig: Rig, error: int) -> None:
    """
    F23: the disk is full: UNAVAILABLE/AUDIT_UNWRITABLE, health NOT_SERVING within a second, and it heals by itself.
    Row 4.3: full, read-only or failing: no signature, and signing goes on when there is room again.
    """
    with Caller(rig) as portal:
        assert statuses(portal.sign()) == ["SIGNED"]
        before = signed(rig)
        disk(rig).script(f"write {error}")
        failed = time.monotonic()
        message = request(digests=[digest(2)])
        answer = portal.sign(message)
        assert (answer.code, answer.reason) == ("UNAVAILABLE", "AUDIT_UNWRITABLE")
        assert answer.retry_s is not None
        until(lambda: rig.health() == NOT_SERVING, 1.0, "NOT_SERVING")
        assert time.monotonic() - failed < 1.5
        assert portal.sign().reason == "AUDIT_UNWRITABLE"
        assert signed(rig) == before, "it was signed without an intent"
        disk(rig).script()
        until(lambda: rig.health() == SERVING, 5.0, "SERVING again")
        assert statuses(portal.sign(message)) == ["SIGNED"], "the same request, which left nothing behind"
    assert signed(rig) == before + 1


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS], ids=["full", "read-only"])
def test_f23_nobody_wants_anything(rig: Rig, error: int) -> None:
    """
    F23: the same with no request at all. Row 4.3: health says within a second that nothing could be signed, and when there is
    room again that it could.
    """
    rig.health()  # half a second, the first time
    disk(rig).script(f"write {error}")
    failed = time.monotonic()
    until(lambda: rig.health() == NOT_SERVING, 1.5, "NOT_SERVING")
    assert time.monotonic() - failed < 1.5
    disk(rig).script()
    until(lambda: rig.health() == SERVING, 1.5, "SERVING again")


def test_the_operator_is_told(rig: Rig, paraph: Paraph, tmp_path: Path) -> None:
    """While every token is READY: `paraph tokens` says it first, with what to do, and ends with 69; so does what watches."""
    words = ("tokens", "--profile", profile(tmp_path, rig, "operator"))
    assert paraph(*words).code == 0
    with SyncClient(rig.profile("operator")) as client:
        disk(rig).script(f"write {errno.ENOSPC}")
        until(lambda: client.run(client.client.tokens_and_ledger()).ledger, 15.0, "the ledger's trouble")
        done = paraph(*words)
        assert done.code == 69
        assert done.out.startswith(
            "the ledger is stopped: AUDIT_UNWRITABLE: it cannot be written; make room on its disk"
        )
        assert "1 token, 1 ready" in done.out
        done = paraph(*words, "--json")
        assert (done.code, done.json[0]["state"]) == (69, "READY")
        assert "the ledger is stopped" in done.err
        with Caller(rig, "operator") as operator:
            assert next(operator.operator.WatchTokens(op.WatchTokensRequest(), timeout=10)).ledger == "AUDIT_UNWRITABLE"
        disk(rig).script()
        until(lambda: rig.health() == SERVING, 15.0, "SERVING again")
        assert paraph(*words).code == 0
        client.run(client.client.change_token("drain", "card"))
        done = paraph(*words)
        assert (done.code, "DRAINED" in done.out) == (69, True), "no token can sign"
        client.run(client.client.change_token("resume", "card"))
        until(lambda: rig.health() == SERVING, 15.0, "SERVING again")


def test_days_to_full(tmp_path: Path) -> None:
    """At the pace so far; not known where nothing grew; and none where the disk is full, which stops what grows."""
    day = 24 * 3600.0
    assert growth.days((0.0, 0), (day, 10), 30) == 3
    assert growth.days((0.0, 10), (day, 10), 30) == math.inf
    assert growth.days((0.0, 0), (60.0, 10), 30) == math.inf, "too soon to say"
    assert growth.days((0.0, 10), (day, 10), 0) == 0
    assert growth.Growth(tmp_path / "ledger").sample(0.0) == math.inf


def test_f23_full_between_intent_and_outcome(rig: Rig) -> None:
    """
    F23: the room ends while the token signs: the signature is made and not released; when there is room again it is
    written by itself, and who asks again gets it.
    """
    message = request(digests=[digest(3)])
    shim_of(rig).script("C_Sign * hold 60")
    with Caller(rig) as portal:
        call = portal.signing.SignDigests.future(message, timeout=10)
        until(lambda: shim_of(rig).unfinished(), 5, "C_Sign")
        disk(rig).script(f"write {errno.ENOSPC}")
        shim_of(rig).clear()
        assert call.exception() is not None
        assert "AUDIT_UNWRITABLE" in str(call.trailing_metadata())
        made = signed(rig)
        disk(rig).script()
        until(lambda: rig.health() == SERVING, 5.0, "SERVING again")
        until(
            lambda: (
                result(portal, message.request_id).code == "OK" and any(signatures(result(portal, message.request_id)))
            ),
            5,
        )
        kept = signatures(result(portal, message.request_id))
        assert signatures(portal.sign(message)) == kept
        assert signed(rig) == made, "it was signed again"
    until(lambda: kinds(rig, message.request_id)["SIGNED_NOT_DELIVERED"], 5, "SIGNED_NOT_DELIVERED")


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=["full", "EIO"])
def test_a_start_that_cannot_write(own: Rig, error: int) -> None:
    """It may pass: 75, and a line that says so; the next start serves."""
    own.stop()
    disk(own).script(f"write {error}")
    own.launch()
    assert own.process is not None
    assert own.process.wait(30) == 75
    last = own.log.read_text().splitlines()[-1]
    assert last.startswith(f"paraph serve: {own.state}/paraph.sqlite: "), last
    disk(own).script()
    own.launch()
    own.wait_serving()


def test_f24_fsync_fails(own: Rig) -> None:
    """
    F24: fsync returns EIO: the process exits with another code than 0; the next start verifies the chain before it is
    SERVING: where a row is not what was written it does not serve, and says which.
    """
    with Caller(own) as portal:
        assert statuses(portal.sign()) == ["SIGNED"]
        before = signed(own)
        disk(own).script(f"sync {errno.EIO}")
        assert portal.sign(timeout_s=5).code == "UNAVAILABLE"
    assert own.process is not None
    assert own.process.wait(5) == EX_IOERR
    assert signed(own) == before
    disk(own).script()
    changed = _intent_changed(own, "portal", "nobody")
    own.launch()
    assert own.process.wait(20) == 78
    assert f"row 1/{changed} is not what was written" in own.log.read_text().splitlines()[-1]
    assert signed(own) == before
    assert _intent_changed(own, "nobody", "portal") == changed
    own.launch()
    own.wait_serving()
    assert [row.sequence for row in book(own.state) if row.kind == "EPOCH"] == [1, 1]


def _intent_changed(rig: Rig, old: str, new: str) -> int:
    """The place of the only INTENT, in which another word stands now."""
    with contextlib.closing(sqlite3.connect(rig.state / "paraph.sqlite")) as db, db:
        [sequence] = db.execute("SELECT sequence FROM ledger_rows WHERE kind = 'INTENT'").fetchone()
        db.execute("UPDATE ledger_rows SET body = replace(body, ?, ?) WHERE sequence = ?", (old, new, sequence))
    return int(sequence)


@contextlib.contextmanager
def locked(rig: Rig) -> Iterator[None]:
    """Another process holds the lock of SQLite's database."""
    other = sqlite3.connect(rig.state / "paraph.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def lock_held(rig: Rig, lock: contextlib.AbstractContextManager[None], held_s: float) -> str:
    """Somebody has the store's lock for so many seconds; raises AssertionError, answers what was seen."""
    with Caller(rig) as portal:
        assert statuses(portal.sign()) == ["SIGNED"]
        before, refused = signed(rig), 0
        with lock:
            end = time.monotonic() + held_s
            while not refused or time.monotonic() < end:
                answer = portal.sign(timeout_s=5)
                assert (answer.code, answer.reason) == ("UNAVAILABLE", "STORE_BUSY")
                assert answer.retry_s is not None
                refused += 1
                until(lambda: rig.health() == NOT_SERVING, 1.0, "NOT_SERVING")
                time.sleep(0.1)
        assert signed(rig) == before, "C_Sign while the store was locked"
        until(lambda: rig.health() == SERVING, 5.0, "SERVING again")
        assert statuses(portal.sign()) == ["SIGNED"]
    return f"locked for {held_s:g} s: {refused} calls told STORE_BUSY, no C_Sign, SERVING again by itself"


def test_f22_the_store_is_locked(rig: Rig) -> None:
    """
    F22: another process holds the database's lock (SQLITE_BUSY): UNAVAILABLE/STORE_BUSY and RetryInfo, before any C_Sign. For
    30 s: the soak part `storage`.
    """
    lock_held(rig, locked(rig), 1.0)


def disk_hangs(rig: Rig, held_s: float) -> str:
    """One fsync takes so many seconds, at least 3; raises AssertionError, answers what was seen."""
    with Caller(rig) as portal:
        assert statuses(portal.sign()) == ["SIGNED"]
        before = signed(rig)
        disk(rig).script(f"sync sleep {held_s:g}")
        began = time.monotonic()
        calls = [portal.signing.SignDigests.future(ask(digests=[digest(i)]), timeout=1.5) for i in range(3)]
        until(lambda: rig.health() == NOT_SERVING, 1.3, "NOT_SERVING")
        assert time.monotonic() - began < 1.3
        disk(rig).script()  # the one under way sleeps on
        told = [answer_of(call.exception()).brief for call in calls]
        assert told == [("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")] * 3, "in the service's own words"
        assert time.monotonic() - began < 2.5
        refused = 0
        while time.monotonic() - began < held_s - 1.0:
            assert portal.sign().reason == "STORE_BUSY", "refused at once while it hangs"
            assert rig.health() == NOT_SERVING
            refused += 1
            time.sleep(0.1)
        assert refused
        until(lambda: rig.health() == SERVING, 8.0, "SERVING again")
        assert signed(rig) == before, "what was too late was signed afterwards"
        assert statuses(portal.sign()) == ["SIGNED"]
    return f"a disk blocked for {held_s:g} s: {refused} calls told STORE_BUSY, no C_Sign, SERVING again by itself"


def test_row_4_3_a_disk_that_hangs(rig: Rig) -> None:
    """
    Row 4.3: the disk is blocked for seconds: 0 signatures, health NOT_SERVING within 1 s, and it resumes by itself. Row 4.7:
    every request ends in a result or a reason, the service's own, within its deadline and a second. For 30 s: the soak
    part `storage`.
    """
    disk_hangs(rig, 4.0)


def test_row_4_3_a_disk_that_hangs_while_nobody_asks(rig: Rig) -> None:
    """Row 4.3: the disk is blocked: health NOT_SERVING within 1 s, and it resumes by itself. Without any request."""
    until(lambda: rig.health() == SERVING, 5.0, "SERVING")
    disk(rig).script("sync sleep 2")
    began = time.monotonic()
    until(lambda: rig.health() == NOT_SERVING, 1.3, "NOT_SERVING")
    assert time.monotonic() - began < 1.3  # what looks adds its own time
    disk(rig).script()
    until(lambda: rig.health() == SERVING, 5.0, "SERVING again")


@pytest.fixture(scope="module")
def kept() -> Iterator[tuple[Kept, bytes]]:
    """A daemon that has signed and was started again; and what was in its database before that."""
    with running(card_rig("P-256")) as made:
        with Caller(made) as portal:
            assert statuses(portal.sign()) == ["SIGNED"]
        until(lambda: made.anchor.exists() and made.anchor.stat().st_size, 5, "a checkpoint")
        made.stop()
        old, first = (made.state / "paraph.sqlite").read_bytes(), made.anchor.stat().st_size
        made.launch()
        made.wait_serving()
        until(lambda: made.anchor.stat().st_size > first, 5, "a checkpoint of the second start")
        yield Kept(made), old


@pytest.mark.parametrize(
    "harm", ["a row was changed", "a row is missing", "an older state was put back", "no database"]
)
def test_f25_the_ledger_is_not_what_was_written(kept: tuple[Kept, bytes], harm: str) -> None:
    """
    F25: the database was changed, or an older one put back: the start is refused with exit code 78, nothing is signed, and
    nothing in it is touched, for evidence.
    """
    rig, old = kept[0].put_back(), kept[1]
    database = rig.state / "paraph.sqlite"
    if harm == "an older state was put back":
        _replace(rig, old)
    elif harm == "no database":
        _replace(rig, os.urandom(len(old)))
    else:
        db = sqlite3.connect(database)
        [sequence] = db.execute("SELECT sequence FROM ledger_rows WHERE kind = 'INTENT'").fetchone()
        change = "body = replace(body, 'portal', 'nobody')"
        db.execute(
            f"UPDATE ledger_rows SET {change} WHERE sequence = ?"
            if harm == "a row was changed"
            else "DELETE FROM ledger_rows WHERE sequence = ?",
            (sequence,),
        )
        db.commit()
        db.close()
    made = signed(rig)
    before = database.read_bytes()
    rig.launch()
    assert rig.process is not None
    assert rig.process.wait(20) == 78
    assert "paraph serve:" in rig.log.read_text().splitlines()[-1]
    assert signed(rig) == made
    assert database.read_bytes() == before


def _replace(rig: Rig, content: bytes) -> None:
    for path in rig.state.glob("paraph.sqlite-*"):
        path.unlink()
    (rig.state / "paraph.sqlite").write_bytes(content)


def test_f51_the_front_is_killed(rig: Rig) -> None:
    """F51: the gRPC process is killed while its workers live: they die within a second, and none keeps the token."""
    assert rig.process is not None
    workers = psutil.Process(rig.process.pid).children(recursive=True)
    assert workers
    rig.process.send_signal(signal.SIGKILL)
    rig.process.wait()
    until(lambda: all(gone(worker) for worker in workers), 1.0, "the end of the workers")
    rig.launch()
    rig.wait_serving()
    with Caller(rig) as portal:
        assert statuses(portal.sign()) == ["SIGNED"]
