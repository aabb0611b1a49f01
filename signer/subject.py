"""
People: who they are to the service, where they are reached, and what they prove themselves with.

An operator names a subject and a contact, and may suspend; the code and the first one-time code are the person's own.
Enrolling somebody again takes everything away at once, waits, and tells the old contact: who has stolen an operator's
certificate cannot quietly become somebody else.
"""

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from enum import StrEnum

from sqlalchemy import Connection, delete, insert, select, update

from signer import authorisation, credential, guesses, otp
from signer.errors import Refusal
from signer.gate import Factor
from signer.otp import Kind, Sealed, Seeds
from signer.store import enrolments, sent_codes, subjects

ENROLMENT_S = 72 * 3600  # a weekend
SEED_ID = "1"  # one seed a subject
_CODE_BYTES = 10  # of an enrolment code: 80 bits, 16 characters of base32


class State(StrEnum):
    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"


@dataclass(frozen=True, slots=True)
class Subject:
    name: str
    state: State
    contact_kind: str
    contact: str
    language: str
    factor: Factor
    code: str = field(repr=False)  # PHC string; empty until enrolled
    seed: bytes = field(repr=False)  # sealed
    last: int = 0  # TOTP: the last step used; HOTP: the next counter


@dataclass(frozen=True, slots=True)
class Enrolment:
    subject: str
    begins: float
    ends: float
    factor: Factor
    seed: bytes = field(repr=False)


def read(connection: Connection, name: str) -> Subject | None:
    row = connection.execute(select(subjects).where(subjects.c.name == name)).one_or_none()
    if row is None:
        return None
    return Subject(
        row.name, State(row.state), row.contact_kind, row.contact, row.language, Factor(row.factor), row.code, row.seed,
        row.last,
    )  # fmt: skip


def enrol(
    connection: Connection,
    name: str,
    contact: tuple[str, str],
    language: str,
    factor: Factor,
    now: float,
    wait_s: float,
) -> tuple[Subject | None, float]:
    """
    Begin an enrolment; answers who is to be told of it, as she was before, None where nobody, and when it begins. That is
    whom it takes something from, or whose contact it replaces, although nothing was completed there.

    Who was enrolled before waits, from the moment that this contact was first named: to ask once more does not shorten
    it, and another contact waits anew. Who never was has nothing to lose.
    """
    old = read(connection, name)
    begins, is_again, is_replaced, is_moved = now, False, False, False
    values = {
        "state": State.PENDING.value,
        "contact_kind": contact[0],
        "contact": contact[1],
        "language": language,
        "code": "",
        "factor": factor.value,
        "seed": b"",
        "last": 0,
    }
    if old is None:
        connection.execute(insert(subjects).values(name=name, **values))
    else:
        open_ = connection.execute(select(enrolments).where(enrolments.c.subject == name)).one_or_none()
        is_again = bool(old.code) or (open_ is not None and bool(open_.is_again))
        is_moved = (old.contact_kind, old.contact) != contact
        is_replaced = is_again and (bool(old.code) or is_moved)
        if is_replaced:
            begins = now + wait_s
        elif open_ is not None:
            begins = max(now, open_.begins)
        connection.execute(update(subjects).where(subjects.c.name == name).values(**values))
        _forget(connection, name)
    connection.execute(
        insert(enrolments).values(
            subject=name, code=secrets.token_bytes(32), begins=int(begins), ends=int(begins + ENROLMENT_S),
            factor=factor.value, seed=b"", is_sent=0, is_again=int(is_again),
        )
    )  # fmt: skip
    return old if is_replaced or is_moved else None, begins


def due(connection: Connection, now: float) -> list[str]:
    """Subjects whose enrolment begins, and who have not been told; one that is suspended is told when it is resumed."""
    table = enrolments
    begun = select(table.c.subject).where(table.c.is_sent == 0, table.c.begins <= now)
    pending = begun.join(subjects, subjects.c.name == table.c.subject).where(subjects.c.state == State.PENDING.value)
    return list(connection.execute(pending).scalars())


def ticket(connection: Connection, name: str, seed: bytes, now: float) -> str:
    """
    The enrolment code that is sent now, and good from now on; whoever has it and the contact's next message is the person.
    Empty where another daemon has sent one.
    """
    text = base64.b32encode(secrets.token_bytes(_CODE_BYTES)).decode()
    code = "-".join(text[start : start + 4] for start in range(0, len(text), 4))
    values = {"code": _hash(code), "seed": seed, "is_sent": 1, "ends": int(now + ENROLMENT_S)}
    unsent = (enrolments.c.subject == name) & (enrolments.c.is_sent == 0)
    return code if connection.execute(update(enrolments).where(unsent).values(**values)).rowcount == 1 else ""


def enrolment(connection: Connection, code: str, now: float) -> Enrolment:
    """The one that this code is for; raises `Refusal` ENROLMENT_UNKNOWN, SUBJECT_SUSPENDED."""
    row = connection.execute(select(enrolments).where(enrolments.c.code == _hash(code))).one_or_none()
    if row is None or not row.is_sent or not row.begins <= now < row.ends:
        raise Refusal("ENROLMENT_UNKNOWN")
    if known(connection, row.subject).state is not State.PENDING:
        raise Refusal("SUBJECT_SUSPENDED")
    return Enrolment(row.subject, row.begins, row.ends, Factor(row.factor), row.seed)


