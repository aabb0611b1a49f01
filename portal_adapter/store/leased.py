"""
Rows that wait to be done by one of several instances: a table with `state`, `tries`, `next`, `claimed`, `error`, `settled`.

    claim       one that is due, for so long as a lease lasts: of several instances one has it
    settled     what its row is once it was tried: done, to be tried again later, or given up
    may_retry   which an operator may have tried again at once; WAITING is what such a row is then

Whoever dies between doing it and its row has it done once more when the lease is over.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Engine, Table, and_, select, update

from portal_adapter.store.database import reading, writing

LEASE_S = 5 * 60  # longer than one may take (mail/sender.py, handing_over.py)
FIRST_WAIT_S = 60
LONGEST_WAIT_S = 6 * 3600
WAITING: Mapping[str, Any] = {"state": "queued", "tries": 0, "claimed": 0, "settled": None}


def claim(engine: Engine, table: Table, now: int, only: ColumnElement[bool] | None = None) -> Mapping[str, Any] | None:
    """
    The row that has waited longest, with `tries` of this time and `claimed`, when the lease ends; None where nothing is
    due, which takes no lock. `only`: of these.
    """
    rows = table.c
    due = (rows.state == "queued") & (rows.next <= now) & (rows.claimed <= now)
    if only is not None:
        due &= only
    oldest = select(table).where(due).order_by(rows.next, *table.primary_key).limit(1)
    while True:
        with reading(engine) as connection:
            row = connection.execute(oldest).mappings().first()
        if row is None:
            return None
        mine = {"claimed": now + LEASE_S, "tries": row["tries"] + 1}
        with writing(engine) as connection:
            same = and_(*(column == row[column.name] for column in table.primary_key), rows.tries == row["tries"])
            if connection.execute(update(table).where(same, due).values(**mine)).rowcount:
                return {**row, **mine}


def may_retry(table: Table, now: int) -> ColumnElement[bool]:
    """
    Given up; or waiting for a later time, which may be far too late where the clock was ahead when it was put off. Not one
    that an instance is at.
    """
    rows = table.c
    is_waiting = (rows.state == "queued") & (rows.next > now) & ((rows.claimed <= now) | (rows.claimed > now + LEASE_S))
    return (rows.state == "failed") | is_waiting


def is_held(table: Table, until: int) -> ColumnElement[bool]:
    """Whether it still is this lease's: one that was over meanwhile settles nothing."""
    return (table.c.state == "queued") & (table.c.claimed == until)


def settled(now: int, tries: int, done: str, error: str, *, tries_max: int, is_final: bool = False) -> dict[str, Any]:
    """`done` is the state of one without an error. There is a `state` among the values where nothing more is tried."""
    if not error:
        return {"state": done, "settled": now, "error": ""}
    if is_final or tries >= tries_max:
        return {"state": "failed", "settled": now, "error": error}
    return {"next": now + min(FIRST_WAIT_S * 2 ** (tries - 1), LONGEST_WAIT_S), "claimed": 0, "error": error}
