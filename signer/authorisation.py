"""
What somebody has allowed, in the store: issued once, redeemed by one request.

A reference is 256 random bits; the store has its SHA-256, so that who reads the store can redeem nothing. The request that
redeems it first has it for good: the same one may come again (attempt 2 of the same items), no other.
"""

import hashlib
import secrets

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from signer.chain import items_hash
from signer.errors import Refusal
from signer.gate import SKEW_S, Authorised, Redemption, Terms, check
from signer.store import authorisations, authorised_documents

REFERENCE_BYTES = 32
KEEP_S = 24 * 3600  # after its end: who comes late is told AUTHZ_EXPIRED, and what was signed may be asked for again


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
            inputs=items_hash(terms.inputs) if all(terms.inputs) else "",
            digests=items_hash(terms.digests) if all(terms.digests) else "",
            count=terms.count,
            issued=int(now),
            expires=int(now + lifetime_s),
        )
    )
    if all(terms.inputs) and not any(terms.digests):  # they come one by one, in a stream
        documents = insert(authorised_documents).values(hash=name_of(reference), inputs=b"".join(terms.inputs))
        connection.execute(documents)
    return reference


def redeem(connection: Connection, reference: bytes, asked: Redemption, now: float) -> Authorised:
    """Give it to this request, for good; raises `Refusal` AUTHZ_*."""
    table = authorisations
    row = connection.execute(select(table).where(table.c.hash == name_of(reference))).one_or_none()
    if row is None:
        raise Refusal("AUTHZ_UNKNOWN")
    found = Authorised(
        subject=row.subject,
        caller=row.caller,
        credential=row.credential,
        key=row.key,
        output=row.output,
        algorithm=row.algorithm,
        count=row._mapping["count"],  # noqa: SLF001 -- a row has a method of that name
        inputs=row.inputs,
        digests=row.digests,
        document=_document(connection, row.hash, asked.item),
        issued=row.issued,
        expires=row.expires,
        request=row.request,
    )
    check(found, asked, now)
    mine = or_(table.c.request.is_(None), table.c.request == asked.request)
    taken = update(table).where(table.c.hash == row.hash, mine).values(request=asked.request)
    if connection.execute(taken).rowcount != 1:  # another daemon was quicker
        raise Refusal("AUTHZ_USED")
    return found


def revoke(connection: Connection, subject: str) -> None:
    """What a subject has allowed and nobody has redeemed is allowed no more."""
    table = authorisations
    mine = (table.c.subject == subject) & table.c.request.is_(None)
    gone = select(table.c.hash).where(mine)
    connection.execute(delete(authorised_documents).where(authorised_documents.c.hash.in_(gone)))
    connection.execute(delete(table).where(mine))


def end_all(connection: Connection) -> None:
    """The clock that their times were taken from was wrong."""
    connection.execute(update(authorisations).values(expires=authorisations.c.issued))


def erase(connection: Connection, now: float) -> None:
    """What is long over, and what is from a time to come: the clock was put back, and it must not live again then."""
    table = authorisations
    old = or_(table.c.expires < int(now) - KEEP_S, table.c.issued > now + SKEW_S)
    documents = authorised_documents
    connection.execute(delete(documents).where(documents.c.hash.in_(select(table.c.hash).where(old))))
    connection.execute(delete(table).where(old))


def _document(connection: Connection, name: bytes, item: int) -> bytes:
    """The SHA-256 of the document in this place."""
    if item < 0:
        return b""
    table, size = authorised_documents, hashlib.sha256().digest_size
    part = select(func.substr(table.c.inputs, item * size + 1, size)).where(table.c.hash == name)
    return bytes(connection.execute(part).scalar_one_or_none() or b"")
