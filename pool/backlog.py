"""
The waiting line: bounded, and fair between callers by token time.

Each caller has a clock of the token time that its work took, and of what its requests cost besides (a stride scheduler:
the lowest clock is next): one for each set of lanes that have keys in common, because a card and an HSM are not shared by
who waits for one of them alone, and their clocks run apart. A caller
who comes back after a pause starts at the clock of the one being served, so that silence saves nothing up. Within a
caller short requests go before bulk, but bulk has a turn after every `SHORTS_BEFORE_BULK` of them; among their like, first
come is first served.

Work is kept by its kind and caller, so that whoever looks for the next finds it without looking at the others: a
hundred thousand single digests must not make each decision a hundred thousand steps long.

Rules of this file: no I/O, no clock of its own, no lock.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field

from pool.work import Kind, Work

BACKLOG_ITEMS_MAX = 200_000  # about two minutes of one RSA-2048 lane; 6 MB of digests
CALLER_ITEMS_MAX = 100_000  # one caller never fills the line
# What a request costs the processors before and behind the token, whatever its size (measured, with its rows in the ledger:
# 0.5 to 0.65 ms): a flood of single digests would otherwise take from the lanes' processors what nobody counts.
REQUEST_S = 0.0006
GIVEN_BACK_MOST_S = 1.0  # token time that comes back at once: two frames of a dozen lanes
SHORTS_BEFORE_BULK = 3  # turns: bulk keeps at least a quarter of its caller's


def cost(work: Work, count: int, seconds: float) -> float:
    """What so many items of it, which take a lane so long, take of their caller's share: their part of the request's cost with it."""
    return seconds + REQUEST_S * count / len(work.items)


class BacklogFull(Exception):
    """The work was not taken; the message says whose limit was met."""


class TooMuch(Exception):
    """The work is more than the line or a caller's share of it holds: it can never be taken."""


