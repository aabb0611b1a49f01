"""
To whom a renewed product belongs: her account, if there is exactly one product that it can be the renewal of (TOK-06).

It has the account's names, is of the same kind (a Signing Server's, or a card or stick), and was not removed from that
account before: what a person has taken away comes back by her own hand only, while she is logged in.
"""

import json
from dataclasses import dataclass

from sqlalchemy import Connection, select

from portal_adapter.auth.certificate import Certificate
from portal_adapter.auth.renewal import is_renewal
from portal_adapter.domain.fields import folded
from portal_adapter.store.schema import accounts, audit, products


@dataclass(frozen=True, slots=True)
class Renewed:
    """The product whose renewal it is."""

    account: str
    kind: str
    number: str
    fingerprint: str


def of(connection: Connection, certificate: Certificate, *, is_server: bool) -> Renewed | None:
    """None where nobody's product is renewed by it, or where it could be more than one person's account."""
    of_these_names = accounts.c.names == names(certificate.family, certificate.given)
    found = {
        row["account"]: Renewed(row["account"], row["kind"], row["number"], row["fingerprint"])
        for row in connection.execute(select(products).join(accounts).where(of_these_names)).mappings()
        if (row["kind"] == "server") is is_server and is_renewal(certificate.der, row["certificate"])
    }
    if len(found) != 1:
        return None
    one = next(iter(found.values()))
    return None if _was_removed(connection, one.account, certificate.fingerprint) else one


def names(family: str, given: str) -> str:
    """As they are compared; letters and digits alone, so that the blank between them is the only one."""
    return f"{folded(family)} {folded(given)}"


def _was_removed(connection: Connection, account: str, fingerprint: str) -> bool:
    removals = select(audit.c.detail).where(
        audit.c.account == account, audit.c.event == "product-removed", audit.c.outcome == "done"
    )
    return any(json.loads(one)["fingerprint"] == fingerprint for one in connection.execute(removals).scalars())
