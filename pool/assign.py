"""
Which digests go to which lane: one decision, taken anew at every change.

Pure: no I/O, no clock, no lock, and nothing it is given is changed. The pool carries the plan out.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pool.backlog import SHORTS_BEFORE_BULK, Backlog, cost
from pool.lane import FRAME_S, Lane
from pool.mechanism import Algorithm
from pool.wire import items_that_fit
from pool.work import Kind, Work

OVERDUE_S = 0.1  # past this a lane that has not finished when it should have is not counted upon
UNMEASURED_S = 0.001  # what a signature is taken to cost before a lane was measured


@dataclass(frozen=True, slots=True)
class Run:
    """Items `start` to `stop` of one request."""

    work: Work
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Frame:
    """What a lane signs in one go: one key, one algorithm, of one request or several."""

    lane: Lane
    key: str
    algorithm: Algorithm
    runs: tuple[Run, ...]
    seconds: float  # the lane time it should take for each item

    @property
    def count(self) -> int:
        return sum(run.stop - run.start for run in self.runs)

    @property
    def lease(self) -> str:
        """The one that all of it belongs to, '' for none: a frame of two would be refused by the worker."""
        return self.runs[0].work.lease

    @property
    def is_bulk(self) -> bool:
        """Several items, and none that somebody waits for."""
        return self.count > 1 and not any(run.work.is_short for run in self.runs)

    def item_at(self, slot: int) -> tuple[Work, int]:
        """The request that the item in a slot belongs to, and the item's place in it."""
        for run in self.runs:
            count = run.stop - run.start
            if slot < count:
                return run.work, run.start + slot
            slot -= count
        raise IndexError("the frame is shorter")


SECOND_LEAST_S = 0.003  # a lane at work gets a second frame when it is worth so much lane time, or full
# What waits is shared out among idle lanes in parts of at least so much: a hand-over costs a tenth of it.
PART_LEAST_S = 0.002
# A short request that comes while every lane is at work upon bulk cuts one lane's frames short, if there is so much of
# them left to win, and no more often than this: what is sent again costs 0.3 ms.
CUT_WORTH_S = 0.003
CUT_PAUSE_S = 0.015


def may_cut(lane: Lane, frames: Sequence[Frame], now: float) -> bool:
    """Whether somebody's short request could have this lane's frames cut short."""
    worth = lane.busy_until - now >= CUT_WORTH_S and now >= lane.cut_at + CUT_PAUSE_S
    return lane.is_up and worth and bool(frames) and all(frame.is_bulk for frame in frames)


def to_cut(
    work: Work, lanes: Iterable[tuple[Lane, Sequence[Frame]]], clocks: Mapping[str, float], now: float
) -> Lane | None:
    """
    The lane whose frames are cut short for a short request that has just come; None where it is soon served without, or
    would not be the next in turn. `lanes`: each with the frames that it has.
    """
    able = [(lane, frames) for lane, frames in lanes if lane.is_up and work.key in lane.keys]
    if any(not lane.in_flight for lane, _ in able):
        return None
    worth = []
    for lane, frames in able:
        left_s = lane.busy_until - now
        recent = now < lane.cut_at + CUT_PAUSE_S
        if left_s < CUT_WORTH_S:
            return None
        if not recent and all(frame.is_bulk and _yields(frame, work, clocks) for frame in frames):
            worth.append((left_s, lane))
    return max(worth, key=lambda pair: pair[0])[1] if worth else None


def _yields(frame: Frame, work: Work, clocks: Mapping[str, float]) -> bool:
    """Whether the request would be before what the frame holds: its own caller's, or that of callers who had more."""
    mine = clocks[work.caller]
    callers = {run.work.caller for run in frame.runs}
    return all(caller == work.caller or clocks.get(caller, math.inf) >= mine - FRAME_S for caller in callers)


