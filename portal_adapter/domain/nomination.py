"""
Who may be the administrator of a business space, where that must be nominated: by the serial of a certificate (ESP-21).

Serials are stored and compared as `product.serial_key` has them.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from portal_adapter.auth import certificate as certificates
from portal_adapter.domain import audit, product
from portal_adapter.domain.actor import Actor
from portal_adapter.domain.fields import Fields
from portal_adapter.domain.product import SERIAL_CHARACTERS_MAX, serial_key
from portal_adapter.refusal import Refusal, not_found
from portal_adapter.settings import Business
from portal_adapter.store.schema import nominations, products


def check(connection: Connection, actor: Actor, business: Business) -> None:
    """Raise `forbidden` unless the actor may administer a business space with the product of this session."""
    if business.admin_nomination_required and not _has(connection, product.in_use(connection, actor).serial):
        raise _not_nominated()


def check_account(connection: Connection, account: str, business: Business) -> None:
    """The same for somebody who is not there: one of her products is enough."""
    if not business.admin_nomination_required:
        return
    found = connection.execute(select(products.c.certificate).where(products.c.account == account)).scalars()
    if not any(_has(connection, certificates.read(der).serial) for der in found.all()):
        raise _not_nominated()


def add(connection: Connection, now: int, operator: str, serial: str) -> str:
    """Answers the serial as it is stored. Repeating it changes nothing."""
    fields = Fields({"serial": serial_key(serial)})
    stored = fields.text("serial", most=SERIAL_CHARACTERS_MAX)
    fields.check()
    if not _has(connection, stored):
        with contextlib.suppress(IntegrityError), connection.begin_nested():  # another operator was quicker
            connection.execute(insert(nominations).values(serial=stored, noted=now, operator=operator))
        audit.note(connection, now, "nominated", operator=operator, serial=stored)
    return stored


def remove(connection: Connection, now: int, operator: str, serial: str) -> str:
    """Answers it as it was stored. Who administers already goes on. Raises `not-found`."""
    stored = serial_key(serial)
    if not connection.execute(delete(nominations).where(nominations.c.serial == stored)).rowcount:
        raise not_found()
    audit.note(connection, now, "nomination-removed", operator=operator, serial=stored)
    return stored


def listed(connection: Connection) -> list[Mapping[str, Any]]:
    rows = connection.execute(select(nominations).order_by(nominations.c.serial))
    return [dict(row) for row in rows.mappings()]


def _has(connection: Connection, serial: str) -> bool:
    found = select(nominations.c.serial).where(nominations.c.serial == serial_key(serial))
    return connection.execute(found).first() is not None


def _not_nominated() -> Refusal:
    return Refusal(
        "forbidden", "Administrators of a business space are nominated here, and this person is not yet. Ask the help desk.",
        reason="not-nominated", right="administrator",
    )  # fmt: skip
