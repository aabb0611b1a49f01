"""
Procedures: the list, the page of one with its tabs, its form step by step, the check before it is confirmed, copying and
deleting (PROC-06 to PROC-20, TRK-01 to TRK-10).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from portal_adapter.definitions.answers import canonical, check_whole, kept
from portal_adapter.definitions.definition import Definition, Question, Step
from portal_adapter.definitions.sheet import sheet
from portal_adapter.definitions.shown import shown
from portal_adapter.domain import correction, draft, procedure, signing, transfer, transmission
from portal_adapter.domain import indicators as judged
from portal_adapter.domain.actor import FILL, READ, RIGHTS, SIGN
from portal_adapter.domain.fields import Fields
from portal_adapter.domain.kinds import KINDS
from portal_adapter.domain.procedure import CHECK, FILTERS, PROCEDURE, STATUSES, Row
from portal_adapter.domain.space import may_fill
from portal_adapter.form.declaration import Head
from portal_adapter.language import Language, msgid
from portal_adapter.refusal import Refusal, not_found, stale
from portal_adapter.store.database import reading
from portal_adapter.unsaved import destroy_now
from portal_adapter.web.answer import Answer, Download, Page, Redirect, Refused
from portal_adapter.web.ask import Ahead, Ask
from portal_adapter.web.pages import page_of
from portal_adapter.web.route import Level, Route
from portal_adapter.web.views import pieces, sent

if TYPE_CHECKING:
    from portal_adapter.definitions.catalogue import Catalogue

FILTER_NAMES: Mapping[str, str] = {
    "": msgid("All"),
    "not_sent": msgid("Not sent"),
    **{name: STATUSES[name] for name in FILTERS if name in STATUSES},
}
# Where a value that stands in a field comes from; a source is called by its own name.
ORIGINS: Mapping[str, str] = {
    "information": msgid("Filled in from your space."),
    "procedure": msgid("Filled in from an earlier procedure."),
    "edited": msgid("Was filled in automatically; you have changed it."),
    "cleared": msgid("Was filled in automatically; you have taken it out."),
}
ELSEWHERE = msgid("Signed once: another space has it to sign it, too. It is not sent yet.")
SHARED = msgid("Not yet sent: the administration sees nothing of it.")
SELECT_FROM = 8  # choices: fewer are shown side by side


# ---- the list


def listed(ask: Ask) -> Answer:
    assert ask.space is not None
    narrowed = ask.query.get("status", "")
    if narrowed not in FILTER_NAMES:
        raise not_found()
    statuses = FILTERS[narrowed] if narrowed else tuple(STATUSES)
    count = procedure.count(ask.connection, ask.space["id"], statuses)
    page, pages = page_of(ask, count, procedure.PAGE)
    rows = procedure.listed(ask.connection, ask.space["id"], statuses, page, procedure.PAGE)
    data = {
        "procedures": [about(ask, row) for row in rows], "count": count, "page": page, "pages": pages,
        "status": narrowed, "filters": {name: ask.language.text(label) for name, label in FILTER_NAMES.items()},
        "may_fill": may_fill(ask.space),
        "to_sign": to_sign(ask),
    }  # fmt: skip
    return Page("procedures.html", data)


def newest(ask: Ask, most: int = 5) -> list[dict[str, Any]]:
    """For the pages that lead to the list."""
    assert ask.space is not None
    return [about(ask, row) for row in procedure.listed(ask.connection, ask.space["id"], most=most)]


def to_sign(ask: Ask) -> int:
    """How many procedures of other spaces wait for a signature of this one; for the same pages, and who may sign (SIG-17)."""
    assert ask.space is not None
    return transfer.count(ask.connection, ask.space["id"]) if _may_sign(ask) else 0


def about(ask: Ask, row: Row) -> dict[str, Any]:
    """What pages and JSON show of a procedure, wherever it is listed."""
    return {
        **{name: row[name] for name in ("reference", "definition", "status", "created", "updated", "transmissions")},
        "title": title_of(ask.services.catalogue, row, ask.language),
        "status_name": ask.language.text(STATUSES[row["status"]]),
        "status_said": ask.language.text(_said(row)),
        "messages": row["messages"],
        "unread": row["unread"],
    }


def _said(row: Row) -> str:
    """Of what another space has, or has signed, nobody is told that he alone sees it (SIG-17)."""
    if row["second_state"] == "transferred":
        return ELSEWHERE
    if row["second"] is not None and row["status"] in {"in_preparation", "ready"}:
        return SHARED
    return PROCEDURE.said[row["status"]]


def title_of(catalogue: "Catalogue", row: Row, language: Language) -> str:
    """A list is shown even where somebody has taken a definition's file away."""
    found = catalogue.versions.get((row["definition"], row["definition_version"]))
    return found.title.in_(language.code) if found else str(row["definition"])


