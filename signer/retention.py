"""
What the time is for what is kept for a day, whatever somebody does to the system's clock, over a restart, too.

What is kept has the system's time from when it was accepted. Where that clock was behind then and has been put right, it
looks older than it is: erased as old, it would be signed a second time. So the time here is the least that any time of the
last day comes to with what has passed since; what was accepted before that day may go anyhow. What has passed is counted by
the monotonic clock, and before this start by the times in the ledger's rows: between two of one run at most what lies
between two checkpoints, and between two runs what is later than any clock of the last day says.

Where several daemons share a PostgreSQL database, each erases what is old of all of them, and knows its own clock alone.
"""

from collections import deque
from collections.abc import Iterable

from signer.clock import Clock
from signer.ledger import KEEP_S

CLOCK_S = 60.0  # by so much the time may be put right while the daemon runs
STEP_S = 120.0  # two rows of one run are no further apart: there is a checkpoint each minute
JITTER_S = 2.0  # between two looks at a clock that gives whole seconds


class Retention:
    """Belongs to one event loop."""

    def __init__(self, clock: Clock, times: Iterable[tuple[int, float]]) -> None:
        """`times`: of rows before this start in their order, each with its epoch (seconds since 1970)."""
        self._clock = clock
        # By how much the system's clock was ahead of what has passed, in the last day.
        self._least, self._most = _Least(), _Least()
        passed, run, last = 0.0, 0, 0.0
        for epoch, time in times:
            passed += min(max(0.0, time - last), STEP_S) if epoch == run else self._pause(time, passed)
            run, last = epoch, time
            self._saw(time, passed)
        self._base = passed + self._pause(clock.wall().timestamp(), passed) - clock.monotonic()
        self.now()

    def now(self) -> float:
        """In seconds since the epoch, to compare with when something was accepted."""
        time, passed = self._clock.wall().timestamp(), self._passed()
        self._saw(time, passed)
        return min(time, self._least.value + passed + CLOCK_S)

    def accepted(self, time: float) -> None:
        """Something is accepted now, and this is what the system's clock says: it may have been put back since `now`."""
        if time - self._passed() < self._least.last - JITTER_S:
            self._saw(time, self._passed())

    def _passed(self) -> float:
        return self._base + self._clock.monotonic()

    def _pause(self, time: float, passed: float) -> float:
        """How long nothing ran, in seconds, before a run that begins at this time."""
        return 0.0 if self._most.is_empty else max(0.0, time + self._most.value - passed)

    def _saw(self, time: float, passed: float) -> None:
        self._least.add(passed, time - passed)
        self._most.add(passed, passed - time)


class _Least:
    """The least of the values of a day; of the last one where there was none in it."""

    def __init__(self) -> None:
        self._values: deque[tuple[float, float]] = deque()  # (when, value), both rising: others will never be the least

    def add(self, when: float, value: float) -> None:
        while self._values and self._values[-1][1] >= value:
            self._values.pop()
        self._values.append((when, value))
        while self._values[0][0] < when - KEEP_S:
            self._values.popleft()

    @property
    def is_empty(self) -> bool:
        return not self._values

    @property
    def value(self) -> float:
        return self._values[0][1]

    @property
    def last(self) -> float:
        return self._values[-1][1]
