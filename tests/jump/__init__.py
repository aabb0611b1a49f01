"""
A system's clock that jumps, for a daemon that is started with `Jump.environment`.

    jump = Jump(directory)
    jump.to(3600)        from now on its wall clock is an hour ahead of the true one; its monotonic clock goes on
"""

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

__all__ = ["Jump"]

SOURCE = Path(__file__).with_name("jumpclock.c")
COMPILER = ("gcc", "-std=gnu11", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror")


def build() -> Path:
    """The compiled library; once per source, in a directory that other users can read."""
    digest = hashlib.sha256(SOURCE.read_bytes() + repr(COMPILER).encode()).hexdigest()
    directory = Path(tempfile.gettempdir()) / f"paraph-jump-{digest}-{os.geteuid()}"
    directory.mkdir(exist_ok=True, mode=0o755)
    library = directory / "jumpclock.so"
    if not library.exists():
        made = directory / f"{os.getpid()}.so"
        subprocess.run([*COMPILER, "-o", made, SOURCE, "-ldl"], check=True)
        made.chmod(0o755)
        made.replace(library)
    return library


class Jump:
    def __init__(self, directory: Path) -> None:
        self._file = directory / "jump"
        self._file.write_bytes(bytes(8))
        self._file.chmod(0o644)
        self.environment = {"LD_PRELOAD": str(build()), "JUMPCLOCK_FILE": str(self._file)}

    def to(self, seconds: int) -> None:
        """In one write, in place: the daemon has the file mapped."""
        with self._file.open("r+b", buffering=0) as file:
            file.write(seconds.to_bytes(8, "little", signed=True))
