"""
Invitations into a business space (ESP-22, ESP-23): by mail, with a personal link that works once.

    sent -> accepted | refused | withdrawn | expired

Whoever opens the link logs in, and must have the names that were invited. An invitation whose time is over counts as
expired from that second on; `expire` writes it down later. Sending one again withdraws it and makes another: the old link
is over, and its mail is not sent any more.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, select

from portal_adapter.domain import audit, marks, nomination, product, team
from portal_adapter.domain import space as spaces
from portal_adapter.domain.actor import MANAGE, ROLES, Actor
from portal_adapter.domain.fields import Fields, folded
from portal_adapter.domain.ids import hashed, is_id, new_id, new_secret
from portal_adapter.domain.product import SERIAL_CHARACTERS_MAX, serial_key
from portal_adapter.fsm import Machine
from portal_adapter.language import LANGUAGES, msgid
from portal_adapter.mail import outbox
from portal_adapter.refusal import Refusal, invalid, not_found
from portal_adapter.settings import Business, Limits
from portal_adapter.store import schema
from portal_adapter.store.schema import accounts, invitations, members

INVITATION = Machine(
    invitations, "state", "sent",
    {
        ("sent", "accept"): "accepted",
        ("sent", "refuse"): "refused",
        ("sent", "expire"): "expired",
        ("sent", "withdraw"): "withdrawn",
    },
    {
        "sent": msgid("This invitation is open: it can be accepted, refused or withdrawn."),
        "accepted": msgid("This invitation was accepted: its person is a member."),
        "refused": msgid("This invitation was refused: you can invite the person again."),
        "expired": msgid("This invitation has expired: you can invite the person again."),
        "withdrawn": msgid("This invitation is withdrawn: you can invite the person again."),
    },
)  # fmt: skip
AN_HOUR_MAX = 30  # of one account: a team is invited in one go, and strangers are not written to in masses
_LINK = "/invitations/"  # before the token, in a mail
SHOWN_S = 90 * 86400  # a refused or expired one stays in the team's list for so long


def listed(connection: Connection, now: int, space: str) -> list[Mapping[str, Any]]:
    """The open ones and those that came to nothing by themselves, the newest first."""
    query = (
        select(invitations)
        .where(invitations.c.space == space)
        .where(
            (invitations.c.state == "sent")
            | (invitations.c.state.in_(("refused", "expired")) & (invitations.c.created > now - SHOWN_S))
        )
        .order_by(invitations.c.created.desc(), invitations.c.id)
    )
    return [_as_of(now, dict(row)) for row in connection.execute(query).mappings()]


def invite(
    connection: Connection, actor: Actor, id_: str, form: Mapping[str, str], origin: str, limits: Limits
) -> None:
    """Raises `validation` also for who is a member or invited already, and `rate-limited`."""
    space = team.held(connection, actor, id_, MANAGE)
    fields = Fields(form)
    given = fields.text("given", most=limits.person_name)
    family = fields.text("family", most=limits.person_name)
    email = fields.email("email", most=limits.email)
    role = fields.choice("role", ROLES)
    language = fields.choice("language", LANGUAGES)
    serial = fields.text("serial", most=SERIAL_CHARACTERS_MAX, least=0)
    who = _who(family, given, email)
    if any(_who(one["family"], one["given"], one["email"]) == who for one in team.listed(connection, id_)):
        fields.refuse("email", "already-member", "This person is a member already.")
    if any(_is_open(one) and _who(one["family"], one["given"], one["email"]) == who
           for one in listed(connection, actor.now, id_)):  # fmt: skip
        fields.refuse("email", "already-invited", "This person is invited already.")
    fields.check()
    person = {"given": given, "family": family, "email": email, "role": role, "language": language, "serial": serial}
    invitation = _send(connection, actor, space, person, origin, limits)
    _note(connection, actor, "invited", id_, invitation=invitation, role=role)


def withdraw(connection: Connection, actor: Actor, id_: str, invitation: str, form: Mapping[str, str]) -> None:
    """Raises `forbidden-transition` for one that is not open, and `stale`."""
    team.held(connection, actor, id_, MANAGE)
    _withdraw(connection, actor, id_, invitation, form)
    _note(connection, actor, "invitation-withdrawn", id_, invitation=invitation)


def resend(
    connection: Connection,
    actor: Actor,
    id_: str,
    invitation: str,
    form: Mapping[str, str],
    origin: str,
    limits: Limits,
) -> None:
    """Withdraw it, and send the same once more with a new link. Raises what `withdraw` does, and `rate-limited`."""
    space = team.held(connection, actor, id_, MANAGE)
    row = _withdraw(connection, actor, id_, invitation, form)
    person = {name: row[name] for name in ("given", "family", "email", "role", "language", "serial")}
    new = _send(connection, actor, space, person, origin, limits)
    _note(connection, actor, "invitation-resent", id_, invitation=new, instead_of=invitation)


def opened(connection: Connection, now: int, token: str) -> Mapping[str, Any]:
    """What a link leads to, with its space's `title` and the `inviter_name`; raises `not-found` and `gone`."""
    query = (
        select(
            invitations, schema.spaces.c.title, schema.spaces.c.kind, schema.spaces.c.identifier,
            accounts.c.given.label("inviter_given"), accounts.c.family.label("inviter_family"),
        )
        .join(schema.spaces, schema.spaces.c.id == invitations.c.space)
        .join(accounts, accounts.c.id == invitations.c.inviter)
        .where(invitations.c.token == hashed(token))
    )  # fmt: skip
    row = connection.execute(query).mappings().first()
    if row is None:
        raise not_found()
    found = {**_as_of(now, dict(row)), "inviter_name": f"{row['inviter_given']} {row['inviter_family']}"}
    if not _is_open(found):
        raise Refusal("gone", "This invitation is over. Ask whoever invited you for a new one.", reason=found["state"])
    return found


