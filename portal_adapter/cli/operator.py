"""
What the operators' commands have in common: the database of the configuration, and who gives the command. In the audit
an operator is the machine's user, since a command has no session.
"""

import argparse
import contextlib
import getpass
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine

from portal_adapter.clock import Clock
from portal_adapter.domain import audit
from portal_adapter.refusal import Refusal
from portal_adapter.settings import load
from portal_adapter.store.database import open_database, writing


@contextlib.contextmanager
def opened(options: argparse.Namespace) -> Iterator[Engine]:
    """The database that `--config` names."""
    settings = load(options.config)
    engine = open_database(settings.portal.state, settings.portal.database)
    try:
        yield engine
    finally:
        engine.dispose()


@contextlib.contextmanager
def changing(engine: Engine, event: str, **about: str) -> Iterator[Connection]:
    """A transaction that writes; where it is refused nothing is left of it but one line in the audit, with what it was about."""
    try:
        with writing(engine) as connection:
            yield connection
    except Refusal as refusal:
        cut = {key: value[:64] for key, value in about.items()}
        with writing(engine) as connection:
            audit.note(connection, Clock().now(), event, outcome=refusal.code, operator=name(), **cut)
        raise


def name() -> str:
    """Who has logged in at the machine, also where she has become another user since (sudo)."""
    return os.environ.get("SUDO_USER") or getpass.getuser()


def note(connection: Connection, now: int, event: str, *, account: str = "", space: str = "", **detail: Any) -> None:
    """One line for a command that changes something; `account` and `space` are those that it is about."""
    audit.note(connection, now, event, account=account, space=space, operator=name(), **detail)


def when(seconds: int) -> str:
    """For a line of a list."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def queued(done: Mapping[str, bool], otherwise: str, *, as_json: bool) -> int:
    """Say of each whether it is tried again; the exit code is 1 where one is not."""
    if as_json:
        print(json.dumps(done, indent=2))
    else:
        for one, is_done in done.items():
            print(f"{one}: {'queued' if is_done else otherwise}")
    return 0 if all(done.values()) else 1
