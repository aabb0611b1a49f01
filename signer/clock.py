"""The time, as something that can be handed in: tests hand in their own."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall time for what is written into signatures and logs, monotonic seconds for what is measured."""

    def epoch(self) -> float:
        """Now, in seconds since the epoch, as exact as the system has it: a one-time code's step has an edge."""
        return time.time()

    def wall(self) -> datetime:
        """Now, UTC, in whole seconds: what signing-time and /M can hold."""
        return datetime.fromtimestamp(int(time.time()), UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class Steady:
    """
    The wall time at the start, and what has passed since by the monotonic clock: what is to expire does so whatever
    somebody does to the system's clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._base = 0.0
        self.confirm()

    def confirm(self) -> None:
        """The system's clock is right as it is now."""
        self._base = self._clock.epoch() - self._clock.monotonic()

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._base + self._clock.monotonic()

    @property
    def jump_s(self) -> float:
        """How far the system's clock has been moved since."""
        return self._clock.epoch() - self.now()


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
