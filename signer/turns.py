"""
Whose turn is it, where callers share something that has no room for all: the event loop, the assembly processes.

The loop is one thread, and gRPC hands it calls in the order of their arrival: behind who sends five hundred small ones
at a time everybody would wait for all of them. So calls are let in first and begun later (`Starts`): in a round each
caller begins a few, and a round ends when no more calls come in, so that those who wait do so here, by caller, and not
in gRPC's line. An assembly process is with a document for milliseconds or for seconds, which nobody knows before: they are
shared by the time that each caller's documents took (`Places`).
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from signer.limits import CALLER_WAITING_BYTES_MAX

T = TypeVar("T")

STARTS_A_ROUND = 10  # of all callers: about 4 ms of the loop; each has his part, but at least ...
STARTS_LEAST = 2
START_BYTES = 4 * 1024  # of a request: 120 digests. Of two callers each may then still send 120 000 a second
QUIET_TURNS = 3  # of the loop without a new call: gRPC needs two or three to hand over one
ROUND_MOST_S = 0.010  # the longest round: who floods with calls that are only let in does not stop those who were
SEEN_S = 0.25  # a caller who began a call so lately is at work: batches of a slow token come a few times a second
# The shortest, while several callers are at work: of two, one who would begin more than 1 000 a second leaves more than half
# of the loop to the other, to lanes and to answers (where the loop alone is looked at, and not the lanes beside it, the other
# keeps 0.7 of his share). Alone he begins as many as there is time for, and nearly as many beside one who calls now and then.
ROUND_LEAST_S = 0.005
WAITING_MAX = 512  # starts of one caller that wait, 10 KB each; more are not held back and must be refused

_Waiting = dict[str, deque[tuple[asyncio.Future[None], int]]]  # by caller, with what each counts


class Starts:
    """
    So many calls a caller and round; who has begun fewer passes without waiting. A long request counts as several, and
    what it counts past its caller's part of this round is taken off the next ones.

    `at_work` says whether a caller has something with the tokens.
    """

    def __init__(self) -> None:
        self.at_work: Callable[[str], bool] = lambda _caller: True
        self._seen: dict[str, float] = {}  # who has begun calls lately, and when
        self._begun: Counter[str] = Counter()
        self._waiting: _Waiting = {}
        self._bytes: Counter[str] = Counter()  # of the requests that wait
        self._turning = False
        self._quiet = 0
        self._since = 0.0

    async def turn(self, caller: str, size: int = 0) -> None:
        """Returns when a request of `size` bytes has its turn; the deadline is the caller's of this to keep."""
        self._quiet = 0
        self._seen[caller] = time.monotonic()
        weight = 1 + size // START_BYTES
        if self._begun[caller] < self._most(caller) and caller not in self._waiting:
            self._begin(caller, weight)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append((future, weight))
        self._bytes[caller] += size
        try:
            await future
        finally:
            self._bytes[caller] -= size
            if not self._bytes[caller]:
                del self._bytes[caller]

    def has_room(self, caller: str, size: int) -> bool:
        """Whether a request of `size` bytes may wait with those of this caller that do; one always may."""
        held = self._bytes.get(caller, 0)
        return not held or held + size <= CALLER_WAITING_BYTES_MAX

    def is_full(self, caller: str) -> bool:
        """Whether as many of this caller wait as may."""
        return len(self._waiting.get(caller, ())) >= WAITING_MAX

    def _most(self, caller: str) -> int:
        """How many a caller may begin in a round: his part, of those who are at work with him."""
        return max(
            STARTS_LEAST, STARTS_A_ROUND // (1 + sum(self._works(other) for other in self._seen if other != caller))
        )

    def _works(self, caller: str) -> bool:
        return caller in self._waiting or self.at_work(caller)

    def _forget(self) -> None:
        """A caller with nothing but idle streams slows nobody down."""
        since = time.monotonic() - SEEN_S
        self._seen = {caller: at for caller, at in self._seen.items() if at > since or caller in self._waiting}

    def _begin(self, caller: str, weight: int) -> None:
        self._begun[caller] += weight
        self._turn_round()

    def _turn_round(self) -> None:
        if not self._turning:
            self._turning = True
            self._since = time.monotonic()
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._quiet += 1
        loop, lasted_s = asyncio.get_running_loop(), time.monotonic() - self._since
        if lasted_s < ROUND_LEAST_S and sum(map(self._works, self._seen)) > 1:
            loop.call_later(ROUND_LEAST_S - lasted_s, self._next)
            return
        if self._waiting and self._quiet < QUIET_TURNS and lasted_s < ROUND_MOST_S:
            loop.call_soon(self._next)
            return
        self._turning = False
        left = {caller: begun - self._most(caller) for caller, begun in self._begun.items()}
        self._begun = Counter({caller: begun for caller, begun in left.items() if begun > 0})
        self._forget()
        for caller in list(self._waiting):
            while self._begun[caller] < self._most(caller) and caller in self._waiting:
                self._begun[caller] += _wake(self._waiting, caller)
        self._begun = +self._begun
        if self._begun:
            self._turn_round()


