"""
A daemon's chain, read and never written: whatever state it is in, and whether the daemon runs or refuses to start.

Nothing here judges. A row is given as it stands, also one that somebody has edited: the judgement is `paraph audit
verify`'s, over what is written out. Bytes that are no UTF-8 stay what they are (PEP 383).
"""

import json
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain as joined
from pathlib import Path
from typing import Any, Protocol, Self

from signer.chain import GENESIS, Row
from signer.chain import write as written
from signer.config import Config
from signer.database import BUSY_S, StoreError, where
from signer.recovery import ARCHIVED

INSTANCE = "instance"  # as signer/books.py: the file with a PostgreSQL daemon's id
_INSTANCE = "SELECT instance FROM ledger_instances UNION ALL SELECT instance FROM ledger_rows LIMIT 1"
_ROWS = "SELECT epoch, sequence, kind, body, hash FROM ledger_rows WHERE instance = {} ORDER BY epoch, sequence"
_ACCEPTED = "SELECT min(accepted) FROM ledger_requests WHERE id = {}"


class Evidence(Protocol):
    instance: str  # whose chain it is; empty where the database does not say

    def raw(self) -> Iterator[tuple[Any, ...]]:
        """Epoch, sequence, kind, body and hash of each row, in order."""

    def accepted(self, id_: uuid.UUID) -> int | None:
        """The second in which this request was accepted, None once that is forgotten (after a day)."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


def opened(config: Config) -> Evidence:
    """The ledger of this configuration's daemon. Everything that it does raises `StoreError`."""
    place = where(config)
    if isinstance(place, Path):
        return SqliteEvidence(place)
    return _PostgresqlEvidence(place, config.server.state / INSTANCE)


def rows(evidence: Evidence) -> Iterator[Row]:
    """The rows, each tied to the one before it as it stands there."""
    previous = GENESIS
    for epoch, sequence, kind, body, hash_ in evidence.raw():
        found = hash_ if isinstance(hash_, bytes) else str(hash_).encode()
        if (epoch, sequence) != ARCHIVED:
            yield Row(evidence.instance, epoch, sequence, str(kind), str(body), previous, found)
        previous = found


def segment(evidence: Evidence) -> Iterator[str]:
    """The lines of a file that `paraph audit verify` reads, one after the other; nothing where there are no rows."""
    found = rows(evidence)
    first = next(found, None)
    if first is not None:
        yield from joined(written([first]), (row.line for row in found))


class SqliteEvidence:
    """One file, opened so that nothing can be written to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = read_only(path)
        self.connection.text_factory = lambda text: text.decode(errors="surrogateescape")
        try:
            found = next(self.ask(_INSTANCE), None)
        except StoreError:
            self.connection.close()
            raise
        self.instance = str(found[0]) if found else ""

    def ask(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Its rows, one by one; raises `StoreError` where one of them cannot be read."""
        try:
            yield from self.connection.execute(query, values)
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from None

    def raw(self) -> Iterator[tuple[Any, ...]]:
        return self.ask(_ROWS.format("?"), self.instance)

    def accepted(self, id_: uuid.UUID) -> int | None:
        found: int | None = next(self.ask(_ACCEPTED.format("?"), id_.bytes))[0]
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


def read_only(path: Path) -> sqlite3.Connection:
    """
    SQLite's own way to read beside a daemon that writes. On a medium that cannot be written (evidence that was seized)
    that way is closed, so a file without a write-ahead log is read as one that nobody changes. Raises `StoreError`.
    """
    if not path.is_file():
        raise StoreError(f"there is no database {path}; look at server.state in the configuration")
    wal = path.with_name(f"{path.name}-wal")
    modes = ["mode=ro"] if wal.exists() and wal.stat().st_size else ["mode=ro", "mode=ro&immutable=1"]
    said = ""
    for mode in modes:
        try:
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=BUSY_S)
        except sqlite3.Error as error:
            said = str(error)
            continue
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.Error as error:
            connection.close()
            said = str(error)
        else:
            return connection
    raise StoreError(f"{path}: {said}")


class _PostgresqlEvidence:
    def __init__(self, url: str, instance: Path) -> None:
        try:
            from signer.postgresql import connect  # late: the driver is an extra of the installation
        except ImportError as error:
            raise StoreError(f"{url} wants PostgreSQL's driver: install paraph[daemon,postgresql] ({error})") from None
        self._url = url
        try:
            self.instance = instance.read_text().strip()
        except OSError as error:
            raise StoreError(f"{instance}: {error.strerror}; it says whose chain is this daemon's") from None
        with _told(url):
            self._db = connect(url, autocommit=True)
            self._db.execute("SET default_transaction_read_only = on")

    def raw(self) -> Iterator[tuple[Any, ...]]:
        with _told(self._url), self._db.transaction(), self._db.cursor("evidence", binary=True) as cursor:
            cursor.itersize = 5_000
            cursor.execute(_ROWS.format("%s"), (self.instance,))
            yield from cursor

    def accepted(self, id_: uuid.UUID) -> int | None:
        with _told(self._url):
            found = self._db.execute(_ACCEPTED.format("%s"), (id_.bytes,)).fetchone()
        return found[0] if found else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()


class _told:  # noqa: N801 -- it is used as a function
    """PostgreSQL's errors as `StoreError`."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        import psycopg

        if isinstance(error, psycopg.Error):
            raise StoreError(f"{self._url}: {' '.join(str(error).split())}") from None


def fields(row: Row) -> dict[str, Any]:
    """What a row says; nothing where that is no JSON object."""
    with suppress(ValueError, RecursionError):
        found = json.loads(row.body)
        if isinstance(found, dict):
            return found
    return {}
