"""
The ledger's other end, in this process: the real committer over the real SQLite, without its process, before a disk that
may be full, slow, or fail an fsync.
"""

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from signer.chain import Row
from signer.cipher import Cipher
from signer.committer import Committer
from signer.entry import Entry, Failed, Unpacker, packed
from signer.sqlite import Sqlite
from tests.simulation.loop import Loop


class Disk:
    """`state`: well, full (a commit fails and leaves nothing), or sick (the next commit's fsync fails)."""

    def __init__(self) -> None:
        self.state = "well"
        self.slow_s = 0.0


class _OnDisk(Sqlite):
    """Commits, unless the disk has other ideas."""

    def __init__(self, path: Path, disk: Disk, chance: Callable[[], float]) -> None:
        super().__init__(path)
        self._disk = disk
        self._chance = chance

    def write(self, entries: Sequence[Entry], rows: Sequence[tuple[Row, int | None]]) -> None:
        self._check()
        super().write(entries, rows)

    def pulse(self) -> None:
        self._check()
        super().pulse()

    def _check(self) -> None:
        if self._disk.state == "full":
            raise Failed("AUDIT_UNWRITABLE", os.strerror(errno.ENOSPC))
        if self._disk.state == "sick":
            raise Failed("AUDIT_UNWRITABLE", os.strerror(errno.EIO), is_fatal=True)


class Stream:
    """What `Writer` has for a socket. `written` is told of each group that is on the disk, as it came."""

    def __init__(
        self,
        loop: Loop,
        path: Path,
        disk: Disk,
        cipher: Cipher,
        place: tuple[str, int, int, bytes],
        written: Callable[[list[Entry], int], None],
        said: Callable[[str], None],
    ) -> None:
        backend = _OnDisk(path, disk, loop.clock.chance.random)
        backend.go_on(*place)
        self._committer = Committer(backend, cipher.seal, *place)
        self._backend = backend
        self._loop, self._disk, self._written, self._said = loop, disk, written, said
        self._unpacker = Unpacker()
        self._answers: list[bytes] = []
        self.on_readable: Callable[[], Any] = lambda: None

    def setblocking(self, _value: bool) -> None:
        pass

    def send(self, data: memoryview) -> int:
        for group in self._unpacker.feed(bytes(data)):
            self._loop.call_later(self._moment(), self._commit, group)
        return len(data)

    def recv(self, _size: int) -> bytes:
        return self._answers.pop(0)

    def close(self) -> None:
        self._backend.close()

    def _moment(self) -> float:
        return self._loop.clock.chance.random() * 0.001 + self._disk.slow_s

    def _commit(self, group: Sequence[Any]) -> None:
        as_it_came = [Entry.came(*fields) for fields in group]
        answer = self._committer._answer([Entry.came(*fields) for fields in group])
        first, _, _, problem = answer
        if problem is None:
            self._written(as_it_came, first)
        else:
            self._said(f"commit of {len(group)} rows failed: {problem[1]}")
        self._loop.call_later(self._moment(), self._answer, packed(answer))

    def _answer(self, answer: bytes) -> None:
        self._answers.append(answer)
        self.on_readable()
