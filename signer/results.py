"""
What is kept of requests for a day, encrypted: what became of their items, and what their answers are made of.

AES-256-GCM under a key that is not in the database (NIST SP 800-38D; 96 random bits as nonce, far fewer than 2^32
messages with one key a day). The associated data is the request and the item, so that nothing can be put in another's
place.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pool import Outcome, Outcomes, Status
from pool.work import hides

NONCE_BYTES = 12
KEY_BYTES = 32
Range = tuple[int, int]


class Unreadable(Exception):
    """It was not written with this key, or not as this request's."""


class Cipher:
    def __init__(self, key: bytes) -> None:
        self._aes = AESGCM(key)

    def seal(self, name: bytes, value: Any) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aes.encrypt(nonce, msgpack.packb(value), name)

    def open(self, name: bytes, data: bytes) -> Any:
        try:
            return msgpack.unpackb(self._aes.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], name), use_list=True)
        except (InvalidTag, ValueError):
            raise Unreadable from None


@dataclass(frozen=True, slots=True)
class Part:
    """
    What became of some items of a request in one attempt: `ranges` of their places, their signatures in that order, None
    where there is none, and for those that a token saw or that were given up, why.
    """

    attempt: int
    token: str
    ranges: Sequence[Range]
    signatures: Sequence[bytes | None]
    problems: Mapping[int, tuple[str, str]]  # place -> status, reason

    def value(self) -> list[Any]:
        problems = [[place, *problem] for place, problem in self.problems.items()]
        return [self.attempt, self.token, list(self.ranges), list(self.signatures), problems]

    @classmethod
    def of(cls, value: Any) -> "Part":
        attempt, token, ranges, signatures, problems = value
        found = {place: (status, reason) for place, status, reason in problems}
        return cls(attempt, token, [(start, stop) for start, stop in ranges], signatures, found)


def outcomes(count: int, parts: Sequence[Part]) -> Outcomes:
    """What is known of a request of so many items, in the order of writing: what was signed once stays signed."""
    found = Outcomes(count)
    for part in parts:
        places = [place for start, stop in part.ranges for place in range(start, stop)]
        for place, signature in zip(places, part.signatures, strict=True):
            if signature and not found.signatures[place]:
                found.signed(place, [signature], part.token)
                found.problems.pop(place, None)
        for place, (status, reason) in part.problems.items():
            if not found.signatures[place] and not hides(found.problems.get(place), Status(status)):
                found.problems[place] = Outcome(Status(status), reason=reason, token=part.token)
    for place, signature in enumerate(found.signatures):
        if not signature:
            found.problems.setdefault(place, Outcome(Status.NOT_ATTEMPTED, reason="INTERRUPTED"))
    return found