class Backlog:
    def __init__(self, items_max: int = BACKLOG_ITEMS_MAX, caller_items_max: int = CALLER_ITEMS_MAX) -> None:
        # Of a key: the name of the set of lanes that it is signed by, '' where all are one set.
        self.lanes_of: Callable[[str], str] = lambda _key: ""
        self._items_max = items_max
        self._caller_items_max = caller_items_max
        self._lines: dict[Kind, dict[str, CallerLine]] = {}
        self._lanes: dict[Kind, str] = {}  # of what waits: by which it was when it began to wait
        self._shares: dict[str, Share] = {}
        self._callers: Counter[str] = Counter()  # items
        self._kinds: Counter[Kind] = Counter()
        self.added = 0  # requests, ever
        self.items = 0

    def __iter__(self) -> Iterator[Work]:
        """All waiting work, in no order that means anything."""
        for lines in self._lines.values():
            for line in lines.values():
                yield from line.short
                yield from line.bulk

    def __len__(self) -> int:
        return sum(len(line.short) + len(line.bulk) for lines in self._lines.values() for line in lines.values())

    def kinds(self) -> Iterable[Kind]:
        """What waits, by key and algorithm."""
        return self._lines.keys()

    def callers_of(self, kind: Kind) -> Iterable[str]:
        """Who waits for it."""
        return self._lines.get(kind, {}).keys()

    def lines(self, kind: Kind) -> Iterable[tuple[str, "CallerLine"]]:
        """Who waits for it, each with what of it is his."""
        return self._lines.get(kind, {}).items()

    def line(self, kind: Kind, caller: str, *, short: bool) -> Iterable[Work]:
        """One caller's short or bulk work of a kind in the order of its turns."""
        line = self._lines.get(kind, {}).get(caller, _NOBODY)
        return line.short if short else line.bulk

    @property
    def has_shorts(self) -> bool:
        return any(line.short for lines in self._lines.values() for line in lines.values())

    def oldest_shorts(self) -> list[Work]:
        """Of each kind and caller the short request that has waited longest, the oldest first."""
        lines = (line for lines in self._lines.values() for line in lines.values() if line.short)
        return sorted((next(iter(line.short)) for line in lines), key=lambda work: work.number)

    def share(self, kind: Kind) -> "Share":
        """How those share the lanes who wait for this kind, or for another of the same lanes."""
        lanes = self._lanes.get(kind)
        if lanes is None:
            lanes = self.lanes_of(kind[0])
        share = self._shares.get(lanes)
        if share is None:
            share = self._shares[lanes] = Share()
        return share

    def regroup(self) -> None:
        """`lanes_of` says something else now: what waits goes over, and with it what its callers are ahead of others or behind."""
        for kind, before in list(self._lanes.items()):
            after = self.lanes_of(kind[0])
            if after == before:
                continue
            old = self.share(kind)
            self._lanes[kind] = after
            new = self.share(kind)
            for caller, line in self._lines[kind].items():
                new.joins(caller, old)
                for work in (*line.short, *line.bulk):
                    count = work.waiting_count
                    old.count(work, -count)
                    new.count(work, count)
                new.callers[caller].lines[kind] = old.callers[caller].lines.pop(kind)
                old.leaves(caller)

    def waiting(self, kind: Kind) -> int:
        """How many items wait for this key and algorithm."""
        return self._kinds[kind]

    def waiting_for(self, keys: Container[str]) -> int:
        """How many items wait for these keys."""
        return sum(count for (key, _), count in self._kinds.items() if key in keys)

    def caller_items(self, caller: str) -> int:
        return self._callers[caller]

    def add(self, work: Work) -> None:
        """Raises `BacklogFull` (later it may fit) or `TooMuch` (never), and changes nothing then."""
        count = work.waiting_count
        most = min(self._items_max, self._caller_items_max)
        if count > most:
            raise TooMuch(f"{count} digests; a request has at most {most}")
        if self.items + count > self._items_max:
            raise BacklogFull(f"{self.items} digests are waiting; the pool takes {self._items_max}")
        waiting = self.caller_items(work.caller)
        if waiting + count > self._caller_items_max:
            raise BacklogFull(f"{waiting} digests of this caller are waiting; it may have {self._caller_items_max}")
        self.added += 1
        work.number = self.added
        self._put(work, count)

    def put_back(self, work: Work, count: int, seconds: float) -> None:
        """Items that a lane returned unsigned: no limit turns them away, they were taken once, and cost nothing."""
        self.share(work.kind).set_back(work.caller, cost(work, count, count * seconds))
        line = self._lines.get(work.kind, {}).get(work.caller)
        if line is not None and work in line.of(work):
            self._count(work, count)
        else:
            self._put(work, count)
            self._lines[work.kind][work.caller].of(work).move_to_end(work, last=False)

    def _put(self, work: Work, count: int) -> None:
        share = self.share(work.kind)
        share.comes(work.caller)
        if work.kind not in self._lines:
            self._lanes[work.kind] = self.lanes_of(work.key)
        line = self._lines.setdefault(work.kind, {}).setdefault(work.caller, CallerLine())
        share.callers[work.caller].lines[work.kind] = line
        line.of(work)[work] = None
        self._count(work, count)

    def _count(self, work: Work, change: int) -> None:
        self.items += change
        self._callers[work.caller] += change
        self._kinds[work.kind] += change
        line = self._lines[work.kind][work.caller]
        line.items += change
        if work.is_short:
            line.in_shorts += change
        self.share(work.kind).count(work, change)

    def taken(self, work: Work, count: int, seconds: float) -> None:
        """`count` items of it went to a lane, where they should take `seconds`."""
        self.share(work.kind).serves(work, cost(work, count, seconds))
        self._count(work, -count)
        if not work.waiting:
            self._drop(work)

    def remove(self, work: Work) -> None:
        """Forget what waits of it; nothing happens if nothing does."""
        line = self._lines.get(work.kind, {}).get(work.caller)
        if line is not None and work in line.of(work):
            self._count(work, -work.waiting_count)
            self._drop(work)
        work.waiting.clear()

    def _drop(self, work: Work) -> None:
        share = self.share(work.kind)
        lines = self._lines[work.kind]
        line = lines[work.caller]
        del line.of(work)[work]
        if not line.short and not line.bulk:
            del lines[work.caller], share.callers[work.caller].lines[work.kind]
            if not lines:
                del self._lines[work.kind], self._lanes[work.kind], self._kinds[work.kind]
        if not self._callers[work.caller]:
            del self._callers[work.caller]
        share.leaves(work.caller)


