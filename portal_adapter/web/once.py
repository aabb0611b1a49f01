"""
A form that is posted twice leads where it led the first time; with something else in it (by the browser's way back) it is
another one.

The key is taken before anything is done, so that a twin waits for it, and then finds where it has led. Where an answer
has a cookie nothing is kept of it: such a view looks after its twin itself.
"""

from collections.abc import Callable

from sqlalchemy import Connection, delete, insert, select, update

from portal_adapter.store.schema import posted
from portal_adapter.web.answer import Answer, Redirect

POSTED_S = 8 * 3600  # as long as a session may be


def once(connection: Connection, now: int, owner: str, key: str, view: Callable[[], Answer]) -> Answer:
    """`owner` is the browser or session, `key` the form with all that is in it; both hashed."""
    mine = (posted.c.form == key) & (posted.c.owner == owner)
    if (location := connection.execute(select(posted.c.location).where(mine)).scalar()) is not None:
        return Redirect(location)
    connection.execute(delete(posted).where(posted.c.time < now - POSTED_S))
    connection.execute(insert(posted).values(form=key, owner=owner, location="", time=now))
    answer = view()
    if isinstance(answer, Redirect) and not answer.outside and not answer.cookies:
        connection.execute(update(posted).where(mine).values(location=answer.location))
    else:
        connection.execute(delete(posted).where(mine))
    return answer
