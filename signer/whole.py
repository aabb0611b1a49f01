"""A file that appears whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole(target: Path) -> Iterator[BinaryIO]:
    """A file beside the target that takes its name at the end, and vanishes if there is no end."""
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".paraph-", delete=False) as file:
        path = Path(file.name)
        try:
            yield file  # type: ignore[misc]  # the wrapper is a BinaryIO in all but its type
            file.flush()
            os.fsync(file.fileno())
            path.chmod(0o666 & ~_umask())  # a temporary file is 0600, whatever the user wants
            path.replace(target)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _umask() -> int:
    """The process's umask, which can be asked for only by setting it; proc(5) tells it without."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o077
