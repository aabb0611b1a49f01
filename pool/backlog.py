"""
The waiting line: bounded, and fair between callers by token time.

Each caller has a clock of the token time that its work took (a stride scheduler: the lowest clock is next). A caller
who comes back after a pause starts at the clock of the one being served, so that silence saves nothing up. Within a
caller short requests go before bulk, but bulk has a turn after every `SHORTS_BEFORE_BULK` of them; among their like, first
come is first served.

Rules of this file: no I/O, no clock of its own, no lock.
"""

import itertools
from collections import Counter, deque
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field

from pool.mechanism import Algorithm
from pool.work import Work

BACKLOG_ITEMS_MAX = 200_000  # about two minutes of one RSA-2048 lane; 6 MB of digests
CALLER_ITEMS_MAX = 100_000  # one caller never fills the line
SHORTS_BEFORE_BULK = 3  # turns: bulk keeps at least a quarter of its caller's


class BacklogFull(Exception):
    """The work was not taken; the message says whose limit was met."""


class TooMuch(Exception):
    """The work is more than the line or a caller's share of it holds: it can never be taken."""


class Backlog:
    def __init__(self, items_max: int = BACKLOG_ITEMS_MAX, caller_items_max: int = CALLER_ITEMS_MAX) -> None:
        self._items_max = items_max
        self._caller_items_max = caller_items_max
        self._lines: dict[str, _Line] = {}
        self._clocks: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._kinds: Counter[tuple[str, Algorithm]] = Counter()
        self._now = 0.0  # the clock of the caller served last
        self.items = 0

    def __iter__(self) -> Iterator[Work]:
        """All waiting work, in no order that means anything."""
        for line in self._lines.values():
            yield from line.short
            yield from line.bulk

    def line(self, caller: str, shorts: int) -> Iterable[Work]:
        """One caller's work in the order of its turns, after `shorts` turns of short requests in a row."""
        line = self._lines.get(caller, _Line())
        both = (line.bulk, line.short) if shorts >= SHORTS_BEFORE_BULK else (line.short, line.bulk)
        return itertools.chain(*both)

    def shorts(self) -> dict[str, int]:
        """How many turns in a row each caller had for short requests; a copy."""
        return {caller: line.shorts for caller, line in self._lines.items()}

    def waiting(self, key: str, algorithm: Algorithm) -> int:
        """How many items wait for this key and algorithm."""
        return self._kinds[key, algorithm]

    def waiting_for(self, keys: Container[str]) -> int:
        """How many items wait for these keys."""
        return sum(count for (key, _), count in self._kinds.items() if key in keys)

    def caller_items(self, caller: str) -> int:
        return self._counts.get(caller, 0)

    @property
    def callers(self) -> int:
        """How many callers wait."""
        return len(self._lines)

    def clocks(self) -> dict[str, float]:
        """The token time, in seconds, of each caller who waits; a copy."""
        return {caller: self._clocks[caller] for caller in self._lines}

    def __len__(self) -> int:
        return sum(len(line.short) + len(line.bulk) for line in self._lines.values())

    def add(self, work: Work) -> None:
        """Raises `BacklogFull` (later it may fit) or `TooMuch` (never), and changes nothing then."""
        count = work.waiting_count
        most = min(self._items_max, self._caller_items_max)
        if count > most:
            raise TooMuch(f"{count} digests; a request has at most {most}")
        if self.items + count > self._items_max:
            raise BacklogFull(f"{self.items} digests are waiting; the pool takes {self._items_max}")
        waiting = self._counts.get(work.caller, 0)
        if waiting + count > self._caller_items_max:
            raise BacklogFull(f"{waiting} digests of this caller are waiting; it may have {self._caller_items_max}")
        self._put(work, count, first=False)

    def put_back(self, work: Work, count: int) -> None:
        """Items that a lost lane returned: no limit turns them away, they were taken once."""
        line = self._lines.get(work.caller)
        if line is not None and work in line.of(work):
            self._count(work, count)
        else:
            self._put(work, count, first=True)

    def _put(self, work: Work, count: int, *, first: bool) -> None:
        caller = work.caller
        if caller not in self._lines:
            self._lines[caller] = _Line()
            self._clocks[caller] = max(self._clocks.get(caller, 0.0), self._now)
        line = self._lines[caller].of(work)
        line.appendleft(work) if first else line.append(work)
        self._count(work, count)

    def _count(self, work: Work, change: int) -> None:
        self.items += change
        self._counts[work.caller] = self._counts.get(work.caller, 0) + change
        self._kinds[work.key, work.algorithm] += change

    def taken(self, work: Work, count: int, seconds: float) -> None:
        """`count` items of it went to a lane, where they should take `seconds`."""
        self._now = self._clocks[work.caller]
        self._clocks[work.caller] += seconds
        line = self._lines[work.caller]
        line.shorts = line.shorts + 1 if work.is_short else 0
        self._count(work, -count)
        if not work.waiting:
            self._drop(work)

    def remove(self, work: Work) -> None:
        """Forget what waits of it; nothing happens if nothing does."""
        line = self._lines.get(work.caller)
        if line is not None and work in line.of(work):
            self._count(work, -work.waiting_count)
            self._drop(work)
        work.waiting.clear()

    def _drop(self, work: Work) -> None:
        line = self._lines[work.caller]
        line.of(work).remove(work)
        if not self._kinds[work.key, work.algorithm]:
            del self._kinds[work.key, work.algorithm]
        if not line.short and not line.bulk:
            del self._lines[work.caller], self._counts[work.caller]
            # A clock behind the one being served has no meaning any more.
            self._clocks = {c: t for c, t in self._clocks.items() if c in self._lines or t > self._now}


@dataclass(slots=True)
class _Line:
    """One caller's work."""

    short: deque[Work] = field(default_factory=deque)
    bulk: deque[Work] = field(default_factory=deque)
    shorts: int = 0  # turns in a row that went to short requests

    def of(self, work: Work) -> deque[Work]:
        return self.short if work.is_short else self.bulk
