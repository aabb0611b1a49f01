"""What the time is for what is kept for a day, while the system's clock is put back, forward and right again."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from signer.clock import Clock
from signer.ledger import KEEP_S
from signer.retention import CLOCK_S, STEP_S, Retention

HOUR_S = 3600.0
NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC).timestamp()


@dataclass
class Time:
    real: float = NOW
    ahead: float = 0.0


@dataclass(frozen=True)
class Set(Clock):
    """A clock that somebody sets; by the monotonic one the machine runs for an hour already."""

    time: Time = field(default_factory=Time)

    def wall(self) -> datetime:
        return datetime.fromtimestamp(int(self.time.real + self.time.ahead), UTC)

    def monotonic(self) -> float:
        return self.time.real - NOW + HOUR_S


def age_s(retention: Retention, accepted: float) -> float:
    return retention.now() - accepted


def run(retention: Retention, clock: Set, seconds: float) -> None:
    """The eraser looks once a minute."""
    end = clock.time.real + seconds
    while clock.time.real < end:
        clock.time.real = min(end, clock.time.real + 60)
        retention.now()


@pytest.mark.parametrize("is_seen", [True, False])
def test_put_back_and_right_again(is_seen: bool) -> None:
    """
    What was accepted meanwhile is a day old after a day and no sooner, whether the eraser looked meanwhile or not; a day
    later the time is what it is.
    """
    clock = Set()
    retention = Retention(clock, ())
    clock.time.ahead = -25 * HOUR_S
    accepted = clock.wall().timestamp()
    if is_seen:
        retention.now()
    else:
        retention.accepted(accepted)
    clock.time.ahead = 0.0
    assert age_s(retention, accepted) <= CLOCK_S
    run(retention, clock, KEEP_S - 2 * CLOCK_S)
    assert KEEP_S - 2 * CLOCK_S <= age_s(retention, accepted) < KEEP_S
    run(retention, clock, 4 * CLOCK_S)
    assert age_s(retention, accepted) > KEEP_S
    assert retention.now() == int(clock.time.real)


@pytest.mark.parametrize("hours", [48.0, 100_000.0])
def test_put_forward_and_right_again(hours: float) -> None:
    """Nothing is older for it; and afterwards what is new is a day old after a day."""
    clock = Set()
    retention = Retention(clock, ())
    before = NOW
    clock.time.ahead = hours * HOUR_S
    run(retention, clock, HOUR_S)
    assert age_s(retention, before) == HOUR_S + CLOCK_S
    clock.time.ahead = 0.0
    accepted = clock.wall().timestamp()
    run(retention, clock, KEEP_S)
    assert age_s(retention, accepted) == KEEP_S


def minutes(epoch: int, begin: float, count: int) -> list[tuple[int, float]]:
    """A run with its start and a checkpoint each minute, so long by a clock that nobody sets."""
    return [(epoch, begin + 60 * minute) for minute in range(count)]


def test_nothing_happened() -> None:
    """A start after a pause, and one after none: the time is what the system's clock says."""
    assert Retention(Set(), ()).now() == NOW
    assert Retention(Set(), minutes(1, NOW - 100 * HOUR_S, 60)).now() == NOW
    assert Retention(Set(), [*minutes(1, NOW - 9 * HOUR_S, 60), *minutes(2, NOW - HOUR_S, 60)]).now() == NOW


def test_right_again_before_this_start() -> None:
    """The clock was behind when the last run began, or put back in it; it was put right in that run, or since."""
    behind = NOW - 25 * HOUR_S - 600
    right = minutes(1, NOW - 2 * HOUR_S, 60)
    for times in (
        [*minutes(2, behind, 5), (2, NOW - 240)],
        [*right, *minutes(2, behind, 5)],
        [*right, *minutes(2, behind, 5), (3, NOW - 240)],
        [*right, *minutes(1, behind, 5), *minutes(1, NOW - 240, 4)],
    ):
        clock = Set()
        retention = Retention(clock, times)
        accepted = behind + 240
        assert age_s(retention, accepted) <= 2 * HOUR_S
        run(retention, clock, KEEP_S)
        assert age_s(retention, accepted) > KEEP_S
        assert retention.now() >= clock.time.real - STEP_S


def test_a_clock_that_was_years_ahead_is_forgotten() -> None:
    """After two days of runs by the right one, however short each is."""
    times = [(1, NOW + 100_000 * HOUR_S)]
    for hour in range(60):
        times += minutes(2 + hour, NOW + (hour - 60) * HOUR_S, 55)
    assert Retention(Set(), times).now() == NOW
