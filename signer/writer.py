"""
The one thread that writes the ledger: what comes while a commit is under way shares the next one.

Entries are written in the order they came in. Their places in the chain are given here, because only what is really
written has one. A commit that fails leaves nothing behind: intents are told, and are not acted upon; what must not be
forgotten stays in front of the line and is tried again. A failed fsync ends the process: what is on the disk then is not
known, and a second fsync would not tell (the kernel forgets the error with the first).
"""

import asyncio
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pool.pressure import Pressure
from pool.record import Unrecorded
from signer.chain import Kind, Row, after

log = logging.getLogger("signer.ledger")

STALL_S = 0.5  # a commit that takes so long is a disk that hangs: health says so within a second
# On a busy loop a commit waits so long for company: each costs 0.2 ms of processor, and a turn of the loop's thread.
GATHER_S = 0.002
RETRY_S = 0.25  # after a failed commit
CLOSE_S = 10.0  # for the last commit, at the daemon's end
EX_IOERR = 74  # the process's exit code after a failed fsync (sysexits.h)


class Failed(Exception):
    """A commit failed and left nothing. `reason` is what requests are answered; `is_fatal`: what is on the disk is unknown."""

    def __init__(self, reason: str, detail: str, *, is_fatal: bool = False) -> None:
        self.reason = reason
        self.detail = detail
        self.is_fatal = is_fatal
        super().__init__(f"{reason}: {detail}")


class Taken(Exception):
    """
    Another daemon has the requests that these entries bring: nothing of the commit was written. Without them, and what
    else is intended for those requests, it can be.
    """

    def __init__(self, entries: "Sequence[Entry]") -> None:
        self.names = {entry.fields["request"] for entry in entries}
        super().__init__(f"another daemon has {', '.join(sorted(self.names))}")


@dataclass(eq=False, slots=True)
class Entry:
    """
    A row of the chain, and what is written with it in one transaction. `fields` is completed at the time of writing: an
    OUTCOME names the place of the INTENT it `refers` to, and `closes` says that nothing of that is open any more.
    """

    kind: Kind
    fields: dict[str, Any]
    request: tuple[Any, ...] | None = None  # a row of ledger_requests
    result: tuple[Any, ...] | None = None  # a row of ledger_results
    chain: tuple[bytes, bytes] | None = None  # a row of ledger_chains, where there is none yet
    note: str = ""  # the checkpoint that this instance goes on from
    refers: "Entry | None" = None
    closes: bool = False
    must: bool = False  # it is not forgotten when a commit fails
    # Told None when it is durable; and why not yet, or not at all, for each commit that failed.
    then: Callable[[Unrecorded | None], None] | None = None
    sequence: int = 0  # its place, once it is written
    durable: asyncio.Future[None] | None = None  # unless it must be written


class Backend(Protocol):
    """A database, used by the writer's thread alone."""

    def write(self, entries: Sequence[Entry], rows: Sequence[tuple[Row, int | None]]) -> None:
        """Put everything into one transaction and make it durable; raises `Failed`, or `Taken`."""

    def pulse(self) -> None:
        """Write something that means nothing, durably; raises `Failed`."""

    def close(self) -> None: ...


@dataclass(eq=False, slots=True)
class _Group:
    """What goes with one commit."""

    entries: list[Entry] = field(default_factory=list)
    problem: Failed | None = None
    taken: list[Entry] = field(default_factory=list)  # intents for requests that are another daemon's


