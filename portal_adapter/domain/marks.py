"""Limits of so many in so long, for an address, an account or a browser. RFC 6585, 4: the refusal says when to come back."""

from sqlalchemy import Connection, delete, func, insert, select

from portal_adapter.refusal import Refusal
from portal_adapter.store.schema import marks

_KEPT_S = 3600  # none of the limits looks further back


def mark(connection: Connection, now: int, kind: str, who: str) -> None:
    """One more; old ones are forgotten."""
    connection.execute(insert(marks).values(kind=kind, who=who, time=now))
    connection.execute(delete(marks).where(marks.c.time < now - _KEPT_S))


def check(connection: Connection, now: int, kind: str, who: str, most: int, within_s: int) -> None:
    """Raise `rate-limited` where there are already so many."""
    since = now - within_s
    found = (marks.c.kind == kind) & (marks.c.who == who) & (marks.c.time > since)
    count, first = connection.execute(select(func.count(), func.min(marks.c.time)).where(found)).one()
    if count >= most:
        oldest = now if first is None else first
        raise Refusal("rate-limited", "Too many tries. Please wait a moment.", retry_after_s=oldest + within_s - now)
