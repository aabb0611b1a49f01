"""
What somebody has allowed, in the store: issued once, redeemed by one request.

A reference is 256 random bits; the store has its SHA-256, so that who reads the store can redeem nothing. The request that
redeems it first has it for good: the same one may come again (attempt 2 of the same items), no other.
"""

import hashlib
import secrets
from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, or_, select, update

from signer.errors import Refusal
from signer.gate import SKEW_S, Authorised, Redemption, Terms, check
from signer.store import authorisations

REFERENCE_BYTES = 32
KEEP_S = 24 * 3600  # after its end: who comes late is told AUTHZ_EXPIRED, and what was signed may be asked for again
_COUNT_BYTES = 2


def name_of(reference: bytes) -> bytes:
    """What the store and the ledger know it by."""
    return hashlib.sha256(reference).digest()


def issue(
    connection: Connection, subject: str, authorised_by: str, terms: Terms, now: float, lifetime_s: float
) -> bytes:
    """The reference of a new authorisation, which only its bearer has."""
    reference = secrets.token_bytes(REFERENCE_BYTES)
    connection.execute(
        insert(authorisations).values(
            hash=name_of(reference),
            subject=subject,
            authorised_by=authorised_by,
            caller=terms.caller,
            credential=terms.credential,
            key=terms.key,
            output=terms.output,
            algorithm=terms.algorithm,
            inputs=_joined(terms.inputs),
            digests=_joined(terms.digests),
            count=terms.count,
            issued=int(now),
            expires=int(now + lifetime_s),
        )
    )
    return reference


def redeem(connection: Connection, reference: bytes, asked: Redemption, now: float) -> Authorised:
    """Give it to this request, for good; raises `Refusal` AUTHZ_*."""
    table = authorisations
    row = connection.execute(select(table).where(table.c.hash == name_of(reference))).one_or_none()
    if row is None:
        raise Refusal("AUTHZ_UNKNOWN")
    terms = Terms(
        row.caller, row.credential, row.key, row.output, row.algorithm, _parts(row.inputs), _parts(row.digests)
    )
    found = Authorised(row.subject, terms, row.issued, row.expires, row.request)
    check(found, asked, now)
    mine = or_(table.c.request.is_(None), table.c.request == asked.request)
    taken = update(table).where(table.c.hash == row.hash, mine).values(request=asked.request)
    if connection.execute(taken).rowcount != 1:  # another daemon was quicker
        raise Refusal("AUTHZ_USED")
    return found


def revoke(connection: Connection, subject: str) -> None:
    """What a subject has allowed and nobody has redeemed is allowed no more."""
    table = authorisations
    connection.execute(delete(table).where(table.c.subject == subject, table.c.request.is_(None)))


def end_all(connection: Connection) -> None:
    """The clock that their times were taken from was wrong."""
    connection.execute(update(authorisations).values(expires=authorisations.c.issued))


def erase(connection: Connection, now: float) -> None:
    """What is long over, and what is from a time to come: the clock was put back, and it must not live again then."""
    table = authorisations
    old = or_(table.c.expires < int(now) - KEEP_S, table.c.issued > now + SKEW_S)
    connection.execute(delete(table).where(old))


def _joined(parts: Sequence[bytes]) -> bytes:
    return b"".join(len(part).to_bytes(_COUNT_BYTES, "big") + part for part in parts)


def _parts(data: bytes) -> tuple[bytes, ...]:
    found, start = [], 0
    while start < len(data):
        end = start + _COUNT_BYTES + int.from_bytes(data[start : start + _COUNT_BYTES], "big")
        found.append(data[start + _COUNT_BYTES : end])
        start = end
    return tuple(found)
