"""Certification of a business space (ESP-17, ESP-18): asked for by its administrator, set and taken back by an operator."""

from sqlalchemy import Connection

from portal_adapter.domain import audit, team
from portal_adapter.domain.actor import MANAGE, Actor
from portal_adapter.domain.space import CERTIFICATION
from portal_adapter.mail import outbox
from portal_adapter.settings import Portal


def ask(connection: Connection, actor: Actor, id_: str, portal: Portal) -> None:
    """Operators see it in `paraph-portal space list`, and by mail where the portal has an address for help."""
    space = team.held(connection, actor, id_, MANAGE)
    CERTIFICATION.fire(connection, space, "ask", certification_asked=actor.now)
    audit.note(connection, actor.now, "certification-asked", account=actor.account, space=id_, address=actor.address)
    if portal.help_email:
        data = {"space": space["title"], "identifier": space["identifier"], "person": actor.name, "time": actor.now}
        outbox.queue(connection, actor.now, portal.help_email, portal.language, "certification-asked", data)
