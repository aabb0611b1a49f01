"""
What a form begins with (PROC-07 to PROC-09, ESP-27, ESP-28): for each field the first of these that has a fitting value.

    source:<name>   what an administration holds about the person, in her private space alone
    information     what the space itself says: its data, and My information
    procedure       an earlier procedure of the space, where the law lets one administration see the other's

A field is filled by its `prefill`, an earlier answer also by the field's own name. What does not fit the field is left out.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from portal_adapter.definitions.answers import mistake, normal
from portal_adapter.definitions.catalogue import Catalogue
from portal_adapter.definitions.definition import Definition, Question
from portal_adapter.domain import information, sharing
from portal_adapter.domain.actor import Actor
from portal_adapter.sources.asked import Fetched
from portal_adapter.store.schema import procedures, transmissions

EARLIER_MAX = 100  # procedures that are looked into, the newest first

Values = Mapping[str, str]


def begin(
    connection: Connection,
    actor: Actor,
    space: Mapping[str, Any],
    definition: Definition,
    catalogue: Catalogue,
    fetched: Sequence[Fetched],
) -> tuple[dict[str, str], dict[str, str]]:
    """The answers that it begins with, and where each comes from. `fetched` is what the sources have said."""
    own = own_values(actor, space, information.values(connection, space["id"]))
    earlier = earlier_values(connection, actor.now, space, definition, catalogue)
    return fill(definition, source_values(fetched), own, earlier)


def fill(
    definition: Definition, sources: Mapping[str, Values], own: Values, earlier: Values
) -> tuple[dict[str, str], dict[str, str]]:
    """`sources`: by name, in their order."""
    answers, origins = {}, {}
    for question in definition.questions():
        candidates = [(f"source:{name}", values.get(question.prefill or "", "")) for name, values in sources.items()]
        candidates += [
            ("information", own.get(question.prefill or "", "")),
            ("procedure", earlier.get(_item(question), "")),
        ]
        for origin, text in candidates:
            value = normal(question, text)
            if value and mistake(question, value) is None:
                answers[question.id], origins[question.id] = value, origin
                break
    return answers, origins


def source_values(fetched: Sequence[Fetched]) -> dict[str, Values]:
    return {one.name: {item.key: item.value for item in one.items} for one in fetched if one.items is not None}


def own_values(actor: Actor, space: Mapping[str, Any], items: Values) -> Values:
    """What the space says: My information, its data, and the names of who creates the procedure."""
    data = {name: space[name] for name in ("email", "company", "registration")}
    return {"given": actor.given, "family": actor.family, **data, **items}


def earlier_values(
    connection: Connection, now: int, space: Mapping[str, Any], definition: Definition, catalogue: Catalogue
) -> Values:
    """Answers that were marked as shareable, of what was last sent of closed procedures of this space."""
    query = (
        select(
            procedures.c.definition,
            procedures.c.definition_version,
            procedures.c.administration,
            transmissions.c.answers,
        )
        .join(
            transmissions,
            (transmissions.c.procedure == procedures.c.id) & (transmissions.c.number == procedures.c.transmissions),
        )
        .where(procedures.c.space == space["id"], procedures.c.status == "closed")
        .order_by(transmissions.c.time.desc(), procedures.c.id)
        .limit(EARLIER_MAX)
    )
    found: dict[str, str] = {}
    rules: Collection[tuple[str, str, str]] | None = None
    for row in connection.execute(query).mappings():
        earlier = catalogue.versions.get((row["definition"], row["definition_version"]))
        if earlier is None:
            continue
        if rules is None:
            rules = sharing.in_force(connection, now)
        answers, targets = json.loads(row["answers"]), definition.administrations()
        for item, value in shared(earlier, row["administration"], answers, targets, rules).items():
            found.setdefault(item, value)
    return found


def shared(
    earlier: Definition, holder: str, answers: Values, targets: Collection[str], rules: Collection[tuple[str, str, str]]
) -> Values:
    """
    Item -> value of what `holder` got and each of `targets`, whoever it will be, may be shown; an administration needs
    no rule for what is its own.
    """
    return {
        _item(question): answers[question.id]
        for question in earlier.questions()
        if question.shareable
        and answers.get(question.id)
        and all(holder == target or (holder, target, _item(question)) in rules for target in targets)
    }


def _item(question: Question) -> str:
    """What the same thing is called in different forms."""
    return question.prefill or question.id
