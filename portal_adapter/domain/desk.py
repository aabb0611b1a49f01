"""
The desk of an administration: what was sent to it, and nothing else (SUB-01, TRK-07, TRK-11).

A row of the desk has no answers, no form and no attachments: those of the procedure may be under way. What was sent stands
in its transmissions. An agent says which of them he has seen, and the status; the procedure's version, which every edit
moves, is not his.
"""

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, Select, func, select

from portal_adapter.definitions.definition import Definition
from portal_adapter.domain import correction, message, procedure, transfer, transmission
from portal_adapter.domain.actor import Actor
from portal_adapter.domain.announcing import Announcing
from portal_adapter.domain.fields import Fields
from portal_adapter.domain.kept import unnamed
from portal_adapter.domain.procedure import PROCEDURE, Row, end_signing, fire
from portal_adapter.language import msgid
from portal_adapter.refusal import Refusal, not_found, stale
from portal_adapter.settings import Limits
from portal_adapter.store.schema import messages, procedures, spaces, transmissions

# What a status means to an agent.
SAID: Mapping[str, str] = {
    "sent": msgid("Sent to you, not yet processed: accept it, ask for a correction, or close it."),
    "accepted": msgid("You are processing it: ask for a correction, or close it."),
    "to_be_corrected": msgid("Returned to the applicant: what is sent again will be here as a further transmission."),
    "closed": msgid("Closed: it can be read, and you can write messages."),
}
PAGE = 50  # procedures on one page
SIDE = message.ADMINISTRATION


def of(connection: Connection, administration: str, reference: str, *, hold: bool = False) -> Row:
    """Raises `not-found`, for what was not sent, or to another administration, too."""
    if "\0" in reference:
        raise not_found()
    query = _rows(administration).where(procedures.c.reference == reference)
    row = connection.execute(
        query.with_for_update(key_share=True, of=procedures) if hold else query
    ).mappings().first()  # fmt: skip
    if row is None:
        raise not_found()
    return dict(row)


def count(connection: Connection, administration: str, statuses: Collection[str]) -> int:
    found = (procedures.c.administration == administration) & procedures.c.status.in_(statuses)
    return int(connection.execute(select(func.count()).where(found)).scalar_one())


def listed(connection: Connection, administration: str, statuses: Collection[str], page: int, most: int) -> list[Row]:
    """A page of them, those whose status changed last first, with `sent`, when they last were, and `unread` messages."""
    unread = (
        select(func.count())
        .where(messages.c.procedure == procedures.c.id, messages.c.side == message.APPLICANT, messages.c.read.is_(None))
        .scalar_subquery()
    )
    query = (
        _rows(administration)
        .add_columns(transmissions.c.time.label("sent"), unread.label("unread"))
        .join(
            transmissions,
            (transmissions.c.procedure == procedures.c.id) & (transmissions.c.number == procedures.c.transmissions),
        )
        .where(procedures.c.status.in_(statuses))
        .order_by(procedures.c.updated.desc(), procedures.c.id)
        .limit(most)
        .offset((page - 1) * most)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def history(connection: Connection, row: Row) -> list[Row]:
    """When it was sent, and what the administration has done; everything else is the applicant's alone."""
    lines = procedure.history(connection, row)
    return [one for one in lines if one["status"] == "sent" or one["side"] == SIDE]


def check_seen(row: Row, event: str, form: Mapping[str, str]) -> None:
    """
    Raise unless the event is allowed, and of the transmission and status that were seen: what a colleague has asked for
    meanwhile is not run over unseen.
    """
    check(row, event)
    fields = Fields(form)
    seen = fields.number("transmission", msgid("Say which transmission you have seen."))
    status = form.get("status", "")
    if status not in SAID:
        fields.refuse("status", "required", msgid("Say which status you have seen."))
    fields.check()
    if (seen, status) != (row["transmissions"], row["status"]):
        raise stale(row["transmissions"], state=row["status"])


def check(row: Row, event: str) -> None:
    """Raise `forbidden-transition`, in words for an agent."""
    if event not in PROCEDURE.allowed(row["status"]):
        raise Refusal(
            "forbidden-transition", SAID[row["status"]], state=row["status"], event=event, allowed=offers(row)
        )


def offers(row: Row) -> list[str]:
    """The events that are an agent's, in this status."""
    return [one for one in PROCEDURE.allowed(row["status"]) if one in {"accept", "ask_correction", "close", "write"}]


def accept(connection: Connection, actor: Actor, row: Row, announcing: Announcing, form: Mapping[str, str]) -> None:
    check_seen(row, "accept", form)
    fire(connection, actor, row, "accept", side=SIDE)
    announcing.status(connection, actor, row, "accepted")


def ask_correction(
    connection: Connection,
    actor: Actor,
    row: Row,
    definition: Definition,
    announcing: Announcing,
    form: Mapping[str, str],
    limits: Limits,
) -> None:
    check_seen(row, "ask_correction", form)
    sent = transmission.of(connection, row, row["transmissions"])
    items = correction.read(definition, sent, form, limits)
    fire(connection, actor, row, "ask_correction", side=SIDE)
    correction.note(connection, actor, row, items)
    announcing.status(connection, actor, row, "to_be_corrected")


def close(
    connection: Connection,
    actor: Actor,
    row: Row,
    definition: Definition,
    announcing: Announcing,
    form: Mapping[str, str],
    limits: Limits,
) -> list[str]:
    """
    Answers the names of bytes that go once this is committed: what was being corrected is dropped, and the space sees what
    was sent last. A reason is given where it was not accepted before.
    """
    check_seen(row, "close", form)
    fields = Fields(form)
    reason = fields.text("reason", most=limits.comment, least=0 if row["status"] == "accepted" else 1, lines=True)
    fields.check()
    values, dropped = (
        transmission.return_to_last(connection, actor, row["id"], definition)
        if row["status"] == "to_be_corrected"
        else ({}, [])
    )
    fire(connection, actor, row, "close", side=SIDE, comment=reason, **values)
    end_signing(connection, actor, row, "close")
    transfer.asked_no_more(connection, actor, row)
    announcing.status(connection, actor, row, "closed")
    return unnamed(connection, dropped)


def _rows(administration: str) -> Select[tuple[object, ...]]:
    """Nothing of the procedure that may be under way. What was never sent has no administration."""
    columns = [procedures.c[name] for name in (
        "id", "space", "reference", "definition", "definition_version", "status", "version", "updated", "transmissions",
        "sent_by",
    )]  # fmt: skip
    return (
        select(*columns, spaces.c.title.label("applicant"), spaces.c.company, spaces.c.kind.label("space_kind"))
        .join(spaces, spaces.c.id == procedures.c.space)
        .where(procedures.c.administration == administration, procedures.c.transmissions > 0)
    )
