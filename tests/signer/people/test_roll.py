"""The people as operators see them: in pages, by name, and nothing that is secret."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert

from signer import guesses, roll, subject
from signer.errors import Refusal
from signer.gate import Factor
from signer.roll import PAGE_MAX
from signer.store import open_store, subjects

NOW = 1_800_000_000.0
SECRETS = {"code": "$argon2id$unmistakable", "seed": b"unmistakable", "contact": "ada.unmistakable@example.org"}


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    engine = open_store(tmp_path / "paraph.sqlite")
    with engine.begin() as made:
        yield made
    engine.dispose()


def put(connection: Connection, *names: str) -> None:
    values = {"state": "ACTIVE", "contact_kind": "email", "language": "en", "factor": "totp", "last": 0, **SECRETS}
    connection.execute(insert(subjects), [{"name": name, **values} for name in names])


def test_pages(connection: Connection) -> None:
    """As many as a page has, in the order of their names, and where to go on; the last page says that it is the last."""
    names = [f"p{number:04}" for number in range(PAGE_MAX + 1)]
    put(connection, *reversed(names))
    first, following = roll.read(connection, "", "", NOW)
    assert ([entry.name for entry in first], following) == (names[:PAGE_MAX], names[PAGE_MAX - 1])
    last, following = roll.read(connection, "", following, NOW)
    assert ([entry.name for entry in last], following) == (names[PAGE_MAX:], "")


def test_nothing_secret(connection: Connection) -> None:
    """Neither code nor seed, and of the contact only what tells it from another one."""
    put(connection, "ada")
    [entry], _ = roll.read(connection, "ada", "", NOW)
    assert "unmistakable" not in repr(entry)
    assert entry.contact == "a***@example.org"


def test_enrolment_attempts_and_lock(connection: Connection) -> None:
    """Of each person alone: an enrolment that waits, wrong attempts of a day, and until when they lock."""
    put(connection, "bob")
    subject.enrol(connection, "ada", ("email", "ada@example.org"), "en", Factor.HOTP, NOW, 0.0)
    for age_s in (guesses.DAY_S + 1, 50, 40, 30, 20):
        guesses.begin(connection, "bob", "", "", NOW - age_s)
    [ada, bob], _ = roll.read(connection, "", "", NOW)
    assert (ada.state, ada.enrolment) == ("PENDING", (NOW, NOW + subject.ENROLMENT_S))
    assert (ada.attempts, ada.locked_until) == (0, None)
    assert (bob.attempts, bob.locked_until, bob.enrolment) == (4, None, None)
    guesses.begin(connection, "bob", "", "", NOW - 10)
    [bob], _ = roll.read(connection, "bob", "", NOW)
    assert (bob.attempts, bob.locked_until) == (5, NOW - 50 + guesses.SHORT_S)


def test_nobody(connection: Connection) -> None:
    """A name that nobody has is an error; nobody at all is an empty list."""
    assert roll.read(connection, "", "", NOW) == ([], "")
    with pytest.raises(Refusal, match="SUBJECT_UNKNOWN"):
        roll.read(connection, "ada", "", NOW)
