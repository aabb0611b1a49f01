"""Inviting and joining, as browsers do it; and people without browsers, for the bare domain."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from sqlalchemy import Engine, insert, select

from portal_adapter.domain.actor import Actor
from portal_adapter.domain.ids import new_id
from portal_adapter.settings import Business, Limits
from portal_adapter.store import schema
from portal_adapter.store.database import open_database, writing
from tests.portal.place import ORIGIN, Issuer, Place, Visitor

NOW = 1_795_000_000
ISSUER = Issuer()


def links(engine: Engine) -> set[str]:
    """The paths of all invitations' links, as they stand in the mails that are to be sent."""
    with engine.connect() as connection:
        data = connection.execute(
            select(schema.outbox.c.data).where(schema.outbox.c.template == "invitation")
        ).scalars()
        return {json.loads(one)["link"].removeprefix(ORIGIN) for one in data.all() if one != "{}"}


def invites(
    admin: Visitor, space: str, given: str = "Bob", family: str = "Babbage", role: str = "editor", **more: str
) -> str:
    """The path of the link in the mail."""
    before = links(admin.place.services.engine)
    fields = {
        "given": given, "family": family, "email": f"{given.lower()}@example.org", "role": role, "language": "en", **more,
    }  # fmt: skip
    page = f"/spaces/{space}/team/invite"
    done = admin.post(page, fields, page=page)
    assert (done.status_code, done.headers.get("location")) == (303, f"/spaces/{space}/team"), done.text
    (link,) = links(admin.place.services.engine) - before
    return link


def joins(
    place: Place, admin: Visitor, space: str, given: str = "Bob", family: str = "Babbage", role: str = "editor"
) -> Visitor:
    """A new person, invited, logged in, and a member."""
    link = invites(admin, space, given, family, role)
    visitor = place.visitor()
    visitor.logs_in(given, family)
    done = visitor.post(f"{link}/accept", page=link)
    assert (done.status_code, done.headers.get("location")) == (303, f"/spaces/{space}"), done.text
    return visitor


def account_of(engine: Engine, given: str) -> str:
    with engine.connect() as connection:
        return str(
            connection.execute(select(schema.accounts.c.id).where(schema.accounts.c.given == given)).scalar_one()
        )


@dataclass(frozen=True)
class Person:
    account: str
    given: str
    family: str
    fingerprint: str

    @property
    def email(self) -> str:
        return f"{self.given.lower()}@example.org"

    def actor(self, now: int = NOW) -> Actor:
        return Actor(self.account, self.family, self.given, self.email, self.fingerprint, "session", now, "192.0.2.1")

    def invited(self, role: str = "editor", **more: str) -> dict[str, str]:
        """The form that invites her."""
        return {"given": self.given, "family": self.family, "email": self.email, "role": role, "language": "en", **more}


class Bare:
    """The domain without the web: a database, people with a product each, and the default limits."""

    def __init__(self, state: Path, url: str | None = None) -> None:
        self.engine = open_database(state, url)
        self.limits, self.business = Limits(), Business()

    def person(self, given: str, family: str = "Lovelace", **product: Any) -> Person:
        made = ISSUER.product(given, family, **product)
        fingerprint = made.certificate.fingerprint(hashes.SHA256()).hex()
        person = Person(new_id(), given, family, fingerprint)
        with writing(self.engine) as connection:
            connection.execute(
                insert(schema.accounts).values(
                    id=person.account, family=family, given=given, email=person.email, language="en", created=NOW
                )
            )
            connection.execute(
                insert(schema.products).values(
                    id=new_id(), account=person.account, kind="server", number=given, fingerprint=fingerprint,
                    certificate=made.der, added=NOW,
                )
            )  # fmt: skip
        return person

    def rows(self, table: Any) -> list[Mapping[str, Any]]:
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(select(table)).mappings()]

    def close(self) -> None:
        self.engine.dispose()


def business_form(title: str = "Engines", **more: str) -> dict[str, str]:
    return {"kind": "legal_person", "title": title, "company": f"{title} Ltd", "email": "office@example.org", **more}