@dataclass(slots=True)
class Share:
    """Who waits for one set of lanes, each with a clock, in seconds of token time, and how far those of who is away are ahead."""

    items: int = 0
    callers: "dict[str, _Caller]" = field(default_factory=dict)
    _clocks: dict[str, float] = field(default_factory=dict)
    _now: float = 0.0  # the clock of the caller served last

    def clocks(self) -> dict[str, float]:
        """Of each caller who waits; a copy."""
        return {caller: self._clocks[caller] for caller in self.callers}

    def turns(self) -> dict[str, int]:
        """How many in a row each caller had for short requests; a copy."""
        return {name: caller.turns for name, caller in self.callers.items()}

    def waiting(self, caller: str, *, short: bool = False) -> int:
        """How many of a caller's items wait, or of those in short requests."""
        own = self.callers.get(caller)
        if own is None:
            return 0
        return own.in_shorts if short else own.items

    def lines_of(self, caller: str) -> Iterable[tuple[Kind, "CallerLine"]]:
        """What a caller has waiting, by kind."""
        own = self.callers.get(caller)
        return () if own is None else own.lines.items()

    def comes(self, caller: str) -> None:
        if caller not in self.callers:
            self.callers[caller] = _Caller(came_with=self._clocks.get(caller, 0.0))
            self._clocks[caller] = max(self._clocks.get(caller, 0.0), self._now)

    def ahead_s(self, caller: str) -> float:
        """How much more token time a caller who waits has had than he who was served last."""
        return self._clocks[caller] - self._now

    def joins(self, caller: str, other: "Share") -> None:
        """A caller comes over from other lanes: as far ahead of who is served here as he was there, or behind."""
        clock, came = max(0.0, self._now + other.ahead_s(caller)), other.callers[caller]
        if caller not in self.callers:
            self.callers[caller] = _Caller(came_with=None if came.came_with is None else clock, turns=came.turns)
        self._clocks[caller] = max(self._clocks.get(caller, 0.0), clock)

    def count(self, work: Work, change: int) -> None:
        caller = self.callers[work.caller]
        self.items += change
        caller.items += change
        if work.is_short:
            caller.in_shorts += change

    def serves(self, work: Work, seconds: float) -> None:
        self._now = self._clocks[work.caller]
        self._clocks[work.caller] += seconds
        caller = self.callers[work.caller]
        caller.came_with = None
        caller.turns = caller.turns + 1 if work.is_short else 0

    def set_back(self, caller: str, seconds: float) -> None:
        """
        So much token time was counted for this caller, and not used. Whoever came meanwhile, and had no turn yet, started
        at a clock that was not reached: set back with it, as far as that goes, or what comes back would be next again,
        before him for whom it was taken from a lane.
        """
        clock = self._clocks[caller] = max(0.0, self._clocks.get(caller, self._now) - seconds)
        self._now = max(self._now - seconds, min(self._now, clock))
        own = self.callers.get(caller)
        if own is not None and own.came_with is not None:
            own.came_with = max(0.0, own.came_with - seconds)
        for name, each in self.callers.items():
            if each.came_with is not None and name != caller:
                started = self._clocks[name]
                self._clocks[name] = min(started, max(each.came_with, self._now, started - seconds))

    def leaves(self, caller: str) -> None:
        """Unless something of it waits."""
        if self.callers[caller].items:
            return
        gone = self.callers.pop(caller)
        if gone.came_with is not None:  # it had no turn, and started at others' clock
            self._clocks[caller] = gone.came_with
        # A clock behind the one being served has no meaning any more, unless that one is set back.
        behind = self._now - GIVEN_BACK_MOST_S
        self._clocks = {c: t for c, t in self._clocks.items() if c in self.callers or t > behind}


@dataclass(slots=True)
class _Caller:
    items: int = 0
    in_shorts: int = 0  # of them
    # Its own clock, before it was set to that of the one being served; None once it has had a turn.
    came_with: float | None = None
    turns: int = 0  # in a row that went to short requests
    lines: "dict[Kind, CallerLine]" = field(default_factory=dict, compare=False, repr=False)


@dataclass(slots=True)
class CallerLine:
    """One caller's work of a kind; dictionaries, because work leaves from the middle, too."""

    short: OrderedDict[Work, None] = field(default_factory=OrderedDict)
    bulk: OrderedDict[Work, None] = field(default_factory=OrderedDict)
    items: int = 0
    in_shorts: int = 0  # of them

    def waiting(self, *, short: bool) -> int:
        """How many of its items wait in short requests, or in all."""
        return self.in_shorts if short else self.items

    def requests(self, *, short: bool) -> int:
        """How many short requests wait, or all."""
        return len(self.short) + (0 if short else len(self.bulk))

    def of(self, work: Work) -> OrderedDict[Work, None]:
        return self.short if work.is_short else self.bulk


_NOBODY = CallerLine()
