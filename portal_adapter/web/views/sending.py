"""Sending a procedure, and what was sent (SUB-01 to SUB-08)."""

from typing import Any

from portal_adapter.definitions.definition import Definition
from portal_adapter.domain import attachment, information, sending, transmission
from portal_adapter.domain.actor import FILL, READ, SIGN
from portal_adapter.domain.announcing import Announcing
from portal_adapter.domain.fields import Fields
from portal_adapter.domain.procedure import PROCEDURE, Row, path
from portal_adapter.domain.space import check_active, may_fill
from portal_adapter.web.answer import Answer, Page, Redirect
from portal_adapter.web.ask import Ask
from portal_adapter.web.route import Level, Route
from portal_adapter.web.views import sent as parts
from portal_adapter.web.views.procedures import answer_parts, asked_for, head, row_of


def announcing(ask: Ask) -> Announcing:
    return Announcing(ask.settings.portal.origin, ask.settings.mail.announce)


def show(ask: Ask) -> Answer:
    """Every indicator, and the button where all are green."""
    assert ask.space is not None
    row, definition = asked_for(ask)
    PROCEDURE.target(row["status"], "send")
    missing = sending.missing(ask.connection, row, definition, path(ask.space, row), ask.language.code)
    data = {
        **head(ask, row, definition),
        "version": row["version"],
        "unmet": [
            {"code": one.code, "message": ask.language.text(one.message, **(one.values or {})), "href": one.href}
            for one in missing
        ],
        "attached": [one["name"] for one in attachment.of_procedure(ask.connection, row)],
        "service": _service(ask, row, definition),
    }
    return Page("procedure_sending.html", data)


def send(ask: Ask) -> Answer:
    assert ask.space is not None
    row, definition = asked_for(ask, hold=True)
    PROCEDURE.target(row["status"], "send")
    fields = Fields(ask.form)
    seen = fields.version()
    fields.check()
    at, administrations = path(ask.space, row), ask.services.catalogue.administrations
    number = sending.send(
        ask.connection, ask.actor, row, definition, administrations, announcing(ask), at=at, seen=seen,
        language=ask.language.code, has_back_end=ask.services.settings.back_end is not None,
    )  # fmt: skip
    return Redirect(f"{at}/transmissions/{number}", notice="procedure-sent")


def show_transmission(ask: Ask) -> Answer:
    """Also the receipt: what was received when, by whom, and how they are reached (SUB-08)."""
    row, definition, sent = _sent(ask)
    data = {
        **head(ask, row, definition),
        "transmission": parts.about(sent),
        "answers": answer_parts(definition, sent, ask.language),
        "pieces": parts.pieces(definition, sent, ask.language.code),
        "items": parts.items(ask, row, definition, sent["number"]),
        "service": _service(ask, row, definition),
        "differing": _differing(ask, definition, sent),
        "information_version": information.version_of_all(ask.connection, ask.space) if ask.space else 0,
    }
    return Page("procedure_transmission.html", data)


def keep(ask: Ask) -> Answer:
    """What was sent and differs goes into My information, unless it was unticked (ESP-30)."""
    assert ask.space is not None
    row, definition, sent = _sent(ask)
    check_active(ask.space)
    found = information.differing(ask.connection, ask.space, definition, sent["answers"])
    fields = Fields(ask.form)
    seen = fields.version()
    wanted = {item.key: value for item, _, value in found if ask.form.get(f"item_{item.key}") == "yes"}
    if not wanted:
        fields.refuse("items", "required", "Tick what is to be saved.")
    fields.check()
    information.take(ask.connection, ask.actor, ask.space, wanted, seen)
    return Redirect(f"{path(ask.space, row)}/transmissions/{sent['number']}", notice="information-saved")


def _differing(ask: Ask, definition: Definition, sent: Row) -> list[dict[str, str]]:
    """Offered to who may change My information."""
    assert ask.space is not None
    if not may_fill(ask.space):
        return []
    return [
        {"item": item.key, "label": ask.language.text(item.label), "now": now, "sent": value}
        for item, now, value in information.differing(ask.connection, ask.space, definition, sent["answers"])
    ]


def show_form(ask: Ask) -> Answer:
    row, sent = _sent_row(ask)
    return parts.form(ask, row, sent)


def show_piece(ask: Ask) -> Answer:
    row, sent = _sent_row(ask)
    return parts.piece(ask, row, sent)


def _sent(ask: Ask) -> tuple[Row, Definition, Row]:
    row, definition = asked_for(ask)
    return row, definition, _sent_row(ask)[1]


def _sent_row(ask: Ask) -> tuple[Row, Row]:
    row = row_of(ask)
    return row, transmission.of(ask.connection, row, transmission.number_of(ask.parts["number"]))


def _service(ask: Ask, row: Row, definition: Definition) -> dict[str, Any]:
    found, code = ask.services.catalogue.administrations[sending.in_charge(row, definition)], ask.language.code
    return {"name": found.name.in_(code), "reach": found.reach.in_(code)}


_ONE = "/spaces/{space}/procedures/{reference}"
_SENT = f"{_ONE}/transmissions/{{number}}"
ROUTES = (
    Route("GET", f"{_ONE}/sending", "sending", show, Level.TERMS, ("SUB-02", "SUB-03", "UI-06"), right=READ),
    Route(
        "POST", f"{_ONE}/sending", "send-procedure", send, Level.TERMS, ("SUB-03", "SUB-04", "SUB-06", "COR-05"),
        right=SIGN,
    ),
    Route("GET", _SENT, "transmission", show_transmission, Level.TERMS, ("SUB-07", "SUB-08", "ESP-32"), right=READ),
    Route("POST", _SENT, "keep-information", keep, Level.TERMS, ("ESP-30",), right=FILL),
    Route("GET", f"{_SENT}/form", "transmission-form", show_form, Level.TERMS, ("SUB-07",), right=READ),
    Route("GET", f"{_SENT}/pieces/{{position}}", "transmission-piece", show_piece, Level.TERMS, ("SUB-07",), right=READ),
)  # fmt: skip
FORMS = {"send-procedure": "sending", "keep-information": "transmission"}
