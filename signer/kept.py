"""
Documents that wait for a person: encrypted files in the spool, which outlive a restart and nothing else.

    "paraph-kept-v1" and a line feed   32 random bytes   pieces of 256 KiB, each with its tag of 16 bytes; the last one is marked

AES-256-GCM under a key of each file's own (HMAC-SHA256 of its name and random bytes, under a key that is not on this
disk); a piece's nonce is its place and whether it is the last, so that pieces cannot be changed, swapped, left out or
cut off unseen (the construction of STREAM: Hoang, Reyhanitabar, Rogaway, Vizar 2015).
"""

import contextlib
import hmac
import os
import secrets
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from signer.errors import Refusal
from signer.limits import NO_ROOM

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
        """
        Everything of `source`, from its beginning; it is whole under its name, or not there. Raises OSError, and `Refusal`
        SPOOL_FULL where there is no room.
        """
        path = self._path(batch, item)
        try:
            self._write(path, source)
        except BaseException as error:
            path.with_suffix(".new").unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise Refusal("SPOOL_FULL", os.strerror(error.errno or 0), retry_s=1.0) from None
            raise

    def _write(self, path: Path, source: BinaryIO) -> None:
        salt = secrets.token_bytes(_SALT_BYTES)
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

    def pieces(self, batch: bytes, item: int) -> Iterator[bytes]:
        """
        All of it, of at most `PIECE_BYTES` each, and each as it was written; whether something is missing at the end is known
        at the end. Raises `KeptError`.
        """
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
                    yield aes.decrypt(_nonce(number, is_last=not following), piece, None)
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

    def sizes(self) -> dict[bytes, int]:
        """Of each batch that has files here, half-written ones among them, how many bytes they have."""
        found: Counter[bytes] = Counter()
        for path in self._directory.glob("*-*"):
            with contextlib.suppress(FileNotFoundError):  # erased just now
                found[bytes.fromhex(path.name.partition("-")[0])] += path.stat().st_size
        return found

    def erase_halves(self) -> None:
        """What a crash has left while it was written; before the first `put`."""
        for path in self._directory.glob("*.new"):
            path.unlink(missing_ok=True)

    def _path(self, batch: bytes, item: int) -> Path:
        return self._directory / f"{batch.hex()}-{item}"

    def _cipher(self, name: str, salt: bytes) -> AESGCM:
        return AESGCM(hmac.digest(self._key, salt + name.encode(), "sha256"))


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(8, "big") + bytes([is_last, 0, 0, 0])
