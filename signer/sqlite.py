"""
The ledger's statements for SQLite, as the driver takes them.

Several rows go with one statement: each statement lets other threads run, and takes its turn among them again.
"""

import contextlib
import os
import sqlite3
import uuid
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from signer.chain import GENESIS, Row
from signer.database import BUSY_S, RawRow, Stored, StoreError
from signer.entry import Entry, Failed, Taken
from signer.ids import Ids, Place
from signer.note import Head

WRITE_BUSY_S = 0.2  # somebody else's lock; then it is said
_COLUMNS = {"ledger_rows": 7, "ledger_requests": 10, "ledger_results": 4}
_SIZES = (64, 8, 1)  # rows in a statement: three statements for each table, prepared once
_INSERTS = {
    (table, size): f"INSERT INTO {table} VALUES " + ", ".join(["(" + ", ".join("?" * columns) + ")"] * size)  # noqa: S608
    for table, columns in _COLUMNS.items()
    for size in _SIZES
}
# SQLite says in its extended code what failed: an fsync, after which nothing on the disk is certain ...
_FSYNC = frozenset({sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC})
# ... or somebody else's lock.
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
# What may be over at the next start.
_TEMPORARY = _BUSY | {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}


class SqliteDatabase:
    def __init__(self, path: Path) -> None:
        self._path = path

    def past(self) -> "SqlitePast":
        return SqlitePast(self._path)

    def backend(self) -> "Sqlite":
        return Sqlite(self._path)

    eraser = backend

    def reader(self) -> "SqliteReader":
        return SqliteReader(self._path)


