"""
Messages to people as rows of the database: queued, claimed before each try, settled after it.

    QUEUED     waits, or is being sent: then `next` is when whoever sends it must be gone
    SENT       the server has taken it
    GIVEN_UP   it was refused for good, or its time was over: `error` says why

A claim is an UPDATE that counts the try and succeeds for one daemon only. Address and text may be a secret: they are
sealed (cipher.py) for this one row, and erased with it once it is settled.
"""

import hmac
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import ColumnElement, Connection, Engine, Select, case, delete, func, insert, or_, select, update
from sqlalchemy.engine import Row

from signer.cipher import KEY_BYTES, Cipher, Unreadable
from signer.clock import Clock
from signer.contact import Contact, Kind
from signer.message import Language, Message, Template
from signer.store import outbox

CLAIM_S = 45  # longer than a try (notify.py): then its sender is gone
RETRY_FIRST_S = 2  # after a failure; twice as long each time ...
RETRY_MAX_S = 300  # ... up to this: a server that is back gets what waits within five minutes
CONTACT_ROWS_MAX = (
    10  # waiting for one contact: so many codes are asked for only while its server is away, or by an abuser
)
ROWS_MAX = 1_000  # waiting in all, 1 kB each: an hour of codes, one each four seconds; more would come too late anyway
KEEP_S = 7 * 24 * 3600  # settled rows, for whoever asks why nothing came
_ADDRESS, _BODY = 0, 1  # what of a row is sealed
_ERASED: dict[str, None] = {"contact": None, "address": None, "body": None}


class OutboxFull(Exception):
    """The message was not queued, so what it tells of should not be done either; the message says what to do."""


class RowUnreadable(Exception):
    """It was sealed with another key, or changed."""


class State(StrEnum):
    QUEUED = "QUEUED"
    SENT = "SENT"
    GIVEN_UP = "GIVEN_UP"


@dataclass(frozen=True, slots=True)
class Failure:
    """Of one try: what may be written down and logged; `is_final`: another one would end the same way."""

    text: str
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    state: State
    next: int
    error: str


def settled(tries: int, expires: int, now: int, failure: Failure | None) -> Settled:
    """What becomes of a row after so many tries, the last of which ended so. Times are seconds since the epoch."""
    if failure is None:
        return Settled(State.SENT, now, "")
    if failure.is_final or now >= expires:
        return Settled(State.GIVEN_UP, now, failure.text)
    delay_s = min(RETRY_FIRST_S * 2 ** (tries - 1), RETRY_MAX_S)
    return Settled(State.QUEUED, min(now + delay_s, expires), failure.text)


@dataclass(frozen=True, slots=True)
class Claim:
    """A row that this daemon sends now. Times are seconds since the epoch."""

    id: str
    kind: str
    contact: bytes  # its tag
    template: str
    created: int
    expires: int
    tries: int  # this one with them
    address: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Look:
    """What the rows were at one moment."""

    claims: list[Claim]
    given_up: int  # because their time was over
    waiting: int
    oldest: int | None  # when the oldest of these was added
    next: int | None  # when one is due that waits for no end of what is being sent here


class Queue:
    """For any thread. The engine is that of `open_store`; the key has 32 bytes, and is not in the database."""

    def __init__(self, engine: Engine, key: bytes, clock: Clock) -> None:
        self._engine = engine
        self._cipher = Cipher(key)
        self._tag_key = _tag_key(key)
        self._clock = clock

    def now(self) -> int:
        return int(self._clock.wall().timestamp())

    def add(self, connection: Connection, contact: Contact, message: Message, expires: datetime) -> str:
        """A row more in the caller's transaction; answers its id, a UUID. Raises `OutboxFull`."""
        tag = _tag(self._tag_key, contact.kind, contact.address)
        waiting = select(func.count()).where(outbox.c.state == State.QUEUED)
        if connection.execute(waiting.where(outbox.c.contact == tag)).scalar_one() >= CONTACT_ROWS_MAX:
            raise OutboxFull(
                f"{CONTACT_ROWS_MAX} messages wait for {contact.masked}; ask again when they have come, or see why its "
                "server does not take them"
            )
        if connection.execute(waiting).scalar_one() >= ROWS_MAX:
            raise OutboxFull(f"{ROWS_MAX} messages wait; see to the mail server, the log has what it answers")
        id_, now, ends = str(uuid.uuid4()), self.now(), int(expires.timestamp())
        context = _context(id_, contact.kind, message.template, now, ends)
        connection.execute(
            insert(outbox).values(
                id=id_,
                created=now,
                expires=ends,
                kind=contact.kind,
                contact=tag,
                address=self._cipher.seal(context, _ADDRESS, contact.address),
                template=message.template,
                body=self._cipher.seal(context, _BODY, [message.language, message.subject, message.text]),
                tries=0,
                next=now,
                state=State.QUEUED,
                error="",
            )
        )
        return id_

    def opened(self, claim: Claim) -> tuple[Contact, Message]:
        """Raises `RowUnreadable`."""
        context = _context(claim.id, claim.kind, claim.template, claim.created, claim.expires)
        try:
            address = self._cipher.open(context, _ADDRESS, claim.address)
            language, subject, text = self._cipher.open(context, _BODY, claim.body)
            message = Message(Template(claim.template), Language(language), subject, text)
            return Contact(Kind(claim.kind), address), message
        except (Unreadable, ValueError):
            raise RowUnreadable("the row was sealed with another key, or changed") from None

    def look(self, mails: int, webhooks: int, ours: Collection[Claim]) -> Look:
        """
        Claim what is due, so many of each kind, and one of each contact: `ours` are being sent here, however long that takes,
        and what else is for their contacts waits for them.
        """
        now, is_queued, busy = self.now(), outbox.c.state == State.QUEUED, [claim.contact for claim in ours]
        # Nothing is ever to be looked at later than that: a row that says so is from before the clock was put back.
        is_due = or_(outbox.c.next <= now, outbox.c.next > now + RETRY_MAX_S)
        is_mail = outbox.c.kind == Kind.EMAIL
        with self._engine.begin() as connection:
            connection.execute(delete(outbox).where(outbox.c.state != State.QUEUED, outbox.c.next < now - KEEP_S))
            given_up = _give_up_old(connection, now, [claim.id for claim in ours])
            due = _first_of_each(is_queued, is_due, outbox.c.contact.not_in(busy))
            found = [
                *connection.execute(due.where(is_mail).limit(mails)),
                *connection.execute(due.where(~is_mail).limit(webhooks)),
            ]
            # Two daemons claim in one order, so that they do not wait for each other.
            rows = sorted(found, key=lambda row: str(row.id))
            claims = [claim for row in rows if (claim := _claimed(connection, row, now)) is not None]
            known = select(func.count(), func.min(outbox.c.created)).where(is_queued)
            waiting, oldest = connection.execute(known).one()
            ahead = select(func.min(outbox.c.next)).where(
                is_queued, outbox.c.contact.not_in([*busy, *(claim.contact for claim in claims)])
            )
            sent = sum(claim.kind == Kind.EMAIL for claim in claims)
            if sent >= mails:
                ahead = ahead.where(~is_mail)
            if len(claims) - sent >= webhooks:
                ahead = ahead.where(is_mail)
            return Look(claims, given_up, waiting, oldest, connection.execute(ahead).scalar_one())

    def settle(self, claim: Claim, what: Settled) -> None:
        """What was sent is sent, whoever else has claimed it meanwhile; any other end is theirs to write then."""
        change = update(outbox).where(outbox.c.id == claim.id, outbox.c.state == State.QUEUED)
        if what.state is not State.SENT:
            change = change.where(outbox.c.tries == claim.tries)
        erased = {} if what.state is State.QUEUED else _ERASED
        with self._engine.begin() as connection:
            connection.execute(change.values(state=what.state, next=what.next, error=what.error, **erased))


