"""
The document archive of a space: uploads that its members keep (ESP-36).

A document never changes; whoever wants another one adds it and deletes the old. While a scanner could not say that it is
clean, only who added it may have it; one that turns out to be malware is nobody's any more (ATT-10).
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from portal_adapter.domain import audit, kept, room
from portal_adapter.domain.actor import Actor
from portal_adapter.domain.fields import Fields
from portal_adapter.domain.ids import is_id, new_id
from portal_adapter.files import names, sniff
from portal_adapter.files.examined import CLEAN, ERROR, INFECTED, Examined
from portal_adapter.refusal import Refusal, guard, not_found
from portal_adapter.settings import Limits
from portal_adapter.store.schema import accounts, documents, spaces

# What a document may be, and how that is called: msgids.
TYPES: Mapping[str, str] = {
    "identity": "Identity document",
    "residence": "Certificate of residence",
    "civil_status": "Civil status certificate",
    "diploma": "Diploma or certificate of qualification",
    "payslip": "Payslip",
    "tax": "Tax document",
    "bank": "Bank document",
    "invoice": "Invoice",
    "contract": "Contract",
    "register": "Register extract",
    "articles": "Articles of association",
    "authorisation": "Authorisation or power of attorney",
    "other": "Other document",
}
PAGE = 50  # documents on one page
FIRST_RETRY_S = 60


def check_form(form: Mapping[str, str], file_name: str | None, limits: Limits) -> tuple[str, str]:
    """The type and the name that a form gives a file of `file_name`, None without one; raises `validation`."""
    fields = Fields(form)
    kind = fields.choice("type", TYPES)
    name = fields.text("name", most=limits.document_name, least=0)
    if file_name is None:
        fields.refuse(sniff.FIELD, "required", "Choose a file.")
    fields.check()
    return kind, name or names.cleaned(file_name or "", most=limits.document_name) or "document"


def add(
    connection: Connection,
    actor: Actor,
    space: Mapping[str, Any],
    form: Mapping[str, str],
    file_name: str,
    blob: str,
    size: int,
    sha256: str,
    examined: Examined,
    limits: Limits,
) -> str:
    """Answers the document's id. `blob` names its bytes in the blobs; `size` is in bytes."""
    kind, name = check_form(form, file_name, limits)
    connection.execute(select(spaces.c.id).where(spaces.c.id == space["id"]).with_for_update())
    if count(connection, space["id"]) >= limits.archive_documents:
        raise guard("archive-full", "The archive of this space is full: delete what you no longer need.")
    room.check(connection, actor, size, limits)
    document = new_id()
    connection.execute(
        insert(documents).values(
            id=document, space=space["id"], name=name, type=kind, media_type=examined.media_type, size=size,
            sha256=sha256, file=blob, **of_scan(examined, actor.now), added=actor.now, added_by=actor.account,
        )
    )  # fmt: skip
    audit.note(
        connection, actor.now, "document-added", account=actor.account, space=space["id"], address=actor.address,
        document=document, sha256=sha256, scan=examined.scan_note,
    )  # fmt: skip
    return document


def of_scan(examined: Examined, now: int) -> dict[str, Any]:
    """The columns that say what a scanner has found, and when it is asked again."""
    failed = examined.scan == ERROR
    return {
        "scan": examined.scan, "scan_note": examined.scan_note, "scan_tries": int(failed),
        "scan_next": now + FIRST_RETRY_S if failed else 0,
    }  # fmt: skip


def count(connection: Connection, space: str) -> int:
    return int(connection.execute(select(func.count()).where(documents.c.space == space)).scalar_one())


def listed(connection: Connection, space: str, page: int) -> list[Mapping[str, Any]]:
    """A page of them, counted from 1, the newest first, with `given` and `family` of who added it."""
    query = (
        select(documents, accounts.c.given, accounts.c.family)
        .join(accounts, accounts.c.id == documents.c.added_by)
        .where(documents.c.space == space)
        .order_by(documents.c.added.desc(), documents.c.id)
        .limit(PAGE)
        .offset((page - 1) * PAGE)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def of(connection: Connection, space: str, document: str) -> Mapping[str, Any]:
    """Raises `not-found`, for another space's too."""
    found = (documents.c.id == document) & (documents.c.space == space)
    row = connection.execute(select(documents).where(found)).mappings().first() if is_id(document) else None
    if row is None:
        raise not_found()
    return dict(row)


def readable(connection: Connection, actor: Actor, space: str, document: str) -> Mapping[str, Any]:
    """To be shown or downloaded; raises `not-found`, and as `check_readable`."""
    found = of(connection, space, document)
    check_readable(actor, found)
    return found


def check_readable(actor: Actor, found: Mapping[str, Any]) -> None:
    """Raise `rejected-content` for malware, and `guard-failed` before the scan is done."""
    if found["scan"] == INFECTED:
        raise Refusal("rejected-content", "Malware was found in this file. It was not kept.", reason="infected")
    if found["scan"] != CLEAN and found["added_by"] != actor.account:
        raise guard("not-scanned-yet", "This file is being checked for malware. Please come back in a few minutes.")


def remove(
    connection: Connection, actor: Actor, space: Mapping[str, Any], document: str, form: Mapping[str, str]
) -> list[str]:
    """Answers the names of bytes that go once this is committed. Raises `confirmation-required`, `not-found`."""
    found = of(connection, space["id"], document)
    if form.get("confirmed") != "yes":
        raise Refusal("confirmation-required", "Say that this document is to be deleted: it cannot be brought back.")
    if not connection.execute(delete(documents).where(documents.c.id == document)).rowcount:
        raise not_found()  # somebody else was quicker
    audit.note(
        connection, actor.now, "document-removed", account=actor.account, space=space["id"], address=actor.address,
        document=document, sha256=found["sha256"],
    )  # fmt: skip
    return kept.unnamed(connection, [found["file"]])
