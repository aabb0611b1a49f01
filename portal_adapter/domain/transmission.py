"""
What was sent, each time that it was, as it was then (SUB-07): a signed form, its answers and pieces. Nothing of it changes.

A sending freezes one (sending.py). The space and the administration read them; whoever closes a procedure that is being
corrected brings it back to the last one.
"""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from portal_adapter.definitions.answers import required_pieces
from portal_adapter.definitions.definition import Definition
from portal_adapter.domain.actor import Actor
from portal_adapter.domain.ids import new_id
from portal_adapter.domain.procedure import CHECK, Row
from portal_adapter.files.examined import CLEAN
from portal_adapter.refusal import not_found
from portal_adapter.store.schema import (
    accounts,
    attachments,
    procedures,
    signatures,
    transmission_pieces,
    transmissions,
)

COPIED = ("type", "name", "media_type", "size", "file", "sha256")  # of an attachment
_DIGITS_MAX = 9


def number_of(text: str) -> int:
    """A number that stands in a path; raises `not-found`."""
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX):
        raise not_found()
    return int(text)


def freeze(connection: Connection, actor: Actor, row: Row, number: int, signature: Row, pieces: list[Row]) -> None:
    """The form with this signature, and these attachments."""
    connection.execute(
        insert(transmissions).values(
            procedure=row["id"], number=number, time=actor.now, account=actor.account, file=signature["file"],
            sha256=signature["sha256"], answers=json.dumps(row["answers"], ensure_ascii=False, sort_keys=True),
        )
    )  # fmt: skip
    for position, piece in enumerate(pieces, 1):
        values = {name: piece[name] for name in COPIED}
        connection.execute(
            insert(transmission_pieces).values(procedure=row["id"], number=number, position=position, **values)
        )


def listed(connection: Connection, row: Row) -> list[Row]:
    """All of them, the newest first, with `given` and `family` of who sent it; without answers and pieces."""
    columns = [transmissions.c[name] for name in ("number", "time", "file", "sha256")]
    query = (
        select(*columns, accounts.c.given, accounts.c.family)
        .join(accounts, accounts.c.id == transmissions.c.account)
        .where(transmissions.c.procedure == row["id"])
        .order_by(transmissions.c.number.desc())
    )
    return [dict(one) for one in connection.execute(query).mappings()]


def of(connection: Connection, row: Row, number: int) -> Row:
    """With `answers` as a mapping, `pieces`, `given` and `family`; raises `not-found`."""
    query = (
        select(transmissions, accounts.c.given, accounts.c.family)
        .join(accounts, accounts.c.id == transmissions.c.account)
        .where(transmissions.c.procedure == row["id"], transmissions.c.number == number)
    )
    found = connection.execute(query).mappings().first()
    if found is None:
        raise not_found()
    pieces = (
        select(transmission_pieces)
        .where(transmission_pieces.c.procedure == row["id"], transmission_pieces.c.number == number)
        .order_by(transmission_pieces.c.position)
    )
    return {
        **found,
        "answers": json.loads(found["answers"]),
        "pieces": [dict(one) for one in connection.execute(pieces).mappings()],
    }


def piece(sent: Row, position: int) -> Row:
    """One of those of `of`; raises `not-found`."""
    found: Row | None = next((one for one in sent["pieces"] if one["position"] == position), None)
    if found is None:
        raise not_found()
    return found


def return_to_last(
    connection: Connection, actor: Actor, id_: str, definition: Definition
) -> tuple[Mapping[str, Any], list[str]]:
    """
    What was edited since the last sending is dropped: signatures and attachments are again those that were sent. Answers the
    values that the procedure gets, and the names of bytes that it had until now. The procedure is held.
    """
    row = dict(connection.execute(select(procedures).where(procedures.c.id == id_)).mappings().one())
    sent = of(connection, row, row["transmissions"])
    own = signatures.c.procedure == id_
    signed = connection.execute(
        select(signatures.c.form_sha256, signatures.c.number, signatures.c.space).where(
            own, signatures.c.file == sent["file"]
        )
    ).one()
    # The first one of a double signature is over the same form.
    same_form = (signatures.c.form_sha256 == signed.form_sha256) & (signatures.c.number < signed.number)
    of_sent = (signatures.c.file == sent["file"]) | same_form
    connection.execute(update(signatures).where(own, of_sent).values(voided=None))
    connection.execute(update(signatures).where(own, ~of_sent, signatures.c.voided.is_(None)).values(voided=actor.now))
    dropped = _return_attachments(connection, actor, id_, definition, sent)
    values: dict[str, Any] = {
        "entry": "confirmed", "signature": "valid", "step": CHECK, "second_state": "",
        "second": signed.space if signed.number == 2 else None,
        "answers": json.dumps(sent["answers"], ensure_ascii=False, sort_keys=True),
    }  # fmt: skip
    if row["form_sha256"] != signed.form_sha256:  # another form was confirmed, or none is
        values |= {"form_file": "", "form_sha256": signed.form_sha256}
        dropped.append(row["form_file"])
    return values, dropped


def _return_attachments(connection: Connection, actor: Actor, id_: str, definition: Definition, sent: Row) -> list[str]:
    """Answers the names of bytes that were attached."""
    found = select(attachments).where(attachments.c.procedure == id_).order_by(attachments.c.added, attachments.c.id)
    missing, kept_slots, dropped = list(sent["pieces"]), set[str](), list[str]()
    for one in connection.execute(found).mappings().all():
        same = next((each for each in missing if _is_same(each, dict(one))), None)
        if same is not None:
            missing.remove(same)
            kept_slots.add(one["slot"])
        else:
            connection.execute(delete(attachments).where(attachments.c.id == one["id"]))
            dropped.append(one["file"])
    free = {one.type for one in required_pieces(definition, sent["answers"])} - kept_slots
    for piece_sent in missing:
        slot = piece_sent["type"] if piece_sent["type"] in free else ""
        free.discard(slot)
        connection.execute(
            insert(attachments).values(
                id=new_id(), procedure=id_, slot=slot, scan=CLEAN, scan_note="", scan_tries=0, scan_next=0,
                added=sent["time"], added_by=sent["account"],
                **{name: piece_sent[name] for name in COPIED},
            )
        )  # fmt: skip
    return dropped


def _is_same(sent: Row, attached: Row) -> bool:
    return all(sent[name] == attached[name] for name in COPIED)
