"""
What was asked, intended, signed and released, in writing before the next step is taken.

    enter    who asks again gets what there is: the same bytes, what is still to be signed, or a refusal
    intend   INTENT on the disk, and only then does a lane get the items
    settled  OUTCOME on the disk, with the signatures beside it, and only then is anything answered
    release  the answer was taken, or nobody was there to take it

A request's first INTENT brings its row of `ledger_requests` along, in the same commit: what was refused before leaves
nothing behind, and may be asked again. While a request is in work it is `live`, and who asks the same meanwhile waits.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from pool import Outcome, Outcomes, Status
from pool.record import Unrecorded
from signer.chain import Kind, items_hash
from signer.clock import Clock, rfc3339
from signer.errors import Refusal
from signer.limits import BATCH_CALL_S
from signer.note import Head, Note
from signer.results import Cipher, Part, Range, outcomes
from signer.writer import Entry, Writer

RESUME_S = 120  # from its acceptance on a request may go on with what came to nothing; authorisations live as long
KEEP_S = 24 * 3600  # results, for who asks again
FLUSH_S = 1.0  # a note that an answer was taken waits so long for a commit to go with
ANSWER_LATE_S = 0.5  # after its deadline a request whose outcome is not on the disk is told so
DIGESTS = -1  # the item of a request for digests


@dataclass(frozen=True, slots=True)
class Asked:
    """
    One request, or one document of one. `signed` is what the key gets, item by item; `content` the documents' digests,
    nothing with RAW; `input` the SHA-256 of the document as it came, empty for digests.
    """

    id: bytes  # 16 bytes
    item: int
    caller: str
    credential: str
    key: str
    output: str
    algorithm: str
    body: bytes
    certificates: bytes
    chain: bytes  # SHA-256 of the certificates
    detail: Any  # [scheme, hash, digests]: what the answer is made of, besides signatures and certificates
    count: int

    @property
    def name(self) -> str:
        """As it stands in rows: the UUID, and the document's index."""
        text = self.id.hex()
        uuid = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
        return uuid if self.item == DIGESTS else f"{uuid}/{self.item}"

    @property
    def key_of_results(self) -> bytes:
        return b"%s %d" % (self.id, self.item)


@dataclass(frozen=True, slots=True)
class Stored:
    """A row of ledger_requests."""

    item: int
    caller: str
    body: bytes
    accepted: int
    count: int
    output: str
    chain: bytes
    detail: bytes
    instance: str  # the daemon that has it


class Reader(Protocol):
    """Looks at what is committed; raises `Refusal` STORE_BUSY where the database does not answer."""

    async def request(self, id_: bytes, item: int) -> Stored | None: ...
    async def any_of(self, id_: bytes) -> Stored | None: ...
    async def all_of(self, id_: bytes, first: int, most: int) -> list[Stored]: ...
    async def results(self, id_: bytes, item: int) -> list[bytes]: ...
    async def certificates(self, chain: bytes) -> bytes: ...
    async def close(self) -> None: ...


