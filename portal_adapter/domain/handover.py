"""
What was sent is given to the administration's back end, where the portal has one: a row, written with the sending, so that
there is one exactly where something was sent (SUB-04). Whatever becomes of it, what was sent is sent.

    queue      with the sending, in its transaction
    claim      one that is due, for so long as a lease lasts: of several instances one has it
    settle     taken, to be tried again later, or given up
    retry      what was given up or waits, by an operator

Whoever dies between the back end's word and `settle` has it given once more: its reference and number say that it is the
same.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, exists, insert, select, update

from portal_adapter.domain import audit, transmission
from portal_adapter.domain.procedure import Row
from portal_adapter.store import leased
from portal_adapter.store.schema import handovers, procedures

STATES = ("queued", "taken", "failed")
TRIES_MAX = 28  # about five days: a long weekend without anybody at the back end


def queue(connection: Connection, now: int, row: Row, number: int) -> None:
    connection.execute(insert(handovers).values(procedure=row["id"], number=number, state="queued", next=now))


@dataclass(frozen=True, slots=True)
class Claimed:
    """One that this instance has until `until`, and nobody else."""

    procedure: str
    number: int
    tries: int  # this one included
    until: int


def claim(engine: Engine, now: int) -> Claimed | None:
    """
    The one that has waited longest; None where nothing is due. Of one procedure each waits for those before it, unless they
    were given up: who takes the last word for the right one is not given an older one after it.
    """
    before = handovers.alias()
    waits = exists().where(
        before.c.procedure == handovers.c.procedure, before.c.number < handovers.c.number, before.c.state == "queued"
    )
    row = leased.claim(engine, handovers, now, only=~waits)
    return None if row is None else Claimed(row["procedure"], row["number"], row["tries"], row["claimed"])


def content(connection: Connection, one: Claimed) -> dict[str, Any]:
    """What a back end is given. `file` is a name in the blobs."""
    row = connection.execute(select(procedures).where(procedures.c.id == one.procedure)).mappings().one()
    sent = transmission.of(connection, dict(row), one.number)
    return {
        "reference": row["reference"],
        "transmission": one.number,
        "administration": row["administration"],
        "definition": row["definition"],
        "definition_version": row["definition_version"],
        "time": datetime.fromtimestamp(sent["time"], UTC).isoformat().replace("+00:00", "Z"),
        "answers": sent["answers"],
        "form": {"file": sent["file"], "sha256": sent["sha256"]},
        "pieces": [{name: piece[name] for name in transmission.COPIED} for piece in sent["pieces"]],
    }


def settle(connection: Connection, now: int, one: Claimed, error: str) -> None:
    """Taken where there is no error; else tried again after a while, or given up. A lease that is over settles nothing."""
    values = leased.settled(now, one.tries, "taken", error, tries_max=TRIES_MAX)
    mine = update(handovers).where(
        handovers.c.procedure == one.procedure, handovers.c.number == one.number, leased.is_held(handovers, one.until)
    )
    if connection.execute(mine.values(**values)).rowcount and "state" in values:
        reference = select(procedures.c.reference).where(procedures.c.id == one.procedure)
        audit.note(
            connection, now, "handover", outcome="done" if not error else "given-up", number=one.number, tries=one.tries,
            procedure=connection.execute(reference).scalar_one(),
        )  # fmt: skip


def retry(connection: Connection, now: int, reference: str, number: int) -> bool:
    """One that was given up, or waits, is due at once, as often as a new one; False where there is none such."""
    procedure = select(procedures.c.id).where(procedures.c.reference == reference).scalar_subquery()
    again = update(handovers).where(
        handovers.c.procedure == procedure, handovers.c.number == number, leased.may_retry(handovers, now)
    )
    return bool(connection.execute(again.values(**leased.WAITING, next=now)).rowcount)


def listed(connection: Connection, state: str = "") -> list[dict[str, Any]]:
    """For operators: what is due next first, without what was sent."""
    names = ("number", "state", "tries", "next", "error", "settled")
    query = (
        select(procedures.c.reference, procedures.c.administration, *(handovers.c[name] for name in names))
        .join(procedures, procedures.c.id == handovers.c.procedure)
        .order_by(handovers.c.next, procedures.c.reference, handovers.c.number)
    )
    if state:
        query = query.where(handovers.c.state == state)
    return [dict(row) for row in connection.execute(query).mappings()]