def complete(connection: Connection, name: str, enrolment: str, code: str, seed: bytes, last: int) -> None:
    """
    By this enrolment code, not by one that has replaced it meanwhile. The person has set the code (a PHC string) and shown a first one-time code. Raises `Refusal` ENROLMENT_UNKNOWN where
    another call was quicker, SUBJECT_SUSPENDED where an operator was.
    """
    gone = connection.execute(
        delete(enrolments).where(enrolments.c.subject == name, enrolments.c.code == _hash(enrolment))
    )
    if gone.rowcount != 1:
        raise Refusal("ENROLMENT_UNKNOWN")
    values = {"state": State.ACTIVE.value, "code": code, "seed": seed, "last": last}
    mine = (subjects.c.name == name) & (subjects.c.state == State.PENDING.value)
    if connection.execute(update(subjects).where(mine).values(**values)).rowcount != 1:
        raise Refusal("SUBJECT_SUSPENDED")
    connection.execute(delete(sent_codes).where(sent_codes.c.subject == name))
    credential.activate(connection, name)


def change(connection: Connection, name: str, before: str, code: str) -> None:
    """
    Another code in place of the one `before` (PHC strings); what was allowed with that one ends. Raises `Refusal` OTP_INCORRECT where another call was quicker
    (what was given is no longer right), and SUBJECT_SUSPENDED where an operator was.
    """
    active(connection, name)
    mine = (subjects.c.name == name) & (subjects.c.code == before)
    if connection.execute(update(subjects).where(mine).values(code=code)).rowcount != 1:
        raise Refusal("OTP_INCORRECT")
    connection.execute(delete(sent_codes).where(sent_codes.c.subject == name))
    authorisation.revoke(connection, name)


def check_unchanged(connection: Connection, person: Subject) -> None:
    """
    She is active, with the code that was looked at, until this transaction ends: a row that is written is locked, where two
    transactions go on at one time. Raises `Refusal` OTP_INCORRECT, as `change` does.
    """
    mine = (subjects.c.name == person.name) & (subjects.c.state == State.ACTIVE.value)
    mine &= subjects.c.code == person.code
    if connection.execute(update(subjects).where(mine).values(code=person.code)).rowcount != 1:
        raise Refusal("OTP_INCORRECT")


def renew(connection: Connection, name: str, code: str) -> None:
    """Her secret code is the same, and its PHC string is another one."""
    connection.execute(update(subjects).where(subjects.c.name == name).values(code=code))


def use(connection: Connection, name: str, before: int, last: int) -> bool:
    """A one-time code is used up; false where another call was quicker."""
    mine = (subjects.c.name == name) & (subjects.c.last == before)
    return connection.execute(update(subjects).where(mine).values(last=last)).rowcount == 1


def suspend(connection: Connection, name: str) -> Subject:
    """Nothing of this person's works any more, until an operator resumes it or enrols the person again."""
    found = known(connection, name)
    connection.execute(update(subjects).where(subjects.c.name == name).values(state=State.SUSPENDED.value))
    authorisation.revoke(connection, name)
    connection.execute(delete(sent_codes).where(sent_codes.c.subject == name))
    return found


def suspended(connection: Connection) -> frozenset[str]:
    return frozenset(
        connection.execute(select(subjects.c.name).where(subjects.c.state == State.SUSPENDED.value)).scalars()
    )


def resume(connection: Connection, name: str) -> None:
    """
    Take a suspension back: who has a code is active again, with the credentials that came or were resumed meanwhile; who
    has none still has to be enrolled.
    """
    found = known(connection, name)
    state = State.ACTIVE if found.code else State.PENDING
    connection.execute(update(subjects).where(subjects.c.name == name).values(state=state.value))
    if state is State.ACTIVE:
        credential.activate(connection, name)


def rekey(connection: Connection, old: Seeds, new: Seeds) -> int:
    """Encrypt every seed with another key; answers how many. Raises `SeedError`, and then nothing is changed."""
    count = 0
    for table, name in ((subjects, subjects.c.name), (enrolments, enrolments.c.subject)):
        rows = connection.execute(select(name, table.c.factor, table.c.seed).where(table.c.seed != b"")).all()
        sealed = [Sealed(subject, Kind[Factor(factor).name], SEED_ID, seed) for subject, factor, seed in rows]
        for row in otp.rekey(old, new, sealed):
            connection.execute(update(table).where(name == row.subject).values(seed=row.data))
            count += 1
    return count


def active(connection: Connection, name: str) -> Subject:
    """Raises `Refusal` SUBJECT_SUSPENDED."""
    person = read(connection, name)
    if person is None or person.state is not State.ACTIVE:
        raise Refusal("SUBJECT_SUSPENDED")
    return person


def known(connection: Connection, name: str) -> Subject:
    """Raises `Refusal` SUBJECT_UNKNOWN."""
    found = read(connection, name)
    if found is None:
        raise Refusal("SUBJECT_UNKNOWN")
    return found


def _forget(connection: Connection, name: str) -> None:
    """Of somebody who is enrolled again: what was allowed, begun or guessed."""
    authorisation.revoke(connection, name)
    credential.hold(connection, name)
    guesses.forgive(connection, name)
    for table in (enrolments, sent_codes):
        connection.execute(delete(table).where(table.c.subject == name))


def _hash(code: str) -> bytes:
    """Of an enrolment code as people type it: 80 random bits need no slow hash."""
    return hashlib.sha256(code.upper().replace("-", "").replace(" ", "").encode()).digest()
