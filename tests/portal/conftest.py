"""What tests of the portal share: a place with Ada and her space, and one daemon with its portal and window for all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.portal.place import Place, SetClock, Visitor
from tests.portal.real import TRIES_A_MINUTE, Real
from tests.portal.sent import agent
from tests.signer.ledger.entries import executed


@pytest.fixture(scope="module", autouse=True)
def _the_same_morning() -> None:
    """What a file of tests has done to the clock is not the next one's."""
    SetClock.at = SetClock.BEGIN


_MADE: list[Real] = []


@pytest.fixture(scope="module", autouse=True)
def _nobody_is_locked() -> Iterator[None]:
    """The codes that a file of tests has got wrong are not the next one's: five within a quarter of an hour lock a person."""
    yield
    for made in _MADE:
        executed(made.rig.state / "paraph.sqlite", "DELETE FROM guesses")


@pytest.fixture(scope="session")
def real() -> Iterator[Real]:
    """A browser of the tests has one address for all of them: the limits of addresses are higher than by default, and of codes that are sent."""
    limits = {
        "portal": "[limits]\nlogin_a_minute = 100",
        "window": f"[limits]\ntries_a_minute = {TRIES_A_MINUTE}\ncodes_in_10_minutes = 100",
    }
    with Real(tokens=True, **limits) as made:
        _MADE.append(made)
        yield made
        _MADE.remove(made)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


@pytest.fixture
def ada(place: Place) -> Visitor:
    """She has an account, and has accepted the terms."""
    made = place.visitor()
    made.logs_in()
    return made


@pytest.fixture
def space(ada: Visitor) -> str:
    """The identifier of Ada's business space."""
    return ada.creates_business()


@pytest.fixture
def grace(place: Place, ada: Visitor) -> Visitor:
    """She works for the town hall."""
    return agent(place)
