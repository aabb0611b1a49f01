"""
What modules and lanes do at their worst, with the shim's log as the oracle of what a token was really asked.

A docstring that begins with F and a number tests that entry of the fault list. `audit` checks the same after each:
no digest given to C_Sign twice, every signature right, every NOT_ATTEMPTED never given to it.
"""

import asyncio
import contextlib
import itertools
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pool import Busy, Key, Pin, Pool, Status, TokenConfig, Unavailable
from pool.lane import BREAKER_LOSSES
from pool.process import Pages
from tests.conftest import Keys, MakePool
from tests.pool.rig import (
    ECDSA,
    RSA,
    audit,
    check,
    config,
    digests,
    gone,
    inputs,
    lanes_up,
    open_tries,
    pids,
    pool_over,
    state,
    statuses,
    unfinished_signs,
    until,
    view,
    warm,
)
from tests.shim import Shim
from tests.softhsm import MODULE, Store

RECOVERY_S = 2.0  # a lane is back after a crash
ANSWER_S = 0.2  # after a deadline, the caller has an answer
END_S = 1.0  # after that, a hanging lane is gone
# By one bit, altogether, shorter, longer by a byte, and longer than any signature.
WRONG_OUTPUTS = ["corrupt", "zero", "short", "long 1", "long 5000"]
CKR_DEVICE_ERROR, CKR_DEVICE_REMOVED = "0x30", "0x32"
CKR_MECHANISM_INVALID, CKR_SESSION_HANDLE_INVALID = "0x70", "0xB3"


