"""
The ledger's statements for PostgreSQL, by psycopg.

A group of entries is one statement: its rows travel as arrays, one for each column. Measured with 256 requests this
costs a seventh of the processor time that multi-row VALUES do. It locks this daemon's row of ledger_instances, and
writes nothing where that has another epoch: whoever begins the next one waits for what is under way, and keeps
everything else out.

COMMIT goes out only after the statement's answer, so the lock is held by then. If the connection is lost before, nothing
was written; if it is lost after, whoever gets the lock next sees what became of it. That is asked before anything is
said.
"""

import contextlib
import logging
import os
import re
import select
import socket
import threading
import uuid
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.numeric import Int8BinaryDumper

from signer.chain import GENESIS, Row
from signer.database import RawRow, Reader, StoreError
from signer.durable import put
from signer.entry import Entry, Failed, Taken
from signer.writer import RETRY_S

log = logging.getLogger("signer.ledger")

Connection = psycopg.Connection[tuple[Any, ...]]

LOCK_S = 2  # a lock that somebody holds so long is trouble
STATEMENT_S = 10  # a server that computes so long is, too
END_S = 2.0  # a daemon that ends waits so long for a server that hangs
FETCH_ROWS = 5_000  # of the chain at a time, when it is walked
# Where the URL does not say otherwise. A host that has gone is noticed after 11 s (5 + 3 times 2); of several in the
# URL the one that can be written is taken.
_CONNECTION: dict[str, Any] = {
    "application_name": "paraph",
    "client_encoding": "UTF8",
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 11_000,
    "target_session_attrs": "read-write",
}
# Always: what is acknowledged is on the disk. A connection that was cut leaves its transaction behind, with its locks:
# the server ends it. Statements are planned once: each has but one plan.
_SESSION = {
    "synchronous_commit": "on",
    "idle_in_transaction_session_timeout": "10s",
    "plan_cache_mode": "force_generic_plan",
}
# SQLSTATEs (PostgreSQL, Appendix A) of what passes: connections, locks, timeouts, an operator, too many of us.
_BUSY = ("08", "40", "53300", "53400", "55P03", "57")

_WRITE = """
WITH ours AS (SELECT FROM ledger_instances WHERE instance = %b AND epoch = %b FOR SHARE),
note AS (UPDATE ledger_instances SET note = new.note
    FROM ours, unnest(%b::text[]) AS new (note) WHERE instance = %b),
chains AS (INSERT INTO ledger_chains SELECT new.* FROM ours, unnest(%b::bytea[], %b::bytea[]) AS new
    ON CONFLICT DO NOTHING),
requests AS (INSERT INTO ledger_requests SELECT new.* FROM ours, unnest(%b::bytea[], %b::int8[], %b::text[], %b::bytea[],
    %b::int8[], %b::int8[], %b::text[], %b::bytea[], %b::bytea[], %b::text[]) AS new),
results AS (INSERT INTO ledger_results SELECT new.* FROM ours,
    unnest(%b::bytea[], %b::int8[], %b::int8[], %b::bytea[]) AS new)
INSERT INTO ledger_rows SELECT new.* FROM ours,
    unnest(%b::text[], %b::int8[], %b::int8[], %b::text[], %b::text[], %b::bytea[], %b::int8[]) AS new
"""
_STEP = "UPDATE ledger_instances SET epoch = %b WHERE instance = %b AND epoch = %b"
_LAST = "SELECT hash FROM ledger_rows WHERE instance = %b ORDER BY epoch DESC, sequence DESC LIMIT 1"
_LOCKED = "SELECT epoch, note FROM ledger_instances WHERE instance = %b FOR UPDATE"
_BODY = "SELECT body FROM ledger_rows WHERE instance = %b AND epoch = %b AND sequence = %b"
_HASH = "SELECT hash FROM ledger_rows WHERE instance = %b AND epoch = %b AND sequence = %b"
_PULSE = "UPDATE ledger_instances SET pulse = pulse + 1 WHERE instance = %b AND epoch = %b"
_ERASE = """
WITH old AS (SELECT id, item FROM ledger_requests WHERE accepted < %b ORDER BY accepted LIMIT %b
    FOR UPDATE SKIP LOCKED),
results AS (DELETE FROM ledger_results AS r USING old WHERE r.id = old.id AND r.item = old.item)
DELETE FROM ledger_requests AS r USING old WHERE r.id = old.id AND r.item = old.item
"""
_TAKEN = """
SELECT asked.number FROM unnest(%b::int8[], %b::bytea[], %b::int8[]) AS asked (number, id, item)
JOIN ledger_requests USING (id, item)
"""
RESULTS = "SELECT data FROM ledger_results WHERE id = %b AND item = %b ORDER BY number"
_ROWS = "SELECT epoch, sequence, kind, body, hash, closes FROM ledger_rows WHERE instance = %b ORDER BY epoch, sequence"


