"""
What a database must do for the ledger: SQLite (`sqlite.py`) and PostgreSQL (`postgresql.py`) do it.

A daemon has one chain of rows. Whoever begins an epoch of it fences off whoever wrote before: that one writes nothing
more. With SQLite the chain is the only one of its file; in PostgreSQL each daemon has its own, whose id is kept in the
state directory.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from signer.chain import Row
from signer.entry import Backend, Entry

if TYPE_CHECKING:
    from signer.config import Config  # large, and the committer does without
    from signer.ids import Ids
    from signer.note import Head

RawRow = tuple[
    int, int, str, str, bytes, int | None
]  # epoch, sequence, kind, body, hash, and the INTENT that it closes

DATABASE = "paraph.sqlite"  # SQLite's file in the state directory
INSTANCE = "instance"  # in the state directory: whose chain in PostgreSQL this daemon's is
Where = Path | str  # SQLite's file, or PostgreSQL's URL

BUSY_S = 5.0  # a command and the daemon write at one time


class StoreError(Exception):
    """The database cannot be used; the message says why. `is_temporary`: now, and perhaps in a moment."""

    def __init__(self, message: str, *, is_temporary: bool = False) -> None:
        self.is_temporary = is_temporary
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Stored:
    """A row of ledger_requests."""

    item: int
    caller: str
    body: bytes
    accepted: int
    count: int
    output: str
    chain: bytes
    detail: bytes
    instance: str  # the daemon that has it


class Reader(Protocol):
    """Looks at what is committed; raises `Refusal` STORE_BUSY where the database does not answer."""

    ids: "Ids | None"  # of requests; None where other daemons write, too

    @property
    def trouble(self) -> str:
        """Why nothing can be looked up now: a reason, empty if it can."""

    async def request(self, id_: bytes, item: int) -> Stored | None: ...
    async def any_of(self, id_: bytes) -> Stored | None: ...
    async def all_of(self, id_: bytes, first: int, most: int) -> list[Stored]: ...
    async def results(self, id_: bytes, item: int) -> list[bytes]: ...
    async def certificates(self, chain: bytes) -> bytes: ...

    async def heads(self) -> "list[Head]":
        """The last row of each chain of a database that several daemons write; of a file, none: it has one."""

    async def close(self) -> None: ...


class Past(Protocol):
    """What is there when the daemon starts. Every method raises `entry.Failed`, or `StoreError` for what no retry mends."""

    def instance(self) -> tuple[str, int, str]:
        """The id of this daemon, made at the first start; the epoch that was begun last, 0 for none; the last checkpoint."""

    def instances(self) -> list[tuple[str, int]]:
        """The daemons that write here, each with the epoch that it has begun last."""

    def rows(self, instance: str) -> Generator[RawRow]:
        """Its chain, in order."""

    def hash_of(self, instance: str, epoch: int, sequence: int) -> bytes | None:
        """Of the row in this place, None if there is none."""

    def body_of(self, instance: str, epoch: int, sequence: int) -> str | None:
        """What the row in this place says, None if there is none."""

    def results(self, id_: bytes, item: int) -> list[bytes]:
        """What is kept of a request, in the order of writing."""

    def close(self) -> None: ...


class Epochs(Backend, Protocol):
    """The committer's backend, once it has an epoch: that is what it writes in."""

    def begin_epoch(
        self, instance: str, before: int, epoch: int, entries: Sequence[Entry], rows: Sequence[Row]
    ) -> None:
        """
        Write the first rows of an epoch, in one commit; unless another than `before` was begun last, or the chain's last
        row is another than the first of these says: then somebody else is at it. Raises `entry.Failed`.
        """

    def go_on(self, instance: str, epoch: int, sequence: int, hash_: bytes, /) -> None:
        """Write in an epoch that this daemon has begun with another connection, which is closed, behind this row of it."""

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


def where(config: "Config") -> Where:
    return config.ledger.database or config.server.state / DATABASE


def database_at(where: Where, state: Path) -> Database:
    """The one that `open_store` has made ready; `state` is the daemon's directory."""
    if isinstance(where, Path):
        from signer.sqlite import SqliteDatabase  # late: it is written in terms of this file

        return SqliteDatabase(where)
    from signer.postgresql import PostgresqlDatabase  # late, too: the driver is an extra of the installation

    return PostgresqlDatabase(where, state / INSTANCE)
