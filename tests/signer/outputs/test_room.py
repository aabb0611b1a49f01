"""The room that documents have, and the time: daemons with little of one."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from signer.client import Client
from signer.limits import MEMORY_DOCUMENT_BYTES_MAX
from tests.daemon import Rig, running
from tests.pool.rig import until
from tests.signer.access.calls import card_rig, metric, signed
from tests.signer.outputs.driver import Stream

DOCUMENT = bytes(MEMORY_DOCUMENT_BYTES_MAX + 50_000)  # on the disk, and so is what encloses it
ROOM = len(DOCUMENT) + 200_000


def limited(**limits: float) -> contextlib.AbstractContextManager[Rig]:
    """A daemon with these limits."""
    made = card_rig("P-256")
    made.constants = limits
    return running(made)


@pytest.fixture(scope="module")
def small() -> Iterator[Rig]:
    """Its spool holds one such document of a caller and not two."""
    with limited(SPOOL_CALLER_BYTES_MAX=ROOM) as made:
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


LIFE_S = 2.5


@pytest.fixture(scope="module")
def hurried() -> Iterator[Rig]:
    """A document has so long there from its first byte until its answer is taken."""
    with limited(DOCUMENT_S=LIFE_S) as made:
        yield made


@pytest.fixture
async def caller(hurried: Rig) -> AsyncIterator[Client]:
    async with hurried.client() as made:
        yield made


async def test_a_document_that_does_not_come_to_its_end(hurried: Rig, caller: Client) -> None:
    """Its stream ends when its time is over, however often another piece of it comes, and its bytes are given back."""
    stream = await Stream(caller, timeout_s=20).open()
    began = time.monotonic()
    await stream.begin(0)

    async def trickle() -> None:
        while True:
            await stream.send(chunk=b"%PDF")
            await asyncio.sleep(LIFE_S / 10)

    sending = asyncio.create_task(trickle())
    try:
        assert await stream.refusal() == "STREAM_OVER"
        assert LIFE_S <= time.monotonic() - began < LIFE_S + 1
    finally:
        sending.cancel()
    assert metric(hurried, "paraph_spool_bytes") == 0


async def test_an_answer_that_nobody_takes(hurried: Rig, caller: Client) -> None:
    """A signed document is not kept for who does not read it; those behind it neither."""
    document = bytes(4 * 1024 * 1024)  # more than a connection takes by itself
    stream = await Stream(caller, timeout_s=20).open("CADES_B_B", enveloping=True)
    before = signed(hurried)
    for index in range(2):
        await stream.document(index, document)
    await until(lambda: signed(hurried) == before + 2)
    assert metric(hurried, "paraph_spool_bytes") > 2 * len(document)
    await until(lambda: metric(hurried, "paraph_spool_bytes") == 0, LIFE_S + 1)
    stream.call.cancel()


async def test_a_stream_outlives_its_documents(caller: Client) -> None:
    """Each has its own time."""
    stream = await Stream(caller, timeout_s=20).open("CADES_B_B")
    began, index = time.monotonic(), 0
    while time.monotonic() - began < 2 * LIFE_S:
        assert (await stream.round(index, b"a document")).signed
        await asyncio.sleep(LIFE_S / 4)
        index += 1
    await stream.close()
