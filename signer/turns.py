"""
Whose turn is it, where callers share something that has no room for all: the event loop, the assembly processes.

The loop is one thread, and gRPC hands it calls in the order of their arrival: behind who sends five hundred small ones
at a time everybody would wait for all of them. So calls are let in first and begun later (`Starts`): in a round each
caller begins a few, and a round ends when no more calls come in, so that those who wait do so here, by caller, and not
in gRPC's line. At the assembly so many documents are in work, and callers alternate (`Places`).
"""

import asyncio
import time
from collections import Counter, deque

STARTS_A_ROUND = 10  # of all callers: about 4 ms of the loop; each has his part, but at least ...
STARTS_LEAST = 2
START_BYTES = 16 * 1024  # of a request: reading 500 digests costs as much as a call
QUIET_TURNS = 3  # of the loop without a new call: gRPC needs two or three to hand over one
ROUND_MOST_S = 0.010  # the longest round: who floods with calls that are only let in does not stop those who were
SEEN_S = 0.1  # a caller who began a call so lately is at work
# The shortest, while several callers are at work: of two, one who would begin more than 1 000 a second leaves
# more than half of the loop to the other, to lanes and to answers. Alone he begins as many as there is time for.
ROUND_LEAST_S = 0.005
WAITING_MAX = 512  # starts of one caller that wait, 10 KB each; more are not held back and must be refused


class Starts:
    """So many calls a caller and round; who has begun fewer passes without waiting."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}  # who has begun calls lately, and when
        self._begun: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._turning = False
        self._quiet = 0
        self._since = 0.0

    async def turn(self, caller: str, size: int = 0) -> None:
        """
        Returns when it is this caller's turn; the deadline is the caller's of this to keep. A long request, of `size`
        bytes, counts as several.
        """
        self._quiet = 0
        self._seen[caller] = time.monotonic()
        if self._begun[caller] < self._most() and caller not in self._waiting:
            self._begin(caller, 1 + size // START_BYTES)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(future)
        await future
        if size >= START_BYTES:  # the round that woke it may be over: what is begun must always be in one that ends
            self._begin(caller, size // START_BYTES)

    def is_full(self, caller: str) -> bool:
        """Whether as many of this caller wait as may."""
        return len(self._waiting.get(caller, ())) >= WAITING_MAX

    def _most(self) -> int:
        return max(STARTS_LEAST, STARTS_A_ROUND // max(1, len(self._seen)))

    def _forget(self) -> None:
        """A caller with nothing but idle streams slows nobody down."""
        since = time.monotonic() - SEEN_S
        self._seen = {caller: at for caller, at in self._seen.items() if at > since or caller in self._waiting}

    def _begin(self, caller: str, weight: int = 1) -> None:
        self._begun[caller] += weight
        if not self._turning:
            self._turning = True
            self._since = time.monotonic()
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._quiet += 1
        loop, lasted_s = asyncio.get_running_loop(), time.monotonic() - self._since
        if len(self._seen) > 1 and lasted_s < ROUND_LEAST_S:
            loop.call_later(ROUND_LEAST_S - lasted_s, self._next)
            return
        if self._waiting and self._quiet < QUIET_TURNS and lasted_s < ROUND_MOST_S:
            loop.call_soon(self._next)
            return
        self._turning = False
        self._begun.clear()
        self._forget()
        for caller in list(self._waiting):
            while self._begun[caller] < self._most() and caller in self._waiting:
                if _wake(self._waiting, caller):
                    self._begin(caller)


class Places:
    """`count` at a time; of those who wait, callers alternate, and each one's come first served first."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def take(self, caller: str) -> None:
        """A place; to be given back."""
        if self._free and not self._waiting:
            self._free -= 1
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # its place was already given to it
                self.give_back()
            raise

    def give_back(self) -> None:
        for caller in list(self._waiting):
            if _wake(self._waiting, caller):
                if caller in self._waiting:
                    self._waiting[caller] = self._waiting.pop(caller)  # behind the others
                return
        self._free += 1


def _wake(waiting: dict[str, deque[asyncio.Future[None]]], caller: str) -> bool:
    """Wake the first of a caller who still waits; False where nobody does."""
    line = waiting[caller]
    woken = False
    while line and not woken:
        future = line.popleft()
        if not future.done():  # otherwise its call was cancelled
            future.set_result(None)
            woken = True
    if not line:
        del waiting[caller]
    return woken
