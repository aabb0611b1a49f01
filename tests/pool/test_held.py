"""
What lanes hold after much work: sessions, descriptors and memory do not grow.

`held_by_lanes` is run in full by `python -m tests.soak leaks`.
"""

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from pool import Pin, PinRefused, Pool
from tests.pool.persons import WRONG, Resets, waits
from tests.pool.rig import ECDSA, config, digests, pids, pool_over, statuses, until, view
from tests.shim import Shim
from tests.softhsm import MODULE, Store

BATCH = 1_000
GROWTH_MB = 5.0  # of a lane's memory, row 2.8


@dataclass(frozen=True)
class Held:
    """What one process has: PKCS#11 sessions opened and not closed, descriptors, megabytes in memory."""

    sessions: int
    files: int
    mb: float


def sessions(shim: Shim) -> Counter[int]:
    """Sessions opened and not closed, by process."""
    still: Counter[int] = Counter()
    for call in shim.log():
        if call.ev == "leave" and call.rv == 0:
            still[call.pid] += (call.fn == "C_OpenSession") - (call.fn == "C_CloseSession")
    return still


def held(shim: Shim, pid: int) -> Held:
    process = psutil.Process(pid)
    return Held(sessions(shim)[pid], process.num_fds(), process.memory_info().rss / 2**20)


async def sign(pool: Pool, key: str, count: int, start: int) -> None:
    for first in range(start, start + count, BATCH):
        outcomes = await pool.sign(key, ECDSA, digests(min(BATCH, start + count - first), first))
        assert set(statuses(outcomes)) == {("SIGNED", "")}


async def cancel(pool: Pool, shim: Shim, key: str, count: int) -> None:
    """So many calls that are given up while the lane has them."""
    shim.script("C_Sign * delay 0.001")
    for number in range(count):
        signed = shim.number("C_Sign")
        call = asyncio.create_task(pool.sign(key, ECDSA, digests(20, 20 * number), caller=f"c{number % 7}"))
        await until(lambda: shim.number("C_Sign") > signed)  # noqa: B023 -- called at once
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
    await until(lambda: view(pool, "card").lanes[0][0].state == "IDLE")
    shim.clear()


async def refuse(pool: Pool, count: int) -> None:
    """So many wrong PINs, and after each twentieth a right one."""
    for number in range(1, count + 1):
        with pytest.raises(PinRefused, match="PIN_INCORRECT"):
            async with pool.lease("stick", caller="ann", pin=Pin(WRONG), timeout_s=30):
                pytest.fail("the lease was given")
        if number % 20 == 0:
            async with pool.lease("stick", caller="ann", pin=Pin("1234"), timeout_s=30) as lease:
                assert statuses(await lease.sign(ECDSA, digests(1, number))) == {("SIGNED", ""): 1}


async def held_by_lanes(directory: Path, signatures: int, wrong_pins: int, cancels: int) -> str:
    """
    Work for a service's lane and for a person's; answers the figures, raises AssertionError where anything has grown
    between the end of a first tenth, when all was made once, and the end.
    """
    store = Store(directory / "softhsm")
    for label in ("card", "stick"):
        store.token(label)
        store.keys(label, ["P-256"])
    shims = {label: Shim(directory / label, str(MODULE)) for label in ("card", "stick")}
    service = config(store, shim=shims["card"])
    personal = config(store, "stick", shim=shims["stick"], pin=None, personal=True, pin_tries=1_000_000)
    began = time.monotonic()
    async with pool_over(service, personal, state=directory / "state", reset=Resets()) as pool:
        (key,) = view(pool, "card").keys
        (lane,) = pids(pool, "card")
        ours = psutil.Process()
        tenth = [signatures // 10, wrong_pins // 10, cancels // 10]
        rest = [signatures - tenth[0], wrong_pins - tenth[1], cancels - tenth[2]]
        found = []
        for start, (signs, wrongs, ends) in ((0, tenth), (signatures, rest)):
            await sign(pool, key, signs, start)
            await cancel(pool, shims["card"], key, ends)
            await refuse(pool, wrongs)
            await waits(pool, "stick")
            (stick,) = pids(pool, "stick")
            found.append((held(shims["card"], lane), held(shims["stick"], stick), ours.num_fds()))
        assert pids(pool, "card") == [lane], "the lane was lost"
        refusals = [call for call in shims["stick"].log() if call.fn == "C_Login" and call.rv == 0xA0]
        assert len(refusals) == wrong_pins
    (service_before, person_before, ours_before), (service_after, person_after, ours_after) = found
    assert (service_after.sessions, service_after.files) == (service_before.sessions, service_before.files), found
    assert (person_after.sessions, person_after.files) == (person_before.sessions, person_before.files), found
    assert service_after.sessions == 1
    assert ours_after == ours_before, found
    grown = max(service_after.mb - service_before.mb, person_after.mb - person_before.mb)
    assert grown <= GROWTH_MB, found
    return (
        f"{signatures:,} signatures and {cancels:,} cancelled calls in one lane, {wrong_pins:,} wrong PINs: "
        f"{service_after.sessions} session, {service_after.files} descriptors before and after, {grown:+.1f} MB, "
        f"in {time.monotonic() - began:.0f} s"
    )


async def test_lanes_hold_what_they_held(tmp_path: Path) -> None:
    """
    Row 2.8: over thousands of signatures, wrong PINs and cancelled calls a lane's sessions and descriptors are the same,
    and its memory hardly more; so are the descriptors of the process that owns it.
    """
    print(await held_by_lanes(tmp_path, signatures=3_000, wrong_pins=10, cancels=40))
