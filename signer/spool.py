"""
Documents in work: files without a name, hashed while they arrive; on the daemon's disk, and short ones in memory.

They vanish with their last descriptor, whatever happens to the daemon. The space is accounted for, in all and for each
caller, before a byte is written; with it that of documents that wait for people (kept.py).
"""

import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from signer.errors import Refusal
from signer.limits import (
    DOCUMENT_BYTES_MAX,
    MEMORY_DOCUMENT_BYTES_MAX,
    MEMORY_DOCUMENT_GROWTH_MAX,
    NO_ROOM,
    SPOOL_BYTES_MAX,
    SPOOL_CALLER_BYTES_MAX,
    SPOOL_CALLER_FILES_SURE,
    SPOOL_FILES_SHARE,
)

_RETRY_S = 1.0


class Spool:
    def __init__(self, directory: Path, changed: Callable[[int], None], descriptors: int) -> None:
        """`changed` is told how many bytes there are; `descriptors` is how many the process may have, for everything."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
        self._changed = changed
        self._files_max = int(descriptors * SPOOL_FILES_SHARE)
        self._files: Counter[str] = Counter()
        self._callers: Counter[str] = Counter()

    def open(self, caller: str, size: int = 0) -> "Upload":
        """An empty document of a caller, `size` bytes long if that is known; raises `Refusal` SPOOL_FULL."""
        if self._files[caller] >= SPOOL_CALLER_FILES_SURE and self._files.total() >= self._files_max:
            raise Refusal("SPOOL_FULL", f"{self._files_max} documents are in work", retry_s=_RETRY_S)
        file: BinaryIO
        try:
            if is_short(size):
                file = os.fdopen(os.memfd_create("paraph-document", os.MFD_CLOEXEC), "w+b")
            else:
                file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 -- the upload closes it
        except OSError as error:
            raise Refusal("SPOOL_FULL", os.strerror(error.errno or 0), retry_s=_RETRY_S) from None
        self._files[caller] += 1
        return Upload(self, caller, file, is_short=is_short(size))

    def closed(self, caller: str) -> None:
        self._files[caller] -= 1

    def take(self, caller: str, size: int) -> None:
        if self._callers.total() + size > SPOOL_BYTES_MAX or self._callers[caller] + size > SPOOL_CALLER_BYTES_MAX:
            raise Refusal("SPOOL_FULL", retry_s=_RETRY_S)
        self.count(caller, size)

    def count(self, caller: str, size: int) -> None:
        self._callers[caller] += size
        self._changed(self._callers.total())

    def give_back(self, caller: str, size: int) -> None:
        self._callers[caller] -= size
        self._changed(self._callers.total())


def is_short(size: int) -> bool:
    """Whether a document of so many bytes is in memory; 0, where that is not known, is not."""
    return 0 < size <= MEMORY_DOCUMENT_BYTES_MAX


class Holdings:
    """What waits for people, in the spool's account: of each batch its caller and how many bytes, until it is erased."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._batches: dict[bytes, tuple[str, int]] = {}

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._batches)

    def take(self, batch: bytes, caller: str, size: int) -> None:
        """Raises `Refusal` SPOOL_FULL."""
        self._spool.take(caller, size)
        self._put(batch, caller, size)

    def count_again(self, batch: bytes, caller: str, size: int) -> None:
        """After a restart: they are there, whether they fit or not."""
        self._spool.count(caller, size)
        self._put(batch, caller, size)

    def _put(self, batch: bytes, caller: str, size: int) -> None:
        self._batches[batch] = (caller, size + self._batches.get(batch, (caller, 0))[1])

    def give_back(self, batch: bytes) -> None:
        """Idempotent."""
        if (held := self._batches.pop(batch, None)) is not None:
            self._spool.give_back(*held)


class Upload:
    """A document as it arrives: its bytes in a file, its SHA-256 and CRC-32C with them; or what was made of one."""

    def __init__(self, spool: Spool, caller: str, file: BinaryIO, *, is_short: bool) -> None:
        self._spool = spool
        self._caller = caller
        self._is_short = is_short
        self._counted = 0  # bytes in the spool's account
        self.file = file
        self.size = 0  # as it arrived
        self._sha256 = hashlib.sha256()
        self._crc = google_crc32c.Checksum()

    def write(self, chunk: bytes) -> None:
        """Raises `Refusal` DOCUMENT_TOO_LARGE or SPOOL_FULL; what was written before stays accounted for."""
        if self.size + len(chunk) > DOCUMENT_BYTES_MAX:
            raise Refusal("DOCUMENT_TOO_LARGE")
        self._spool.take(self._caller, len(chunk))
        self._counted += len(chunk)
        self.size += len(chunk)
        self._sha256.update(chunk)
        self._crc.update(chunk)
        try:
            self.file.write(chunk)
            self.file.flush()
        except OSError as error:
            if error.errno in NO_ROOM:
                raise Refusal("SPOOL_FULL", os.strerror(error.errno or 0), retry_s=_RETRY_S) from None
            raise

    def holds(self, size: int) -> None:
        """
        The file has, or will have, so many bytes, which others write: they are counted, and the next document finds the less
        room. Raises `Refusal` PDF_REJECTED for one in memory that is too large for that.
        """
        if self._is_short and size > self.size + MEMORY_DOCUMENT_GROWTH_MAX:
            raise Refusal("PDF_REJECTED", "grows-too-much")
        more = max(0, size - self._counted)
        self._spool.count(self._caller, more)
        self._counted += more

    @property
    def sha256(self) -> bytes:
        return self._sha256.digest()

    @property
    def crc32c(self) -> int:
        return int.from_bytes(self._crc.digest())

    def close(self) -> None:
        """Idempotent: the file and its space are given back."""
        if self.file.closed:
            return
        self._spool.give_back(self._caller, self._counted)
        self._spool.closed(self._caller)
        self.file.close()
