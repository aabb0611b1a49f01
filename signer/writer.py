"""
The loop's end of writing the ledger: what comes while a commit is under way shares the next one.

Entries are written in the order they came in, by a process of its own (`committer.py`); it gives them their places in
the chain, because only what is really written has one. A commit that fails leaves nothing behind: intents are told, and
are not acted upon; what must not be forgotten stays in front of the line and is tried again. A failed fsync ends the
process: what is on the disk then is not known, and a second fsync would not tell (the kernel forgets the error with the
first). Where nothing is written for a while, a group of nothing is (the backend's pulse): a disk that is full must be
noticed before somebody wants something signed.
"""

import asyncio
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

from pool.pressure import Pressure
from pool.record import Unrecorded
from signer.entry import Entry, Failed, Unpacker, packed

log = logging.getLogger("signer.ledger")

STALL_S = 0.5  # a commit that takes so long is a disk that hangs: health says so within a second
# On a busy loop a commit waits so long for company, whoever waits for it: each costs 0.3 ms of processor.
GATHER_S = 0.002
WITHIN_S = 0.010  # the longest that one waits for company although nobody waits for it: a quarter of a frame
RETRY_S = 0.25  # after a failed commit
PULSE_S = 0.35  # after the last commit: with STALL_S, and health's look ten times a second, within a second
CLOSE_S = 10.0  # for the last commit, at the daemon's end
EX_IOERR = 74  # the process's exit code after a failed fsync (sysexits.h)
_READ_BYTES = 1 << 16


