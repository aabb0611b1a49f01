"""
The double signature: a procedure is transferred to another space by its identifier, and recalled; there it is listed, read,
signed by the same steps (signing.py) or refused (SIG-17).
"""

from portal_adapter.definitions.definition import Definition
from portal_adapter.domain import procedure, transfer
from portal_adapter.domain.actor import SIGN
from portal_adapter.domain.procedure import Row
from portal_adapter.domain.signing import Task
from portal_adapter.web.answer import Answer, Download, Page, Redirect
from portal_adapter.web.ask import Ask
from portal_adapter.web.pages import page_of
from portal_adapter.web.route import Level, Route
from portal_adapter.web.views.procedures import title_of
from portal_adapter.web.views.signing import task_of

# ---- the procedure's own space


def hand_over(ask: Ask) -> Answer:
    row, definition = _own(ask)
    identifier = ask.form.get("identifier", "")
    transfer.transfer(ask.connection, ask.actor, row, definition, identifier, ask.settings.portal)
    return Redirect(_at(ask, row), notice="procedure-transferred")


def recall(ask: Ask) -> Answer:
    row, definition = _own(ask)
    transfer.recall(ask.connection, ask.actor, row, definition)
    return Redirect(_at(ask, row), notice="procedure-recalled")


def _own(ask: Ask) -> tuple[Row, Definition]:
    assert ask.space is not None
    row = procedure.held(ask.connection, ask.space["id"], ask.parts["reference"])
    return row, ask.services.catalogue.version(row["definition"], row["definition_version"])


def _at(ask: Ask, row: Row) -> str:
    assert ask.space is not None
    return procedure.path(ask.space, row)


# ---- the other space


def listed(ask: Ask) -> Answer:
    assert ask.space is not None
    rows = [
        {
            **{name: one[name] for name in ("reference", "given", "family", "signed")},
            "title": title_of(ask.services.catalogue, one, ask.language),
        }
        for one in transfer.waiting(ask.connection, ask.space["id"])
    ]
    count = transfer.count_signed(ask.connection, ask.space["id"])
    page, pages = page_of(ask, count, procedure.PAGE)
    signed = [
        {
            **{name: one[name] for name in ("reference", "given", "family", "time")},
            "title": title_of(ask.services.catalogue, one, ask.language),
        }
        for one in transfer.signed(ask.connection, ask.space["id"], page)
    ]
    data = {"procedures": rows, "signed": signed, "count": count, "page": page, "pages": pages}
    return Page("transferred_list.html", data)


def show(ask: Ask) -> Answer:
    task = _task(ask)
    assert task.first is not None
    data = {
        "reference": task.row["reference"],
        "title": title_of(ask.services.catalogue, task.row, ask.language),
        "first": {name: task.first[name] for name in ("given", "family", "time", "sha256")},
        "is_hers": task.first["account"] == ask.actor.account,
        "at": task.at,
        "reason_most": transfer.REASON_CHARACTERS_MAX,
    }
    return Page("transferred.html", data, is_framing=True)


def document(ask: Ask) -> Answer:
    """What the first one has signed, or both have, read only."""
    assert ask.space is not None
    reference = ask.parts["transferred"]
    file = ask.services.blobs.path(transfer.document(ask.connection, ask.space["id"], reference))
    return Download(file, "application/pdf", f"{reference}.pdf", inline=True, is_framed=True)


def decline(ask: Ask) -> Answer:
    task = _task(ask, hold=True)
    transfer.decline(ask.connection, ask.actor, task, ask.form)
    return Redirect(task.at.rsplit("/", 1)[0], notice="signature-refused")


def _task(ask: Ask, *, hold: bool = False) -> Task:
    assert ask.space is not None
    return task_of(ask.connection, ask.services, ask.space, ask.parts, hold=hold)


_OWN, _SECOND = "/spaces/{space}/procedures/{reference}", "/spaces/{space}/signatures"
ROUTES = (
    Route("POST", f"{_OWN}/transfer", "transfer", hand_over, Level.TERMS, ("SIG-17",), SIGN),
    Route("POST", f"{_OWN}/recall", "recall", recall, Level.TERMS, ("SIG-17",), SIGN),
    Route("GET", _SECOND, "transferred-list", listed, Level.TERMS, ("SIG-17",), SIGN),
    Route("GET", f"{_SECOND}/{{transferred}}", "transferred", show, Level.TERMS, ("SIG-17",), SIGN),
    Route("GET", f"{_SECOND}/{{transferred}}/document", "transferred-document", document, Level.TERMS, ("SIG-12", "SIG-17"), SIGN),
    Route("POST", f"{_SECOND}/{{transferred}}/refuse", "second-refuse", decline, Level.TERMS, ("SIG-17",), SIGN),
)  # fmt: skip
FORMS = {"transfer": "procedure", "recall": "procedure", "second-refuse": "transferred"}
