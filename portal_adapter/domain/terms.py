"""The general terms: who has accepted which version (ESP-03). A new version asks everybody again."""

from sqlalchemy import Connection, insert, select

from portal_adapter.domain import audit
from portal_adapter.domain.actor import Actor
from portal_adapter.domain.fields import Fields
from portal_adapter.refusal import guard
from portal_adapter.store.schema import acceptances


def are_accepted(connection: Connection, account: str, version: str) -> bool:
    found = select(acceptances.c.version).where(acceptances.c.account == account, acceptances.c.version == version)
    return connection.execute(found).first() is not None


def check(connection: Connection, account: str, version: str) -> None:
    """Raise `guard-failed` `terms-not-accepted`."""
    if not are_accepted(connection, account, version):
        raise guard("terms-not-accepted", "Accept the general terms first.", "/terms")


def accept(connection: Connection, actor: Actor, version: str, form: dict[str, str]) -> None:
    """
    Repeating it changes nothing. `form` has the version that was read, where a page has shown it: another one that came
    meanwhile is not accepted by it.
    """
    fields = Fields(form)
    if form.get("version", version) != version:
        fields.refuse("accepted", "other-version", "The general terms have changed meanwhile. Read them again.")
    fields.ticked("accepted", "Tick the box to accept the general terms.")
    fields.check()
    if are_accepted(connection, actor.account, version):
        return
    connection.execute(insert(acceptances).values(account=actor.account, version=version, accepted=actor.now))
    audit.note(connection, actor.now, "terms-accepted", account=actor.account, address=actor.address, version=version)
