"""What pages and JSON show of what was sent and what became of it, alike in a space and on the desk."""

from typing import Any

from portal_adapter.definitions.definition import Definition
from portal_adapter.domain import correction, message, transmission
from portal_adapter.domain.procedure import STATUSES, VOIDED, Row
from portal_adapter.files import names
from portal_adapter.files.sniff import PDF
from portal_adapter.web.answer import Download
from portal_adapter.web.ask import Ask
from portal_adapter.web.pages import page_of


def about(one: Row) -> dict[str, Any]:
    """A transmission in a list."""
    return {**{name: one[name] for name in ("number", "time", "sha256")}, "by": f"{one['given']} {one['family']}"}


def pieces(definition: Definition, sent: Row, code: str) -> list[dict[str, Any]]:
    labels = {one.type: one.label.in_(code) for one in definition.piece}
    told = ("position", "name", "media_type", "size", "sha256")
    return [{**{name: one[name] for name in told}, "type": labels.get(one["type"], "")} for one in sent["pieces"]]


def items(ask: Ask, row: Row, definition: Definition, number: int, at: str = "") -> list[dict[str, Any]]:
    """What is to be corrected; with `at`, the procedure's page, each leads to where that is done (COR-03)."""
    found = []
    steps = {question.id: step.id for step in definition.step for question in step.field}
    labels = {question.id: question.label.in_(ask.language.code) for question in definition.questions()}
    for one in correction.of(ask.connection, row, number):
        target = one["target"]
        if one["kind"] == "field":
            label, href = labels.get(target, target), f"{at}/steps/{steps[target]}#field-{target}"
        elif one["kind"] == "attachment":
            label, href = one["name"], f"{at}/attachments"
        else:
            label, href = ask.language.text("In general"), ""
        is_done = one["kind"] == "attachment" and not one["is_there"]
        found.append({
            "kind": one["kind"], "label": label, "comment": one["comment"], "href": href if at else "", "is_done": is_done,
        })  # fmt: skip
    return found


def history(ask: Ask, row: Row, lines: list[Row], *, on_desk: bool = False) -> list[dict[str, Any]]:
    """
    With the names of the reader's side: of the other one hears as of an office, or of an applicant. A request for correction
    has the `transmission` that it is of, and how many `points`.
    """
    asked = [
        one["id"]
        for one in reversed(lines)
        if (one["status"], one["side"]) == ("to_be_corrected", message.ADMINISTRATION)
    ]
    counts = dict(zip(asked, correction.counts(ask.connection, row), strict=False))
    return [
        {
            **{name: one[name] for name in ("time", "status", "side", "comment")},
            **({"comment": ask.language.text(VOIDED)} if one["comment"] == VOIDED else {}),
            "status_name": ask.language.text(STATUSES[one["status"]]),
            **dict(zip(("transmission", "points"), counts.get(one["id"], (0, 0)), strict=True)),
            "by": f"{one['given']} {one['family']}" if (one["side"] == message.ADMINISTRATION) is on_desk else "",
        }
        for one in lines
    ]


def messages(ask: Ask, row: Row, reader: str, *, is_read_only: bool = False) -> dict[str, Any]:
    """
    A page of them. What the reader's side has not opened yet shows its subject; where nothing may be changed, and so nothing
    can be noted as read, it is shown as it is.
    """
    count = message.count(ask.connection, row)
    page, pages = page_of(ask, count, message.PAGE)
    found = []
    for one in message.listed(ask.connection, row, page):
        is_own = one["side"] == reader
        is_new = not is_own and one["read"] is None
        found.append({
            **{name: one[name] for name in ("id", "time", "side", "subject", "read")},
            "body": "" if is_new and not is_read_only else one["body"],
            "is_new": is_new, "is_shut": is_new and not is_read_only,
            "by": one["by"] if is_own else "", "reader": "" if is_own else one["reader"],
        })  # fmt: skip
    return {"messages": found, "count": count, "page": page, "pages": pages}


def place_of(ask: Ask) -> str:
    """Which page of the messages one comes from, for the way back."""
    page = ask.query.get("page", "")
    return f"?page={page}" if page.isascii() and page.isdigit() else ""


def form(ask: Ask, row: Row, sent: Row, audited: str = "") -> Download:
    """The signed form, byte for byte (SIG-12)."""
    return _download(ask, row, sent, sent["file"], PDF, f"{row['reference']}-{sent['number']}.pdf", audited)


def piece(ask: Ask, row: Row, sent: Row, audited: str = "") -> Download:
    found = transmission.piece(sent, transmission.number_of(ask.parts["position"]))
    name = names.for_download(found["name"], found["media_type"])
    return _download(ask, row, sent, found["file"], found["media_type"], name, audited)


def _download(ask: Ask, row: Row, sent: Row, file: str, media_type: str, name: str, audited: str) -> Download:
    about = {"space": row["space"], "procedure": row["reference"], "transmission": sent["number"], "file": name}
    path = ask.services.blobs.path(file)
    return Download(path, media_type, name, inline=True, audited=(audited, about) if audited else None)
