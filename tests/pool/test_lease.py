"""
A person's token: it waits, is leased by its own PIN, and is clean again before anybody else has it.

The shim's log says what the token was really asked. Each person's PIN has another length, so that the log tells whose
login it was without holding a PIN.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from pool import (
    BadRequest,
    Key,
    Lease,
    Outcomes,
    Pin,
    Pool,
    PoolError,
    TokenConfig,
    Unavailable,
)
from pool.assign import Frame, Run
from pool.reader import ResetFailed
from pool.work import Work
from tests.pool.rig import (
    ECDSA,
    audit,
    check,
    config,
    digests,
    gone,
    pids,
    pool_over,
    state,
    statuses,
    until,
    view,
)
from tests.shim import Shim
from tests.softhsm import PIN, Store

END_S = 1.0  # after a lease, its worker is gone
WRONG = "99999"
CKR_GENERAL_ERROR, CKR_DEVICE_REMOVED, CKR_PIN_INCORRECT = "0x5", "0x32", "0xA0"
CKR_PIN_LOCKED, CKR_SESSION_HANDLE_INVALID, CKR_USER_ALREADY_LOGGED_IN = "0xA4", "0xB3", "0x100"
CKU_USER, CKU_CONTEXT_SPECIFIC = 1, 2


class Resets:
    """Stands for the readers: when which token's card was reset."""

    def __init__(self) -> None:
        self.made: list[tuple[int, str]] = []  # CLOCK_MONOTONIC in ns, as in the shim's log
        self.failures = 0

    async def __call__(self, token: TokenConfig) -> None:
        if self.failures:
            self.failures -= 1
            raise ResetFailed("SCardConnect: 0x8010000b")
        self.made.append((time.monotonic_ns(), token.name))


@pytest.fixture
def resets() -> Resets:
    return Resets()


@pytest.fixture
def people(own_store: Store) -> Store:
    """The token "card" with one P-256 key."""
    own_store.token("card")
    own_store.keys("card", ["P-256"])
    return own_store


MakePersonal = Callable[..., contextlib.AbstractAsyncContextManager[Pool]]


@pytest.fixture
def make_personal(people: Store, shim: Shim, resets: Resets, tmp_path: Path) -> MakePersonal:
    """`async with make_personal() as pool:` a pool over the card behind the shim, which waits for its person."""

    @contextlib.asynccontextmanager
    async def made(*, wait: bool = True, keys: Any = None, **token: Any) -> AsyncIterator[Pool]:
        one = config(people, shim=shim, pin=None, personal=True, **token)
        async with pool_over(one, state=tmp_path / "state", wait=wait, keys=keys, reset=resets) as pool:
            yield pool

    return made


def leased(pool: Pool, pin: str = PIN, *, caller: str = "ann", timeout_s: float = 10.0, **more: Any) -> Any:
    return pool.lease("card", caller=caller, pin=Pin(pin), timeout_s=timeout_s, **more)


async def refused(pool: Pool, pin: str = PIN, **more: Any) -> Any:
    """The error that a lease is refused with."""
    with pytest.raises(PoolError) as error:
        async with leased(pool, pin, **more):
            pytest.fail("the lease was given")
    return error.value


async def waits(pool: Pool, name: str = "card") -> None:
    await until(lambda: state(pool, name) == "OPEN" and view(pool, name).lanes[0][0].state == "OPEN", 10)


def spki(store: Store, label: str = "card") -> bytes:
    return store.made[label]["P-256"][1]


def calls(shim: Shim, pid: int) -> list[str]:
    """What a process has called, each function once entered."""
    return [call.fn for call in shim.log() if call.pid == pid and call.ev == "enter"]


def count(tmp_path: Path) -> tuple[int, int]:
    """(refused, open) of the only token, as they are on disk."""
    database = sqlite3.connect(tmp_path / "state" / "tries.sqlite")
    try:
        return database.execute("SELECT refused, open FROM tries").fetchone() or (0, 0)
    finally:
        database.close()


# ---- the way of a lease


