"""Spaces: the list, creating one, its home (ESP-01 to ESP-15, ESP-20, ESP-35)."""

from collections.abc import Mapping

from portal_adapter.domain import certification, space
from portal_adapter.domain.actor import MANAGE, READ, RIGHTS
from portal_adapter.domain.ids import shown
from portal_adapter.web.answer import Answer, Page, Redirect
from portal_adapter.web.ask import Ask
from portal_adapter.web.back import inside
from portal_adapter.web.route import Level, Route
from portal_adapter.web.views.procedures import newest, to_sign


def listed(ask: Ask) -> Answer:
    mine = space.all_of(ask.connection, ask.actor.account)
    has_private = any(one["kind"] == "private" for one in mine)
    return Page("spaces.html", {"mine": [_about(one) for one in mine], "has_private": has_private})


def new_private(ask: Ask) -> Answer:
    return Page("space_private.html", {**_person(ask), "profiles": space.PROFILES, "back": _back(ask.query)})


def create_private(ask: Ask) -> Answer:
    identifier = space.create_private(ask.connection, ask.actor, dict(ask.form), ask.settings.limits)
    return Redirect(_back(ask.form) or f"/spaces/{identifier}", notice="private-space-created")


def new_business(ask: Ask) -> Answer:
    space.check_founder(ask.connection, ask.actor, ask.settings.business)
    single = ask.settings.business.single_space
    data = {**_person(ask), "kinds": space.FORMS, "registration_needed": single, "back": _back(ask.query)}
    return Page("space_business.html", data)


def create_business(ask: Ask) -> Answer:
    settings = ask.settings
    identifier = space.create_business(ask.connection, ask.actor, dict(ask.form), settings.business, settings.limits)
    return Redirect(_back(ask.form) or f"/spaces/{identifier}", notice="business-space-created")


def show(ask: Ask) -> Answer:
    assert ask.space is not None
    may_manage = MANAGE in RIGHTS[ask.space["role"]] and ask.space["state"] == "active"
    data = {
        "shown": _about(ask.space), "may_manage": may_manage, "may_fill": space.may_fill(ask.space),
        "procedures": newest(ask), "to_sign": to_sign(ask),
    }  # fmt: skip
    return Page("space.html", data)


def show_data(ask: Ask) -> Answer:
    assert ask.space is not None
    data = {
        **_person(ask), "shown": _about(ask.space), "version": ask.space["version"], "email": ask.space["email"],
        "profiles": space.PROFILES, "chosen": ask.space["profiles"].split(),
        "registration_needed": ask.settings.business.single_space,
    }  # fmt: skip
    return Page("space_data.html", data)


def change(ask: Ask) -> Answer:
    assert ask.space is not None
    settings = ask.settings
    space.change(ask.connection, ask.actor, ask.space["id"], dict(ask.form), settings.business, settings.limits)
    return Redirect(f"/spaces/{ask.space['identifier']}", notice="space-changed")


def ask_certification(ask: Ask) -> Answer:
    assert ask.space is not None
    certification.ask(ask.connection, ask.actor, ask.space["id"], ask.settings.portal)
    return Redirect(f"/spaces/{ask.space['identifier']}", notice="certification-asked")


def _back(given: Mapping[str, str]) -> str:
    """The procedure that was to be begun, and wants the space first (PROC-01); '' without one."""
    found = inside(given.get("back", ""))
    return found if found.startswith("/start/") else ""


def _person(ask: Ask) -> dict[str, str]:
    return {"family": ask.actor.family, "given": ask.actor.given, "email": ask.actor.email}


def _about(one: object) -> dict[str, object]:
    """What pages and JSON show of a space."""
    row: dict[str, object] = dict(one)  # type: ignore[call-overload]
    names = (
        "kind", "title", "company", "registration", "email", "state", "role", "created", "certification", "certified",
        "version",
    )  # fmt: skip
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
    Route("GET", "/spaces/{space}/data", "space-data", show_data, Level.TERMS, ("ESP-07", "ESP-10"), right=MANAGE),
    Route(
        "POST", "/spaces/{space}/data", "change-space", change, Level.TERMS,
        ("ESP-07", "ESP-08", "ESP-10", "ESP-15"), right=MANAGE,
    ),
    Route(
        "POST", "/spaces/{space}/certification", "ask-certification", ask_certification, Level.TERMS, ("ESP-18",),
        right=MANAGE,
    ),
)  # fmt: skip
FORMS = {
    "create-private-space": "new-private-space",
    "create-business-space": "new-business-space",
    "change-space": "space-data",
}
