"""What a token or a lane's process has too little of: sessions, memory, descriptors; and operations left over."""

import itertools
import resource
import time
from pathlib import Path

import psutil
import pytest

from pool import Algorithm, Hash, Key, Pool, Scheme, Status, Unavailable
from pool.child import FILES_MAX, MEMORY_BYTES_MAX
from pool.codes import name_of
from pool.lane import BREAKER_LOSSES
from tests.conftest import Keys, MakePool
from tests.pool.conftest import MakePersonal
from tests.pool.persons import leased, refused, waits
from tests.pool.rig import (
    ECDSA,
    check,
    config,
    digests,
    inputs,
    pids,
    pool_over,
    state,
    statuses,
    token_input,
    until,
    view,
    warm,
)
from tests.shim import Shim
from tests.softhsm import Store

P384 = Algorithm(Scheme.ECDSA, Hash.SHA384)
SESSION_COUNT, DEVICE_MEMORY, OPERATION_ACTIVE = 0xB1, 0x31, 0x90


@pytest.fixture(autouse=True)
def short_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a lane rests before the breaker opens is tested in test_tables.py."""
    monkeypatch.setattr("pool.lane.REST_FIRST_S", 0.01)


async def recycled(pool: Pool, old: list[int], within_s: float = 5.0) -> None:
    await until(lambda: state(pool) == "READY" and not {0, *old} & set(pids(pool)), within_s)


@pytest.mark.parametrize(
    ("function", "code"),
    [
        ("C_SignInit", SESSION_COUNT),
        ("C_Sign", SESSION_COUNT),
        ("C_SignInit", DEVICE_MEMORY),
        ("C_Sign", DEVICE_MEMORY),
    ],
)
async def test_a_token_without_sessions_or_memory(
    make_pool: MakePool, keys: Keys, shim: Shim, function: str, code: int
) -> None:
    """
    F7: CKR_SESSION_COUNT or CKR_DEVICE_MEMORY at a signature: the worker is recycled and the item tried once more, which
    its caller does not notice; where the second session says the same it is TOKEN_SESSIONS.
    """
    async with make_pool(shim=shim) as pool:
        key, spki = pool.key("P-256"), keys["P-256"][1]
        await warm(pool, key, ECDSA)
        old = pids(pool)
        shim.script(f"{function} {shim.number(function) + 3} return {code:#x}")
        outcomes = await pool.sign(key, ECDSA, items := digests(8))
        assert statuses(outcomes) == {("SIGNED", ""): 8}
        for item, outcome in zip(items, outcomes, strict=True):
            check(ECDSA, spki, item, outcome.signature)
        await recycled(pool, old)
        old = pids(pool)
        shim.script(f"{function} * return {code:#x}")
        (outcome,) = await pool.sign(key, ECDSA, items := digests(1, 50))
        assert (outcome.status, outcome.reason) == (Status.FAILED, "TOKEN_SESSIONS")
        assert outcome.detail == name_of(code)
        asked = inputs(shim).count(token_input(ECDSA, spki, items[0]).hex())
        assert asked == (2 if function == "C_Sign" else 0), "one retry"
        shim.clear()
        await recycled(pool, old)
        assert statuses(await pool.sign(key, ECDSA, digests(2, 60))) == {("SIGNED", ""): 2}


async def test_a_token_that_opens_no_session(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """
    F7: CKR_SESSION_COUNT from C_OpenSession: what waits is told TOKEN_SESSIONS and when to come back once the breaker has
    opened, no PIN was sent, and when others have closed theirs the token comes back.
    """
    cka_id, spki = keys["P-256"]
    shim.script("C_OpenSession * return 0xb1")
    async with make_pool(shim=shim, wait=False, pool_keys=[key := Key(spki, cka_id)]) as pool:
        await until(lambda: state(pool) == "TRIPPED", 10)
        assert shim.count("C_OpenSession") == BREAKER_LOSSES
        assert shim.logins() == []
        assert "CKR_SESSION_COUNT" in view(pool).detail
        with pytest.raises(Unavailable) as error:
            await pool.sign(key.ref, ECDSA, digests(1))
        assert (error.value.reason, bool(error.value.retry_s)) == ("TOKEN_SESSIONS", True)
        shim.clear()
        pool.unlock("card")
        await until(lambda: state(pool) == "READY", 5)


async def test_what_waits_is_told_of_the_shortage(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """F7: a call that waits while its token cannot be opened for want of sessions is not left to its deadline."""
    async with make_pool(shim=shim) as pool:
        key = pool.key("P-256")
        shim.script("C_OpenSession * return 0xb1", "C_Sign * crash")
        began = time.monotonic()
        outcomes = await pool.sign(key, ECDSA, digests(3), timeout_s=25)
        assert time.monotonic() - began < 10
        assert statuses(outcomes) == {("INDETERMINATE", "MODULE_CRASH"): 1, ("NOT_ATTEMPTED", "TOKEN_SESSIONS"): 2}
        with pytest.raises(Unavailable) as error:
            await pool.sign(key, ECDSA, digests(1))
        assert (error.value.reason, bool(error.value.retry_s)) == ("TOKEN_SESSIONS", True)


@pytest.mark.parametrize("function", ["C_SignInit", "C_Sign"])
async def test_an_operation_left_over(make_pool: MakePool, keys: Keys, shim: Shim, function: str) -> None:
    """
    F8: CKR_OPERATION_ACTIVE: the worker is recycled, and what was refused is signed by another session, never again in
    the same one.
    """
    async with make_pool(shim=shim) as pool:
        key, spki = pool.key("P-256"), keys["P-256"][1]
        await warm(pool, key, ECDSA)
        (old,) = pids(pool)
        number = shim.number(function)
        shim.script(f"{function} {number + 4} return {OPERATION_ACTIVE:#x}", f"{function} * log")
        outcomes = await pool.sign(key, ECDSA, items := digests(10))
        assert statuses(outcomes) == {("SIGNED", ""): 10}
        for item, outcome in zip(items, outcomes, strict=True):
            check(ECDSA, spki, item, outcome.signature)
        calls = [call for call in shim.log() if call.fn == function and call.ev == "leave" and call.n > number]
        (refused_at,) = [place for place, call in enumerate(calls) if call.rv == OPERATION_ACTIVE]
        assert [call.pid for call in calls[: refused_at + 1]] == [old] * (refused_at + 1)
        assert old not in {call.pid for call in calls[refused_at + 1 :]}, "the same session was asked again"
        await recycled(pool, [old])


async def test_an_operation_left_over_while_keys_are_looked_for(make_pool: MakePool, shim: Shim) -> None:
    """
    F8: CKR_OPERATION_ACTIVE to the search for the private keys is about the session and not about the keys: the lane is
    recycled, and does not stay without a key that is there.
    """
    async with make_pool(shim=shim) as pool:
        await warm(pool, pool.key("P-256"), ECDSA)
        start = shim.number("C_FindObjectsInit")
        (old,) = pids(pool)
        psutil.Process(old).kill()
        await recycled(pool, [old])
        each = shim.number("C_FindObjectsInit") - start
        (old,) = pids(pool)
        shim.script(f"C_FindObjectsInit {start + 2 * each} return {OPERATION_ACTIVE:#x}")
        psutil.Process(old).kill()
        await until(lambda: shim.number("C_FindObjectsInit") >= start + 3 * each, 10)
        await recycled(pool, [old])
        assert pool.key("P-256") in view(pool).lanes[0][0].keys
        assert statuses(await pool.sign(pool.key("P-256"), ECDSA, digests(2))) == {("SIGNED", ""): 2}


async def test_a_person_whose_keys_cannot_be_looked_for(make_personal: MakePersonal, shim: Shim) -> None:
    """F8: the same after a person's login: she is told at once, the lane is recycled, and the next lease is as ever."""
    async with make_personal() as pool:
        await waits(pool)
        before = shim.number("C_FindObjectsInit")
        async with leased(pool) as lease:
            assert statuses(await lease.sign(ECDSA, digests(1))) == {("SIGNED", ""): 1}
        await waits(pool)
        assert shim.number("C_FindObjectsInit") > before
        number = shim.number("C_FindObjectsInit")
        looks = 2  # `look` again before the PIN: key objects, then certificates
        shim.script(f"C_FindObjectsInit {number + looks + 1} return {OPERATION_ACTIVE:#x}")
        logins, began = len(shim.logins()), time.monotonic()
        error = await refused(pool)
        assert len(shim.logins()) == logins + 1, "it was not about the search after the login"
        assert time.monotonic() - began < 2
        assert error.reason == "TOKEN_FAULT"
        await waits(pool)
        async with leased(pool) as lease:
            assert statuses(await lease.sign(ECDSA, digests(1, 5))) == {("SIGNED", ""): 1}


