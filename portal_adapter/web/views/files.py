"""My files: the newest procedures of a space, and its document archive (ESP-31, ESP-36)."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from portal_adapter.domain import archive
from portal_adapter.domain.actor import FILL, READ
from portal_adapter.domain.space import may_fill
from portal_adapter.files import names, sniff
from portal_adapter.files.examine import examine
from portal_adapter.files.examined import CLEAN, INFECTED
from portal_adapter.web.answer import Answer, Download, Page, Redirect
from portal_adapter.web.ask import Ask, Uploaded
from portal_adapter.web.pages import page_of
from portal_adapter.web.route import Level, Route
from portal_adapter.web.views.procedures import newest, to_sign

if TYPE_CHECKING:
    from portal_adapter.app import Services


def show(ask: Ask) -> Answer:
    assert ask.space is not None
    count = archive.count(ask.connection, ask.space["id"])
    page, pages = page_of(ask, count, archive.PAGE)
    rows = archive.listed(ask.connection, ask.space["id"], page)
    data = {
        "procedures": newest(ask), "to_sign": to_sign(ask), "documents": [_about(ask, row) for row in rows],
        "count": count, "page": page, "pages": pages,
        "may_fill": may_fill(ask.space), "types": {code: ask.language.text(label) for code, label in archive.TYPES.items()},
        "accept": ",".join(ending for endings in names.ENDINGS.values() for ending in endings),
        "most_kb": ask.settings.limits.document_bytes // 1024, "name_most": ask.settings.limits.document_name,
    }  # fmt: skip
    return Page("files.html", data)


def look(services: "Services", form: Mapping[str, str], files: Mapping[str, Uploaded]) -> Mapping[str, Uploaded]:
    file = files.get(sniff.FIELD)
    chosen = file if file is not None and file.name else None  # a browser sends an empty one where none is chosen
    archive.check_form(form, None if chosen is None else chosen.name, services.settings.limits)
    assert chosen is not None
    found = examine(chosen.path, services.settings, services.blobs)
    return {sniff.FIELD: replace(chosen, found=found)}


def add(ask: Ask) -> Answer:
    assert ask.space is not None
    file = ask.files[sniff.FIELD]
    assert file.found is not None  # look
    kept = ask.services.blobs.keep(file.path)
    ask.undo.append(partial(ask.services.blobs.remove, kept))
    archive.add(
        ask.connection, ask.actor, ask.space, ask.form, file.name, kept, file.size, file.sha256, file.found,
        ask.settings.limits,
    )  # fmt: skip
    return Redirect(_path(ask), notice="document-added")


def view(ask: Ask) -> Answer:
    return _download(ask, inline=True)


def download(ask: Ask) -> Answer:
    return _download(ask, inline=False)


def show_deletion(ask: Ask) -> Answer:
    assert ask.space is not None
    found = archive.of(ask.connection, ask.space["id"], ask.parts["document"])
    return Page("document_deletion.html", {"document": {name: found[name] for name in ("id", "name", "added")}})


def remove(ask: Ask) -> Answer:
    assert ask.space is not None
    for blob in archive.remove(ask.connection, ask.actor, ask.space, ask.parts["document"], ask.form):
        ask.after.append(partial(ask.services.blobs.remove, blob))
    return Redirect(_path(ask), notice="document-removed")


def _download(ask: Ask, *, inline: bool) -> Answer:
    assert ask.space is not None
    found = archive.readable(ask.connection, ask.actor, ask.space["id"], ask.parts["document"])
    name = names.for_download(found["name"], found["media_type"])
    return Download(ask.services.blobs.path(found["file"]), found["media_type"], name, inline)


def _path(ask: Ask) -> str:
    assert ask.space is not None
    return f"/spaces/{ask.space['identifier']}/files"


def _about(ask: Ask, row: Mapping[str, Any]) -> dict[str, Any]:
    """What pages and JSON show of a document."""
    told = ("id", "name", "type", "media_type", "size", "added")
    return {
        **{name: row[name] for name in told},
        "by": f"{row['given']} {row['family']}",
        "scan": row["scan"],
        "readable": row["scan"] == CLEAN or (row["added_by"] == ask.actor.account and row["scan"] != INFECTED),
    }


ROUTES = (
    Route("GET", "/spaces/{space}/files", "files", show, Level.TERMS, ("ESP-20", "ESP-31", "ESP-36"), right=READ),
    Route(
        "POST", "/spaces/{space}/files", "add-document", add, Level.TERMS, ("ESP-36", "ATT-09", "ATT-10"), right=FILL,
        upload=look,
    ),
    Route("GET", "/spaces/{space}/files/{document}", "view-document", view, Level.TERMS, ("ESP-36",), right=READ),
    Route(
        "GET", "/spaces/{space}/files/{document}/download", "download-document", download, Level.TERMS, ("ESP-36",),
        right=READ,
    ),
    Route(
        "GET", "/spaces/{space}/files/{document}/delete", "document-deletion", show_deletion, Level.TERMS, ("ESP-36",),
        right=FILL,
    ),
    Route(
        "POST", "/spaces/{space}/files/{document}/delete", "delete-document", remove, Level.TERMS, ("ESP-36",),
        right=FILL,
    ),
)  # fmt: skip
FORMS = {"add-document": "files", "delete-document": "document-deletion"}
