"""What must hold at each turn of the loop, looked up in the pool itself."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from pool import Pool
from pool.lane import BREAKER_LOSSES
from pool.token import State
from pool.work import Work
from tests.simulation.loop import Crashed

if TYPE_CHECKING:
    from tests.simulation.life import Life


IDLE_S = 0.5  # so long may work wait while all lanes are idle: a turn or two of the loop
LOOK_S = 0.05  # at what must not last: work beside idle lanes, tokens out of service


class Watch:
    """Of one life of the daemon."""

    def __init__(self, life: "Life") -> None:
        self.life = life
        self.world = life.world
        self.chance = life.chance
        self.say = life.say
        self._idle_since: dict[str, tuple[float, float]] = {}  # since when, and how long the loop was held up by then
        self._next_look = 0.0
        self._tripped: set[str] = set()
        self._counted: Counter[str] = Counter()  # losses of a lane that have opened a breaker
        self.works: dict[Work, None] = {}  # requests that the pool has

    def look(self) -> None:
        world, pool = self.world, self.life.pool
        if world.problem is not None:
            raise Crashed(1)
        assert pool is not None
        now = world.clock.now
        for visit in world.judge.visits.values():
            if visit.ended is None and visit.lease.over:
                visit.ended = now
            elif visit.ended is None and now > visit.lease.deadline + 1:
                world.failed("I1: a lease lives on after its time")
        if not pool._line._backlog.items:
            self._idle_since.clear()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_S
        self.idle_lanes(pool, pool._line._backlog, now)
        self.nothing_lost(pool)
        self.lanes_have_keys(pool)
        self.breakers(pool)
        for name in world.well:
            self.is_well(name)

    def idle_lanes(self, pool: Pool, backlog: Any, now: float) -> None:
        """I7: what waits while every lane that could do it has nothing."""
        kinds = {kind[0] for kind in backlog.kinds()}
        for key in kinds:
            able = [lane.lane for lane in pool._service_lanes if key in lane.lane.keys and lane.lane.is_up]
            if able and not any(lane.in_flight for lane in able):
                since, stalled = self._idle_since.setdefault(key, (now, self.world.clock.stalled))
                if now - since - (self.world.clock.stalled - stalled) > IDLE_S:
                    self.world.failed(f"I7: work waits {now - since:.2f} s beside idle lanes")
            else:
                self._idle_since.pop(key, None)
        for key in self._idle_since.keys() - kinds:
            del self._idle_since[key]

    def nothing_lost(self, pool: Pool) -> None:
        """I7: each item that has no outcome waits, or a lane has it."""
        had: Counter[Work] = Counter()
        for lane in pool._service_lanes:
            for frame in lane.frames:
                for run in frame.runs:
                    had[run.work] += run.stop - run.start
        for work in list(self.works):
            if work.done.done() or not work.left:
                del self.works[work]
            elif work.waiting_count + had[work] < work.left:
                self.world.failed(f"I7: {work.left} items of {work.caller} have no outcome, and nobody has them all")

    def lanes_have_keys(self, pool: Pool) -> None:
        """I5: a lane is up with all keys of its token, or it is not up."""
        for lane in pool._service_lanes:
            if lane.lane.is_up and lane.lane.keys != (lane.token.keys or {}).keys():
                self.world.failed(f"I5: lane {lane.lane.name} is up and has not all of its token's keys")

    def breakers(self, pool: Pool) -> None:
        """I5: a breaker opens for so many losses of a lane, and each counts once."""
        for name in self.world.cards:
            if self.life.state_of(name) is not State.TRIPPED:
                self._tripped.discard(name)
            elif name not in self._tripped:
                self._tripped.add(name)
                lanes = [lane.lane for lane in pool._lanes() if lane.token.config.name == name]
                guilty = [lane for lane in lanes if lane.tally.losses - self._counted[lane.name] >= BREAKER_LOSSES]
                if not guilty:
                    self.world.failed(
                        f"I5: the breaker of {name} opens, and no lane has lost {BREAKER_LOSSES} times since"
                    )
                for lane in guilty:
                    self._counted[lane.name] = lane.tally.losses

    def is_well(self, name: str) -> None:
        """I5: a token that nobody disturbs is in service, or just being opened."""
        state = self.life.state_of(name)
        if state in {State.OPEN, State.READY}:
            return
        self.world.failed(f"I5: nobody disturbs {name}, and it is {state}")
