"""
Files that the scanner could not judge are shown to it again, later each time (ATT-10).

    async with Rescan(engine, blobs, settings.scan, clock):
        ...                                     does so meanwhile

A row is made once its file was looked at, so it begins as clean or as an error. `pending` is a claim with an end, so that of
several portals over one database one asks, and a claim of one that ended goes to another.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Engine, select

from portal_adapter.clock import Clock
from portal_adapter.domain import audit
from portal_adapter.domain.archive import FIRST_RETRY_S
from portal_adapter.files.blobs import Blobs
from portal_adapter.files.examined import CLEAN, ERROR, INFECTED, PENDING
from portal_adapter.files.scan import SCAN_S, scan
from portal_adapter.fsm import Machine
from portal_adapter.language import msgid
from portal_adapter.recurring import Recurring
from portal_adapter.refusal import Refusal
from portal_adapter.settings import Scan
from portal_adapter.store.database import writing
from portal_adapter.store.schema import attachments, documents, procedures

log = logging.getLogger("portal.files")

CLAIM_S = 4 * int(SCAN_S)
RETRY_S_MAX = 3600
_BEING_CHECKED = msgid("This file is being checked for malware. Please come back in a few minutes.")
SCAN = Machine(
    documents,
    "scan",
    ERROR,
    {
        (ERROR, "claim"): PENDING,
        (PENDING, "claim"): PENDING,
        (PENDING, "clear"): CLEAN,
        (PENDING, "condemn"): INFECTED,
        (PENDING, "fail"): ERROR,
    },
    {
        ERROR: _BEING_CHECKED,
        PENDING: _BEING_CHECKED,
        CLEAN: msgid("This file was checked: it is clean."),
        INFECTED: msgid("Malware was found in this file. It was not kept."),
    },
)
# Attachments of procedures go the same way.
MACHINES = {"document": SCAN, "attachment": replace(SCAN, table=attachments)}
_EVENTS = {CLEAN: "clear", INFECTED: "condemn", ERROR: "fail"}


def rescan_one(engine: Engine, blobs: Blobs, settings: Scan | None, now: int) -> bool:
    """The file that has waited longest, those of the archive first; False where none is due."""
    return any(_rescan_one(kind, engine, blobs, settings, now) for kind in MACHINES)


def _rescan_one(kind: str, engine: Engine, blobs: Blobs, settings: Scan | None, now: int) -> bool:
    """The scanner is asked outside of any transaction."""
    machine = MACHINES[kind]
    rows = machine.table.c
    with writing(engine) as connection:
        due = rows.scan.in_((ERROR, PENDING)) & (rows.scan_next <= now)
        found = connection.execute(select(machine.table).where(due).order_by(rows.scan_next)).mappings().first()
        if found is None:
            return False
        row = dict(found)
        try:
            machine.fire(connection, row, "claim", scan_next=now + CLAIM_S)
        except Refusal:  # another portal was quicker; there may be more
            return True
    verdict = scan(blobs.path(row["file"]), settings)
    is_error = verdict.state == ERROR
    tries = row["scan_tries"] + is_error
    after = now + min(FIRST_RETRY_S * 2 ** min(tries, 10), RETRY_S_MAX) if is_error else 0
    claimed = {**row, "scan": PENDING, "version": row["version"] + 1}
    try:
        with writing(engine) as connection:
            machine.fire(
                connection, claimed, _EVENTS[verdict.state], scan_note=verdict.note, scan_tries=tries, scan_next=after
            )
            audit.note(
                connection, now, f"{kind}-scanned", space=_space_of(connection, row), outcome=verdict.state,
                note=verdict.note, **{kind: row["id"]},
            )  # fmt: skip
    except Refusal:  # it was deleted meanwhile, or another has claimed it
        return True
    if is_error:
        log.warning("%s %s, try %d: the scanner could not say: %s", kind, row["id"], tries, verdict.note)
    if verdict.state == INFECTED:
        blobs.quarantine(row["file"])
        log.warning("%s %s is infected (%s): quarantined as %s", kind, row["id"], verdict.note, row["file"])
    return True


def _space_of(connection: Connection, row: Mapping[str, Any]) -> str:
    if "space" in row:
        return str(row["space"])
    return str(connection.execute(select(procedures.c.space).where(procedures.c.id == row["procedure"])).scalar_one())


class Rescan(Recurring):
    """A task of its own within the block. Without a scanner, what an earlier one left is clean: nothing looks at it."""

    what = "uploaded files"
    every_s = 15.0  # the first retry comes after a minute

    def __init__(self, engine: Engine, blobs: Blobs, settings: Scan | None, clock: Clock) -> None:
        self._engine, self._blobs, self._settings, self._clock = engine, blobs, settings, clock

    def once(self) -> bool:
        return rescan_one(self._engine, self._blobs, self._settings, self._clock.now())
