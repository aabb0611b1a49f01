"""
Kill -9 of the daemon at each arrow of a request's life, and its next start: what the caller, the ledger and the token's own
log say of the request then. `killed.py` is the daemon that dies; moments drawn by lot are test_crashes.py's.
"""

import itertools
import shutil
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from signer.chain import Kind
from tests.daemon import Rig, running, until
from tests.disk import Disk
from tests.postgres import Postgres
from tests.processes import gone
from tests.signer.access.calls import Answer, Caller, card_rig, digests, processes, signed, statuses
from tests.signer.ledger import killed
from tests.signer.ledger.book import found, kinds, of, recorded, request, result, signatures, statuses_of

ITEMS = 12  # of which a lane that has just started gets two frames with one item each, and then the others
FIRST = 2
_databases = itertools.count()


class Ended:
    """A rig whose daemon is killed at arrows; with `power` what was not synced is lost as well."""

    def __init__(self, rig: Rig, *, power: bool = False) -> None:
        self.rig = rig
        self._power = power
        self._program = rig.directory / "killed.py"  # where the daemon's user can read it
        shutil.copyfile(killed.__file__, self._program)
        self._program.chmod(0o644)

    def at(self, arrow: str, message: Any) -> Answer:
        """What the caller is told by a daemon that dies at this arrow of the request; then the ordinary one serves."""
        rig = self.rig
        rig.stop()
        program, environment = rig.program, rig.environment
        rig.program = [self._program]
        rig.environment = environment | {"KILLED_AT": arrow, "KILLED_REQUEST": message.request_id}
        rig.launch()
        rig.wait_serving()
        everybody = processes(rig)
        with Caller(rig) as portal:
            answer = portal.sign(message)
        assert rig.process is not None
        assert rig.process.wait(10) == -signal.SIGKILL
        until(lambda: all(map(gone, everybody)), 5, "the end of lanes and of what writes")
        if self._power:
            Disk.power_cut(rig.state)
        rig.program, rig.environment = program, environment
        rig.launch()
        rig.wait_serving()
        return answer


@pytest.fixture(scope="module", params=["sqlite", "sqlite, power", "postgresql"])
def ended(request: pytest.FixtureRequest) -> Iterator[Ended]:
    rig = card_rig("P-256")
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        rig.database = server.create(f"arrows {next(_databases)}")
    elif request.param == "sqlite, power":
        rig.environment = Disk(rig.directory / "disk", "paraph.sqlite", undo=True).environment
    with running(rig):
        yield Ended(rig, power=request.param == "sqlite, power")


class Seen:
    """What was given out of one request, each item's signatures by whoever got them."""

    def __init__(self) -> None:
        self._given: list[set[bytes]] = [set() for _ in range(ITEMS)]

    def add(self, answer: Answer) -> list[bytes]:
        """The answer's signatures; none of them is another one than was given for its item before."""
        made = signatures(answer)
        for given, one in zip(self._given, made, strict=True):
            given.update({one} - {b""})
            assert len(given) <= 1, "released twice"
        return made


def again(ended: Ended, message: Any, seen: Seen, *, more: int) -> None:
    """The same request again costs so many C_Sign, and has one answer from then on, which the chain knows."""
    rig, name = ended.rig, message.request_id
    before = signed(rig)
    with Caller(rig) as portal:
        answer = portal.sign(message)
        assert statuses(answer) == ["SIGNED"] * ITEMS
        made = seen.add(answer)
        assert seen.add(portal.sign(message)) == seen.add(result(portal, name)) == made
    assert signed(rig) == before + more
    assert recorded(rig)[name] == {place: {one} for place, one in enumerate(made)}, "released without SIGNED"
    until(lambda: kinds(rig, name)[Kind.RELEASED], 5, "RELEASED")
    found(rig.state)  # raises where the chain is not whole


def left_open(ended: Ended, name: str) -> list[int]:
    """The places that INTENTs of the first attempt name; rows say of exactly these that a signature may exist."""
    intended = [
        place
        for row in of(ended.rig, name, Kind.INTENT)
        for start, stop in row["items"]
        for place in range(start, stop)
        if row["attempt"] == 1
    ]
    possible = [place for row in of(ended.rig, name, Kind.POSSIBLE) for place in row["items"]]
    assert sorted(possible) == sorted(intended)
    return intended


def asked_for() -> Any:
    return request(digests=digests(ITEMS))


