"""
The daemon's database: engine, schema, and the steps from one schema to the next.

SQLite, write-ahead log, every commit synced. Calls block for about a millisecond and are made at start-up, by
commands, and in threads; none is on a signature's path.
"""

from pathlib import Path

from sqlalchemy import (
    Column,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    inspect,
    select,
)
from sqlalchemy.exc import DBAPIError

VERSION = 1
METADATA = MetaData()

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


class StoreError(Exception):
    """The database cannot be used; the message says why."""


def open_store(path: Path) -> Engine:
    """
    The database in a file that only its owner can read; made when missing.

    Raises `StoreError` if it is newer, or no database, or cannot be opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 5})

    @event.listens_for(engine, "connect")
    def _pragmas(connection: object, _record: object) -> None:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")  # type: ignore[attr-defined]

    try:
        with engine.begin() as connection:
            if not inspect(connection).has_table("schema_version"):
                METADATA.create_all(connection)
                connection.execute(schema.insert().values(version=VERSION))
            version = connection.execute(select(schema.c.version)).scalar_one()
    except DBAPIError as error:
        engine.dispose()
        raise StoreError(f"{path}: {error.orig}") from None
    if version != VERSION:
        engine.dispose()
        raise StoreError(f"{path} has schema {version}, this program knows {VERSION}: use the program that wrote it")
    return engine
