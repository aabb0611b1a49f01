"""
How busy the event loop's thread is: whether work should be gathered before it is handed over.

A hand-over costs parent and lane together as much as five P-256 signatures. On a loop with time to spare that buys the
shortest wait; on a loop that has none, everybody waits for it.
"""

import time

WINDOW_S = 0.02  # what is looked back upon
BUSY_SHARE = (
    0.45  # of the window on the processor; one caller after the other uses 0.2, a saturated loop beside lanes 0.6
)


class Pressure:
    """To be asked on the loop's thread."""

    def __init__(self) -> None:
        self._at, self._used = time.monotonic(), time.thread_time()
        self._share = 0.0

    @property
    def is_high(self) -> bool:
        now = time.monotonic()
        if now - self._at >= WINDOW_S:
            used = time.thread_time()
            self._share = (used - self._used) / (now - self._at)
            self._at, self._used = now, used
        return self._share >= BUSY_SHARE
