"""
The supporting documents of a procedure: one for each slot that the answers require, and others beside (ATT-01 to ATT-11).

    found = of_procedure(connection, row)                           all of them, the oldest first
    slots, others = arranged(definition, row["answers"], found)

A piece says for which required one it was given (`slot`). Whether that is required is asked of the answers each time: other
answers make it optional, and take it back. What turned out to be malware fills nothing, and stays listed until somebody
has seen it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from portal_adapter.definitions.answers import Answers, required_pieces
from portal_adapter.definitions.definition import Definition, Piece
from portal_adapter.domain import archive, kept, room
from portal_adapter.domain.actor import Actor
from portal_adapter.domain.fields import Fields
from portal_adapter.domain.ids import is_id, new_id
from portal_adapter.domain.procedure import PROCEDURE, Row, fire
from portal_adapter.files import names, sniff
from portal_adapter.files.examined import CLEAN, INFECTED
from portal_adapter.fsm import Machine
from portal_adapter.language import Language
from portal_adapter.refusal import Refusal, guard, not_found, stale
from portal_adapter.settings import Limits, Settings
from portal_adapter.store.schema import (
    accounts,
    attachments,
    correction_items,
    corrections,
    documents,
    procedures,
    spaces,
)

# Where the setting allows attachments before the signature (ATT-01).
_EARLY = replace(PROCEDURE, steps={**PROCEDURE.steps, ("in_preparation", "attach"): "in_preparation"})

OTHER = "other"  # what a procedure without a list takes


@dataclass(frozen=True, slots=True)
class Slot:
    """What the answers require, and the piece that is there for it."""

    piece: Piece
    filled: Row | None

    @property
    def type(self) -> str:
        return self.piece.type


@dataclass(frozen=True, slots=True)
class Given:
    """What is attached: `slot` is the required piece that it is given for, `content` the columns that describe its bytes."""

    slot: str
    type: str
    name: str
    content: Mapping[str, Any]


def machine(settings: Settings) -> Machine:
    """The procedure's, in which attachments come where the setting wants them."""
    return _EARLY if settings.attachments.before_signature else PROCEDURE


# ---- finding


def of_procedure(connection: Connection, row: Row) -> list[Row]:
    """The oldest first, with `given` and `family` of who added it."""
    query = (
        select(attachments, accounts.c.given, accounts.c.family)
        .join(accounts, accounts.c.id == attachments.c.added_by)
        .where(attachments.c.procedure == row["id"])
    )
    return [dict(one) for one in connection.execute(query.order_by(attachments.c.added, attachments.c.id)).mappings()]


def of(connection: Connection, row: Row, attachment: str) -> Row:
    """Raises `not-found`, for another procedure's too."""
    found = (attachments.c.id == attachment) & (attachments.c.procedure == row["id"])
    one = connection.execute(select(attachments).where(found)).mappings().first() if is_id(attachment) else None
    if one is None:
        raise not_found()
    return dict(one)


def readable(connection: Connection, actor: Actor, row: Row, attachment: str) -> Row:
    """To be shown or downloaded; raises as a document of the archive does (ATT-10)."""
    found = of(connection, row, attachment)
    archive.check_readable(actor, found)
    return found


def unsent_bytes(connection: Connection, space: str) -> int:
    """What the attachments of a space's procedures that are still in its hands have together."""
    open_ = procedures.c.status.in_(("in_preparation", "ready", "to_be_corrected"))
    query = select(func.coalesce(func.sum(attachments.c.size), 0)).join(procedures).where(procedures.c.space == space)
    return int(connection.execute(query.where(open_)).scalar_one())


def flagged(connection: Connection, row: Row) -> Mapping[str, str]:
    """Attachment -> what the administration says of it, in the requests for correction that are not answered (COR-04)."""
    query = (
        select(correction_items.c.target, correction_items.c.comment)
        .join(corrections, corrections.c.id == correction_items.c.correction)
        .where(corrections.c.procedure == row["id"], corrections.c.answered.is_(None))
        .where(correction_items.c.kind == "attachment")
        .order_by(corrections.c.time, correction_items.c.position)
    )
    return {one.target: one.comment for one in connection.execute(query)}


