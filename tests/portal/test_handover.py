"""The administrations' back end: what was sent is given to a command, too; nothing that it does takes a sending back."""

import asyncio
import hashlib
import json
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from portal_adapter import handing_over
from portal_adapter.domain import handover
from portal_adapter.domain.handover import TRIES_MAX
from portal_adapter.handing_over import HandingOver
from portal_adapter.settings import BackEnd
from portal_adapter.store import schema
from portal_adapter.store.database import writing
from portal_adapter.store.leased import LEASE_S, LONGEST_WAIT_S
from tests.portal.commands import command
from tests.portal.place import Place, SetClock, Visitor
from tests.portal.sent import TOWN_HALL, attaches, ready, returns, rows, sends
from tests.portal.test_procedures import answers, row, where

# Keeps what it is given under a name of its own; while there is a file `broken`, it says so and takes nothing.
BACK_END = """
import json, pathlib, sys, uuid
here = pathlib.Path({here!r})
if (here / "broken").exists():
    sys.exit("first line\\nthe registry is\\x07 closed")
given = json.load(sys.stdin)
for one in (given["form"], *given["pieces"]):
    one["read"] = pathlib.Path(one["file"]).read_bytes().hex()
(here / uuid.uuid4().hex).write_text(json.dumps(given))
"""


class BackEndOf:
    """A back end in a directory, and the task that gives to it."""

    def __init__(self, place: Place, directory: Path) -> None:
        self._directory = directory
        directory.mkdir()
        (directory.parent / "back_end.py").write_text(BACK_END.format(here=str(directory)))
        self.settings = BackEnd(command=(sys.executable, str(directory.parent / "back_end.py")))
        services = place.services
        self.portal = services.settings.model_copy(update={"back_end": self.settings})
        self.task = HandingOver(services.engine, services.clock, services.blobs, self.settings)

    def given(self) -> list[dict[str, object]]:
        return [json.loads(one.read_text()) for one in self._directory.iterdir() if one.name != "broken"]

    def breaks(self) -> None:
        (self._directory / "broken").touch()

    def works(self) -> None:
        (self._directory / "broken").unlink()


@pytest.fixture
def back_end(place: Place, tmp_path: Path) -> BackEndOf:
    return BackEndOf(place, tmp_path / "registry")


@pytest.fixture
def ada_with(ada: Visitor, back_end: BackEndOf) -> Visitor:
    return where(ada, settings=back_end.portal)


def sent(place: Place, person: Visitor) -> str:
    at = ready(place, person)
    attaches(place, at, "A plan")
    assert sends(person, at).status_code == 303
    return at


def test_what_is_sent_is_given_to_the_back_end(place: Place, ada_with: Visitor, back_end: BackEndOf) -> None:
    """SUB-04: the command gets it once: what it is, for whom, the answers, and files that are what their SHA-256 says."""
    at = sent(place, ada_with)
    assert back_end.given() == []
    assert back_end.task.once()
    assert not back_end.task.once()
    (given,) = back_end.given()
    found = row(place, at)
    assert {name: given[name] for name in ("reference", "transmission", "administration", "definition", "time")} == {
        "reference": found["reference"],
        "transmission": 1,
        "administration": TOWN_HALL,
        "definition": "change-of-address",
        "time": "2026-11-27T09:00:00Z",
    }
    assert given["answers"] == answers(place, at)
    form, [piece] = given["form"], given["pieces"]  # type: ignore[misc]
    assert (piece["name"], piece["media_type"], piece["size"]) == ("A plan", "application/pdf", len(b"bytes of A plan"))
    assert bytes.fromhex(piece["read"]) == b"bytes of A plan"
    for one in (form, piece):
        assert hashlib.sha256(bytes.fromhex(one["read"])).hexdigest() == one["sha256"]  # type: ignore[index]
    (listed,) = json.loads(command(place, "handover", "list", "--json").stdout)
    assert (listed["reference"], listed["number"], listed["state"], listed["tries"]) == (
        found["reference"],
        1,
        "taken",
        1,
    )
    assert [json.loads(one["detail"]) for one in rows(place, schema.audit) if one["event"] == "handover"] == [
        {"number": 1, "procedure": found["reference"], "tries": 1}
    ]


