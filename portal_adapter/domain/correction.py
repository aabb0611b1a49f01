"""
What an administration wants to have corrected in a transmission: an item each for a field, an attachment, or in general,
with what is wrong (COR-01 to COR-05). Sending again answers it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, func, insert, select, update

from portal_adapter.definitions.answers import canonical, visible
from portal_adapter.definitions.definition import Definition
from portal_adapter.domain import attachment, transmission
from portal_adapter.domain.actor import Actor
from portal_adapter.domain.fields import Fields
from portal_adapter.domain.ids import new_id
from portal_adapter.domain.procedure import Row
from portal_adapter.settings import Limits
from portal_adapter.store.schema import attachments, correction_items, corrections

GENERAL = "general"
FIELD, PIECE = "field.", "piece."  # before a field's id, or the position of a piece


@dataclass(frozen=True, slots=True)
class Item:
    """`kind` is field, attachment or general; `target` a field's id, or the position of a piece that was sent."""

    kind: str
    target: str
    comment: str
    name: str = ""  # of the attachment


def read(definition: Definition, sent: Row, form: Mapping[str, str], limits: Limits) -> list[Item]:
    """What a form says of a transmission, `sent`. Raises `validation`, where there is no comment at all, too."""
    fields = Fields(form)
    possible = {GENERAL: Item("general", "", "")}
    possible |= {f"{FIELD}{one.id}": Item("field", one.id, "") for one in visible(definition, sent["answers"])}
    possible |= {
        f"{PIECE}{one['position']}": Item("attachment", str(one["position"]), "", one["name"]) for one in sent["pieces"]
    }
    comments = {name: fields.text(name, most=limits.comment, least=0, lines=True) for name in possible}
    for name in form:
        if name.startswith((FIELD, PIECE)) and name not in possible:
            fields.refuse(name, "unknown", "There is no such field here.")
    if not any(comments.values()) and not fields.errors:
        fields.refuse(GENERAL, "required", "Say at least once what is to be corrected.")
    fields.check()
    return [replace(item, comment=comments[name]) for name, item in possible.items() if comments[name]]


def note(connection: Connection, actor: Actor, row: Row, items: Sequence[Item]) -> None:
    """A request for the last transmission; its attachments are still those of the procedure."""
    id_ = new_id()
    connection.execute(
        insert(corrections).values(
            id=id_, procedure=row["id"], number=row["transmissions"], time=actor.now, account=actor.account
        )
    )
    attached = attachment.of_procedure(connection, row)  # in the order in which they were sent
    for position, item in enumerate(items, 1):
        connection.execute(
            insert(correction_items).values(
                correction=id_, position=position, kind=item.kind, comment=item.comment, name=item.name,
                target=attached[int(item.target) - 1]["id"] if item.kind == "attachment" else item.target,
            )
        )  # fmt: skip


def of(connection: Connection, row: Row, number: int) -> list[Row]:
    """What was to be corrected in a transmission; `is_there` says of an attachment that it still is."""
    query = (
        select(correction_items, attachments.c.id.is_not(None).label("is_there"))
        .join(corrections, corrections.c.id == correction_items.c.correction)
        .outerjoin(attachments, attachments.c.id == correction_items.c.target)
        .where(corrections.c.procedure == row["id"], corrections.c.number == number)
        .order_by(correction_items.c.position)
    )
    return [dict(one) for one in connection.execute(query).mappings()]


def counts(connection: Connection, row: Row) -> list[tuple[int, int]]:
    """Of each request, the oldest first: its transmission, and how many items it has."""
    query = (
        select(corrections.c.number, func.count())
        .join(correction_items, correction_items.c.correction == corrections.c.id)
        .where(corrections.c.procedure == row["id"])
        .group_by(corrections.c.number)
        .order_by(corrections.c.number)
    )
    return [(number, items) for number, items in connection.execute(query)]


def of_fields(connection: Connection, row: Row) -> Mapping[str, str]:
    """Field -> what the administration says of it, while it is to be corrected (COR-03)."""
    if row["status"] != "to_be_corrected":
        return {}
    found = of(connection, row, row["transmissions"])
    return {one["target"]: one["comment"] for one in found if one["kind"] == "field"}


def is_to_edit(connection: Connection, row: Row) -> bool:
    """Whether fields were sent back, and the answers are still those that were."""
    if not of_fields(connection, row):
        return False
    return canonical(transmission.of(connection, row, row["transmissions"])["answers"]) == canonical(row["answers"])


def answer(connection: Connection, actor: Actor, row: Row) -> None:
    """By the sending that follows."""
    found = (corrections.c.procedure == row["id"]) & corrections.c.answered.is_(None)
    connection.execute(update(corrections).where(found).values(answered=actor.now))
