"""
How often somebody may be wrong: attempts are counted before they are looked at, and taken back where they prove right.

So a crash in the middle costs an attempt, and gives none.
With ten wrong attempts a day and codes of six digits, which may be the present one or the one before, a one-time code is
guessed on a day with a probability of 2 in 100 000.
"""

import math
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select

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
    is_open: bool = False  # of those alone that anybody can make


SUBJECT = Limit("subject", 5, 10)
# Of these as many can be made by whoever knows the name of a credential: where a person logs in or changes her code and is
# not known. So nobody else's attempts take the last of hers: she signs, and logs in where she has done so before.
OPEN = Limit("subject", 3, 6, is_open=True)
# A source may be a whole office behind one address: it has more, so that its people do not lock each other out.
LIMITS = (SUBJECT, Limit("credential", 5, 10), Limit("source", 30, 200))


def begin(
    connection: Connection, subject: str, credential: str, source: str, now: float, *, is_open: bool = False
) -> int:
    """
    Count an attempt, from which it is wrong until `right` says otherwise; answers its number. An empty name is not
    counted; without any there is no number (0). `is_open`: anybody could make it. Raises `Refusal` OTP_LOCKED with the time
    after which there is another.
    """
    if not (subject or credential or source):
        return 0
    given = {"subject": subject, "credential": credential, "source": source}
    if connection.dialect.name == "postgresql":  # SQLite's transactions exclude one another
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    for limit in (*LIMITS, OPEN) if is_open else LIMITS:
        if given[limit.column]:
            _check(connection, limit, given[limit.column], now)
    # Rounded up: cut off, it would be forgotten a part of a second too early.
    added = connection.execute(insert(guesses).values(**given, time=math.ceil(now), is_open=int(is_open)))
    number: int = added.inserted_primary_key[0]  # type: ignore[index]
    return number


def right(connection: Connection, number: int) -> None:
    """It was no wrong one."""
    connection.execute(delete(guesses).where(guesses.c.id == number))


def lock_by(connection: Connection, subject: str, number: int, now: float) -> tuple[Limit, float] | None:
    """
    What locks a subject, and until when, if this attempt was the one that used up the last of hers: of several at one
    moment it is the one that was counted last. None otherwise.
    """
    for limit in (SUBJECT, OPEN):
        counted = select(func.max(guesses.c.id)).where(*_counts(limit, subject))
        until = _until(connection, limit, subject, now)
        if until is not None and connection.execute(counted).scalar_one() == number:
            return limit, until
    return None


def locked_until(connection: Connection, subject: str, now: float) -> float | None:
    """When a subject that has used up its attempts, or those of strangers, has another; None while it has one."""
    found = [_until(connection, limit, subject, now) for limit in (SUBJECT, OPEN)]
    return max((until for until in found if until is not None), default=None)


def _until(connection: Connection, limit: Limit, subject: str, now: float) -> float | None:
    try:
        _check(connection, limit, subject, now)
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
    newest = select(guesses.c.time).where(*_counts(limit, name), guesses.c.time > int(now) - DAY_S)
    times = list(connection.execute(newest.order_by(guesses.c.time.desc()).limit(limit.day)).scalars())
    for most, span_s in ((limit.short, SHORT_S), (limit.day, DAY_S)):
        if len(times) >= most and times[most - 1] > now - span_s:
            # The times are rounded up: the span itself is the most that is said.
            raise Refusal("OTP_LOCKED", limit.column, retry_s=min(span_s, times[most - 1] + span_s - now))


def _counts(limit: Limit, name: str) -> list[ColumnElement[bool]]:
    return [guesses.c[limit.column] == name, *([guesses.c.is_open == 1] if limit.is_open else [])]
