"""So many tries of one address in a minute. In memory: the daemon's own count of wrong codes is on disk, and holds anyway."""

import math
from collections import deque

from portal_adapter.network import network
from portal_adapter.refusal import Refusal

_WITHIN_S = 60.0
_ADDRESSES = 10_000  # before those of the last minute are sorted out from the others


class Pace:
    def __init__(self, most: int) -> None:
        self._most = most
        self._tries: dict[str, deque[float]] = {}

    def check(self, who: str, now: float) -> None:
        """Count a try of an address at `now` (seconds, monotonic); raises `rate-limited` for one too many, which is not counted."""
        who = network(who)
        if len(self._tries) > _ADDRESSES:
            self._tries = {one: times for one, times in self._tries.items() if times[-1] > now - _WITHIN_S}
        times = self._tries.setdefault(who, deque(maxlen=self._most))
        if len(times) == self._most and times[0] > now - _WITHIN_S:
            wait_s = math.ceil(times[0] + _WITHIN_S - now)
            raise Refusal("rate-limited", "Too many tries. Please wait a moment.", retry_after_s=wait_s)
        times.append(now)
