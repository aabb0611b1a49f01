"""
The ledger's statements for SQLite, as the driver takes them.

Several rows go with one statement: each statement lets other threads run, and takes its turn among them again.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from signer.chain import Row
from signer.ledger import Stored
from signer.store import connect
from signer.writer import Entry, Failed

_COLUMNS = {"ledger_rows": 7, "ledger_requests": 9, "ledger_results": 4}
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


class Sqlite:
    """For the writer's thread."""

    def __init__(self, path: Path) -> None:
        self._db = connect(path)

    def begin_epoch(
        self, instance: str, epoch: int, entries: Sequence[Entry], rows: Sequence[tuple[Row, int | None]]
    ) -> None:
        """Write the first rows of an epoch, unless somebody else has begun it; raises `Failed`."""
        step = "UPDATE ledger_instances SET epoch = ? WHERE instance = ? AND epoch = ?"
        try:
            self._db.execute("BEGIN IMMEDIATE")
            if self._db.execute(step, (epoch, instance, epoch - 1)).rowcount != 1:
                self._db.execute("ROLLBACK")
                raise Failed("STORE_BUSY", f"another daemon has begun epoch {epoch}")
            self._insert_all(entries, rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise _failed(error) from None

    def write(self, entries: Sequence[Entry], rows: Sequence[tuple[Row, int | None]]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._insert_all(entries, rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise _failed(error) from None

    def _insert_all(self, entries: Sequence[Entry], rows: Sequence[tuple[Row, int | None]]) -> None:
        for entry in entries:
            if entry.chain is not None:
                self._db.execute("INSERT INTO ledger_chains VALUES (?, ?) ON CONFLICT DO NOTHING", entry.chain)
            if entry.note:
                self._db.execute("UPDATE ledger_instances SET note = ?", (entry.note,))
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
        """Forget what is kept of so many requests, accepted before this second; answers of how many. Raises `Failed`."""
        old = "SELECT id, item FROM ledger_requests WHERE accepted < ? ORDER BY accepted LIMIT ?"
        try:
            self._db.execute("BEGIN IMMEDIATE")
            gone = self._db.execute(old, (before, most)).fetchall()
            for table in ("ledger_results", "ledger_requests"):
                self._db.executemany(f"DELETE FROM {table} WHERE id = ? AND item = ?", gone)  # noqa: S608
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise _failed(error) from None
        return len(gone)

    def pulse(self) -> None:
        try:
            self._db.execute("UPDATE ledger_instances SET pulse = pulse + 1")
        except sqlite3.Error as error:
            raise _failed(error) from None

    def close(self) -> None:
        self._db.close()

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            try:
                self._db.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise Failed("AUDIT_UNWRITABLE", f"not even taken back: {error}", is_fatal=True) from None


class SqliteReader:
    """What is committed; for the event loop's thread. A look-up takes some ten microseconds."""

    _REQUEST = "SELECT item, caller, body, accepted, count, output, chain, detail FROM ledger_requests WHERE id = ?"

    def __init__(self, path: Path) -> None:
        self._db = connect(path)

    def request(self, id_: bytes, item: int) -> Stored | None:
        row = self._db.execute(f"{self._REQUEST} AND item = ?", (id_, item)).fetchone()
        return None if row is None else Stored(*row)

    def any_of(self, id_: bytes) -> Stored | None:
        row = self._db.execute(f"{self._REQUEST} LIMIT 1", (id_,)).fetchone()
        return None if row is None else Stored(*row)

    def all_of(self, id_: bytes, first: int, most: int) -> list[Stored]:
        rows = self._db.execute(f"{self._REQUEST} AND item >= ? ORDER BY item LIMIT ?", (id_, first, most))
        return [Stored(*row) for row in rows]

    def results(self, id_: bytes, item: int) -> list[bytes]:
        rows = self._db.execute(
            "SELECT data FROM ledger_results WHERE id = ? AND item = ? ORDER BY number", (id_, item)
        )
        return [data for (data,) in rows]

    def certificates(self, chain: bytes) -> bytes:
        certificates: bytes = self._db.execute(
            "SELECT certificates FROM ledger_chains WHERE hash = ?", (chain,)
        ).fetchone()[0]
        return certificates

    def close(self) -> None:
        self._db.close()


def _failed(error: sqlite3.Error) -> Failed:
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF in _BUSY:
        return Failed("STORE_BUSY", str(error))
    return Failed("AUDIT_UNWRITABLE", str(error), is_fatal=code in _FSYNC)
