"""Requests whose lanes, disk, callers or clock do not behave: what is written of them, and what they are answered."""

import asyncio
import contextlib
import hashlib
import multiprocessing
import socket
import sqlite3
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest

from pool import Status
from pool.record import Unrecorded
from signer import books, found, writer
from signer import ledger as ledgers
from signer.chain import Kind, Row
from signer.clock import Clock
from signer.database import Database, Epochs, Eraser
from signer.entry import Entry, Failed
from signer.errors import Refusal
from signer.ledger import KEEP_S, Ledger
from signer.record import DIGESTS, Asked
from signer.results import Part, outcomes
from signer.retention import CLOCK_S, Retention
from signer.sqlite import SqliteDatabase
from signer.store import open_store
from signer.v1 import signing_pb2 as pb
from signer.writer import EX_IOERR
from tests import daemon, disk
from tests.daemon import Rig, running
from tests.others import others
from tests.pool.rig import until
from tests.processes import children
from tests.signer.access.calls import Caller, card_rig, shim_of, signed, statuses
from tests.signer.ledger.book import book, documents
from tests.signer.ledger.entries import asked, chain, counted, executed, intent, ledger_on, placed, started

SERVING = 1


class Storage:
    """A backend that works, fails or hangs on order, and keeps what it has written, commit by commit."""

    def __init__(self, backend: Epochs) -> None:
        self._backend = backend
        self._answers = threading.Event()
        self._failures = 0  # still to come
        self.begun = 0  # commits
        self.commits: list[Sequence[Entry]] = []
        self.works()

    def works(self) -> None:
        self._failures = 0
        self._answers.set()

    def fails(self, times: int = sys.maxsize) -> None:
        self._failures = times
        self._answers.set()

    def hangs(self) -> None:
        self.begun = 0
        self._answers.clear()

    def write(self, entries: Sequence[Entry], rows: Sequence[tuple[Row, int | None]]) -> None:
        self._answer()
        self._backend.write(entries, rows)
        self.commits.append(entries)

    def pulse(self) -> None:
        self._answer()
        self._backend.pulse()

    def _answer(self) -> None:
        self.begun += 1
        self._answers.wait()
        if self._failures:
            self._failures -= 1
            raise Failed("AUDIT_UNWRITABLE", "no space left")

    def close(self) -> None:
        self._backend.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "paraph.sqlite"


@pytest.fixture
async def opened(path: Path) -> AsyncIterator[tuple[Ledger, Storage]]:
    async with ledger_on(path, Storage) as (ledger, storage):
        yield ledger, storage
        storage.works()


def soon() -> float:
    return time.monotonic() + 10


async def heal(ledger: Ledger, storage: Storage) -> None:
    storage.works()
    await until(lambda: not ledger.trouble)


async def lost(future: asyncio.Future[None]) -> None:
    with pytest.raises(Unrecorded):
        await future


async def sign(ledger: Ledger, what: Asked) -> None:
    """The request, from its first word to its last."""
    record = await ledger.enter(what, soon())
    one = record.intend(0, what.count, "card")
    await one.durable
    one.settled([b"signature"] * what.count, {})
    await record.finish(soon())
    record.leave()


async def refused(ledger: Ledger, what: Asked) -> str:
    with pytest.raises(Refusal) as refusal:
        await ledger.enter(what, soon())
    return refusal.value.reason


def kinds(path: Path) -> Counter[str]:
    return Counter(row.kind for row in chain(SqliteDatabase(path)))


