"""
Documents that wait for a person: encrypted files in the spool, which outlive a restart and nothing else.

    "paraph-kept-v1" and a line feed   32 random bytes   pieces of 256 KiB, each with its tag of 16 bytes; the last one is marked

AES-256-GCM under a key of each file's own (HMAC-SHA256 of its name and random bytes, under a key that is not on this
disk); a piece's nonce is its place and whether it is the last, so that pieces cannot be changed, swapped, left out or
cut off unseen (the construction of STREAM: Hoang, Reyhanitabar, Rogaway, Vizar 2015).
"""

import hmac
import os
import secrets
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_MAGIC = b"paraph-kept-v1\n"
_SALT_BYTES = 32
_TAG_BYTES = 16
PIECE_BYTES = 256 * 1024


class KeptError(Exception):
    """The file was changed, or is another's, or is gone; the message says which."""


class Kept:
    """Files by the batch (16 bytes) and the item they belong to. Everything here reads and writes: call it off the loop."""

    def __init__(self, directory: Path, key: bytes) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
        self._key = key

    def put(self, batch: bytes, item: int, source: BinaryIO) -> None:
        """Everything of `source`, from its beginning; it is whole under its name, or not there. Raises OSError."""
        path, salt = self._path(batch, item), secrets.token_bytes(_SALT_BYTES)
        aes = self._cipher(path.name, salt)
        fd = os.open(path.with_suffix(".new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as output:
            output.write(_MAGIC + salt)
            source.seek(0)
            piece, number = source.read(PIECE_BYTES), 0
            while True:
                following = source.read(PIECE_BYTES)
                output.write(aes.encrypt(_nonce(number, is_last=not following), piece, None))
                if not following:
                    break
                piece, number = following, number + 1
        path.with_suffix(".new").rename(path)

    def get(self, batch: bytes, item: int, output: BinaryIO) -> None:
        """Write all of it to `output`; raises `KeptError`."""
        path = self._path(batch, item)
        try:
            with path.open("rb") as source:
                head = source.read(len(_MAGIC) + _SALT_BYTES)
                if not head.startswith(_MAGIC):
                    raise KeptError(f"{path.name} is no kept document")
                aes = self._cipher(path.name, head[len(_MAGIC) :])
                piece, number = source.read(PIECE_BYTES + _TAG_BYTES), 0
                while True:
                    following = source.read(PIECE_BYTES + _TAG_BYTES)
                    output.write(aes.decrypt(_nonce(number, is_last=not following), piece, None))
                    if not following:
                        return
                    piece, number = following, number + 1
        except FileNotFoundError:
            raise KeptError(f"{path.name} is gone") from None
        except (InvalidTag, ValueError):
            raise KeptError(f"{path.name} was changed since it was written") from None

    def erase(self, batch: bytes) -> None:
        for path in self._directory.glob(f"{batch.hex()}-*"):
            path.unlink(missing_ok=True)

    def erase_all_but(self, batches: set[bytes]) -> None:
        """What no batch names: left by a crash."""
        names = {batch.hex() for batch in batches}
        for path in self._directory.iterdir():
            if path.name.partition("-")[0] not in names or path.suffix == ".new":
                path.unlink(missing_ok=True)

    def _path(self, batch: bytes, item: int) -> Path:
        return self._directory / f"{batch.hex()}-{item}"

    def _cipher(self, name: str, salt: bytes) -> AESGCM:
        return AESGCM(hmac.digest(self._key, salt + name.encode(), "sha256"))


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(8, "big") + bytes([is_last, 0, 0, 0])
