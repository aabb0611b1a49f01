"""Eight threads that do the same to one procedure at the same moment, on both databases: one of them has done it."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from portal_adapter.domain import procedure
from portal_adapter.domain.procedure import PROCEDURE
from portal_adapter.refusal import Refusal
from portal_adapter.store import schema
from tests.portal.draft import LEASE, WHOLE, Desk
from tests.portal.team import NOW
from tests.portal.test_team_races import THREADS, one_won, race
from tests.portal.town import picture


@pytest.fixture(params=["sqlite", "postgresql"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres").create("procedures")
    made = Desk(tmp_path, url)
    yield made
    made.close()


@pytest.fixture
def made(desk: Desk) -> str:
    """The reference of a whole draft of version 2."""
    return whole(desk)


def whole(desk: Desk) -> str:
    with desk.engine.begin() as connection:
        reference = desk.create(connection, desk.private, LEASE, NOW)
    with desk.engine.begin() as connection:
        desk.save(connection, desk.private, reference, {**WHOLE, "version": "1"}, NOW)
    return reference


def lines(desk: Desk, event: str) -> int:
    return sum(line["event"] == event for line in desk.bare.rows(schema.audit))


def test_one_saves(desk: Desk, made: str) -> None:
    """PROC-19, 0.1: eight different texts of one version: one is stored, the others are stale."""

    def work(connection: Connection, number: int) -> None:
        desk.save(connection, desk.private, made, {"premises": f"{2 + number} Mill Lane", "version": "2"}, NOW)

    one_won(race(desk.bare, work), "stale")
    row = desk.row(desk.private, made)
    assert (row["version"], row["answers"]["premises"][1:]) == (3, " Mill Lane")
    assert lines(desk, "procedure-save") == 2


def test_one_confirms(desk: Desk, made: str) -> None:
    """PROC-13, 0.1: to the others it is confirmed already."""
    one_won(race(desk.bare, lambda c, _: desk.confirm(c, desk.private, made, 2, NOW)), "forbidden-transition")
    row = desk.row(desk.private, made)
    assert (row["entry"], row["version"], "account" in row["answers"]) == ("confirmed", 3, False)


def test_one_saves_or_confirms(desk: Desk, made: str) -> None:
    """PROC-13, PROC-14: either the answers that were seen are confirmed, or they are other ones and are not."""

    def work(connection: Connection, number: int) -> None:
        if number % 2:
            desk.confirm(connection, desk.private, made, 2, NOW)
        else:
            desk.save(connection, desk.private, made, {"premises": f"{number} Mill Lane", "version": "2"}, NOW)

    one_won(race(desk.bare, work), "stale", "forbidden-transition")
    row = desk.row(desk.private, made)
    assert (row["entry"] == "confirmed") is (row["answers"]["premises"] == WHOLE["premises"]) is bool(row["form_file"])


def test_one_deletes(desk: Desk, made: str) -> None:
    """PROC-17: to the others it does not exist any more; nothing of it is left but lines of the audit."""
    form = {"confirmed": "yes", "version": str(desk.row(desk.private, made)["version"])}
    work = lambda c, _: desk.remove(c, desk.private, made, form, NOW)  # noqa: E731
    one_won(race(desk.bare, work), "not-found")
    found = picture(desk.engine)
    assert found["procedures"] == found["procedure_history"] == []
    assert lines(desk, "procedure-delete") == 1


def test_one_edits_what_is_ready(desk: Desk, made: str) -> None:
    """PROC-14: a change against a sending: one of both, and what was sent is what was signed."""
    with desk.engine.begin() as connection:
        desk.confirm(connection, desk.private, made, 2, NOW)
    with desk.engine.begin() as connection:
        desk.fire(connection, desk.private, made, "sign", NOW, signature="valid")

    def work(connection: Connection, number: int) -> None:
        if number % 2:
            desk.fire(connection, desk.private, made, "send", NOW, transmissions=1)
        else:
            desk.save(connection, desk.private, made, {"premises": f"{number} Mill Lane", "version": "4"}, NOW)

    one_won(race(desk.bare, work), "stale", "forbidden-transition")
    row = desk.row(desk.private, made)
    sent = row["status"] == "sent"
    assert (row["status"], row["signature"]) in {("sent", "valid"), ("in_preparation", "void")}
    assert sent is (row["answers"]["premises"] == WHOLE["premises"]) is (row["transmissions"] == 1)


def test_no_more_are_attached_than_may_be(desk: Desk, made: str) -> None:
    """ATT-02, ATT-03, ATT-08, 0.1: of three places one is the slot's, which is filled once; a piece is taken out once."""
    desk.sets(made, status="ready")
    one_won(race(desk.bare, lambda c, _: desk.attach(c, desk.private, made, "lease", "", NOW)), "stale")
    found = race(desk.bare, lambda c, _: desk.attach(c, desk.private, made, "", "", NOW + 1))
    assert found == Counter({"done": 2, "guard-failed": THREADS - 2})
    pieces = desk.attached(desk.private, made)
    assert [one["slot"] for one in pieces] == ["lease", "", ""]
    one_won(race(desk.bare, lambda c, _: desk.detach(c, desk.private, made, pieces[0]["id"], NOW)), "not-found")
    assert (len(desk.attached(desk.private, made)), desk.row(desk.private, made)["version"]) == (2, 6)
    assert (lines(desk, "procedure-attach"), lines(desk, "procedure-detach")) == (3, 1)