def rekey(connection: Connection, old: bytes, new: bytes) -> int:
    """Seal what waits with another key; answers how many. Raises `RowUnreadable`, and then nothing is to be changed."""
    before, after, tag_key = Cipher(old), Cipher(new), _tag_key(new)
    waiting = connection.execute(select(outbox).where(outbox.c.state == State.QUEUED)).all()
    for row in waiting:
        context = _context(row.id, row.kind, row.template, row.created, row.expires)
        try:
            address, body = before.open(context, _ADDRESS, row.address), before.open(context, _BODY, row.body)
        except Unreadable:
            raise RowUnreadable(f"the message {row.id} waits, and was not sealed with the old key") from None
        values = {"address": after.seal(context, _ADDRESS, address), "body": after.seal(context, _BODY, body)}
        values["contact"] = _tag(tag_key, row.kind, address)
        connection.execute(update(outbox).where(outbox.c.id == row.id).values(**values))
    return len(waiting)


def _tag_key(key: bytes) -> bytes:
    return HKDF(hashes.SHA256(), KEY_BYTES, None, b"paraph outbox contact 1").derive(key)


def _tag(tag_key: bytes, kind: str, address: str) -> bytes:
    """By which what waits for one contact is counted."""
    return hmac.digest(tag_key, f"{kind} {address}".encode(), "sha256")


def _give_up_old(connection: Connection, now: int, ours: Collection[str]) -> int:
    """How many; what another daemon is sending now has a `next` to come."""
    is_old = (outbox.c.state == State.QUEUED, outbox.c.expires <= now, outbox.c.next <= now)
    error = case((outbox.c.error == "", "its time was over before it was tried"), else_=outbox.c.error)
    change = update(outbox).where(*is_old, outbox.c.id.not_in(ours))
    return connection.execute(change.values(state=State.GIVEN_UP, next=now, error=error, **_ERASED)).rowcount


def _first_of_each(*which: ColumnElement[bool]) -> Select[Any]:
    """Of each contact the row that is due first."""
    order = (outbox.c.next, outbox.c.id)
    place = func.row_number().over(partition_by=outbox.c.contact, order_by=order).label("place")
    placed = select(outbox.c.id, place).where(*which).subquery()
    firsts = select(placed.c.id).where(placed.c.place == 1)
    return select(outbox).where(outbox.c.id.in_(firsts)).order_by(*order)


def _claimed(connection: Connection, row: Row[Any], now: int) -> Claim | None:
    """None where another daemon was faster."""
    is_as_seen = (outbox.c.id == row.id, outbox.c.state == State.QUEUED, outbox.c.tries == row.tries)
    change = update(outbox).where(*is_as_seen).values(tries=row.tries + 1, next=now + CLAIM_S)
    if connection.execute(change).rowcount != 1:
        return None
    return Claim(
        row.id, row.kind, row.contact, row.template, row.created, row.expires, row.tries + 1, row.address, row.body
    )


def _context(id_: str, kind: str, template: str, created: int, expires: int) -> bytes:
    """What the sealed parts belong to: nothing that stands beside them can be changed, nor they be put elsewhere."""
    return f"outbox {id_} {kind} {template} {created} {expires}".encode()