class PostgresqlDatabase:
    def __init__(self, url: str, instance: Path) -> None:
        """`instance` is the file with this daemon's id."""
        self._url = url
        self._instance = instance

    def past(self) -> "PostgresqlPast":
        return PostgresqlPast(self._url, self._instance)

    def backend(self) -> "Postgresql":
        return Postgresql(self._url)

    eraser = backend

    def reader(self) -> Reader:
        from signer.postgresql_reader import PostgresqlReader  # late: the committer has no use for it

        return PostgresqlReader(self._url)


def connect(url: str, *, autocommit: bool, statement_s: int = 0, lock_s: int = STATEMENT_S) -> Connection:
    """
    A connection on which a commit is durable; `statement_s` 0: a statement takes as long as it takes.

    Raises `StoreError` for a server that keeps nothing, and the driver's errors.
    """
    connection = psycopg.connect(conninfo(url), autocommit=True)
    try:
        connection.adapters.register_dumper(int, Int8BinaryDumper)  # one type, so that one statement is prepared
        statement, values = session_settings(statement_s, lock_s)
        check_durable(url, connection.execute(statement, values).fetchone())
        connection.autocommit = autocommit
    except BaseException:
        connection.close()
        raise
    return connection


def conninfo(url: str) -> str:
    return make_conninfo(**(_CONNECTION | conninfo_to_dict(url)))


def session_settings(statement_s: int, lock_s: int) -> tuple[str, list[str]]:
    settings = _SESSION | {"statement_timeout": f"{statement_s}s", "lock_timeout": f"{lock_s}s"}
    said = ", ".join(["set_config(%s, %s, false)"] * len(settings))
    values = [word for setting in settings.items() for word in setting]
    return f"SELECT current_setting('fsync'), {said}", values


def check_durable(url: str, answer: tuple[Any, ...] | None) -> None:
    if answer is None or answer[0] != "on":
        raise StoreError(
            f"{url}: the server runs with fsync=off, so a crash of its host loses what was signed; set fsync = on in its "
            "postgresql.conf, and reload it"
        )


