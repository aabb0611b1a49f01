"""The desk of an administration, for its agents (TRK-07, TRK-08, TRK-11)."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from portal_adapter.definitions.definition import Definition
from portal_adapter.domain import desk, message, transmission
from portal_adapter.domain.message import ADMINISTRATION
from portal_adapter.domain.procedure import STATUSES, Row
from portal_adapter.language import Language, msgid
from portal_adapter.refusal import not_found
from portal_adapter.web.answer import Answer, Page, Redirect
from portal_adapter.web.ask import Ask
from portal_adapter.web.pages import page_of
from portal_adapter.web.route import Level, Route
from portal_adapter.web.views import sent as parts
from portal_adapter.web.views.procedures import answer_parts, title_of
from portal_adapter.web.views.sending import announcing

FILTERS: Mapping[str, str] = {"": msgid("All"), **{name: STATUSES[name] for name in desk.SAID}}
READ_EVENT = "desk-download"


def listed(ask: Ask) -> Answer:
    narrowed = ask.query.get("status", "")
    if narrowed not in FILTERS:
        raise not_found()
    statuses = (narrowed,) if narrowed else tuple(desk.SAID)
    count = desk.count(ask.connection, ask.administration, statuses)
    page, pages = page_of(ask, count, desk.PAGE)
    rows = desk.listed(ask.connection, ask.administration, statuses, page, desk.PAGE)
    data = {
        "administration": _administration(ask),
        "procedures": [{**_about(ask, row), "sent": row["sent"], "unread": row["unread"]} for row in rows],
        "count": count, "page": page, "pages": pages, "narrowed": narrowed,
        "filters": {name: ask.language.text(label) for name, label in FILTERS.items()},
        "meanings": [[ask.language.text(STATUSES[one]), ask.language.text(said)] for one, said in desk.SAID.items()],
    }  # fmt: skip
    return Page("desk.html", data)


# ---- one of them


def show(ask: Ask) -> Answer:
    """What was sent last."""
    row, definition = _asked_for(ask)
    return _shown(ask, row, definition, row["transmissions"])


def show_transmission(ask: Ask) -> Answer:
    row, definition = _asked_for(ask)
    return _shown(ask, row, definition, transmission.number_of(ask.parts["number"]))


def _shown(ask: Ask, row: Row, definition: Definition, number: int) -> Answer:
    sent = transmission.of(ask.connection, row, number)
    listed = transmission.listed(ask.connection, row)
    earlier = [one["number"] for one in listed if one["number"] < number]
    before = transmission.of(ask.connection, row, max(earlier)) if earlier else None
    data = {
        **_head(ask, row),
        "changes": _changes(definition, before, sent, ask.language) if before is not None else None,
        "transmission": parts.about(sent),
        "transmissions": [parts.about(one) for one in listed],
        "answers": answer_parts(definition, sent, ask.language),
        "pieces": parts.pieces(definition, sent, ask.language.code),
        "items": parts.items(ask, row, definition, number),
    }
    return Page("desk_procedure.html", data)


def _changes(definition: Definition, before: Row, sent: Row, language: Language) -> dict[str, Any]:
    """What differs from one transmission to the next: answers, in the form's order, and attachments, by their bytes."""
    then, now = (
        {one["id"]: one for part in answer_parts(definition, each, language) for one in part["answers"]}
        for each in (before, sent)
    )
    pieces = [{one["sha256"]: one["name"] for one in each["pieces"]} for each in (before, sent)]
    return {
        "since": before["number"],
        "answers": [
            {"label": one["label"], "before": then.get(id_, {}).get("shown", ""), "now": now.get(id_, {}).get("shown", "")}
            for id_, one in {**now, **then}.items()
            if then.get(id_, {}).get("value") != now.get(id_, {}).get("value")
        ],
        "added": [name for sha256, name in pieces[1].items() if sha256 not in pieces[0]],
        "left_out": [name for sha256, name in pieces[0].items() if sha256 not in pieces[1]],
    }  # fmt: skip


def show_form(ask: Ask) -> Answer:
    row = _row(ask)
    sent = transmission.of(ask.connection, row, transmission.number_of(ask.parts["number"]))
    return parts.form(ask, row, sent, READ_EVENT)


def show_piece(ask: Ask) -> Answer:
    row = _row(ask)
    sent = transmission.of(ask.connection, row, transmission.number_of(ask.parts["number"]))
    return parts.piece(ask, row, sent, READ_EVENT)


def show_history(ask: Ask) -> Answer:
    row = _row(ask)
    lines = parts.history(ask, row, desk.history(ask.connection, row), on_desk=True)
    return Page("desk_history.html", {**_head(ask, row), "history": lines})


# ---- what an agent does


def accept(ask: Ask) -> Answer:
    row = _row(ask, hold=True)
    desk.accept(ask.connection, ask.actor, row, announcing(ask), ask.form)
    return Redirect(_path(row), notice="procedure-accepted")


def show_correction(ask: Ask) -> Answer:
    row, definition = _asked_for(ask)
    desk.check(row, "ask_correction")
    sent = transmission.of(ask.connection, row, row["transmissions"])
    data = {
        **_head(ask, row), "answers": answer_parts(definition, sent, ask.language),
        "pieces": parts.pieces(definition, sent, ask.language.code), "comment_most": ask.settings.limits.comment,
    }  # fmt: skip
    return Page("desk_correction.html", data)


def ask_correction(ask: Ask) -> Answer:
    row, definition = _asked_for(ask, hold=True)
    limits = ask.settings.limits
    desk.ask_correction(ask.connection, ask.actor, row, definition, announcing(ask), ask.form, limits)
    return Redirect(_path(row), notice="correction-asked")