# ---- what they are: pure


def arranged(definition: Definition, answers: Answers, pieces: Sequence[Row]) -> tuple[list[Slot], list[Row]]:
    """The slots, in the definition's order, and the pieces that fill none. A clean one fills before one that is not yet."""
    slots = []
    for piece in required_pieces(definition, answers):
        fit = [one for one in pieces if one["slot"] == piece.type and one["scan"] != INFECTED]
        slots.append(Slot(piece, min(fit, key=lambda one: one["scan"] != CLEAN, default=None)))
    filling = {slot.filled["id"] for slot in slots if slot.filled is not None}
    return slots, [one for one in pieces if one["id"] not in filling]


def used(pieces: Sequence[Row]) -> int:
    """How many count towards the limit."""
    return sum(one["scan"] != INFECTED for one in pieces)


def types(definition: Definition, language: Language) -> dict[str, str]:
    """What an attachment of this procedure may be, and how that is called (ATT-05)."""
    found = {piece.type: piece.label.in_(language.code) for piece in definition.piece}
    return found or {OTHER: language.text(archive.TYPES[OTHER])}


def type_name(definition: Definition, type_: str, language: Language) -> str:
    """From the archive come its own types, too."""
    return types(definition, language).get(type_) or language.text(archive.TYPES.get(type_, type_))


# ---- what happens


def check_attachable(row: Row, settings: Settings) -> None:
    """Raise `forbidden-transition` where nothing can be attached now (ATT-01)."""
    machine(settings).target(row["status"], "attach")


def check_removable(row: Row, settings: Settings) -> None:
    """The same of a removal (ATT-08)."""
    machine(settings).target(row["status"], "detach")


def check_form(form: Mapping[str, str], file_name: str | None, limits: Limits, *, in_slot: bool) -> str:
    """
    The name that a form gives a file of `file_name`, None without one; raises `validation`. Which types there are, `of_list`
    asks.
    """
    fields = Fields(form)
    if not in_slot and not form.get("type"):
        fields.choice("type", ())
    name = fields.text("name", most=limits.document_name, least=0)
    if file_name is None:
        fields.refuse(sniff.FIELD, "required", "Choose a file.")
    fields.check()
    return name or names.cleaned(file_name or "", most=limits.document_name) or "document"


def of_list(definition: Definition, form: Mapping[str, str], name: str, content: Mapping[str, Any]) -> Given:
    """An upload of a type of the procedure's list (ATT-05); raises `validation`."""
    fields = Fields(form)
    type_ = fields.choice("type", [piece.type for piece in definition.piece] or [OTHER])
    fields.check()
    could_be_required = any(piece.type == type_ and not piece.optional for piece in definition.piece)
    return Given(type_ if could_be_required else "", type_, name, content)


def of_archive(connection: Connection, row: Row, form: Mapping[str, str]) -> Given:
    """
    The `document` of the form, of the procedure's space, held and clean (ATT-06); its bytes are to be copied. Raises
    `not-found`, `guard-failed`, `rejected-content`.
    """
    chosen = form.get("document", "")
    query = select(documents).where(documents.c.id == chosen, documents.c.space == row["space"]).with_for_update()
    found = connection.execute(query).mappings().first() if is_id(chosen) else None
    if found is None:
        raise not_found()
    if found["scan"] == INFECTED:
        raise Refusal("rejected-content", "Malware was found in this file. It was not kept.", reason="infected")
    if found["scan"] != CLEAN:
        raise guard("not-scanned-yet", "This file is being checked for malware. Please come back in a few minutes.")
    columns = ("media_type", "size", "sha256", "file", "scan", "scan_note", "scan_tries", "scan_next")
    return Given("", found["type"], found["name"], {name: found[name] for name in columns})