def _connect(path: Path, timeout_s: float = WRITE_BUSY_S) -> sqlite3.Connection:
    """Without transactions of the driver's own; `open_store` comes first."""
    connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
    for pragma in ("synchronous = FULL", "journal_size_limit = 67108864"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


class Sqlite:
    """For the committer, and for the eraser."""

    def __init__(self, path: Path) -> None:
        self._db = _connect(path)
        self._epoch = ("", 0)  # the instance, and the epoch of it that was begun here

    def begin_epoch(
        self, instance: str, before: int, epoch: int, entries: Sequence[Entry], rows: Sequence[Row]
    ) -> None:
        step = "UPDATE ledger_instances SET epoch = ? WHERE instance = ? AND epoch = ?"
        last = "SELECT hash FROM ledger_rows WHERE instance = ? ORDER BY epoch DESC, sequence DESC LIMIT 1"
        with self._transaction():
            if self._db.execute(step, (epoch, instance, before)).rowcount != 1:
                raise Failed("STORE_BUSY", f"another daemon has begun an epoch after {before}")
            (hash_,) = self._db.execute(last, (instance,)).fetchone() or (GENESIS,)
            if hash_ != rows[0].previous:
                raise Failed("STORE_BUSY", "the ledger has grown since it was read: another daemon writes it")
            self._insert_all(instance, entries, [(row, None) for row in rows])
        self._epoch = (instance, epoch)

    def go_on(self, instance: str, epoch: int, _sequence: int, _hash: bytes) -> None:
        self._epoch = (instance, epoch)

    def write(self, entries: Sequence[Entry], rows: Sequence[tuple[Row, int | None]]) -> None:
        with self._transaction():
            if not self._db.execute(
                "SELECT 1 FROM ledger_instances WHERE instance = ? AND epoch = ?", self._epoch
            ).fetchone():
                raise self._fenced()
            try:
                self._insert_all(self._epoch[0], entries, rows)
            except sqlite3.IntegrityError:
                self._db.execute("ROLLBACK")  # so that what is found is not of this very commit
                self._tell_taken(entries)
                raise

    def _tell_taken(self, entries: Sequence[Entry]) -> None:
        """Raises `Taken` where requests of these are there already: they were not looked up, or not found."""
        there = "SELECT 1 FROM ledger_requests WHERE id = ? AND item = ?"
        brought = [(entry, entry.request[:2]) for entry in entries if entry.request is not None]
        taken = [entry for entry, key in brought if self._db.execute(there, key).fetchone()]
        if taken:
            raise Taken(taken)

    def _insert_all(self, instance: str, entries: Sequence[Entry], rows: Sequence[tuple[Row, int | None]]) -> None:
        for entry in entries:
            if entry.chain is not None:
                self._db.execute("INSERT INTO ledger_chains VALUES (?, ?) ON CONFLICT DO NOTHING", entry.chain)
            if entry.note:
                self._db.execute("UPDATE ledger_instances SET note = ? WHERE instance = ?", (entry.note, instance))
        self._insert("ledger_requests", [entry.request for entry in entries if entry.request is not None])
        self._insert("ledger_results", [entry.result for entry in entries if entry.result is not None])
        self._insert(
            "ledger_rows",
            [(r.instance, r.epoch, r.sequence, r.kind, r.body, r.hash, closes) for r, closes in rows],
        )

    def _insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        start = 0
        for size in _SIZES:
            while len(rows) - start >= size:
                part = rows[start : start + size]
                self._db.execute(_INSERTS[table, size], [value for row in part for value in row])
                start += size

    def erase(self, before: int, most: int) -> int:
        old = "SELECT id, item FROM ledger_requests WHERE accepted < ? ORDER BY accepted LIMIT ?"
        with self._transaction():
            gone = self._db.execute(old, (before, most)).fetchall()
            for table in ("ledger_results", "ledger_requests"):
                self._db.executemany(f"DELETE FROM {table} WHERE id = ? AND item = ?", gone)  # noqa: S608
        return len(gone)

    def pulse(self) -> None:
        beat = "UPDATE ledger_instances SET pulse = pulse + 1 WHERE instance = ? AND epoch = ?"
        try:
            if self._db.execute(beat, self._epoch).rowcount != 1:
                raise self._fenced()
        except sqlite3.Error as error:
            raise _failed(error) from None

    def ending(self) -> None:
        """It always answers, or nothing does."""

    def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise _failed(error) from None
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            try:
                self._db.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise Failed("AUDIT_UNWRITABLE", f"not even taken back: {error}", is_fatal=True) from None

    def _fenced(self) -> Failed:
        said = f"epoch {self._epoch[1]} of this ledger is over: another daemon writes it now"
        return Failed("STORE_BUSY", said, is_fatal=True)


class SqliteReader:
    """What is committed; for the event loop's thread. A look-up takes some ten microseconds."""

    _REQUEST = (
        "SELECT item, caller, body, accepted, count, output, chain, detail, instance FROM ledger_requests WHERE id = ?"
    )

    def __init__(self, path: Path) -> None:
        self._db = _connect(path)
        self.ids: Ids | None = Ids(self._rows_after)
        self.trouble = ""  # it answers at once, or nothing does

    async def _rows_after(self, place: Place, most: int) -> list[Place]:
        # Not DISTINCT ids: SQLite would walk through all rows of as many requests, each of which may be a stream's.
        page = "SELECT id, item FROM ledger_requests WHERE (id, item) > (?, ?) ORDER BY id, item LIMIT ?"
        return self._db.execute(page, (*place, most)).fetchall()

    async def request(self, id_: bytes, item: int) -> Stored | None:
        row = self._db.execute(f"{self._REQUEST} AND item = ?", (id_, item)).fetchone()
        return None if row is None else Stored(*row)

    async def any_of(self, id_: bytes) -> Stored | None:
        row = self._db.execute(f"{self._REQUEST} LIMIT 1", (id_,)).fetchone()
        return None if row is None else Stored(*row)

    async def all_of(self, id_: bytes, first: int, most: int) -> list[Stored]:
        rows = self._db.execute(f"{self._REQUEST} AND item >= ? ORDER BY item LIMIT ?", (id_, first, most))
        return [Stored(*row) for row in rows]

    async def results(self, id_: bytes, item: int) -> list[bytes]:
        return _results(self._db, id_, item)

    async def certificates(self, chain: bytes) -> bytes:
        certificates: bytes = self._db.execute(
            "SELECT certificates FROM ledger_chains WHERE hash = ?", (chain,)
        ).fetchone()[0]
        return certificates

    async def heads(self) -> list[Head]:
        return []

    async def close(self) -> None:
        self._db.close()


class SqlitePast:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = _connect(path, BUSY_S)

    def instance(self) -> tuple[str, int, str]:
        """The only row's; the first daemon makes it."""
        with self._told():
            found = self._db.execute("SELECT instance, epoch, note FROM ledger_instances").fetchone()
            if found is None:
                found = (uuid.uuid4().hex, 0, "")
                self._db.execute("INSERT INTO ledger_instances VALUES (?, ?, ?, 0)", found)
        instance, epoch, note = found
        return instance, epoch, note

    def instances(self) -> list[tuple[str, int]]:
        with self._told():
            return self._db.execute("SELECT instance, epoch FROM ledger_instances").fetchall()

    def rows(self, instance: str) -> Generator[RawRow]:
        columns = "epoch, sequence, kind, body, hash, closes"
        with self._told():
            yield from self._db.execute(
                f"SELECT {columns} FROM ledger_rows WHERE instance = ? ORDER BY epoch, sequence",  # noqa: S608
                (instance,),
            )

    def hash_of(self, instance: str, epoch: int, sequence: int) -> bytes | None:
        found: bytes | None = self._at("hash", instance, epoch, sequence)
        return found

    def body_of(self, instance: str, epoch: int, sequence: int) -> str | None:
        found: str | None = self._at("body", instance, epoch, sequence)
        return found

    def _at(self, column: str, instance: str, epoch: int, sequence: int) -> Any:
        place = "instance = ? AND epoch = ? AND sequence = ?"
        with self._told():
            found = self._db.execute(
                f"SELECT {column} FROM ledger_rows WHERE {place}",  # noqa: S608
                (instance, epoch, sequence),
            ).fetchone()
        return None if found is None else found[0]

    def results(self, id_: bytes, item: int) -> list[bytes]:
        with self._told():
            return _results(self._db, id_, item)

    def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Of a file that is damaged, and of a lock that somebody holds, by the file's name."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            failed = _failed(error)
            if failed.reason == "STORE_BUSY":
                raise failed from None
            raise unusable(self._path, error) from None


def unusable(path: Path, error: sqlite3.Error) -> StoreError:
    """What a start is told that cannot use this database: a temporary one where there is no room, or the disk fails."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    # Without an inode for the files beside it, it is one that cannot be opened.
    is_full = code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_CANTOPEN and _has_no_inode(path.parent))
    said = "there is no room on its disk; make some" if is_full else " ".join(str(error).split())
    return StoreError(f"{path}: {said}", is_temporary=is_full or code in _TEMPORARY)


def _has_no_inode(directory: Path) -> bool:
    with contextlib.suppress(OSError):
        found = os.statvfs(directory)
        return found.f_files > 0 and not found.f_favail  # some file systems count none
    return False


def _results(db: sqlite3.Connection, id_: bytes, item: int) -> list[bytes]:
    rows = db.execute("SELECT data FROM ledger_results WHERE id = ? AND item = ? ORDER BY number", (id_, item))
    return [data for (data,) in rows]


def _failed(error: sqlite3.Error) -> Failed:
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF in _BUSY:
        return Failed("STORE_BUSY", str(error))
    return Failed("AUDIT_UNWRITABLE", str(error), is_fatal=code in _FSYNC)
