"""The audit: one line for each transition, login, refused transition, download by staff, and mail. Only ever added to."""

import json
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, insert, select

from portal_adapter.store.database import say
from portal_adapter.store.schema import audit


def note(
    connection: Connection,
    now: int,
    event: str,
    *,
    account: str = "",
    space: str = "",
    outcome: str = "done",
    address: str = "",
    **detail: Any,
) -> None:
    """
    In the transaction of what it tells of, and then in the log, which goes to another machine (ASVS 16.4.3). `detail` holds
    no secret.
    """
    line = {
        "time": now, "account": account, "space": space, "event": event, "outcome": outcome, "address": address,
        "detail": json.dumps(detail, ensure_ascii=False, sort_keys=True),
    }  # fmt: skip
    connection.execute(insert(audit).values(line))
    say(connection, f"audit {json.dumps({**line, 'detail': detail}, sort_keys=True)}")


def lines(connection: Connection, since: int) -> Iterator[dict[str, Any]]:
    """From a time on, the oldest first; `detail` is a mapping."""
    query = select(audit).where(audit.c.time >= since).order_by(audit.c.id)
    for row in connection.execution_options(yield_per=500).execute(query).mappings():
        yield {**row, "detail": json.loads(row["detail"])}