# ---- one of them


def show(ask: Ask) -> Answer:
    """The tab "Declaration"."""
    row, definition = asked_for(ask)
    data = {
        **head(ask, row, definition), **pieces.parts(ask, row, definition),
        "answers": answer_parts(definition, row, ask.language), "goes_on_at": _goes_on_at(ask, row, definition),
        "next_step": _next_step(ask, row, definition), "signing": _signing(ask, row, definition),
        "transmissions": [sent.about(one) for one in transmission.listed(ask.connection, row)],
    }  # fmt: skip
    return Page("procedure.html", data)


def show_history(ask: Ask) -> Answer:
    row, definition = asked_for(ask)
    lines = sent.history(ask, row, procedure.history(ask.connection, row))
    return Page("procedure_history.html", {**head(ask, row, definition), "history": lines})


def show_form(ask: Ask) -> Answer:
    """Read only: the PDF that was signed, or where it is not the one that was confirmed (SIG-12)."""
    return _form(ask, inline=True)


def download_form(ask: Ask) -> Answer:
    return _form(ask, inline=False)


def _form(ask: Ask, *, inline: bool) -> Answer:
    row = row_of(ask)
    signed = signing.counting(ask.connection, row)
    file = signed["file"] if signed is not None else row["form_file"]
    if not file:
        raise not_found()
    name = f"{row['reference']}.pdf"
    return Download(ask.services.blobs.path(file), "application/pdf", name, inline=inline, is_framed=inline)


# ---- filling in


def show_step(ask: Ask) -> Answer:
    row, definition, step = _step(ask)
    PROCEDURE.target(row["status"], "save")
    number = definition.step.index(step)
    comments = correction.of_fields(ask.connection, row)
    fields = [
        {**_field(ask, one, row), "comment": comments.get(one.id, "")}
        for one in draft.shown_in(definition, step, row["answers"])
    ]
    data = {
        **head(ask, row, definition),
        "version": row["version"],
        "step": {
            "id": step.id, "number": number + 1, "title": step.title.in_(ask.language.code),
            "instructions": step.instructions.in_(ask.language.code),
        },
        "steps": _steps(ask, definition, row, step.id),
        "is_first": draft.before(definition, step, row["answers"]) == step.id,
        "fields": fields,
    }  # fmt: skip
    return Page("procedure_step.html", data)


def save_step(ask: Ask) -> Answer:
    """
    "Next", "Resume later" and "Previous" save alike. What is wrong is said once everything else is saved; a field that
    an answer has brought up is shown before one goes on.
    """
    row, definition, step = _step(ask, hold=True)
    PROCEDURE.target(row["status"], "save")
    fields = Fields(ask.form)
    seen = fields.version()
    fields.check()
    found = draft.read(definition, step, row["answers"], ask.form)
    at, go = _path(ask, row), ask.form.get("go", "next")
    asked = {one.id for one in draft.shown_in(definition, step, row["answers"])}
    is_more = any(one.id not in asked for one in draft.shown_in(definition, step, found.answers))
    if found.errors or go == "later" or (is_more and go != "previous"):
        left = step.id
    elif go == "previous":
        left = draft.before(definition, step, found.answers)
    else:
        left = draft.after(definition, step, found.answers)
    for blob in procedure.save(ask.connection, ask.actor, row, at, found.answers, left, seen):
        ask.after.append(partial(ask.services.blobs.remove, blob))
    voided = (
        "signature-void" if procedure.is_signed(row) and canonical(found.answers) != canonical(row["answers"]) else ""
    )
    if found.errors:
        return Refused(Refusal("validation", "Some fields need your attention.", errors=found.errors))
    if go == "later":
        return Redirect(at.rsplit("/", 1)[0], notice=voided or "draft-saved")
    if left == CHECK:
        return Redirect(f"{at}/check", notice=voided)
    return Redirect(f"{at}/steps/{left}", notice=voided or ("question-added" if left == step.id and is_more else ""))


# ---- checking and confirming


