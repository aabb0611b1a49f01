"""The product that a person has logged in with, and what a business asks of it (TOK-04)."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from portal_adapter.auth import certificate as certificates
from portal_adapter.auth.certificate import Certificate
from portal_adapter.domain.actor import Actor
from portal_adapter.domain.fields import clean
from portal_adapter.settings import Business
from portal_adapter.store.schema import products

SERIAL_CHARACTERS_MAX = 64  # X.520's upper bound of serialNumber


def serial_key(serial: str) -> str:
    """
    As the serial of a certificate (auth/certificate.py) is stored and compared: without case, blanks and colons, so that
    it may be copied from wherever it is shown.
    """
    return "".join(c for c in clean(serial).upper() if not c.isspace() and c != ":")


def in_use(connection: Connection, actor: Actor) -> Certificate:
    """The certificate of the actor's session."""
    query = select(products.c.certificate).where(
        products.c.account == actor.account, products.c.fingerprint == actor.fingerprint
    )
    return certificates.read(connection.execute(query).scalar_one())


def check_professional(connection: Connection, actor: Actor, business: Business) -> None:
    """Raise `auth-too-weak` where acting for a business needs a professional product, and this is none."""
    if business.require_pro_certificate:
        certificates.check_professional(in_use(connection, actor), business.pro_policy_oids)


def may_sign(certificate: bytes, space: Mapping[str, Any], business: Business) -> bool:
    """Whether what is signed in a space may be signed with it: for a business, where that is wanted, with a professional one."""
    if space["kind"] != "business" or not business.require_pro_certificate:
        return True
    return certificates.is_professional(certificate, business.pro_policy_oids)
