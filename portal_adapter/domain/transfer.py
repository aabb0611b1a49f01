"""
The double signature: a procedure that its space has signed goes to another space, which signs it too or refuses (SIG-17).

    first signed --transfer--> transferred --the other space signs--> both signed
                 <--recall, decline---

The other space's signatories see title, reference, first signer and the signed PDF, and nothing else of the procedure, for
as long as it is theirs to sign; of what was signed there they keep title, reference, time and the PDF, until that is void.
"""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, select

from portal_adapter.definitions.definition import Definition
from portal_adapter.domain import marks, procedure, signing
from portal_adapter.domain.actor import Actor
from portal_adapter.domain.fields import Fields
from portal_adapter.domain.ids import read_identifier
from portal_adapter.domain.procedure import PROCEDURE, Row
from portal_adapter.domain.signing import Task
from portal_adapter.language import msgid
from portal_adapter.mail import outbox
from portal_adapter.refusal import Refusal, guard, invalid, not_found
from portal_adapter.settings import Portal
from portal_adapter.store.schema import accounts, procedure_history, procedures, signatures, spaces

REASON_CHARACTERS_MAX = 500
AN_HOUR_MAX = 30  # transfers of one account: each is a mail to people who need not know her
_NOT_RECALLED = msgid("No other space has this procedure.")
_NOT_TRANSFERRED = msgid("Only a procedure that is signed once, and wants a second signature, is transferred.")


# ---- the procedure's own space


def check(row: Row, definition: Definition, event: str) -> None:
    """Raise `forbidden-transition` unless it may be transferred, or recalled, as it is now."""
    is_there = row["second_state"] == "transferred"
    stands = (
        is_there if event == "recall" else definition.signatures == 2 and row["signature"] == "first" and not is_there
    )
    PROCEDURE.target(row["status"], event)
    if not stands:
        message = _NOT_RECALLED if event == "recall" else _NOT_TRANSFERRED
        raise Refusal(
            "forbidden-transition", message, reason="not-transferable", state=row["status"], event=event,
            allowed=PROCEDURE.allowed(row["status"]),
        )  # fmt: skip


def may_transfer(row: Row, definition: Definition) -> bool:
    try:
        check(row, definition, "transfer")
    except Refusal:
        return False
    return True


def transfer(
    connection: Connection, actor: Actor, row: Row, definition: Definition, identifier: str, portal: Portal
) -> None:
    """
    To the space of that identifier, which is told by mail; what cannot be found and what is closed sounds alike. Raises
    `rate-limited`.
    """
    check(row, definition, "transfer")
    if not identifier.strip():
        raise invalid("identifier", "required", "This field is mandatory.")
    found = read_identifier(identifier)
    query = select(spaces).where(spaces.c.identifier == found, spaces.c.state == "active", spaces.c.id != row["space"])
    other = connection.execute(query).mappings().first() if found is not None else None
    if other is None:
        message = "No other space has this identifier, or it cannot sign now. Ask whoever is to sign for it."
        raise invalid("identifier", "unknown-space", message)
    marks.check(connection, actor.now, "transfer", actor.account, AN_HOUR_MAX, 3600)
    marks.mark(connection, actor.now, "transfer", actor.account)
    procedure.fire(connection, actor, row, "transfer", second=other["id"], second_state="transferred")
    link = f"{portal.origin}/spaces/{other['identifier']}/signatures/{row['reference']}"
    data = {"space": other["title"], "reference": row["reference"], "link": link}
    outbox.queue(connection, actor.now, other["email"], portal.language, "signature-asked", data)


def recall(connection: Connection, actor: Actor, row: Row, definition: Definition) -> None:
    """Whatever the other space is at: its attempt to sign ends."""
    check(row, definition, "recall")
    procedure.end_signing(connection, actor, row, "recall")
    asked_no_more(connection, actor, row)
    procedure.fire(connection, actor, row, "recall", second=None, second_state="")


def standing(connection: Connection, row: Row) -> Mapping[str, Any]:
    """For the procedure's own space: `second` the other one's title, `declined` who refused last and why."""
    title = None
    if row["second"] is not None:
        title = connection.execute(select(spaces.c.title).where(spaces.c.id == row["second"])).scalar()
    return {"second": title, "declined": _declined(connection, row) if row["signature"] == "first" else None}


def _declined(connection: Connection, row: Row) -> Row | None:
    if row["second_state"] != "declined":  # it was transferred again since, or recalled
        return None
    query = (
        select(procedure_history.c.time, procedure_history.c.comment)
        .where(procedure_history.c.procedure == row["id"], procedure_history.c.comment != "")
        .where(procedure_history.c.side == "second")
        .order_by(procedure_history.c.id.desc())
    )
    found = connection.execute(query).mappings().first()
    first = signing.counting(connection, row)
    return dict(found) if found is not None and first is not None and found["time"] >= first["time"] else None


# ---- the other space


