"""My team: the members of a business space and their roles (ESP-20, ESP-24, ESP-25)."""

from collections.abc import Mapping
from typing import Any

from portal_adapter.domain import invitation, team
from portal_adapter.domain.actor import MANAGE, READ, RIGHTS, ROLES
from portal_adapter.refusal import not_found
from portal_adapter.web.answer import Answer, Page, Redirect
from portal_adapter.web.ask import Ask
from portal_adapter.web.route import Level, Route


def show(ask: Ask) -> Answer:
    """Every member sees who is in the team; addresses and invitations are its administrators' business."""
    space = business_space(ask)
    manages = MANAGE in RIGHTS[space["role"]]
    members = [_about(ask, one, manages) for one in team.listed(ask.connection, space["id"])]
    data: dict[str, Any] = {"members": members, "manages": manages, "invitations": []}
    if manages:
        names = ("id", "given", "family", "email", "role", "state", "created", "expires", "version")
        found = invitation.listed(ask.connection, ask.now, space["id"])
        data["invitations"] = [{name: one[name] for name in names} for one in found]
    return Page("team.html", data)


def show_member(ask: Ask) -> Answer:
    space = business_space(ask)
    found = team.member(ask.connection, space["id"], ask.parts["member"])
    data = {"member": _about(ask, found, manages=True), "roles": ROLES, "is_last": team.is_last(ask.connection, found)}
    return Page("member.html", data)


def change_role(ask: Ask) -> Answer:
    space = business_space(ask)
    team.change_role(ask.connection, ask.actor, space["id"], ask.parts["member"], ask.form, ask.settings.business)
    return Redirect(f"/spaces/{space['identifier']}/team", notice="role-changed")


def remove(ask: Ask) -> Answer:
    space = business_space(ask)
    team.remove(ask.connection, ask.actor, space["id"], ask.parts["member"], ask.form)
    is_own = ask.parts["member"] == ask.actor.account
    return Redirect("/spaces" if is_own else f"/spaces/{space['identifier']}/team", notice="member-removed")


def show_leaving(ask: Ask) -> Answer:
    found = team.member(ask.connection, business_space(ask)["id"], ask.actor.account)
    return Page("leave.html", {"is_last": team.is_last(ask.connection, found)})


def leave(ask: Ask) -> Answer:
    team.leave(ask.connection, ask.actor, business_space(ask)["id"])
    return Redirect("/spaces", notice="space-left")


def business_space(ask: Ask) -> Mapping[str, Any]:
    """A private space has no team."""
    assert ask.space is not None
    if ask.space["kind"] != "business":
        raise not_found()
    return ask.space


def _about(ask: Ask, member: Mapping[str, Any], manages: bool) -> dict[str, Any]:
    names = ("given", "family", "role", "since", "version", *(["email"] if manages else []))
    is_me = member["account"] == ask.actor.account
    return {**{name: member[name] for name in names}, "id": member["account"], "is_me": is_me}


ROUTES = (
    Route("GET", "/spaces/{space}/team", "team", show, Level.TERMS, ("ESP-20", "ESP-24"), right=READ),
    Route(
        "GET", "/spaces/{space}/team/members/{member}", "member", show_member, Level.TERMS, ("ESP-24",), right=MANAGE
    ),
    Route(
        "POST", "/spaces/{space}/team/members/{member}/role", "change-role", change_role, Level.TERMS,
        ("ESP-21", "ESP-24"), right=MANAGE,
    ),
    Route(
        "POST", "/spaces/{space}/team/members/{member}/remove", "remove-member", remove, Level.TERMS,
        ("ESP-24", "ESP-25"), right=MANAGE,
    ),
    Route("GET", "/spaces/{space}/team/leave", "leaving", show_leaving, Level.TERMS, ("ESP-14",), right=READ),
    Route("POST", "/spaces/{space}/team/leave", "leave", leave, Level.TERMS, ("ESP-14", "ESP-25"), right=READ),
)  # fmt: skip
FORMS = {"change-role": "member", "remove-member": "member"}