@pytest.mark.parametrize("is_under_way", [False, True], ids=["in one commit", "the second came meanwhile"])
async def test_the_row_of_a_request_is_written_once(
    opened: tuple[Ledger, Storage], path: Path, is_under_way: bool
) -> None:
    """
    The row that a failed commit took with it is brought by the next intent, and by no other; an intent that counted upon
    it is lost with it; and one that fails later, and brought nothing, has it brought by nobody again.
    """
    ledger, storage = opened
    record = await ledger.enter(asked(6), soon())
    storage.hangs()
    first = record.intend(0, 1, "card").durable
    if is_under_way:
        await until(lambda: storage.begun)
    second = record.intend(1, 2, "card").durable
    storage.fails(1)
    await lost(first)
    await lost(second)
    await heal(ledger, storage)
    await record.intend(2, 3, "card").durable
    await record.intend(3, 4, "card").durable
    storage.fails(1)
    await lost(record.intend(4, 5, "card").durable)
    await heal(ledger, storage)
    await record.intend(5, 6, "card").durable
    brought = [entry.request is not None for group in storage.commits for entry in group]
    assert brought == [True, False, False]
    assert counted(path, "ledger_requests") == counted(path, "ledger_chains") == 1


async def test_another_certificate_meanwhile(opened: tuple[Ledger, Storage]) -> None:
    """Who asks again when the credential has another certificate gets no signature with that one around it."""
    ledger, _ = opened
    what = asked(1)
    await sign(ledger, what)
    renewed = replace(what, certificates=b"renewed", chain=hashlib.sha256(b"renewed").digest())
    assert await refused(ledger, renewed) == "CREDENTIAL_CHANGED"
    again = await ledger.enter(what, soon())
    assert again.known is not None
    assert again.known.signatures == [b"signature"]
    again.leave()


@pytest.mark.parametrize("is_written", [True, False], ids=["written", "not written"])
async def test_a_lane_is_lost_before_its_intent_is_decided(
    opened: tuple[Ledger, Storage], path: Path, is_written: bool
) -> None:
    """
    The lane ends while its INTENT is being written: if that is then written, the OUTCOME that closes it follows and names
    its place; if not, there is none. Either way the request is over and may be asked again.
    """
    ledger, storage = opened
    record = await ledger.enter(what := asked(2), soon())
    storage.hangs()
    one = record.intend(0, 2, "card")
    await until(lambda: storage.begun)
    one.settled([None, None], {})
    record.leave()
    assert not record.closed.done()
    if is_written:
        storage.works()
    else:
        storage.fails()
    await asyncio.wait_for(asyncio.shield(record.closed), 5)
    await heal(ledger, storage)
    (await ledger.enter(what, soon())).leave()
    await ledger.writer.settled()
    rows = [row for row in chain(SqliteDatabase(path)) if row.kind in {Kind.INTENT, Kind.OUTCOME}]
    if is_written:
        intended, outcome = rows
        assert (intended.kind, outcome.kind) == (Kind.INTENT, Kind.OUTCOME)
        assert (outcome.fields["intent"], outcome.fields["closed"]) == (intended.sequence, True)
    else:
        assert not rows


@pytest.mark.parametrize(
    ("now", "answered"),
    [(Status.NOT_ATTEMPTED, Status.INDETERMINATE), (Status.FAILED, Status.FAILED), (Status.SIGNED, Status.SIGNED)],
)
def test_indeterminate_is_not_hidden(now: Status, answered: Status) -> None:
    """
    What may have been signed is not called NOT_ATTEMPTED because a later attempt never came to it; what came of that
    attempt at a token does replace it.
    """
    before = Part(1, "card", [(0, 1)], [None], {0: ("INDETERMINATE", "TOKEN_TIMEOUT")})
    signature = b"signature" if now is Status.SIGNED else None
    later = Part(2, "card", [(0, 1)], [signature], {} if signature else {0: (now.value, "TOKEN_FAULT")})
    [outcome] = outcomes(1, [before, later])
    assert (outcome.status, outcome.signature) == (answered, signature or b"")


