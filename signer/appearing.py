"""A file that appears whole, on the disk and under its name, or not at all; never in another's place."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def appearing(path: Path, mode: int = 0o600) -> Iterator[Path]:
    """
    The place to write it to, in the same directory; what is there at the end gets the name `path`.

    Raises `FileExistsError` if something has that name, at the beginning or meanwhile, and leaves nothing behind.
    """
    if os.path.lexists(path):
        raise FileExistsError(17, "exists and is not written over; give another name", str(path))
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(fd, 0o600)  # whatever the umask says
        yield draft
        os.fchmod(fd, mode)
        os.fsync(fd)  # of the file, whoever wrote it
        os.link(draft, path)  # unlike a rename it takes nobody's place
    finally:
        os.close(fd)
        draft.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """So that a name which was given or taken away is so after a power cut."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
