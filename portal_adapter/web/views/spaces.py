"""Spaces: the list, creating one, its home (ESP-01 to ESP-15, ESP-20, ESP-35)."""

from portal_adapter.domain import space
from portal_adapter.domain.actor import READ
from portal_adapter.domain.ids import shown
from portal_adapter.web.answer import Answer, Page, Redirect
from portal_adapter.web.ask import Ask
from portal_adapter.web.route import Level, Route


def listed(ask: Ask) -> Answer:
    mine = space.all_of(ask.connection, ask.actor.account)
    has_private = any(one["kind"] == "private" for one in mine)
    return Page("spaces.html", {"mine": [_about(one) for one in mine], "has_private": has_private})


def new_private(ask: Ask) -> Answer:
    return Page("space_private.html", {**_person(ask), "profiles": space.PROFILES})


def create_private(ask: Ask) -> Answer:
    identifier = space.create_private(ask.connection, ask.actor, dict(ask.form), ask.settings.limits)
    return Redirect(f"/spaces/{identifier}", notice="private-space-created")


def new_business(ask: Ask) -> Answer:
    single = ask.settings.business.single_space
    return Page("space_business.html", {**_person(ask), "kinds": space.FORMS, "registration_needed": single})


def create_business(ask: Ask) -> Answer:
    settings = ask.settings
    identifier = space.create_business(ask.connection, ask.actor, dict(ask.form), settings.business, settings.limits)
    return Redirect(f"/spaces/{identifier}", notice="business-space-created")


def show(ask: Ask) -> Answer:
    assert ask.space is not None
    return Page("space.html", {"shown": _about(ask.space)})


def _person(ask: Ask) -> dict[str, str]:
    return {"family": ask.actor.family, "given": ask.actor.given, "email": ask.actor.email}


def _about(one: object) -> dict[str, object]:
    """What pages and JSON show of a space."""
    row: dict[str, object] = dict(one)  # type: ignore[call-overload]
    names = ("kind", "title", "company", "registration", "email", "state", "role", "created", "certified", "version")
    return {
        **{name: row[name] for name in names},
        "identifier": row["identifier"],
        "identifier_shown": shown(str(row["identifier"])),
    }


ROUTES = (
    Route("GET", "/spaces", "spaces", listed, Level.TERMS, ("ESP-05", "ESP-12")),
    Route("GET", "/spaces/new/private", "new-private-space", new_private, Level.TERMS, ("ESP-35",)),
    Route("POST", "/spaces/new/private", "create-private-space", create_private, Level.TERMS, ("ESP-01", "ESP-35")),
    Route("GET", "/spaces/new/business", "new-business-space", new_business, Level.TERMS, ("ESP-04", "ESP-09")),
    Route(
        "POST", "/spaces/new/business", "create-business-space", create_business, Level.TERMS,
        ("ESP-02", "ESP-04", "ESP-07", "ESP-08", "ESP-10", "ESP-13"),
    ),
    Route("GET", "/spaces/{space}", "space", show, Level.TERMS, ("ESP-15", "ESP-20"), right=READ),
)  # fmt: skip
FORMS = {"create-private-space": "new-private-space", "create-business-space": "new-business-space"}
