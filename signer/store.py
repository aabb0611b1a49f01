"""
The daemon's database: engine, schema, and the steps from one schema to the next.

SQLite, write-ahead log, every commit synced; PostgreSQL by one setting. What is not on a signature's path goes through
SQLAlchemy; the ledger's few statements are the driver's own (`sqlite.py`, `postgresql.py`).
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    func,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateColumn

from signer.database import BUSY_S, StoreError, Where
from signer.sqlite import unusable

VERSION = 4
METADATA = MetaData()
# Whoever makes or changes tables in PostgreSQL has this advisory lock: two daemons may start at one time.
_LOCK = int.from_bytes(b"paraph")

schema = Table("schema_version", METADATA, Column("version", Integer, nullable=False))
# Who must allow a signature, and within what bounds: of every credential since version 3.
_TERMS = (
    Column("gate", String, nullable=False, server_default="caller"),
    Column("subject", String, nullable=False, server_default=""),  # whose it is; empty: nobody's
    Column("digests_max", Integer, nullable=False, server_default="0"),  # of one authorisation; 0: no bound of its own
    Column("lifetime_s", Integer, nullable=False, server_default="120"),  # of one authorisation
    Column("hours", String, nullable=False, server_default=""),  # '08-18', UTC; empty: always
    Column("claimed", Integer, nullable=False, server_default="0"),  # 1: also digests of documents not seen here
)
credentials = Table(
    "credentials",
    METADATA,
    Column("name", String, primary_key=True),
    Column("purpose", String, nullable=False),
    Column("certificates", String, nullable=False),  # PEM, the signer's first
    Column("cka_id", LargeBinary),
    Column("key_label", String),
    Column("outputs", String, nullable=False),  # separated by spaces
    Column("state", String, nullable=False),
    *_TERMS,
)
# Every change of a row above: who, when, what. Only ever added to.
changes = Table(
    "changes",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("time", String, nullable=False),  # RFC 3339, UTC
    Column("who", String, nullable=False),
    Column("what", String, nullable=False),
)
# People (subject.py). Codes are argon2id hashes, seeds are encrypted.
subjects = Table(
    "subjects",
    METADATA,
    Column("name", String, primary_key=True),
    Column("state", String, nullable=False),
    Column("contact_kind", String, nullable=False),
    Column("contact", String, nullable=False),
    Column("language", String, nullable=False),
    Column("code", String, nullable=False),  # PHC string; empty until enrolled
    Column("factor", String, nullable=False),  # totp, hotp or sent
    Column("seed", LargeBinary, nullable=False),  # empty for sent codes
    Column("last", BigInteger, nullable=False),  # TOTP: the last step used; HOTP: the next counter
)
# What a person is to prove with once, sent to the contact.
enrolments = Table(
    "enrolments",
    METADATA,
    Column("subject", String, primary_key=True),
    Column("code", LargeBinary, nullable=False),  # SHA-256 of the enrolment code
    Column("begins", BigInteger, nullable=False),  # seconds since the epoch, as all times here
    Column("ends", BigInteger, nullable=False),
    Column("factor", String, nullable=False),
    Column("seed", LargeBinary, nullable=False),
    Column("is_sent", Integer, nullable=False),  # 0: it waits for `begins`
    Column("is_again", Integer, nullable=False),  # 1: of somebody who was enrolled before
)
# One-time codes that were sent and not used: what they are is not written, only that a code is one.
sent_codes = Table(
    "sent_codes",
    METADATA,
    Column("subject", String, primary_key=True),
    Column("binding", LargeBinary, primary_key=True),  # SHA-256 of what it was sent for
    Column("fingerprint", LargeBinary, nullable=False),
    Column("ends", BigInteger, nullable=False),
)
# Each attempt to give a code or a one-time code, from before it is looked at until it proves right.
guesses = Table(
    "guesses",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("subject", String, nullable=False),
    Column("credential", String, nullable=False),
    Column("source", String, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("is_open", Integer, nullable=False, server_default="0"),  # 1: anybody could make it; since version 4
    sqlite_autoincrement=True,  # a number is nobody else's later
)
for _what in ("subject", "credential", "source"):
    Index(f"guesses_{_what}", guesses.c[_what], guesses.c.time)
# What somebody has allowed (authorisation.py): the key is the SHA-256 of the reference, which is nowhere.
authorisations = Table(
    "authorisations",
    METADATA,
    Column("hash", LargeBinary, primary_key=True),
    Column("subject", String, nullable=False),
    Column("authorised_by", String, nullable=False),  # the caller that brought the codes
    Column("caller", String, nullable=False),  # who may redeem it
    Column("credential", String, nullable=False),
    Column("key", String, nullable=False),
    Column("output", String, nullable=False),
    Column("algorithm", String, nullable=False),
    Column("inputs", String, nullable=False),  # hash of the documents' SHA-256 in order; empty: none is named
    Column("digests", String, nullable=False),  # hash of the digests in order; empty: none is named
    Column("count", Integer, nullable=False),
    Column("issued", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("request", LargeBinary),  # the one that has redeemed it
)
Index("authorisations_expires", authorisations.c.expires)
# Of authorisations for documents that come one by one: which each of them is. Apart, because the row above is written
# again when it is redeemed.
authorised_documents = Table(
    "authorised_documents",
    METADATA,
    Column("hash", LargeBinary, primary_key=True),
    Column("inputs", LargeBinary, nullable=False),  # 32 bytes each
)
# What waits for a person (pending.py): batches, and the documents or digests of each.
batches = Table(
    "batches",
    METADATA,
    Column("id", LargeBinary, primary_key=True),  # the request id
    Column("caller", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("credential", String, nullable=False),
    Column("key", String, nullable=False),
    Column("output", String, nullable=False),
    Column("scheme", String, nullable=False),
    Column("hash", String, nullable=False),
    Column("claimed", Integer, nullable=False),  # 1: digests of documents not seen here
    # Of its items, and the SHA-256 of its terms: lists are made without items.
    Column("count", Integer, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("opened", BigInteger, nullable=False),
    Column("ends", BigInteger, nullable=False),
    Column("state", String, nullable=False),
    Column("signing", String, nullable=False),  # the instance of the ledger that is at it, in the state SIGNING
    Column("link", LargeBinary, nullable=False),  # SHA-256 of it; empty: it was used
    Column("consent", String, nullable=False),  # the caller that has used it
)
Index("batches_ends", batches.c.ends)
batch_items = Table(
    "batch_items",
    METADATA,
    Column("batch", LargeBinary, primary_key=True),
    Column("item", Integer, primary_key=True),
    Column("name", String, nullable=False),
    Column("size", BigInteger, nullable=False),  # in bytes, as it was sent
    Column("input", LargeBinary, nullable=False),  # SHA-256 of it as it was sent; empty: not seen
    Column("digest", LargeBinary, nullable=False),  # what messageDigest will hold; with RAW what the key will sign
    Column("gap_start", BigInteger, nullable=False),
    Column("gap_end", BigInteger, nullable=False),
)
# The ledger (chain.py), a chain for each instance. `closes` says of an OUTCOME which INTENT has nothing open any more,
# as its body does, too: for whoever looks for those that have.
rows = Table(
    "ledger_rows",
    METADATA,
    Column("instance", String, primary_key=True),
    Column("epoch", BigInteger, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("kind", String, nullable=False),
    Column("body", String, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("closes", BigInteger),
    sqlite_with_rowid=False,
)
# Requests of the last day: `item` is the document's index, -1 for a request for digests.
requests = Table(
    "ledger_requests",
    METADATA,
    Column("id", LargeBinary, primary_key=True),
    Column("item", BigInteger, primary_key=True),
    Column("caller", String, nullable=False),
    Column("body", LargeBinary, nullable=False),  # SHA-256 of what was asked
    Column("accepted", BigInteger, nullable=False),  # seconds since the epoch
    Column("count", Integer, nullable=False),
    Column("output", String, nullable=False),
    Column("chain", LargeBinary, nullable=False),  # SHA-256 of the certificates
    Column("detail", LargeBinary, nullable=False),  # what is needed to make the answer again, encrypted
    Column("instance", String, nullable=False),  # whose it is to sign what is not signed yet
    sqlite_with_rowid=False,
)
Index("ledger_requests_accepted", requests.c.accepted)
# What became of their items, encrypted: erased with the request.
results = Table(
    "ledger_results",
    METADATA,
    Column("id", LargeBinary, primary_key=True),
    Column("item", BigInteger, primary_key=True),
    Column("number", BigInteger, primary_key=True),  # in the order of writing
    Column("data", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
# Certificates that answers were made with, the signer's first, by the SHA-256 of them all.
chains = Table(
    "ledger_chains",
    METADATA,
    Column("hash", LargeBinary, primary_key=True),
    Column("certificates", LargeBinary, nullable=False),
)
# Where each instance's ledger stands: its epoch, and the last signed checkpoint.
instances = Table(
    "ledger_instances",
    METADATA,
    Column("instance", String, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("note", String, nullable=False),
    Column("pulse", BigInteger, nullable=False),  # written to see whether writing works
)
# Messages to people (notify.py); times are seconds since the epoch. What is secret is sealed, and erased with `contact`
# once the message is sent or given up.
outbox = Table(
    "outbox",
    METADATA,
    Column("id", String, primary_key=True),  # a UUID, out of which its Message-ID is made
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),  # afterwards it is not sent any more
    Column("kind", String, nullable=False),
    Column("contact", LargeBinary),  # a keyed hash, to count what waits for one
    Column("address", LargeBinary),  # sealed
    Column("template", String, nullable=False),
    Column("body", LargeBinary),  # sealed
    Column("tries", Integer, nullable=False),  # begun
    Column("next", BigInteger, nullable=False),  # when it is looked at again; of one that is settled, when it was
    Column("state", String, nullable=False),
    Column("error", String, nullable=False),  # of the last try, without secrets
)
Index("outbox_state", outbox.c.state, outbox.c.next)
_LEDGER = (rows, requests, results, chains, instances)
_PEOPLE = (
    *(subjects, enrolments, sent_codes, guesses, authorisations, authorised_documents, batches, batch_items, outbox),
)


def open_store(where: Where) -> Engine:
    """
    The database, taken to this program's schema. SQLite's file is made when missing, and only its owner can read it.

    Raises `StoreError` if it is newer, or no database, or cannot be opened.
    """
    return _sqlite(where) if isinstance(where, Path) else _postgresql(where)


def as_it_is(where: Where) -> Engine:
    """
    The database to be looked at: no file is made, no step of the schema is taken, and nothing can be written. What is
    asked of it raises `StoreError` where it cannot be opened, or SQLAlchemy's `DBAPIError`.
    """
    if isinstance(where, Path):
        from signer.evidence import read_only  # late: it is written in terms of this file

        return create_engine("sqlite://", creator=lambda: read_only(where), poolclass=NullPool)
    engine = _engine(where)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")

    return engine


@contextlib.contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """
    A transaction that only reads: of SQLite it holds up nobody who writes, as `Engine.begin` does, and sees the database
    as it was at its first statement.
    """
    with engine.connect() as connection:
        yield connection.execution_options(only_reads=True)


def _sqlite(path: Path) -> Engine:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_S}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: object) -> None:
        # The driver's own transactions begin too late for tables to be made within one.
        connection.isolation_level = None
        # The last one: what is erased is overwritten in the file, not only left out of it.
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        only_reads = connection.get_execution_options().get("only_reads", False)
        connection.exec_driver_sql("BEGIN" if only_reads else "BEGIN IMMEDIATE")

    return _ready(engine, str(path))


def _postgresql(url: str) -> Engine:
    return _ready(_engine(url), url)


def _engine(url: str) -> Engine:
    """PostgreSQL's; raises `StoreError` where the driver is not installed."""
    try:
        from signer.postgresql import connect  # late: the driver is an extra of the installation
    except ImportError as error:
        raise StoreError(
            f"{url} wants PostgreSQL's driver: install paraph[daemon,postgresql] or psycopg ({error})"
        ) from None
    # Used for a moment now and then: a connection kept meanwhile would be one that a restart of the server has ended.
    return create_engine(
        "postgresql+psycopg://",
        creator=lambda: connect(url, autocommit=False),
        poolclass=NullPool,
        use_native_hstore=False,
        hide_parameters=True,  # what goes into a statement is nothing for an error's text
    )


