"""The tab "Attachments" of a procedure: what is there, adding from the computer or the archive, looking, removing (ATT-01 to ATT-11)."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from portal_adapter.definitions.definition import Definition
from portal_adapter.domain import archive, attachment
from portal_adapter.domain.actor import FILL, READ
from portal_adapter.domain.procedure import Row, path
from portal_adapter.files import names, sniff
from portal_adapter.files.examine import examine
from portal_adapter.files.examined import CLEAN
from portal_adapter.web.answer import Answer, Download, Page, Redirect
from portal_adapter.web.ask import Ask, Uploaded
from portal_adapter.web.pages import page_of
from portal_adapter.web.route import Level, Look, Route
from portal_adapter.web.views import pieces
from portal_adapter.web.views.procedures import asked_for, head, row_of

if TYPE_CHECKING:
    from portal_adapter.app import Services


def show(ask: Ask) -> Answer:
    row, definition = asked_for(ask)
    return Page("procedure_attachments.html", {**head(ask, row, definition), **pieces.parts(ask, row, definition)})


# ---- adding


def show_add(ask: Ask) -> Answer:
    row, definition = asked_for(ask)
    return _form(ask, row, definition, None)


def show_slot(ask: Ask) -> Answer:
    row, definition = asked_for(ask)
    found = attachment.of_procedure(ask.connection, row)
    return _form(ask, row, definition, attachment.slot_of(definition, row, found, ask.parts["slot"]))


def _form(ask: Ask, row: Row, definition: Definition, slot: attachment.Slot | None) -> Answer:
    """Both sources on one page; `slot` is None for an optional one."""
    assert ask.space is not None
    attachment.check_attachable(row, ask.settings)
    found = attachment.of_procedure(ask.connection, row)
    count = archive.count(ask.connection, ask.space["id"])
    page, pages = page_of(ask, count, archive.PAGE)
    documents = [
        {
            **{name: one[name] for name in ("id", "name", "type", "size", "added", "scan")},
            "type_name": ask.language.text(archive.TYPES[one["type"]]),
            "is_offered": one["scan"] == CLEAN,
        }
        for one in archive.listed(ask.connection, ask.space["id"], page)
    ]
    filled = slot.filled if slot is not None else None
    is_swap = filled is not None
    used = attachment.used(found)
    data = {
        **head(ask, row, definition),
        "slot": None if slot is None else {"type": slot.type, "label": slot.piece.label.in_(ask.language.code)},
        "replaces": filled["id"] if filled is not None else "",
        "replaced": filled["name"] if filled is not None else "",
        "types": attachment.types(definition, ask.language),
        "has_room": is_swap or used < ask.settings.limits.attachments,
        "accept": ",".join(ending for endings in names.ENDINGS.values() for ending in endings),
        "name_most": ask.settings.limits.document_name,
        "documents": documents, "count": count, "page": page, "pages": pages,
        **pieces.room(ask, used),
    }  # fmt: skip
    return Page("procedure_attach.html", data)


def _admit(ask: Ask) -> None:
    row, definition = asked_for(ask)
    attachment.check_attachable(row, ask.settings)
    if "slot" in ask.parts:
        attachment.slot_of(definition, row, attachment.of_procedure(ask.connection, row), ask.parts["slot"])


def _look(*, in_slot: bool) -> Look:
    def look(services: "Services", form: Mapping[str, str], files: Mapping[str, Uploaded]) -> Mapping[str, Uploaded]:
        file = files.get(sniff.FIELD)
        chosen = file if file is not None and file.name else None  # a browser sends an empty one where none is chosen
        name = None if chosen is None else chosen.name
        attachment.check_form(form, name, services.settings.limits, in_slot=in_slot)
        assert chosen is not None
        return {sniff.FIELD: replace(chosen, found=examine(chosen.path, services.settings, services.blobs))}

    return look


def add(ask: Ask) -> Answer:
    row, definition = _held(ask)
    given = attachment.of_list(definition, ask.form, _name(ask, in_slot=False), _kept(ask))
    attachment.add(ask.connection, ask.actor, row, _at(ask, row), given, ask.settings)
    _keep_in_archive(ask, given)
    return _done(ask, row)


def add_from_archive(ask: Ask) -> Answer:
    row, _ = _held(ask)
    attachment.add(ask.connection, ask.actor, row, _at(ask, row), _copied(ask, row), ask.settings)
    return _done(ask, row)


def fill(ask: Ask) -> Answer:
    row, definition = _held(ask)
    slot = ask.parts["slot"]
    given = attachment.Given(slot, slot, _name(ask, in_slot=True), _kept(ask))
    _fill(ask, row, definition, given)
    _keep_in_archive(ask, given)
    return _done(ask, row)


def fill_from_archive(ask: Ask) -> Answer:
    row, definition = _held(ask)
    _fill(ask, row, definition, _copied(ask, row))
    return _done(ask, row)


def _fill(ask: Ask, row: Row, definition: Definition, given: attachment.Given) -> None:
    gone = attachment.fill(
        ask.connection, ask.actor, row, _at(ask, row), definition, ask.parts["slot"], ask.form.get("replaces", ""),
        given, ask.settings,
    )  # fmt: skip
    for blob in gone:
        ask.after.append(partial(ask.services.blobs.remove, blob))


def _held(ask: Ask) -> tuple[Row, Definition]:
    row, definition = asked_for(ask, hold=True)
    attachment.check_attachable(row, ask.settings)
    return row, definition


def _name(ask: Ask, *, in_slot: bool) -> str:
    return attachment.check_form(ask.form, ask.files[sniff.FIELD].name, ask.settings.limits, in_slot=in_slot)


def _kept(ask: Ask) -> Mapping[str, Any]:
    """The bytes have their name from here on, unless the transaction is taken back."""
    file = ask.files[sniff.FIELD]
    assert file.found is not None  # _look
    return {
        "media_type": file.found.media_type, "size": file.size, "sha256": file.sha256, "file": _blob(ask, file),
        **archive.of_scan(file.found, ask.now),
    }  # fmt: skip


def _copied(ask: Ask, row: Row) -> attachment.Given:
    """Under a name of its own, too."""
    given = attachment.of_archive(ask.connection, row, ask.form)
    blob = ask.services.blobs.copy(given.content["file"])
    ask.undo.append(partial(ask.services.blobs.remove, blob))
    return replace(given, content={**given.content, "file": blob})


def _keep_in_archive(ask: Ask, given: attachment.Given) -> None:
    """Where the box is ticked: a document of its own, whose bytes have a name of their own (ESP-36)."""
    if ask.form.get("archive") != "yes":
        return
    assert ask.space is not None
    file = ask.files[sniff.FIELD]
    assert file.found is not None
    form = {"type": given.type if given.type in archive.TYPES else "other", "name": given.name}
    archive.add(
        ask.connection, ask.actor, ask.space, form, file.name, _blob(ask, file), file.size, file.sha256, file.found,
        ask.settings.limits,
    )  # fmt: skip


def _blob(ask: Ask, file: Uploaded) -> str:
    blob = ask.services.blobs.keep(file.path)
    ask.undo.append(partial(ask.services.blobs.remove, blob))
    return blob


def _done(ask: Ask, row: Row) -> Answer:
    return Redirect(f"{_at(ask, row)}/attachments", notice="attachment-added")


def _at(ask: Ask, row: Row) -> str:
    assert ask.space is not None
    return path(ask.space, row)


# ---- looking and removing


def view(ask: Ask) -> Answer:
    return _download(ask, inline=True)


def download(ask: Ask) -> Answer:
    return _download(ask, inline=False)


def _download(ask: Ask, *, inline: bool) -> Answer:
    row = row_of(ask)
    found = attachment.readable(ask.connection, ask.actor, row, ask.parts["attachment"])
    name = names.for_download(found["name"], found["media_type"])
    return Download(ask.services.blobs.path(found["file"]), found["media_type"], name, inline)


def show_removal(ask: Ask) -> Answer:
    row, definition = asked_for(ask)
    found = attachment.of(ask.connection, row, ask.parts["attachment"])
    attachment.check_removable(row, ask.settings)
    told = {name: found[name] for name in ("id", "name", "added")}
    return Page("procedure_attachment_removal.html", {**head(ask, row, definition), "attachment": told})


def remove(ask: Ask) -> Answer:
    row = row_of(ask, hold=True)
    for blob in attachment.remove(ask.connection, ask.actor, row, ask.parts["attachment"], ask.form, ask.settings):
        ask.after.append(partial(ask.services.blobs.remove, blob))
    return Redirect(f"{_at(ask, row)}/attachments", notice="attachment-removed")


_TAB = "/spaces/{space}/procedures/{reference}/attachments"
_SLOT = f"{_TAB}/slots/{{slot}}"
_ONE = f"{_TAB}/{{attachment}}"
ROUTES = (
    Route("GET", _TAB, "attachments", show, Level.TERMS, ("ATT-02", "ATT-03", "ATT-11", "SUB-02"), right=READ),
    Route("GET", f"{_TAB}/add", "new-attachment", show_add, Level.TERMS, ("ATT-02", "ATT-04"), right=FILL),
    Route(
        "POST", f"{_TAB}/add", "add-attachment", add, Level.TERMS,
        ("ATT-01", "ATT-02", "ATT-05", "ATT-07", "ATT-09", "ATT-10", "ESP-36"), right=FILL, upload=_look(in_slot=False),
        admit=_admit,
    ),
    Route(
        "POST", f"{_TAB}/add/archive", "add-from-archive", add_from_archive, Level.TERMS, ("ATT-02", "ATT-04", "ATT-06"),
        right=FILL,
    ),
    Route("GET", _SLOT, "slot", show_slot, Level.TERMS, ("ATT-03", "ATT-04"), right=FILL),
    Route(
        "POST", _SLOT, "fill-slot", fill, Level.TERMS,
        ("ATT-01", "ATT-03", "ATT-05", "ATT-07", "ATT-09", "ATT-10", "ESP-36"), right=FILL, upload=_look(in_slot=True),
        admit=_admit,
    ),
    Route(
        "POST", f"{_SLOT}/archive", "fill-slot-from-archive", fill_from_archive, Level.TERMS,
        ("ATT-03", "ATT-04", "ATT-06"), right=FILL,
    ),
    Route("GET", _ONE, "view-attachment", view, Level.TERMS, ("ATT-10", "ESP-34"), right=READ),
    Route("GET", f"{_ONE}/download", "download-attachment", download, Level.TERMS, ("ATT-10", "ESP-34"), right=READ),
    Route("GET", f"{_ONE}/remove", "attachment-removal", show_removal, Level.TERMS, ("ATT-08",), right=FILL),
    Route("POST", f"{_ONE}/remove", "remove-attachment", remove, Level.TERMS, ("ATT-07", "ATT-08"), right=FILL),
)  # fmt: skip
FORMS = {
    "add-attachment": "new-attachment",
    "add-from-archive": "new-attachment",
    "fill-slot": "slot",
    "fill-slot-from-archive": "slot",
    "remove-attachment": "attachment-removal",
}
