"""
Rounds: what is compared runs in turns, so that what else the machine does meets all of them alike.

Of each round the *ratio* is taken, and of the ratios the median: two numbers of one second tell more about each other
than about the machine. Odd rounds run backwards.
"""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.rig.machine import Usage


@dataclass(frozen=True, slots=True)
class Sample:
    """How many, in how many seconds; `verify` is called once the processors' time was read, and raises."""

    count: int
    seconds: float
    verify: Callable[[], None] | None = None

    @property
    def rate(self) -> float:
        return self.count / self.seconds


@dataclass(slots=True)
class Series:
    """One contestant's samples, a round each, with the CPU time that each role of process spent on one."""

    rates: list[float] = field(default_factory=list)
    count: int = 0
    cpu_s: dict[str, float] = field(default_factory=dict)  # of all rounds, because the kernel counts in ticks of 10 ms
    others: list[float] = field(default_factory=list)  # cores that the machine spent on what is not ours

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def cpu(self) -> dict[str, float]:
        """Microseconds of each role for one signature; to be shown, so without those that are under 1 % of all."""
        whole = self.whole_cpu
        return {role: round(value, 2) for role, value in self._each().items() if value > whole / 100}

    @property
    def whole_cpu(self) -> float:
        """Microseconds of all roles for one signature."""
        return sum(self._each().values())

    def _each(self) -> dict[str, float]:
        return {role: seconds / max(1, self.count) * 1e6 for role, seconds in self.cpu_s.items() if role != "bench"}

    def over(self, other: "Series") -> float:
        """The median of the rounds' ratios."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.rates, other.rates, strict=True))


def play(contestants: Mapping[str, Callable[[], Sample]], rounds: int) -> dict[str, Series]:
    """Every contestant once a round, in turns."""
    series = {name: Series() for name in contestants}
    for number in range(rounds):
        order = list(contestants)
        for name in order if number % 2 == 0 else reversed(order):
            before = Usage.now()
            sample = contestants[name]()
            used = Usage.now().since(before)
            series[name].rates.append(sample.rate)
            series[name].others.append(used.others)
            series[name].count += sample.count
            for role, seconds in used.roles.items():
                series[name].cpu_s[role] = series[name].cpu_s.get(role, 0.0) + seconds
            if sample.verify is not None:
                sample.verify()
    return series
