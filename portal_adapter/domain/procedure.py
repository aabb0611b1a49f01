"""
Procedures: a form that somebody fills in, confirms, signs and sends, and what becomes of it (PROC-06 to PROC-20).

    row = held(connection, space["id"], reference)        the row as it is now, and nobody else's until this is over
    fire(connection, actor, row, "send", ...)             status, history, audit line, all at once

Whoever changes a procedure, or anything that belongs to it, holds its row first: what he judges by is then still so when he
acts. The version stands for what people have seen: a save of an older one is refused.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, delete, func, insert, select, update

from portal_adapter.definitions.answers import Answers, canonical, check_whole, kept, visible
from portal_adapter.definitions.definition import Definition
from portal_adapter.domain import audit
from portal_adapter.domain.actor import Actor
from portal_adapter.domain.fields import Fields
from portal_adapter.domain.ids import new_id, new_reference
from portal_adapter.domain.kept import unnamed
from portal_adapter.fsm import Machine
from portal_adapter.language import msgid
from portal_adapter.refusal import Refusal, Unmet, guard, not_found, stale, unmet
from portal_adapter.store.schema import (
    accounts,
    attachments,
    messages,
    procedure_history,
    procedures,
    signatures,
    signings,
)

PROCEDURE = Machine(
    procedures, "status", "in_preparation",
    {
        ("in_preparation", "save"): "in_preparation",
        ("in_preparation", "confirm"): "in_preparation",
        ("in_preparation", "sign"): "ready",
        ("in_preparation", "sign_first"): "in_preparation",
        ("in_preparation", "transfer"): "in_preparation",
        ("in_preparation", "recall"): "in_preparation",
        ("in_preparation", "decline"): "in_preparation",
        ("in_preparation", "sign_second"): "ready",
        ("in_preparation", "detach"): "in_preparation",
        ("in_preparation", "delete"): "erased",
        ("ready", "save"): "in_preparation",
        ("ready", "attach"): "ready",
        ("ready", "detach"): "ready",
        ("ready", "send"): "sent",
        ("ready", "delete"): "erased",
        ("sent", "accept"): "accepted",
        ("sent", "ask_correction"): "to_be_corrected",
        ("sent", "close"): "closed",
        ("sent", "write"): "sent",
        ("accepted", "ask_correction"): "to_be_corrected",
        ("accepted", "close"): "closed",
        ("accepted", "write"): "accepted",
        ("to_be_corrected", "save"): "to_be_corrected",
        ("to_be_corrected", "confirm"): "to_be_corrected",
        ("to_be_corrected", "sign"): "to_be_corrected",
        ("to_be_corrected", "sign_first"): "to_be_corrected",
        ("to_be_corrected", "transfer"): "to_be_corrected",
        ("to_be_corrected", "recall"): "to_be_corrected",
        ("to_be_corrected", "decline"): "to_be_corrected",
        ("to_be_corrected", "sign_second"): "to_be_corrected",
        ("to_be_corrected", "attach"): "to_be_corrected",
        ("to_be_corrected", "detach"): "to_be_corrected",
        ("to_be_corrected", "send"): "sent",
        ("to_be_corrected", "close"): "closed",
        ("to_be_corrected", "write"): "to_be_corrected",
        ("closed", "write"): "closed",
    },
    {
        "in_preparation": msgid("Saved, not yet sent: nobody but you and your space sees it."),
        "ready": msgid("Signed, not yet sent: nobody but you and your space sees it."),
        "sent": msgid("Sent, not yet processed: nothing can be changed unless it is sent back to you."),
        "accepted": msgid("The administration is processing it: nothing can be changed unless it is sent back to you."),
        "to_be_corrected": msgid("Returned to you for correction: correct it, sign it again if you change the form, and send it."),
        "closed": msgid("Closed by the administration: it can be read and copied."),
        "erased": msgid("The procedure is deleted."),
    },
)  # fmt: skip
STATUSES: Mapping[str, str] = {
    "in_preparation": msgid("In preparation"),
    "ready": msgid("Ready"),
    "sent": msgid("Sent"),
    "accepted": msgid("Accepted"),
    "to_be_corrected": msgid("To be corrected"),
    "closed": msgid("Closed"),
}
# What a list is narrowed down to.
FILTERS: Mapping[str, tuple[str, ...]] = {
    "not_sent": ("in_preparation", "ready"),
    "sent": ("sent",),
    "accepted": ("accepted",),
    "to_be_corrected": ("to_be_corrected",),
    "closed": ("closed",),
}
VOIDED = msgid("The declaration was changed: its signature is void.")  # a comment of the history; others are typed
CHECK = "check"  # the step after the last one of the form
PAGE = 50  # procedures on one page

Row = Mapping[str, Any]


# ---- finding


def of(connection: Connection, space: str, reference: str) -> Row:
    """With `answers` and `origins` as mappings; raises `not-found`, for another space's too."""
    return found(connection, reference, procedures.c.space == space)