@pytest.mark.parametrize("is_live", [True, False], ids=["live", "stored"])
@pytest.mark.parametrize("item", [DIGESTS, 3], ids=["digests", "a document"])
async def test_one_id_is_one_callers(opened: tuple[Ledger, Storage], path: Path, item: int, is_live: bool) -> None:
    """
    F31: the same request id of another caller is not found, whatever it is for, and it is for digests or for documents;
    each attempt is in the ledger. While the request is in work that holds as it does afterwards.
    """
    ledger, _ = opened
    what = replace(asked(1), item=item)
    if is_live:
        record = await ledger.enter(what, soon())
    else:
        await sign(ledger, what)
    other_sort = 3 if item == DIGESTS else DIGESTS
    assert await refused(ledger, replace(what, caller="other")) == "REQUEST_UNKNOWN"
    assert await refused(ledger, replace(what, caller="other", item=other_sort)) == "REQUEST_UNKNOWN"
    assert await refused(ledger, replace(what, caller="other", item=4)) == "REQUEST_UNKNOWN"
    assert await refused(ledger, replace(what, item=other_sort)) == "IDEMPOTENCY_MISMATCH"
    assert await refused(ledger, replace(what, body=bytes(32))) == "IDEMPOTENCY_MISMATCH"
    if item != DIGESTS:
        (await ledger.enter(replace(what, item=4), soon())).leave()
    with pytest.raises(Refusal, match="REQUEST_UNKNOWN"):
        await ledger.check_owner(what.id, "other")
    await ledger.check_owner(what.id, "portal")
    if is_live:
        record.leave()
    await ledger.writer.settled()
    assert kinds(path)[Kind.MISMATCH] == 5


async def test_what_is_stored_is_its_callers(opened: tuple[Ledger, Storage], path: Path) -> None:
    """`Ledger.stored` gives a caller what is his of an id, and nobody else's."""
    ledger, _ = opened
    what = replace(asked(1), item=0)
    await sign(ledger, what)
    columns = "caller, body, accepted, count, output, chain, detail, instance"
    foreign = columns.replace("caller", "'other'")
    executed(path, f"INSERT INTO ledger_requests (id, item, {columns}) SELECT id, 1, {foreign} FROM ledger_requests")
    assert [one.item for one in await ledger.stored(what.id, "portal", 0, 10)] == [0]
    assert [one.item for one in await ledger.stored(what.id, "other", 0, 10)] == [1]
    assert await ledger.stored(what.id, "third", 0, 10) == []


