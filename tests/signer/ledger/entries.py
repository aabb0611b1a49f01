"""Entries as the ledger makes them, and what tests do with a database that holds them."""

import contextlib
import hashlib
import os
import socket
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, text

from pool import Hash, Scheme
from signer import store
from signer.chain import Kind, Row, after
from signer.cipher import Cipher
from signer.clock import Clock
from signer.committer import Committer
from signer.database import Database, Epochs, Where
from signer.entry import Backend, Entry, Seal
from signer.ledger import Ledger
from signer.record import DIGESTS, Asked
from signer.recovery import Found, begin, look, rows
from signer.results import Part
from signer.sqlite import SqliteDatabase
from signer.store import open_store
from signer.writer import Writer

CIPHER = Cipher(bytes(32))
INSTANCE = "0123456789abcdef" * 2

B = TypeVar("B", bound=Backend)


def started(db: Database) -> tuple[Found, Epochs, tuple[int, int, bytes]]:
    """What was there, the backend in the epoch after it, and where that stands."""
    backend = db.backend()
    with contextlib.closing(db.past()) as past:
        found = look(past)
        return found, backend, begin(past, backend, found, CIPHER, "1")


def found(db: Database) -> Found:
    with contextlib.closing(db.past()) as past:
        return look(past)


def chain(db: Database) -> list[Row]:
    with contextlib.closing(db.past()) as past:
        return [row for row, _ in rows(past, past.instance()[0])]


def counted(where: Where, table: str) -> int:
    engine = open_store(where)
    try:
        with engine.connect() as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())
    finally:
        engine.dispose()


def executed(where: Where, *statements: str) -> None:
    engine = open_store(where)
    try:
        with engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
    finally:
        engine.dispose()


def name_of(id_: bytes) -> str:
    return str(uuid.UUID(bytes=id_))


def intent(id_: bytes, instance: str = INSTANCE, *, count: int = 2, accepted: int = 1_000_000_000) -> Entry:
    """The first of a request for digests: it brings the request's row."""
    fields = {"request": name_of(id_), "items": [[0, count]], "attempt": 1, "token": "card"}
    detail = CIPHER.seal(id_, -1, ["ECDSA", "SHA256", []])
    row = (id_, -1, "portal", bytes(32), accepted, count, "RAW", b"c" * 32, detail, instance)
    return Entry(Kind.INTENT, fields, request=row, chain=(b"c" * 32, b"certificates"))


def outcome(of: Entry, number: int = 1, signatures: list[bytes | None] | None = None) -> Entry:
    assert of.request is not None
    id_ = of.request[0]
    part = Part(1, "card", [(0, 2)], signatures or [b"one", b"two"], {})
    result = (id_, -1, (1 << 32) + number, CIPHER.seal(id_, -1, part.value()))
    return Entry(Kind.OUTCOME, {"closed": True}, result=result, refers=of, closes=True, must=True)


def placed(at: tuple[int, int, bytes], instance: str, *entries: Entry) -> list[tuple[Row, int | None]]:
    """The rows that the writer would make of them."""
    epoch, sequence, previous = at
    made: list[tuple[Row, int | None]] = []
    for entry in entries:
        sequence += 1
        _, fields, *_ = entry.sent()
        if entry.kind is Kind.OUTCOME:
            fields |= {"closed": entry.closes}
        row = after(instance, epoch, sequence, previous, entry.kind, fields)
        entry.sequence, previous = sequence, row.hash
        made.append((row, entry.refers.sequence if entry.closes and entry.refers is not None else None))
    return made


@contextlib.contextmanager
def as_it_is(where: Where) -> Iterator[Connection]:
    """The database without any step of the schema, in one transaction."""
    ready = store._ready
    try:
        store._ready = lambda engine, _name: engine
        engine = open_store(where)
    finally:
        store._ready = ready
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def writer_on(
    backend: Backend,
    instance: str,
    epoch: int,
    previous: bytes,
    sequence: int = 0,
    flushed: Callable[[], Iterable[Entry]] = tuple,
    seal: Seal = lambda _request, _item, value: value,
) -> Writer:
    """
    A writer whose committer is a thread of this process: the backend may be a test's own. Without `seal` the entries are
    those from here, which are sealed already.
    """
    ours, theirs = socket.socketpair()
    committer = Committer(backend, seal, instance, epoch, sequence, previous)
    threading.Thread(target=committer.serve, args=(theirs,), daemon=True).start()
    return Writer(ours, instance, epoch, previous, sequence, flushed)


@contextlib.asynccontextmanager
async def ledger_on(path: Path, wrapped: Callable[[Epochs], B]) -> AsyncIterator[tuple[Ledger, B]]:
    """A ledger in a SQLite file of its own, and the backend that a test has put around the real one."""
    open_store(path).dispose()
    database = SqliteDatabase(path)
    was, real, (epoch, sequence, hash_) = started(database)
    backend, reader = wrapped(real), database.reader()
    ledger = Ledger(
        lambda flushed: writer_on(backend, was.instance, epoch, hash_, sequence, flushed, CIPHER.seal),
        reader,
        CIPHER,
        Clock(),
    )
    yield ledger, backend
    await ledger.writer.close()
    await reader.close()


def asked(count: int) -> Asked:
    """A request for so many digests, unlike any other."""
    id_ = os.urandom(16)
    return Asked(
        id_, DIGESTS, "portal", "seal", "ab" * 32, "RAW", "ECDSA with SHA-256", hashlib.sha256(id_).digest(), b"chain",
        hashlib.sha256(b"chain").digest(), [Scheme.ECDSA.value, Hash.SHA256.value, []], count,
    )  # fmt: skip