def check_person(connection: Connection, actor: Actor, invitation: Mapping[str, Any]) -> None:
    """Raise `forbidden` unless the actor, with the product of this session, is who was invited."""
    invited = (folded(invitation["family"]), folded(invitation["given"]))
    if invited != (folded(actor.family), folded(actor.given)):
        message = "This invitation is for somebody else. Log in with a product that has the names that were invited."
        raise Refusal("forbidden", message, reason="other-person")
    serial = serial_key(invitation["serial"])
    if serial and serial != serial_key(product.in_use(connection, actor).serial):
        message = "This invitation is for another certificate of yours. Log in with the one that was invited."
        raise Refusal("forbidden", message, reason="other-certificate")


def accept(connection: Connection, actor: Actor, token: str, business: Business) -> str:
    """
    Answers the identifier of the space. Raises `not-found`, `gone`, `forbidden` for who was not invited, `validation`
    `already-member`, and what entering a business space may: `auth-too-weak`, `guard-failed` for a suspended one.
    """
    found = _held(connection, actor, token)
    space = dict(connection.execute(select(schema.spaces).where(schema.spaces.c.id == found["space"])).mappings().one())
    spaces.check_active(space)
    spaces.check_product(connection, actor, space, business)
    if found["role"] == "administrator":
        nomination.check(connection, actor, business)
    is_member = (members.c.space == found["space"]) & (members.c.account == actor.account)
    if connection.execute(select(members.c.role).where(is_member)).first() is not None:
        raise invalid("invitation", "already-member", "You are a member of this space already.")
    INVITATION.fire(connection, found, "accept", invitee=actor.account)
    connection.execute(
        insert(members).values(space=found["space"], account=actor.account, role=found["role"], since=actor.now)
    )
    _note(connection, actor, "invitation-accepted", found["space"], invitation=found["id"], role=found["role"])
    return str(space["identifier"])


def refuse(connection: Connection, actor: Actor, token: str) -> None:
    """Raises `not-found`, `gone`, and `forbidden` for who was not invited."""
    found = _held(connection, actor, token)
    INVITATION.fire(connection, found, "refuse", invitee=actor.account)
    _note(connection, actor, "invitation-refused", found["space"], invitation=found["id"])


def expire(connection: Connection, now: int) -> int:
    """Write down whose time is over; answers how many."""
    due = select(invitations).where(invitations.c.state == "sent", invitations.c.expires <= now)
    done = 0
    for row in connection.execute(due.with_for_update(skip_locked=True)).mappings().all():
        INVITATION.fire(connection, dict(row), "expire")
        audit.note(connection, now, "invitation-expired", space=row["space"], invitation=row["id"])
        done += 1
    return done


def _send(
    connection: Connection, actor: Actor, space: Mapping[str, Any], person: dict[str, str], origin: str, limits: Limits
) -> str:
    marks.check(connection, actor.now, "invitation", actor.account, AN_HOUR_MAX, 3600)
    marks.mark(connection, actor.now, "invitation", actor.account)
    id_, token, expires = new_id(), new_secret(), actor.now + limits.invitation_s
    connection.execute(
        insert(invitations).values(
            id=id_, space=space["id"], token=hashed(token), state=INVITATION.first, created=actor.now, expires=expires,
            inviter=actor.account, **person,
        )
    )  # fmt: skip
    data = {
        "space": space["title"], "role": person["role"], "link": f"{origin}{_LINK}{token}",
        "inviter": actor.name, "expires": expires,
    }  # fmt: skip
    outbox.queue(connection, actor.now, person["email"], person["language"], "invitation", data)
    return id_


def _withdraw(
    connection: Connection, actor: Actor, id_: str, invitation: str, form: Mapping[str, str]
) -> Mapping[str, Any]:
    if not is_id(invitation):
        raise not_found()
    query = select(invitations).where(invitations.c.id == invitation, invitations.c.space == id_)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise not_found()
    fields = Fields(form)
    seen = fields.version()
    fields.check()
    found = _as_of(actor.now, dict(row))
    INVITATION.fire(connection, {**found, "version": seen}, "withdraw")
    outbox.stop(connection, actor.now, "invitation", lambda data: hashed(_token(data["link"])) == row["token"])
    return found


def _token(link: str) -> str:
    return link.rpartition(_LINK)[2]


def _held(connection: Connection, actor: Actor, token: str) -> Mapping[str, Any]:
    """An open invitation of the actor's, and nobody else decides it before this transaction ends."""
    spaces.hold(connection, opened(connection, actor.now, token)["space"])
    found = opened(connection, actor.now, token)
    check_person(connection, actor, found)
    return found


def _as_of(now: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """With the state that it has by the clock."""
    is_over = row["state"] == "sent" and now >= row["expires"]
    return {**row, "state": "expired" if is_over else row["state"]}


def _is_open(row: Mapping[str, Any]) -> bool:
    return str(row["state"]) == "sent"


def _who(family: str, given: str, email: str) -> tuple[str, str, str]:
    return folded(family), folded(given), email.casefold()


def _note(connection: Connection, actor: Actor, event: str, space: str, **detail: Any) -> None:
    audit.note(connection, actor.now, event, account=actor.account, space=space, address=actor.address, **detail)