def held(connection: Connection, space: str, reference: str) -> Row:
    """The same, held until the transaction ends."""
    return found(connection, reference, procedures.c.space == space, hold=True)


def found(connection: Connection, reference: str, whose: ColumnElement[bool], *, hold: bool = False) -> Row:
    """The same for whoever sees procedures by another condition than their space: an agent, the space that signs, too."""
    if "\0" in reference:  # PostgreSQL takes none
        raise not_found()
    query = select(procedures).where(procedures.c.reference == reference, whose)
    row = connection.execute(query.with_for_update(key_share=True) if hold else query).mappings().first()
    if row is None:
        raise not_found()
    return {**row, "answers": json.loads(row["answers"]), "origins": json.loads(row["origins"])}


def path(space: Mapping[str, Any], row: Row) -> str:
    """Of its page; `space` is the one that the reader is in."""
    return f"/spaces/{space['identifier']}/procedures/{row['reference']}"


def count(connection: Connection, space: str, statuses: Collection[str] = tuple(STATUSES)) -> int:
    whose = (procedures.c.space == space) & procedures.c.status.in_(statuses)
    return int(connection.execute(select(func.count()).where(whose)).scalar_one())


def listed(
    connection: Connection, space: str, statuses: Collection[str] = tuple(STATUSES), page: int = 1, most: int = PAGE
) -> list[Row]:
    """
    A page of them, those whose status changed last first; without answers, with `messages`, how many the administration has
    sent, and `unread` of them.
    """
    columns = [procedures.c[name] for name in (
        "id", "reference", "definition", "definition_version", "status", "entry", "signature", "created", "updated",
        "transmissions", "second", "second_state",
    )]  # fmt: skip
    whose = (procedures.c.space == space) & procedures.c.status.in_(statuses)
    query = select(*columns).where(whose).order_by(procedures.c.updated.desc(), procedures.c.id)
    rows = connection.execute(query.limit(most).offset((page - 1) * most)).mappings().all()
    counts = _messages(connection, [row["id"] for row in rows])
    return [{**row, **counts.get(row["id"], {"messages": 0, "unread": 0})} for row in rows]


def messages_of(connection: Connection, row: Row) -> Mapping[str, int]:
    """`messages` that the administration has sent, and `unread` of them (TRK-09)."""
    return _messages(connection, [row["id"]]).get(row["id"], {"messages": 0, "unread": 0})


