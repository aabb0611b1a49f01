"""
Sessions and forms: cookies whose SHA-256 is what the database knows, and form tokens that are made from them.

A browser without a session has a visitor's cookie instead, so that a login can only be finished where it was begun, and a
form posted only by who was shown it. A session's token is new with each login (ASVS 7.2.4). It ends after 15 minutes
without a request, after 8 hours, by logout, or when its product is removed or revoked: that is asked at every request.
What logins hang on is changed in a session that is young (ASVS 7.5.1): whoever finds a browser that somebody has left does
not make her account his.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, select, update

from portal_adapter.domain.actor import Actor
from portal_adapter.domain.ids import hashed, new_secret
from portal_adapter.settings import Limits
from portal_adapter.store.schema import accounts, products, sessions

SESSION_COOKIE, VISITOR_COOKIE, LANGUAGE_COOKIE = "__Host-session", "__Host-visitor", "__Host-language"
SEEN_EVERY_S = 5  # a session's last request is written down no more often
FRESH_S = 10 * 60  # as long as another product takes to be found and presented
_KEPT_S = 86400  # an ended session, for whoever looks into what happened


@dataclass(frozen=True, slots=True)
class Session:
    actor: Actor
    token: str  # SHA-256
    language: str
    seen: int  # when its last request was written down
    ends: int  # when it ends, unless there is another request
    certificate: bytes  # that it was opened with
    created: int


def open_session(connection: Connection, now: int, account: str, fingerprint: str) -> str:
    """Answers the token, which is only in the browser's cookie."""
    token = new_secret()
    connection.execute(
        insert(sessions).values(token=hashed(token), account=account, fingerprint=fingerprint, created=now, seen=now)
    )
    return token


def find(connection: Connection, now: int, token: str, limits: Limits, address: str) -> Session | None:
    """The session of a cookie, if it has not ended and its product is still registered."""
    query = (
        select(sessions, accounts, products.c.certificate)
        .join(accounts, accounts.c.id == sessions.c.account)
        .join(products, (products.c.fingerprint == sessions.c.fingerprint) & (products.c.account == accounts.c.id))
        .where(sessions.c.token == hashed(token), sessions.c.ended.is_(None))
    )
    row = connection.execute(query).mappings().first()
    if row is None:
        return None
    absolute = row["created"] + limits.session_s
    if now >= min(row["seen"] + limits.idle_s, absolute):
        return None
    actor = Actor(
        row["account"], row["family"], row["given"], row["email"], row["fingerprint"], row["token"], now, address
    )
    ends = min(now + limits.idle_s, absolute)
    return Session(actor, row["token"], row["language"], row["seen"], ends, row["certificate"], row["created"])


def is_fresh(now: int, session: Session) -> bool:
    return now - session.created <= FRESH_S


def is_due(now: int, session: Session) -> bool:
    """Whether its last request is to be written down again."""
    return now - session.seen >= SEEN_EVERY_S


def seen(connection: Connection, now: int, session: Session) -> None:
    connection.execute(
        update(sessions).where(sessions.c.token == session.token, sessions.c.ended.is_(None)).values(seen=now)
    )


def end(connection: Connection, now: int, token: str) -> bool:
    """`token` is the hashed one; False where it had ended already."""
    mine = update(sessions).where(sessions.c.token == token, sessions.c.ended.is_(None))
    return bool(connection.execute(mine.values(ended=now)).rowcount)


def end_all(connection: Connection, now: int, account: str, *, fingerprint: str | None = None) -> None:
    """Of an account; or only those opened with one certificate."""
    wanted = (sessions.c.account == account) & sessions.c.ended.is_(None)
    if fingerprint is not None:
        wanted &= sessions.c.fingerprint == fingerprint
    connection.execute(update(sessions).where(wanted).values(ended=now))


def open_of(connection: Connection, now: int, limits: Limits, account: str) -> list[dict[str, Any]]:
    """A person's own, the newest first, each with its product."""
    query = (
        select(sessions.c.token, sessions.c.created, sessions.c.seen, products.c.kind, products.c.number)
        .join(products, (products.c.fingerprint == sessions.c.fingerprint) & (products.c.account == account))
        .where(sessions.c.account == account, is_open(now, limits))
        .order_by(sessions.c.created.desc(), sessions.c.token)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def end_others(connection: Connection, now: int, account: str, token: str) -> int:
    """All of an account but the one whose hashed token this is; answers how many."""
    wanted = (sessions.c.account == account) & (sessions.c.token != token) & sessions.c.ended.is_(None)
    return connection.execute(update(sessions).where(wanted).values(ended=now)).rowcount


def is_open(now: int, limits: Limits) -> ColumnElement[bool]:
    """Of a row: what `find` finds, where its product is still registered."""
    return and_(
        sessions.c.ended.is_(None), sessions.c.seen > now - limits.idle_s, sessions.c.created > now - limits.session_s
    )


def forget(connection: Connection, now: int, limits: Limits) -> None:
    """What ended a day ago, by logout or by the clock."""
    over = (sessions.c.ended < now - _KEPT_S) | (sessions.c.created < now - limits.session_s - _KEPT_S)
    connection.execute(delete(sessions).where(over))


def form_token(key: bytes, cookie: str) -> str:
    """What a form of this browser carries (ASVS 3.5.1): of the cookie, which other origins cannot read."""
    return hmac.new(key, b"form\0" + cookie.encode(), hashlib.sha256).hexdigest()


def is_form_token(key: bytes, cookie: str, token: str) -> bool:
    return hmac.compare_digest(form_token(key, cookie).encode(), token.encode("utf-8", "replace"))
