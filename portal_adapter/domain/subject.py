"""Whom authentic sources are asked about: the person who is logged in, as her product's CA names her (ESP-37)."""

from sqlalchemy import Connection, select

from portal_adapter.auth import certificate as certificates
from portal_adapter.domain.actor import Actor
from portal_adapter.sources.source import Subject
from portal_adapter.store.schema import products


def of(connection: Connection, actor: Actor) -> Subject:
    """Of the product of this session, which is registered for as long as there is the session."""
    query = select(products.c.certificate).where(products.c.fingerprint == actor.fingerprint)
    found = certificates.read(connection.execute(query).scalar_one())
    return Subject(found.serial, found.family, found.given)
