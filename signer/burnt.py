"""
What a restore takes from people, because it may have been used in the range that is lost: nothing of theirs counts twice.

Authorisations that nobody has redeemed, as far as the backup knows, and one-time codes that were sent are gone; a TOTP's
codes up to now are used; an enrolment code is sent anew. A HOTP device's counter cannot be known: of the codes that it made
in the lost range the next two could still be used, by whoever saw them and has the person's secret code as well.
"""

import secrets
from datetime import UTC, datetime

from sqlalchemy import Connection, delete, select, update

from signer.gate import Factor
from signer.otp import STEP_S
from signer.store import authorisations, authorised_documents, enrolments, sent_codes, subjects


def burn(connection: Connection) -> int:
    """Within a restore's transaction; answers how many authorisations were open."""
    unredeemed = authorisations.c.request.is_(None)
    documents = authorised_documents
    open_ = select(authorisations.c.hash).where(unredeemed)
    connection.execute(delete(documents).where(documents.c.hash.in_(open_)))
    count = connection.execute(delete(authorisations).where(unredeemed)).rowcount
    connection.execute(delete(sent_codes))
    connection.execute(update(enrolments).values(is_sent=0, code=secrets.token_bytes(32)))
    step = int(datetime.now(UTC).timestamp()) // STEP_S
    older = (subjects.c.factor == Factor.TOTP.value) & (subjects.c.last < step)
    connection.execute(update(subjects).where(older).values(last=step))
    return count
