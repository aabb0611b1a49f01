"""
Sending a procedure: what must be so, and the one transaction in which it is frozen, with its administration, and
acknowledged (SUB-01 to SUB-08).
"""

from collections.abc import Mapping

from sqlalchemy import Connection, select

from portal_adapter.definitions.answers import administration
from portal_adapter.definitions.catalogue import Administration
from portal_adapter.definitions.definition import Definition
from portal_adapter.domain import attachment, correction, handover, signing, transmission
from portal_adapter.domain.actor import Actor
from portal_adapter.domain.announcing import Announcing, Service
from portal_adapter.domain.indicators import unmet_to_send
from portal_adapter.domain.procedure import PROCEDURE, Row, end_signing, fire
from portal_adapter.refusal import Unmet, stale, unmet
from portal_adapter.store.schema import attachments


def missing(connection: Connection, row: Row, definition: Definition, at: str, language: str) -> list[Unmet]:
    """Every indicator that is red, with the way to where it is mended (SUB-03)."""
    pieces, flagged = attachment.of_procedure(connection, row), attachment.flagged(connection, row)
    found = unmet_to_send(definition, row, pieces, flagged, language, at)
    signed = signing.counting(connection, row)
    if not found and (signed is None or signed["form_sha256"] != row["form_sha256"]):
        found = [Unmet("not-signed", "The declaration is not signed yet.", at)]  # of the form that is confirmed now
    return found


def in_charge(row: Row, definition: Definition) -> str:
    """
    The administration that gets it: by its answers at the first sending; then it stays with who has asked for the
    correction (SUB-04).
    """
    return row["administration"] or administration(definition, row["answers"])


def send(
    connection: Connection,
    actor: Actor,
    row: Row,
    definition: Definition,
    administrations: Mapping[str, Administration],
    announcing: Announcing,
    *,
    at: str,
    seen: int,
    language: str,
    has_back_end: bool = False,
) -> int:
    """
    Answers the number of the transmission. `row` is held, `seen` the version whose indicators were shown. Raises
    `forbidden-transition`, also to whoever comes second; `stale`; `guard-failed` with all that is red.
    """
    PROCEDURE.target(row["status"], "send")
    if seen != row["version"]:
        raise stale(row["version"])
    held = select(attachments.c.id).where(attachments.c.procedure == row["id"]).with_for_update()
    connection.execute(held)  # their bytes get one more name (kept.py)
    unmet(missing(connection, row, definition, at, language))
    signed = signing.counting(connection, row)
    assert signed is not None  # missing
    number = int(row["transmissions"]) + 1
    transmission.freeze(connection, actor, row, number, signed, attachment.of_procedure(connection, row))
    name = in_charge(row, definition)
    fire(connection, actor, row, "send", transmissions=number, sent_by=actor.account, administration=name)
    if has_back_end:
        handover.queue(connection, actor.now, row, number)
    correction.answer(connection, actor, row)
    end_signing(connection, actor, row, "send")
    found = administrations[name]
    announcing.received(connection, actor, row, Service(found.name, found.reach))
    return number
