"""
A system's clock that jumps, for a daemon that is started with `Jump.environment`.

    jump = Jump(directory)
    jump.to(3600)        from now on its wall clock is an hour ahead of the true one; its monotonic clock goes on
"""

from pathlib import Path

from tests.compiled import compiled

__all__ = ["Jump"]

SOURCE = Path(__file__).with_name("jumpclock.c")


class Jump:
    def __init__(self, directory: Path) -> None:
        self._file = directory / "jump"
        self._file.write_bytes(bytes(8))
        self._file.chmod(0o644)
        self.environment = {"LD_PRELOAD": str(compiled(SOURCE)), "JUMPCLOCK_FILE": str(self._file)}

    def to(self, seconds: int) -> None:
        """In one write, in place: the daemon has the file mapped."""
        with self._file.open("r+b", buffering=0) as file:
            file.write(seconds.to_bytes(8, "little", signed=True))
