"""
What a database must do for the ledger: SQLite (`sqlite.py`) and PostgreSQL (`postgresql.py`) do it.

A daemon has one chain of rows. Whoever begins an epoch of it fences off whoever wrote before: that one writes nothing
more. With SQLite the chain is the only one of its file; in PostgreSQL each daemon has its own, whose id is kept in the
state directory.
"""

from collections.abc import Generator, Sequence
from typing import Protocol

from signer.chain import Row
from signer.ledger import Reader
from signer.writer import Backend, Entry

RawRow = tuple[
    int, int, str, str, bytes, int | None
]  # epoch, sequence, kind, body, hash, and the INTENT that it closes


class Past(Protocol):
    """What is there when the daemon starts. Every method raises `writer.Failed`, or `StoreError` for what no retry mends."""

    def instance(self) -> tuple[str, int, str]:
        """The id of this daemon, made at the first start; the epoch that was begun last, 0 for none; the last checkpoint."""

    def rows(self, instance: str) -> Generator[RawRow]:
        """Its chain, in order."""

    def hash_of(self, instance: str, epoch: int, sequence: int) -> bytes | None:
        """Of the row in this place, None if there is none."""

    def results(self, id_: bytes, item: int) -> list[bytes]:
        """What is kept of a request, in the order of writing."""

    def close(self) -> None: ...


class Epochs(Backend, Protocol):
    """The writer's backend, once it has begun an epoch: that is what it writes in."""

    def begin_epoch(self, instance: str, epoch: int, entries: Sequence[Entry], rows: Sequence[Row]) -> None:
        """
        Write the first rows of an epoch, unless somebody else has begun it, or the chain's last row is another than the
        first of these says. Raises `writer.Failed`.
        """

    def ending(self) -> None:
        """The daemon ends: what the database does not say at once is left to the next start. For any thread."""


class Eraser(Protocol):
    def erase(self, before: int, most: int) -> int:
        """Forget what is kept of so many requests, accepted before this second; answers of how many. Raises `Failed`."""

    def close(self) -> None: ...


class Database(Protocol):
    """Each object that it makes has a connection of its own, and is used by one thread at a time."""

    def past(self) -> Past: ...
    def backend(self) -> Epochs: ...
    def eraser(self) -> Eraser: ...
    def reader(self) -> Reader: ...