class Places(Generic[T]):
    """
    What callers share, `count` at a time. Each caller has a clock of the seconds that it has had some for, and the lowest
    is next, as at the tokens (pool/backlog.py); within a caller, first come is first served. One more than `count`, where
    there is one, goes to a caller who has none: so no single caller, whatever it does with them, has all.
    """

    def __init__(self, count: int, now: Callable[[], float] = time.monotonic) -> None:
        self._count = count
        self._now = now
        self._free: deque[T] = deque()
        self._taken: dict[str, set[Place[T]]] = {}  # by caller, who has one at least
        self._waiting: dict[str, deque[Place[T]]] = {}
        self._used: dict[str, float] = {}  # seconds, of what was given back; of callers who are away, too, while ahead
        self._reached = 0.0  # the highest clock of those who were served

    def add(self, what: T) -> None:
        """There is one more, or this one again."""
        self._free.append(what)
        self._give()

    async def take(self, caller: str) -> "Place[T]":
        """One of them; the place is to be ended, and what was given to be added again."""
        place = Place(caller, asyncio.get_running_loop().create_future())
        if caller not in self._waiting:  # silence saves nothing up
            behind_s = self._reached - self._clock(caller)
            self._used[caller] = self._used.get(caller, 0.0) + max(0.0, behind_s)
        self._waiting.setdefault(caller, deque()).append(place)
        self._give()
        try:
            await place.given
        except asyncio.CancelledError:
            if place in self._taken.get(caller, ()):  # it was already given to it
                self.end(place)
                self.add(place.given.result())
            else:
                self._leave(place)
            raise
        return place

    def end(self, place: "Place[T]", more_s: float = 0.0) -> None:
        """Its caller has it no longer; it used the time since it was given, and so much more."""
        caller = place.caller
        self._used[caller] += self._now() - place.since + more_s
        self._taken[caller].discard(place)
        if not self._taken[caller]:
            del self._taken[caller]
        self._forget()
        self._give()

    def _clock(self, caller: str) -> float:
        """The seconds that it has used, with those of what it has now."""
        now = self._now()
        return self._used.get(caller, 0.0) + sum(now - place.since for place in self._taken.get(caller, ()))

    def _give(self) -> None:
        while self._free and (caller := self._next()) is not None:
            place = self._waiting[caller][0]
            self._leave(place)
            if place.given.done():  # its call was cancelled
                continue
            self._reached = max(self._reached, self._clock(caller))
            place.since = self._now()
            self._taken.setdefault(caller, set()).add(place)
            place.given.set_result(self._free.popleft())

    def _next(self) -> str | None:
        callers = list(self._waiting)
        if sum(map(len, self._taken.values())) >= self._count:
            callers = [caller for caller in callers if caller not in self._taken]
        return min(callers, key=self._clock, default=None)

    def _leave(self, place: "Place[T]") -> None:
        line = self._waiting.get(place.caller, deque())
        if place in line:
            line.remove(place)
            if not line:
                del self._waiting[place.caller]

    def _forget(self) -> None:
        """A clock behind that of who was served has no meaning any more."""
        here = self._waiting.keys() | self._taken.keys()
        self._used = {caller: s for caller, s in self._used.items() if caller in here or s > self._reached}


@dataclass(eq=False, slots=True)
class Place(Generic[T]):
    """One caller's turn: `given` is what it waits for, and then has."""

    caller: str
    given: asyncio.Future[T]
    since: float = 0.0  # when it was given


def _wake(waiting: _Waiting, caller: str) -> int:
    """Wake the first of a caller who still waits: what it counts, 0 where nobody does."""
    line = waiting[caller]
    woken = 0
    while line and not woken:
        future, weight = line.popleft()
        if not future.done():  # otherwise its call was cancelled
            future.set_result(None)
            woken = weight
    if not line:
        del waiting[caller]
    return woken