class Writer:
    """
    Entries of one chain, in its epoch, from `previous` and `sequence` on; `stream` leads to its committer. Belongs to one
    event loop; `flushed` is asked for what is to be written with the next commit although it starts none.
    """

    def __init__(
        self,
        stream: socket.socket,
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
        self._flushed = flushed
        self._loop = asyncio.get_running_loop()
        self._next: list[Entry] = []
        self._under_way: list[Entry] = []
        self._pressure = Pressure()
        self._began = 0.0  # when the committer was given what it has; 0: it has nothing
        self._due = math.inf  # when the next commit begins, unless one is under way then
        self._timer: asyncio.Handle | None = None
        self._flushing = False
        self._closed = asyncio.Event()
        self._closing = False
        self._unpacker = Unpacker()
        self._unsent = memoryview(b"")
        self._stream = stream
        stream.setblocking(False)
        self._loop.add_reader(stream, self._readable)
        self._answered = self._loop.time()  # when the last commit was
        self._rest()

    def add(self, entry: Entry, *, within_s: float = 0.0) -> None:
        """
        Write it, within so many seconds if that gives it company; of those that must be, again and again. What becomes of
        it is told by `then`.
        """
        self._next.append(entry)
        self._go_within(within_s)

    def intend(self, entry: Entry, *, within_s: float = 0.0) -> asyncio.Future[None]:
        """The same for one that is written or not; the future of its commit fails with `Unrecorded`."""
        entry.durable = self._loop.create_future()
        self.add(entry, within_s=within_s)
        return entry.durable

    def hurry(self) -> None:
        """Somebody waits for what was added."""
        self._go_within(0.0)

    def flush(self) -> None:
        """Write what waits for a commit to go with."""
        self._flushing = True
        self._go_within(0.0)

    async def settled(self) -> None:
        """Returns when everything is written that there is; not while nothing can be written."""
        self.flush()
        while self._next or self._began or self._flushing:  # noqa: ASYNC110 -- a commit or two, once
            await asyncio.sleep(GATHER_S)

    @property
    def trouble(self) -> str:
        """Why nothing can be written now: a reason, empty if it can."""
        if self.problem is not None:
            return self.problem.reason
        return "STORE_BUSY" if self._began and time.monotonic() - self._began > STALL_S else ""

    async def close(self) -> None:
        """Write what there is, once more if it must be; the committer ends with its stream."""
        self._closing = True
        self._go_within(0.0)
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._closed.wait()
        except TimeoutError:
            log.critical("the ledger's disk does not answer: the process ends, and the next start sees what is missing")
            os._exit(EX_IOERR)
        self._loop.remove_reader(self._stream)
        self._stream.close()

    def _go_within(self, seconds: float) -> None:
        """
        The earliest of what was asked counts. At once is with what else comes in this turn of the loop and the next, so
        that what a lane has done and what it gets instead share a commit.
        """
        wait_s = 0.0 if self._closing else max(min(seconds, WITHIN_S), GATHER_S if self._pressure.is_high else 0.0)
        due = self._loop.time() + wait_s
        if due >= self._due:
            return
        self._due = due
        if not self._began:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wait_s = self._due - self._loop.time()
        if wait_s > 0:
            self._timer = self._loop.call_later(wait_s, self._go, False)
        else:
            self._timer = self._loop.call_soon(self._loop.call_soon, self._go, False)

    def _rest(self) -> None:
        """There is nothing to write: the next commit is a pulse, unless something comes before."""
        self._timer = self._loop.call_at(self._answered + PULSE_S, self._go, True)

    def _go(self, is_pulse: bool) -> None:
        if self._timer is not None:  # the one that has run out, or else that of a pulse, which is not wanted any more
            self._timer.cancel()
            self._timer = None
        if self._began or self._closed.is_set():
            return
        self._due = math.inf
        if self.problem is None and (self._next or self._flushing or self._closing):
            self._flushing = False
            self._next += self._flushed()
        if not self._next and self.problem is None and not is_pulse:
            if self._closing:
                self._closed.set()
            else:
                self._rest()
            return
        self._under_way, self._next = self._next, []
        self._began = time.monotonic()
        self._unsent = memoryview(packed([entry.sent() for entry in self._under_way]))
        self._send()

    def _send(self) -> None:
        """What the committer does not take at once, it takes in pieces."""
        try:
            self._unsent = self._unsent[self._stream.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            _end(f"the process that writes it takes nothing more ({error.strerror})")
        if self._unsent:
            self._loop.add_writer(self._stream, self._go_on_sending)

    def _go_on_sending(self) -> None:
        self._loop.remove_writer(self._stream)
        self._send()

    def _readable(self) -> None:
        try:
            data = self._stream.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            _end(f"the process that writes it is lost ({error.strerror})")
        if not data:
            _end("the process that writes it has ended")
        for first, hash_, taken, problem in self._unpacker.feed(data):
            self._began, self._answered, entries = 0.0, self._loop.time(), self._under_way
            self._under_way = []
            if problem is None:
                self._written(entries, first, hash_, frozenset(taken))
            else:
                reason, detail, is_fatal = problem
                self._failed(entries, Failed(reason, detail, is_fatal=is_fatal))

    def _written(self, entries: Sequence[Entry], first: int, hash_: bytes, taken: frozenset[int]) -> None:
        if self.problem is not None:
            self.problem = None
            log.info("the ledger can be written again")
        if taken:
            self._refuse([entries[number] for number in sorted(taken)])
            entries = [entry for number, entry in enumerate(entries) if number not in taken]
        self.written += len(entries)
        self.head = (first - 1 + len(entries), hash_)
        for sequence, entry in enumerate(entries, first):
            entry.sequence = sequence
            if entry.durable is not None and not entry.durable.done():  # whoever waited may have gone
                entry.durable.set_result(None)
            if entry.then is not None:
                entry.then(None)
        if self._closing or self._flushing:
            self._due = 0.0  # until nothing is left; what was to be flushed while nothing could be written is, now
        if self._due < math.inf:
            self._set_timer()
        else:
            self._rest()

    def _failed(self, entries: Sequence[Entry], problem: Failed) -> None:
        if problem.is_fatal:
            _end(problem.detail)
        if self.problem is None:
            log.error("the ledger cannot be written, nothing is signed: %s", problem)
        self.problem, self._due = problem, self._loop.time() + RETRY_S
        # What came meanwhile may count upon what was lost: no intent of it is written either.
        entries = [*entries, *self._next]
        self._next = [entry for entry in entries if entry.must]
        _fail(entries, Unrecorded(problem.reason, problem.detail))
        if self._closing:
            log.critical("%d rows could not be written before the end", len(self._next))
            self._closed.set()
        else:
            self._set_timer()

    def _refuse(self, taken: Sequence[Entry]) -> None:
        """These, and what came meanwhile and counts upon them."""
        error = Unrecorded("STORE_BUSY", "another daemon has this request")
        names = {entry.fields["request"] for entry in taken}
        came = [entry for entry in self._next if entry.is_intent_for(names)]
        self._next = [entry for entry in self._next if entry not in came]
        _fail([*taken, *came], error)


def _fail(entries: Sequence[Entry], error: Unrecorded) -> None:
    for entry in entries:
        if entry.durable is not None and not entry.durable.done():
            entry.durable.set_exception(error)
            entry.durable.exception()  # nobody may be waiting
        if entry.then is not None:
            entry.then(error)


def _end(why: str) -> NoReturn:
    """Nobody knows what is on the disk: the next start looks."""
    log.critical("the ledger's storage has failed, the process ends: %s", why)
    os._exit(EX_IOERR)
