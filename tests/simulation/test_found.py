"""What the simulation has found and was mended, each told once more in few words, on the simulated loop."""

import asyncio
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pool import Pool
from pool.keeper import LOOK_EVERY_S
from tests.pool.rig import ECDSA, config, digests, state, statuses, until, view
from tests.simulation.loop import simulated
from tests.simulation.shim import CLOCK, FakeShim, FakeStore

CKR_DEVICE_ERROR = "0x30"


@pytest.fixture(autouse=True)
def simulated_time() -> Iterator[None]:
    with simulated(CLOCK):
        yield


async def test_a_probe_that_cannot_be_started(tmp_path: Path) -> None:
    """
    F50: a card is pulled while there are no descriptors to look for it: its lane's life goes on, and signs when the card
    is back. (The lane's task ended by the error, for good.)
    """
    shim = FakeShim()
    store = FakeStore(shim)
    store.keys("card", ["P-256"])
    [slot], card = shim.inner.slots, shim.cards["card"]
    refused = 0

    async def start(program: str, *args: str, **more: Any) -> Any:
        nonlocal refused
        if program == "pool.probe" and not refused:
            refused += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return await shim.fakes.start(program, *args, **more)

    async with Pool([config(store, shim=shim)], state=tmp_path, start=start) as pool:  # type: ignore[arg-type]
        await pool.ready()
        key = pool.key("P-256")
        card.power_lost()
        slot.card = None
        await until(lambda: state(pool) == "ABSENT", 30)
        assert refused == 1
        slot.card = card
        await until(lambda: state(pool) == "READY", 30)
        assert statuses(await pool.sign(key, ECDSA, digests(2))) == {("SIGNED", ""): 2}


async def test_a_token_in_use_is_not_looked_for(tmp_path: Path) -> None:
    """
    A token that was away, and is brought back by hand before the next look for it, is not looked for any more: a
    probe would speak to a card that somebody is logged in to. (It did, a second later.)
    """
    shim = FakeShim()
    store = FakeStore(shim)
    store.keys("card", ["P-256"])
    [slot], card = shim.inner.slots, shim.cards["card"]
    probes = 0

    async def start(program: str, *args: str, **more: Any) -> Any:
        nonlocal probes
        probes += program == "pool.probe"
        return await shim.fakes.start(program, *args, **more)

    async with Pool([config(store, shim=shim)], state=tmp_path, start=start) as pool:  # type: ignore[arg-type]
        await pool.ready()
        card.power_lost()
        slot.card = None
        await until(lambda: state(pool) == "ABSENT", 30)
        slot.card, before = card, probes
        pool.drain("card")
        pool.resume("card")
        await until(lambda: state(pool) == "READY", 30)
        await asyncio.sleep(3 * LOOK_EVERY_S)
        assert probes == before
        assert state(pool) == "READY"


async def test_a_token_that_fails_while_a_key_is_looked_for(tmp_path: Path) -> None:
    """
    F6: CKR_DEVICE_ERROR in the search for a private key is the lane's loss; the next one has the key. (The lane came up
    without it, and whoever asked for it waited in vain until the lane's end.)
    """
    shim = FakeShim()
    store = FakeStore(shim)
    store.keys("card", ["P-256"])
    shim.script(f"C_FindObjectsInit 3 return {CKR_DEVICE_ERROR}")  # behind public keys and certificates
    async with Pool([config(store, shim=shim)], state=tmp_path, start=shim.fakes.start) as pool:  # type: ignore[arg-type]
        await until(lambda: view(pool).lanes[0][0].tally.losses == 1, 10)
        assert "CKR_DEVICE_ERROR" in view(pool).lanes[0][0].problem
        await until(lambda: state(pool) == "READY", 10)
        assert statuses(await pool.sign(pool.key("P-256"), ECDSA, digests(2))) == {("SIGNED", ""): 2}
        assert len(shim.logins()) == 2
