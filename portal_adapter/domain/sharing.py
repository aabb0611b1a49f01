"""
Sharing rules: which item of one institution's another one may be shown, by what law, and for how long (ESP-28).

An operator notes them. One institution needs no rule for what is its own.
"""

import re
from typing import Any

from sqlalchemy import Connection, insert, select, update

from portal_adapter.domain.fields import Fields
from portal_adapter.domain.ids import new_id
from portal_adapter.refusal import guard, not_found
from portal_adapter.store.schema import sharing_rules

BASIS_CHARACTERS_MAX = 300
Rule = dict[str, Any]  # its row, and its `state`
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")  # of an institution or an item


def add(
    connection: Connection, now: int, operator: str, form: dict[str, str], begins: int | None, ends: int | None
) -> str:
    """
    `form` has source, target, item and basis; from `begins` (None: now) to before `ends` (None: until it is ended).
    Answers the rule's id; raises `validation`.
    """
    fields = Fields(form)
    source, target, item = (_name(fields, field) for field in ("source", "target", "item"))
    basis = fields.text("basis", most=BASIS_CHARACTERS_MAX)
    if source and source == target:
        fields.refuse("target", "same", "One institution needs no rule for what is its own.")
    begins = now if begins is None else begins
    if ends is not None and ends <= begins:
        fields.refuse("until", "before-begin", "The end comes after the beginning.")
    fields.check()
    rule = new_id()
    connection.execute(
        insert(sharing_rules).values(
            id=rule, source=source, target=target, item=item, basis=basis, begins=begins, ends=ends, operator=operator
        )
    )
    return rule


def listed(connection: Connection, now: int) -> list[Rule]:
    """All, with `state`: 'to come', 'in force' or 'over'."""
    rows = connection.execute(select(sharing_rules).order_by(sharing_rules.c.begins, sharing_rules.c.id)).mappings()
    return [{**row, "state": _state(row["begins"], row["ends"], now)} for row in rows]


def end(connection: Connection, now: int, rule: str) -> None:
    """At once; it stays listed. Raises `not-found`, and `guard-failed` for one that is over."""
    row = connection.execute(select(sharing_rules).where(sharing_rules.c.id == rule)).mappings().first()
    if row is None:
        raise not_found()
    if _state(row["begins"], row["ends"], now) == "over":
        raise guard("rule-over", "This rule is over already.")
    connection.execute(update(sharing_rules).where(sharing_rules.c.id == rule).values(ends=now))


def in_force(connection: Connection, now: int) -> set[tuple[str, str, str]]:
    """Source, target and item of each rule that applies now."""
    rules = sharing_rules.c
    applies = (rules.begins <= now) & ((rules.ends.is_(None)) | (rules.ends > now))
    return {tuple(row) for row in connection.execute(select(rules.source, rules.target, rules.item).where(applies))}


def _state(begins: int, ends: int | None, now: int) -> str:
    if ends is not None and now >= ends:
        return "over"
    return "in force" if now >= begins else "to come"


def _name(fields: Fields, field: str) -> str:
    before = len(fields.errors)
    value = fields.text(field, most=64)
    if len(fields.errors) == before and _NAME.fullmatch(value) is None:
        fields.refuse(field, "name-invalid", "Use small letters, digits, full stops, hyphens and underscores.")
    return value
