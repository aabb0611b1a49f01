"""
My information: data that is used again and again, each of a kind, kept by the space (ESP-26, ESP-27).

Items stand in groups, and a group is changed as a whole: its version is the sum of its items', so that whoever has seen an
older one is told. An item that was emptied keeps its row, and with it its version, but no value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from portal_adapter.definitions.definition import Definition
from portal_adapter.domain import audit
from portal_adapter.domain.actor import Actor
from portal_adapter.domain.fields import Fields
from portal_adapter.domain.kinds import KINDS
from portal_adapter.domain.space import hold
from portal_adapter.refusal import Refusal, not_found
from portal_adapter.store.schema import information

PRIVATE, BUSINESS = frozenset({"private"}), frozenset({"business"})
EVERY = PRIVATE | BUSINESS
SOURCE_FIELD = "source."  # what an authentic source says, where somebody posts it all the same


@dataclass(frozen=True, slots=True)
class Item:
    """`label` is a msgid; `most` counts characters as they are typed; `spaces` are the kinds of space that have it."""

    key: str
    group: str
    kind: str  # of KINDS
    label: str
    most: int
    spaces: frozenset[str] = EVERY
    autocomplete: str = ""  # HTML's token, where it is a person's own (WCAG 1.3.5)


GROUPS: Mapping[str, str] = {
    "identity": "Identity",
    "address": "Address",
    "contact": "Contact",
    "bank": "Bank account",
}
ITEMS = (
    Item("birth_date", "identity", "date", "Date of birth", 10, PRIVATE, "bday"),
    Item("birth_place", "identity", "text", "Place of birth", 100, PRIVATE),
    Item("birth_country", "identity", "country", "Country of birth", 2, PRIVATE),
    Item("nationality", "identity", "country", "Country of nationality", 2, PRIVATE),
    Item("profession", "identity", "text", "Profession", 100, PRIVATE, "organization-title"),
    Item("activity", "identity", "text", "Activity", 200, BUSINESS),
    Item("vat", "identity", "vat", "VAT number", 20, BUSINESS),
    Item("founded", "identity", "date", "Date of foundation", 10, BUSINESS),
    Item("street", "address", "text", "Street and number", 200, autocomplete="street-address"),
    Item("address_more", "address", "text", "More of the address", 200),
    Item("postal_code", "address", "postal_code", "Postal code", 12, autocomplete="postal-code"),
    Item("locality", "address", "text", "Locality", 100, autocomplete="address-level2"),
    Item("country", "address", "country", "Country", 2, autocomplete="country"),
    Item("contact_name", "contact", "text", "Contact person", 200, BUSINESS),
    Item("contact_email", "contact", "email", "E-mail address", 254, autocomplete="email"),
    Item("phone", "contact", "phone", "Telephone", 30, autocomplete="tel"),
    Item("mobile", "contact", "phone", "Mobile telephone", 30, PRIVATE),
    Item("account_holder", "bank", "text", "Account holder", 140),  # as in a transfer: ISO 20022, Max140Text
    Item("iban", "bank", "iban", "IBAN", 42),  # 34 characters, and a blank after each four
    Item("bic", "bank", "bic", "BIC", 11),
)


def groups_of(space: Mapping[str, Any]) -> list[str]:
    """Those that this kind of space has."""
    return [group for group in GROUPS if _items(space, group)]


def items_of(space: Mapping[str, Any], group: str) -> list[Item]:
    """Raises `not-found` for a group that there is not."""
    found = _items(space, group)
    if not found:
        raise not_found()
    return found


def values(connection: Connection, space: str) -> dict[str, str]:
    """Item -> value, of those that have one."""
    return {row["item"]: row["value"] for row in _rows(connection, space) if row["value"]}


def version_of(connection: Connection, space: Mapping[str, Any], group: str) -> int:
    """Grows with every change of the group; 0 before the first."""
    keys = {item.key for item in items_of(space, group)}
    return sum(row["version"] for row in _rows(connection, space["id"]) if row["item"] in keys)


def version_of_all(connection: Connection, space: Mapping[str, Any]) -> int:
    """The same of everything."""
    return sum(row["version"] for row in _rows(connection, space["id"]))


def differing(
    connection: Connection, space: Mapping[str, Any], definition: Definition, answers: Mapping[str, str]
) -> list[tuple[Item, str, str]]:
    """
    What a form says otherwise than the space does: each item with the space's value, '' for none, and the form's. What is
    no value of the item is left out (ESP-30).
    """
    own = values(connection, space["id"])
    items = {item.key: item for item in ITEMS if space["kind"] in item.spaces}
    found = {}
    for question in definition.questions():
        item, text = items.get(question.prefill or ""), answers.get(question.id, "")
        value = KINDS[item.kind].read(text) if item is not None and text and len(text) <= item.most else None
        if item is not None and value and value != own.get(item.key, ""):
            found[item.key] = (item, own.get(item.key, ""), value)
    return list(found.values())


def take(
    connection: Connection, actor: Actor, space: Mapping[str, Any], wanted: Mapping[str, str], seen: int
) -> list[str]:
    """Values of several groups at once; `seen` is `version_of_all`. Answers the keys; raises `stale`."""
    hold(connection, space["id"])
    rows = {row["item"]: row for row in _rows(connection, space["id"])}
    if sum(row["version"] for row in rows.values()) != seen:
        raise _stale()
    for key, value in wanted.items():
        _write(connection, actor, space["id"], key, value, rows.get(key))
    _note(connection, actor, space, list(wanted))
    return list(wanted)


def save(
    connection: Connection, actor: Actor, space: Mapping[str, Any], group: str, form: Mapping[str, str]
) -> list[str]:
    """
    The group's items as `form` has them, an empty one is taken away; `version` is the one that was seen. Answers the keys
    of what has changed. Raises `validation` and `stale`.
    """
    items = items_of(space, group)
    fields = Fields(form)
    wanted = {item.key: _read(fields, item) for item in items}
    for name in form.keys() - wanted.keys() - {"version"}:
        if name.startswith(SOURCE_FIELD):
            fields.refuse(name, "read-only", "This comes from an authority, and cannot be changed here.")
        else:
            fields.refuse(name, "unknown", "There is no such field here.")
    seen = fields.version()
    fields.check()
    hold(connection, space["id"])  # a group is changed as a whole, also where two have changed different items of it
    rows = {row["item"]: row for row in _rows(connection, space["id"]) if row["item"] in wanted}
    if sum(row["version"] for row in rows.values()) != seen:
        raise _stale()
    changed = [key for key, value in wanted.items() if value != (rows[key]["value"] if key in rows else "")]
    for key in changed:
        _write(connection, actor, space["id"], key, wanted[key], rows.get(key))
    if changed:
        _note(connection, actor, space, changed)
    return changed


def _note(connection: Connection, actor: Actor, space: Mapping[str, Any], items: list[str]) -> None:
    audit.note(
        connection, actor.now, "information-saved", account=actor.account, space=space["id"], address=actor.address,
        items=items,
    )  # fmt: skip


def _read(fields: Fields, item: Item) -> str:
    before = len(fields.errors)
    text = fields.text(item.key, most=item.most, least=0)
    if not text or len(fields.errors) > before:
        return text
    kind = KINDS[item.kind]
    value = kind.read(text)
    if value is None:
        fields.refuse(item.key, f"{item.kind}_invalid", kind.message)
        return text
    return value


def _write(
    connection: Connection, actor: Actor, space: str, key: str, value: str, row: Mapping[str, Any] | None
) -> None:
    done = {"value": value, "changed": actor.now, "changed_by": actor.account}
    if row is not None:
        seen = (information.c.space == space) & (information.c.item == key) & (information.c.version == row["version"])
        if not connection.execute(update(information).where(seen).values(version=row["version"] + 1, **done)).rowcount:
            raise _stale()
        return
    try:
        with connection.begin_nested():
            connection.execute(insert(information).values(space=space, item=key, version=1, **done))
    except IntegrityError:
        raise _stale() from None


def _items(space: Mapping[str, Any], group: str) -> list[Item]:
    return [item for item in ITEMS if item.group == group and space["kind"] in item.spaces]


def _rows(connection: Connection, space: str) -> list[Mapping[str, Any]]:
    found = select(information).where(information.c.space == space)
    return [dict(row) for row in connection.execute(found).mappings()]


def _stale() -> Refusal:
    return Refusal("stale", "Somebody else has changed this meanwhile. Look at what is stored now, and save again.")