def show_check(ask: Ask) -> Answer:
    row, definition = asked_for(ask)
    PROCEDURE.target(row["status"], "save")
    at = _path(ask, row)
    missing = (
        procedure.unmet_to_confirm(definition, row["answers"], ask.language.code, at) if row["entry"] == "open" else []
    )
    data = {
        **head(ask, row, definition),
        "version": row["version"],
        "answers": answer_parts(definition, row, ask.language),
        "signing": _signing(ask, row, definition),
        "signatures": definition.signatures,
        "steps": _steps(ask, definition, row, CHECK),
        "unmet": [
            {"code": one.code, "message": ask.language.text(one.message, **(one.values or {})), "href": one.href}
            for one in missing
        ],
    }
    return Page("procedure_check.html", data)


@dataclass(frozen=True, slots=True)
class Rendered:
    """The PDF of a procedure as it was in `version`."""

    version: int
    pdf: bytes


def render(ahead: Ahead) -> Rendered | None:
    """None where it cannot be confirmed: the view, which may be a repeated one, says why."""
    assert ahead.space is not None
    assert ahead.session is not None
    with reading(ahead.services.engine) as connection:
        row = procedure.of(connection, ahead.space["id"], ahead.parts["reference"])
    definition = ahead.services.catalogue.version(row["definition"], row["definition_version"])
    try:
        _check_confirmable(ahead.form, row, definition, ahead.language, procedure.path(ahead.space, row))
    except Refusal:
        return None
    answers = kept(definition, row["answers"])
    head = Head(
        portal=ahead.services.settings.portal.name, reference=row["reference"], space=ahead.space["title"],
        person=ahead.session.actor.name, moment=ahead.now,
    )  # fmt: skip
    return Rendered(row["version"], ahead.services.printer.render(definition, answers, ahead.language, head))


def confirm(ask: Ask) -> Answer:
    row, definition = asked_for(ask, hold=True)
    at = _path(ask, row)
    _check_confirmable(ask.form, row, definition, ask.language, at)
    found: Rendered | None = ask.found
    if found is None or found.version != row["version"]:  # it has changed while the PDF was made
        raise stale(row["version"])
    file = ask.services.blobs.write(found.pdf)
    ask.undo.append(partial(ask.services.blobs.remove, file))
    procedure.confirm(ask.connection, ask.actor, row, definition, file, hashlib.sha256(found.pdf).hexdigest())
    return Redirect(f"{at}/check", notice="entry-confirmed")


def _check_confirmable(form: Mapping[str, str], row: Row, definition: Definition, language: Language, at: str) -> None:
    fields = Fields(form)
    seen = fields.version()
    fields.check()
    procedure.check_confirmable(row, definition, language.code, at, seen)


# ---- copying and deleting


def show_copy(ask: Ask) -> Answer:
    """Which answers the present version has no field for: they are named here, and then left out (PROC-20)."""
    row, definition = asked_for(ask)
    current = ask.services.catalogue.current(row["definition"])
    fields = {question.id for question in current.questions()} if current else set()
    left_out = [
        {"label": one.label.in_(ask.language.code), "shown": shown(one, row["answers"][one.id], ask.language)}
        for one in definition.questions()
        if row["answers"].get(one.id) and one.id not in fields
    ]
    assert ask.space is not None
    unmet = procedure.unmet_to_create(current, ask.space) if current else []
    data = {
        "left_out": left_out,
        "is_offered": current is not None,
        "unmet": [{"code": one.code, "message": ask.language.text(one.message), "href": one.href} for one in unmet],
    }
    return Page("procedure_copy.html", {**head(ask, row, definition), **data})


def copy(ask: Ask) -> Answer:
    assert ask.space is not None
    row = row_of(ask)
    current = ask.services.catalogue.current(row["definition"])
    reference = procedure.copy(ask.connection, ask.actor, ask.space, row, current)
    return Redirect(f"/spaces/{ask.space['identifier']}/procedures/{reference}", notice="procedure-copied")


def show_deletion(ask: Ask) -> Answer:
    row, definition = asked_for(ask)
    PROCEDURE.target(row["status"], "delete")
    return Page("procedure_deletion.html", head(ask, row, definition))


def delete(ask: Ask) -> Answer:
    row = row_of(ask, hold=True)
    for batch in signing.drop(ask.connection, row):
        ask.after.append(partial(destroy_now, ask.services.engine, ask.services.daemon, batch))
    for blob in procedure.remove(ask.connection, ask.actor, row, _path(ask, row), ask.form):
        ask.after.append(partial(ask.services.blobs.remove, blob))
    return Redirect(_path(ask, row).rsplit("/", 1)[0], notice="procedure-deleted")


