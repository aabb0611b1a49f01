"""Eight threads that send, accept, close, send back or write at the same moment, on both databases: one of them has done it."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert

from portal_adapter.domain import agent, message, procedure
from portal_adapter.domain import desk as office
from portal_adapter.store import schema
from tests.portal.draft import LEASE, Desk
from tests.portal.team import NOW
from tests.portal.test_procedure_races import lines, whole
from tests.portal.test_team_races import THREADS, one_won, race

SEEN = {"transmission": "1", "status": "sent", "reason": "x", "general": "x"}


@pytest.fixture(params=["sqlite", "postgresql"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres").create("sending")
    made = Desk(tmp_path, url)
    yield made
    made.close()


def ready(desk: Desk) -> tuple[str, int]:
    """The reference and the version of one that is signed and complete."""
    reference = whole(desk)
    with desk.engine.begin() as connection:
        desk.confirm(connection, desk.private, reference, 2, NOW)
    desk.signs(reference, NOW)
    with desk.engine.begin() as connection:
        desk.attach(connection, desk.private, reference, "lease", "", NOW)
    return reference, int(desk.row(desk.private, reference)["version"])


def sent(desk: Desk, status: str = "sent") -> str:
    reference, version = ready(desk)
    with desk.engine.begin() as connection:
        desk.send(connection, desk.private, reference, version, NOW)
    desk.sets(reference, status=status)
    return reference


def test_one_sends(desk: Desk) -> None:
    """SUB-06, SUB-04, 0.1: one transmission, one delivery, one mail; to the others it is sent already."""
    reference, version = ready(desk)
    one_won(race(desk.bare, lambda c, _: desk.send(c, desk.private, reference, version, NOW)), "forbidden-transition")
    assert len(desk.bare.rows(schema.transmissions)) == len(desk.bare.rows(schema.transmission_pieces)) == 1
    assert len([one for one in desk.bare.rows(schema.outbox) if one["template"] == "received"]) == 1
    assert (desk.row(desk.private, reference)["transmissions"], lines(desk, "procedure-send")) == (1, 1)


def test_it_is_sent_or_edited(desk: Desk) -> None:
    """SUB-05, SUB-07, PROC-14: what was sent is what was signed; who comes second is told."""
    reference, version = ready(desk)

    def work(connection: Connection, number: int) -> None:
        if number % 2:
            desk.send(connection, desk.private, reference, version, NOW)
        else:
            form = {"premises": f"{number} Mill Lane", "version": str(version)}
            desk.save(connection, desk.private, reference, form, NOW)

    one_won(race(desk.bare, work), "stale", "forbidden-transition")
    row = desk.row(desk.private, reference)
    frozen = [json.loads(one["answers"]) for one in desk.bare.rows(schema.transmissions)]
    assert frozen == ([dict(row["answers"])] if row["status"] == "sent" else [])


@pytest.mark.parametrize("event", ["accept", "ask_correction", "close"])
def test_one_agent_decides(desk: Desk, event: str) -> None:
    """TRK-07, COR-02, 0.1: one line of history, one request, one mail."""
    reference = sent(desk)
    work = lambda c, _: desk.agent(c, reference, event, SEEN, NOW)  # noqa: E731
    one_won(race(desk.bare, work), "forbidden-transition")
    assert lines(desk, f"procedure-{event.replace('_', '-')}") == 1
    is_request = event == "ask_correction"
    assert len(desk.bare.rows(schema.corrections)) == is_request
    assert len([one for one in desk.bare.rows(schema.outbox) if one["template"] == "status"]) == is_request


def test_they_accept_or_close(desk: Desk) -> None:
    """TRK-07, 0.1: of agents who do not agree one has done it, and the others are told that it stands differently now."""
    reference = sent(desk)
    events: Mapping[int, str] = {0: "accept", 1: "close"}
    found = race(desk.bare, lambda c, number: desk.agent(c, reference, events[number % 2], SEEN, NOW))
    one_won(found, "stale", "forbidden-transition")
    assert desk.row(desk.private, reference)["status"] in {"accepted", "closed"}
    assert len(desk.bare.rows(schema.procedure_history)) == 2 + 1 + 1


def test_it_is_closed_or_sent_again(desk: Desk) -> None:
    """TRK-06, COR-05, SUB-06: an agent who closes has seen the last transmission, or is told that there is another one."""
    reference = sent(desk, "to_be_corrected")
    version = int(desk.row(desk.private, reference)["version"])

    def work(connection: Connection, number: int) -> None:
        if number % 2:
            desk.send(connection, desk.private, reference, version, NOW)
        else:
            desk.agent(connection, reference, "close", {**SEEN, "status": "to_be_corrected"}, NOW)

    one_won(race(desk.bare, work), "stale", "forbidden-transition")
    row = desk.row(desk.private, reference)
    assert (row["status"], row["transmissions"]) in {("closed", 1), ("sent", 2)}
    assert len(desk.bare.rows(schema.transmissions)) == row["transmissions"]


def test_the_last_message_of_an_hour_is_one(desk: Desk) -> None:
    """MSG-03: of eight at the twentieth place one is written."""
    reference = sent(desk)
    row = desk.row(desk.private, reference)
    who = f"{row['id']} applicant"
    with desk.engine.begin() as connection:
        connection.execute(insert(schema.marks), [{"kind": "message", "who": who, "time": NOW}] * 19)

    def work(connection: Connection, number: int) -> None:
        held = procedure.held(connection, desk.private["id"], reference)
        form = {"subject": str(number), "body": "x"}
        message.write(connection, desk.ada.actor(NOW), held, message.APPLICANT, form, desk.bare.limits)

    assert race(desk.bare, work) == Counter({"done": 1, "rate-limited": THREADS - 1})
    assert len(desk.bare.rows(schema.messages)) == 1


def test_a_message_is_read_once(desk: Desk) -> None:
    """MSG-04: whoever opens it first is noted; the others read it all the same."""
    reference = sent(desk)
    with desk.engine.begin() as connection:
        held = procedure.held(connection, desk.private["id"], reference)
        form = {"subject": "x", "body": "y"}
        id_ = message.write(connection, desk.ada.actor(NOW), held, message.APPLICANT, form, desk.bare.limits)

    def work(connection: Connection, number: int) -> None:
        row = office.of(connection, LEASE.administration, reference, hold=True)
        message.open_(connection, desk.bob.actor(NOW + number), row, message.ADMINISTRATION, id_)

    assert race(desk.bare, work) == Counter(done=THREADS)
    assert lines(desk, "message-read") == 1


def test_one_makes_an_agent(desk: Desk) -> None:
    """TRK-11: of operators who bind one account to two administrations one does, and the audit has one line."""
    known = ("millbrook-town-hall", "millbrook-environment")
    work = lambda c, number: agent.add(c, NOW, "root", desk.bob.account, known[number % 2], known)  # noqa: E731
    found = race(desk.bare, work, looks_again=False)
    assert found == Counter({"done": THREADS // 2, "guard-failed": THREADS // 2})
    assert len(desk.bare.rows(schema.agents)) == lines(desk, "agent-added") == 1
