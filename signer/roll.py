"""The people whom an operator has named, as operators see them: states, masked contacts, locks; nothing that is secret."""

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from signer import guesses as attempts
from signer.contact import Contact, Kind
from signer.errors import Refusal
from signer.store import credentials, enrolments, guesses, subjects

PAGE_MAX = 1000  # an answer of half a megabyte


@dataclass(frozen=True, slots=True)
class Entry:
    """Times are seconds since the epoch; `enrolment` is (begins, ends) where one is not completed."""

    name: str
    state: str
    factor: str
    contact_kind: str
    contact: str  # masked
    language: str
    enrolment: tuple[float, float] | None
    attempts: int
    locked_until: float | None
    credentials: tuple[str, ...]


def read(connection: Connection, name: str, after: str, now: float) -> tuple[list[Entry], str]:
    """
    Everybody behind the name `after`, or `name` alone; and where to go on, empty where that was all. Raises `Refusal`
    SUBJECT_UNKNOWN.
    """
    chosen = subjects.c.name == name if name else subjects.c.name > after
    found = connection.execute(select(subjects).where(chosen).order_by(subjects.c.name).limit(PAGE_MAX + 1)).all()
    if name and not found:
        raise Refusal("SUBJECT_UNKNOWN")
    page = found[:PAGE_MAX]
    names = [row.name for row in page]
    begun = {
        row.subject: (float(row.begins), float(row.ends))
        for row in connection.execute(select(enrolments).where(enrolments.c.subject.in_(names)))
    }
    counted = select(guesses.c.subject, func.count().label("wrong")).where(
        guesses.c.subject.in_(names), guesses.c.time > int(now) - attempts.DAY_S
    )
    wrong = {row.subject: int(row.wrong) for row in connection.execute(counted.group_by(guesses.c.subject))}
    owned: dict[str, list[str]] = {}
    for row in connection.execute(
        select(credentials.c.subject, credentials.c.name).where(credentials.c.subject.in_(names))
    ):
        owned.setdefault(row.subject, []).append(row.name)
    entries = [
        Entry(
            name=row.name,
            state=row.state,
            factor=row.factor,
            contact_kind=row.contact_kind,
            contact=Contact(Kind(row.contact_kind), row.contact).masked,
            language=row.language,
            enrolment=begun.get(row.name),
            attempts=wrong.get(row.name, 0),
            locked_until=attempts.locked_until(connection, row.name, now) if row.name in wrong else None,
            credentials=tuple(sorted(owned.get(row.name, ()))),
        )
        for row in page
    ]
    return entries, names[-1] if len(found) > PAGE_MAX else ""
