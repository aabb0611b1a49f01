"""
How many lines refused requests may leave in the audit: each is kept for ever and waits for the disk, and whoever is nobody
can be refused as often as he likes.

What is left out is counted, and the next line that is written says how many there were. People's own lines have a bound of
their own, so that nobody's flood never hides what a person was refused.
"""

import logging
import threading
from collections import Counter

OF_ONE_MAX = 60  # in a minute: of one account, or of one network without a session
OF_NOBODY_MAX = 300  # in a minute: of all that have no session

log = logging.getLogger("portal")


class Lines:
    """In memory: of several portals over one database each has its own count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._minute = -1
        self._of: Counter[str] = Counter()
        self._of_nobody = self._left_out = 0

    def admit(self, who: str, now: int, *, is_nobody: bool) -> int | None:
        """How many were left out before this one, which is to be written; None where this one is left out, too."""
        with self._lock:
            if now // 60 != self._minute:
                if self._left_out:
                    log.warning("%d refusals are not in the audit: they came too fast", self._left_out)
                self._minute, self._of_nobody = now // 60, 0
                self._of.clear()
            if self._of[who] >= OF_ONE_MAX or (is_nobody and self._of_nobody >= OF_NOBODY_MAX):
                self._left_out += 1
                return None
            self._of[who] += 1
            self._of_nobody += is_nobody
            left_out, self._left_out = self._left_out, 0
            return left_out
