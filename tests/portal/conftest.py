"""What tests of the portal share: one daemon with its portal and window, for all that need real ones."""

from collections.abc import Iterator

import pytest

from tests.portal.place import SetClock
from tests.portal.real import Real


@pytest.fixture(scope="module", autouse=True)
def _the_same_morning() -> None:
    """What a file of tests has done to the clock is not the next one's."""
    SetClock.at = SetClock.BEGIN


@pytest.fixture(scope="session")
def real() -> Iterator[Real]:
    with Real(tokens=True) as made:
        yield made
