"""When will the disk be full? A guess from how the ledger has grown, for an operator to be asked in time."""

import math
import os
from collections import deque
from pathlib import Path

DAY_S = 24 * 3600
WINDOW_S = 7 * DAY_S  # what is looked back upon: a week has its own rhythm
LEAST_S = 600.0  # before that nothing is guessed
SAMPLES_MAX = 1_000  # of a window: one each ten minutes


class Growth:
    """Sizes of the database as they were seen; `sample` is asked whenever somebody looks."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._seen: deque[tuple[float, int]] = deque(maxlen=SAMPLES_MAX)  # (seconds of any clock, bytes)

    def sample(self, now: float) -> float:
        """Days until the disk is full, 0 where it is, at the pace since the oldest look of the window; infinite where nothing grew."""
        size = sum(self._size(suffix) for suffix in ("", "-wal"))
        while self._seen and self._seen[0][0] < now - WINDOW_S:
            self._seen.popleft()
        if not self._seen or now - self._seen[-1][0] >= WINDOW_S / SAMPLES_MAX:
            self._seen.append((now, size))
        disk = os.statvfs(self._database.parent)
        return days(self._seen[0], (now, size), disk.f_bavail * disk.f_frsize)

    def _size(self, suffix: str) -> int:
        try:
            return self._database.with_name(self._database.name + suffix).stat().st_size
        except FileNotFoundError:
            return 0


def days(before: tuple[float, int], now: tuple[float, int], free: int) -> float:
    """From two looks (seconds, bytes) and what is free, in bytes."""
    lasted_s, grown = now[0] - before[0], now[1] - before[1]
    if free <= 0:
        return 0.0
    if lasted_s < LEAST_S or grown <= 0:
        return math.inf
    return free / (grown / lasted_s) / DAY_S
