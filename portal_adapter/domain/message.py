"""
Messages about a procedure that was sent, from either side to the other (MSG-01 to MSG-06, TRK-08, TRK-09). They stay as they
were sent, and are numbered as they come. One that the other side has not opened yet is unread; opening it notes who did, and
when.

A message does not change the version of its procedure: whoever is filling in its form meanwhile is not disturbed.
"""

from collections.abc import Mapping

from sqlalchemy import Connection, func, insert, select, update

from portal_adapter.definitions.definition import Definition
from portal_adapter.domain import audit, marks
from portal_adapter.domain.actor import Actor
from portal_adapter.domain.fields import Fields
from portal_adapter.domain.ids import is_id, new_id
from portal_adapter.domain.procedure import PROCEDURE, Row
from portal_adapter.refusal import Refusal, Unmet, not_found
from portal_adapter.settings import Limits
from portal_adapter.store.schema import accounts, messages

APPLICANT, ADMINISTRATION = "applicant", "administration"
PAGE = 20  # messages on one page
_HOUR_S = 3600


def check_sent(row: Row) -> None:
    """Raise `forbidden-transition` before it is (MSG-01)."""
    allowed = PROCEDURE.allowed(row["status"])
    if "write" not in allowed:
        raise Refusal(
            "forbidden-transition", "Messages can be written once the procedure is sent.", state=row["status"],
            event="write", allowed=allowed,
        )  # fmt: skip


def unmet_to_write(definition: Definition) -> list[Unmet]:
    """Of the applicant's side; an administration may always write (MSG-01)."""
    if definition.messaging:
        return []
    message = "This procedure takes no messages: the administration may write, and you cannot answer here."
    return [Unmet("messaging-off", message)]


def write(connection: Connection, actor: Actor, row: Row, side: str, form: Mapping[str, str], limits: Limits) -> str:
    """
    Answers its id. `row` is held, and in a status in which it may be written. Raises `validation`, `rate-limited`: each side
    has its own limit, so that neither silences the other.
    """
    fields = Fields(form)
    subject = fields.text("subject", most=limits.message_subject)
    body = fields.text("body", most=limits.message_body, lines=True)
    fields.check()
    who = f"{row['id']} {side}"
    marks.check(connection, actor.now, "message", who, limits.messages_an_hour, _HOUR_S)
    marks.mark(connection, actor.now, "message", who)
    id_ = new_id()
    connection.execute(
        insert(messages).values(
            id=id_, procedure=row["id"], number=count(connection, row) + 1, time=actor.now, side=side,
            account=actor.account, subject=subject, body=body,
        )
    )  # fmt: skip
    _note(connection, actor, row, "message-sent", id_, side)
    return id_


def open_(connection: Connection, actor: Actor, row: Row, reader: str, id_: str) -> None:
    """Read by a side, for all of it: the first time counts. Raises `not-found`, for one's own side's, too."""
    found = (messages.c.id == id_) & (messages.c.procedure == row["id"]) & (messages.c.side != reader)
    if not is_id(id_) or connection.execute(select(messages.c.id).where(found)).first() is None:
        raise not_found()
    first = update(messages).where(found, messages.c.read.is_(None))
    if connection.execute(first.values(read=actor.now, read_by=actor.account)).rowcount:
        _note(connection, actor, row, "message-read", id_, reader)


def count(connection: Connection, row: Row) -> int:
    query = select(func.count()).where(messages.c.procedure == row["id"])
    return int(connection.execute(query).scalar_one())


def unread(connection: Connection, row: Row, reader: str) -> int:
    """Of the other side, by nobody of this one."""
    found = (messages.c.procedure == row["id"]) & (messages.c.side != reader) & messages.c.read.is_(None)
    return int(connection.execute(select(func.count()).where(found)).scalar_one())


def listed(connection: Connection, row: Row, page: int) -> list[Row]:
    """A page of them, the newest first, with `by` and `reader`, names."""
    readers = accounts.alias()
    query = (
        select(
            messages, accounts.c.given, accounts.c.family, readers.c.given.label("reader_given"),
            readers.c.family.label("reader_family"),
        )
        .join(accounts, accounts.c.id == messages.c.account)
        .outerjoin(readers, readers.c.id == messages.c.read_by)
        .where(messages.c.procedure == row["id"])
        .order_by(messages.c.number.desc())
        .limit(PAGE)
        .offset((page - 1) * PAGE)
    )  # fmt: skip
    return [
        {
            **one,
            "by": f"{one['given']} {one['family']}",
            "reader": "" if one["read"] is None else f"{one['reader_given']} {one['reader_family']}",
        }
        for one in connection.execute(query).mappings()
    ]


def _note(connection: Connection, actor: Actor, row: Row, event: str, id_: str, side: str) -> None:
    audit.note(
        connection, actor.now, event, account=actor.account, space=row["space"], address=actor.address,
        procedure=row["reference"], message=id_, side=side,
    )  # fmt: skip
