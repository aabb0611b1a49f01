"""Request ids of version 7 that were made at any time."""

import uuid

from signer.request_id import new_request_id


def made_at(time: float) -> str:
    """As the client makes one at this time, in seconds since the epoch."""
    rest = uuid.UUID(new_request_id()).int & ((1 << 80) - 1)
    return str(uuid.UUID(int=round(time * 1000) << 80 | rest))
