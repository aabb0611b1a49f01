"""
The portal's database: SQLite by default, PostgreSQL by one setting; the same code on both.

A transaction that writes takes SQLite's lock at its beginning, so that what it has read is still so when it writes. On
PostgreSQL every change names the version it has seen (`... WHERE version = :seen`), and unique keys settle races.
"""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text

from portal_adapter.unusable import Unusable

log = logging.getLogger("portal")

BUSY_S = 5.0  # for SQLite's lock; a write takes milliseconds
_UPGRADE_KEY = 0x7061726170680000  # any number that nobody else locks: 'paraph'
_SAID = "said"  # of a connection's transaction
_MIGRATIONS = Path(__file__).parent / "migrations"
NEWEST = "0009"  # the last of them: a database that has it is served without loading Alembic, which takes a fifth of a second


class StoreError(Unusable):
    """The database cannot be used; the message says what to do."""


def open_database(state: Path, url: str | None) -> Engine:
    """The database in the newest form; raises `StoreError`, or what its driver raises."""
    if url is not None:
        engine = create_engine(
            url.replace("postgresql://", "postgresql+psycopg://", 1),
            pool_size=16,
            pool_pre_ping=True,
            hide_parameters=True,
        )
    else:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = state / "portal.db"
        file.touch(mode=0o600)
        engine = create_engine(
            f"sqlite:///{file}", connect_args={"timeout": BUSY_S}, pool_size=16, hide_parameters=True
        )
        event.listen(engine, "connect", _pragmas)
        event.listen(engine, "begin", _begin)
    try:
        upgrade(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _pragmas(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver's own transactions begin too late
    _become_wal(connection)
    for pragma in ("synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _become_wal(connection: Any) -> None:
    """
    SQLite waits for nobody here, whatever the timeout: it would want another's lock while it has one. So of several that
    start on an empty database each tries until the first has done it.
    """
    until = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


def _begin(connection: Connection) -> None:
    only_reads = connection.get_execution_options().get("only_reads", False)
    connection.exec_driver_sql("BEGIN" if only_reads else "BEGIN IMMEDIATE")


@contextlib.contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """What `say` was told in it is in the log once it is committed, and never where it was taken back."""
    with engine.begin() as connection:
        connection.info.pop(_SAID, None)
        yield connection
        said: list[str] = connection.info.pop(_SAID, [])
    for one in said:
        log.info("%s", one)


def say(connection: Connection, text: str) -> None:
    connection.info.setdefault(_SAID, []).append(text)


@contextlib.contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Sees one moment, and holds nobody up."""
    with engine.connect() as connection:
        connection.execution_options(only_reads=True)
        with connection.begin() as transaction:
            yield connection
            transaction.rollback()


def upgrade(engine: Engine) -> None:
    """Take the schema to this program's; raises `StoreError` for a newer one."""
    if _revision(engine) == NEWEST:
        return
    from alembic import command  # late: see NEWEST
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":  # who starts together takes turns, as by SQLite's lock
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_KEY})
        current = MigrationContext.configure(connection).get_current_revision()
        known = {one.revision for one in script.walk_revisions()}
        if current is not None and current not in known:
            raise StoreError(f"the database is of a newer paraph-portal (schema {current}): use that one")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _revision(engine: Engine) -> str | None:
    """Alembic's note of the schema; None where there is none."""
    with reading(engine) as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return found