def assign(backlog: Backlog, lanes: Iterable[Lane], now: float) -> tuple[list[Frame], list[Work]]:
    """
    Match waiting work to lanes that have room; set aside the work whose time is over.

    The emptiest lane is served first, and among equals the fastest. Each takes a frame of its own size from the caller
    with the least token time, and fills it up with the same key's and algorithm's work of the next callers; a frame that
    begins with a short request, with short ones only. A lane takes nothing that a faster one, busy or not, will have
    finished sooner; and while it has a frame, nothing that is worth less than `SECOND_LEAST_S`: that waits for company,
    or for a lane, and whoever comes meanwhile and is more urgent goes before it. What is less than a frame for each idle lane is shared out among them.
    """
    lanes = list(lanes)
    plan = _Planning(backlog, lanes, now)
    room = {lane.name: lane.room for lane in lanes if lane.room}
    open_lanes = [lane for lane in lanes if lane.name in room]
    while open_lanes and plan.left:
        open_lanes.sort(key=lambda lane: (-room[lane.name], min(lane.item_s.values(), default=0.0)))
        lane = open_lanes[0]
        frame = plan.frame(lane)
        if frame is not None:
            room[lane.name] -= 1
        if frame is None or not room[lane.name]:
            open_lanes.remove(lane)
    return plan.frames, plan.expired


@dataclass(slots=True)
class _Share:
    """The clocks and turns of a set of lanes, as they would be after what is planned."""

    clocks: dict[str, float]
    turns: dict[str, int]


