"""
A lane: one process that signs with one token. Its states, and how much work it is given at a time.

Rules of this file: no I/O. The table is the whole life of a lane; an absent entry is the error. The diagram in
DESIGN.md is drawn from it.
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pool.mechanism import Algorithm
from pool.token import WrongEvent
from pool.wire import FRAME_ITEMS_MAX, FRAMES_IN_FLIGHT

# Lane time in a frame of short requests, whose answers come with the whole frame, and what callers' clocks may differ by.
FRAME_S = 0.020
# The same of bulk. A hand-over, with its two rows in the ledger, costs 0.7 ms of processors: 2 % of it (at 20 ms it was 4).
# Nobody has to wait for that long, because a frame can be cut short (assign.to_cut).
BULK_FRAME_S = 0.040
REST_FIRST_S = 0.1  # back-off after a loss doubles from here ...
REST_MOST_S = 30.0  # ... to here, and starts anew after HEALTHY_S of service
HEALTHY_S = 60.0
BREAKER_LOSSES = 5  # so many losses ...
BREAKER_WINDOW_S = 60.0  # ... within this time open the token's breaker
LATENCY_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
# The weight of a new measurement. What else the machine does only adds to a lane's time, so that less is believed
# sooner than more: frames stay as long as they should be while others use the processors.
_EWMA_LESS, _EWMA_MORE = 0.3, 0.05
# What a lane without work was measured at is believed half as slow after each such time: a lane that was slow once, or
# that a card's reader made slow, would otherwise never get the work that would measure it anew. A card at 185 ms beside
# an HSM at 50 us is tried once in two minutes.
HALF_BELIEVED_S = 10.0


class State(StrEnum):
    STARTING = "STARTING"
    OPEN = "OPEN"  # of a personal token: the token is open, and waits for a person's PIN
    IDLE = "IDLE"
    SIGNING = "SIGNING"
    STOPPING = "STOPPING"  # told to end; takes no more work
    RESTING = "RESTING"  # no process


class Event(StrEnum):
    OPENED = "OPENED"
    UP = "UP"
    SENT = "SENT"
    EMPTY = "EMPTY"  # its last frame is answered
    STOP = "STOP"
    LOST = "LOST"
    RESTED = "RESTED"


S, E = State, Event
TRANSITIONS: dict[State, dict[Event, State]] = {
    S.RESTING: {E.RESTED: S.STARTING},
    S.STARTING: {E.OPENED: S.OPEN, E.UP: S.IDLE, E.STOP: S.STOPPING, E.LOST: S.RESTING},
    S.OPEN: {E.UP: S.IDLE, E.STOP: S.STOPPING, E.LOST: S.RESTING},
    S.IDLE: {E.SENT: S.SIGNING, E.STOP: S.STOPPING, E.LOST: S.RESTING},
    S.SIGNING: {E.SENT: S.SIGNING, E.EMPTY: S.IDLE, E.STOP: S.STOPPING, E.LOST: S.RESTING},
    S.STOPPING: {E.EMPTY: S.STOPPING, E.STOP: S.STOPPING, E.LOST: S.RESTING},
}


@dataclass(slots=True)
class Tally:
    """What a lane has done since the pool began; read by the metrics."""

    signed: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    losses: int = 0
    busy_s: float = 0.0
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS_S) + 1))

    def measure(self, seconds: float, count: int) -> None:
        """`count` signatures took `seconds` of lane time; each counts as their mean."""
        self.busy_s += seconds
        mean = seconds / count
        bucket = next((i for i, bound in enumerate(LATENCY_BUCKETS_S) if mean <= bound), len(LATENCY_BUCKETS_S))
        self.latency[bucket] += count


@dataclass(slots=True)
class Lane:
    """The pure part of a lane: `pool.process` does its I/O."""

    token: str
    index: int
    state: State = State.RESTING
    keys: frozenset[str] = frozenset()
    in_flight: int = 0
    cut_at: float = 0.0  # when its frames were last cut short
    is_cut: bool = False  # until they are back: then the next one is chosen among all that waits
    busy_until: float = 0.0  # when what it has should be done: monotonic clock, seconds; 0 while it has nothing
    direct: bool = True  # C_Sign by the module's function list, not through python-pkcs11
    item_s: dict[tuple[str, Algorithm], float] = field(default_factory=dict)  # seconds a signature, as measured
    measured_at: dict[tuple[str, Algorithm], float] = field(default_factory=dict)  # monotonic clock, seconds
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=BREAKER_LOSSES))
    tally: Tally = field(default_factory=Tally)
    problem: str = ""

    @property
    def name(self) -> str:
        return f"{self.token}/{self.index}"

    @property
    def is_up(self) -> bool:
        return self.state in {State.IDLE, State.SIGNING}

    @property
    def is_slow(self) -> bool:
        """Whether every signature is longer than a frame should be."""
        return bool(self.item_s) and min(self.item_s.values()) > FRAME_S

    @property
    def room(self) -> int:
        """
        How many frames more it takes. A slow lane has one at a time: it hardly waits for the next, and who comes meanwhile
        waits for one signature less.
        """
        return (
            max(0, (1 if self.is_slow else FRAMES_IN_FLIGHT) - self.in_flight) if self.is_up and not self.is_cut else 0
        )

    def on(self, event: Event) -> None:
        """Take the step that the table gives; raises `WrongEvent` where it gives none."""
        try:
            self.state = TRANSITIONS[self.state][event]
        except KeyError:
            raise WrongEvent(f"{event} means nothing to a lane that is {self.state}") from None

    def frame_items(self, key: str, algorithm: Algorithm, *, short: bool) -> int:
        """
        How many items the next frame takes: one until the lane was measured, then about `FRAME_S` of its time, or
        `BULK_FRAME_S`.
        """
        seconds = self.item_s.get((key, algorithm))
        most_s = FRAME_S if short else BULK_FRAME_S
        return 1 if seconds is None else max(1, min(FRAME_ITEMS_MAX, int(most_s / seconds)))

    def expected_s(self, kind: tuple[str, Algorithm], now: float) -> float | None:
        """
        What a signature should take, seconds, where lanes are compared: what was measured long ago counts for less.
        None where nothing was measured. How long a lane may take is judged by `item_s` itself.
        """
        known = self.item_s.get(kind)
        if known is None:
            return None
        aged_s = now - self.measured_at.get(kind, now)
        return known if aged_s < HALF_BELIEVED_S else known * 0.5 ** min(30.0, aged_s / HALF_BELIEVED_S)

    def measured(self, key: str, algorithm: Algorithm, seconds: float, count: int, now: float) -> None:
        """A frame of `count` signatures took `seconds`, verifying included, and was answered `now`."""
        self.tally.measure(seconds, count)
        mean = max(seconds / count, 1e-6)
        known = self.item_s.get((key, algorithm), mean)
        self.measured_at[key, algorithm] = now
        self.item_s[key, algorithm] = known + (_EWMA_LESS if mean < known else _EWMA_MORE) * (mean - known)

    def lost(self, now: float) -> bool:
        """Count a loss; True when it opens the breaker."""
        self.losses.append(now)
        self.tally.losses += 1
        return len(self.losses) == BREAKER_LOSSES and now - self.losses[0] <= BREAKER_WINDOW_S

    def rest_s(self, now: float) -> float:
        """How long to rest after the last loss: doubled for each one in the last `HEALTHY_S`."""
        recent = sum(1 for loss in self.losses if now - loss <= HEALTHY_S)
        return min(REST_MOST_S, REST_FIRST_S * 2 ** max(0, recent - 1)) if recent else 0.0


def connected(lanes: Mapping[str, frozenset[str]]) -> dict[str, str]:
    """For each key the least name of the lanes that have it, or another key of such a lane, and so on."""
    sets: list[tuple[str, set[str]]] = []
    for name, keys in lanes.items():
        joined = [each for each in sets if not each[1].isdisjoint(keys)]
        first = min([name, *(each[0] for each in joined)])
        sets = [each for each in sets if each not in joined]
        sets.append((first, set(keys).union(*(each[1] for each in joined))))
    return {key: first for first, keys in sets for key in keys}