# ---- limits of a lane's process


def limits(pid: int) -> tuple[int, int]:
    process = psutil.Process(pid)
    return process.rlimit(resource.RLIMIT_AS)[1], process.rlimit(resource.RLIMIT_NOFILE)[1]


@pytest.mark.parametrize(
    "leak", [f"leak-memory {MEMORY_BYTES_MAX // 8}", f"leak-files {FILES_MAX // 8}"], ids=["memory", "descriptors"]
)
async def test_a_module_that_leaks(pair_of_stores: tuple[Store, Store], shim: Shim, tmp_path: Path, leak: str) -> None:
    """
    F50: a module that leaks address space or descriptors comes to its own process's limit, and to no other's: the item it
    fails at is WORKER_LIMIT, the lane is recycled and signs on; another token, and this process, never notice.
    """
    leaking, other = pair_of_stores
    configs = (config(leaking, shim=shim), config(other, "other"))
    async with pool_over(*configs, state=tmp_path / "state") as pool:
        key, beside = pool.key("P-256"), pool.key("P-384")
        (old,), quiet = pids(pool), pids(pool, "other")
        assert limits(old) == (MEMORY_BYTES_MAX, FILES_MAX)
        shim.script(f"C_Sign * {leak}")
        told = []
        for number in itertools.count():
            (outcome,) = await pool.sign(key, ECDSA, digests(1, number))
            assert statuses(await pool.sign(beside, P384, digests(1, number, P384))) == {("SIGNED", ""): 1}
            if outcome.status is not Status.SIGNED:
                told.append(outcome)
                break
            assert number < 20
        shim.clear()
        assert [(one.status, one.reason) for one in told] == [(Status.INDETERMINATE, "WORKER_LIMIT")]
        await recycled(pool, [old])
        assert pids(pool, "other") == quiet
        assert statuses(await pool.sign(key, ECDSA, digests(3, 100))) == {("SIGNED", ""): 3}
        assert view(pool, "other").lanes[0][0].tally.losses == 0


async def test_a_module_that_is_too_large(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """F50: a module that cannot even start within the limits: WORKER_LIMIT at the breaker, and no PIN sent."""
    shim.script(f"C_Initialize * leak-memory {2 * MEMORY_BYTES_MAX}")
    cka_id, spki = keys["P-256"]
    async with make_pool(shim=shim, wait=False, pool_keys=[key := Key(spki, cka_id)]) as pool:
        await until(lambda: state(pool) == "TRIPPED", 10)
        assert "CKR_HOST_MEMORY" in view(pool).detail
        assert shim.logins() == []
        with pytest.raises(Unavailable, match="WORKER_LIMIT"):
            await pool.sign(key.ref, ECDSA, digests(1))


@pytest.fixture(scope="module")
def pair_of_stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    """Two module stores, with the token "card" and a P-256 key, and "other" with a P-384 one; for signing only."""
    made = []
    for label, kind in (("card", "P-256"), ("other", "P-384")):
        store = Store(tmp_path_factory.mktemp(label) / "softhsm")
        store.token(label)
        store.keys(label, [kind])
        made.append(store)
    return made[0], made[1]
