"""Who gives a command: in the audit an operator is the machine's user, since a command has no session."""

import getpass
import os
from typing import Any

from sqlalchemy import Connection

from portal_adapter.domain import audit


def name() -> str:
    """Who has logged in at the machine, also where she has become another user since (sudo)."""
    return os.environ.get("SUDO_USER") or getpass.getuser()


def note(connection: Connection, now: int, event: str, **detail: Any) -> None:
    """One line for a command that changes something."""
    audit.note(connection, now, event, operator=name(), **detail)