async def test_a_lease_costs_only_the_login(make_personal: MakePersonal, people: Store, shim: Shim) -> None:
    """
    Before a person comes the token is open, known, and hears no PIN; the lease logs in once, starts nothing, and signs;
    what the states say is what there is.
    """
    async with make_personal() as pool:
        key, items = pool.key("P-256"), digests(40, 0, ECDSA)
        (pid,) = pids(pool)
        assert (state(pool), view(pool).lanes[0][0].state, pool.problem(key)) == ("OPEN", "OPEN", "")
        assert await anext(pool.changes()) is True
        assert shim.logins() == []
        async with leased(pool) as lease:
            assert isinstance(lease, Lease)
            assert (state(pool), pool.problem(key), view(pool).detail) == ("LEASED", "TOKEN_BUSY", "for ann")
            assert await anext(pool.changes()) is True
            assert pids(pool) == [pid]
            outcomes = await lease.sign(ECDSA, items)
            assert audit(shim, spki(people), ECDSA, items, outcomes) == []
            assert statuses(outcomes) == {("SIGNED", ""): 40}
            assert {outcome.token for outcome in outcomes} == {"card"}
        with pytest.raises(Unavailable) as over:
            await lease.sign(ECDSA, items)
        assert over.value.reason == "LOGIN_REQUIRED"
        assert pool.problem(key) == "TOKEN_BUSY", "not clean yet"
        await waits(pool)
        assert [(call.user, call.pinlen) for call in shim.logins()] == [(CKU_USER, len(PIN))]
        assert view(pool).lanes[0][0].tally.losses == 0


async def test_a_person_s_key_signs_in_no_other_way(make_personal: MakePersonal, shim: Shim) -> None:
    """`Pool.sign` is told LOGIN_REQUIRED, beside a live lease of the same key, too; what is no person's has no lease."""
    async with make_personal() as pool:
        key = pool.key("P-256")
        for _ in range(2):
            with pytest.raises(Unavailable) as error:
                await pool.sign(key, ECDSA, digests(1))
            assert (error.value.reason, error.value.retry_s) == ("LOGIN_REQUIRED", None)
        async with leased(pool):
            with pytest.raises(Unavailable, match="LOGIN_REQUIRED"):
                await pool.sign(key, ECDSA, digests(1))
        with pytest.raises(BadRequest, match="KEY_UNKNOWN"):
            async with pool.lease("nobody", caller="ann", pin=Pin(PIN), timeout_s=1):
                pass
        assert shim.signs() == []


async def test_a_lease_by_key_is_for_that_key(people: Store, make_personal: MakePersonal, shim: Shim) -> None:
    """On a token with two keys the key says which is meant; the token's name alone is refused, and no PIN sent."""
    second = people.keys("card", ["P-384"])["P-384"]
    async with make_personal() as pool:
        assert (await refused(pool)).reason == "KEY_UNKNOWN"
        assert shim.logins() == []
        ref = Key(second[1], second[0]).ref
        async with pool.lease(ref, caller="ann", pin=Pin(PIN), timeout_s=5) as lease:
            (outcome,) = await lease.sign(ECDSA, digests(1))
            check(ECDSA, second[1], digests(1)[0], outcome.signature)
            for algorithm, items, reason in ((ECDSA, [], "BATCH_EMPTY"), (ECDSA, [b"x"], "DIGEST_LENGTH")):
                with pytest.raises(BadRequest, match=reason):
                    await lease.sign(algorithm, items)


async def test_what_a_lease_signs_is_in_writing_before(make_personal: MakePersonal, shim: Shim) -> None:
    """`record` is asked as by `Pool.sign`: no C_Sign before its intent is durable, and each outcome is told to it."""
    told: list[Any] = []

    class Intent:
        def __init__(self) -> None:
            self.durable = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.05, self._written)

        def _written(self) -> None:
            told.append(len(shim.signs()))
            self.durable.set_result(None)

        def settled(self, signatures: Any, problems: Any, *, is_last: bool = True) -> None:
            told.append((list(signatures), dict(problems), is_last))

    class Record:
        def intend(self, start: int, stop: int, token: str, *, within_s: float = 0.0) -> Intent:
            told.append((start, stop, token))
            return Intent()

    async with make_personal() as pool, leased(pool) as lease:
        (outcome,) = await lease.sign(ECDSA, digests(1), record=Record())
        assert told == [(0, 1, "card"), 0, ([outcome.signature], {}, True)]


async def test_several_requests_of_one_lease(make_personal: MakePersonal, people: Store, shim: Shim) -> None:
    """They share it: each has its own answers; one with a short time is told so, and costs the others nothing."""
    async with make_personal() as pool, leased(pool) as lease:
        shim.script("C_Sign * delay 0.005")
        batches = [digests(30, 100 * number, ECDSA) for number in range(3)]
        short = asyncio.create_task(lease.sign(ECDSA, digests(200, 5_000, ECDSA), timeout_s=0.2))
        answers = await asyncio.gather(*(lease.sign(ECDSA, items) for items in batches))
        for items, outcomes in zip(batches, answers, strict=True):
            assert audit(shim, spki(people), ECDSA, items, outcomes) == []
            assert statuses(outcomes) == {("SIGNED", ""): 30}
        late = statuses(await short)
        assert late["NOT_ATTEMPTED", "DEADLINE_EXCEEDED"] > 50