class Postgresql:
    """For the committer, and for the eraser. After an error it connects anew, at the next call."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._db: Connection | None = None
        self._epoch = ("", 0)  # the instance, and the epoch of it that was begun here
        self._last = (0, 0, GENESIS)  # the row that was acknowledged last: its epoch, place and hash
        self._ending = threading.Event()

    def begin_epoch(
        self, instance: str, before: int, epoch: int, entries: Sequence[Entry], rows: Sequence[Row]
    ) -> None:
        self._epoch = (instance, epoch)
        with self._told():
            db = self._connected()
            if db.execute(_STEP, (epoch, instance, before)).rowcount != 1:
                raise Failed("STORE_BUSY", f"another daemon has begun an epoch after {before}")
            (hash_,) = db.execute(_LAST, (instance,)).fetchone() or (GENESIS,)
            if hash_ != rows[0].previous:
                raise Failed("STORE_BUSY", "the ledger has grown since it was read: another daemon writes it")
            self._insert(db, entries, [(row, None) for row in rows])
            self._commit(db, rows[-1])

    def go_on(self, instance: str, epoch: int, sequence: int, hash_: bytes) -> None:
        self._epoch = (instance, epoch)
        self._last = (epoch, sequence, hash_)

    def write(self, entries: Sequence[Entry], rows: Sequence[tuple[Row, int | None]]) -> None:
        with self._told():
            db = self._ready() or self._connected_again()
            try:
                self._insert(db, entries, rows)
            except errors.UniqueViolation as error:
                db.rollback()
                self._tell_taken(db, entries)
                # Rows are there that are ours and that we know nothing of: what is on the disk is not what we think.
                is_fatal = error.diag.table_name != "ledger_requests"
                raise Failed("AUDIT_UNWRITABLE", said_by(error), is_fatal=is_fatal) from None
            self._commit(db, rows[-1][0])

    def _insert(
        self,
        db: Connection,
        entries: Sequence[Entry],
        rows: Sequence[tuple[Row, int | None]],
    ) -> None:
        notes = [entry.note for entry in entries if entry.note]
        values: list[Any] = [*self._epoch, notes[-1:], self._epoch[0]]
        values += columns([entry.chain for entry in entries if entry.chain is not None], 2)
        values += columns([entry.request for entry in entries if entry.request is not None], 10)
        values += columns([entry.result for entry in entries if entry.result is not None], 4)
        values += columns(  # the driver writes the name of an enum's member, where we want its value
            [(r.instance, r.epoch, r.sequence, str(r.kind), r.body, r.hash, closes) for r, closes in rows], 7
        )
        with db.pipeline():  # BEGIN goes with it
            cursor = db.execute(_WRITE, values, prepare=True)
        if cursor.rowcount != len(rows):
            raise self._fenced()

    def _commit(self, db: Connection, last: Row) -> None:
        """Returns when the transaction, whose last row this is, is durable."""
        try:
            db.commit()
        except psycopg.Error as error:
            if not db.broken:
                raise
            log.warning("the connection to the database was lost in a commit: %s", said_by(error))
            self._find_out(last)
        self._last = (last.epoch, last.sequence, last.hash)

    def _find_out(self, last: Row) -> None:
        """
        Returns if the transaction that wrote this row was committed. Until the database has said so either way, the
        group is neither written nor failed.
        """
        self._drop()
        while True:
            try:
                db = self._connected()
                # Whoever wrote it held a lock on this row: now that is over.
                db.execute(_LOCKED, (last.instance,))
                is_there = db.execute(_HASH, (last.instance, last.epoch, last.sequence)).fetchone() == (last.hash,)
                db.rollback()
                break
            except (psycopg.Error, Failed) as error:
                self._drop()
                log.warning("whether the last commit was made is not known yet: %s", " ".join(str(error).split()))
            if self._ending.wait(RETRY_S):
                raise Failed("STORE_BUSY", "whether the last commit was made is not known; the next start finds out")
        if not is_there:
            raise Failed("STORE_BUSY", "the connection was lost in a commit, and nothing was written")

    def pulse(self) -> None:
        with self._told():
            db = self._ready() or self._connected_again()
            if db.execute(_PULSE, self._epoch).rowcount != 1:
                raise self._fenced()
            db.commit()

    def erase(self, before: int, most: int) -> int:
        with self._told():
            db = self._ready() or self._connected()
            gone = db.execute(_ERASE, (before, most), prepare=True).rowcount
            db.commit()
            return gone

    def ending(self) -> None:
        self._ending.set()
        cut = threading.Timer(END_S, self._cut)
        cut.daemon = True
        cut.start()

    def _cut(self) -> None:
        """End the connection under a statement that hangs: for its thread it is one that was lost."""
        db = self._db
        with contextlib.suppress(OSError, psycopg.Error):
            if db is not None:
                with socket.socket(fileno=os.dup(db.fileno())) as end:
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._drop()

    def _ready(self) -> Connection | None:
        """The connection, unless it has ended meanwhile: unasked, a server has nothing else to say."""
        if self._db is not None:
            poll = select.poll()
            poll.register(self._db.fileno(), select.POLLIN)
            if not poll.poll(0):
                return self._db
        return None

    def _connected_again(self) -> Connection:
        """
        What was acknowledged before must still be there: a fail-over to a server that lagged would have lost it. Whatever
        is written first on a new connection, a pulse too: the next write finds it ready, and does not look.
        """
        db = self._connected()
        epoch, sequence, hash_ = self._last
        there = db.execute(_HASH, (self._epoch[0], epoch, sequence)).fetchone()
        db.rollback()
        if there != (hash_,):
            said = (
                f"row {epoch}/{sequence} was acknowledged and is not in the database any more: an older state was put "
                "back, or a server that lagged has taken over"
            )
            raise Failed("AUDIT_UNWRITABLE", said, is_fatal=True)
        return db

    def _connected(self) -> Connection:
        self._drop()
        try:
            self._db = connect(self._url, autocommit=False, statement_s=STATEMENT_S, lock_s=LOCK_S)
        except StoreError as error:
            raise Failed("AUDIT_UNWRITABLE", str(error)) from None
        return self._db

    def _drop(self) -> None:
        """The server takes back what was not committed."""
        if self._db is not None:
            self._db.close()
            self._db = None

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            self._drop()
            raise _failed(error) from None
        except Failed:
            self._drop()
            raise

    def _tell_taken(self, db: Connection, entries: Sequence[Entry]) -> None:
        """Raises `Taken` where another daemon has written requests of these first."""
        brought = [entry for entry in entries if entry.request is not None]
        keys = [(number, *entry.request[:2]) for number, entry in enumerate(brought) if entry.request is not None]
        there = db.execute(_TAKEN, columns(keys, 3)).fetchall()
        db.rollback()
        if there:
            raise Taken([brought[number] for (number,) in there])

    def _fenced(self) -> Failed:
        instance, epoch = self._epoch
        said = (
            f"epoch {epoch} of this ledger is over: another daemon writes it now. Its state directory is a copy of this "
            f"one: remove the file `instance` ({instance}) from the copy"
        )
        return Failed("STORE_BUSY", said, is_fatal=True)


class PostgresqlPast:
    def __init__(self, url: str, instance: Path) -> None:
        self._file = instance
        try:
            self._db = connect(url, autocommit=True)
        except psycopg.Error as error:
            raise _failed(error) from None

    def instance(self) -> tuple[str, int, str]:
        """The id in the file. When this returns, what a daemon that was killed had under way has been written or not."""
        instance = self._id()
        new = "INSERT INTO ledger_instances VALUES (%b, 0, '', 0) ON CONFLICT DO NOTHING"
        with _told():
            self._db.execute(new, (instance,))
            found = self._db.execute(_LOCKED, (instance,)).fetchone()
        assert found is not None
        return (instance, *found)

    def _id(self) -> str:
        try:
            found = self._file.read_text()
        except FileNotFoundError:
            found = uuid.uuid4().hex
            put(self._file, found.encode())
        if re.fullmatch("[0-9a-f]{32}", found) is None:
            raise StoreError(f"{self._file} holds no id of a ledger: put it back from a backup")
        return found

    def instances(self) -> list[tuple[str, int]]:
        with _told():
            return self._db.execute("SELECT instance, epoch FROM ledger_instances").fetchall()

    def rows(self, instance: str) -> Generator[RawRow]:
        with _told(), self._db.transaction(), self._db.cursor("rows", binary=True) as cursor:
            cursor.itersize = FETCH_ROWS
            cursor.execute(_ROWS, (instance,))
            yield from cursor

    def hash_of(self, instance: str, epoch: int, sequence: int) -> bytes | None:
        with _told():
            found = self._db.execute(_HASH, (instance, epoch, sequence)).fetchone()
        return None if found is None else found[0]

    def body_of(self, instance: str, epoch: int, sequence: int) -> str | None:
        with _told():
            found = self._db.execute(_BODY, (instance, epoch, sequence)).fetchone()
        return None if found is None else found[0]

    def results(self, id_: bytes, item: int) -> list[bytes]:
        with _told():
            return [data for (data,) in self._db.execute(RESULTS, (id_, item))]

    def close(self) -> None:
        self._db.close()


def columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(count)]


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise _failed(error) from None


def _failed(error: psycopg.Error) -> Failed:
    """Without an SQLSTATE it is the connection's, and passes."""
    is_busy = error.sqlstate is None or error.sqlstate.startswith(_BUSY)
    return Failed("STORE_BUSY" if is_busy else "AUDIT_UNWRITABLE", said_by(error))


def said_by(error: psycopg.Error) -> str:
    return " ".join(str(error).split()) or type(error).__name__
