"""
New request ids: UUIDs of version 7 (RFC 9562, 5.7), which begin with the time, to the millisecond.

Any UUID is a request id. But rows of the ledger are in the order of their ids: those of one moment stand side by side
in the database when the ids grow, and each on a page of its own when they are random (measured: a single call of a
P-256 key costs a seventh more).
"""

import time
import uuid

_VERSION = 7
_RANDOM_BITS = 76  # what a random UUID keeps: 74 bits, and the variant between them


def new_request_id() -> str:
    """In the usual form of 36 characters; 74 bits of it are random."""
    random = uuid.uuid4().int & ((1 << _RANDOM_BITS) - 1)
    milliseconds = time.time_ns() // 1_000_000
    return str(uuid.UUID(int=milliseconds << 80 | _VERSION << _RANDOM_BITS | random))