class Writer:
    """
    Entries of one chain, in its epoch, from `previous` and `sequence` on. Belongs to one event loop; `flushed` is asked
    for what is to be written with the next commit although it starts none.
    """

    def __init__(
        self,
        backend: Backend,
        instance: str,
        epoch: int,
        previous: bytes,
        sequence: int = 0,
        flushed: Callable[[], Iterable[Entry]] = tuple,
    ) -> None:
        self.instance, self.epoch = instance, epoch
        self.problem: Failed | None = None  # of the last commit
        self.written = 0  # entries, ever
        self.head = (sequence, previous)  # of what is durable
        self._backend = backend
        self._flushed = flushed
        self._loop = asyncio.get_running_loop()
        self._next = _Group()
        self._pressure = Pressure()
        self._began = 0.0  # when the thread was given what it has; 0: it has nothing
        self._soon = self._flushing = False
        self._closed = asyncio.Event()
        self._closing = False
        self._queue: queue.SimpleQueue[_Group | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def add(self, entry: Entry) -> None:
        """Write it, of those that must be again and again; what becomes of it is told by `then`."""
        self._next.entries.append(entry)
        self._go_soon()

    def intend(self, entry: Entry) -> asyncio.Future[None]:
        """The same for one that is written or not; the future of its commit fails with `Unrecorded`."""
        entry.durable = self._loop.create_future()
        self.add(entry)
        return entry.durable

    def flush(self) -> None:
        """Write what waits for a commit to go with."""
        self._flushing = True
        self._go_soon()

    async def settled(self) -> None:
        """Returns when everything is written that there is; not while nothing can be written."""
        self.flush()
        while self._next.entries or self._began or self._flushing:  # noqa: ASYNC110 -- a commit or two, once
            await asyncio.sleep(GATHER_S)

    @property
    def trouble(self) -> str:
        """Why nothing can be written now: a reason, empty if it can."""
        if self.problem is not None:
            return self.problem.reason
        return "STORE_BUSY" if self._began and time.monotonic() - self._began > STALL_S else ""

    async def close(self) -> None:
        """Write what there is, once more if it must be, and end the thread."""
        self._closing = True
        self._go_soon()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._closed.wait()
        except TimeoutError:
            log.critical("the ledger's disk does not answer: the process ends, and the next start sees what is missing")
            os._exit(EX_IOERR)
        self._queue.put(None)
        self._thread.join()

    def _go_soon(self) -> None:
        """
        With what else comes in this turn of the loop and the next, so that what a lane has done and what it gets instead
        share a commit; under load with what comes a little later, too.
        """
        if self._soon or self._began:
            return
        self._soon = True
        if self._closing or not self._pressure.is_high:
            self._loop.call_soon(self._loop.call_soon, self._go)
        else:
            self._loop.call_later(GATHER_S, self._go)

    def _go(self) -> None:
        self._soon = False
        if self._began:
            return
        if self.problem is None and (self._next.entries or self._flushing or self._closing):
            self._flushing = False
            self._next.entries += self._flushed()
        if not self._next.entries and self.problem is None:
            if self._closing:
                self._closed.set()
            return
        group, self._next = self._next, _Group()
        self._began = time.monotonic()
        self._queue.put(group)

    def _done(self, group: _Group) -> None:
        self._began = 0.0
        before, self.problem = self.problem, group.problem
        if group.problem is None:
            self.written += len(group.entries)
            if group.taken:
                self._refuse(group.taken)
            for entry in group.entries:
                if entry.durable is not None and not entry.durable.done():  # whoever waited may have gone
                    entry.durable.set_result(None)
                if entry.then is not None:
                    entry.then(None)
            self._go_soon()
        else:
            # What came meanwhile may count upon what was lost: no intent of it is written either.
            came, self._next = self._next, _Group()
            entries = [*group.entries, *group.taken, *came.entries]
            error = Unrecorded(group.problem.reason, group.problem.detail)
            kept = [entry for entry in entries if entry.must]
            self._next.entries[:0] = kept
            _fail(entries, error)
            if self._closing:
                log.critical("%d rows could not be written before the end", len(self._next.entries))
                self._closed.set()
            else:
                self._loop.call_later(RETRY_S, self._go_soon)
        if (before is None) != (self.problem is None):
            if self.problem is not None:
                log.error("the ledger cannot be written, nothing is signed: %s", self.problem)
            else:
                log.info("the ledger can be written again")

    def _refuse(self, taken: Sequence[Entry]) -> None:
        """These, and what came meanwhile and counts upon them."""
        error = Unrecorded("STORE_BUSY", "another daemon has this request")
        names = {entry.fields["request"] for entry in taken}
        came = _intents(self._next.entries, names)
        self._next.entries = [entry for entry in self._next.entries if entry not in came]
        _fail([*taken, *came], error)

    # ---- the thread

    def _run(self) -> None:
        try:
            while (group := self._queue.get()) is not None:
                try:
                    self._write(group)
                except Failed as failed:
                    group.problem = failed
                    if failed.is_fatal:
                        log.critical("the ledger's storage has failed, the process ends: %s", failed.detail)
                        os._exit(EX_IOERR)
                except Exception as error:
                    log.exception("the ledger's writer failed")
                    group.problem = Failed("AUDIT_UNWRITABLE", str(error))
                self._loop.call_soon_threadsafe(self._done, group)
        finally:
            self._backend.close()

    def _write(self, group: _Group) -> None:
        if not group.entries:
            self._backend.pulse()
        while group.entries:
            rows = self._placed(group.entries)
            try:
                self._backend.write(group.entries, rows)
            except Taken as taken:
                others = _intents(group.entries, taken.names)
                group.taken += others
                group.entries = [entry for entry in group.entries if entry not in others]
            else:
                last = rows[-1][0]
                self.head = (last.sequence, last.hash)
                return

    def _placed(self, entries: Sequence[Entry]) -> list[tuple[Row, int | None]]:
        """The rows that these make behind the last one, each with the INTENT that it closes."""
        sequence, previous = self.head
        rows: list[tuple[Row, int | None]] = []
        for entry in entries:
            sequence += 1
            fields: Mapping[str, Any] = entry.fields
            if entry.refers is not None:
                fields = {"intent": entry.refers.sequence, **fields}
            row = after(self.instance, self.epoch, sequence, previous, entry.kind, dict(fields))
            entry.sequence, previous = sequence, row.hash
            rows.append((row, entry.refers.sequence if entry.closes and entry.refers is not None else None))
        return rows


def _intents(entries: Sequence[Entry], requests: set[str]) -> list[Entry]:
    return [entry for entry in entries if entry.kind is Kind.INTENT and entry.fields["request"] in requests]


def _fail(entries: Sequence[Entry], error: Unrecorded) -> None:
    for entry in entries:
        if entry.durable is not None and not entry.durable.done():
            entry.durable.set_exception(error)
            entry.durable.exception()  # nobody may be waiting
        if entry.then is not None:
            entry.then(error)
