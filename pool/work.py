"""One request's work in the pool: its digests, and what became of each."""

import asyncio
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, overload

from pool.mechanism import Algorithm

if TYPE_CHECKING:
    from pool.record import Record

SHORT_ITEMS_MAX = 16  # a person's documents; more is bulk

Kind = tuple[str, Algorithm]  # a key's reference and what is asked of it: what may share a frame


class Status(StrEnum):
    SIGNED = "SIGNED"
    FAILED = "FAILED"  # the token refused, or its signature was wrong: nothing of this item was released
    INDETERMINATE = "INDETERMINATE"  # it was under C_Sign when the token or the time was lost: it may have been signed
    NOT_ATTEMPTED = "NOT_ATTEMPTED"  # no token saw it


class Outcome(NamedTuple):
    """What became of one digest. `signature` is empty unless SIGNED, `reason` (errors.REASONS) empty if SIGNED."""

    status: Status
    signature: bytes = b""
    reason: str = ""
    token: str = ""
    detail: str = ""


class Outcomes(Sequence[Outcome]):
    """
    What became of each item of a request, in order.

    `signatures` has one for each item, empty where there is none; `problems` has those items' outcomes by their index.
    Whoever hurries reads these two and makes no `Outcome` for each signature.
    """

    def __init__(self, count: int) -> None:
        self.signatures: list[bytes] = [b""] * count
        self.problems: dict[int, Outcome] = {}
        self._tokens: list[tuple[int, int, str]] = []

    def __len__(self) -> int:
        return len(self.signatures)

    @overload
    def __getitem__(self, index: int) -> Outcome: ...
    @overload
    def __getitem__(self, index: slice) -> list[Outcome]: ...
    def __getitem__(self, index: int | slice) -> Outcome | list[Outcome]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        if index in self.problems:
            return self.problems[index]
        token = next((token for start, stop, token in self._tokens if start <= index < stop), "")
        return Outcome(Status.SIGNED, self.signatures[index], token=token)

    def signed(self, start: int, signatures: Sequence[bytes], token: str) -> None:
        """Items from `start` on were signed by this token."""
        stop = start + len(signatures)
        self.signatures[start:stop] = signatures
        self._tokens.append((start, stop, token))

    def statuses(self) -> Mapping[Status, int]:
        """How many items have which."""
        if not self.problems:
            return {Status.SIGNED: len(self)}
        counts = Counter(outcome.status for outcome in self.problems.values())
        counts[Status.SIGNED] = len(self) - len(self.problems)
        return +counts

    def completed(self, places: Sequence[int], others: "Outcomes") -> "Outcomes":
        """These outcomes with those of another attempt at some of their places."""
        whole = Outcomes(len(self))
        whole.signatures = list(self.signatures)
        whole.problems = dict(self.problems)
        whole._tokens = list(self._tokens)
        for place, outcome in zip(places, others, strict=True):
            if hides(whole.problems.get(place), outcome.status):
                continue
            whole.problems.pop(place, None)
            if outcome.status is Status.SIGNED:
                whole.signed(place, [outcome.signature], outcome.token)
            else:
                whole.problems[place] = outcome
        return whole

    def with_values(self, values: Sequence[bytes]) -> "Outcomes":
        """The same outcomes with something else in the place of each signature that there is."""
        other = Outcomes(len(self))
        other.signatures = list(values)
        other.problems, other._tokens = self.problems, self._tokens
        return other


def hides(before: Outcome | None, now: Status) -> bool:
    """An item that may have been signed is not one that no token saw, however the next attempt ends."""
    return before is not None and before.status is Status.INDETERMINATE and now is Status.NOT_ATTEMPTED


@dataclass(eq=False, slots=True)
class Work:
    """
    `deadline` is a time of the monotonic clock in seconds, the same in every process of the machine. `waiting` holds
    the ranges of items that no lane has: usually one, more where a lost lane gave some back.
    """

    caller: str
    key: str
    spki: bytes
    algorithm: Algorithm
    items: Sequence[bytes]
    deadline: float
    done: asyncio.Future[Outcomes]
    record: "Record | None" = None
    lease: str = ""  # a person's: the lease that it belongs to
    outcomes: Outcomes = field(init=False)
    waiting: deque[tuple[int, int]] = field(init=False)
    left: int = field(init=False)
    number: int = 0  # the backlog's: older work has a lower one
    refusals: dict[int, int] = field(default_factory=dict)  # by item: how often a token's session was lost over it
    last_problem: tuple[str, str] = ("", "")  # why items came back: reason and detail

    def __post_init__(self) -> None:
        self.outcomes = Outcomes(len(self.items))
        self.waiting = deque([(0, len(self.items))])
        self.left = len(self.items)

    @property
    def kind(self) -> Kind:
        return self.key, self.algorithm

    @property
    def revoked(self) -> str:
        """Why nothing more of it may be started, as a reason; empty while it may."""
        return self.record.revoked if self.record is not None else ""

    @property
    def is_short(self) -> bool:
        """Whether somebody is likely to wait for it."""
        return len(self.items) <= SHORT_ITEMS_MAX

    @property
    def waiting_count(self) -> int:
        return sum(stop - start for start, stop in self.waiting)

    def take(self, most: int) -> tuple[int, int]:
        """Up to `most` items from the front of what waits, as a range."""
        start, stop = self.waiting.popleft()
        if stop - start > most:
            self.waiting.appendleft((start + most, stop))
            stop = start + most
        return start, stop

    def give_back(self, start: int, stop: int) -> None:
        """Items that a lane returned untouched go before the rest."""
        if self.waiting and self.waiting[0][0] == stop:
            _, stop = self.waiting.popleft()
        self.waiting.appendleft((start, stop))

    def refused(self, index: int) -> int:
        """A token refused this item and lost its session by it: how often that happened now."""
        self.refusals[index] = self.refusals.get(index, 0) + 1
        return self.refusals[index]

    def signed(self, start: int, signatures: Sequence[bytes], token: str) -> None:
        """A run of items was signed; ignored where the request has been answered."""
        if self.left:
            self.outcomes.signed(start, signatures, token)
            self.left -= len(signatures)

    def settle(self, index: int, outcome: Outcome) -> None:
        """Item `index` has its outcome. A second outcome is ignored."""
        if self.outcomes.signatures[index] or index in self.outcomes.problems:
            return
        if outcome.status is Status.SIGNED:
            self.outcomes.signed(index, [outcome.signature], outcome.token)
        else:
            self.outcomes.problems[index] = outcome
        self.left -= 1

    def settle_rest(self, outcome: Outcome) -> None:
        """Every item without an outcome has this one."""
        outcomes = self.outcomes
        for index, signature in enumerate(outcomes.signatures):
            if not signature:
                outcomes.problems.setdefault(index, outcome)
        self.left = 0

    def answer(self) -> None:
        """Wake the request when nothing is left."""
        if not self.left and not self.done.done():
            self.done.set_result(self.outcomes)
