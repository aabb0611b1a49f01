"""
How many lines refused calls may leave in the log: who is refused may call again a few thousand times a second, and each line
is kept.

What is left out is counted, and told at the minute's end. A caller that is known has lines of its own; whoever is not has
those of where he calls from, and all of them together not many more.
"""

import asyncio
import logging
from collections import Counter

LINES_MAX = 30  # a minute, of one
LINES_OF_NOBODY_MAX = 300  # a minute: of all who are no callers
MINUTE_S = 60.0

log = logging.getLogger("signer.call")


class Refused:
    """Of all listeners; belongs to the event loop."""

    def __init__(self) -> None:
        self._lines: Counter[str] = Counter()  # of this minute, by who was refused
        self._of_nobody = 0
        self._left_out: Counter[str] = Counter()

    def has_line(self, caller: str, peer: str) -> bool:
        """Whether one more is to be written: of a caller, or ('') of whom gRPC calls `peer`."""
        who = f"caller={caller}" if caller else f"peer={peer.rpartition(':')[0]}"  # without its port
        if not self._lines and not self._left_out:
            asyncio.get_running_loop().call_later(MINUTE_S, self.tell)
        if self._lines[who] >= LINES_MAX:
            self._left_out[who] += 1
            return False
        if not caller and self._of_nobody >= LINES_OF_NOBODY_MAX:
            self._left_out["others"] += 1
            return False
        self._lines[who] += 1
        self._of_nobody += not caller
        return True

    def tell(self) -> None:
        """The minute is over."""
        for who, count in self._left_out.items():
            log.warning("%s: %d more calls refused in a minute, which have no line", who, count)
        self._lines.clear()
        self._left_out.clear()
        self._of_nobody = 0
