"""A person's account: her address, the language of her mails, and what she is told when something of it changes (MAIL-12)."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, func, select, update

from portal_adapter.auth import session as opened
from portal_adapter.domain import audit
from portal_adapter.domain.actor import Actor
from portal_adapter.domain.fields import Fields, masked
from portal_adapter.language import LANGUAGES
from portal_adapter.mail import outbox
from portal_adapter.settings import Limits
from portal_adapter.store.schema import accounts, members, products, sessions, spaces


def notice(connection: Connection, now: int, account: str, event: str, about: str) -> None:
    """Tell a person by mail what changed; `event` is a word of `mail.message.EVENTS`."""
    row = connection.execute(select(accounts.c.email, accounts.c.language).where(accounts.c.id == account)).one()
    outbox.queue(connection, now, row.email, row.language, "notice", {"event": event, "about": about, "time": now})


def language_of(connection: Connection, account: str) -> str:
    return str(connection.execute(select(accounts.c.language).where(accounts.c.id == account)).scalar_one())


def change(connection: Connection, actor: Actor, form: Mapping[str, str], limits: Limits) -> None:
    """Address and language; the old address is told of a new one. Raises `validation`."""
    fields = Fields(form)
    fields.read_only("family", actor.family)
    fields.read_only("given", actor.given)
    email = fields.email("email", most=limits.email)
    language = fields.choice("language", LANGUAGES)
    fields.check()
    own = accounts.c.id == actor.account
    before = connection.execute(select(accounts.c.email, accounts.c.language).where(own).with_for_update()).one()
    if (email, language) == tuple(before):
        return
    if email != before.email:
        notice(connection, actor.now, actor.account, "address-changed", masked(email))
    connection.execute(update(accounts).where(own).values(email=email, language=language))
    audit.note(
        connection, actor.now, "account-changed", account=actor.account, address=actor.address,
        email=masked(email), language=language,
    )  # fmt: skip


# ---- for operators


def listed(connection: Connection) -> list[dict[str, Any]]:
    """Everybody, by name."""
    query = select(accounts).order_by(accounts.c.family, accounts.c.given, accounts.c.id)
    return [dict(row) for row in connection.execute(query).mappings()]


def shown(connection: Connection, now: int, account: str, limits: Limits) -> dict[str, Any] | None:
    """One person with her products, spaces and the number of her open sessions; None where there is none."""
    found = connection.execute(select(accounts).where(accounts.c.id == account)).mappings().first()
    if found is None:
        return None
    names = (products.c.kind, products.c.number, products.c.fingerprint, products.c.added)
    hers = select(*names).where(products.c.account == account).order_by(products.c.added)
    rooms = (
        select(spaces.c.identifier, spaces.c.title, members.c.role)
        .join(members, members.c.space == spaces.c.id)
        .where(members.c.account == account)
        .order_by(spaces.c.title)
    )
    is_open = (sessions.c.account == account) & opened.is_open(now, limits)
    return {
        **found,
        "products": [dict(row) for row in connection.execute(hers).mappings()],
        "spaces": [dict(row) for row in connection.execute(rooms).mappings()],
        "sessions": connection.execute(select(func.count()).select_from(sessions).where(is_open)).scalar_one(),
    }
