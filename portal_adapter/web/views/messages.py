"""Messages of a procedure, as a space reads and writes them (MSG-01 to MSG-06)."""

from portal_adapter.definitions.definition import Definition
from portal_adapter.domain import message
from portal_adapter.domain.actor import FILL, READ
from portal_adapter.domain.message import APPLICANT
from portal_adapter.domain.procedure import PROCEDURE, Row, path
from portal_adapter.domain.space import may_fill
from portal_adapter.refusal import unmet
from portal_adapter.web.answer import Answer, Page, Redirect
from portal_adapter.web.ask import Ask
from portal_adapter.web.route import Level, Route
from portal_adapter.web.views import sent as parts
from portal_adapter.web.views.procedures import asked_for, head, row_of


def show(ask: Ask) -> Answer:
    """The tab "Messages"."""
    assert ask.space is not None
    row, definition = asked_for(ask)
    is_sent = "write" in PROCEDURE.allowed(row["status"])
    is_read_only = ask.space["state"] != "active"
    data = {
        **head(ask, row, definition), **parts.messages(ask, row, APPLICANT, is_read_only=is_read_only),
        "is_sent": is_sent, "takes_messages": definition.messaging,
        "may_write": is_sent and definition.messaging and may_fill(ask.space),
    }  # fmt: skip
    return Page("procedure_messages.html", data)


def show_new(ask: Ask) -> Answer:
    row, definition = asked_for(ask)
    _check(row, definition)
    limits = ask.settings.limits
    data = {
        **head(ask, row, definition), "subject_most": limits.message_subject, "body_most": limits.message_body,
    }  # fmt: skip
    return Page("procedure_message.html", data)


def write(ask: Ask) -> Answer:
    assert ask.space is not None
    row, definition = asked_for(ask, hold=True)
    _check(row, definition)
    message.write(ask.connection, ask.actor, row, APPLICANT, ask.form, ask.settings.limits)
    return Redirect(f"{path(ask.space, row)}/messages", notice="message-sent")


def open_(ask: Ask) -> Answer:
    assert ask.space is not None
    row = row_of(ask, hold=True)
    id_ = ask.parts["message"]
    message.open_(ask.connection, ask.actor, row, APPLICANT, id_)
    return Redirect(f"{path(ask.space, row)}/messages{parts.place_of(ask)}#message-{id_}")


def _check(row: Row, definition: Definition) -> None:
    """MSG-01."""
    message.check_sent(row)
    unmet(message.unmet_to_write(definition))


_ALL = "/spaces/{space}/procedures/{reference}/messages"
ROUTES = (
    Route("GET", _ALL, "messages", show, Level.TERMS, ("MSG-02", "MSG-04", "MSG-06", "TRK-09"), right=READ),
    Route("GET", f"{_ALL}/new", "new-message", show_new, Level.TERMS, ("MSG-01", "MSG-02", "MSG-03"), right=FILL),
    Route("POST", f"{_ALL}/new", "write-message", write, Level.TERMS, ("MSG-01", "MSG-03"), right=FILL),
    Route("POST", f"{_ALL}/{{message}}/open", "open-message", open_, Level.TERMS, ("MSG-04",), right=READ),
)
FORMS = {"write-message": "new-message", "open-message": "messages"}