def slot_of(definition: Definition, row: Row, pieces: Sequence[Row], type_: str) -> Slot:
    """Raises `not-found` for what is not required."""
    slots, _ = arranged(definition, row["answers"], pieces)
    found = next((one for one in slots if one.type == type_), None)
    if found is None:
        raise not_found()
    return found


def add(connection: Connection, actor: Actor, row: Row, at: str, given: Given, settings: Settings) -> None:
    """Beside what is there (ATT-02). The procedure's row is held: nobody else adds meanwhile. `at` is the procedure's page."""
    _insert(connection, actor, row, at, given, settings, [])


def fill(
    connection: Connection,
    actor: Actor,
    row: Row,
    at: str,
    definition: Definition,
    slot: str,
    replaces: str,
    given: Given,
    settings: Settings,
) -> list[str]:
    """
    The piece of a slot, in place of the one that was seen there, '' for none (ATT-03). Answers the names of bytes that go
    once this is committed. Raises `stale` where another one is there meanwhile.
    """
    pieces = of_procedure(connection, row)
    filled = slot_of(definition, row, pieces, slot).filled
    if replaces != (filled["id"] if filled else ""):
        raise stale(row["version"])
    infected = [one for one in pieces if one["slot"] == slot and one["scan"] == INFECTED]
    old = [*infected, *([filled] if filled else [])]
    _insert(connection, actor, row, at, replace(given, slot=slot, type=slot), settings, old)
    return kept.unnamed(connection, [one["file"] for one in old])


def remove(
    connection: Connection, actor: Actor, row: Row, attachment: str, form: Mapping[str, str], settings: Settings
) -> list[str]:
    """
    Until it is sent (ATT-08). Answers the names of bytes that go once this is committed. Raises `not-found`,
    `confirmation-required`.
    """
    found = of(connection, row, attachment)
    check_removable(row, settings)
    if form.get("confirmed") != "yes":
        raise Refusal("confirmation-required", "Say that this document is to be removed: it cannot be brought back.")
    _delete(connection, [found])
    detail = {"attachment": attachment, "sha256": found["sha256"]}
    fire(connection, actor, row, "detach", machine=machine(settings), detail=detail)
    return kept.unnamed(connection, [found["file"]])


def _insert(
    connection: Connection, actor: Actor, row: Row, at: str, given: Given, settings: Settings, old: Sequence[Row]
) -> None:
    """In place of `old`."""
    _delete(connection, old)
    if used(of_procedure(connection, row)) >= settings.limits.attachments:
        message = "This procedure has as many attachments as it may have. Remove one that is not needed."
        raise guard("attachments-full", message, f"{at}/attachments")
    # Held: two procedures of a space are filled at one time, too.
    connection.execute(select(spaces.c.id).where(spaces.c.id == row["space"]).with_for_update())
    if unsent_bytes(connection, row["space"]) + given.content["size"] > settings.limits.unsent_bytes:
        message = (
            "The attachments of this space's unsent procedures take all the room there is. Send or delete one of them."
        )
        raise guard("space-full", message, f"{at}/attachments")
    room.check(connection, actor, given.content["size"], settings.limits)
    attachment = new_id()
    connection.execute(
        insert(attachments).values(
            id=attachment, procedure=row["id"], slot=given.slot, type=given.type, name=given.name, **given.content,
            added=actor.now, added_by=actor.account,
        )
    )  # fmt: skip
    detail = {
        "attachment": attachment, "sha256": given.content["sha256"], "scan": given.content["scan_note"],
        **({"replaces": [one["id"] for one in old]} if old else {}),
    }  # fmt: skip
    fire(connection, actor, row, "attach", machine=machine(settings), detail=detail)


def _delete(connection: Connection, pieces: Sequence[Row]) -> None:
    if pieces:
        connection.execute(delete(attachments).where(attachments.c.id.in_([one["id"] for one in pieces])))
