"""One request's work in the pool: its digests, and what became of each."""

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from pool.mechanism import Algorithm

SHORT_ITEMS_MAX = 16  # a person's documents; more is bulk


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
    done: asyncio.Future[list[Outcome]]
    outcomes: list[Outcome | None] = field(init=False)
    waiting: deque[tuple[int, int]] = field(init=False)
    left: int = field(init=False)
    refusals: Counter[int] = field(default_factory=Counter)  # by item: how often a token's session was lost over it
    last_problem: tuple[str, str] = ("", "")  # why items came back: reason and detail

    def __post_init__(self) -> None:
        self.outcomes = [None] * len(self.items)
        self.waiting = deque([(0, len(self.items))])
        self.left = len(self.items)

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
        self.waiting.appendleft((start, stop))

    def refused(self, index: int) -> int:
        """A token refused this item and lost its session by it: how often that happened now."""
        self.refusals[index] += 1
        return self.refusals[index]

    def settle(self, index: int, outcome: Outcome) -> None:
        """Item `index` has its outcome; the last one answers the request. A second outcome is ignored."""
        if self.outcomes[index] is None:
            self.outcomes[index] = outcome
            self.left -= 1

    def settle_rest(self, outcome: Outcome) -> None:
        """Every item without an outcome has this one."""
        self.outcomes = [outcome if known is None else known for known in self.outcomes]
        self.left = 0

    def answer(self) -> None:
        """Wake the request when nothing is left."""
        if not self.left and not self.done.done():
            self.done.set_result([outcome for outcome in self.outcomes if outcome is not None])
