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
    found = {
        row["account"]: Renewed(row["account"], row["kind"], row["number"], row["fingerprint"])
        for account in _of_the_same_names(connection, certificate)
        for row in connection.execute(select(products).where(products.c.account == account)).mappings()
        if (row["kind"] == "server") is is_server and is_renewal(certificate.der, row["certificate"])
    }
    if len(found) != 1:
        return None
    one = next(iter(found.values()))
    return None if _was_removed(connection, one.account, certificate.fingerprint) else one


def _of_the_same_names(connection: Connection, certificate: Certificate) -> list[str]:
    names = (folded(certificate.family), folded(certificate.given))
    rows = connection.execute(select(accounts.c.id, accounts.c.family, accounts.c.given)).all()
    return [row.id for row in rows if (folded(row.family), folded(row.given)) == names]


def _was_removed(connection: Connection, account: str, fingerprint: str) -> bool:
    removals = select(audit.c.detail).where(
        audit.c.account == account, audit.c.event == "product-removed", audit.c.outcome == "done"
    )
    return any(json.loads(one)["fingerprint"] == fingerprint for one in connection.execute(removals).scalars())
