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
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime
from typing import Any, NoReturn

from pool import Status
from pool.record import Unrecorded
from signer.chain import Kind
from signer.cipher import Cipher
from signer.clock import Clock, rfc3339
from signer.database import Reader, Stored
from signer.entry import Entry
from signer.errors import Refusal
from signer.limits import BATCH_CALL_S
from signer.note import Head, Note
from signer.owners import Owners
from signer.record import DIGESTS, Asked, Record
from signer.results import Part, outcomes
from signer.writer import Writer

KEEP_S = 24 * 3600  # results, for who asks again
SETTLE_LOOK_S = 0.01  # at the daemon's end, for what lanes still have
FLUSH_S = 1.0  # a note that an answer was taken waits so long for a commit to go with


class Ledger:
    def __init__(self, writer: Callable[..., Writer], reader: Reader, cipher: Cipher, clock: Clock) -> None:
        """`writer` is called with what is to be flushed with a commit, and gives the one writer."""
        self._reader = reader
        self._cipher = cipher
        self._clock = clock
        self._live: dict[tuple[bytes, int], Record] = {}
        self._owners = Owners()
        self._looking: dict[bytes, asyncio.Future[None]] = {}  # request ids that are being looked up: one at a time
        self._known_chains: set[bytes] = set()
        self._ended: dict[Kind, list[str]] = {Kind.RELEASED: [], Kind.NOT_DELIVERED: []}
        self._flush: asyncio.TimerHandle | None = None
        self._second = ("", 0.0)
        self.writer = writer(self._to_flush)
        self.recorded: Callable[[int], None] = lambda _count: None  # told of chunks, for checkpoints
        self.accepted: Callable[[float], None] = lambda _time: None  # told of the time that a new request gets
        self.may_sign: Callable[[], bool] = lambda: True  # whether checkpoints are anchored
        self.anchored_at: Callable[[], datetime | None] = lambda: None  # of when the newest is that one has
        self.is_burnt: Callable[[bytes], bool] = lambda _id: False  # whether a restore may have lost this request id

    async def enter(self, asked: Asked, deadline: float) -> Record:
        """
        The request's record; `leave` ends it. While the same request is in work this waits.

        Raises `Refusal`: REQUEST_UNKNOWN (another caller's), REQUEST_BURNT, IDEMPOTENCY_MISMATCH, AUDIT_UNWRITABLE,
        STORE_BUSY, DEADLINE_EXCEEDED.
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
        if self._is_new(asked):
            return self._begun(self._new(asked), is_new=True)
        # From here until the record is live nobody else gets past the loop above with this id.
        looked = self._looking[asked.id] = asyncio.get_running_loop().create_future()
        try:
            return self._begun(await self._look(asked), is_new=False)
        finally:
            del self._looking[asked.id]
            looked.set_result(None)

    def _begun(self, record: Record, *, is_new: bool) -> Record:
        asked = record.asked
        self._live[asked.id, asked.item] = record
        life = self._owners.enter(asked.id, asked.caller, is_digests=asked.item == DIGESTS, is_new=is_new)
        life.begin(asked.item)
        return record

    def _is_new(self, asked: Asked) -> bool:
        """Whether the database cannot have it, and need not be asked."""
        life, ids = self._owners.of(asked.id), self._reader.ids
        if life is not None and life.begun is not None:
            return asked.item not in life.begun
        return ids is not None and not ids.may_have(asked.id)

    def _new(self, asked: Asked) -> Record:
        self.check_not_burnt(asked.id)
        now = self._clock.wall()
        self.accepted(now.timestamp())
        return Record(self, asked, now, 1)

    def check_not_burnt(self, id_: bytes) -> None:
        """Of an id that the database does not have; raises `Refusal` REQUEST_BURNT."""
        if self.is_burnt(id_):
            raise Refusal("REQUEST_BURNT")

    async def _look(self, asked: Asked) -> Record:
        """The record of what is stored, or of a new request."""
        stored = await self._reader.any_of(asked.id)
        if stored is not None and asked.item != DIGESTS:
            if (stored.caller, stored.item == DIGESTS) != (asked.caller, False):
                self._refuse(asked, stored.caller)
            stored = await self._reader.request(asked.id, asked.item)
        if stored is None:
            return self._new(asked)
        self._check_same(asked, stored.caller, stored.body, stored.item)
        return await self._again(asked, stored)

    @property
    def trouble(self) -> str:
        """Why nothing may be signed now: a reason, empty if it may."""
        return self.writer.trouble or self._reader.trouble or ("" if self.may_sign() else "CHECKPOINT_OVERDUE")

    async def settled(self) -> None:
        """Returns when lanes have nothing more of any request, and all of it is on the disk."""
        while self._live:  # noqa: ASYNC110 -- once, at the daemon's end
            await asyncio.sleep(SETTLE_LOOK_S)
        await self.writer.settled()

    async def heads(self) -> tuple[Head, list[Head]]:
        """The last durable row of this daemon's chain, and those of the others in its database."""
        others = await self._reader.heads()
        sequence, hash_ = self.writer.head
        own = Head(self.writer.instance, self.writer.epoch, sequence, hash_)
        return own, [head for head in others if head.instance != own.instance]

    async def record_checkpoint(self, note: Note, token: str) -> None:
        """Put a signed checkpoint into the chain; `token` is empty for a key in a file. Raises `Unrecorded`."""
        number, time_ = note.checkpoint.number, rfc3339(note.checkpoint.time)
        anchored = self.anchored_at()  # the next start goes on counting from there
        fields = {"number": number, "note": note.checkpoint.hash.hex(), "key": note.key, "token": token, "time": time_}
        fields["anchored"] = "" if anchored is None else rfc3339(anchored)
        await self.writer.intend(Entry(Kind.CHECKPOINT, fields, note=str(note)))

    async def note(self, kind: Kind, fields: dict[str, Any]) -> None:
        """Write down what is no request's; returns when it is durable. Raises `Refusal`."""
        if self.trouble:
            raise Refusal(self.trouble)
        try:
            await self.writer.intend(Entry(kind, {**fields, "time": self.now()}))
        except Unrecorded as error:
            raise Refusal(error.reason, error.detail) from None

    def note_soon(self, kind: Kind, fields: dict[str, Any]) -> None:
        """The same without waiting; not kept for later where it cannot be written now."""
        if not self.writer.trouble:
            self.writer.add(Entry(kind, {**fields, "time": self.now()}))

    async def check_owner(self, id_: bytes, caller: str) -> Stored | None:
        """
        What is stored first of the request id; raises `Refusal` REQUEST_UNKNOWN where it is another caller's, REQUEST_BURNT
        where a restore may have lost it.
        """
        ids = self._reader.ids
        stored = None if ids is not None and not ids.may_have(id_) else await self._reader.any_of(id_)
        life = self._owners.of(id_)
        if (stored is not None and stored.caller != caller) or (life is not None and life.caller != caller):
            raise Refusal("REQUEST_UNKNOWN")
        if stored is None:
            self.check_not_burnt(id_)
        return stored

    @contextlib.asynccontextmanager
    async def opened(self, id_: bytes, caller: str) -> AsyncIterator[None]:
        """While a stream of documents is open with this request id, it is this caller's; raises as `check_owner`."""
        while (looked := self._looking.get(id_)) is not None:
            await asyncio.wait({looked})
        looked = self._looking[id_] = asyncio.get_running_loop().create_future()
        try:
            stored = await self.check_owner(id_, caller)
            # Nothing stored is nothing there, unless other daemons write, too.
            is_new = stored is None and self._reader.ids is not None
            is_digests = stored is not None and stored.item == DIGESTS  # each document will be told so
            self._owners.enter(id_, caller, is_digests=is_digests, is_new=is_new)
        finally:
            del self._looking[id_]
            looked.set_result(None)
        try:
            yield
        finally:
            self._owners.leave(id_)

    def _check_owner(self, asked: Asked) -> None:
        life = self._owners.of(asked.id)
        if life is not None and (life.caller, life.is_digests) != (asked.caller, asked.item == DIGESTS):
            self._refuse(asked, life.caller)

    def _check_same(self, asked: Asked, caller: str, body: bytes, item: int) -> None:
        if (caller, body, item) != (asked.caller, asked.body, asked.item):
            self._refuse(asked, caller)

    def _refuse(self, asked: Asked, caller: str) -> NoReturn:
        """The id is another request's, of this caller or another one; not kept for later where it cannot be written now."""
        if not self.writer.trouble:
            fields = {"request": asked.name, "caller": asked.caller, "time": self.now()}
            self.writer.add(Entry(Kind.MISMATCH, fields))
        raise Refusal("REQUEST_UNKNOWN" if caller != asked.caller else "IDEMPOTENCY_MISMATCH")

    async def _wait(self, closed: asyncio.Future[None], deadline: float) -> None:
        """Each who waits has a deadline of its own."""
        left_s = deadline - self._clock.monotonic()
        _, waiting = await asyncio.wait({closed}, timeout=max(0.0, left_s))
        if waiting:
            raise Refusal("DEADLINE_EXCEEDED")

    async def _again(self, asked: Asked, stored: Stored) -> Record:
        if stored.chain != asked.chain:  # another certificate would be put round a signature that is not its key's
            raise Refusal("CREDENTIAL_CHANGED")
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
        record.todo = places if age_s <= asked.resume_s else []
        return record

    async def parts(self, id_: bytes, item: int) -> list[Part]:
        return [Part.of(self._cipher.open(id_, item, data)) for data in await self._reader.results(id_, item)]

    async def stored(self, id_: bytes, caller: str, first: int, most: int) -> list[Stored]:
        """The items of a caller's request from `first` on: none where there are none, or none of the caller's."""
        return [one for one in await self._reader.all_of(id_, first, most) if one.caller == caller]

    async def any_of(self, id_: bytes) -> Stored | None:
        return await self._reader.any_of(id_)

    def detail(self, id_: bytes, stored: Stored) -> Any:
        return self._cipher.open(id_, stored.item, stored.detail)

    async def certificates(self, chain: bytes) -> bytes:
        return await self._reader.certificates(chain)

    def now(self) -> str:
        """The time for rows; written anew once a second."""
        text, until = self._second
        monotonic = time.monotonic()
        if monotonic >= until:
            wall = time.time()
            text = rfc3339(wall)
            self._second = (text, monotonic + 1 - wall % 1)
        return text

    # ---- for records

    def request_row(self, record: Record) -> tuple[tuple[Any, ...], tuple[bytes, bytes] | None]:
        asked = record.asked
        if self._reader.ids is not None:
            self._reader.ids.add(asked.id)
        accepted = int(record.accepted.timestamp())
        row = (
            *(asked.id, asked.item, asked.caller, asked.body, accepted),
            *(asked.count, asked.output, asked.chain, asked.detail, self.writer.instance),
        )
        chain = None if asked.chain in self._known_chains else (asked.chain, asked.certificates)
        return row, chain

    def request_is_decided(self, record: Record) -> None:
        """Its row is committed, or was not."""
        if self._reader.ids is not None:
            self._reader.ids.decided(record.asked.id)

    def chain_is_known(self, chain: bytes) -> None:
        self._known_chains.add(chain)

    def forget_chain(self, chain: bytes) -> None:
        self._known_chains.discard(chain)

    def over(self, record: Record) -> None:
        asked = record.asked
        if self._live.get((asked.id, asked.item)) is record:
            del self._live[asked.id, asked.item]
            self._owners.leave(asked.id)

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