class Ledger:
    def __init__(self, writer: Callable[..., Writer], reader: Reader, cipher: Cipher, clock: Clock) -> None:
        """`writer` is called with what is to be flushed with a commit, and gives the one writer."""
        self._reader = reader
        self._cipher = cipher
        self._clock = clock
        self._live: dict[tuple[bytes, int], Record] = {}
        self._owners: dict[bytes, list[Any]] = {}  # caller of a live request id, and how many items are live
        self._looking: dict[bytes, asyncio.Future[None]] = {}  # request ids that are being looked up: one at a time
        self._known_chains: set[bytes] = set()
        self._ended: dict[Kind, list[str]] = {Kind.RELEASED: [], Kind.NOT_DELIVERED: []}
        self._flush: asyncio.TimerHandle | None = None
        self._second = ("", 0.0)
        self.writer = writer(self._to_flush)
        self.recorded: Callable[[int], None] = lambda _count: None  # told of chunks, for checkpoints
        self.may_sign: Callable[[], bool] = lambda: True  # whether checkpoints are anchored
        self.anchored_at: Callable[[], datetime | None] = lambda: None  # when one was last

    async def enter(self, asked: Asked, deadline: float) -> "Record":
        """
        The request's record; `leave` ends it. While the same request is in work this waits.

        Raises `Refusal`: REQUEST_UNKNOWN (another caller's), IDEMPOTENCY_MISMATCH, AUDIT_UNWRITABLE, STORE_BUSY,
        DEADLINE_EXCEEDED.
        """
        while True:
            if (twin := self._live.get((asked.id, asked.item))) is not None:
                self._check_same(asked, twin.asked.caller, twin.asked.body, asked.item)
                await self._wait(twin.closed, deadline)
            elif (looked := self._looking.get(asked.id)) is not None:
                await self._wait(looked, deadline)
            else:
                break
        self._check_owner(asked)
        if self.trouble:
            raise Refusal(self.trouble)
        # From here until the record is live nobody else gets past the loop above with this id.
        looked = self._looking[asked.id] = asyncio.get_running_loop().create_future()
        try:
            record = await self._look(asked)
            self._live[asked.id, asked.item] = record
            self._owners.setdefault(asked.id, [asked.caller, 0])[1] += 1
        finally:
            del self._looking[asked.id]
            looked.set_result(None)
        return record

    async def _look(self, asked: Asked) -> "Record":
        """The record of what is stored, or of a new request."""
        if asked.item == DIGESTS:
            stored = await self._reader.any_of(asked.id)
        else:
            stored = await self._reader.request(asked.id, asked.item)
        if stored is None:
            return Record(self, asked, self._clock.wall(), 1)
        self._check_same(asked, stored.caller, stored.body, stored.item)
        return await self._again(asked, stored)

    @property
    def trouble(self) -> str:
        """Why nothing may be signed now: a reason, empty if it may."""
        return self.writer.trouble or ("" if self.may_sign() else "CHECKPOINT_OVERDUE")

    async def heads(self) -> list[Head]:
        """The last durable row of each chain that this daemon keeps: its own."""
        sequence, hash_ = self.writer.head
        return [Head(self.writer.instance, self.writer.epoch, sequence, hash_)]

    async def record_checkpoint(self, note: Note) -> None:
        """Put a signed checkpoint into the chain; raises `Unrecorded`."""
        number, time_ = note.checkpoint.number, rfc3339(note.checkpoint.time)
        anchored = self.anchored_at()  # the next start goes on counting from there
        fields = {"number": number, "note": note.checkpoint.hash.hex(), "key": note.key, "time": time_}
        fields["anchored"] = "" if anchored is None else rfc3339(anchored)
        await self.writer.intend(Entry(Kind.CHECKPOINT, fields, note=str(note)))

    async def check_owner(self, id_: bytes, caller: str) -> None:
        """Raises `Refusal` REQUEST_UNKNOWN where the request id is another caller's; for a stream, once."""
        stored = await self._reader.any_of(id_)
        live = self._owners.get(id_)
        if (stored is not None and stored.caller != caller) or (live is not None and live[0] != caller):
            raise Refusal("REQUEST_UNKNOWN")

    def _check_owner(self, asked: Asked) -> None:
        live = self._owners.get(asked.id)
        if live is not None:
            self._check_same(asked, live[0], asked.body, asked.item if asked.item != DIGESTS else 0)

    def _check_same(self, asked: Asked, caller: str, body: bytes, item: int) -> None:
        if (caller, body, item) == (asked.caller, asked.body, asked.item):
            return
        fields = {"request": asked.name, "caller": asked.caller, "time": self.now()}
        self.writer.add(Entry(Kind.MISMATCH, fields, must=True))
        raise Refusal("REQUEST_UNKNOWN" if caller != asked.caller else "IDEMPOTENCY_MISMATCH")

    async def _wait(self, closed: asyncio.Future[None], deadline: float) -> None:
        """Each who waits has a deadline of its own."""
        left_s = deadline - self._clock.monotonic()
        _, waiting = await asyncio.wait({closed}, timeout=max(0.0, left_s))
        if waiting:
            raise Refusal("DEADLINE_EXCEEDED")

    async def _again(self, asked: Asked, stored: Stored) -> "Record":
        parts = await self.parts(asked.id, asked.item)
        known = outcomes(stored.count, parts)
        accepted = datetime.fromtimestamp(stored.accepted, UTC)
        record = Record(self, asked, accepted, 1 + max((part.attempt for part in parts), default=1))
        record.known = known
        record.before = self.detail(asked.id, stored)
        record.has_row = True
        age_s = (self._clock.wall() - accepted).total_seconds()
        open_ = {Status.NOT_ATTEMPTED, Status.INDETERMINATE}
        places = sorted(i for i, one in known.problems.items() if one.status in open_)
        if places and stored.instance != self.writer.instance and age_s <= BATCH_CALL_S:  # that one may be at it
            raise Refusal("STORE_BUSY", "another daemon has this request")
        record.todo = places if age_s <= RESUME_S else []
        return record

    async def parts(self, id_: bytes, item: int) -> list[Part]:
        name = b"%s %d" % (id_, item)
        return [Part.of(self._cipher.open(name, data)) for data in await self._reader.results(id_, item)]

    async def stored(self, id_: bytes, caller: str, first: int, most: int) -> list[Stored]:
        """The items of a caller's request from `first` on; raises `Refusal` REQUEST_UNKNOWN."""
        found = await self._reader.all_of(id_, first, most)
        if not found or found[0].caller != caller:
            raise Refusal("REQUEST_UNKNOWN")
        return found

    async def any_of(self, id_: bytes) -> Stored | None:
        return await self._reader.any_of(id_)

    def detail(self, id_: bytes, stored: Stored) -> Any:
        return self._cipher.open(b"%s %d" % (id_, stored.item), stored.detail)

    async def certificates(self, chain: bytes) -> bytes:
        return await self._reader.certificates(chain)

    def now(self) -> str:
        """The time for rows; written anew once a second."""
        text, until = self._second
        monotonic = time.monotonic()
        if monotonic >= until:
            wall = time.time()
            text = rfc3339(datetime.fromtimestamp(wall, UTC))
            self._second = (text, monotonic + 1 - wall % 1)
        return text

    # ---- for records

    def request_row(self, record: "Record") -> tuple[tuple[Any, ...], tuple[bytes, bytes] | None]:
        asked = record.asked
        detail = self._cipher.seal(asked.key_of_results, asked.detail)
        accepted = int(record.accepted.timestamp())
        row = (
            *(asked.id, asked.item, asked.caller, asked.body, accepted),
            *(asked.count, asked.output, asked.chain, detail, self.writer.instance),
        )
        chain = None if asked.chain in self._known_chains else (asked.chain, asked.certificates)
        return row, chain

    def chain_is_known(self, chain: bytes) -> None:
        self._known_chains.add(chain)

    def forget_chain(self, chain: bytes) -> None:
        self._known_chains.discard(chain)

    def result_row(self, asked: Asked, number: int, part: Part) -> tuple[Any, ...]:
        return (asked.id, asked.item, number, self._cipher.seal(asked.key_of_results, part.value()))

    def over(self, record: "Record") -> None:
        asked = record.asked
        if self._live.get((asked.id, asked.item)) is record:
            del self._live[asked.id, asked.item]
            owner = self._owners[asked.id]
            owner[1] -= 1
            if not owner[1]:
                del self._owners[asked.id]

    def ended(self, name: str, *, delivered: bool) -> None:
        self._ended[Kind.RELEASED if delivered else Kind.NOT_DELIVERED].append(name)
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_S, self.writer.flush)

    def _to_flush(self) -> Iterable[Entry]:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        for kind, names in self._ended.items():
            if names:
                yield Entry(kind, {"requests": names.copy(), "time": self.now()}, must=True)
                names.clear()


