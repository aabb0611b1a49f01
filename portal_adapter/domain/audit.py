"""The audit: one line for each transition, login, refused transition, download by staff, and mail. Only ever added to."""

import json
from typing import Any

from sqlalchemy import Connection, insert

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
    """In the transaction of what it tells of. `detail` holds no secret."""
    connection.execute(
        insert(audit).values(
            time=now, account=account, space=space, event=event, outcome=outcome, address=address,
            detail=json.dumps(detail, ensure_ascii=False, sort_keys=True),
        )
    )  # fmt: skip