@pytest.fixture
def short_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the breaker: how long a lane rests before it opens is tested in test_tables.py."""
    monkeypatch.setattr("pool.lane.REST_FIRST_S", 0.01)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Another module store, with the token "other" and a P-256 key; for signing only."""
    made = Store(tmp_path_factory.mktemp("second") / "softhsm")
    made.token("other")
    made.keys("other", ["P-256"])
    return made


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One module store with two tokens, "card" and "other"; for signing only."""
    made = Store(tmp_path_factory.mktemp("pair") / "softhsm")
    for label, kind in (("card", "RSA-2048"), ("other", "P-256")):
        made.token(label)
        made.keys(label, [kind])
    return made


def ref(store: Store, label: str, kind: str) -> str:
    cka_id, spki = store.made[label][kind]
    return Key(spki, cka_id).ref


async def back(pool: Pool, old: list[int], name: str = "card", within_s: float = RECOVERY_S) -> None:
    """The token is READY and all its lanes are up, none of them a process of before."""
    await until(
        lambda: state(pool, name) == "READY" and lanes_up(view(pool, name)) and not set(pids(pool, name)) & set(old),
        within_s,
    )


@contextlib.asynccontextmanager
async def neighbour(pool: Pool, key: str) -> AsyncIterator[None]:
    """Meanwhile another token is asked for one signature after the other: all come, and none waits long."""
    times: list[float] = []
    failures: list[Any] = []

    async def ask() -> None:
        for number in itertools.count():
            began = time.monotonic()
            (outcome,) = await pool.sign(key, ECDSA, digests(1, 10_000_000 + number), caller="neighbour")
            times.append(time.monotonic() - began)
            failures.extend([outcome] if outcome.status is not Status.SIGNED else [])

    task = asyncio.create_task(ask())
    try:
        yield
        await until(lambda: len(times) > 20 or task.done())
    finally:
        task.cancel()
        (end,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(end, asyncio.CancelledError), end
    assert failures == []
    assert sorted(times)[int(len(times) * 0.99)] < 0.25


# ---- a lane dies


async def test_kill_9_under_load(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """
    F9: of 400 digests on two lanes, exactly the one under C_Sign of the killed lane is INDETERMINATE; what it had
    finished is delivered, what it had not begun is signed elsewhere; it is back within 2 s.
    """
    async with make_pool(shim=shim, lanes=2) as pool:
        key, spki = pool.key("RSA-2048"), keys["RSA-2048"][1]
        await warm(pool, key)
        # The call that will be under way when the lane dies is the one that hangs: no luck is needed.
        shim.script(f"C_Sign {shim.number('C_Sign') + 150} hang 60", "C_Sign * delay 0.002")
        items = digests(400)
        batch = asyncio.create_task(pool.sign(key, RSA, items))
        (under,) = await until(lambda: [call for call in unfinished_signs(shim) if call.act == "hang"])
        before = pids(pool)
        os.kill(under.pid, signal.SIGKILL)
        await back(pool, [under.pid])
        assert len(set(pids(pool)) & set(before)) == 1, "the other lane was none of it"
        outcomes = await batch
        (lost,) = audit(shim, spki, RSA, items, outcomes)
        assert under.data.endswith(items[lost].hex())
        assert (outcomes[lost].reason, outcomes[lost].detail) == ("MODULE_CRASH", "signal SIGKILL")
        assert statuses(outcomes) == {("SIGNED", ""): 399, ("INDETERMINATE", "MODULE_CRASH"): 1}
        assert len(unfinished_signs(shim)) == 1


@pytest.mark.parametrize("lanes", [1, 2])
async def test_kill_9_at_any_moment(make_pool: MakePool, keys: Keys, shim: Shim, lanes: int) -> None:
    """F9: wherever a lane is struck, again and again: at most one item a kill is INDETERMINATE, the others are signed."""
    async with make_pool(shim=shim, lanes=lanes) as pool:
        key, spki = pool.key("RSA-2048"), keys["RSA-2048"][1]
        await warm(pool, key)
        for number in range(3):
            items, done = digests(400, number * 1_000), len(shim.signs())
            batch = asyncio.create_task(pool.sign(key, RSA, items))
            await until(lambda: len(shim.signs()) >= done + 37 * (number + 1))  # noqa: B023
            old = pids(pool)[:1]
            os.kill(old[0], signal.SIGKILL)
            outcomes = await batch
            assert len(audit(shim, spki, RSA, items, outcomes)) <= 1
            assert sum(outcome.status is Status.SIGNED for outcome in outcomes) >= 399
            await back(pool, old)


async def test_kill_9_of_the_only_lane_before_a_deadline(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """F9: with one lane and no time to finish, each item has its true answer at the deadline."""
    async with make_pool(shim=shim) as pool:
        key, spki = pool.key("RSA-2048"), keys["RSA-2048"][1]
        await warm(pool, key)
        shim.script("C_Sign * delay 0.01")
        items, began = digests(400), time.monotonic()
        batch = asyncio.create_task(pool.sign(key, RSA, items, timeout_s=1.5))
        await until(lambda: len(unfinished_signs(shim)) == 1 and len(shim.signs()) > 20)
        old = pids(pool)
        os.kill(old[0], signal.SIGKILL)
        outcomes = await batch
        assert time.monotonic() - began <= 1.5 + ANSWER_S
        await back(pool, old)
        await until(lambda: view(pool).lanes[0][0].in_flight == 0)
        assert len(audit(shim, spki, RSA, items, outcomes)) <= 2  # one of the kill, one of the deadline
        assert sum(outcome.status is Status.SIGNED for outcome in outcomes) >= 20
        assert {outcome.status for outcome in outcomes} >= {Status.SIGNED, Status.NOT_ATTEMPTED}


@pytest.mark.parametrize("action", ["crash", "crash-after", "exit 0"])
async def test_a_module_that_dies_in_c_sign(make_pool: MakePool, keys: Keys, shim: Shim, action: str) -> None:
    """F9: before or behind the real call, by signal or by exit: the item is INDETERMINATE, the rest is signed."""
    async with make_pool(shim=shim) as pool:
        key, spki = pool.key("RSA-2048"), keys["RSA-2048"][1]
        await warm(pool, key)
        old = pids(pool)
        shim.script(f"C_Sign {shim.number('C_Sign') + 8} {action}")
        items = digests(30)
        outcomes = await pool.sign(key, RSA, items)
        assert audit(shim, spki, RSA, items, outcomes) == [7]
        assert outcomes[7].reason == "MODULE_CRASH"
        assert statuses(outcomes)["SIGNED", ""] == 29
        await back(pool, old)


@pytest.mark.usefixtures("short_rests")
async def test_a_kill_under_one_token_is_nothing_to_another(pair: Store, shim: Shim, tmp_path: Path) -> None:
    """I5: lanes of one token die again and again under load; another token of the same module sees no error."""
    configs = (config(pair, shim=shim), config(pair, "other", shim=shim))
    async with pool_over(*configs, state=tmp_path / "state") as pool:
        key = ref(pair, "card", "RSA-2048")
        async with neighbour(pool, ref(pair, "other", "P-256")):
            for number in range(3):
                items = digests(300, number * 1_000)
                batch = asyncio.create_task(pool.sign(key, RSA, items))
                signed = view(pool).lanes[0][0].tally.signed
                await until(lambda: view(pool).lanes[0][0].tally.signed > signed + 20)  # noqa: B023
                os.kill(pids(pool)[0], signal.SIGKILL)
                assert statuses(await batch)["SIGNED", ""] >= 299


# ---- a module hangs


async def test_a_hang_in_c_sign(pair: Store, shim: Shim, tmp_path: Path) -> None:
    """
    F11, row 2.4: 60 s in C_Sign: an answer at the deadline, INDETERMINATE for the one item; its neighbours in the frame are not
    signed afterwards; the process is gone within 1 s; another token of the module goes on.
    """
    configs = (config(pair, shim=shim), config(pair, "other", shim=shim))
    async with pool_over(*configs, state=tmp_path / "state") as pool:
        key, spki = ref(pair, "card", "RSA-2048"), pair.made["card"]["RSA-2048"][1]
        await warm(pool, key)
        old = pids(pool)
        shim.script(f"C_Sign {shim.number('C_Sign') + 5} hang 60")
        items, began = digests(40), time.monotonic()
        outcomes = await pool.sign(key, RSA, items, timeout_s=0.8)
        took = time.monotonic() - began
        shim.clear()
        assert 0.8 <= took <= 0.8 + ANSWER_S
        async with neighbour(pool, ref(pair, "other", "P-256")):
            assert audit(shim, spki, RSA, items, outcomes) == [4]
            assert statuses(outcomes) == {
                ("SIGNED", ""): 4,
                ("INDETERMINATE", "TOKEN_TIMEOUT"): 1,
                ("NOT_ATTEMPTED", "DEADLINE_EXCEEDED"): 35,
            }
            await until(lambda: gone(old[0]), END_S)
            await back(pool, old)
        assert statuses(await pool.sign(key, RSA, digests(5, 500))) == {("SIGNED", ""): 5}
        audit(shim, spki, RSA, items, outcomes)  # nothing of it was signed late


async def test_a_hang_with_a_distant_deadline(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """F11: one C_Sign has its own limit: the lane is ended, the item INDETERMINATE, and the rest is signed in time."""
    async with make_pool(shim=shim, sign_timeout_s=0.5) as pool:
        key, spki = pool.key("RSA-2048"), keys["RSA-2048"][1]
        await warm(pool, key)
        shim.script(f"C_Sign {shim.number('C_Sign') + 5} hang 60")
        items, began = digests(40), time.monotonic()
        outcomes = await pool.sign(key, RSA, items, timeout_s=30)
        assert time.monotonic() - began < 3
        assert audit(shim, spki, RSA, items, outcomes) == [4]
        assert statuses(outcomes) == {("SIGNED", ""): 39, ("INDETERMINATE", "TOKEN_TIMEOUT"): 1}


async def test_close_with_a_hanging_lane(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """F47: a lane that hangs in C_Sign does not keep the pool from closing; all its items have an answer."""
    async with make_pool(shim=shim) as pool:
        shim.script("C_Sign 1 hang 60")
        batch = asyncio.create_task(pool.sign(pool.key("RSA-2048"), RSA, items := digests(10)))
        await until(shim.signs)
        began = time.monotonic()
        await pool.close()
        assert time.monotonic() - began < 2.5
        assert audit(shim, keys["RSA-2048"][1], RSA, items, await batch) == [0]


@pytest.mark.parametrize(
    ("function", "logins"), [("C_Initialize", 0), ("C_GetSlotList", 0), ("C_FindObjects", 0), ("C_Login", 1)]
)
async def test_a_hang_in_the_start(
    make_pool: MakePool, keys: Keys, shim: Shim, tmp_path: Path, function: str, logins: int
) -> None:
    """
    F12: a hang in the start, in C_Login too: killed after the start's time; a PIN that may have reached the token counts
    as open; then it comes up. Row 2.4: who waits for the token is answered at the deadline, and no zombie is left.
    """
    cka_id, spki = keys["P-256"]
    key = Key(spki, cka_id)
    shim.script(f"{function} * log", f"{function} 1 hang 60")
    async with make_pool(shim=shim, start_timeout_s=1.0, wait=False, pool_keys=[key]) as pool:
        await until(lambda: [call for call in shim.unfinished() if call.fn == function])
        (pid,) = await until(lambda: [pid for pid in pids(pool) if pid])
        assert open_tries(tmp_path / "state") == logins
        assert state(pool) == "OPEN"
        began = time.monotonic()
        outcomes = await pool.sign(key.ref, ECDSA, digests(2), timeout_s=0.3)
        assert 0.3 <= time.monotonic() - began <= 0.3 + ANSWER_S
        assert statuses(outcomes) == {("NOT_ATTEMPTED", "DEADLINE_EXCEEDED"): 2}
        assert not gone(pid), "it did not hang"
        await until(lambda: gone(pid), 1.0 + END_S)
        await until(lambda: not [c for c in psutil.Process().children() if c.status() == psutil.STATUS_ZOMBIE])
        assert len(shim.logins()) == logins
        assert open_tries(tmp_path / "state") == logins
        await back(pool, [pid], within_s=4)
        assert open_tries(tmp_path / "state") == 0


async def test_two_hangs_in_the_login_are_enough(own_store: Store, shim: Shim, tmp_path: Path) -> None:
    """
    F12, F19: two PINs without an answer: LOCKED, and no third one however often the pool starts again; a person's unlock
    with the override ends it.
    """
    own_store.token("card")
    own_store.keys("card", ["P-256"])
    shim.script("C_Login * hang 60")
    one = config(own_store, shim=shim, start_timeout_s=0.5, lanes=2)
    for _ in range(3):
        async with pool_over(one, state=tmp_path / "state") as pool:
            assert state(pool) == "LOCKED"
            assert "2 logins ended without an answer" in view(pool).detail
        assert len(shim.logins()) == 2
    shim.clear()
    async with pool_over(one, state=tmp_path / "state") as pool:
        with pytest.raises(Exception, match="override"):
            pool.unlock("card")
        pool.unlock("card", override=True)
        await until(lambda: state(pool) == "READY")
    assert open_tries(tmp_path / "state") == 0


async def test_a_pool_killed_in_the_login(own_store: Store, shim: Shim, tmp_path: Path) -> None:
    """F19: the daemon dies between C_Login and its answer: the try is on disk, and a third one is a person's."""
    own_store.token("card")
    own_store.keys("card", ["P-256"])
    shim.script("C_Login * hang 60")
    for count in (1, 2):
        daemon = Daemon(config(own_store, shim=shim), tmp_path / "state")
        try:
            await until(lambda: len(shim.logins()) == count)  # noqa: B023
            daemon.kill()
            await until(lambda: gone(shim.logins()[-1].pid), END_S)
        finally:
            daemon.kill()
        assert open_tries(tmp_path / "state") == count
    shim.clear()
    async with pool_over(config(own_store, shim=shim), state=tmp_path / "state") as pool:
        assert state(pool) == "LOCKED"
    assert len(shim.logins()) == 2