# ---- what pages have in common


def row_of(ask: Ask, *, hold: bool = False) -> Row:
    """For what needs no definition: what is stored is given out also where its definition is gone (ESP-32)."""
    assert ask.space is not None
    find = procedure.held if hold else procedure.of
    return find(ask.connection, ask.space["id"], ask.parts["reference"])


def asked_for(ask: Ask, *, hold: bool = False) -> tuple[Row, Definition]:
    row = row_of(ask, hold=hold)
    otherwise = f"{_path(ask, row)}/form" if row["form_file"] else ""
    return row, ask.services.catalogue.version(row["definition"], row["definition_version"], otherwise)


def _step(ask: Ask, *, hold: bool = False) -> tuple[Row, Definition, Step]:
    row, definition = asked_for(ask, hold=hold)
    found = next((one for one in definition.step if one.id == ask.parts["step"]), None)
    if found is None:
        raise not_found()
    return row, definition, found


def _path(ask: Ask, row: Row) -> str:
    assert ask.space is not None
    return procedure.path(ask.space, row)


def head(ask: Ask, row: Row, definition: Definition) -> dict[str, Any]:
    """What every page of one says of it."""
    assert ask.space is not None
    return {
        "procedure": {
            **about(ask, {**row, **procedure.messages_of(ask.connection, row)}),
            **{name: row[name] for name in ("entry", "signature", "version", "form_sha256")},
        },
        "at": _path(ask, row),
        "to_correct": _to_correct(ask, row, definition),
        "reason": procedure.history(ask.connection, row)[0]["comment"] if row["status"] == "closed" else "",
        "may_send": "send" in PROCEDURE.allowed(row["status"]) and _may_sign(ask),
        "indicators": pieces.indicators(ask, row, definition),
        "offers": procedure.offers(row, may_fill=may_fill(ask.space)),
    }


def _next_step(ask: Ask, row: Row, definition: Definition) -> str:
    """'' also where it is nothing for the reader (SUB-02, SUB-03)."""
    assert ask.space is not None
    if "save" not in PROCEDURE.allowed(row["status"]):
        return ""
    found = judged.next_step(
        row,
        pieces.judged_of(ask, row, definition),
        is_whole=not check_whole(definition, row["answers"]),
        is_to_edit=correction.is_to_edit(ask.connection, row),
    )
    may = _may_sign(ask) if found in {"sign", "transfer", "send"} else may_fill(ask.space)
    return found if may else ""


def _to_correct(ask: Ask, row: Row, definition: Definition) -> list[dict[str, Any]]:
    """What was sent back, item by item (COR-03)."""
    if row["status"] != "to_be_corrected":
        return []
    return sent.items(ask, row, definition, row["transmissions"], _path(ask, row))


def _may_sign(ask: Ask) -> bool:
    assert ask.space is not None
    return SIGN in RIGHTS[ask.space["role"]] and ask.space["state"] == "active"


def _signing(ask: Ask, row: Row, definition: Definition) -> dict[str, Any]:
    """Who has signed, and what of signing is offered to the reader (SIG-11, SIG-16, SIG-17)."""
    may_sign = _may_sign(ask)
    signed = signing.all_counting(ask.connection, row)
    return {
        "may_sign": may_sign and signing.offers(row),
        "signed": [{name: one[name] for name in ("number", "given", "family", "time", "sha256")} for one in signed],
        "second_state": row["second_state"],
        "may_transfer": may_sign and transfer.may_transfer(row, definition),
        "may_recall": may_sign and row["second_state"] == "transferred",
        **transfer.standing(ask.connection, row),
    }


def _goes_on_at(ask: Ask, row: Row, definition: Definition) -> str:
    """
    Where "Continue the declaration" and "Edit" lead: the first field that was sent back and nobody has touched, else the step
    that was left, or the check page (COR-03, PROC-12).
    """
    at = _path(ask, row)
    if correction.is_to_edit(ask.connection, row):
        return next(str(one["href"]) for one in _to_correct(ask, row, definition) if one["kind"] == "field")
    if row["entry"] == "confirmed" or row["step"] == CHECK:
        return f"{at}/check"
    known = {one.id for one in draft.steps_shown(definition, row["answers"])}
    return f"{at}/steps/{row['step'] if row['step'] in known else definition.step[0].id}"


