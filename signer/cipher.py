"""
What is kept of requests for a day is encrypted: what became of their items, and what their answers are made of.

AES-256-GCM under a key that is not in the database (NIST SP 800-38D; 96 random bits as nonce, far fewer than 2^32
messages with one key a day). The associated data is the request and the item, so that nothing can be put in another's
place.
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