def test_without_one_nothing_is_kept_for_it(place: Place, ada: Visitor, back_end: BackEndOf) -> None:
    """SUB-04: a portal without a back end queues nothing, and gives nothing to one that it gets later."""
    sent(place, ada)
    assert rows(place, schema.handovers) == []
    assert not back_end.task.once()


def test_its_failure_never_takes_a_sending_back(place: Place, ada_with: Visitor, back_end: BackEndOf) -> None:
    """SUB-04: what fails is tried again, later each time, and given up after days; an operator sees why, and has it tried again."""
    back_end.breaks()
    at = sent(place, ada_with)
    name = f"{row(place, at)['reference']}/1"
    waits = []
    for _ in range(TRIES_MAX):
        assert back_end.task.once()
        assert not back_end.task.once()
        (found,) = rows(place, schema.handovers)
        waits.append(found["next"] - SetClock.at)
        SetClock.later(max(waits[-1], 0))
    assert waits[:3] == [60, 120, 240]
    assert max(waits) == LONGEST_WAIT_S
    assert sum(waits[:-1]) > 4 * 86400
    assert row(place, at)["status"] == "sent"
    said = command(place, "handover", "list", "--state", "failed").stdout
    assert name in said
    assert f"{TRIES_MAX} tries: the command ended with 1: the registry is  closed" in said
    SetClock.later(LONGEST_WAIT_S)
    assert not back_end.task.once()
    back_end.works()
    assert command(place, "handover", "retry", name).returncode == 0
    again = command(place, "handover", "retry", name, "--json")
    assert (again.returncode, json.loads(again.stdout)) == (1, {name: False})
    SetClock.later(86400)  # the command's clock is the machine's
    assert back_end.task.once()
    assert [one["transmission"] for one in back_end.given()] == [1]
    outcomes = [one["outcome"] for one in rows(place, schema.audit) if one["event"] == "handover"]
    assert outcomes == ["given-up", "done"]