def _steps(ask: Ask, definition: Definition, row: Row, current: str) -> list[dict[str, Any]]:
    """The steps that ask anything, and the check."""
    found = [
        {"id": one.id, "title": one.title.in_(ask.language.code), "is_current": one.id == current}
        for one in draft.steps_shown(definition, row["answers"])
    ]
    return [*found, {"id": CHECK, "title": ask.language.text("Check and confirm"), "is_current": current == CHECK}]


def answer_parts(definition: Definition, row: Row, language: Language) -> list[dict[str, Any]]:
    """By step, each with what is asked of it now; the same as in the PDF."""
    return [
        {
            "id": step.step,
            "title": step.title,
            "answers": [
                {
                    "id": line.field,
                    "label": line.label,
                    "value": row["answers"].get(line.field, ""),
                    "shown": line.value,
                }
                for line in step.lines
            ],
        }
        for step in sheet(definition, row["answers"], language).steps
    ]


def _field(ask: Ask, one: Question, row: Row) -> dict[str, Any]:
    code = ask.language.code
    if one.type == "yes_no":
        choices = [["yes", ask.language.text("Yes")], ["no", ask.language.text("No")]]
    else:
        choices = [[choice.value, choice.label.in_(code)] for choice in one.choices]
    kind = KINDS.get(one.type)
    return {
        "id": one.id,
        "type": one.type,
        "input": kind.input if kind else "text",
        "label": one.label.in_(code),
        "hint": one.hint.in_(code) if one.hint else "",
        "origin": _origin(ask, row["origins"].get(one.id, "")),
        "required": one.required,
        "least": one.least,
        "most": one.most,
        "choices": choices,
        "is_select": len(choices) >= SELECT_FROM,
        "value": row["answers"].get(one.id, ""),
    }


def _origin(ask: Ask, origin: str) -> str:
    if not origin:
        return ""
    kind, _, name = origin.partition(":")
    if kind != "source":
        return ask.language.text(ORIGINS[origin])
    labels = {one.name: one.label_fr if ask.language.code == "fr" else one.label_en for one in ask.settings.source}
    return ask.language.text("Filled in from: {source}", source=labels.get(name, name))


_LIST = "/spaces/{space}/procedures"
_ONE = f"{_LIST}/{{reference}}"
ROUTES = (
    Route(
        "GET", _LIST, "procedures", listed, Level.TERMS,
        ("PROC-18", "ESP-31", "TRK-01", "TRK-02", "TRK-03", "TRK-04", "TRK-05", "TRK-06", "TRK-09"), right=READ,
    ),
    Route("GET", _ONE, "procedure", show, Level.TERMS, ("PROC-12", "PROC-15", "ESP-34"), right=READ),
    Route("GET", f"{_ONE}/history", "procedure-history", show_history, Level.TERMS, ("TRK-10", "ESP-33"), right=READ),
    Route("GET", f"{_ONE}/form", "view-form", show_form, Level.TERMS, ("PROC-13", "SIG-12"), right=READ),
    Route("GET", f"{_ONE}/form/download", "download-form", download_form, Level.TERMS, ("SIG-12",), right=READ),
    Route(
        "GET", f"{_ONE}/steps/{{step}}", "step", show_step, Level.TERMS, ("PROC-09", "PROC-10", "PROC-12", "PROC-14"),
        right=FILL,
    ),
    Route(
        "POST", f"{_ONE}/steps/{{step}}", "save-step", save_step, Level.TERMS,
        ("PROC-09", "PROC-10", "PROC-11", "PROC-14", "PROC-19", "ESP-29"), right=FILL,
    ),
    Route("GET", f"{_ONE}/check", "check", show_check, Level.TERMS, ("PROC-13",), right=FILL),
    Route("POST", f"{_ONE}/check", "confirm-entry", confirm, Level.TERMS, ("PROC-13",), right=FILL, before=render),
    Route("GET", f"{_ONE}/copy", "procedure-copy", show_copy, Level.TERMS, ("PROC-16", "PROC-20"), right=FILL),
    Route("POST", f"{_ONE}/copy", "copy-procedure", copy, Level.TERMS, ("PROC-16", "PROC-20"), right=FILL),
    Route("GET", f"{_ONE}/delete", "procedure-deletion", show_deletion, Level.TERMS, ("PROC-17", "UI-06"), right=FILL),
    Route("POST", f"{_ONE}/delete", "delete-procedure", delete, Level.TERMS, ("PROC-17",), right=FILL),
)  # fmt: skip
FORMS = {
    "save-step": "step",
    "confirm-entry": "check",
    "copy-procedure": "procedure-copy",
    "delete-procedure": "procedure-deletion",
}
