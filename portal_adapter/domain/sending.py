"""
Sending a procedure: what must be so, and the one transaction in which it is frozen, with its administration, and
acknowledged (SUB-01 to SUB-08).
"""

from collections.abc import Sequence

from sqlalchemy import Connection, select

from portal_adapter.definitions.definition import Definition
from portal_adapter.domain import correction, transmission
from portal_adapter.domain.actor import Actor
from portal_adapter.domain.announcing import Announcing, Service
from portal_adapter.domain.indicators import unmet_to_send
from portal_adapter.domain.procedure import PROCEDURE, Row, end_signing, fire
from portal_adapter.refusal import Unmet, stale, unmet
from portal_adapter.store.schema import attachments, signatures


def pieces(connection: Connection, row: Row, *, hold: bool = False) -> list[Row]:
    """What is attached, in its order; `hold` keeps their bytes until this is over (kept.py)."""
    query = select(attachments).where(attachments.c.procedure == row["id"])
    query = query.order_by(attachments.c.added, attachments.c.id)
    found = connection.execute(query.with_for_update() if hold else query).mappings()
    return [dict(one) for one in found]


def signature(connection: Connection, row: Row) -> Row | None:
    """The one that counts, if it is of the form that is confirmed now; held."""
    query = (
        select(signatures)
        .where(
            signatures.c.procedure == row["id"], signatures.c.voided.is_(None),
            signatures.c.form_sha256 == row["form_sha256"],
        )
        .order_by(signatures.c.number.desc(), signatures.c.time.desc(), signatures.c.id)
        .limit(1)
        .with_for_update()
    )  # fmt: skip
    found = connection.execute(query).mappings().first()
    return None if found is None else dict(found)


def missing(
    connection: Connection, row: Row, definition: Definition, attached: Sequence[Row], at: str, language: str
) -> list[Unmet]:
    """Every indicator that is red, with the way to where it is mended (SUB-03)."""
    return unmet_to_send(definition, row, attached, correction.flagged(connection, row), language, at)


def send(
    connection: Connection,
    actor: Actor,
    row: Row,
    definition: Definition,
    service: Service,
    announcing: Announcing,
    *,
    at: str,
    seen: int,
    language: str,
) -> int:
    """
    Answers the number of the transmission. `row` is held, `seen` the version whose indicators were shown. Raises
    `forbidden-transition`, also to whoever comes second; `stale`; `guard-failed` with all that is red.
    """
    PROCEDURE.target(row["status"], "send")
    if seen != row["version"]:
        raise stale(row["version"])
    attached = pieces(connection, row, hold=True)
    found = missing(connection, row, definition, attached, at, language)
    signed = signature(connection, row)
    if signed is None and not found:
        found = [Unmet("not-signed", "The declaration is not signed yet.", at)]
    unmet(found)
    assert signed is not None
    number = int(row["transmissions"]) + 1
    transmission.freeze(connection, actor, row, number, signed, attached)
    fire(
        connection, actor, row, "send", transmissions=number, sent_by=actor.account,
        administration=definition.administration,
    )  # fmt: skip
    correction.answer(connection, actor, row)
    end_signing(connection, row)
    announcing.received(connection, actor, row, service)
    return number
