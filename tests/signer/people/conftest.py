"""One daemon with people in it, for tests that take nothing away from them."""

from collections.abc import Iterator

import pytest

from tests.signer.people.persons import Town


@pytest.fixture(scope="session")
def town() -> Iterator[Town]:
    """Ada (HOTP) is enrolled; bob (sent codes) and cleo (TOTP) are, where a test asks for them."""
    with Town() as made:
        made.enrol("ada", "hotp")
        yield made
