"""
One request in the ledger: what it is known by, and the record of it from `Ledger.enter` on until nothing of it is with a
lane any more.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from pool import Outcome, Outcomes, Status
from pool.record import Unrecorded
from signer.chain import Kind
from signer.entry import Entry
from signer.errors import Refusal
from signer.results import Part, Range

if TYPE_CHECKING:
    from signer.ledger import Ledger

RESUME_S = 120.0  # from its acceptance on a request may go on with what came to nothing; authorisations live as long
DIGESTS = -1  # the item of a request for digests
OUTCOME_S = 0.010  # while a request goes on, what is signed of it waits so long for a commit to go with
ANSWER_LATE_S = 0.5  # after its deadline a request whose outcome is not on the disk is told so


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
    resume_s: float = RESUME_S

    @property
    def name(self) -> str:
        """As it stands in rows: the UUID, and the document's index."""
        text = self.id.hex()
        uuid = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
        return uuid if self.item == DIGESTS else f"{uuid}/{self.item}"


class Record:
    """One request's, from `enter` to `leave` and until nothing of it is with a lane any more."""

    def __init__(self, ledger: "Ledger", asked: Asked, accepted: datetime, attempt: int) -> None:
        self.asked = asked
        self.accepted = accepted  # the first time; signing times are made of it
        self.attempt = attempt
        self.known: Outcomes | None = None  # of earlier attempts
        self.todo: Sequence[int] | None = None  # places still to be signed; None: all
        self.has_row = False
        self.revoked = ""  # why nothing more of it may be started
        self.before: Any = None  # the detail of an earlier attempt
        self.content: Sequence[bytes] = ()
        self.input: Sequence[bytes] = ()
        self.signed: Sequence[bytes] = ()
        self.subject = asked.caller  # who has allowed it: the caller itself, where no person must
        self.authorisation = b""  # SHA-256 of its reference
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ledger = ledger
        self._open = 0  # intents of which more may come
        self._unwritten = 0  # outcomes that are not on the disk
        self._stuck: Unrecorded | None = None  # why not yet
        self._waiter: asyncio.Future[None] | None = None
        self._left = False
        self._number = attempt << 32
        self._has_signed = self._is_in_doubt = self._is_lost = False

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

    def intend(self, start: int, stop: int, token: str, *, within_s: float = 0.0) -> "_Intent":
        asked, ledger = self.asked, self._ledger
        fields = {
            "request": asked.name,
            "caller": asked.caller,
            "subject": self.subject,
            "credential": asked.credential,
            "key": asked.key,
            "output": asked.output,
            "algorithm": asked.algorithm,
            "attempt": self.attempt,
            "items": self.places(start, stop),
            "input": "",  # these three: hashes of the items below
            "content": "",
            "signed": "",
            "token": token,
            "time": ledger.now(),
        }
        if self.authorisation:
            fields["authorisation"] = self.authorisation.hex()
        items = {"input": self.input, "content": self.content[start:stop], "signed": self.signed[start:stop]}
        entry = Entry(Kind.INTENT, fields, items=items)
        if not self.has_row:
            self.has_row = True
            entry.request, entry.chain = ledger.request_row(self)
            if entry.chain is not None:
                ledger.chain_is_known(asked.chain)
        self._open += 1
        entry.then = partial(self._intent_decided, entry)
        return _Intent(self, entry, start, stop, token, ledger.writer.intend(entry, within_s=within_s))

    def tell(self, entry: Entry, part: Part | None) -> None:
        """An outcome is written, with what is kept of it."""
        if part is not None:
            self._number += 1
            entry.result = (self.asked.id, self.asked.item, self._number, part.value())
            self._has_signed = self._has_signed or any(part.signatures)
            in_doubt = Status.INDETERMINATE.value
            self._is_in_doubt = self._is_in_doubt or any(status == in_doubt for status, _ in part.problems.values())
        self._unwritten += 1
        entry.then = self._outcome_decided
        self._ledger.writer.add(entry, within_s=OUTCOME_S)
        self._ledger.recorded(1)

    def now(self) -> str:
        return self._ledger.now()

    def _intent_decided(self, entry: Entry, error: Unrecorded | None) -> None:
        if entry.request is not None:
            self._ledger.request_is_decided(self)
        if error is None:
            return
        if entry.request is not None:  # the next one brings it
            self.has_row = False
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
        self._ledger.writer.hurry()
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

    @property
    def has_signed(self) -> bool:
        """Whether a signature was made for it, now or before."""
        return self._has_signed or (self.known is not None and any(self.known.signatures))

    @property
    def may_have_signed(self) -> bool:
        """The same, or a token had it when the token or the time was lost."""
        return self.has_signed or self._is_in_doubt

    def release(self, *, delivered: bool) -> None:
        """The answer was taken; or nobody was there, and what was, or still will be, signed for it is kept."""
        if delivered or self.closed.done():
            self._end(delivered=delivered)
        else:
            self._is_lost = True

    def _end(self, *, delivered: bool) -> None:
        if self.has_signed:
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
        """
        Only what is new is written; an OUTCOME that closes its INTENT is, even with nothing new in it. Where the INTENT is
        not decided yet, because its lane was lost before, it is waited for: an OUTCOME names a place in the chain.
        """
        if not self.durable.done():
            later = partial(self.settled, list(signatures), dict(problems), is_last=is_last)
            self.durable.add_done_callback(lambda _: later())
            return
        if self.durable.exception() is not None:  # it was never in the chain
            return
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
        fields: dict[str, Any] = {"signed": len(made), "signatures": ""}  # the hash of those in the result
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