class _Planning:
    """The decision in the making, on copies of what it looks at."""

    def __init__(self, backlog: Backlog, lanes: list[Lane], now: float) -> None:
        self._lanes = [lane for lane in lanes if lane.is_up]
        self.frames: list[Frame] = []
        self.expired: list[Work] = []
        self._backlog = backlog
        self.left = backlog.items
        self._taken: Counter[Kind] = Counter()
        self._busy = {lane.name for lane in lanes if lane.in_flight}
        self._shares: dict[Kind, _Share] = {}
        self._of_lanes: dict[int, _Share] = {}
        self._lines: dict[tuple[Kind, str, bool], Iterator[Work]] = {}
        self._heads: dict[tuple[Kind, str, bool], Work | None] = {}
        self._waiting: dict[Work, deque[tuple[int, int]]] = {}
        self._now = now
        self._least_s: dict[Kind, float] = {}
        self._late: list[Work] = []  # passed over: a signature takes longer than they have
        self._fits: dict[tuple[Kind, str], bool] = {}

    def frame(self, lane: Lane) -> Frame | None:
        kinds = [kind for kind in self._backlog.kinds() if kind[0] in lane.keys and self._is_for(kind, lane)]
        if lane.name in self._busy:
            # What is not worth a second frame waits for the lane, or has it cut short when its turn has come.
            kinds = [kind for kind in kinds if self._is_worth(kind, lane)]
        # Callers who differ by less than a frame, or two signatures of a slow lane, are taken for even, and somebody waits
        # for the short request. It is a lead once, not a faster clock.
        lead_s = max(FRAME_S, 2 * min(lane.item_s.values(), default=0.0))
        work = self._next(kinds, lead_s)
        if work is None and lane.name not in self._busy:
            work = self._latest(kinds)
        if work is None:
            return None
        key, algorithm = kind = work.kind
        most, seconds = lane.frame_items(key, algorithm, short=work.is_short), lane.item_s.get(kind, UNMEASURED_S)
        most = min(most, self._part(kind, lane, seconds))
        runs: list[Run] = []
        while work is not None and most > 0 and (run := self._take(work, most, first=not runs)) is not None:
            runs.append(run)
            count = run.stop - run.start
            most -= count
            self.left -= count
            self._taken[kind] += count
            share = self._share(kind)
            share.clocks[work.caller] += cost(work, count, count * seconds)
            share.turns[work.caller] = share.turns[work.caller] + 1 if work.is_short else 0
            work = self._next([kind], lead_s)
            if work is not None and work.is_short is not runs[0].work.is_short:
                break  # an answer comes with its whole frame, and of bulk that is a long one, which is cut short for others
        self._busy.add(lane.name)
        frame = Frame(lane, key, algorithm, tuple(runs), seconds)
        self.frames.append(frame)
        return frame

    def _is_worth(self, kind: Kind, lane: Lane) -> bool:
        """Whether so much of this kind waits that a lane at work gets a second frame."""
        waiting = self._backlog.waiting(kind) - self._taken[kind]
        worth = math.ceil(SECOND_LEAST_S / lane.item_s.get(kind, UNMEASURED_S))
        return waiting >= min(worth, lane.frame_items(*kind, short=True))

    def _part(self, kind: Kind, lane: Lane, seconds: float) -> int:
        """A lane leaves the others their part, an idle one the idle ones, unless a part would be next to nothing."""
        waiting = self._backlog.waiting(kind) - self._taken[kind]
        busy = lane.name in self._busy
        others = sum(
            kind[0] in other.keys and (busy or other.name not in self._busy) and self._is_for(kind, other)
            for other in self._lanes
        )
        least_s = SECOND_LEAST_S if busy else PART_LEAST_S
        return max(math.ceil(waiting / max(1, others)), math.ceil(least_s / seconds))

    def _next(self, kinds: Iterable[Kind], lead_s: float) -> Work | None:
        """The work of these kinds whose turn it is: least token time, then short or bulk, then first come."""
        best, work = (math.inf, True, 0), None
        for kind in kinds:
            share = self._share(kind)
            for caller in self._backlog.callers_of(kind):
                clock = share.clocks[caller]
                if clock - lead_s > best[0]:
                    continue
                bulks_turn = share.turns[caller] >= SHORTS_BEFORE_BULK
                for other_turn in (False, True):
                    head = self._head((kind, caller, bulks_turn is other_turn))
                    if head is not None:
                        rank = (clock - lead_s if head.is_short else clock, other_turn, head.number)
                        if rank < best:
                            best, work = rank, head
                        break
        return work

    def _share(self, kind: Kind) -> "_Share":
        if kind not in self._shares:
            share = self._backlog.share(kind)
            known = self._of_lanes.get(id(share))
            if known is None:
                known = self._of_lanes[id(share)] = _Share(share.clocks(), share.turns())
            self._shares[kind] = known
        return self._shares[kind]

    def _latest(self, kinds: Iterable[Kind]) -> Work | None:
        """
        Of what was passed over the one with the most time: no lane is left idle for it, because what one was measured at may
        not be so any more.
        """
        wanted = set(kinds)
        left = [work for work in self._late if work.kind in wanted and self._ranges(work)]
        return max(left, key=lambda work: work.deadline, default=None)

    def _head(self, line: tuple[Kind, str, bool]) -> Work | None:
        """The first of a line that has something left in this plan, and time."""
        if line not in self._lines:
            kind, caller, short = line
            self._lines[line] = iter(self._backlog.line(kind, caller, short=short))
            self._heads[line] = next(self._lines[line], None)
        work = self._heads[line]
        while work is not None and (self._is_too_late(work) or not self._ranges(work)):
            if work.deadline <= self._now:
                self.expired.append(work)
            elif self._ranges(work):
                self._late.append(work)
            work = self._heads[line] = next(self._lines[line], None)
        return work

    def _is_too_late(self, work: Work) -> bool:
        """Its time is over, or would be before a signature is made: for nobody, and the next one would be as late."""
        if work.kind not in self._least_s:
            lanes = (lane for lane in self._lanes if work.key in lane.keys)
            self._least_s[work.kind] = min(
                (lane.expected_s(work.kind, self._now) or 0.0 for lane in lanes), default=0.0
            )
        left_s = work.deadline - self._now
        return left_s <= 0 or left_s < self._least_s[work.kind]

    def _is_for(self, kind: Kind, lane: Lane) -> bool:
        """False where a faster lane will have finished all that waits of this kind before this lane finishes one."""
        known = self._fits.get((kind, lane.name))
        if known is None:  # once in a plan: with many lanes each looks at all others
            known = self._fits[kind, lane.name] = self._looked(kind, lane)
        return known

    def _looked(self, kind: Kind, lane: Lane) -> bool:
        own_s = lane.expected_s(kind, self._now)
        if own_s is None:
            return True  # it must be tried to be known
        finish = max(lane.busy_until, self._now) + own_s
        waiting = self._backlog.waiting(kind)
        for other in self._lanes:
            other_s = other.item_s.get(kind)
            if other is lane or other_s is None or other_s >= own_s or kind[0] not in other.keys:
                continue
            if other.in_flight and other.busy_until < self._now - OVERDUE_S:
                continue  # it should be done by now: it may hang
            if max(other.busy_until, self._now) + waiting * other_s < finish:
                return False
        return True

    def _ranges(self, work: Work) -> deque[tuple[int, int]]:
        if work not in self._waiting:
            self._waiting[work] = deque(work.waiting)
        return self._waiting[work]

    def _take(self, work: Work, most: int, *, first: bool) -> Run | None:
        """A run from the front of what waits; messages, which are long, only start a frame, digests also join one."""
        if not first and work.algorithm.hash is None:
            return None
        ranges = self._ranges(work)
        start, stop = ranges.popleft()
        fits = min(most, stop - start)
        if work.algorithm.hash is None:
            fits = items_that_fit(work.items[start : start + fits])
        if start + fits < stop:
            ranges.appendleft((start + fits, stop))
        return Run(work, start, start + fits)