def waiting(connection: Connection, space: str) -> list[Row]:
    """What was transferred to a space: its title is its definition's; with `given` and `family` of who signed first."""
    query = select(procedures).where(procedures.c.second == space, procedures.c.second_state == "transferred")
    rows = connection.execute(query.order_by(procedures.c.updated, procedures.c.id)).mappings().all()
    found = [(row, signing.counting(connection, dict(row))) for row in rows]
    return [
        {
            **{name: row[name] for name in ("reference", "definition", "definition_version")},
            "given": first["given"], "family": first["family"], "signed": first["time"],
        }
        for row, first in found
        if first is not None
    ]  # fmt: skip


def signed(connection: Connection, space: str, page: int) -> list[Row]:
    """
    A page, counted from 1, of what was signed in a space for others and is not void, the newest first; with `time`, and
    `given` and `family` of who did: of a procedure that was changed since another space may have the next signature, and is
    not told of this one.
    """
    query = (
        select(
            procedures.c.reference, procedures.c.definition, procedures.c.definition_version, signatures.c.time,
            accounts.c.given, accounts.c.family,
        )
        .join(signatures, signatures.c.procedure == procedures.c.id)
        .join(accounts, accounts.c.id == signatures.c.account)
        .where(_signed_in(space))
        .order_by(signatures.c.time.desc(), signatures.c.id)
        .limit(procedure.PAGE)
        .offset((page - 1) * procedure.PAGE)
    )  # fmt: skip
    return [dict(row) for row in connection.execute(query).mappings()]


def count_signed(connection: Connection, space: str) -> int:
    return int(connection.execute(select(func.count()).select_from(signatures).where(_signed_in(space))).scalar_one())


def _signed_in(space: str) -> ColumnElement[bool]:
    return and_(signatures.c.space == space, signatures.c.number == 2, signatures.c.voided.is_(None))


def tell_signed(connection: Connection, actor: Actor, task: Task, portal: Portal) -> None:
    """The procedure's own space, by mail, that the second signature is there."""
    asked_no_more(connection, actor, task.row)
    own = connection.execute(select(spaces).where(spaces.c.id == task.row["space"])).mappings().one()
    other = connection.execute(select(spaces.c.title).where(spaces.c.id == task.space)).scalar_one()
    link = f"{portal.origin}{procedure.path(dict(own), task.row)}"
    data = {"space": other, "reference": task.row["reference"], "link": link}
    outbox.queue(connection, actor.now, own["email"], portal.language, "signature-given", data)


def count(connection: Connection, space: str) -> int:
    query = select(func.count()).where(procedures.c.second == space, procedures.c.second_state == "transferred")
    return int(connection.execute(query).scalar_one())


def of(connection: Connection, space: str, reference: str, at: str, *, hold: bool = False) -> Task:
    """What a space is to sign; raises `not-found` for what was not transferred to it."""
    if "\0" in reference:
        raise not_found()
    mine = (procedures.c.second == space) & (procedures.c.second_state == "transferred")
    query = select(procedures).where(mine, procedures.c.reference == reference)
    row = connection.execute(query.with_for_update(key_share=True) if hold else query).mappings().first()
    if row is None:
        raise not_found()
    found = {**row, "answers": json.loads(row["answers"]), "origins": json.loads(row["origins"])}
    if (first := signing.counting(connection, found)) is None:
        raise not_found()
    state = connection.execute(select(spaces.c.state).where(spaces.c.id == row["space"])).scalar_one()
    return Task(
        found, 2, "sign_second", space, at, first["file"], first["sha256"], first, is_suspended=state != "active"
    )


def document(connection: Connection, space: str, reference: str) -> str:
    """The file with the PDF that is to be signed in a space, or was and is not void; raises `not-found`."""
    if "\0" not in reference:
        query = (
            select(signatures.c.file)
            .join(procedures, procedures.c.id == signatures.c.procedure)
            .where(_signed_in(space), procedures.c.reference == reference)
        )
        if (file := connection.execute(query).scalar()) is not None:
            return str(file)
    return of(connection, space, reference, "").file


def decline(connection: Connection, actor: Actor, task: Task, form: Mapping[str, str]) -> None:
    """The other space does not sign, and says why: the procedure's own space sees it."""
    fields = Fields(form)
    reason = fields.text("reason", most=REASON_CHARACTERS_MAX, lines=True)
    fields.check()
    if task.first is not None and task.first["account"] == actor.account:
        raise guard("same-signer", "You have given the first signature: recall it in your own space.", task.at)
    procedure.end_signing(connection, actor, task.row, "decline")
    asked_no_more(connection, actor, task.row)
    procedure.fire(
        connection, actor, task.row, "decline", side="second", comment=reason, second=None, second_state="declined"
    )


def asked_no_more(connection: Connection, actor: Actor, row: Row) -> None:
    """The mail that has asked the other space, where it is not sent yet: its link leads to nothing now."""
    outbox.stop(connection, actor.now, "signature-asked", lambda data: bool(data["reference"] == row["reference"]))
