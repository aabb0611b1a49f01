"""
Documents in work: files without a name, hashed while they arrive; on the daemon's disk, and short ones in memory.

They vanish with their last descriptor, whatever happens to the daemon, and are not encrypted (DESIGN.md says why). The space is accounted for, in all and for each
caller, before a byte is written; with it that of documents that wait for people (kept.py).
"""

import contextlib
import hashlib
import os
import shutil
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
    MEMORY_DOCUMENTS_MAX,
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
        """
        An empty document of a caller, `size` bytes long if that is known, 0 if not; raises `Refusal` SPOOL_FULL. One of unknown
        size begins in memory, too, and moves to the disk when it is too long for that.
        """
        if self._files[caller] >= SPOOL_CALLER_FILES_SURE and self._files.total() >= self._files_max:
            raise Refusal("SPOOL_FULL", f"{self._files_max} documents are in work", retry_s=_RETRY_S)
        in_memory = is_short(size) or (not size and self._files[caller] < MEMORY_DOCUMENTS_MAX)
        try:
            file = _in_memory() if in_memory else self.on_disk()
        except OSError as error:
            raise Refusal("SPOOL_FULL", os.strerror(error.errno or 0), retry_s=_RETRY_S) from None
        self._files[caller] += 1
        return Upload(self, caller, file, in_memory=in_memory, may_move=not size)

    def on_disk(self) -> BinaryIO:
        """An empty file without a name."""
        return tempfile.TemporaryFile(dir=self._directory)

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
    """Whether a document that is known to have so many bytes is in memory; 0 is not known."""
    return 0 < size <= MEMORY_DOCUMENT_BYTES_MAX


def _in_memory() -> BinaryIO:
    return os.fdopen(os.memfd_create("paraph-document", os.MFD_CLOEXEC), "w+b")


@contextlib.contextmanager
def _full() -> Iterator[None]:
    """Raise `Refusal` SPOOL_FULL where the system has no room for what is written."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise Refusal("SPOOL_FULL", os.strerror(error.errno or 0), retry_s=_RETRY_S) from None
        raise


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

    def __init__(self, spool: Spool, caller: str, file: BinaryIO, *, in_memory: bool, may_move: bool) -> None:
        """`may_move` says whether one in memory goes to the disk when it is too long for that."""
        self._spool = spool
        self._caller = caller
        self._may_move = may_move
        self.in_memory = in_memory
        self._counted = 0  # bytes in the spool's account
        self.file = file
        self.size = 0  # as it arrived
        self._sha256 = hashlib.sha256()
        self._crc = google_crc32c.Checksum()

    def write(self, chunk: bytes) -> None:
        """Raises `Refusal` DOCUMENT_TOO_LARGE or SPOOL_FULL; what was written before stays accounted for."""
        if self.size + len(chunk) > DOCUMENT_BYTES_MAX:
            raise Refusal("DOCUMENT_TOO_LARGE")
        if self.in_memory and self._may_move and self.size + len(chunk) > MEMORY_DOCUMENT_BYTES_MAX:
            self.move_to_disk()
        self._spool.take(self._caller, len(chunk))
        self._counted += len(chunk)
        self.size += len(chunk)
        self._sha256.update(chunk)
        self._crc.update(chunk)
        with _full():
            self.file.write(chunk)
            self.file.flush()

    def reserve(self, size: int) -> None:
        """Take room for so many bytes, of which none is written yet; raises `Refusal` SPOOL_FULL, and takes none then."""
        more = max(0, size - self._counted)
        self._spool.take(self._caller, more)
        self._counted += more

    def holds(self, size: int) -> None:
        """
        The file has so many bytes, which others have written: they are counted, whether they fit or not, and the next document
        finds the less room. Raises `Refusal` PDF_REJECTED for one in memory that is too large for that.
        """
        if self.in_memory and size > self.size + MEMORY_DOCUMENT_GROWTH_MAX:
            raise Refusal("PDF_REJECTED", "grows-too-much")
        more = max(0, size - self._counted)
        self._spool.count(self._caller, more)
        self._counted += more

    def is_to_move(self, size: int) -> bool:
        """Whether it is in memory, and has become too large for that; what was announced as short is refused instead."""
        return self.in_memory and self._may_move and size > self.size + MEMORY_DOCUMENT_GROWTH_MAX

    def move_to_disk(self) -> None:
        """With all that is in it: as many bytes are accounted for as before. Raises `Refusal` SPOOL_FULL."""
        with _full(), contextlib.ExitStack() as failed:
            file = failed.enter_context(self._spool.on_disk())
            self.file.seek(0)
            shutil.copyfileobj(self.file, file)
            file.flush()
            failed.pop_all()
        self.file.close()
        self.file, self.in_memory = file, False

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
