"""
The outbox: a mail is a row, written in the transaction of its cause, so that there is one exactly where the cause is.

    queue      in that transaction
    claim      one that is due, for so long as a lease lasts: of several instances one has it
    settle     sent, to be tried again later, or given up

Whoever dies between the mail server's word and `settle` has the mail sent once more when the lease is over, with the same
bytes and the same Message-ID: a mail is never lost, and twice only then.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, insert, select, update

from portal_adapter.domain import audit
from portal_adapter.domain.fields import is_email
from portal_adapter.domain.ids import new_id
from portal_adapter.language import LANGUAGES
from portal_adapter.mail.message import check
from portal_adapter.store.database import reading, writing
from portal_adapter.store.schema import outbox

STATES = ("queued", "sent", "failed")
LEASE_S = 5 * 60  # longer than a sender takes (sender.py), whatever the mail server does
FIRST_WAIT_S = 60
LONGEST_WAIT_S = 6 * 3600
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
    """The one that has waited longest; None where nothing is due, which takes no lock."""
    due = (outbox.c.state == "queued") & (outbox.c.next <= now) & (outbox.c.claimed <= now)
    while True:
        with reading(engine) as connection:
            oldest = select(outbox).where(due).order_by(outbox.c.next, outbox.c.created).limit(1)
            row = connection.execute(oldest).mappings().first()
        if row is None:
            return None
        until, tries = now + LEASE_S, row["tries"] + 1
        with writing(engine) as connection:
            mine = update(outbox).where(outbox.c.id == row["id"], outbox.c.tries == row["tries"], due)
            if connection.execute(mine.values(claimed=until, tries=tries)).rowcount:
                return Claimed(
                    row["id"], row["created"], row["recipient"], row["language"], row["template"],
                    json.loads(row["data"]), tries, until,
                )  # fmt: skip


def settle(connection: Connection, now: int, one: Claimed, *, error: str = "", is_final: bool = False) -> None:
    """
    Sent where there is no error; else tried again after a while, or given up: `is_final`, or tried too often.

    Of what was sent nothing stays but to whom, when and which: a link in it is its receiver's alone. A lease that was over
    meanwhile settles nothing.
    """
    if not error:
        values: dict[str, Any] = {"state": "sent", "settled": now, "data": "{}", "error": ""}
    elif is_final or one.tries >= TRIES_MAX:
        values = {"state": "failed", "settled": now, "error": error}
    else:
        values = {"next": now + min(FIRST_WAIT_S * 2 ** (one.tries - 1), LONGEST_WAIT_S), "claimed": 0, "error": error}
    mine = update(outbox).where(outbox.c.id == one.id, outbox.c.state == "queued", outbox.c.claimed == one.until)
    if connection.execute(mine.values(**values)).rowcount and "state" in values:
        audit.note(
            connection, now, "mail", outcome="done" if not error else "given-up", mail=one.id, template=one.template,
            tries=one.tries,
        )  # fmt: skip


def retry(connection: Connection, now: int, id_: str) -> bool:
    """One that was given up is due again, as often as a new one; False where there is none such, or what it says is forgotten."""
    again = update(outbox).where(outbox.c.id == id_, outbox.c.state == "failed", outbox.c.data != "{}")
    values = {"state": "queued", "tries": 0, "next": now, "claimed": 0, "settled": None}
    return bool(connection.execute(again.values(**values)).rowcount)


def forget(connection: Connection, now: int) -> None:
    """What a mail says that was given up long ago: it is not sent any more, and a link in it is over."""
    old = (outbox.c.state == "failed") & (outbox.c.settled < now - GIVEN_UP_KEPT_S) & (outbox.c.data != "{}")
    connection.execute(update(outbox).where(old).values(data="{}"))


def listed(connection: Connection, state: str = "") -> list[dict[str, Any]]:
    """For operators: the newest first, without what they say."""
    names = ("id", "created", "recipient", "language", "template", "state", "tries", "next", "error", "settled")
    query = select(*(outbox.c[name] for name in names)).order_by(outbox.c.created.desc(), outbox.c.id)
    if state:
        query = query.where(outbox.c.state == state)
    return [dict(row) for row in connection.execute(query).mappings()]
