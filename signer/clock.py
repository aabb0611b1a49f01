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


def rfc3339(moment: datetime | float) -> str:
    """Of a moment, or of seconds since the epoch; parts of a second are cut off."""
    moment = moment if isinstance(moment, datetime) else datetime.fromtimestamp(moment, UTC)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