# ---- deadlines and cancelled calls


async def test_a_deadline_in_the_line(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """F44: a deadline that passes in the line, or in a lane behind another item: never signed, and told so at once."""
    async with make_pool(shim=shim) as pool:
        key, spki = pool.key("RSA-2048"), keys["RSA-2048"][1]
        shim.script(f"C_Sign {shim.number('C_Sign') + 1} delay 0.7")
        first = asyncio.create_task(pool.sign(key, RSA, digests(1), timeout_s=5))
        await until(shim.signs)

        async def late(number: int) -> None:
            began, items = time.monotonic(), digests(3, 100 * number)
            outcomes = await pool.sign(key, RSA, items, timeout_s=0.1 * number, caller=f"c{number}")
            assert time.monotonic() - began <= 0.1 * number + ANSWER_S
            assert statuses(outcomes) == {("NOT_ATTEMPTED", "DEADLINE_EXCEEDED"): 3}
            waited.append((items, outcomes))

        waited: list[Any] = []
        await asyncio.gather(*(late(number) for number in (1, 2, 3, 4)))
        assert view(pool).waiting == 0
        assert statuses(await first) == {("SIGNED", ""): 1}
        assert statuses(await pool.sign(key, RSA, digests(5, 900))) == {("SIGNED", ""): 5}
        for items, outcomes in waited:
            assert audit(shim, spki, RSA, items, outcomes) == []
        assert len(shim.signs()) == 6


async def test_the_lane_itself_looks_at_the_clock(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """F44: a parent that is busy elsewhere when the deadline passes cannot make a lane sign too late."""
    async with make_pool(shim=shim) as pool:
        key, spki = pool.key("RSA-2048"), keys["RSA-2048"][1]
        await warm(pool, key)
        shim.script("C_Sign * delay 0.1")
        before, items = len(shim.signs()), digests(10)
        batch = asyncio.create_task(pool.sign(key, RSA, items, timeout_s=0.35))
        await until(lambda: len(shim.signs()) > before)
        time.sleep(0.9)  # noqa: ASYNC251 -- the busy parent
        outcomes = await batch
        assert 1 <= len(shim.signs()) - before <= 5
        assert len(audit(shim, spki, RSA, items, outcomes)) <= 1
        assert statuses(outcomes)["NOT_ATTEMPTED", "DEADLINE_EXCEEDED"] >= 5


async def test_a_cancelled_call(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """F43: at most one more C_Sign after the caller went away, though the lane has the whole frame; the lane stays."""
    async with make_pool(shim=shim) as pool:
        key = pool.key("RSA-2048")
        await warm(pool, key)
        old = pids(pool)
        shim.script("C_Sign * delay 0.05")
        before = len(shim.signs())
        batch = asyncio.create_task(pool.sign(key, RSA, digests(200)))
        await until(lambda: len(shim.signs()) >= before + 3)
        batch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await batch
        asked = len(shim.signs())
        await until(lambda: view(pool).lanes[0][0].state == "IDLE")
        assert len(shim.signs()) <= asked + 1
        assert view(pool).waiting == 0
        assert statuses(await pool.sign(key, RSA, digests(3, 900))) == {("SIGNED", ""): 3}
        assert pids(pool) == old


async def test_a_cancelled_call_leaves_the_others_alone(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """F43: in a frame shared by several callers only the one's items are skipped."""
    async with make_pool(shim=shim) as pool:
        key, spki = pool.key("RSA-2048"), keys["RSA-2048"][1]
        await warm(pool, key)
        shim.script("C_Sign * delay 0.02")
        before = len(shim.signs())
        calls = [asyncio.create_task(pool.sign(key, RSA, digests(1, n), caller=f"c{n}")) for n in range(12)]
        await until(lambda: len(shim.signs()) > before)
        for call in calls[6:]:
            call.cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        outcomes = [outcome for answer in answers[:6] for outcome in answer]
        assert audit(shim, spki, RSA, digests(6), outcomes) == []
        assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[6:])
        assert len(shim.signs()) - before <= 7


# ---- wrong signatures


@pytest.mark.parametrize("verify", [True, False], ids=["the lane verifies", "the parent verifies"])
@pytest.mark.parametrize("action", WRONG_OUTPUTS)
async def test_a_wrong_signature_is_not_released(
    make_pool: MakePool, keys: Keys, shim: Shim, verify: bool, action: str
) -> None:
    """
    F14, row 2.7: bits flipped, too short or too long: withheld as SIGNATURE_INVALID, the token QUARANTINED until a person
    unlocks it, the rest not signed by it. A slow lane is verified by the parent, too: it need not be believed.
    """
    async with make_pool(shim=shim, verify=verify) as pool:
        key, spki = pool.key("RSA-2048"), keys["RSA-2048"][1]
        shim.script("C_Sign * delay 0.01", f"C_Sign {shim.number('C_Sign') + 3} {action}")
        items = digests(40)
        outcomes = await pool.sign(key, RSA, items)
        audit(shim, spki, RSA, items, outcomes)
        bad = [index for index, outcome in enumerate(outcomes) if outcome.reason == "SIGNATURE_INVALID"]
        assert bad == [2]
        assert (outcomes[2].status, outcomes[2].signature) == (Status.FAILED, b"")
        assert statuses(outcomes)["NOT_ATTEMPTED", "TOKEN_QUARANTINED"] >= 30
        assert state(pool) == "QUARANTINED"
        assert "does not verify" in view(pool).detail
        await until(lambda: pids(pool) == [0])
        shim.clear()
        signed, initialised = len(shim.signs()), shim.count("C_Initialize")
        with pytest.raises(Unavailable) as error:
            await pool.sign(key, RSA, digests(1, 100))
        assert (error.value.reason, error.value.retry_s) == ("TOKEN_QUARANTINED", None)
        assert (len(shim.signs()), shim.count("C_Initialize"), state(pool)) == (signed, initialised, "QUARANTINED")
        pool.unlock("card")
        await until(lambda: state(pool) == "READY")
        assert statuses(await pool.sign(key, RSA, digests(3, 200))) == {("SIGNED", ""): 3}


async def test_a_fast_lane_verifies_itself(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """
    F14, row 2.7: of a fast lane the parent looks at one in 256 only: it is the lane that withholds the others, whatever is
    wrong with them.
    """
    async with make_pool(shim=shim) as pool:
        key, spki = pool.key("P-256"), keys["P-256"][1]
        for number, action in enumerate(WRONG_OUTPUTS):
            await warm(pool, key, ECDSA)
            shim.script(f"C_Sign {shim.number('C_Sign') + 10} {action}")
            items = digests(200, number * 1_000, ECDSA)
            outcomes = await pool.sign(key, ECDSA, items)
            audit(shim, spki, ECDSA, items, outcomes)
            assert outcomes[9].reason == "SIGNATURE_INVALID"
            assert state(pool) == "QUARANTINED"
            await until(lambda: pids(pool) == [0])
            pool.unlock("card")
            await until(lambda: state(pool) == "READY")


@pytest.mark.parametrize("verify", [True, False], ids=["the lane verifies", "the parent verifies"])
async def test_a_signature_of_another_key(own_store: Store, shim: Shim, tmp_path: Path, verify: bool) -> None:
    """
    F14, row 2.7: the token signs with another of its keys: a good signature, and not of the key that was asked for:
    withheld, and the token is QUARANTINED.
    """
    own_store.token("card")
    cka_id, spki = own_store.keys("card", ["P-256"], ["first"])["P-256"]
    another, _ = own_store.keys("card", ["P-256"], ["second"])["P-256"]
    one = config(own_store, shim=shim, verify=verify)
    async with pool_over(one, state=tmp_path / "state", keys=[key := Key(spki, cka_id)]) as pool:
        number = shim.number("C_SignInit")
        shim.script("C_Sign * delay 0.006", f"C_SignInit {number + 4} other-key {another.hex()}")
        outcomes = await pool.sign(key.ref, ECDSA, items := digests(8))
        audit(shim, spki, ECDSA, items, outcomes)
        assert [call.key for call in shim.signs()][3] == another.hex()
        assert (outcomes[3].status, outcomes[3].reason, outcomes[3].signature) == (
            Status.FAILED, "SIGNATURE_INVALID", b"",
        )  # fmt: skip
        assert state(pool) == "QUARANTINED"


async def test_a_quarantine_outlives_a_restart(own_store: Store, shim: Shim, tmp_path: Path) -> None:
    """F14: the next start sends no PIN and signs nothing; after a person's unlock it is over, for later starts, too."""
    own_store.token("card")
    own_store.keys("card", ["P-256"])
    one, key = config(own_store, shim=shim, lanes=2), ref(own_store, "card", "P-256")
    shim.script("C_Sign 1 corrupt")
    async with pool_over(one, state=tmp_path / "state") as pool:
        (outcome,) = await pool.sign(key, ECDSA, digests(1))
        assert outcome.reason == "SIGNATURE_INVALID"
    logins = len(shim.logins())
    for _ in range(2):
        async with pool_over(one, state=tmp_path / "state") as pool:
            assert state(pool) == "QUARANTINED"
            with pytest.raises(Unavailable, match="TOKEN_QUARANTINED"):
                await pool.sign(key, ECDSA, digests(1, 1))
        assert (len(shim.logins()), len(shim.signs())) == (logins, 1)
    async with pool_over(one, state=tmp_path / "state") as pool:
        pool.unlock("card")
        await until(lambda: state(pool) == "READY")
    async with pool_over(one, state=tmp_path / "state") as pool:
        assert state(pool) == "READY"


async def test_a_wrong_signature_of_a_token_being_drained(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """F14: made in its last frame, after the operator's word: withheld, and a RESUME leads into quarantine."""
    async with make_pool(shim=shim) as pool:
        key = pool.key("P-256")
        shim.script("C_Sign 1 corrupt", "C_Sign 1 delay 0.2")
        batch = asyncio.create_task(pool.sign(key, ECDSA, digests(1)))
        await until(shim.signs)
        pool.drain("card")
        assert statuses(await batch) == {("FAILED", "SIGNATURE_INVALID"): 1}
        await until(lambda: pids(pool) == [0])
        assert state(pool) == "DRAINED"
        pool.resume("card")
        await until(lambda: state(pool) in {"QUARANTINED", "READY"})
        assert state(pool) == "QUARANTINED"
        pool.unlock("card")
        await until(lambda: state(pool) == "READY")


async def test_a_wrong_signature_found_at_the_deadline(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """F14: what the parent finds when it answers early counts as much: withheld, and the token is quarantined."""
    async with make_pool(shim=shim, verify=False) as pool:
        key, spki = pool.key("P-256"), keys["P-256"][1]
        for _ in range(4):  # a fast lane, of which the parent verifies one in 256 only
            await warm(pool, key, ECDSA)
            await pool.sign(key, ECDSA, digests(500, 10_000, ECDSA))
        number = shim.number("C_Sign")
        shim.script(f"C_Sign {number + 4} corrupt", f"C_Sign {number + 60} delay 0.4")
        items = digests(60, 0, ECDSA)
        outcomes = await pool.sign(key, ECDSA, items, timeout_s=0.2)
        assert outcomes[3].reason == "SIGNATURE_INVALID"
        assert outcomes[59].status is Status.INDETERMINATE
        for item, outcome in zip(items, outcomes, strict=True):
            if outcome.status is Status.SIGNED:
                check(ECDSA, spki, item, outcome.signature)
        await until(lambda: view(pool).lanes[0][0].in_flight == 0)
        assert state(pool) == "QUARANTINED"


# ---- return codes


async def test_the_device_went_away_in_c_sign(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """F1, F5: CKR_DEVICE_REMOVED may hide a signature: INDETERMINATE, and the rest goes on by a new session."""
    async with make_pool(shim=shim) as pool:
        key, spki = pool.key("RSA-2048"), keys["RSA-2048"][1]
        await warm(pool, key)
        old = pids(pool)
        shim.script(f"C_Sign {shim.number('C_Sign') + 6} return {CKR_DEVICE_REMOVED}")
        outcomes = await pool.sign(key, RSA, items := digests(30))
        assert audit(shim, spki, RSA, items, outcomes) == [5]
        assert (outcomes[5].reason, outcomes[5].detail) == ("TOKEN_REMOVED", "CKR_DEVICE_REMOVED")
        assert statuses(outcomes)["SIGNED", ""] == 29
        await back(pool, old)


async def test_a_lost_session_is_opened_anew(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """F5: CKR_SESSION_HANDLE_INVALID: nothing was signed, and a fresh session signs it; the caller notices nothing."""
    async with make_pool(shim=shim) as pool:
        key, spki = pool.key("RSA-2048"), keys["RSA-2048"][1]
        await warm(pool, key)
        old = pids(pool)
        shim.script(f"C_Sign {shim.number('C_Sign') + 6} return {CKR_SESSION_HANDLE_INVALID}")
        outcomes = await pool.sign(key, RSA, items := digests(30))
        assert statuses(outcomes) == {("SIGNED", ""): 30}
        for item, outcome in zip(items, outcomes, strict=True):
            check(RSA, spki, item, outcome.signature)
        asked = [data[-64:] for data in inputs(shim)]  # a SHA-256 DigestInfo ends with its digest
        # The refused call and the one that signed; every other digest once.
        assert [asked.count(item.hex()) for item in items] == [1] * 5 + [2] + [1] * 24
        await back(pool, old)


async def test_a_mechanism_that_the_token_has_not(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """CKR_MECHANISM_INVALID is the request's fault: that item FAILED, the next is signed by the same lane."""
    async with make_pool(shim=shim) as pool:
        key, spki = pool.key("RSA-2048"), keys["RSA-2048"][1]
        await warm(pool, key)
        old = pids(pool)
        shim.script(f"C_Sign {shim.number('C_Sign') + 6} return {CKR_MECHANISM_INVALID}")
        outcomes = await pool.sign(key, RSA, items := digests(30))
        assert audit(shim, spki, RSA, items, outcomes) == []
        assert statuses(outcomes) == {("SIGNED", ""): 29, ("FAILED", "ALGORITHM_NOT_ALLOWED"): 1}
        assert (outcomes[5].status, outcomes[5].detail) == (Status.FAILED, "CKR_MECHANISM_INVALID")
        assert pids(pool) == old


async def test_a_device_that_only_fails(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """
    F6: CKR_DEVICE_ERROR again and again: each asked item INDETERMINATE, then the breaker, TOKEN_FAULT with when to come
    back, and no hammering; a person's unlock ends it at once. (That a look ends it: F10's breaker, below.)
    """
    async with make_pool(shim=shim) as pool:
        key, spki = pool.key("RSA-2048"), keys["RSA-2048"][1]
        shim.script(f"C_Sign * return {CKR_DEVICE_ERROR}")
        outcomes = await pool.sign(key, RSA, items := digests(40), timeout_s=15)
        assert len(audit(shim, spki, RSA, items, outcomes)) == BREAKER_LOSSES == len(shim.signs())
        assert statuses(outcomes) == {
            ("INDETERMINATE", "TOKEN_FAULT"): BREAKER_LOSSES,
            ("NOT_ATTEMPTED", "TOKEN_FAULT"): 40 - BREAKER_LOSSES,
        }
        assert state(pool) == "TRIPPED"
        with pytest.raises(Unavailable) as error:
            await pool.sign(key, RSA, digests(1, 100))
        assert error.value.reason == "TOKEN_FAULT"
        assert error.value.retry_s
        shim.clear()
        pool.unlock("card")
        await until(lambda: state(pool) == "READY")
        assert statuses(await pool.sign(key, RSA, digests(3, 200))) == {("SIGNED", ""): 3}


# ---- modules that cannot even start, or misbehave


@pytest.mark.usefixtures("short_rests")
async def test_a_crash_in_c_initialize(second: Store, store: Store, shim: Shim, tmp_path: Path) -> None:
    """F10: five losses open the breaker, with no PIN sent; a token of another module store never notices."""
    shim.script("C_Initialize * crash")
    configs = (config(store, shim=shim), config(second, "other"))
    async with pool_over(*configs, state=tmp_path / "state", wait=False) as pool:
        await until(lambda: state(pool, "other") == "READY")
        async with neighbour(pool, ref(second, "other", "P-256")):
            await until(lambda: state(pool) == "TRIPPED", 8)
            assert shim.count("C_Initialize") == BREAKER_LOSSES
            assert shim.logins() == []
            assert "SIGSEGV" in view(pool).detail
        shim.clear()
        pool.unlock("card")
        await until(lambda: state(pool) == "READY")


async def test_a_code_nobody_knows_may_have_signed(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """F6: a vendor's own return code from C_Sign is INDETERMINATE, and its digest is not given to a token again."""
    async with make_pool(shim=shim) as pool:
        key, spki = pool.key("RSA-2048"), keys["RSA-2048"][1]
        shim.script("C_Sign 3 after 0x80000001")
        items = digests(6)
        outcomes = await pool.sign(key, RSA, items)
        assert audit(shim, spki, RSA, items, outcomes) == [2]
        assert len(shim.signs()) == 6


async def test_a_request_that_costs_every_lane_its_session(make_pool: MakePool, shim: Shim) -> None:
    """F6: an item is given to a second session, not to a third: the token's breaker is not one caller's to open."""
    async with make_pool(shim=shim) as pool:
        key = pool.key("P-256")
        shim.script("C_SignInit * return 0x101")
        (outcome,) = await pool.sign(key, ECDSA, digests(1), timeout_s=10)
        assert (outcome.status, outcome.reason) == (Status.FAILED, "TOKEN_FAULT")
        assert shim.signs() == []
        shim.clear()
        await until(lambda: state(pool) == "READY", 5)
        assert statuses(await pool.sign(key, ECDSA, digests(1))) == {("SIGNED", ""): 1}


async def test_an_algorithm_that_c_sign_init_does_not_take(make_pool: MakePool, shim: Shim) -> None:
    """F6: CKR_ARGUMENTS_BAD from C_SignInit is about the request; the lane is kept."""
    async with make_pool(shim=shim) as pool:
        key, old = pool.key("P-256"), pids(pool)
        shim.script("C_SignInit 1 return 0x7")
        outcomes = await pool.sign(key, ECDSA, digests(2))
        assert statuses(outcomes) == {("FAILED", "ALGORITHM_NOT_ALLOWED"): 1, ("SIGNED", ""): 1}
        assert pids(pool) == old


async def test_short_deadlines_do_not_cost_a_slow_token_its_lane(make_pool: MakePool, shim: Shim) -> None:
    """An item that takes as long as the token always takes is not a hang, however short its caller's deadline was."""
    async with make_pool(shim=shim) as pool:
        key, old = pool.key("P-256"), pids(pool)
        shim.script("C_Sign * delay 0.7")
        assert statuses(await pool.sign(key, ECDSA, digests(1))) == {("SIGNED", ""): 1}
        (outcome,) = await pool.sign(key, ECDSA, digests(1, 10), timeout_s=0.1)
        assert outcome.status is Status.INDETERMINATE
        for number in range(2):  # the lane has that one still, and says so
            with pytest.raises(Busy):
                await pool.sign(key, ECDSA, digests(1, 11 + number), timeout_s=0.1)
        assert statuses(await pool.sign(key, ECDSA, digests(1, 50), timeout_s=10)) == {("SIGNED", ""): 1}
        assert pids(pool) == old


async def test_a_passing_error_is_a_loss_and_not_the_end(make_pool: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    """F50: the daemon itself has no descriptors, or a full disk, for a moment: the lane rests and comes up when it is over."""
    broken = [OSError(24, "Too many open files"), sqlite3.OperationalError("database or disk is full")]

    def fail(*_: Any) -> Any:
        if broken:
            raise broken.pop()
        return original()

    original = Pages
    monkeypatch.setattr("pool.attendant.Pages", fail)
    async with make_pool(wait=False) as pool:
        await until(lambda: state(pool) == "READY", 5)
        assert not broken


async def test_no_pin_before_a_credential(store: Store, shim: Shim, tmp_path: Path) -> None:
    """F3: with no key configured nobody can know the token: it is opened, and hears no PIN, until there is one."""
    cka_id, spki = store.made["card"]["P-256"]
    async with pool_over(config(store, shim=shim), state=tmp_path / "state", keys=[], wait=False) as pool:
        await until(lambda: state(pool) == "CHANGED")
        assert shim.logins() == []
        pool.set_keys([Key(spki, cka_id)])
        await until(lambda: state(pool) == "READY", 5)
        assert len(shim.logins()) == 1


@pytest.mark.usefixtures("short_rests")
async def test_a_breaker_stays_open_while_a_look_cannot_say(
    make_pool: MakePool, shim: Shim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F10: when the module dies under the look too, the token stays TRIPPED; when it lists again, it comes back."""
    monkeypatch.setattr("pool.keeper.TRIPPED_S", 0.2)
    shim.script("C_Initialize * crash")
    async with make_pool(shim=shim, wait=False) as pool:
        await until(lambda: state(pool) == "TRIPPED", 8)
        await until(lambda: shim.count("C_Initialize") >= BREAKER_LOSSES + 3, 8)
        assert state(pool) == "TRIPPED"
        shim.clear()
        await until(lambda: state(pool) == "READY", 8)


async def test_a_hang_in_a_ping(make_pool: MakePool, shim: Shim, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    F11: a module that hangs while it is only asked for its token: what is asked meanwhile is not attempted, and told so at
    its deadline; the lane is ended when the time of a ping is over, and another one comes up.
    """
    monkeypatch.setattr("pool.attendant.PING_EVERY_S", 0.1)
    monkeypatch.setattr("pool.attendant.PING_S", 1.5)
    async with make_pool(shim=shim) as pool:
        key = pool.key("P-256")
        old = pids(pool)
        shim.script("C_GetTokenInfo * hang 60")
        asked = shim.number("C_GetTokenInfo")
        await until(lambda: shim.number("C_GetTokenInfo") > asked)
        began = time.monotonic()
        outcomes = await pool.sign(key, ECDSA, digests(3), timeout_s=1.0)
        assert time.monotonic() - began <= 1.0 + ANSWER_S
        assert {outcome.status for outcome in outcomes} == {Status.NOT_ATTEMPTED}
        assert shim.signs() == []
        shim.clear()
        await until(lambda: not set(old) & set(pids(pool)), END_S)
        await back(pool, old, within_s=5)


async def test_a_slow_ping_costs_no_lane(make_pool: MakePool, shim: Shim, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    F11: an idle card that another process holds for two seconds, within the time of a ping: a call of half a second is not
    attempted, and told so in time; the lane lives, no PIN is sent again, and the next call is signed by it.
    """
    monkeypatch.setattr("pool.attendant.PING_EVERY_S", 0.1)
    async with make_pool(shim=shim) as pool:
        key = pool.key("P-256")
        old, logins = pids(pool), shim.number("C_Login")
        asked = shim.number("C_GetTokenInfo")
        shim.script(f"C_GetTokenInfo {asked + 1} delay 2", f"C_GetTokenInfo {asked + 1} log")
        await until(lambda: shim.number("C_GetTokenInfo") > asked)
        began = time.monotonic()
        outcomes = await pool.sign(key, ECDSA, digests(3), timeout_s=0.5)
        assert time.monotonic() - began <= 0.5 + ANSWER_S
        assert {(outcome.status, outcome.reason) for outcome in outcomes} == {
            (Status.NOT_ATTEMPTED, "DEADLINE_EXCEEDED")
        }
        assert statuses(await pool.sign(key, ECDSA, digests(3, 10), timeout_s=10)) == {("SIGNED", ""): 3}
        assert (pids(pool), shim.number("C_Login")) == (old, logins)
        assert view(pool).lanes[0][0].tally.losses == 0
        assert time.monotonic() - began >= 1.5, "the ping was not slow"


async def test_a_crash_on_the_way_out(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """F10: a module that dies in C_Finalize has done its work: the drain is none the worse."""
    async with make_pool(shim=shim) as pool:
        key = pool.key("P-256")
        shim.script("C_Finalize * crash")
        assert statuses(await pool.sign(key, ECDSA, digests(2))) == {("SIGNED", ""): 2}
        pool.drain("card")
        await until(lambda: pids(pool) == [0])
        shim.clear()
        pool.resume("card")
        await until(lambda: state(pool) == "READY")
        assert statuses(await pool.sign(key, ECDSA, digests(2, 50))) == {("SIGNED", ""): 2}


async def test_a_hang_on_the_way_out(make_pool: MakePool, shim: Shim) -> None:
    """F13, row 2.4: a module that hangs in C_Finalize is killed a second later."""
    async with make_pool(shim=shim) as pool:
        (pid,) = pids(pool)
        shim.script("C_Finalize * hang 60")
        pool.drain("card")
        began = time.monotonic()
        await until(lambda: gone(pid), 2.5)
        assert time.monotonic() - began >= 0.9, "it did not hang, or had no second to end by itself"
        shim.clear()


async def test_noise_and_forks_of_a_module(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """F13: what a module writes to stdout is not taken for messages, and what it forks dies with its lane."""
    shim.script("C_Sign * noise {\\x00 garbage # \xff", "C_Initialize * noise hello", "C_Sign 3 fork")
    async with make_pool(shim=shim) as pool:
        key, spki = pool.key("RSA-2048"), keys["RSA-2048"][1]
        outcomes = await pool.sign(key, RSA, items := digests(50))
        assert audit(shim, spki, RSA, items, outcomes) == []
        (child,) = {call.child for call in shim.log() if call.child}
        assert not gone(child)
        old = pids(pool)
        os.kill(old[0], signal.SIGKILL)
        await until(lambda: gone(child))
        await back(pool, old)
        shim.script(f"C_Sign {shim.number('C_Sign') + 1} fork")
        assert statuses(await pool.sign(key, RSA, digests(3, 90))) == {("SIGNED", ""): 3}
        (another,) = {call.child for call in shim.log() if call.child} - {child}
        assert not gone(another)
    await until(lambda: gone(another))


@pytest.mark.usefixtures("short_rests")
async def test_what_is_no_module_at_all(store: Store, tmp_path: Path) -> None:
    """F10: a path without a module, or with something else: no PIN, the breaker, and the pool closes as ever."""
    (tmp_path / "text.so").write_text("not a library")
    pins: list[str] = []
    no_module: dict[str, Any] = {"environment": {}, "pin": lambda: pins.append("read")}
    configs = [config(store, name=name, module=tmp_path / f"{name}.so", **no_module) for name in ("missing", "text")]
    async with pool_over(*configs, state=tmp_path / "state", wait=False) as pool:
        await until(lambda: {state(pool, "missing"), state(pool, "text")} == {"TRIPPED"}, 10)
    assert pins == [], "a PIN was read for no module"


# ---- the lives of processes, and secrets


DAEMON = """
import asyncio, json, sys
from pathlib import Path
from pool import Pin, Pool, TokenConfig

async def main():
    order = json.load(sys.stdin)
    token = TokenConfig(
        "card", Path(order["module"]), "card", pin=lambda: Pin("1234"), lanes=order["lanes"],
        environment=order["environment"],
    )
    async with Pool([token], state=Path(order["state"])) as pool:
        await pool.ready()
        while not all(pid and lane.state == "IDLE" for lane, pid in pool.snapshot()[0].lanes):
            await asyncio.sleep(0.01)
        print(json.dumps([pid for _, pid in pool.snapshot()[0].lanes]), flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


class Daemon:
    """A process of its own that runs a pool."""

    def __init__(self, one: TokenConfig, directory: Path) -> None:
        order = {
            "module": str(one.module), "lanes": one.lanes, "environment": dict(one.environment), "state": str(directory),
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-c", DAEMON], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.process.stdin.write(json.dumps(order))
        self.process.stdin.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


async def test_lanes_die_with_their_parent(store: Store, tmp_path: Path) -> None:
    """F51: the parent is killed: no lane is left a second later, though none was told."""
    daemon = Daemon(config(store, lanes=2), tmp_path / "state")
    try:
        workers = json.loads(await asyncio.to_thread(daemon.process.stdout.readline))
        assert len(workers) == 2
        assert not any(map(gone, workers))
    finally:
        daemon.kill()
    await until(lambda: all(map(gone, workers)), 1.0)


async def test_lanes_in_a_call_die_with_their_parent(store: Store, shim: Shim, tmp_path: Path) -> None:
    """F51: also a lane that is in the middle of a module's call and reads no socket."""
    shim.script("C_Login 1 hang 60")
    daemon = Daemon(config(store, shim=shim), tmp_path / "state")
    try:
        (call,) = await until(shim.logins)
    finally:
        daemon.kill()
    await until(lambda: gone(call.pid), 1.0)


async def test_a_lane_has_one_group_of_its_own(make_pool: MakePool) -> None:
    """F13: own session and process group, one thread, nothing inherited but its socket and pages."""
    async with make_pool(lanes=2) as pool:
        for pid in pids(pool):
            assert os.getpgid(pid) == os.getsid(pid) == pid
            assert psutil.Process(pid).num_threads() == 1
            fds = {path: str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}
            assert [fds[path] for path in sorted(fds) if path.name in {"0", "1"}] == ["/dev/null"] * 2
            assert sum(link.startswith("socket:") for link in fds.values()) == 1
            assert len({path.stat().st_ino for path, link in fds.items() if "memfd:paraph-lane" in link}) == 1


async def test_no_core_dump_and_no_pin_in_sight(own_store: Store, tmp_path: Path) -> None:
    """I6: a lane leaves no core; its PIN is in no command line, no environment, and nothing the pool shows."""
    pin = "73019264-unmistakable"
    own_store.token("card", pin)
    own_store.keys("card", ["P-256"])
    one = config(own_store, pin=lambda: Pin(pin), lanes=2)
    async with pool_over(one, state=tmp_path / "state") as pool:
        assert state(pool) == "READY"
        for pid in pids(pool):
            assert psutil.Process(pid).rlimit(resource.RLIMIT_CORE) == (0, 0)
            for name in ("cmdline", "environ"):
                content = Path(f"/proc/{pid}/{name}").read_bytes()
                assert content
                assert pin.encode() not in content
        assert pin not in repr((pool.snapshot(), one))


@pytest.fixture(autouse=True)
async def the_loop_is_quiet() -> AsyncIterator[None]:
    """Nothing of the pool fails in a callback or a task where nobody looks."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    yield
    assert heard == []


def test_the_module_is_there() -> None:
    """Without SoftHSM nothing here would say anything."""
    assert MODULE.exists()