def test_of_several_portals_one_gives_it(place: Place, ada_with: Visitor) -> None:
    """SUB-04: a claim has an end; who comes back later than that settles nothing, and it is given once more."""
    sent(place, ada_with)
    engine, now = place.services.engine, SetClock.at
    one = handover.claim(engine, now)
    assert one is not None
    assert handover.claim(engine, now + LEASE_S - 1) is None
    other = handover.claim(engine, now + LEASE_S)
    assert other is not None
    assert (other.procedure, other.tries) == (one.procedure, 2)
    with writing(engine) as connection:
        handover.settle(connection, now + LEASE_S, one, "")
    assert rows(place, schema.handovers)[0]["state"] == "queued"
    with writing(engine) as connection:
        handover.settle(connection, now + LEASE_S, other, "")
    assert rows(place, schema.handovers)[0]["state"] == "taken"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((sys.executable, "-c", "import time; time.sleep(60)"), "has not ended within 0 s"),
        (("/nowhere/at-all",), "cannot be run: No such file or directory"),
        ((sys.executable, "-c", "import sys; sys.exit(3)"), "ended with 3"),
    ],
)
def test_a_command_that_cannot(
    place: Place, ada_with: Visitor, words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SUB-04: one that hangs is ended, one that is not there is said to be so; the task goes on."""
    sent(place, ada_with)
    if "hang" in said or "ended within" in said:
        monkeypatch.setattr(handing_over, "COMMAND_S", 0.3)
    services = place.services
    task = HandingOver(services.engine, services.clock, services.blobs, BackEnd(command=words))
    assert task.once()
    (found,) = rows(place, schema.handovers)
    assert (found["state"], found["tries"]) == ("queued", 1)
    assert said in found["error"]


def test_one_that_never_stops_talking_is_heard_a_little(place: Place, ada_with: Visitor) -> None:
    """SUB-04: of what it says the last line is kept, and neither that nor what was before fills the portal's memory."""
    sent(place, ada_with)
    script = "import sys; [sys.stderr.write('x' * 1_000_000) for _ in range(30)]; sys.exit(3)"
    services = place.services
    task = HandingOver(services.engine, services.clock, services.blobs, BackEnd(command=(sys.executable, "-c", script)))
    tracemalloc.start()
    try:
        assert task.once()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    (found,) = rows(place, schema.handovers)
    assert found["error"] == f"the command ended with 3: {'x' * 200}"
    assert most < 5_000_000


def test_what_a_command_started_ends_with_it(
    place: Place, ada_with: Visitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SUB-04: whose time is over is ended whole, so that the next try is alone; one that ends well is taken at its word at once."""
    sent(place, ada_with)
    services, late = place.services, tmp_path / "late"
    for within_s, script, error in (
        (0.5, f"(sleep 2; touch {late}) & sleep 60", "has not ended"),
        (20.0, f"(sleep 2; touch {late}) & exit 4", "ended with 4"),
        (20.0, "sleep 20 & exit 0", ""),
    ):
        monkeypatch.setattr(handing_over, "COMMAND_S", within_s)
        task = HandingOver(services.engine, services.clock, services.blobs, BackEnd(command=("sh", "-c", script)))
        began = time.monotonic()
        assert task.once()
        assert time.monotonic() - began < 10
        (found,) = rows(place, schema.handovers)
        assert error in found["error"]
        SetClock.later(LONGEST_WAIT_S)
    assert found["state"] == "taken"
    time.sleep(2.5)  # as long as those would have taken that were ended
    assert not late.exists()


async def test_a_stop_waits_for_no_command(
    place: Place, ada_with: Visitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SUB-04: one that is under way when the portal stops is ended in time for the unit, and given the same again later."""
    sent(place, ada_with)
    monkeypatch.setattr(handing_over, "STOP_S", 0.2)
    services, begun = place.services, tmp_path / "begun"
    settings = BackEnd(command=("sh", "-c", f"touch {begun}; sleep 60"))
    async with asyncio.timeout(20):
        async with HandingOver(services.engine, services.clock, services.blobs, settings):
            while not begun.exists():  # noqa: ASYNC110 -- another process's file
                await asyncio.sleep(0.01)
    (found,) = rows(place, schema.handovers)
    assert (found["state"], found["claimed"]) == ("queued", 0)


def test_transmissions_come_in_their_order(
    place: Place, ada_with: Visitor, grace: Visitor, back_end: BackEndOf
) -> None:
    """SUB-04, SUB-07: a later one waits until the one before was taken, or given up: what came last is the last word."""
    at = sent(place, ada_with)
    back_end.breaks()
    assert back_end.task.once()
    returns(grace, at)
    back_end.works()
    attaches(place, at, "A bigger plan")
    assert sends(ada_with, at).status_code == 303
    assert not back_end.task.once()
    SetClock.later(60)
    for number in (1, 2):
        assert back_end.task.once()
        assert {one["transmission"] for one in back_end.given()} == set(range(1, number + 1))
    assert not back_end.task.once()


def test_one_that_was_given_up_holds_up_no_other(
    place: Place, ada_with: Visitor, grace: Visitor, back_end: BackEndOf
) -> None:
    """SUB-04: what came after it is given, as soon as nothing is tried any more of what was before."""
    at = sent(place, ada_with)
    back_end.breaks()
    returns(grace, at)
    attaches(place, at, "A bigger plan")
    assert sends(ada_with, at).status_code == 303
    for _ in range(TRIES_MAX):
        assert back_end.task.once()
        assert [one["tries"] for one in rows(place, schema.handovers) if one["number"] == 2] == [0]
        SetClock.later(LONGEST_WAIT_S)
    back_end.works()
    assert back_end.task.once()
    assert [one["transmission"] for one in back_end.given()] == [2]


def test_one_that_was_put_off_too_far_is_given_at_once(place: Place, ada_with: Visitor, back_end: BackEndOf) -> None:
    """SUB-04: whatever time it waits for, as after a clock that was ahead; one that an instance is at is left to that."""
    at = sent(place, ada_with)
    engine, name = place.services.engine, row(place, at)["reference"]
    one = handover.claim(engine, SetClock.at)
    assert one is not None
    with writing(engine) as connection:
        assert not handover.retry(connection, SetClock.at, name, 1)
        handover.settle(connection, SetClock.at + 86400, one, "it failed")
    assert not back_end.task.once()
    with writing(engine) as connection:
        assert handover.retry(connection, SetClock.at, name, 1)
        assert not handover.retry(connection, SetClock.at, name, 1)
    assert back_end.task.once()
    assert rows(place, schema.handovers)[0]["state"] == "taken"


def test_what_is_no_transmission_is_refused(place: Place) -> None:
    """SUB-04: a word that names none, and one that was never sent."""
    assert command(place, "handover", "retry", "PROC").returncode == 2
    assert command(place, "handover", "retry", "PROC/1").returncode == 1
