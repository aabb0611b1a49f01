"""
The team of a business space: its members, each with a role (ESP-22, ESP-24, ESP-25).

Every change holds the space first (`space.held`), so that of two administrators who remove each other at the same moment
one stays. Whoever was removed is a stranger to the space at his next request, sessions that are open included.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from portal_adapter.domain import audit, nomination
from portal_adapter.domain import space as spaces
from portal_adapter.domain.actor import MANAGE, READ, ROLES, Actor
from portal_adapter.domain.fields import Fields, folded
from portal_adapter.mail import outbox
from portal_adapter.refusal import guard, not_found, stale
from portal_adapter.settings import Business
from portal_adapter.store.schema import accounts, members


def listed(connection: Connection, space: str) -> list[Mapping[str, Any]]:
    """The members with their names, administrators first, then by name."""
    query = (
        select(members, accounts.c.family, accounts.c.given, accounts.c.email)
        .join(accounts, accounts.c.id == members.c.account)
        .where(members.c.space == space)
    )
    found = [dict(row) for row in connection.execute(query).mappings()]
    return sorted(found, key=lambda one: (ROLES.index(one["role"]), folded(one["family"]), folded(one["given"])))


def member(connection: Connection, space: str, account: str) -> Mapping[str, Any]:
    """Raises `not-found`."""
    found = next((one for one in listed(connection, space) if one["account"] == account), None)
    if found is None:
        raise not_found()
    return found


def change_role(
    connection: Connection, actor: Actor, id_: str, account: str, form: Mapping[str, str], business: Business
) -> None:
    """Raises `stale`, `guard-failed` `last-administrator`, and `forbidden` for an administrator who is not nominated."""
    space = held(connection, actor, id_, MANAGE)
    now = member(connection, id_, account)
    fields = Fields(form)
    seen = fields.version()
    role = fields.choice("role", ROLES)
    fields.check()
    if seen != now["version"]:
        raise stale(now["version"])
    if role != "administrator":
        _check_not_last(connection, space, now)
    else:
        nomination.check_account(connection, account, business)
    connection.execute(
        update(members)
        .where(members.c.space == id_, members.c.account == account)
        .values(role=role, version=members.c.version + 1)
    )
    _note(connection, actor, "role-changed", id_, member=account, role=role, before=now["role"])


def remove(connection: Connection, actor: Actor, id_: str, account: str, form: Mapping[str, str]) -> None:
    """Raises `stale` and `guard-failed` `last-administrator`. The member is told by mail."""
    space = held(connection, actor, id_, MANAGE)
    now = member(connection, id_, account)
    fields = Fields(form)
    seen = fields.version()
    fields.check()
    if seen != now["version"]:
        raise stale(now["version"])
    _take_out(connection, space, now)
    _note(connection, actor, "member-removed", id_, member=account, role=now["role"])
    language = connection.execute(select(accounts.c.language).where(accounts.c.id == account)).scalar_one()
    data = {"event": "member-removed", "about": space["title"], "time": actor.now}
    outbox.queue(connection, actor.now, now["email"], language, "notice", data)


def leave(connection: Connection, actor: Actor, id_: str) -> None:
    """Whatever the role; raises `guard-failed` `last-administrator`."""
    space = held(connection, actor, id_, READ)
    now = member(connection, id_, actor.account)
    _take_out(connection, space, now)
    _note(connection, actor, "space-left", id_, role=now["role"])


def held(connection: Connection, actor: Actor, id_: str, right: str) -> Mapping[str, Any]:
    """A business space to change the team of; a private one has none."""
    space = spaces.held(connection, actor, id_, right)
    if space["kind"] != "business":
        raise not_found()
    return space


def _take_out(connection: Connection, space: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    _check_not_last(connection, space, now)
    connection.execute(delete(members).where(members.c.space == now["space"], members.c.account == now["account"]))


def is_last(connection: Connection, now: Mapping[str, Any]) -> bool:
    """Whether a member is the only administrator of the space."""
    same = (members.c.space == now["space"]) & (members.c.role == "administrator")
    return now["role"] == "administrator" and connection.execute(select(func.count()).where(same)).scalar_one() == 1


def _check_not_last(connection: Connection, space: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if is_last(connection, now):
        raise guard(
            "last-administrator", "This is the only administrator: make another member one first.",
            f"/spaces/{space['identifier']}/team",
        )  # fmt: skip


def _note(connection: Connection, actor: Actor, event: str, space: str, **detail: Any) -> None:
    audit.note(connection, actor.now, event, account=actor.account, space=space, address=actor.address, **detail)
