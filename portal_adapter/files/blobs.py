"""
The bytes of uploaded files: one file each, named by chance, readable by the portal alone.

    state/blobs/incoming/   on their way: on the disk, not kept yet
    state/blobs/<id>        kept; a row of the database names it
    state/quarantine/<id>   malware, for the operator to look at and take away

A file is whole and on the disk before it gets its name, and has its name before its row commits: so a row never names what
is not there. What has a name without a row (a crash between the two, or between a deletion and its commit) is swept at the
start.
"""

import os
import re
import stat
import tempfile
import uuid
from collections.abc import Collection
from pathlib import Path

_NAME = re.compile(r"[0-9a-f]{32}")
QUARANTINED_MAX = 100  # 1 GB: whoever sends malware again and again does not fill the disk
SWEPT_AFTER_S = 3600  # another instance's upload that has no row yet is younger: a request takes minutes at most


class Blobs:
    def __init__(self, state: Path) -> None:
        """Makes the directories where they are missing; raises OSError."""
        self._kept, self._quarantine = state / "blobs", state / "quarantine"
        self.incoming = self._kept / "incoming"
        for directory in (self._kept, self.incoming, self._quarantine):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def keep(self, incoming: Path) -> str:
        """Answers the name of a file of `incoming` from now on. Its bytes are on the disk, and its mode is 0600."""
        return _link(incoming, self._kept)

    def write(self, data: bytes) -> str:
        """The same, for bytes that were made here."""
        with tempfile.NamedTemporaryFile(dir=self.incoming) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            return self.keep(Path(file.name))

    def copy(self, blob: str) -> str:
        """
        Another name of the same bytes, which never change: each goes by itself. The row that names them is held meanwhile. As
        young as an upload, so that it is not swept before a row names it.
        """
        os.utime(self.path(blob))
        return _link(self.path(blob), self._kept)

    def set_aside(self, incoming: Path) -> str:
        """The same, in quarantine; empty where that holds as many as an operator will look at, and this one is not kept."""
        if sum(1 for _ in self._quarantine.iterdir()) >= QUARANTINED_MAX:
            return ""
        return _link(incoming, self._quarantine)

    def quarantine(self, blob: str) -> None:
        """A kept one that was found to be malware."""
        self.path(blob).rename(self._quarantine / blob)

    def path(self, blob: str) -> Path:
        if _NAME.fullmatch(blob) is None:
            raise ValueError("not a name of this store")
        return self._kept / blob

    def remove(self, blob: str) -> None:
        """Repeating it changes nothing."""
        self.path(blob).unlink(missing_ok=True)

    def sweep(self, known: Collection[str], now: float) -> int:
        """Remove what nothing names; answers how many. `known` are the names in the database, `now` its time."""
        old = [
            path
            for directory in (self._kept, self.incoming)
            for path in directory.iterdir()
            if path.name not in known and _is_file_of_before(path, now - SWEPT_AFTER_S)
        ]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)


def _is_file_of_before(path: Path, before: float) -> bool:
    """Last written before then; False for what has gone meanwhile: a request's own files come and go."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_mtime < before


def _link(incoming: Path, directory: Path) -> str:
    name = uuid.uuid4().hex
    os.link(incoming, directory / name)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return name
