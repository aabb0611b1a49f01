"""
Which digests go to which lane: one decision, taken anew at every change.

Pure: no I/O, no clock, no lock, and nothing it is given is changed. The pool carries the plan out.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from pool.backlog import Backlog
from pool.lane import Lane
from pool.mechanism import Algorithm
from pool.wire import items_that_fit
from pool.work import Work

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

    def run_at(self, slot: int) -> Run:
        """The run that the item in a slot belongs to."""
        for run in self.runs:
            slot -= run.stop - run.start
            if slot < 0:
                return run
        raise IndexError("the frame is shorter")


def assign(backlog: Backlog, lanes: Iterable[Lane], now: float) -> tuple[list[Frame], list[Work]]:
    """
    Match waiting work to lanes that have room; set aside the work whose time is over.

    The emptiest lane is served first, and among equals the fastest. Each takes a frame of its own size from the caller
    with the least token time, and fills it up with the same key's and algorithm's work of the next callers. A lane takes
    nothing that a faster one, busy or not, will have finished sooner.
    """
    lanes = list(lanes)
    plan = _Plan(backlog, lanes, now)
    room = {lane.name: lane.room for lane in lanes if lane.room}
    open_lanes = [lane for lane in lanes if lane.name in room]
    while open_lanes:
        open_lanes.sort(key=lambda lane: (-room[lane.name], min(lane.item_s.values(), default=0.0)))
        lane = open_lanes[0]
        frame = plan.frame(lane)
        if frame is not None:
            room[lane.name] -= 1
        if frame is None or not room[lane.name]:
            open_lanes.remove(lane)
    return plan.frames, plan.expired


class _Plan:
    """The decision in the making, on copies of what it looks at."""

    def __init__(self, backlog: Backlog, lanes: list[Lane], now: float) -> None:
        self._lanes = [lane for lane in lanes if lane.is_up]
        self._shorts = backlog.shorts()
        self.frames: list[Frame] = []
        self.expired: list[Work] = []
        self._backlog = backlog
        self._clocks = backlog.clocks()
        self._waiting: dict[Work, deque[tuple[int, int]]] = {}
        self._now = now

    def frame(self, lane: Lane) -> Frame | None:
        runs: list[Run] = []
        key, algorithm, most, seconds = "", None, 0, UNMEASURED_S
        while most > 0 or not runs:
            work = self._next(lane, lane.keys if algorithm is None else {key}, algorithm)
            if work is None:
                break
            if algorithm is None:
                key, algorithm = work.key, work.algorithm
                most = lane.frame_items(key, algorithm)
                seconds = lane.item_s.get((key, algorithm), UNMEASURED_S)
            run = self._take(work, most, first=not runs)
            if run is None:
                break
            runs.append(run)
            most -= run.stop - run.start
            self._clocks[work.caller] += (run.stop - run.start) * seconds
            self._shorts[work.caller] = self._shorts[work.caller] + 1 if work.is_short else 0
        if algorithm is None or not runs:
            return None
        frame = Frame(lane, key, algorithm, tuple(runs), seconds)
        self.frames.append(frame)
        return frame

    def _next(self, lane: Lane, keys: Iterable[str], algorithm: Algorithm | None) -> Work | None:
        """The work whose turn it is among those for these keys that this lane should take."""
        for caller in sorted(self._clocks, key=self._clocks.__getitem__):
            for work in self._backlog.line(caller, self._shorts[caller]):
                if work.key in keys and algorithm in {None, work.algorithm} and self._ranges(work):
                    if work.deadline <= self._now:
                        if work not in self.expired:
                            self.expired.append(work)
                    elif not self._is_better_elsewhere(work, lane):
                        return work
        return None

    def _is_better_elsewhere(self, work: Work, lane: Lane) -> bool:
        """Whether a faster lane will have finished all that waits for this key before this lane finishes one."""
        own_s = lane.item_s.get((work.key, work.algorithm))
        if own_s is None:
            return False  # it must be tried to be known
        finish = max(lane.busy_until, self._now) + own_s
        waiting = self._backlog.waiting(work.key, work.algorithm)
        for other in self._lanes:
            other_s = other.item_s.get((work.key, work.algorithm))
            if other is lane or other_s is None or other_s >= own_s or work.key not in other.keys:
                continue
            if other.in_flight and other.busy_until < self._now - OVERDUE_S:
                continue  # it should be done by now: it may hang
            if max(other.busy_until, self._now) + waiting * other_s < finish:
                return True
        return False

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
        fits = items_that_fit(work.items[start : min(stop, start + most)], most)
        if start + fits < stop:
            ranges.appendleft((start + fits, stop))
        return Run(work, start, start + fits)