def test_a_piece_is_attached_or_it_is_sent_without(desk: Desk, made: str) -> None:
    """ATT-01, SUB-05: what came before the sending is there, and after it nothing comes."""
    desk.sets(made, status="ready")

    def work(connection: Connection, number: int) -> None:
        if number % 2:
            procedure.held(connection, desk.private["id"], made)  # before anything is counted
            desk.fire(connection, desk.private, made, "send", NOW, answers=str(_count(connection)))
        else:
            desk.attach(connection, desk.private, made, "", "", NOW)

    found = race(desk.bare, work)
    sent = desk.bare.rows(schema.procedures)[0]
    assert sent["status"] == "sent"
    assert int(sent["answers"]) == len(desk.bare.rows(schema.attachments)) == found["done"] - 1
    assert set(found) <= {"done", "forbidden-transition", "guard-failed"}


def _count(connection: Connection) -> int:
    return len(connection.execute(select(schema.attachments.c.id)).all())


@pytest.mark.parametrize(
    ("status", "event"),
    [(state, event) for (state, event), target in PROCEDURE.steps.items() if target not in {state, "erased"}],
    ids=lambda one: one,
)
def test_one_fires(desk: Desk, made: str, status: str, event: str) -> None:
    """11.1, 0.1, TRK-10: each event that changes the status has one winner, with one line of history and one new time."""
    desk.sets(made, status=status)

    def work(connection: Connection, number: int) -> None:
        row = procedure.of(connection, desk.private["id"], made)  # that was seen, and is not held
        if row["status"] != status:
            raise Refusal("forbidden-transition")
        procedure.fire(connection, desk.ada.actor(NOW + 1 + number), row, event, comment=str(number))

    one_won(race(desk.bare, work), "forbidden-transition", "stale")
    row = desk.row(desk.private, made)
    assert row["status"] == PROCEDURE.steps[status, event]
    (line,) = [one for one in desk.bare.rows(schema.procedure_history) if one["comment"]]
    assert (line["status"], line["time"], int(line["comment"])) == (
        row["status"],
        row["updated"],
        row["updated"] - NOW - 1,
    )
    assert lines(desk, f"procedure-{event.replace('_', '-')}") - (event == "save") == 1


def test_eight_create_and_copy(desk: Desk, made: str) -> None:
    """PROC-06, PROC-16: each has a procedure of its own, with a reference of its own."""
    assert race(desk.bare, lambda c, _: desk.create(c, desk.private, LEASE, NOW)) == Counter(done=THREADS)
    assert race(desk.bare, lambda c, _: desk.copy(c, desk.private, made, NOW)) == Counter(done=THREADS)
    assert len(desk.references()) == 1 + 2 * THREADS
