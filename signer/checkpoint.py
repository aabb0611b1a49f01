"""
Checkpoints: every minute the heads of the ledger's chains are signed, recorded in it and put to every anchor.

Signing goes on while anchors are away: each has a queue, and is tried again until it is back. But a ledger that nobody
else has seen for a day protects nothing:

    60 s after a checkpoint was due and no anchor has taken it      an alarm: log, `problem`, metric
    24 h after the newest that an anchor has taken was made         `may_sign` is false, until one takes a newer one

All of it belongs to one event loop; only what metrics read (`age_s`, `queued`) is read from other threads.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

from signer.anchor import Anchor, AnchorChanged, AnchorError
from signer.checkpoint_key import KEY_S, Key, NotMade
from signer.clock import Clock
from signer.note import NOTHING, Checkpoint, Head, Note, NoteError, sign

log = logging.getLogger("signer.checkpoint")

PERIOD_S = 60.0  # how much of the ledger somebody with this host could rewrite
CHUNKS_MAX = 1_000  # ... and how many of its rows at the most, when many are signed
ALARM_S = 60.0  # after a checkpoint was due: two were missed
STOP_S = 24 * 3600.0  # a night and a morning for a person to see to it
QUEUE_NOTES_MAX = 1_500  # of an anchor: a day of one a minute, 1 kB each; then nothing is signed any more
OTHERS_MAX = 50  # chains of other daemons in one: it fits into a log server's message (`anchor.SYSLOG_BYTES_MAX`)
RETRY_FIRST_S = 1.0  # after a failure; twice as long each time ...
RETRY_MAX_S = 60.0  # ... up to this: an anchor that is back gets its notes within a minute
LAST_S, LAST_LOOK_S = 2.0, 0.01  # for the one at the daemon's end: its anchors may be away

Heads = Callable[[], Awaitable[tuple[Head, Sequence[Head]]]]
Record = Callable[[Note, str], Awaitable[None]]
Pause = Callable[[asyncio.Event, float], Awaitable[None]]


class CheckpointError(Exception):
    """No checkpoint could be made; the message says why and what to do."""


async def pause(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set, at most so long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class Checkpoints:
    """
    `async with Checkpoints(...) as checkpoints:` makes them until the end; the first one at once.

    heads       the last row now of this daemon's chain, and those of the others in its database
    record      puts the signed checkpoint into the ledger, with the token that signed it, empty for a key in a file: what it
                raises means that it is not there
    last        the last one in the ledger; it is put again, since nobody knows whether it arrived
    anchored    when the newest was made that an anchor has, as `anchored_at` was before the daemon ended: else each start
                would begin the 24 h anew. None: none was ever taken
    began       when the ledger's first row was written: where none was ever taken, the 24 h count from there. None: now
    pause       waits for an event or a time, by the clock
    """

    def __init__(
        self,
        key: Key,
        heads: Heads,
        record: Record,
        anchors: Sequence[Anchor],
        *,
        last: Note | None,
        anchored: datetime | None = None,
        began: datetime | None = None,
        clock: Clock | None = None,
        pause: Pause = pause,
    ) -> None:
        self._key = key
        self._heads = heads
        self._record = record
        self._clock = clock or Clock()
        self._pause = pause
        self._last = last
        self._lines = [_Line(anchor, pause, self._taken) for anchor in anchors]
        now = self._clock.monotonic()
        self._due = now  # when the next one is to be made
        self._chunks = 0  # recorded since the last one
        self._untaken: deque[tuple[int, float]] = deque()  # (number, when it was due) of those that no anchor has
        self.anchored_at = anchored
        self._anchored = self._at(anchored or began or self._clock.wall())
        self._wake, self._changed, self._ending = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._failure = ""  # why the last one could not be made
        self._token: str | None = None  # which has signed the last one, empty for a key in a file
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for line in self._lines:
            if self._last is not None:
                line.add(self._last, self._at(self._last.checkpoint.time))
        loops = [self._keep_making(), self._keep_watch(), *(line.keep_putting() for line in self._lines)]
        self._tasks = [asyncio.create_task(each, name="checkpoints") for each in loops]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """
        The last one, so that nothing is left that no anchor has; what waits in queues is put by the next start. One that is
        being made is waited for, and if that is in vain no other is made: it may be in the ledger yet, with its number.
        """
        self._ending.set()
        self._wake.set()
        with contextlib.suppress(Exception):  # it could not be made before either, and was said
            async with asyncio.timeout(LAST_S):
                maker, *_ = self._tasks
                await asyncio.wait({maker})
                await self._make()
                while any(line.waiting for line in self._lines):  # noqa: ASYNC110 -- at most two seconds, once
                    await asyncio.sleep(LAST_LOOK_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def chunk_recorded(self, count: int = 1) -> None:
        """So many more chunks are in the ledger."""
        self._chunks += count
        now = self._clock.monotonic()
        if self._chunks >= CHUNKS_MAX and now < self._due:
            self._due = now
            self._wake.set()

    @property
    def may_sign(self) -> bool:
        """Whether an anchor has a checkpoint of the last 24 h."""
        return self.age_s < STOP_S

    @property
    def age_s(self) -> float:
        """Seconds since the newest checkpoint was made that an anchor has; before the first one, since the ledger began."""
        return self._clock.monotonic() - self._anchored

    @property
    def last_number(self) -> int:
        """The number of the last checkpoint in the ledger, 0 before the first."""
        return self._last.checkpoint.number if self._last is not None else 0

    @property
    def queued(self) -> dict[str, int]:
        """How many notes wait for each anchor, by its name."""
        return {line.anchor.name: len(line.waiting) for line in self._lines}

    @property
    def problem(self) -> str:
        """What a person must see to, in sentences; empty if nothing."""
        return " ".join(self._problems())

    def _problems(self) -> Iterator[str]:
        if self._failure:
            yield f"{self._failure}."
        yield from (f"{line.problem}." for line in self._lines if line.changed)
        others = [line.problem for line in self._lines if line.problem and not line.changed]
        why = f" ({'; '.join(others)})" if others else ""
        if not self.may_sign:
            age_h = self.age_s / 3600
            yield f"No anchor has a checkpoint of the last {age_h:.0f} h{why}: nothing is signed until one does."
        elif self._is_late():
            late_s, limit_h = self._clock.monotonic() - self._due_since(), STOP_S / 3600
            yield f"No anchor has the checkpoint that was due {late_s:.0f} s ago{why}."
            yield f"Nothing is signed once none was taken for {limit_h:.0f} h."

    def _due_since(self) -> float:
        """When the oldest checkpoint that no anchor has was due, or the next one will be."""
        return self._untaken[0][1] if self._untaken else self._due

    def _is_late(self) -> bool:
        return self._clock.monotonic() - self._due_since() >= ALARM_S

    async def _keep_making(self) -> None:
        retry_s = RETRY_FIRST_S
        while await self._is_due():
            try:
                await self._make()
            except Exception as error:  # noqa: BLE001 -- ledger and key are others' code, and it must go on
                self._fails(error)
                await self._pause(self._ending, retry_s)
                retry_s = min(2 * retry_s, RETRY_MAX_S)
            else:
                retry_s = RETRY_FIRST_S
                if self._failure:
                    self._failure = ""
                    log.info("checkpoints are made again")

    async def _is_due(self) -> bool:
        """Answers when the next one is to be made; or, with False, at the end, which makes the last one itself."""
        while not self._ending.is_set() and (wait_s := self._due - self._clock.monotonic()) > 0:
            self._wake.clear()
            await self._pause(self._wake, wait_s)
        return not self._ending.is_set()

    async def _make(self) -> None:
        began, due = self._clock.monotonic(), self._due
        self._chunks = 0
        number, previous = self.last_number + 1, self._last.checkpoint.hash if self._last is not None else NOTHING
        own, others = await self._heads()
        checkpoint = Checkpoint(number, self._clock.wall(), previous, own, self._chosen(others))
        note, token = await self._signed(checkpoint)
        await self._record(note, token)
        self._last = note
        if token != self._token:
            self._token = token
            log.info("checkpoints are signed by the key %s %s", note.key, f"on token {token}" if token else "in a file")
        if len(self._untaken) < QUEUE_NOTES_MAX:
            self._untaken.append((number, due))
        # Chunks that came while it was made are perhaps not in it: they count for the next.
        self._due = began + PERIOD_S if self._chunks < CHUNKS_MAX else self._clock.monotonic()
        self._changed.set()
        for line in self._lines:
            line.add(note, began)

    def _chosen(self, others: Sequence[Head]) -> tuple[Head, ...]:
        """Those first that have moved since the last checkpoint, where there are more than go into one: it has the others."""
        before = set(self._last.checkpoint.others) if self._last is not None else set()
        return tuple(sorted(sorted(others, key=lambda head: head in before)[:OTHERS_MAX]))

    async def _signed(self, checkpoint: Checkpoint) -> tuple[Note, str]:
        """Verified as well: a wrong signature at an anchor could never be put right. And which token has signed it."""
        key, asked = self._key, [b""]

        def ask(message: bytes) -> bytes:
            asked[0] = message
            return b""

        sign(checkpoint, key.spki, key.algorithm, ask)
        try:
            async with asyncio.timeout(KEY_S):
                made = await key.make(asked[0])
            note = sign(checkpoint, key.spki, key.algorithm, lambda _: made.signature)
            note.check(key.spki)
        except TimeoutError:
            raise CheckpointError(f"The checkpoint key has not signed within {KEY_S:g} s; look at its token") from None
        except NoteError as error:
            raise CheckpointError(f"The checkpoint key makes wrong signatures ({error}); replace it") from None
        except NotMade as error:
            raise CheckpointError(f"The checkpoint key does not sign: {error}") from None
        except Exception as error:
            raise CheckpointError(f"The checkpoint key does not sign ({error!r}); look at its token or file") from error
        return note, made.token

    def _fails(self, error: Exception) -> None:
        said = str(error) if isinstance(error, CheckpointError) else f"The ledger takes no checkpoint ({error!r})"
        if not self._failure:
            log.error("no checkpoint: %s; it is tried again", said)
        self._failure = said

    def _at(self, time: datetime) -> float:
        """When that was, by the monotonic clock; of a time to come, because the clock was set back since, now."""
        return self._clock.monotonic() - max(0.0, (self._clock.wall() - time).total_seconds())

    def _taken(self, note: Note, made: float) -> None:
        """
        An anchor has it, and with it what all before it cover. What counts is when it was made: one that has waited for a
        day says nothing of that day.
        """
        if made >= self._anchored:
            self._anchored, self.anchored_at = made, note.checkpoint.time
        while self._untaken and self._untaken[0][0] <= note.checkpoint.number:
            self._untaken.popleft()
        self._changed.set()

    async def _keep_watch(self) -> None:
        """Say once when it begins to be late, when nothing is signed any more, and when that is over."""
        late, stopped = False, False
        while True:
            self._changed.clear()
            was_late, was_stopped = late, stopped
            late, stopped = self._is_late(), not self.may_sign
            if late > was_late or stopped > was_stopped:
                log.error("%s", self.problem)
            elif was_stopped > stopped:
                log.info("an anchor takes checkpoints again: signing goes on")
            elif was_late > late:
                log.info("checkpoints are anchored again, up to number %d", self.last_number)
            now = self._clock.monotonic()
            ahead = [at - now for at in (self._due_since() + ALARM_S, self._anchored + STOP_S) if at > now]
            await self._pause(self._changed, min(ahead, default=PERIOD_S))


class _Line:
    """What waits for one anchor, in its order."""

    def __init__(self, anchor: Anchor, pause: Pause, taken: Callable[[Note, float], None]) -> None:
        self.anchor = anchor
        self.waiting: deque[tuple[Note, float]] = deque()  # each with when it was made, by the monotonic clock
        self.problem = ""  # why the last attempt failed
        self.changed = False  # whether what the anchor held was changed by somebody
        self._pause = pause
        self._taken = taken
        self._come = asyncio.Event()
        self._full = False

    def add(self, note: Note, made: float) -> None:
        """When it is full, this note is left out: the old ones fix the most, and a later one covers it."""
        if len(self.waiting) >= QUEUE_NOTES_MAX:
            if not self._full:
                log.error("%s: %d checkpoints wait, later ones are left out", self.anchor.name, QUEUE_NOTES_MAX)
            self._full = True
            return
        self.waiting.append((note, made))
        self._come.set()

    async def keep_putting(self) -> None:
        retry_s = RETRY_FIRST_S
        while True:
            while not self.waiting:
                self._come.clear()
                await self._come.wait()
            try:
                await self.anchor.put(str(self.waiting[0][0]))
            except Exception as error:  # noqa: BLE001 -- whatever it is, this note waits and is put again
                self._fails(error)
                await self._pause(asyncio.Event(), retry_s)
                retry_s = min(2 * retry_s, RETRY_MAX_S)
            else:
                retry_s = RETRY_FIRST_S
                self._works()
                self._taken(*self.waiting.popleft())

    def _fails(self, error: Exception) -> None:
        changed = isinstance(error, AnchorChanged)
        said = str(error) if isinstance(error, AnchorError) else f"{self.anchor.name}: {error!r}"
        if changed and not self.changed:
            log.error("%s", said)
        elif not self.problem:
            log.warning("%s; its checkpoints wait", said)
        self.problem, self.changed = said, changed

    def _works(self) -> None:
        if self.problem:
            log.info("%s takes checkpoints again; %d wait", self.anchor.name, len(self.waiting) - 1)
        self.problem, self.changed, self._full = "", False, False
