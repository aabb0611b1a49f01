"""Agents: people who work for an administration. An operator binds an account to one of them (TRK-11, cli/agent.py)."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from portal_adapter.domain import audit
from portal_adapter.refusal import Refusal, guard, invalid, not_found
from portal_adapter.store.schema import accounts, agents


def administration_of(connection: Connection, account: str) -> str:
    """Empty for who is no agent."""
    found = select(agents.c.administration).where(agents.c.account == account)
    return connection.execute(found).scalar() or ""


def check(administration: str) -> None:
    """Raise `forbidden` for who is no agent."""
    if not administration:
        raise Refusal(
            "forbidden", "This is for those who work for an administration.", reason="not-an-agent", right="agent"
        )


def add(
    connection: Connection, now: int, operator: str, account: str, administration: str, known: Collection[str]
) -> None:
    """
    `known` are the administrations that there are. Repeating it changes nothing. Raises `not-found`, `validation`, and
    `guard-failed` for who works for another one.
    """
    if administration not in known:
        raise invalid("administration", "unknown", "There is no such administration: {known}", known=", ".join(known))
    held = select(accounts.c.id).where(accounts.c.id == account).with_for_update()
    if connection.execute(held).first() is None:
        raise not_found()
    before = administration_of(connection, account)
    if before == administration:
        return
    if before:
        raise guard("other-administration", "This person works for another administration: remove that first.")
    connection.execute(insert(agents).values(account=account, administration=administration))
    audit.note(connection, now, "agent-added", account=account, operator=operator, administration=administration)


def remove(connection: Connection, now: int, operator: str, account: str) -> str:
    """Answers the administration; from the next click on the desk is closed. Raises `not-found`."""
    administration = administration_of(connection, account)
    if not connection.execute(delete(agents).where(agents.c.account == account)).rowcount:
        raise not_found()
    audit.note(connection, now, "agent-removed", account=account, operator=operator, administration=administration)
    return administration


def listed(connection: Connection) -> list[Mapping[str, Any]]:
    """By administration and name."""
    query = (
        select(agents, accounts.c.given, accounts.c.family, accounts.c.email)
        .join(accounts, accounts.c.id == agents.c.account)
        .order_by(agents.c.administration, accounts.c.family, accounts.c.given, agents.c.account)
    )
    return [dict(row) for row in connection.execute(query).mappings()]
