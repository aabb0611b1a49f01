"""The administrations' back end: what was sent is given to a command, too; nothing that it does takes a sending back."""

import hashlib
import json
import sys
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
from tests.portal.sent import TOWN_HALL, attaches, ready, rows, sends
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


def test_what_is_no_transmission_is_refused(place: Place) -> None:
    """SUB-04: a word that names none, and one that was never sent."""
    assert command(place, "handover", "retry", "PROC").returncode == 2
    assert command(place, "handover", "retry", "PROC/1").returncode == 1
