"""
A disk that fails by script, and one whose power is cut: for a daemon that is started with `Disk.environment`.

    disk = Disk(directory, "paraph.sqlite", undo=True)
    disk.script("write 28")          ENOSPC for each write from now on; "sync 5": EIO; "sync sleep 3"; nothing: it works
    disk.syncs(pid)                  how many times a process has synced a file so far, with counted=True
    disk.power_cut()                 after kill -9: what was written and not synced is taken back
"""

import struct
from pathlib import Path

from tests.compiled import compiled

__all__ = ["Disk"]

SOURCE = Path(__file__).with_name("faultdisk.c")
UNDO = struct.Struct("=QQQ")


class Disk:
    """`files`: a part of the paths that are meant."""

    def __init__(self, directory: Path, files: str, *, undo: bool = False, counted: bool = False) -> None:
        directory.mkdir(exist_ok=True)
        self._script = directory / "disk-script"
        self.script()
        self.environment = {
            "LD_PRELOAD": str(compiled(SOURCE)),
            "FAULTDISK_FILES": files,
            "FAULTDISK_SCRIPT": str(self._script),
        }
        if undo:
            self.environment["FAULTDISK_UNDO"] = "1"
        self._syncs = directory / "syncs"
        if counted:
            self._syncs.touch()
            self._syncs.chmod(0o666)
            self.environment["FAULTDISK_SYNCS"] = str(self._syncs)

    def script(self, *lines: str) -> None:
        new = self._script.with_suffix(".new")
        new.write_text("".join(f"{line}\n" for line in lines))
        new.chmod(0o644)
        new.replace(self._script)

    def syncs(self, pid: int) -> int:
        return self._syncs.read_text().split().count(str(pid))

    @staticmethod
    def power_cut(directory: Path) -> int:
        """Take back what was not synced in the files of a directory, whose program is dead; answers how many writes."""
        count = 0
        for path in directory.glob("*.undo"):
            data, records, place = path.read_bytes(), [], 0
            while place + UNDO.size <= len(data):
                offset, size, length = UNDO.unpack_from(data, place)
                place += UNDO.size
                records.append((offset, size, data[place : place + length]))
                place += length
            file = path.with_suffix("")
            if file.exists():
                with file.open("r+b") as opened:
                    for offset, size, old in reversed(records):
                        opened.seek(offset)
                        opened.write(old)
                        opened.truncate(size)
            count += len(records)
            path.unlink()
        return count
