"""What tests of the portal share: one daemon with its portal and window, for all that need real ones."""

from collections.abc import Iterator

import pytest

from tests.portal.real import Real


@pytest.fixture(scope="session")
def real() -> Iterator[Real]:
    with Real() as made:
        yield made
