"""What a space is told by mail about its procedures: MAIL-01, MAIL-10, MAIL-11. A link leads to everything else."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from portal_adapter.definitions.definition import Both
from portal_adapter.domain import procedure
from portal_adapter.domain.actor import Actor
from portal_adapter.mail import outbox
from portal_adapter.store.schema import accounts, members, spaces

Row = Mapping[str, Any]
# What a portal may announce (settings, mail.announce). That a procedure is to be corrected is announced always.
DEFAULT = ("received", "message")


@dataclass(frozen=True, slots=True)
class Service:
    """The administration in charge, and how people reach it."""

    name: Both
    reach: Both


@dataclass(frozen=True, slots=True)
class Announcing:
    """`origin` is the portal's, `chosen` what it announces beside what it must."""

    origin: str
    chosen: Collection[str] = DEFAULT

    def received(self, connection: Connection, actor: Actor, row: Row, service: Service) -> None:
        """SUB-08, in the language of who has sent it."""
        if "received" not in self.chosen:
            return
        language = self._language(connection, actor.account)
        data = {
            "reference": row["reference"], "time": actor.now, "service": service.name.in_(language),
            "reach": service.reach.in_(language), "link": self._link(connection, row),
        }  # fmt: skip
        outbox.queue(connection, actor.now, self._space(connection, row)["email"], language, "received", data)

    def message(self, connection: Connection, actor: Actor, row: Row) -> None:
        """MSG-05: without a word of it."""
        if "message" not in self.chosen:
            return
        language = self._language(connection, row["sent_by"])
        data = {"link": self._link(connection, row, "/messages")}
        outbox.queue(connection, actor.now, self._space(connection, row)["email"], language, "message", data)

    def status(self, connection: Connection, actor: Actor, row: Row, status: str) -> None:
        """COR-02: where something is to be corrected, to the member who sent it, too, so long as she is one."""
        if status not in {"to_be_corrected", *self.chosen}:
            return
        space, language = self._space(connection, row), self._language(connection, row["sent_by"])
        recipients = {space["email"]: language}
        if status == "to_be_corrected" and space["kind"] == "business":
            sender = (
                select(accounts.c.email, accounts.c.language)
                .join(members, members.c.account == accounts.c.id)
                .where(accounts.c.id == row["sent_by"], members.c.space == space["id"])
            )
            recipients |= {one.email: one.language for one in connection.execute(sender)}
        data = {"status": status, "reference": row["reference"], "link": self._link(connection, row)}
        for recipient, spoken in recipients.items():
            outbox.queue(connection, actor.now, recipient, spoken, "status", data)

    def _space(self, connection: Connection, row: Row) -> Row:
        return dict(connection.execute(select(spaces).where(spaces.c.id == row["space"])).mappings().one())

    def _link(self, connection: Connection, row: Row, end: str = "") -> str:
        return f"{self.origin}{procedure.path(self._space(connection, row), row)}{end}"

    def _language(self, connection: Connection, account: str) -> str:
        return str(connection.execute(select(accounts.c.language).where(accounts.c.id == account)).scalar_one())
