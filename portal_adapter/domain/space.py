"""
Spaces: a person's private one, and business ones that belong to a group of persons (ESP-01 to ESP-19, ESP-35).

Whoever is no member of a space is told that it does not exist.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, select, update

from portal_adapter.domain import audit, nomination, product
from portal_adapter.domain.actor import FILL, MANAGE, RIGHTS, Actor, check_right
from portal_adapter.domain.fields import Fields, folded, masked
from portal_adapter.domain.ids import new_id, new_identifier, read_identifier
from portal_adapter.fsm import Machine
from portal_adapter.language import msgid
from portal_adapter.refusal import Refusal, Unmet, guard, not_found, stale
from portal_adapter.settings import Business, Limits
from portal_adapter.store.schema import accounts, members, spaces

FORMS = ("legal_person", "self_employed", "association")
PROFILES = ("particulier", "exploitant", "employeur")
REGISTRATION_CHARACTERS_MAX = 64  # of whatever register

# An operator suspends a space, and takes that back.
SPACE = Machine(
    spaces, "state", "active",
    {("active", "suspend"): "suspended", ("suspended", "resume"): "active"},
    {
        "active": msgid("This space is active: it can be suspended."),
        "suspended": msgid("This space is suspended: it can be resumed."),
    },
)  # fmt: skip

# An administrator asks for it, an operator sets it, or takes it back (ESP-18).
CERTIFICATION = Machine(
    spaces, "certification", "no",
    {
        ("no", "ask"): "asked",
        ("no", "certify"): "yes",
        ("asked", "certify"): "yes",
        ("asked", "uncertify"): "no",
        ("yes", "uncertify"): "no",
    },
    {
        "no": msgid("This space is not certified: its administrator can ask for it."),
        "asked": msgid("Certification of this space has been asked for: the help desk decides."),
        "yes": msgid("This space is certified."),
    },
)  # fmt: skip


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


def may_fill(space: Mapping[str, Any]) -> bool:
    """Whether the actor of `of` is offered what needs the right to fill."""
    return FILL in RIGHTS[space["role"]] and space["state"] == "active"


def check_active(space: Mapping[str, Any]) -> None:
    """A suspended space can only be read."""
    if space["state"] != "active":
        raise guard("space-suspended", "This space is suspended: it can only be read. Ask the help desk.")


def hold(connection: Connection, id_: str) -> None:
    """Nobody else changes the space, its team or its invitations before this transaction ends."""
    connection.execute(select(spaces.c.id).where(spaces.c.id == id_).with_for_update(key_share=True))


def held(connection: Connection, actor: Actor, id_: str, right: str = MANAGE) -> Mapping[str, Any]:
    """
    The space as it is now, with the actor's `role`, and held. Raises `not-found`, `forbidden`, and `guard-failed` for a
    suspended one.
    """
    hold(connection, id_)
    query = (
        select(spaces, members.c.role)
        .join(members, members.c.space == spaces.c.id)
        .where(spaces.c.id == id_, members.c.account == actor.account)
    )
    row = connection.execute(query).mappings().first()  # after the lock: what others did is seen
    if row is None:
        raise not_found()
    found = dict(row)
    check_right(found["role"], right)
    check_active(found)
    return found


def check_product(connection: Connection, actor: Actor, space: Mapping[str, Any], business: Business) -> None:
    """Raise `auth-too-weak` where a business space is entered with a product that is not good enough for it (TOK-04)."""
    if space["kind"] == "business":
        product.check_professional(connection, actor, business)


def check_founder(connection: Connection, actor: Actor, business: Business) -> None:
    """Raise unless the actor may create a business space (TOK-04, ESP-21)."""
    product.check_professional(connection, actor, business)
    nomination.check(connection, actor, business)


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
    profiles = _profiles(form)
    fields.check()
    if connection.execute(select(spaces.c.id).where(spaces.c.owner == actor.account)).first() is not None:
        raise guard("private-space-exists", "You have a private space already.", "/spaces")
    return _make(
        connection, actor, kind="private", owner=actor.account, form="", title=actor.name, company="", registration="",
        sole=None, email=email, profiles=" ".join(profiles), role="owner",
    )  # fmt: skip


def create_business(
    connection: Connection, actor: Actor, form: dict[str, str], business: Business, limits: Limits
) -> str:
    """Answers its identifier; whoever creates it is its administrator (ESP-02, ESP-04, ESP-07 to ESP-10, ESP-13)."""
    check_founder(connection, actor, business)
    fields = Fields(form)
    kind = fields.choice("kind", FORMS)
    fields.read_only("family", actor.family)
    fields.read_only("given", actor.given)
    if "identifier" in form:
        fields.refuse("identifier", "read-only", "This cannot be changed here.")
    administered = _administered(connection, actor)
    values = _business_data(fields, administered, business, limits)
    fields.check()
    if len(administered) >= business.spaces_max:
        raise guard("too-many-spaces", "You administer as many spaces as one person may.", "/spaces")
    _check_single(connection, values, business)
    return _make(connection, actor, kind="business", owner=None, form=kind, profiles="", role="administrator", **values)


def change(
    connection: Connection, actor: Actor, id_: str, form: dict[str, str], business: Business, limits: Limits
) -> None:
    """
    The data of a space, by who manages it: of a business one title, company, registration number and e-mail address; of a
    private one e-mail address and profiles. Its identifier, kind and names stay. Raises `stale` for another version.
    """
    now = held(connection, actor, id_)
    fields = Fields(form)
    seen = fields.version()
    fields.read_only("identifier", now["identifier"])
    fields.read_only("kind", now["form"])
    fields.read_only("family", actor.family)
    fields.read_only("given", actor.given)
    if now["kind"] == "business":
        others = [one for one in _administered(connection, actor) if one["id"] != id_]
        values = _business_data(fields, others, business, limits)
    else:
        values = {"email": fields.email("email", most=limits.email), "profiles": " ".join(_profiles(form))}
    fields.check()
    if seen != now["version"]:
        raise stale(now["version"])
    changed = sorted(name for name in values.keys() - {"sole"} if values[name] != now[name])
    if now["kind"] == "business":
        _check_single(connection, values, business, but=id_)
    connection.execute(update(spaces).where(spaces.c.id == id_).values(version=seen + 1, **values))
    audit.note(
        connection, actor.now, "space-changed", account=actor.account, space=id_, address=actor.address, fields=changed
    )


def folded_title(title: str) -> str:
    """Titles are compared without regard to case (ESP-07)."""
    return title.casefold()


def registration_key(number: str) -> str:
    """As registration numbers are compared (ESP-13): without case, blanks and punctuation; empty where nothing else is in one."""
    return folded(number)


def administrators(connection: Connection, space: str) -> list[Mapping[str, Any]]:
    query = (
        select(accounts.c.id, accounts.c.email, accounts.c.language)
        .join(members, members.c.account == accounts.c.id)
        .where(members.c.space == space, members.c.role == "administrator")
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def _profiles(form: Mapping[str, str]) -> list[str]:
    return [one for one in PROFILES if form.get(f"profile_{one}")] or ["particulier"]


def _administered(connection: Connection, actor: Actor) -> list[Mapping[str, Any]]:
    """What the actor administers; it stays so until the transaction ends, for she makes or changes one at a time."""
    connection.execute(select(accounts.c.id).where(accounts.c.id == actor.account).with_for_update(key_share=True))
    return [one for one in all_of(connection, actor.account) if one["role"] == "administrator"]


def _business_data(
    fields: Fields, others: list[Mapping[str, Any]], business: Business, limits: Limits
) -> dict[str, str | None]:
    """`others` are the spaces that this title is to be told apart from (ESP-07)."""
    title = fields.text("title", most=limits.space_title)
    if title and any(folded_title(one["title"]) == folded_title(title) for one in others):
        fields.refuse("title", "duplicate", "You administer a space of this title already.")
    registration = fields.text(
        "registration", most=REGISTRATION_CHARACTERS_MAX, least=1 if business.single_space else 0
    )
    key = registration_key(registration)
    if business.single_space and registration and not key:
        fields.refuse("registration", "no-number", "This is no number: it has neither digits nor letters.")
    return {
        "title": title,
        "company": fields.text("company", most=limits.company_name),
        "registration": registration,
        "email": fields.email("email", most=limits.email),
        "sole": key if business.single_space else None,
    }


def _check_single(
    connection: Connection, values: Mapping[str, Any], business: Business, *, but: str | None = None
) -> None:
    """
    Raise where the business has another space, and say whom to ask (ESP-13). Spaces that are older than the setting
    count, too. Who of two comes first at the same moment is settled by the unique key `sole`.
    """
    if not business.single_space:
        return
    rows = connection.execute(select(spaces.c.id, spaces.c.registration).where(spaces.c.kind == "business"))
    found = next(
        (one.id for one in rows if registration_key(one.registration) == values["sole"] and one.id != but), None
    )
    if found is not None:
        message = "This business has a space already. Ask its administrator to invite you."
        raise Refusal(
            "guard-failed", message, reason="business-space-exists", unmet=[Unmet("business-space-exists", message)],
            administrator=", ".join(masked(one["email"]) for one in administrators(connection, found)),
        )  # fmt: skip


def _make(connection: Connection, actor: Actor, *, role: str, **values: Any) -> str:
    id_, identifier = new_id(), new_identifier()
    connection.execute(
        insert(spaces).values(
            id=id_, identifier=identifier, state=SPACE.first, certification=CERTIFICATION.first, created=actor.now,
            **values,
        )
    )  # fmt: skip
    connection.execute(insert(members).values(space=id_, account=actor.account, role=role, since=actor.now))
    audit.note(
        connection, actor.now, "space-created", account=actor.account, space=id_, address=actor.address,
        kind=values["kind"],
    )  # fmt: skip
    return identifier
