"""
What is kept of requests for a day is encrypted: what became of their items, and what their answers are made of.

AES-256-GCM under a key that is not in the database, each value with 96 random bits of the system as nonce. The associated
data is the request and the item, so that nothing can be put in another's place.

So one key is good for 2^32 values (NIST SP 800-38D, 8.3), of all daemons that have it, and nothing here makes another or
counts. A value stands beside a row of the chain, so there are fewer than rows, but for commits that failed and were tried
again: a request, or a document, is two, and a batch one more for each further frame. 50 requests a second, day and night, take
16 months; 500 a second 7 weeks. Before that the operator gives another `data_key`. What was sealed with the old one cannot be
read any more: requests of the last 24 h are not answered again, and batches that wait for people are lost (kept.py has its
keys from this one), so it is done when a day has passed without them.
"""

import os
from typing import Any

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12
KEY_BYTES = 32
_PACKER = msgpack.Packer()  # kept: each has a buffer of a megabyte


class Unreadable(Exception):
    """It was not written with this key, or not as this request's."""


class Cipher:
    def __init__(self, key: bytes) -> None:
        self._aes = AESGCM(key)

    def seal(self, request: bytes, item: int, value: Any) -> bytes:
        """`value` as it stands in the database, of a request's item."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aes.encrypt(nonce, _PACKER.pack(value), b"%s %d" % (request, item))

    def open(self, request: bytes, item: int, data: bytes) -> Any:
        """Raises `Unreadable`."""
        try:
            value = self._aes.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], b"%s %d" % (request, item))
            return msgpack.unpackb(value, use_list=True)
        except (InvalidTag, ValueError):
            raise Unreadable from None
