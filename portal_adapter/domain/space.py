"""
Spaces: a person's private one, and business ones that belong to a group of persons (ESP-01 to ESP-19, ESP-35).

Whoever is no member of a space is told that it does not exist.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, func, insert, select

from portal_adapter.domain import audit
from portal_adapter.domain.actor import Actor
from portal_adapter.domain.fields import Fields, folded
from portal_adapter.domain.ids import new_id, new_identifier, read_identifier
from portal_adapter.refusal import Refusal, guard, not_found
from portal_adapter.settings import Business, Limits
from portal_adapter.store.schema import accounts, members, spaces

FORMS = ("legal_person", "self_employed", "association")
PROFILES = ("particulier", "exploitant", "employeur")


def of(connection: Connection, actor: Actor, identifier: str) -> Mapping[str, Any]:
    """The space, with the actor's `role` in it; raises `not-found`."""
    found = read_identifier(identifier)
    query = (
        select(spaces, members.c.role)
        .join(members, members.c.space == spaces.c.id)
        .where(spaces.c.identifier == found, members.c.account == actor.account)
    )
    row = connection.execute(query).mappings().first() if found is not None else None
    if row is None:
        raise not_found()
    return dict(row)


def check_active(space: Mapping[str, Any]) -> None:
    """A suspended space can only be read."""
    if space["state"] != "active":
        raise guard("space-suspended", "This space is suspended: it can only be read. Ask the help desk.")


def all_of(connection: Connection, account: str) -> list[Mapping[str, Any]]:
    """A person's spaces with her roles, the private one first, then by title."""
    query = (
        select(spaces, members.c.role).join(members, members.c.space == spaces.c.id).where(members.c.account == account)
    )
    found = [dict(row) for row in connection.execute(query).mappings()]
    return sorted(found, key=lambda one: (one["kind"] != "private", folded(one["title"])))


def create_private(connection: Connection, actor: Actor, form: dict[str, str], limits: Limits) -> str:
    """Answers its identifier (ESP-35)."""
    fields = Fields(form)
    fields.read_only("family", actor.family)
    fields.read_only("given", actor.given)
    email = fields.email("email", most=limits.email)
    profiles = [one for one in PROFILES if form.get(f"profile_{one}")] or ["particulier"]
    fields.check()
    if connection.execute(select(spaces.c.id).where(spaces.c.owner == actor.account)).first() is not None:
        raise guard("private-space-exists", "You have a private space already.", "/spaces")
    return _make(
        connection, actor, kind="private", owner=actor.account, form="", title=actor.name, company="", registration="",
        email=email, profiles=" ".join(profiles), role="owner",
    )  # fmt: skip


def create_business(
    connection: Connection, actor: Actor, form: dict[str, str], business: Business, limits: Limits
) -> str:
    """Answers its identifier; whoever creates it is its administrator (ESP-02, ESP-04, ESP-07 to ESP-10, ESP-13)."""
    fields = Fields(form)
    kind = fields.choice("kind", FORMS)
    title = fields.text("title", most=limits.space_title)
    company = fields.text("company", most=limits.company_name)
    registration = fields.text("registration", most=64, least=1 if business.single_space else 0)
    fields.read_only("family", actor.family)
    fields.read_only("given", actor.given)
    email = fields.email("email", most=limits.email)
    if "identifier" in form:
        fields.refuse("identifier", "read-only", "This cannot be changed here.")
    administered = [one for one in all_of(connection, actor.account) if one["role"] == "administrator"]
    if title and any(folded_title(one["title"]) == folded_title(title) for one in administered):
        fields.refuse("title", "duplicate", "You administer a space of this title already.")
    fields.check()
    if len(administered) >= business.spaces_max:
        raise guard("too-many-spaces", "You administer as many spaces as one person may.", "/spaces")
    if business.single_space:
        _check_single(connection, registration)
    return _make(
        connection, actor, kind="business", owner=None, form=kind, title=title, company=company,
        registration=registration, email=email, profiles="", role="administrator",
    )  # fmt: skip


def folded_title(title: str) -> str:
    """Titles are compared without regard to case (ESP-07)."""
    return title.casefold()


def administrators(connection: Connection, space: str) -> list[Mapping[str, Any]]:
    query = (
        select(accounts.c.id, accounts.c.email, accounts.c.language)
        .join(members, members.c.account == accounts.c.id)
        .where(members.c.space == space, members.c.role == "administrator")
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def masked(email: str) -> str:
    """'a***@example.org'."""
    return email[:1] + "***" + email[email.rindex("@") :]


def _check_single(connection: Connection, registration: str) -> None:
    same = func.upper(spaces.c.registration) == registration.upper()
    found = connection.execute(select(spaces.c.id).where(spaces.c.kind == "business", same)).scalar()
    if found is not None:
        whom = ", ".join(masked(one["email"]) for one in administrators(connection, found))
        raise Refusal(
            "guard-failed", "This business has a space already. Ask its administrator to invite you.",
            reason="business-space-exists", administrator=whom,
        )  # fmt: skip


def _make(connection: Connection, actor: Actor, *, role: str, **values: Any) -> str:
    id_, identifier = new_id(), new_identifier()
    connection.execute(
        insert(spaces).values(id=id_, identifier=identifier, state="active", created=actor.now, **values)
    )
    connection.execute(insert(members).values(space=id_, account=actor.account, role=role, since=actor.now))
    audit.note(
        connection, actor.now, "space-created", account=actor.account, space=id_, address=actor.address,
        kind=values["kind"],
    )  # fmt: skip
    return identifier
