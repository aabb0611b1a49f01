"""The room that documents have, and the time: a daemon with little of both."""

from collections.abc import AsyncIterator, Iterator

import pytest

from signer.client import Client
from signer.limits import MEMORY_DOCUMENT_BYTES_MAX
from tests.daemon import Rig, running
from tests.signer.access.calls import card_rig, metric, signed
from tests.signer.outputs.driver import Stream

DOCUMENT = bytes(MEMORY_DOCUMENT_BYTES_MAX + 50_000)  # on the disk, and so is what encloses it
ROOM = len(DOCUMENT) + 200_000


@pytest.fixture(scope="module")
def small() -> Iterator[Rig]:
    """A daemon whose spool holds one such document of a caller and not two."""
    made = card_rig("P-256")
    made.constants = {"SPOOL_CALLER_BYTES_MAX": ROOM}
    with running(made):
        yield made


@pytest.fixture
async def client(small: Rig) -> AsyncIterator[Client]:
    async with small.client() as made:
        yield made


async def test_no_room_for_what_is_made_of_it(small: Rig, client: Client) -> None:
    """An output takes its room before anything is signed; where there is none, SPOOL_FULL, and the document's is free again."""
    before = signed(small)
    stream = await Stream(client, timeout_s=20).open("CADES_B_B", enveloping=True)
    answer = await stream.round(0, DOCUMENT)
    assert answer.reason == "SPOOL_FULL"
    assert signed(small) == before
    answer = await stream.round(1, DOCUMENT[: ROOM // 2 - 20_000])
    assert answer.signed, answer.result.message
    await stream.close()
    stream = await Stream(client, timeout_s=20).open("CADES_B_B")
    answer = await stream.round(0, DOCUMENT)
    assert answer.signed, "what is detached needs little"
    await stream.close()
    assert metric(small, "paraph_spool_bytes") == 0