def show_closing(ask: Ask) -> Answer:
    row = _row(ask)
    desk.check(row, "close")
    data = {
        **_head(ask, row), "needs_reason": row["status"] != "accepted", "comment_most": ask.settings.limits.comment,
    }  # fmt: skip
    return Page("desk_closing.html", data)


def close(ask: Ask) -> Answer:
    row, definition = _asked_for(ask, hold=True)
    limits = ask.settings.limits
    dropped = desk.close(ask.connection, ask.actor, row, definition, announcing(ask), ask.form, limits)
    for blob in dropped:
        ask.after.append(partial(ask.services.blobs.remove, blob))
    return Redirect(_path(row), notice="procedure-closed")


# ---- messages


def show_messages(ask: Ask) -> Answer:
    row = _row(ask)
    return Page("desk_messages.html", {**_head(ask, row), **parts.messages(ask, row, ADMINISTRATION)})


def show_new_message(ask: Ask) -> Answer:
    row, definition = _asked_for(ask)
    limits = ask.settings.limits
    data = {
        **_head(ask, row), "subject_most": limits.message_subject, "body_most": limits.message_body,
        "can_answer": definition.messaging,
    }  # fmt: skip
    return Page("desk_message.html", data)


def write(ask: Ask) -> Answer:
    """From the sending on, in every status (TRK-08)."""
    row = _row(ask, hold=True)
    message.write(ask.connection, ask.actor, row, ADMINISTRATION, ask.form, ask.settings.limits)
    announcing(ask).message(ask.connection, ask.actor, row)
    return Redirect(f"{_path(row)}/messages", notice="message-sent")


def open_message(ask: Ask) -> Answer:
    row = _row(ask, hold=True)
    id_ = ask.parts["message"]
    message.open_(ask.connection, ask.actor, row, ADMINISTRATION, id_)
    return Redirect(f"{_path(row)}/messages{parts.place_of(ask)}#message-{id_}")


# ---- what pages have in common


def _row(ask: Ask, *, hold: bool = False) -> Row:
    return desk.of(ask.connection, ask.administration, ask.parts["sent"], hold=hold)


def _asked_for(ask: Ask, *, hold: bool = False) -> tuple[Row, Definition]:
    row = _row(ask, hold=hold)
    otherwise = f"{_path(row)}/transmissions/{row['transmissions']}/form"
    return row, ask.services.catalogue.version(row["definition"], row["definition_version"], otherwise)


def _path(row: Row) -> str:
    return f"/desk/{row['reference']}"


def _administration(ask: Ask) -> str:
    found = ask.services.catalogue.administrations.get(ask.administration)
    return found.name.in_(ask.language.code) if found else ask.administration


def _about(ask: Ask, row: Row) -> dict[str, Any]:
    """Nothing that an edit of the applicant moves, as the version or the time of a save (SUB-01)."""
    return {
        **{name: row[name] for name in ("reference", "status", "updated", "transmissions", "applicant", "company")},
        "title": title_of(ask.services.catalogue, row, ask.language),
        "status_name": ask.language.text(STATUSES[row["status"]]),
        "status_said": ask.language.text(desk.SAID[row["status"]]),
    }


def _head(ask: Ask, row: Row) -> dict[str, Any]:
    return {
        "administration": _administration(ask),
        "procedure": {**_about(ask, row), "unread": message.unread(ask.connection, row, ADMINISTRATION)},
        "at": _path(row),
        "offers": desk.offers(row),
    }


_ONE = "/desk/{sent}"
_SENT = f"{_ONE}/transmissions/{{number}}"
_AGENT = Level.AGENT
ROUTES = (
    Route("GET", "/desk", "desk", listed, _AGENT, ("TRK-11", "SUB-01")),
    Route("GET", _ONE, "desk-procedure", show, _AGENT, ("TRK-11", "SUB-01")),
    Route("GET", _SENT, "desk-transmission", show_transmission, _AGENT, ("TRK-11", "SUB-07")),
    Route("GET", f"{_SENT}/form", "desk-form", show_form, _AGENT, ("TRK-11", "UI-08")),
    Route("GET", f"{_SENT}/pieces/{{position}}", "desk-piece", show_piece, _AGENT, ("TRK-11", "UI-08")),
    Route("GET", f"{_ONE}/history", "desk-history", show_history, _AGENT, ("TRK-10", "TRK-11")),
    Route("POST", f"{_ONE}/accept", "accept-procedure", accept, _AGENT, ("TRK-04", "TRK-07")),
    Route("GET", f"{_ONE}/correction", "desk-correction", show_correction, _AGENT, ("COR-03", "TRK-11")),
    Route("POST", f"{_ONE}/correction", "ask-correction", ask_correction, _AGENT, ("COR-02", "COR-03", "TRK-07")),
    Route("GET", f"{_ONE}/closing", "desk-closing", show_closing, _AGENT, ("TRK-06", "TRK-11")),
    Route("POST", f"{_ONE}/closing", "close-procedure", close, _AGENT, ("TRK-06", "TRK-07")),
    Route("GET", f"{_ONE}/messages", "desk-messages", show_messages, _AGENT, ("TRK-08", "MSG-06")),
    Route("GET", f"{_ONE}/messages/new", "desk-new-message", show_new_message, _AGENT, ("TRK-08", "MSG-03")),
    Route("POST", f"{_ONE}/messages/new", "desk-write-message", write, _AGENT, ("TRK-08", "MSG-03", "MSG-05")),
    Route("POST", f"{_ONE}/messages/{{message}}/open", "desk-open-message", open_message, _AGENT, ("MSG-04",)),
)
FORMS = {
    "accept-procedure": "desk-procedure",
    "ask-correction": "desk-correction",
    "close-procedure": "desk-closing",
    "desk-write-message": "desk-new-message",
    "desk-open-message": "desk-messages",
}
