"""One daemon for all tests of this directory that only sign and verify with it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from signer.client import Client
from tests.daemon import SUBMIT, Rig, Token, running
from tests.signer.outputs.driver import Verifiers, copied
from tests.softhsm import KINDS, Store


@pytest.fixture(scope="session")
def rig(store: Store) -> Iterator[Rig]:
    """A daemon over a card with a key of every kind; credentials are named by their kind in lower case. Callers: portal, other."""
    made = Rig()
    made.store = copied(store, made.directory / "copied")
    made.tokens = [Token("card", "card")]
    made.assembly_processes = None
    made.add_keys("card", KINDS)
    made.callers["other"] = ("submit", SUBMIT, None)
    with running(made):
        yield made


@pytest.fixture
async def client(rig: Rig) -> AsyncIterator[Client]:
    async with rig.client() as made:
        yield made


@pytest.fixture(scope="session")
def verifiers(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Verifiers:
    directory: Path = tmp_path_factory.mktemp("verifiers")
    return Verifiers(rig.pki.root_file, directory)
