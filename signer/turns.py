"""
Whose turn is it, where callers share something that has no room for all: the event loop, the assembly processes.

The loop is one thread, and whatever arrives is handled in the order of its arrival: who sends ten thousand small calls
would have it nearly to himself. So each caller starts one call in a turn of the loop (`Starts`); his others wait, and
the calls of everybody else go by. At the assembly so many documents are in work, and callers alternate (`Places`).
"""

import asyncio
from collections import deque

WAITING_MAX = 256  # starts of one caller that wait, 10 KB each; more are not held back and must be refused


class Starts:
    """One call a caller and turn of the loop; the first one passes without waiting."""

    def __init__(self) -> None:
        self._passed: set[str] = set()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._turning = False

    async def turn(self, caller: str) -> None:
        """Returns when it is this caller's turn; the deadline is the caller's of this to keep."""
        if caller not in self._passed and caller not in self._waiting:
            self._pass(caller)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(future)
        await future

    def is_full(self, caller: str) -> bool:
        """Whether as many of this caller wait as may."""
        return len(self._waiting.get(caller, ())) >= WAITING_MAX

    def _pass(self, caller: str) -> None:
        self._passed.add(caller)
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._turning = False
        self._passed.clear()
        for caller in list(self._waiting):
            if _wake(self._waiting, caller):
                self._pass(caller)


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
