"""
A system whose random bytes end while a daemon runs, for one that is started with `Drought.environment`.

    drought = Drought(directory)
    drought.begins()     from now on getrandom(3) and getentropy(3) answer EIO, in the daemon and in its ledger's process
    drought.ends()

Who asks the kernel by syscall(2) notices nothing: gRPC's BoringSSL, which would end its process where it got none. Nor do
lanes, which inherit no LD_PRELOAD.
"""

import errno
from pathlib import Path

from tests.compiled import compiled

__all__ = ["Drought"]

SOURCE = Path(__file__).with_name("dryrandom.c")


class Drought:
    def __init__(self, directory: Path) -> None:
        self._file = directory / "drought"
        self._file.write_bytes(bytes(8))
        self._file.chmod(0o644)
        self.environment = {"LD_PRELOAD": str(compiled(SOURCE)), "DRYRANDOM_FILE": str(self._file)}

    def begins(self) -> None:
        self._put(errno.EIO)

    def ends(self) -> None:
        self._put(0)

    def _put(self, error: int) -> None:
        """In place: the daemon has the file mapped."""
        with self._file.open("r+b", buffering=0) as file:
            file.write(error.to_bytes(8, "little"))
