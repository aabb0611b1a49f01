"""
What an operator does with spaces, by command (cli/space.py): suspend, resume, certify, and appoint an administrator where
the last one is lost (ESP-18, ESP-24). He is named in the audit, and is no member of anything.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, case, func, select, update

from portal_adapter.domain import audit, nomination, team
from portal_adapter.domain.ids import read_identifier
from portal_adapter.domain.space import CERTIFICATION, SPACE, hold
from portal_adapter.fsm import Machine
from portal_adapter.refusal import Refusal, guard, not_found
from portal_adapter.settings import Business
from portal_adapter.store.schema import members, spaces

# event -> its machine
EVENTS: Mapping[str, Machine] = {
    "suspend": SPACE,
    "resume": SPACE,
    "certify": CERTIFICATION,
    "uncertify": CERTIFICATION,
}


def listed(connection: Connection) -> list[Mapping[str, Any]]:
    """All spaces by title, with their numbers of `members` and `administrators`."""
    is_administrator = case((members.c.role == "administrator", 1), else_=0)
    query = (
        select(spaces, func.count(members.c.account).label("members"), func.sum(is_administrator).label("administrators"))
        .outerjoin(members, members.c.space == spaces.c.id)
        .group_by(spaces.c.id)
        .order_by(spaces.c.title, spaces.c.identifier)
    )  # fmt: skip
    return [dict(row) for row in connection.execute(query).mappings()]


def of(connection: Connection, identifier: str) -> Mapping[str, Any]:
    """Raises `not-found`."""
    query = select(spaces).where(spaces.c.identifier == read_identifier(identifier))
    row = connection.execute(query).mappings().first()
    if row is None:
        raise not_found()
    return dict(row)


def business_space(connection: Connection, identifier: str) -> Mapping[str, Any]:
    """Raises `guard-failed` for a private one: it has neither team nor certification."""
    space = of(connection, identifier)
    if space["kind"] != "business":
        raise guard("wrong-space-kind", "This is a private space: it has no team and is not certified.")
    return space


def fire(connection: Connection, now: int, operator: str, identifier: str, event: str) -> str:
    """One of `EVENTS`; answers the new state. Raises `not-found`, `forbidden-transition`, and `guard-failed`."""
    machine = EVENTS[event]
    hold(connection, of(connection, identifier)["id"])
    space = (business_space if machine is CERTIFICATION else of)(connection, identifier)
    values: dict[str, Any] = {}
    if machine is CERTIFICATION:
        is_given = event == "certify"
        values = {
            "certified": now if is_given else None, "certified_by": operator if is_given else "",
            "certification_asked": None,
        }  # fmt: skip
    state = machine.fire(connection, space, event, **values)
    audit.note(connection, now, f"space-{event}", space=space["id"], operator=operator)
    return state


def appoint(connection: Connection, now: int, operator: str, identifier: str, account: str, business: Business) -> None:
    """A member becomes an administrator. Raises `not-found`, `forbidden-transition` for who is one, and `forbidden`."""
    space = business_space(connection, identifier)
    hold(connection, space["id"])
    before = team.member(connection, space["id"], account)
    if before["role"] == "administrator":
        raise Refusal(
            "forbidden-transition", "This member is an administrator already.",
            state="administrator", event="appoint", allowed=[],
        )  # fmt: skip
    nomination.check_account(connection, account, business)
    role = (
        update(members)
        .where(members.c.space == space["id"], members.c.account == account)
        .values(role="administrator", version=members.c.version + 1)
    )
    connection.execute(role)
    audit.note(
        connection, now, "administrator-appointed", space=space["id"], operator=operator, member=account,
        before=before["role"],
    )  # fmt: skip