def _ready(engine: Engine, name: str) -> Engine:
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":  # SQLite's transactions exclude one another
                connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            version = _migrated(connection)
    except DBAPIError as error:
        engine.dispose()
        if isinstance(error.orig, sqlite3.Error):
            raise unusable(Path(name), error.orig) from None
        is_temporary = isinstance(error, OperationalError)
        raise StoreError(f"{name}: {' '.join(str(error.orig).split())}", is_temporary=is_temporary) from None
    if version != VERSION:
        engine.dispose()
        raise StoreError(f"{name} has schema {version}, this program knows {VERSION}: use the program that wrote it")
    return engine


def _migrated(connection: Connection) -> int:
    """The schema's version after every step that this program knows, all of them within one transaction."""
    if not inspect(connection).has_table("schema_version"):
        METADATA.create_all(connection)
        connection.execute(schema.insert().values(version=VERSION))
    before: int = connection.execute(select(schema.c.version)).scalar_one()
    version = before
    if version == 1:  # the ledger is new
        METADATA.create_all(connection, tables=_LEDGER)
        version = 2
    if version == 2:  # people are new
        METADATA.create_all(connection, tables=_PEOPLE)
        for column in _TERMS:
            _add_column(connection, credentials.c[column.name])
        version = 4  # with what is new since
    if version == 3:  # what strangers can use up is new
        _add_column(connection, guesses.c.is_open)
        version = 4
    if version != before:
        connection.execute(update(schema).values(version=version))
    return version


def _add_column(connection: Connection, column: Any) -> None:
    said = CreateColumn(column).compile(dialect=connection.dialect)
    connection.exec_driver_sql(f"ALTER TABLE {column.table.name} ADD COLUMN {said}")
