"""
The daemon's database: engine, schema, and the steps from one schema to the next.

SQLite, write-ahead log, every commit synced; PostgreSQL by one setting. What is not on a signature's path goes through
SQLAlchemy; the ledger's few statements are the driver's own (`sqlite.py`, `postgresql.py`).
"""

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

from signer.config import Config
from signer.database import BUSY_S, StoreError, Where

DATABASE = "paraph.sqlite"
VERSION = 2
METADATA = MetaData()
# Whoever makes or changes tables in PostgreSQL has this advisory lock: two daemons may start at one time.
_LOCK = int.from_bytes(b"paraph")

schema = Table("schema_version", METADATA, Column("version", Integer, nullable=False))
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
_LEDGER = (rows, requests, results, chains, instances)


def where(config: Config) -> Where:
    return config.ledger.database or config.server.state / DATABASE


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


def _sqlite(path: Path) -> Engine:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_S})

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: object) -> None:
        # The driver's own transactions begin too late for tables to be made within one.
        connection.isolation_level = None
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

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
    )


def _ready(engine: Engine, name: str) -> Engine:
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":  # SQLite's transactions exclude one another
                connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            version = _migrated(connection)
    except DBAPIError as error:
        engine.dispose()
        # Of SQLite the same class says of a file that it is none of its own or that there is no room.
        is_temporary = isinstance(error, OperationalError) and engine.dialect.name == "postgresql"
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
    version: int = connection.execute(select(schema.c.version)).scalar_one()
    if version == 1:  # the ledger is new
        METADATA.create_all(connection, tables=_LEDGER)
        connection.execute(update(schema).values(version=2))
        version = 2
    return version
