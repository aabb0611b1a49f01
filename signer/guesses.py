"""
How often somebody may be wrong: attempts are counted before they are looked at, and taken back where they prove right.

So a crash in the middle costs an attempt, and gives none.
With ten wrong attempts a day and codes of six digits, which may be the present one or the one before, a one-time code is
guessed on a day with a probability of 2 in 100 000.
"""

import math
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select

from signer.errors import Refusal
from signer.store import guesses

SHORT_S, DAY_S = 15 * 60, 24 * 3600
# Whoever counts in PostgreSQL has this advisory lock until the attempt is written: others would not see it before.
_LOCK = int.from_bytes(b"guesses")


@dataclass(frozen=True, slots=True)
class Limit:
    column: str
    short: int  # wrong attempts within SHORT_S
    day: int  # ... and within DAY_S


# A source may be a whole office behind one address: it has more, so that its people do not lock each other out.
LIMITS = (Limit("subject", 5, 10), Limit("credential", 5, 10), Limit("source", 30, 200))


def begin(connection: Connection, subject: str, credential: str, source: str, now: float) -> int:
    """
    Count an attempt, from which it is wrong until `right` says otherwise; answers its number. An empty name is not
    counted; without any there is no number (0). Raises `Refusal` OTP_LOCKED with the time after which there is another.
    """
    if not (subject or credential or source):
        return 0
    given = {"subject": subject, "credential": credential, "source": source}
    if connection.dialect.name == "postgresql":  # SQLite's transactions exclude one another
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    for limit in LIMITS:
        if given[limit.column]:
            _check(connection, limit, given[limit.column], now)
    # Rounded up: cut off, it would be forgotten a part of a second too early.
    added = connection.execute(insert(guesses).values(**given, time=math.ceil(now)))
    number: int = added.inserted_primary_key[0]  # type: ignore[index]
    return number


def right(connection: Connection, number: int) -> None:
    """It was no wrong one."""
    connection.execute(delete(guesses).where(guesses.c.id == number))


def lock_by(connection: Connection, subject: str, number: int, now: float) -> float | None:
    """
    Until when a subject is locked, if this attempt was the one that used up the last of hers: of several at one moment it
    is the one that was counted last. None otherwise.
    """
    newest = connection.execute(select(func.max(guesses.c.id)).where(guesses.c.subject == subject)).scalar_one()
    return locked_until(connection, subject, now) if newest == number else None


def locked_until(connection: Connection, subject: str, now: float) -> float | None:
    """When a subject that has just used up its attempts has another; None while it has one."""
    try:
        _check(connection, LIMITS[0], subject, now)
    except Refusal as refusal:
        return now + (refusal.retry_s or 0.0)
    return None


def has(connection: Connection, subject: str) -> bool:
    """Whether there are attempts."""
    return connection.execute(select(guesses.c.id).where(guesses.c.subject == subject).limit(1)).first() is not None


def forgive(connection: Connection, subject: str) -> None:
    """An operator has seen to it."""
    connection.execute(delete(guesses).where(guesses.c.subject == subject))


def erase(connection: Connection, now: float) -> None:
    """What no limit counts any more."""
    connection.execute(delete(guesses).where(guesses.c.time < int(now) - DAY_S))


def _check(connection: Connection, limit: Limit, name: str, now: float) -> None:
    column = guesses.c[limit.column]
    newest = select(guesses.c.time).where(column == name, guesses.c.time > int(now) - DAY_S)
    times = list(connection.execute(newest.order_by(guesses.c.time.desc()).limit(limit.day)).scalars())
    for most, span_s in ((limit.short, SHORT_S), (limit.day, DAY_S)):
        if len(times) >= most and times[most - 1] > now - span_s:
            # The times are rounded up: the span itself is the most that is said.
            raise Refusal("OTP_LOCKED", limit.column, retry_s=min(span_s, times[most - 1] + span_s - now))
