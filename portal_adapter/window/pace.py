"""
So many tries of one address in a minute, and a sent code for one login now and then. In memory: the daemon's own counts are
on disk, and hold anyway.
"""

import math
from collections import deque

from portal_adapter.refusal import Refusal

_KEPT = 10_000  # before those that still count are sorted out from the others


class Pace:
    """`message` is what is said to one too many."""

    def __init__(self, most: int, within_s: float, message: str) -> None:
        self._most, self._within_s, self._message = most, within_s, message
        self._tries: dict[str, deque[float]] = {}

    def check(self, who: str, now: float) -> None:
        """Count a try at `now` (seconds, monotonic); raises `rate-limited` for one too many, which is not counted."""
        if len(self._tries) > _KEPT:
            self._tries = {one: times for one, times in self._tries.items() if times[-1] > now - self._within_s}
        times = self._tries.setdefault(who, deque(maxlen=self._most))
        if len(times) == self._most and times[0] > now - self._within_s:
            wait_s = math.ceil(times[0] + self._within_s - now)
            raise Refusal("rate-limited", self._message, retry_after_s=wait_s)
        times.append(now)
