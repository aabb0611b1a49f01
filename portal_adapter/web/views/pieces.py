"""What pages and JSON show of a procedure's attachments: slots, pieces, indicators, what is used and what is left."""

from collections.abc import Mapping
from typing import Any

from portal_adapter.definitions.definition import Definition
from portal_adapter.domain import attachment
from portal_adapter.domain import indicators as judged
from portal_adapter.domain.indicators import Indicator
from portal_adapter.domain.procedure import PROCEDURE, Row, path
from portal_adapter.domain.space import may_fill
from portal_adapter.files.examined import CLEAN, INFECTED
from portal_adapter.web.ask import Ask


def indicators(ask: Ask, row: Row, definition: Definition) -> list[dict[str, Any]]:
    """Of what has not been sent, or was sent back."""
    assert ask.space is not None
    if "save" not in PROCEDURE.allowed(row["status"]):
        return []
    return [_indicator(ask, one, ask.language.text(one.label)) for one in judged_of(ask, row, definition)]


def judged_of(ask: Ask, row: Row, definition: Definition) -> list[Indicator]:
    assert ask.space is not None
    pieces, flagged = attachment.of_procedure(ask.connection, row), attachment.flagged(ask.connection, row)
    return judged.indicators(definition, row, pieces, flagged, ask.language.code, path(ask.space, row))


def parts(ask: Ask, row: Row, definition: Definition) -> dict[str, Any]:
    assert ask.space is not None
    at, pieces = path(ask.space, row), attachment.of_procedure(ask.connection, row)
    flagged = attachment.flagged(ask.connection, row)
    slots, others = attachment.arranged(definition, row["answers"], pieces)
    fills = may_fill(ask.space)
    allowed = attachment.machine(ask.settings).allowed(row["status"]) if fills else []
    return {
        "slots": [
            {
                "type": one.type,
                "label": one.piece.label.in_(ask.language.code),
                "indicator": _indicator(
                    ask, judged.of_slot(one, flagged, ask.language.code, at), one.piece.label.in_(ask.language.code)
                ),
                "piece": about(ask, one.filled, definition, flagged) if one.filled is not None else None,
            }
            for one in slots
        ],
        "is_undecided": judged.is_undecided(definition, row),
        "others": [about(ask, one, definition, flagged) for one in others],
        "may_attach": "attach" in allowed,
        "attach_after": _attach_after(ask, row, definition),
        "may_remove": "detach" in allowed,
        **room(ask, attachment.used(pieces)),
    }


def _attach_after(ask: Ask, row: Row, definition: Definition) -> str:
    """What a missing piece waits for; '' where it waits for nothing (ATT-01)."""
    if row["status"] != "in_preparation" or "attach" in attachment.machine(ask.settings).allowed(row["status"]):
        return ""
    if definition.signatures == 2:
        return ask.language.text("It can be attached once both have signed.")
    return ask.language.text("It can be attached once the form is signed.")


def room(ask: Ask, used: int) -> dict[str, int]:
    """What is used and what is left of the limits."""
    assert ask.space is not None
    limits = ask.settings.limits
    most, unsent = limits.attachments, attachment.unsent_bytes(ask.connection, ask.space["id"])
    return {
        "used": used, "left": max(0, most - used), "most": most, "most_kb": limits.document_bytes // 1024,
        "unsent": unsent, "unsent_most": limits.unsent_bytes, "unsent_left": max(0, limits.unsent_bytes - unsent),
    }  # fmt: skip


def about(ask: Ask, row: Row, definition: Definition, flagged: Mapping[str, str]) -> dict[str, Any]:
    told = ("id", "name", "slot", "type", "media_type", "size", "sha256", "added", "scan")
    return {
        **{name: row[name] for name in told},
        "type_name": attachment.type_name(definition, row["type"], ask.language),
        "by": f"{row['given']} {row['family']}",
        "readable": row["scan"] == CLEAN or (row["added_by"] == ask.actor.account and row["scan"] != INFECTED),
        "flagged": row["id"] in flagged,
        "comment": flagged.get(row["id"], ""),
    }


def _indicator(ask: Ask, one: Indicator, label: str) -> dict[str, Any]:
    return {
        "name": one.name,
        "label": label,
        "is_green": one.is_green,
        "is_undecided": one.is_undecided,
        "said": ask.language.text(one.said),
        "href": one.href,
        "unmet": [
            {"code": each.code, "message": ask.language.text(each.message, **(each.values or {})), "href": each.href}
            for each in one.unmet
        ],
    }
