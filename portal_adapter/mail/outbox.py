"""
The outbox: a mail is a row, written in the transaction of its cause, so that there is one exactly where the cause is.

    queue      in that transaction
    claim      one that is due, for so long as a lease lasts: of several instances one has it
    settle     sent, to be tried again later, or given up
    stop       not sent any more, for its cause is over

Whoever dies between the mail server's word and `settle` has the mail sent once more when the lease is over, with the same
bytes and the same Message-ID: a mail is never lost, and twice only then.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, insert, select, update

from portal_adapter.domain import audit
from portal_adapter.domain.fields import is_email, masked
from portal_adapter.domain.ids import new_id
from portal_adapter.language import LANGUAGES
from portal_adapter.mail.message import check
from portal_adapter.store import leased
from portal_adapter.store.schema import outbox

STATES = ("queued", "sent", "failed")
GIVEN_UP_KEPT_S = 14 * 86400  # for an operator to try again: as long as an invitation is open
TRIES_MAX = 26  # over four days: RFC 5321, 4.5.4.1, has four or five


def queue(
    connection: Connection, now: int, recipient: str, language: str, template: str, data: Mapping[str, Any]
) -> None:
    """
    `template` and its `data` are those of `message.TEMPLATES`: exactly its fields. Raises `ValueError` for anything else,
    which is a mistake of ours: what people typed is checked before.
    """
    if not is_email(recipient) or language not in LANGUAGES:
        raise ValueError(f"{template}: an e-mail address and one of {', '.join(LANGUAGES)} are wanted")
    check(template, data)
    connection.execute(
        insert(outbox).values(
            id=new_id(), created=now, recipient=recipient, language=language, template=template,
            data=json.dumps(data, ensure_ascii=False, sort_keys=True), state="queued", next=now,
        )
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Claimed:
    """A mail that this instance has until `until`, and nobody else."""

    id: str
    created: int
    recipient: str
    language: str
    template: str
    data: Mapping[str, Any]
    tries: int  # this one included
    until: int


def claim(engine: Engine, now: int) -> Claimed | None:
    """The one that has waited longest; None where nothing is due."""
    row = leased.claim(engine, outbox, now)
    if row is None:
        return None
    return Claimed(
        row["id"], row["created"], row["recipient"], row["language"], row["template"], json.loads(row["data"]),
        row["tries"], row["claimed"],
    )  # fmt: skip


def settle(connection: Connection, now: int, one: Claimed, *, error: str = "", is_final: bool = False) -> None:
    """
    Sent where there is no error; else tried again after a while, or given up: `is_final`, or tried too often.

    Of what was sent nothing stays but which and when, and to whom masked: a link in it is its receiver's alone. A lease that
    was over meanwhile settles nothing.
    """
    values = leased.settled(now, one.tries, "sent", error, tries_max=TRIES_MAX, is_final=is_final)
    if not error:
        values |= _forgotten(one.recipient)
    mine = update(outbox).where(outbox.c.id == one.id, leased.is_held(outbox, one.until))
    if connection.execute(mine.values(**values)).rowcount and "state" in values:
        audit.note(
            connection, now, "mail", outcome="done" if not error else "given-up", mail=one.id, template=one.template,
            tries=one.tries,
        )  # fmt: skip


def retry(connection: Connection, now: int, id_: str) -> bool:
    """
    One that was given up, or waits, is due at once, as often as a new one; False where there is none such, or what it says
    is forgotten.
    """
    again = update(outbox).where(outbox.c.id == id_, leased.may_retry(outbox, now), outbox.c.data != "{}")
    return bool(connection.execute(again.values(**leased.WAITING, next=now)).rowcount)


def stop(connection: Connection, now: int, template: str, is_over: Callable[[Mapping[str, Any]], bool]) -> None:
    """
    Give up what has not been sent and whose data `is_over` says so, and forget what it says: nobody can try it again. One
    that is on its way to the mail server this very moment is not held back.
    """
    unsent = (outbox.c.template == template) & outbox.c.state.in_(("queued", "failed")) & (outbox.c.data != "{}")
    for row in connection.execute(select(outbox).where(unsent)).mappings().all():
        if is_over(json.loads(row["data"])):
            values = {"state": "failed", "settled": now, "error": "stopped: its cause is over"}
            mine = update(outbox).where(outbox.c.id == row["id"], outbox.c.state.in_(("queued", "failed")))
            if connection.execute(mine.values(**values, **_forgotten(row["recipient"]))).rowcount:
                audit.note(connection, now, "mail", outcome="stopped", mail=row["id"], template=template)


def forget(connection: Connection, now: int) -> None:
    """What a mail says that was given up long ago, and to whom: it is not sent any more, and a link in it is over."""
    old = (outbox.c.state == "failed") & (outbox.c.settled < now - GIVEN_UP_KEPT_S) & (outbox.c.data != "{}")
    for row in connection.execute(select(outbox.c.id, outbox.c.recipient).where(old)).all():
        connection.execute(update(outbox).where(outbox.c.id == row.id, old).values(_forgotten(row.recipient)))


def _forgotten(recipient: str) -> dict[str, str]:
    return {"data": "{}", "recipient": masked(recipient)}


def listed(connection: Connection, state: str = "") -> list[dict[str, Any]]:
    """For operators: the newest first, without what they say."""
    names = ("id", "created", "recipient", "language", "template", "state", "tries", "next", "error", "settled")
    query = select(*(outbox.c[name] for name in names)).order_by(outbox.c.created.desc(), outbox.c.id)
    if state:
        query = query.where(outbox.c.state == state)
    return [dict(row) for row in connection.execute(query).mappings()]
