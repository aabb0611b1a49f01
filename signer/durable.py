"""A file that is put in another's place whole, on the disk and under its name; for its owner alone."""

import os
from mmap import mmap
from pathlib import Path

from signer.appearing import sync_directory


def put(file: Path, content: bytes | mmap) -> None:
    """At any moment, also after a power cut, the file has what it had, or this. One writer at a time; raises `OSError`."""
    new = file.with_name(f".{file.name}.new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(fd)
    new.rename(file)
    sync_directory(file.parent)
