"""
Which bytes the database names: several rows may name the same, and they go when none does.

Whoever lets a row name bytes that another one names already holds that other row first (`FOR UPDATE`): so it is there
until its own is, or it is gone and its bytes are not to be had.
"""

from collections.abc import Iterable

from sqlalchemy import Connection, select

from portal_adapter.files.blobs import Blobs
from portal_adapter.store.schema import (
    attachments,
    documents,
    procedures,
    signatures,
    transmission_pieces,
    transmissions,
)

COLUMNS = (
    documents.c.file, procedures.c.form_file, signatures.c.file, attachments.c.file, transmissions.c.file,
    transmission_pieces.c.file,
)  # fmt: skip


def unnamed(connection: Connection, names: Iterable[str]) -> list[str]:
    """Those of them that no row names any more, and whose bytes may go once this is committed."""
    asked = {name for name in names if name}
    named = {
        name for column in COLUMNS for name in connection.execute(select(column).where(column.in_(asked))).scalars()
    }
    return sorted(asked - named)


def sweep(connection: Connection, blobs: Blobs, now: int) -> int:
    """Remove the bytes that no row names; answers of how many files."""
    return blobs.sweep({name for column in COLUMNS for name in connection.execute(select(column)).scalars()}, now)
