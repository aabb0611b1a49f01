"""My information (ESP-26, ESP-27), and beside it what administrations hold (ESP-37)."""

from collections.abc import Mapping
from typing import Any

from portal_adapter import countries
from portal_adapter.domain import information, subject
from portal_adapter.domain.actor import FILL, READ
from portal_adapter.domain.information import Item
from portal_adapter.domain.kinds import KINDS
from portal_adapter.domain.space import may_fill
from portal_adapter.web.answer import Answer, Page, Redirect
from portal_adapter.web.ask import Ask
from portal_adapter.web.route import Level, Route


def show(ask: Ask) -> Answer:
    assert ask.space is not None
    values = information.values(ask.connection, ask.space["id"])
    groups = [
        {
            "key": group,
            "label": ask.language.text(information.GROUPS[group]),
            "items": [_shown(ask, item, values) for item in information.items_of(ask.space, group)],
        }
        for group in information.groups_of(ask.space)
    ]
    data = {"groups": groups, "may_fill": may_fill(ask.space), "sources": _sources(ask)}
    return Page("information.html", data)


def show_group(ask: Ask) -> Answer:
    assert ask.space is not None
    group = ask.parts["group"]
    items = information.items_of(ask.space, group)
    values = information.values(ask.connection, ask.space["id"])
    data = {
        "group": {"key": group, "label": ask.language.text(information.GROUPS[group])},
        "version": information.version_of(ask.connection, ask.space, group),
        "fields": [_field(ask, item, values) for item in items],
        "countries": countries.names(ask.language.code),
    }
    return Page("information_group.html", data)


def save(ask: Ask) -> Answer:
    assert ask.space is not None
    information.save(ask.connection, ask.actor, ask.space, ask.parts["group"], ask.form)
    return Redirect(f"/spaces/{ask.space['identifier']}/information", notice="information-saved")


def _shown(ask: Ask, item: Item, values: Mapping[str, str]) -> dict[str, str]:
    value = values.get(item.key, "")
    if item.kind == "iban":
        shown = " ".join(value[at : at + 4] for at in range(0, len(value), 4))
    elif item.kind == "country":
        shown = countries.names(ask.language.code).get(value, "")
    elif item.kind == "date":
        shown = ask.language.date(value) if value else ""
    else:
        shown = value
    return {"key": item.key, "label": ask.language.text(item.label), "value": value, "shown": shown}


def _field(ask: Ask, item: Item, values: Mapping[str, str]) -> dict[str, Any]:
    assert ask.space is not None
    return {
        "key": item.key,
        "label": ask.language.text(item.label),
        "value": values.get(item.key, ""),
        "kind": item.kind,
        "input": KINDS[item.kind].input,
        "most": item.most,
        "autocomplete": item.autocomplete if ask.space["kind"] == "private" else "",
    }


def _sources(ask: Ask) -> list[dict[str, Any]]:
    french = ask.language.code == "fr"
    if not ask.settings.source:
        return []
    return [
        {
            "name": one.name,
            "label": one.label_fr if french else one.label_en,
            "fetched": one.time,
            "available": one.items is not None,
            "items": [
                {"key": item.key, "label": item.label_fr if french else item.label_en, "value": item.value}
                for item in one.items or ()
            ],
        }
        for one in ask.services.sources.fetch(subject.of(ask.connection, ask.actor), ask.now)
    ]


ROUTES = (
    Route(
        "GET", "/spaces/{space}/information", "information", show, Level.TERMS, ("ESP-20", "ESP-26", "ESP-37"),
        right=READ,
    ),
    Route(
        "GET", "/spaces/{space}/information/{group}", "information-group", show_group, Level.TERMS, ("ESP-26",),
        right=FILL,
    ),
    Route(
        "POST", "/spaces/{space}/information/{group}", "save-information", save, Level.TERMS, ("ESP-26", "ESP-37"),
        right=FILL,
    ),
)  # fmt: skip
FORMS = {"save-information": "information-group"}