def test_row_4_1_before_the_intent(ended: Ended) -> None:
    """
    Row 4.1, 0.1: kill -9, or a power cut, after a request was entered and before its INTENT is on the disk: the token is not
    asked (INTENT is on the disk before the worker gets the digest), nothing is known of the request, and the same again is
    a new one.
    """
    message, before = asked_for(), signed(ended.rig)
    assert ended.at("entered", message).code == "UNAVAILABLE"
    assert signed(ended.rig) == before, "C_Sign without record"
    assert not kinds(ended.rig, message.request_id)
    with Caller(ended.rig) as portal:
        assert result(portal, message.request_id).reason == "REQUEST_UNKNOWN"
    again(ended, message, Seen(), more=ITEMS)
    assert {row["attempt"] for row in of(ended.rig, message.request_id, Kind.INTENT)} == {1}


def test_f26_between_intent_and_c_sign(ended: Ended) -> None:
    """
    F26, row 4.1: kill -9, or a power cut, between INTENT and C_Sign: INDETERMINATE, of exactly the items that an INTENT names;
    the others are NOT_ATTEMPTED. The same digests again go on as attempt 2, and C_Sign is called once for each.
    """
    message, before = asked_for(), signed(ended.rig)
    assert ended.at("intended", message).code == "UNAVAILABLE"
    assert signed(ended.rig) == before
    assert left_open(ended, message.request_id) == list(range(FIRST))
    with Caller(ended.rig) as portal:
        told = result(portal, message.request_id)
    assert statuses_of(told) == ["INDETERMINATE"] * FIRST + ["NOT_ATTEMPTED"] * (ITEMS - FIRST)
    assert not any(signatures(told))
    again(ended, message, Seen(), more=ITEMS)
    assert {row["attempt"] for row in of(ended.rig, message.request_id, Kind.INTENT)} == {1, 2}


def test_f27_between_c_sign_and_its_outcome(ended: Ended) -> None:
    """
    F27, row 4.1, 0.1: kill -9, or a power cut, after the signatures came back and before their OUTCOME (SIGNED) is on the
    disk: nothing is answered (SIGNED is on the disk before any byte leaves the process), every item is INDETERMINATE, the
    ledger says POSSIBLE_UNRELEASED_SIGNATURE, and the same digests again are attempt 2 of the same slots.
    """
    message, before = asked_for(), signed(ended.rig)
    assert ended.at("settled", message).code == "UNAVAILABLE", "a signature was released that is in no record"
    assert signed(ended.rig) == before + ITEMS
    assert left_open(ended, message.request_id) == list(range(ITEMS))
    with Caller(ended.rig) as portal:
        told = result(portal, message.request_id)
    assert statuses_of(told) == ["INDETERMINATE"] * ITEMS
    assert not any(signatures(told))
    again(ended, message, Seen(), more=ITEMS)
    assert {row["attempt"] for row in of(ended.rig, message.request_id, Kind.INTENT)} == {1, 2}


def test_f28_between_outcome_and_answer(ended: Ended) -> None:
    """
    F28, row 4.1: kill -9, or a power cut, between SIGNED and the response: nobody was answered, and GetResult and a retry with
    the same request_id have the stored bytes, without another C_Sign.
    """
    message, before = asked_for(), signed(ended.rig)
    assert ended.at("written", message).code == "UNAVAILABLE"
    assert signed(ended.rig) == before + ITEMS
    assert not of(ended.rig, message.request_id, Kind.POSSIBLE)
    seen = Seen()
    with Caller(ended.rig) as portal:
        told = result(portal, message.request_id)
    assert statuses_of(told) == ["SIGNED"] * ITEMS
    seen.add(told)
    again(ended, message, seen, more=0)


def test_row_4_1_between_answer_and_released(ended: Ended) -> None:
    """
    Row 4.1, 0.1: kill -9, or a power cut, after the answer and before RELEASED is on the disk: what was acknowledged is not
    lost, the same request has the same bytes, and C_Sign is not called again.
    """
    message, before, seen = asked_for(), signed(ended.rig), Seen()
    first = seen.add(ended.at("answered", message))
    assert all(first)
    assert signed(ended.rig) == before + ITEMS
    assert kinds(ended.rig, message.request_id).keys() == {Kind.INTENT}, "not RELEASED, and nothing is in doubt"
    with Caller(ended.rig) as portal:
        assert seen.add(result(portal, message.request_id)) == first
    again(ended, message, seen, more=0)
