"""
Request ids that a restore has burnt. Where the database of before could not be read, nobody knows what was signed since the
backup: who sends one of those requests again would get a second signature.

An id of version 7 says when it was made (`request_id.py`), so that one from before the restore is refused, for as long as
its answer would have been kept. Other ids say nothing of the kind, and cannot be told from new ones.
"""

import uuid
from collections.abc import Callable

from signer.ledger import KEEP_S

CLOCK_S = 5.0  # by so much the clock of who made an id may be ahead of the one that dated the restore


class BurntIds:
    def __init__(self, restored: float, now: Callable[[], float]) -> None:
        """`restored`: when the last such restore was (seconds since the epoch), 0 if there was none; `now` likewise."""
        self._restored, self._now = restored, now

    def has(self, id_: bytes) -> bool:
        if self._restored and self._now() >= self._restored + KEEP_S:
            self._restored = 0.0
        return bool(self._restored) and _made(id_) <= self._restored + CLOCK_S


def _made(id_: bytes) -> float:
    """When an id was made, in seconds since the epoch; infinity where it does not say."""
    found = uuid.UUID(bytes=id_)
    return (found.int >> 80) / 1000 if found.version == 7 else float("inf")