def _messages(connection: Connection, ids: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
    unread = func.sum(case((messages.c.read.is_(None), 1), else_=0))
    query = (
        select(messages.c.procedure, func.count().label("messages"), unread.label("unread"))
        .where(messages.c.procedure.in_(ids), messages.c.side == "administration")
        .group_by(messages.c.procedure)
    )
    return {
        row["procedure"]: {"messages": int(row["messages"]), "unread": int(row["unread"])}
        for row in (connection.execute(query).mappings() if ids else ())
    }


def history(connection: Connection, row: Row) -> list[Row]:
    """Every change of its status, the newest first, with `given` and `family` of who made it (TRK-10)."""
    query = (
        select(procedure_history, accounts.c.given, accounts.c.family)
        .join(accounts, accounts.c.id == procedure_history.c.account)
        .where(procedure_history.c.procedure == row["id"])
        .order_by(procedure_history.c.id.desc())
    )
    return [dict(one) for one in connection.execute(query).mappings()]


# ---- what must be so: pure, each condition that is not met has its word


def unmet_to_create(definition: Definition, space: Mapping[str, Any]) -> list[Unmet]:
    """ESP-17, ESP-19."""
    found = []
    if not definition.suits(space["kind"]):
        message = "This procedure is for another kind of space. Choose one that fits."
        found.append(Unmet("wrong-space-kind", message, f"/start/{definition.name}"))
    if definition.requires_certified_space and space["certification"] != "yes":
        message = (
            "This procedure is open to certified business spaces only. Ask for certification on the page of the space."
        )
        found.append(Unmet("space-not-certified", message, f"/spaces/{space['identifier']}"))
    return found


def unmet_to_confirm(definition: Definition, answers: Answers, language: str, at: str) -> list[Unmet]:
    """PROC-13: one for each field that is missing or wrong, with the way to it; `at` is the procedure's page."""
    steps = {question.id: step for step in definition.step for question in step.field}
    questions = {question.id: question for question in definition.questions()}
    found = []
    for error in check_whole(definition, answers):
        message = "Still empty: {field}" if error.code == "required" else "Not right yet: {field}"
        href = f"{at}/steps/{steps[error.field].id}#field-{error.field}"
        found.append(Unmet(error.code, message, href, {"field": questions[error.field].label.in_(language)}))
    return found


def unmet_while_elsewhere(row: Row, at: str) -> list[Unmet]:
    """SIG-17: while another space has it to sign, it is recalled before anything else."""
    if row["second_state"] == "transferred":
        message = "Another space has this procedure to sign it. Recall it first."
        return [Unmet("transferred", message, at)]
    return []


def offers(row: Row, *, may_fill: bool) -> list[str]:
    """What this part of the portal offers the reader: words of its page."""
    if not may_fill:
        return []
    found = ["copy"]
    allowed = PROCEDURE.allowed(row["status"])
    if "save" in allowed and row["second_state"] != "transferred":
        found.append("continue" if row["status"] == "in_preparation" else "edit")
    if "delete" in allowed and row["second_state"] != "transferred":
        found.append("delete")
    return found


# ---- what happens


def fire(
    connection: Connection,
    actor: Actor,
    row: Row,
    event: str,
    *,
    side: str = "applicant",
    comment: str = "",
    machine: Machine = PROCEDURE,
    detail: Mapping[str, Any] | None = None,
    **values: Any,
) -> str:
    """
    An event of `machine` with its line in the audit, which has `detail`, and where the status changes its time and a line
    of the history, which a comment has, too. `values` are written in the same step. Answers the new status; raises
    `forbidden-transition` and `stale`.
    """
    target = machine.target(row["status"], event)
    if target != row["status"]:
        values["updated"] = actor.now
    machine.fire(connection, row, event, **values)
    if target != row["status"] or comment:
        _note_status(connection, actor, row["id"], target, side, comment)
    _note(connection, actor, row, event, status=target, **(detail or {}))
    return target


def create(
    connection: Connection,
    actor: Actor,
    space: Mapping[str, Any],
    definition: Definition,
    answers: Answers,
    origins: Mapping[str, str],
) -> str:
    """Answers its reference; raises `guard-failed` (PROC-06). `answers` are those that it begins with."""
    unmet(unmet_to_create(definition, space))
    return _insert(connection, actor, space, definition, answers, origins, "create")


def copy(
    connection: Connection, actor: Actor, space: Mapping[str, Any], row: Row, definition: Definition | None
) -> str:
    """
    A new one with these answers, of the current version (None: it is withdrawn); answers the reference (PROC-16). What has
    no field there is left out. The space has to be one that may create it now (ESP-17, ESP-19).
    """
    if definition is None:
        raise guard("definition-withdrawn", "This procedure is no longer offered: it cannot be copied.")
    unmet(unmet_to_create(definition, space))
    fields = {question.id for question in definition.questions()}
    answers = {field: value for field, value in row["answers"].items() if field in fields}
    origins = dict.fromkeys(answers, "procedure")
    return _insert(connection, actor, space, definition, answers, origins, "copy", source=row["reference"])


def save(connection: Connection, actor: Actor, row: Row, at: str, answers: Answers, step: str, seen: int) -> list[str]:
    """
    A draft with these answers, all of them; `step` is where it is left, `seen` the version that the form was made from.
    Answers the names of bytes that go once this is committed. Only a real change voids what was confirmed and signed
    (PROC-11, PROC-14, PROC-19).
    """
    PROCEDURE.target(row["status"], "save")
    if canonical(answers) == canonical(row["answers"]):
        if row["entry"] == "open" and row["step"] != step:
            connection.execute(update(procedures).where(procedures.c.id == row["id"]).values(step=step))
        return []
    if seen != row["version"]:
        raise stale(row["version"])
    unmet(unmet_while_elsewhere(row, at))
    answers = _filled(answers)
    voids = is_signed(row)
    fire(
        connection, actor, row, "save", comment=VOIDED if voids else "", entry="open", step=step, answers=_json(answers),
        origins=_json(_origins_after(row["origins"], row["answers"], answers)), form_file="", form_sha256="",
        signature="void" if voids else row["signature"],
    )  # fmt: skip
    connection.execute(
        update(signatures)
        .where(signatures.c.procedure == row["id"], signatures.c.voided.is_(None))
        .values(voided=actor.now)
    )
    end_signing(connection, actor, row, "save")
    return unnamed(connection, [row["form_file"]])


def is_signed(row: Row) -> bool:
    """Once or twice, and not void."""
    return row["signature"] in {"first", "valid"}


def check_confirmable(row: Row, definition: Definition, language: str, at: str, seen: int) -> None:
    """Raise unless it may be confirmed as it was seen (PROC-13)."""
    PROCEDURE.target(row["status"], "confirm")
    if row["entry"] != "open":
        raise Refusal(
            "forbidden-transition", "The entry is confirmed already.", reason="already-confirmed",
            state=row["status"], event="confirm", allowed=PROCEDURE.allowed(row["status"]),
        )  # fmt: skip
    if seen != row["version"]:
        raise stale(row["version"])
    unmet(unmet_to_confirm(definition, row["answers"], language, at))


def confirm(connection: Connection, actor: Actor, row: Row, definition: Definition, file: str, sha256: str) -> None:
    """`file` names the PDF of these very answers. What is hidden is not kept (PROC-10, PROC-13)."""
    answers = _filled(kept(definition, row["answers"]))
    origins = {field: origin for field, origin in row["origins"].items() if field in _asked(definition, answers)}
    fire(
        connection, actor, row, "confirm", entry="confirmed", step=CHECK, answers=_json(answers),
        origins=_json(origins), form_file=file, form_sha256=sha256,
    )  # fmt: skip


def remove(connection: Connection, actor: Actor, row: Row, at: str, form: Mapping[str, str]) -> list[str]:
    """
    Answers the names of bytes that go once this is committed. Only what was never sent, with its confirmation, and as it was
    seen: what a colleague has changed or signed meanwhile is not erased by an old page (PROC-17).
    """
    PROCEDURE.target(row["status"], "delete")
    unmet(unmet_while_elsewhere(row, at))
    if form.get("confirmed") != "yes":
        raise Refusal("confirmation-required", "Say that this procedure is to be deleted: it cannot be brought back.")
    fields = Fields(form)
    seen = fields.version()
    fields.check()
    if seen != row["version"]:
        raise stale(row["version"])
    files = [row["form_file"]]
    for table in (signatures, attachments):
        files += connection.execute(select(table.c.file).where(table.c.procedure == row["id"])).scalars()
    gone = delete(procedures).where(procedures.c.id == row["id"], procedures.c.version == row["version"])
    if connection.execute(gone).rowcount != 1:
        raise not_found()
    _note(connection, actor, row, "delete")
    return unnamed(connection, files)


def end_signing(connection: Connection, actor: Actor, row: Row, by: str) -> None:
    """The attempt to sign that is open, if any, with a line of the audit: it ends `by` this event, whoever has begun it."""
    mine = signings.c.open == row["id"]
    found = connection.execute(select(signings).where(mine)).mappings().first()
    if found is None:
        return
    connection.execute(update(signings).where(mine).values(open=None, state="cancelled"))
    audit.note(
        connection, actor.now, "signing-ended", account=actor.account, space=found["space"], address=actor.address,
        procedure=row["reference"], number=found["number"], begun_by=found["account"], by=by,
        **({"batch": found["batch"]} if found["batch"] else {}),
    )  # fmt: skip


# ---- how it is written


def _insert(
    connection: Connection,
    actor: Actor,
    space: Mapping[str, Any],
    definition: Definition,
    answers: Answers,
    origins: Mapping[str, str],
    event: str,
    **detail: str,
) -> str:
    row = {"id": new_id(), "reference": new_reference(), "space": space["id"]}
    connection.execute(
        insert(procedures).values(
            **row, definition=definition.name, definition_version=definition.version, author=actor.account,
            created=actor.now, updated=actor.now, status=PROCEDURE.first, entry="open", signature="none",
            step=definition.step[0].id, answers=_json(_filled(answers)), origins=_json(origins),
        )
    )  # fmt: skip
    _note_status(connection, actor, row["id"], PROCEDURE.first, "applicant", "")
    _note(connection, actor, row, event, definition=definition.name, version=definition.version, **detail)
    return str(row["reference"])


def _note_status(connection: Connection, actor: Actor, id_: str, status: str, side: str, comment: str) -> None:
    connection.execute(
        insert(procedure_history).values(
            procedure=id_, time=actor.now, status=status, side=side, account=actor.account, comment=comment
        )
    )


def _note(connection: Connection, actor: Actor, row: Row, event: str, **detail: Any) -> None:
    audit.note(
        connection, actor.now, f"procedure-{event.replace('_', '-')}", account=actor.account, space=row["space"],
        address=actor.address, procedure=row["reference"], **detail,
    )  # fmt: skip


def _asked(definition: Definition, answers: Answers) -> set[str]:
    return {question.id for question in visible(definition, answers)}


def _filled(answers: Answers) -> dict[str, str]:
    """Empty answers are none."""
    return {field: value for field, value in answers.items() if value}


def _origins_after(origins: Mapping[str, str], before: Answers, after: Answers) -> dict[str, str]:
    """A value that was filled in and is another one now was `edited`, or `cleared` (PROC-09)."""
    return {
        field: origin
        if after.get(field, "") == before.get(field, "")
        else ("edited" if after.get(field) else "cleared")
        for field, origin in origins.items()
    }


def _json(value: Mapping[str, str]) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
