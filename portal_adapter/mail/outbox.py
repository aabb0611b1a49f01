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
from typing import Any

from sqlalchemy import Connection, insert

from portal_adapter.domain.fields import is_email
from portal_adapter.domain.ids import new_id
from portal_adapter.language import LANGUAGES
from portal_adapter.mail.message import check
from portal_adapter.store.schema import outbox


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