class Record:
    """One request's, from `enter` to `leave` and until nothing of it is with a lane any more."""

    def __init__(self, ledger: Ledger, asked: Asked, accepted: datetime, attempt: int) -> None:
        self.asked = asked
        self.accepted = accepted  # the first time; signing times are made of it
        self.attempt = attempt
        self.known: Outcomes | None = None  # of earlier attempts
        self.todo: Sequence[int] | None = None  # places still to be signed; None: all
        self.has_row = False
        self.before: Any = None  # the detail of an earlier attempt
        self.content: Sequence[bytes] = ()
        self.input: Sequence[bytes] = ()
        self.signed: Sequence[bytes] = ()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ledger = ledger
        self._open = 0  # intents of which more may come
        self._unwritten = 0  # outcomes that are not on the disk
        self._stuck: Unrecorded | None = None  # why not yet
        self._waiter: asyncio.Future[None] | None = None
        self._left = False
        self._number = attempt << 32
        self._has_signed = self._is_lost = False

    def prepared(self, content: list[bytes]) -> None:
        """
        A document's digest, known only now; raises `Refusal` NOT_THE_SAME where the one that was signed is another: a
        signature is never put into what it was not made for.
        """
        if self.before is not None and self.before[2] != content:
            raise Refusal("NOT_THE_SAME")
        self.asked.detail[2] = content

    def places(self, start: int, stop: int) -> list[Range]:
        """Where the items that the pool counts from `start` to `stop` are in the request."""
        if self.todo is None:
            return [(start, stop)]
        ranges: list[Range] = []
        for place in self.todo[start:stop]:
            if ranges and ranges[-1][1] == place:
                ranges[-1] = (ranges[-1][0], place + 1)
            else:
                ranges.append((place, place + 1))
        return ranges

    def intend(self, start: int, stop: int, token: str) -> "_Intent":
        asked, ledger = self.asked, self._ledger
        fields = {
            "request": asked.name,
            "caller": asked.caller,
            "subject": asked.caller,
            "credential": asked.credential,
            "key": asked.key,
            "output": asked.output,
            "algorithm": asked.algorithm,
            "attempt": self.attempt,
            "items": self.places(start, stop),
            "input": items_hash(self.input) if self.input else "",
            "content": items_hash(self.content[start:stop]) if self.content else "",
            "signed": items_hash(self.signed[start:stop]),
            "token": token,
            "time": ledger.now(),
        }
        entry = Entry(Kind.INTENT, fields)
        if not self.has_row:
            self.has_row = True
            entry.request, entry.chain = ledger.request_row(self)
            if entry.chain is not None:
                ledger.chain_is_known(asked.chain)
        self._open += 1
        entry.then = self._intent_decided
        return _Intent(self, entry, start, stop, token, ledger.writer.intend(entry))

    def tell(self, entry: Entry, part: Part | None) -> None:
        """An outcome is written, with what is kept of it."""
        if part is not None:
            self._number += 1
            entry.result = self._ledger.result_row(self.asked, self._number, part)
            self._has_signed = self._has_signed or any(part.signatures)
        self._unwritten += 1
        entry.then = self._outcome_decided
        self._ledger.writer.add(entry)
        self._ledger.recorded(1)

    def now(self) -> str:
        return self._ledger.now()

    def _intent_decided(self, error: Unrecorded | None) -> None:
        if error is not None:  # if the request's row was to go with it, the next one brings it
            self.has_row = self.known is not None
            self._ledger.forget_chain(self.asked.chain)
            self.intent_is_over()

    def _outcome_decided(self, error: Unrecorded | None) -> None:
        """It is on the disk; or not yet, and it is tried again."""
        self._stuck = error
        if error is None:
            self._unwritten -= 1
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            if error is not None:
                waiter.set_exception(error)
            elif not self._unwritten:
                waiter.set_result(None)
            else:
                self._waiter = waiter
        self._close()

    def intent_is_over(self) -> None:
        self._open -= 1
        self._close()

    async def finish(self, deadline: float) -> None:
        """Returns when everything that was told is on the disk; raises `Refusal` where it is not."""
        if not self._unwritten:
            return
        try:
            if self._stuck is not None:
                raise self._stuck
            loop = asyncio.get_running_loop()
            waiter = self._waiter = loop.create_future()
            left_s = max(0.0, deadline - time.monotonic()) + ANSWER_LATE_S
            timer = loop.call_later(left_s, _late, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
        except Unrecorded as error:
            raise Refusal(error.reason, error.detail) from None

    def leave(self) -> None:
        """The call is over; what lanes still have is still written down."""
        self._left = True
        self._close()

    def release(self, *, delivered: bool) -> None:
        """The answer was taken; or nobody was there, and what was, or still will be, signed for it is kept."""
        if delivered or self.closed.done():
            self._end(delivered=delivered)
        else:
            self._is_lost = True

    def _end(self, *, delivered: bool) -> None:
        if self._has_signed or (self.known is not None and any(self.known.signatures)):
            self._ledger.ended(self.asked.name, delivered=delivered)

    def _close(self) -> None:
        if self._left and not self._open and not self._unwritten and not self.closed.done():
            self.closed.set_result(None)
            self._ledger.over(self)
            if self._is_lost:
                self._end(delivered=False)


def _late(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(Unrecorded("STORE_BUSY"))


class _Intent:
    """An INTENT, and what is told of it."""

    __slots__ = ("_done", "_entry", "_record", "_start", "_stop", "_token", "durable")

    def __init__(
        self, record: Record, entry: Entry, start: int, stop: int, token: str, durable: asyncio.Future[None]
    ) -> None:
        self.durable = durable
        self._record = record
        self._entry = entry
        self._start, self._stop = start, stop
        self._token = token
        self._done: set[int] | None = None  # places told before the end

    def settled(
        self, signatures: Sequence[bytes | None], problems: Mapping[int, Outcome], *, is_last: bool = True
    ) -> None:
        """Only what is new is written; an OUTCOME that closes its INTENT is, even with nothing new in it."""
        record = self._record
        done = self._done
        if done is None:
            signed = list(signatures)
        else:
            signed = [None if self._start + place in done else one for place, one in enumerate(signatures)]
            problems = {place: one for place, one in problems.items() if place not in done}
        made = [one for one in signed if one]
        if not is_last:
            if not made and not problems:
                return
            told = {self._start + place for place, one in enumerate(signed) if one} | problems.keys()
            # What could not be known yet may still turn out to be signed.
            told -= {place for place, one in problems.items() if one.status is Status.INDETERMINATE}
            self._done = (done or set()) | told
        fields: dict[str, Any] = {"signed": len(made), "signatures": items_hash(made)}
        for status in (Status.INDETERMINATE, Status.FAILED):
            places = [self._place(place) for place, one in problems.items() if one.status is status]
            if places:
                fields[status.value.lower()] = places
        fields["closed"] = is_last
        fields["time"] = record.now()
        part = None
        if made or problems:
            found = {self._place(place): (one.status.value, one.reason) for place, one in problems.items()}
            ranges = record.places(self._start, self._stop)
            part = Part(record.attempt, self._token, ranges, signed, found)
        entry = Entry(Kind.OUTCOME, fields, refers=self._entry, closes=is_last, must=True)
        record.tell(entry, part)
        if is_last:
            record.intent_is_over()

    def _place(self, index: int) -> int:
        todo = self._record.todo
        return index if todo is None else todo[index]
