"""The bare domain of procedures: a space, a definition, and what the views do in one transaction."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select, update

from portal_adapter.definitions.answers import Answers, canonical, kept
from portal_adapter.definitions.catalogue import SHIPPED, Catalogue
from portal_adapter.definitions.definition import Definition
from portal_adapter.domain import attachment, desk, draft, procedure, sending, space
from portal_adapter.domain.announcing import Announcing
from portal_adapter.domain.attachment import Given
from portal_adapter.domain.ids import new_id
from portal_adapter.domain.procedure import Row
from portal_adapter.settings import Attachments, Limits, Settings
from portal_adapter.store import schema
from portal_adapter.store.database import reading, writing
from tests.portal.place import ORIGIN
from tests.portal.team import Bare, business_form

CATALOGUE = Catalogue.read(SHIPPED)
ADDRESS = CATALOGUE.versions["change-of-address", 1]
LEASE = CATALOGUE.versions["transfer-of-lease", 1]
ANNOUNCING = Announcing(ORIGIN)
# Whole answers of the lease's form, in which one more is hidden.
WHOLE = {
    "premises": "1 Mill Lane", "landlord": "Charles", "on": "2026-12-01", "deposit": "yes", "account": "LU280019400644750000",
}  # fmt: skip

_CONTENT = {
    "media_type": "image/png", "size": 1, "sha256": "0" * 64, "file": "f" * 32, "scan": "clean", "scan_note": "",
    "scan_tries": 0, "scan_next": 0,
}  # fmt: skip


class Desk:
    """Ada's private and business space; what is done there is done as the views do it."""

    def __init__(self, state: Path, url: str | None = None) -> None:
        self.bare = Bare(state, url)
        self.engine = self.bare.engine
        self.settings = Settings.model_construct(limits=Limits(attachments=3), attachments=Attachments())
        self.ada = self.bare.person("Ada")
        self.bob = self.bare.person("Bob", "Babbage")
        with writing(self.engine) as connection:
            own = space.create_private(connection, self.ada.actor(), {"email": "a@example.org"}, self.bare.limits)
            team = space.create_business(
                connection, self.ada.actor(), business_form(), self.bare.business, self.bare.limits
            )
            self.private = space.of(connection, self.ada.actor(), own)
            self.business = space.of(connection, self.ada.actor(), team)

    def create(self, connection: Connection, where: Mapping[str, Any], definition: Definition, now: int) -> str:
        return procedure.create(connection, self.ada.actor(now), where, definition, {}, {})

    def save(
        self, connection: Connection, where: Mapping[str, Any], reference: str, form: Mapping[str, str], now: int
    ) -> list[str]:
        row = procedure.held(connection, where["id"], reference)
        definition = definition_of(row)
        step = definition.step[0]
        found = draft.read(definition, step, row["answers"], form)
        assert not found.errors
        after = draft.after(definition, step, found.answers)
        return procedure.save(connection, self.ada.actor(now), row, "/at", found.answers, after, int(form["version"]))

    def confirm(self, connection: Connection, where: Mapping[str, Any], reference: str, version: int, now: int) -> None:
        """The PDF is made here of the row that is held; the file is its name alone."""
        row = procedure.held(connection, where["id"], reference)
        definition = definition_of(row)
        procedure.check_confirmable(row, definition, "en", "/at", version)
        sha256 = sum_of(definition, row["answers"])
        procedure.confirm(connection, self.ada.actor(now), row, definition, sha256[:32], sha256)

    def copy(self, connection: Connection, where: Mapping[str, Any], reference: str, now: int) -> str:
        row = procedure.of(connection, where["id"], reference)
        return procedure.copy(connection, self.ada.actor(now), where, row, CATALOGUE.current(row["definition"]))

    def remove(
        self, connection: Connection, where: Mapping[str, Any], reference: str, form: Mapping[str, str], now: int
    ) -> list[str]:
        row = procedure.held(connection, where["id"], reference)
        return procedure.remove(connection, self.ada.actor(now), row, "/at", form)

    def fire(
        self, connection: Connection, where: Mapping[str, Any], reference: str, event: str, now: int, **values: Any
    ) -> str:
        """An event of another part, as that part fires it."""
        row = procedure.held(connection, where["id"], reference)
        return procedure.fire(connection, self.ada.actor(now), row, event, **values)

    def send(self, connection: Connection, where: Mapping[str, Any], reference: str, version: int, now: int) -> int:
        row = procedure.held(connection, where["id"], reference)
        definition = definition_of(row)
        return sending.send(
            connection, self.ada.actor(now), row, definition, CATALOGUE.administrations, ANNOUNCING, at="/at",
            seen=version, language="en",
        )  # fmt: skip

    def agent(self, connection: Connection, reference: str, event: str, form: Mapping[str, str], now: int) -> None:
        """What an agent of the town hall, where the lease's form goes, does with it."""
        row = desk.of(connection, LEASE.administration, reference, hold=True)
        bob, limits = self.bob.actor(now), self.bare.limits
        if event == "accept":
            desk.accept(connection, bob, row, ANNOUNCING, form)
        elif event == "ask_correction":
            desk.ask_correction(connection, bob, row, definition_of(row), ANNOUNCING, form, limits)
        else:
            desk.close(connection, bob, row, definition_of(row), ANNOUNCING, form, limits)

    def signs(self, reference: str, now: int) -> None:
        """As if what is confirmed had been."""
        with writing(self.engine) as connection:
            query = select(schema.procedures).where(schema.procedures.c.reference == reference)
            row = connection.execute(query).mappings().one()
            procedure.fire(connection, self.ada.actor(now), dict(row), "sign", signature="valid")
            connection.execute(
                insert(schema.signatures).values(
                    id=new_id(), procedure=row["id"], number=1, account=self.ada.account, credential="ada",
                    fingerprint="0" * 64, file=new_id(), sha256="0" * 64, form_sha256=row["form_sha256"], approved=1,
                    time=now,
                )
            )  # fmt: skip

    def attach(
        self, connection: Connection, where: Mapping[str, Any], reference: str, slot: str, replaces: str, now: int
    ) -> None:
        """Into the slot, or beside; the bytes are a name alone."""
        row, given = procedure.held(connection, where["id"], reference), Given("", "other", "a", _CONTENT)
        attachment.check_attachable(row, self.settings)
        if slot:
            actor, definition = self.ada.actor(now), definition_of(row)
            attachment.fill(connection, actor, row, "/at", definition, slot, replaces, given, self.settings)
        else:
            attachment.add(connection, self.ada.actor(now), row, "/at", given, self.settings)

    def detach(self, connection: Connection, where: Mapping[str, Any], reference: str, id_: str, now: int) -> None:
        row = procedure.held(connection, where["id"], reference)
        attachment.remove(connection, self.ada.actor(now), row, id_, {"confirmed": "yes"}, self.settings)

    def attached(self, where: Mapping[str, Any], reference: str) -> list[Row]:
        with reading(self.engine) as connection:
            return attachment.of_procedure(connection, procedure.of(connection, where["id"], reference))

    def row(self, where: Mapping[str, Any], reference: str) -> Row:
        with reading(self.engine) as connection:
            return procedure.of(connection, where["id"], reference)

    def sets(self, reference: str, **values: Any) -> None:
        with writing(self.engine) as connection:
            connection.execute(
                update(schema.procedures).where(schema.procedures.c.reference == reference).values(**values)
            )

    def references(self) -> set[str]:
        with reading(self.engine) as connection:
            return set(connection.execute(select(schema.procedures.c.reference)).scalars())

    def close(self) -> None:
        self.bare.close()


def sum_of(definition: Definition, answers: Answers) -> str:
    """What stands for the hash of the form that these answers make."""
    return hashlib.sha256(canonical(kept(definition, answers))).hexdigest()


def definition_of(row: Row) -> Definition:
    return CATALOGUE.version(row["definition"], row["definition_version"])