# ---- one at a time


async def test_who_comes_second_waits(make_personal: MakePersonal, people: Store, shim: Shim) -> None:
    """First come, first served, each by a login and a process of its own; who goes away loses only the turn."""
    async with make_personal() as pool:
        served: list[str] = []

        async def come(name: str, number: int) -> Outcomes:
            async with leased(pool, caller=name) as lease:
                served.append(name)
                assert view(pool).detail == f"for {name}"
                return await lease.sign(ECDSA, digests(3, number, ECDSA))

        async with leased(pool):
            tasks = []
            for number, name in enumerate(("bob", "eve", "cat")):
                tasks.append(asyncio.create_task(come(name, 10 * number)))
                await asyncio.sleep(0)
            tasks[1].cancel()
        for number, task in ((0, tasks[0]), (20, tasks[2])):
            assert audit(shim, spki(people), ECDSA, digests(3, number, ECDSA), await task) == []
        assert served == ["bob", "cat"]
        assert len({call.pid for call in shim.logins()}) == len(shim.logins()) == 3


async def test_b_beside_a(make_personal: MakePersonal, shim: Shim, tmp_path: Path) -> None:
    """
    F20: A is logged in with the right PIN; B with a wrong one, or with the right one, is told TOKEN_BUSY at B's own
    deadline, with no C_Login; when A is gone B's wrong PIN is PIN_INCORRECT, and never a login that was already there.
    """
    async with make_personal() as pool:
        async with leased(pool) as lease:
            for pin in (WRONG, PIN):
                began = time.monotonic()
                error = await refused(pool, pin, caller="bob", timeout_s=0.3)
                assert (error.reason, type(error)) == ("TOKEN_BUSY", Unavailable)
                assert 0.3 <= time.monotonic() - began <= 0.5
                assert "ann" not in str(error), "who has it is not everybody's business"
            assert statuses(await lease.sign(ECDSA, digests(1))) == {("SIGNED", ""): 1}
            assert len(shim.logins()) == 1
            late = asyncio.create_task(refused(pool, WRONG, caller="bob"))
            await asyncio.sleep(0)
        assert (await late).reason == "PIN_INCORRECT"
        assert len(shim.signs()) == 1
        assert count(tmp_path) == (1, 0)


async def test_a_login_that_is_already_there_is_none(
    make_personal: MakePersonal, shim: Shim, resets: Resets, tmp_path: Path
) -> None:
    """
    F20: C_Login answers CKR_USER_ALREADY_LOGGED_IN, so that nobody looked at the PIN: an error, nothing signed, no try
    counted; the process ends, the card is reset, and the next lease is a new one.
    """
    shim.script(f"C_Login 1 return {CKR_USER_ALREADY_LOGGED_IN}")
    async with make_personal() as pool:
        (pid,) = pids(pool)
        error = await refused(pool)
        assert (error.reason, type(error)) == ("TOKEN_BUSY", Unavailable)
        assert "CKR_USER_ALREADY_LOGGED_IN" in str(error)
        await until(lambda: gone(pid), END_S)
        assert count(tmp_path) == (0, 0)
        await waits(pool)
        assert len(resets.made) == 2
        async with leased(pool) as lease:
            assert statuses(await lease.sign(ECDSA, digests(1))) == {("SIGNED", ""): 1}
    assert {call.pid for call in shim.signs()}.isdisjoint({pid})


async def test_another_lease_s_frame_is_refused_by_the_worker(make_personal: MakePersonal, shim: Shim) -> None:
    """A frame that names another lease, or none, is signed by no C_Sign: the worker ends, and its lease with it."""
    async with make_personal() as pool:
        for number, other in enumerate(("", "0" * 32)):
            async with leased(pool) as lease:
                (attendant,) = vars(pool)["_personal_lanes"]
                done = asyncio.get_running_loop().create_future()
                foreign = Work(
                    "eve", lease.key, vars(lease)["_spki"], ECDSA, digests(1), time.monotonic() + 5, done, None, other
                )
                foreign.take(1)
                run = Run(foreign, 0, 1)
                attendant.send(Frame(attendant.lane, lease.key, ECDSA, (run,), 0.001))
                await until(lambda: lease.over)
                assert (lease.over, attendant.lane.problem) == ("TOKEN_FAULT", "FOREIGN_LEASE")
                with pytest.raises(Unavailable):
                    await lease.sign(ECDSA, digests(1, 5))
            await waits(pool)
            assert view(pool).lanes[0][0].tally.losses == number + 1
        assert shim.signs() == []