async def test_documents_by_pages(opened: tuple[Ledger, Storage], path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A stream's documents in answers of three, up to the last index that there can be: `next` stands where there is one more,
    and nowhere else. Behind the last one, nothing; of a stream that is another's, or of no one's, nothing is said.
    """
    ledger, _ = opened
    monkeypatch.setattr(found, "DOCUMENTS_MOST", 3)
    what = replace(asked(1), item=0)
    for item in (0, 1, 2, 5, 2**31, 2**32 - 1):
        await sign(ledger, replace(what, item=item, detail=list(what.detail)))

    async def page(first: int, id_: bytes = what.id, caller: str = "portal") -> tuple[list[int], int]:
        answer = await found.result(ledger, id_, "name", caller, first, lambda chain: [chain])
        assert (answer.output, answer.certificate) == (pb.RAW, what.certificates)
        return [item.index for item in answer.items], answer.next

    assert await page(0) == ([0, 1, 2], 5)
    assert await page(5) == ([5, 2**31, 2**32 - 1], 0)
    assert await page(6) == ([2**31, 2**32 - 1], 0)
    executed(path, f"DELETE FROM ledger_requests WHERE item > {2**31}")
    assert await page(2**31 + 1) == ([], 0)
    for id_, caller in ((what.id, "other"), (bytes(16), "portal")):
        for first in (0, 7):
            with pytest.raises(Refusal, match="REQUEST_UNKNOWN"):
                await page(first, id_, caller)


async def test_others_have_turns_while_documents_are_found(opened: tuple[Ledger, Storage]) -> None:
    """A thousand documents in one answer do not keep the event loop: it runs for others in between."""
    ledger, _ = opened
    what = replace(asked(1), item=0)
    for item in range(2 * found.DOCUMENTS_A_TURN):
        await sign(ledger, replace(what, item=item, detail=list(what.detail)))
    async with others() as counted:
        answer = await found.result(ledger, what.id, "name", "portal", 0, lambda chain: [chain])
    assert counted.turns == 2
    assert [item.index for item in answer.items] == [*range(2 * found.DOCUMENTS_A_TURN)]


@pytest.mark.parametrize("trouble", ["hangs", "fails"])
async def test_refused_repeats_do_not_pile_up(opened: tuple[Ledger, Storage], path: Path, trouble: str) -> None:
    """
    While nothing can be written, a repeat that is refused leaves nothing waiting, however often it comes; when something
    can, each is in the ledger.
    """
    ledger, storage = opened
    record = await ledger.enter(what := asked(2), soon())
    getattr(storage, trouble)()
    record.intend(0, 1, "card")
    await until(lambda: ledger.trouble)
    other = replace(what, body=bytes(32))
    for _ in range(100):
        assert await refused(ledger, other) == "IDEMPOTENCY_MISMATCH"
        assert not ledger.writer._next
    await heal(ledger, storage)
    for _ in range(3):
        assert await refused(ledger, other) == "IDEMPOTENCY_MISMATCH"
    record.leave()
    await ledger.writer.settled()
    assert kinds(path)[Kind.MISMATCH] == 3


async def test_a_disk_that_fails_is_not_worn(opened: tuple[Ledger, Storage], monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing can be written, that is tried once each RETRY_S, however much came and was lost before."""
    ledger, storage = opened
    monkeypatch.setattr(writer, "RETRY_S", 0.05)
    storage.fails()
    for number in range(20):
        await lost(ledger.writer.intend(Entry(Kind.CHECKPOINT, {"number": number})))
        await asyncio.sleep(0.01)  # each is tried at once, and at a time of its own
    storage.begun, began = 0, time.monotonic()
    await asyncio.sleep(0.5)  # ten times RETRY_S
    assert 1 <= storage.begun <= 1 + (time.monotonic() - began) / writer.RETRY_S


async def test_an_idle_writer_pulses(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With nothing to write, something is, once in PULSE_S, however often there was something or nothing before; a pulse makes
    no row, says when nothing can be written, keeps nobody waiting for the end of what there is, and none comes after that.
    """
    async with ledger_on(path, Storage) as (ledger, storage):
        monkeypatch.setattr(writer, "PULSE_S", 0.05)
        for number in range(20):
            await ledger.writer.intend(Entry(Kind.CHECKPOINT, {"number": number}))
            ledger.writer.flush()
            await ledger.writer.settled()
        written, head = ledger.writer.written, ledger.writer.head
        storage.begun, began = 0, time.monotonic()
        while storage.begun < 10:
            ledger.writer.flush()  # what waits to go with a commit: nothing, which is none
            await asyncio.sleep(writer.PULSE_S / 5)
            assert time.monotonic() - began < 5
        assert (time.monotonic() - began) / writer.PULSE_S >= storage.begun - 1
        assert (ledger.writer.written, ledger.writer.head) == (written, head)
        storage.fails()
        await until(lambda: ledger.trouble)
        await heal(ledger, storage)
        async with asyncio.timeout(1):
            await ledger.writer.settled()
    storage.begun = 0
    await asyncio.sleep(3 * writer.PULSE_S)
    assert not storage.begun


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """A daemon whose disk fails by script."""
    made = card_rig("P-256")
    made.disk = disk.Disk(made.directory / "disk", "paraph.sqlite")  # type: ignore[attr-defined]
    made.environment = made.disk.environment  # type: ignore[attr-defined]
    with running(made):
        yield made


def test_f23_a_signed_document_that_cannot_be_written(rig: Rig) -> None:
    """
    F23: the room ends while a document is signed: it is answered INDETERMINATE, because it was signed, and not FAILED; who
    sends it again when there is room gets that signature.
    """
    name, content = str(uuid.uuid4()), {0: b"a document"}
    before = signed(rig)
    shim_of(rig).script("C_Sign * delay 0.3")
    with Caller(rig) as portal, ThreadPoolExecutor(1) as thread:
        sent = thread.submit(documents, portal, name, content, "CADES_B_B")
        daemon.until(lambda: signed(rig) > before, 5, "C_Sign")
        rig.disk.script("write 28")  # type: ignore[attr-defined]
        told, signature = sent.result()[0]
        rig.disk.script()  # type: ignore[attr-defined]
        shim_of(rig).clear()
        assert (pb.ItemStatus.Name(told.status), told.reason) == ("INDETERMINATE", "AUDIT_UNWRITABLE")
        assert (signature, told.retry_after_s) == (b"", 0)
        daemon.until(lambda: rig.health() == SERVING, 5, "SERVING again")
        again, signature = documents(portal, name, content, "CADES_B_B")[0]
    assert (again.status, signed(rig)) == (pb.SIGNED, before + 1)
    assert signature


def test_what_commits_is_killed(rig: Rig) -> None:
    """
    The process that commits is killed: nobody knows what it wrote, so the daemon ends with exit code 74, and the next start
    looks through the chain before it is SERVING.
    """
    assert rig.process is not None
    [committer] = children(rig.process.pid, "signer.committer")
    committer.kill()
    assert rig.process.wait(5) == EX_IOERR
    assert "the process that writes it has ended" in rig.log.read_text()
    rig.launch()
    rig.wait_serving()
    with Caller(rig) as portal:
        assert statuses(portal.sign()) == ["SIGNED"]
    assert [row.epoch for row in book(rig.state) if row.kind == Kind.EPOCH] == [1, 2]


async def test_a_group_larger_than_the_socket(opened: tuple[Ledger, Storage], path: Path) -> None:
    """Megabytes that come in one turn of the loop go to the committer in pieces, and into one commit whole."""
    ledger, storage = opened
    size = 200_000
    made = [
        ledger.writer.intend(Entry(Kind.CHECKPOINT, {"number": number, "text": "x" * size})) for number in range(40)
    ]
    assert 40 * size > 10 * ledger.writer._stream.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    await asyncio.wait_for(asyncio.gather(*made), 5)
    assert [len(group) for group in storage.commits] == [40]
    rows = [row for row in chain(SqliteDatabase(path)) if row.kind == Kind.CHECKPOINT]
    assert [(row.fields["number"], len(row.fields["text"])) for row in rows] == [(i, size) for i in range(40)]


async def test_what_nobody_waits_for_shares_a_commit(
    opened: tuple[Ledger, Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    An entry that may wait goes with the next that may not, which does not wait for it; alone it waits no longer than
    WITHIN_S, whatever it was given.
    """
    ledger, storage = opened
    monkeypatch.setattr(writer, "WITHIN_S", 5.0)
    began = time.monotonic()
    patient = ledger.writer.intend(Entry(Kind.CHECKPOINT, {"number": 1}), within_s=60.0)
    await asyncio.sleep(0.05)  # several commits' time
    assert not patient.done()
    await ledger.writer.intend(Entry(Kind.CHECKPOINT, {"number": 2}))
    assert patient.done()
    assert time.monotonic() - began < 3
    monkeypatch.setattr(writer, "WITHIN_S", 0.05)
    await ledger.writer.intend(Entry(Kind.CHECKPOINT, {"number": 3}), within_s=60.0)
    assert time.monotonic() - began < 3
    assert [len(group) for group in storage.commits] == [2, 1]


class Wrong:
    """A clock that somebody sets."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def wall(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def monotonic(self) -> float:
        return time.monotonic()


class Erasing:
    """A database whose erasers do first what they are told to (raise, or return), then what the real ones do."""

    def __init__(self, database: Database, *first: Exception) -> None:
        self._database = database
        self._first = list(first)
        self.done = 0  # times that something was really erased, or there was nothing

    def eraser(self) -> "Erasing":
        self._real: Eraser = self._database.eraser()
        return self

    def erase(self, before: int, most: int) -> int:
        if self._first:
            raise self._first.pop(0)
        erased = self._real.erase(before, most)
        self.done += 1
        return erased

    def close(self) -> None:
        self._real.close()


def old_requests(path: Path, *ages_s: float) -> None:
    """So many requests, accepted so long ago."""
    open_store(path).dispose()
    found, backend, at = started(SqliteDatabase(path))
    now = int(time.time())
    entries = [intent(uuid.uuid4().bytes, found.instance, accepted=int(now - age_s)) for age_s in ages_s]
    backend.write(entries, placed(at, found.instance, *entries))
    backend.close()


@contextlib.asynccontextmanager
async def erasing(database: Erasing, clock: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(books._keep_erasing(database, Retention(clock, ())))  # type: ignore[arg-type]
    yield
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_clock_a_day_ahead(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The clock jumps two days ahead while the daemon runs: it is believed by CLOCK_S and no more, so what is not a day old
    stays, and is not signed again.
    """
    monkeypatch.setattr(books, "ERASE_EVERY_S", 0.01)
    old_requests(path, KEEP_S - CLOCK_S / 2, KEEP_S - CLOCK_S * 2, 0)
    database, clock = Erasing(SqliteDatabase(path)), Wrong()
    async with erasing(database, clock):
        await until(lambda: database.done >= 2)
        assert counted(path, "ledger_requests") == 3
        clock.ahead = timedelta(days=2)
        done = database.done
        await until(lambda: database.done >= done + 3)
        assert counted(path, "ledger_requests") == 2


async def test_the_eraser_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock, and an error that nobody thought of: results a day old are erased the next time."""
    monkeypatch.setattr(books, "ERASE_EVERY_S", 0.01)
    old_requests(path, KEEP_S + 1)
    database = Erasing(SqliteDatabase(path), Failed("STORE_BUSY", "a lock"), sqlite3.InterfaceError("who knows"))
    async with erasing(database, Clock()):
        await until(lambda: database.done)
    assert counted(path, "ledger_requests") == 0


def exit_code(run: Callable[[Path], None], path: Path) -> int | None:
    """Of a process of its own, that ends itself."""
    child = multiprocessing.get_context("spawn").Process(target=run, args=(path,))
    child.start()
    child.join(20)
    child.kill()
    child.join()
    return child.exitcode


def _erase_in_vain(path: Path) -> None:
    fatal = Failed("AUDIT_UNWRITABLE", "EIO", is_fatal=True)
    asyncio.run(books._keep_erasing(Erasing(SqliteDatabase(path), fatal), Retention(Clock(), ())))  # type: ignore[arg-type]


def test_f24_the_erasers_fsync_fails(path: Path) -> None:
    """F24: an fsync fails while old results are erased: the process ends with exit code 74."""
    old_requests(path, KEEP_S + 1)
    assert exit_code(_erase_in_vain, path) == EX_IOERR
    assert counted(path, "ledger_requests") == 1


def _close_in_vain(path: Path) -> NoReturn:
    writer.CLOSE_S = 0.3  # type: ignore[misc]

    async def run() -> None:
        async with ledger_on(path, Storage) as (ledger, storage):
            storage.hangs()
            ledger.writer.add(Entry(Kind.CHECKPOINT, {"number": 1}, must=True))
            await until(lambda: storage.begun)

    asyncio.run(run())
    raise SystemExit("it was closed")


def test_the_disk_hangs_at_the_end(path: Path) -> None:
    """A daemon that ends while its disk hangs waits CLOSE_S and ends with exit code 74; the next start looks."""
    assert exit_code(_close_in_vain, path) == EX_IOERR
    assert not kinds(path)[Kind.CHECKPOINT]


def _close_while_nothing_can_be_written(path: Path) -> None:
    """What was to be noted, and what was to be tried again, have their time when the writer is closed already."""
    writer.RETRY_S, ledgers.FLUSH_S = 0.1, 0.02  # type: ignore[misc]

    async def run() -> None:
        async with ledger_on(path, Storage) as (ledger, storage):
            storage.fails()
            for number in range(5):
                await lost(ledger.writer.intend(Entry(Kind.CHECKPOINT, {"number": number})))
                await asyncio.sleep(0.003)
            ledger.ended("a request", delivered=True)
        await asyncio.sleep(0.2)  # the daemon has more to end

    asyncio.run(run())


def test_nothing_can_be_written_at_the_end(path: Path) -> None:
    """A daemon that ends while its disk is full ends: nothing is tried any more with what is closed."""
    assert exit_code(_close_while_nothing_can_be_written, path) == 0
