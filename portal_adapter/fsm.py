"""
State machines as tables {(state, event): target}, whose every step the database judges.

    INVITATION = Machine(invitations, "state", "sent", {("sent", "accept"): "accepted"}, {"accepted": "It was accepted."})
    INVITATION.fire(connection, row, "accept", invitee=account)

Whoever fires an event says which row he has seen. The step is one UPDATE that names the row's state and version: of two
that come at once one finds it, and the other changes nothing and is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, select, update

from portal_adapter.refusal import Refusal, not_found, stale


@dataclass(frozen=True, slots=True)
class Machine:
    """
    `table` has the columns id and version, and the state in `column`; `first` is a new row's. What is not in `steps` is
    forbidden. `said` has a msgid for each state: what it is, and what can be done in it.
    """

    table: Table
    column: str
    first: str
    steps: Mapping[tuple[str, str], str]
    said: Mapping[str, str]

    def allowed(self, state: str) -> list[str]:
        """The events of a state, in the table's order."""
        return [event for before, event in self.steps if before == state]

    def target(self, state: str, event: str) -> str:
        """Raises `forbidden-transition`."""
        if (state, event) not in self.steps:
            raise Refusal(
                "forbidden-transition", self.said[state],
                state=state, event=event, allowed=self.allowed(state),
            )  # fmt: skip
        return self.steps[state, event]

    def fire(self, connection: Connection, seen: Mapping[str, Any], event: str, /, **values: Any) -> str:
        """
        Answers the new state; `values` are written with it. Raises `forbidden-transition` where the event is not allowed
        in the state that was seen, or in the one that it is meanwhile in; `stale` where only the version has changed.
        """
        target = self.target(seen[self.column], event)
        rows, state = self.table.c, self.table.c[self.column]
        step = (
            update(self.table)
            .where(rows.id == seen["id"], state == seen[self.column], rows.version == seen["version"])
            .values({self.column: target, "version": seen["version"] + 1, **values})
        )
        if connection.execute(step).rowcount == 1:
            return target
        now = connection.execute(select(state, rows.version).where(rows.id == seen["id"])).first()
        if now is None:
            raise not_found()
        self.target(now[0], event)
        raise stale(now[1])
