"""Uploads that are still being read, of each account: they count as those that have come, so that many at once are not more."""

import threading
from collections import Counter
from collections.abc import Callable


class Arriving:
    """In memory: of several portals on one database each counts its own."""

    def __init__(self) -> None:
        self._of: Counter[str] = Counter()
        self._lock = threading.Lock()

    def begin(self, account: str) -> tuple[int, Callable[[], None]]:
        """How many others there are, and what ends this one: calling it again does nothing."""
        with self._lock:
            others = self._of[account]
            self._of[account] += 1
        is_over = threading.Lock()

        def end() -> None:
            if is_over.acquire(blocking=False):
                with self._lock:
                    self._of[account] -= 1
                    if not self._of[account]:
                        del self._of[account]

        return others, end
