"""
A person's token: it waits, is leased by its own PIN, and is clean again before anybody else has it.

The shim's log says what the token was really asked; resets are recorded instead of made.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pool import BadRequest, Key, Lease, Outcomes, Pin, Pool, Unavailable
from pool.assign import Frame, Run
from pool.start import open_token
from pool.work import Work
from tests.pool.conftest import MakePersonal
from tests.pool.persons import CKU_USER, END_S, WRONG, Resets, count, leased, log_of, refused, spki, waits
from tests.pool.rig import (
    ECDSA,
    audit,
    check,
    config,
    digests,
    gone,
    lanes_up,
    pids,
    pool_over,
    state,
    statuses,
    until,
    view,
)
from tests.shim import Shim
from tests.softhsm import PIN, Store

CKR_DEVICE_REMOVED, CKR_SESSION_HANDLE_INVALID, CKR_USER_ALREADY_LOGGED_IN = "0x32", "0xB3", "0x100"


@pytest.fixture(autouse=True)
async def the_loop_is_quiet() -> AsyncIterator[None]:
    """Nothing of the pool fails in a callback or a task where nobody looks."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    yield
    assert heard == []


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


async def test_a_lease_without_random_bytes(
    make_personal: MakePersonal, shim: Shim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F57: a lease's id cannot be made: no lease and no PIN sent, and the next person is not kept waiting by it."""

    def none(_bytes: int) -> str:
        raise OSError(5, "Input/output error")

    async with make_personal() as pool:
        with monkeypatch.context() as broken:
            broken.setattr("pool.lease.secrets.token_hex", none)
            with pytest.raises(OSError, match="Input/output"):
                async with leased(pool):
                    pytest.fail("the lease was given")
        assert (state(pool), shim.logins()) == ("OPEN", [])
        async with leased(pool) as lease:
            assert statuses(await lease.sign(ECDSA, digests(1))) == {("SIGNED", ""): 1}


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
        revoked = ""

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
        assert count(tmp_path / "state") == (1, 0)


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
        assert log_of(shim, pid)[-1].fn == "C_Finalize", "it was killed"
        assert count(tmp_path / "state") == (0, 0)
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


# ---- the end


async def _done(pool: Pool, pid: int, shim: Shim) -> None:
    """The block is left."""
    async with leased(pool) as lease:
        await lease.sign(ECDSA, digests(2))


async def _error(pool: Pool, pid: int, shim: Shim) -> None:
    """An error leaves it."""
    with pytest.raises(ZeroDivisionError):
        async with leased(pool) as lease:
            await lease.sign(ECDSA, digests(2))
            raise ZeroDivisionError


async def _cancelled(pool: Pool, pid: int, shim: Shim) -> None:
    """Its task is cancelled in the middle of a batch."""

    async def sign() -> None:
        async with leased(pool) as lease:
            await lease.sign(ECDSA, digests(500))

    shim.script("C_Sign * delay 0.01")
    task = asyncio.create_task(sign())
    await until(lambda: len(shim.signs()) > 3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    asked = len(shim.signs())
    await until(lambda: gone(pid), END_S)
    assert len(shim.signs()) <= asked + 1


async def _deadline(pool: Pool, pid: int, shim: Shim) -> None:
    """Its time is over while its block still lasts."""
    async with leased(pool, timeout_s=0.4) as lease:
        assert statuses(await lease.sign(ECDSA, digests(2))) == {("SIGNED", ""): 2}
        await until(lambda: lease.over == "DEADLINE_EXCEEDED", 1)
        await until(lambda: gone(pid), END_S)
        with pytest.raises(Unavailable, match="DEADLINE_EXCEEDED"):
            await lease.sign(ECDSA, digests(2))


async def _drained(pool: Pool, pid: int, shim: Shim) -> None:
    """An operator takes the token out of service: what the lane has is finished, the rest is told so."""
    async with leased(pool) as lease:
        shim.script("C_Sign * delay 0.01")
        batch = asyncio.create_task(lease.sign(ECDSA, items := digests(300, 0, ECDSA)))
        await until(lambda: len(shim.signs()) > 3)
        pool.drain("card")
        outcomes = await batch
        assert len(outcomes) == len(items)
        assert set(statuses(outcomes)) == {("SIGNED", ""), ("NOT_ATTEMPTED", "TOKEN_DRAINED")}
        assert lease.over == "TOKEN_DRAINED"
    await until(lambda: gone(pid), END_S)
    assert (await refused(pool)).reason == "TOKEN_DRAINED"
    pool.resume("card")


async def _killed(pool: Pool, pid: int, shim: Shim) -> None:
    """Its process is killed: nobody logs out."""
    async with leased(pool) as lease:
        os.kill(pid, signal.SIGKILL)
        await until(lambda: lease.over == "MODULE_CRASH")


async def _killed_before_it_was_noticed(pool: Pool, pid: int, shim: Shim) -> None:
    """Its process is dead before the next digest is sent to it, and the parent has been busy: told as what it was."""
    async with leased(pool) as lease:
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)  # noqa: ASYNC251 -- the busy parent
        outcomes = await lease.sign(ECDSA, digests(3))
        assert statuses(outcomes) == {("NOT_ATTEMPTED", "MODULE_CRASH"): 3}


async def _crashed(pool: Pool, pid: int, shim: Shim) -> None:
    """The module dies in C_Sign: the item is INDETERMINATE, what was signed is kept, and nothing is signed anew."""
    async with leased(pool) as lease:
        await lease.sign(ECDSA, digests(30, 900, ECDSA))
        shim.script(f"C_Sign {shim.number('C_Sign') + 3} crash")
        outcomes = await lease.sign(ECDSA, digests(30, 0, ECDSA))
        assert [outcome.status for outcome in outcomes[:4]] == ["SIGNED", "SIGNED", "INDETERMINATE", "NOT_ATTEMPTED"]
        assert statuses(outcomes) == {
            ("SIGNED", ""): 2, ("INDETERMINATE", "MODULE_CRASH"): 1, ("NOT_ATTEMPTED", "MODULE_CRASH"): 27,
        }  # fmt: skip


async def _removed(pool: Pool, pid: int, shim: Shim) -> None:
    """The card goes while it signs: TOKEN_REMOVED, what was signed is kept."""
    async with leased(pool) as lease:
        await lease.sign(ECDSA, digests(30, 900, ECDSA))
        shim.script(f"C_Sign {shim.number('C_Sign') + 3} return {CKR_DEVICE_REMOVED}")
        outcomes = await lease.sign(ECDSA, digests(30, 0, ECDSA))
        assert statuses(outcomes) == {
            ("SIGNED", ""): 2, ("INDETERMINATE", "TOKEN_REMOVED"): 1, ("NOT_ATTEMPTED", "TOKEN_REMOVED"): 27,
        }  # fmt: skip
        assert lease.over == "TOKEN_REMOVED"


async def _session_lost(pool: Pool, pid: int, shim: Shim) -> None:
    """F5: the session is gone: no new login without the person, who is told LOGIN_REQUIRED."""
    async with leased(pool) as lease:
        shim.script(f"C_Sign 1 return {CKR_SESSION_HANDLE_INVALID}")
        outcomes = await lease.sign(ECDSA, digests(5))
        assert statuses(outcomes) == {("NOT_ATTEMPTED", "LOGIN_REQUIRED"): 5}
    assert len(shim.logins()) == 1


async def _wrong_signature(pool: Pool, pid: int, shim: Shim) -> None:
    """F14: it signs wrongly: withheld, and the token is QUARANTINED until an operator has seen to it."""
    async with leased(pool) as lease:
        shim.script("C_Sign 2 corrupt")
        outcomes = await lease.sign(ECDSA, digests(5))
        assert statuses(outcomes) == {
            ("SIGNED", ""): 1, ("FAILED", "SIGNATURE_INVALID"): 1, ("NOT_ATTEMPTED", "TOKEN_QUARANTINED"): 3,
        }  # fmt: skip
    assert (await refused(pool)).reason == "TOKEN_QUARANTINED"
    await until(lambda: gone(pid), END_S)
    pool.unlock("card")


async def _wrong_pin(pool: Pool, pid: int, shim: Shim) -> None:
    """It never began, because the PIN was wrong."""
    assert (await refused(pool, WRONG)).reason == "PIN_INCORRECT"


async def _hang_on_the_way_out(pool: Pool, pid: int, shim: Shim) -> None:
    """The module hangs in C_Finalize."""
    async with leased(pool):
        shim.script("C_Finalize * hang 60")
    await until(lambda: gone(pid), END_S + 0.2)
    shim.clear()


async def _hang_in_a_signature(pool: Pool, pid: int, shim: Shim) -> None:
    """The module hangs in C_Sign at the lease's deadline: answered then, and the process killed a second later."""
    async with leased(pool, timeout_s=1.0) as lease:
        shim.script(f"C_Sign {shim.number('C_Sign') + 2} hang 60")
        outcomes = await lease.sign(ECDSA, digests(4))
        assert statuses(outcomes) == {
            ("SIGNED", ""): 1, ("INDETERMINATE", "TOKEN_TIMEOUT"): 1, ("NOT_ATTEMPTED", "DEADLINE_EXCEEDED"): 2,
        }  # fmt: skip
        await until(lambda: gone(pid), END_S + 0.2)
    shim.clear()


async def _cancelled_in_a_hang(pool: Pool, pid: int, shim: Shim) -> None:
    """Its caller goes away, long before its time is over, while the module hangs in C_Sign."""

    async def sign() -> None:
        async with leased(pool, timeout_s=60) as lease:
            await lease.sign(ECDSA, digests(4))

    shim.script("C_Sign 2 hang 60")
    task = asyncio.create_task(sign())
    await until(lambda: len(shim.signs()) == 2)
    task.cancel()
    await asyncio.wait([task])
    await until(lambda: gone(pid), END_S + 0.2)
    shim.clear()


async def _left_behind(pool: Pool, pid: int, shim: Shim) -> None:
    """The block is left while a batch of it is still being signed elsewhere: that is answered now, and no more signed."""
    shim.script("C_Sign * delay 0.01")
    async with leased(pool) as lease:
        batch = asyncio.create_task(lease.sign(ECDSA, digests(500)))
        await until(lambda: len(shim.signs()) > 3)
    asked = len(shim.signs())
    outcomes = await asyncio.wait_for(batch, 0.2)
    assert statuses(outcomes)["NOT_ATTEMPTED", "LOGIN_REQUIRED"] > 450
    await until(lambda: gone(pid), END_S)
    assert len(shim.signs()) <= asked + 1


ORDERLY = {_left_behind, _done, _error, _cancelled, _deadline, _drained, _removed, _session_lost, _wrong_signature}
SUDDEN = {
    _cancelled_in_a_hang,
    _killed,
    _killed_before_it_was_noticed,
    _crashed,
    _wrong_pin,
    _hang_on_the_way_out,
    _hang_in_a_signature,
}


@pytest.mark.parametrize("end", sorted(ORDERLY | SUDDEN, key=lambda end: end.__name__), ids=lambda end: end.__name__)
async def test_however_a_lease_ends(make_personal: MakePersonal, shim: Shim, resets: Resets, end: Any) -> None:
    """
    Logout and C_Finalize, the process gone within a second, the card reset, in this order; and only then is the token
    opened again, for the next one, who is signed for by a process of that lease alone.
    """
    async with make_personal() as pool:
        assert len(resets.made) == 1, "what a daemon before left behind"
        (pid,) = pids(pool)
        await end(pool, pid, shim)
        await until(lambda: gone(pid), END_S)
        shim.clear()
        await waits(pool)
        _, (reset, name) = resets.made
        assert name == "card"
        assert resets.beside[1] == set(), "a lane ran while the card was reset"
        mine = log_of(shim, pid)
        if end in ORDERLY:
            assert [call.fn for call in mine if call.ev == "leave"][-3:] == ["C_Logout", "C_CloseSession", "C_Finalize"]
            assert mine[-1].rv == 0
        assert mine[-1].t < reset
        assert reset < min(call.t for call in shim.log() if call.pid != pid)
        async with leased(pool, caller="bob") as lease:
            assert statuses(await lease.sign(ECDSA, digests(1, 9_000))) == {("SIGNED", ""): 1}
            assert shim.signs()[-1].pid in pids(pool)
            assert pids(pool) != [pid]


async def test_the_pool_s_end_is_a_lease_s_end(make_personal: MakePersonal, shim: Shim, resets: Resets) -> None:
    """A stop in the middle of a batch: told POOL_CLOSED, logged out, reset before close returns; who waits is told so."""
    async with make_personal() as pool:
        (pid,) = pids(pool)
        async with leased(pool) as lease:
            shim.script("C_Sign * delay 0.01")
            batch = asyncio.create_task(lease.sign(ECDSA, digests(300, 0, ECDSA)))
            waiting = asyncio.create_task(refused(pool, caller="bob"))
            await until(lambda: len(shim.signs()) > 3)
            began, resets.takes_s = time.monotonic(), 0.3
            await pool.close()
            assert time.monotonic() - began < 2.5
            assert gone(pid)
            assert {call.fn for call in log_of(shim, pid)} >= {"C_Logout", "C_Finalize"}
            assert log_of(shim, pid)[-1].t < resets.made[1][0]
            assert set(statuses(await batch)) == {("SIGNED", ""), ("NOT_ATTEMPTED", "POOL_CLOSED")}
            assert (lease.over, (await waiting).reason) == ("POOL_CLOSED", "POOL_CLOSED")
        assert (await refused(pool)).reason == "POOL_CLOSED"


@pytest.mark.parametrize("hangs", [False, True])
async def test_the_service_s_end_is_a_lease_s_end(make_personal: MakePersonal, shim: Shim, hangs: bool) -> None:
    """What the lane has is signed, or answered where it hangs; the rest is told POOL_CLOSED, and so is who waits for a turn."""
    async with make_personal() as pool, leased(pool) as lease:
        shim.script("C_Sign * delay 0.02", *(["C_Sign 6 hang 60"] if hangs else []))
        batch = asyncio.create_task(lease.sign(ECDSA, digests(300, 0, ECDSA)))
        waiting = asyncio.create_task(refused(pool, caller="bob"))
        await until(lambda: len(shim.signs()) == 6)
        pool.turn_away()
        assert (lease.over, (await waiting).reason) == ("POOL_CLOSED", "POOL_CLOSED")
        with pytest.raises(Unavailable, match="POOL_CLOSED"):
            await lease.sign(ECDSA, digests(1, 900, ECDSA))
        if hangs:
            pool.answer_all()
        found = set(statuses(await batch))
        assert found == {("SIGNED", ""), ("NOT_ATTEMPTED", "POOL_CLOSED")} | (
            {("INDETERMINATE", "TOKEN_TIMEOUT")} if hangs else set()
        )
        assert (await refused(pool)).reason == "POOL_CLOSED"


async def test_nobody_has_a_card_that_could_not_be_reset(
    make_personal: MakePersonal, shim: Shim, resets: Resets
) -> None:
    """While the reader refuses, nothing is opened and no PIN sent, and the token says why; when it obeys, all is well."""
    async with make_personal() as pool:
        resets.failures = 3
        async with leased(pool):
            pass
        await until(lambda: resets.failures == 1)
        assert "cannot be reset: SCardConnect" in view(pool).lanes[0][0].problem
        assert (shim.count("C_Initialize"), len(shim.logins())) == (1, 1)
        assert pool.problem(pool.key("P-256")) == "TOKEN_STARTING"
        async with leased(pool):
            assert shim.count("C_Initialize") == 2
        assert resets.failures == 0


async def test_what_an_earlier_daemon_left_is_reset_first(
    make_personal: MakePersonal, shim: Shim, resets: Resets
) -> None:
    """A daemon that was killed may have left a card logged in: it is reset before it is looked at."""
    async with make_personal():
        ((reset, _),) = resets.made
        assert reset < shim.log()[0].t


# ---- what happens to a token that waits, or is had


async def test_a_lane_that_dies_while_it_waits(make_personal: MakePersonal, shim: Shim, resets: Resets) -> None:
    """Nobody was logged in: a new one, no PIN, no reset."""
    async with make_personal() as pool:
        (pid,) = pids(pool)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: pids(pool) not in ([pid], [0]))
        await waits(pool)
        assert (shim.logins(), len(resets.made)) == ([], 1)


async def test_a_card_that_is_pulled(
    make_personal: MakePersonal, people: Store, shim: Shim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    F2: it goes while it waits, and while a person has it and signs nothing: noticed by a ping, told at once, and it waits
    again when it is back; the PIN is not sent again.
    """
    for name in ("pool.attendant.PING_EVERY_S", "pool.personal.PING_EVERY_S", "pool.keeper.LOOK_EVERY_S"):
        monkeypatch.setattr(name, 0.1)

    async def pull() -> None:
        shim.script("C_GetTokenInfo * return 0xE0")  # SoftHSM itself does not notice
        await until(lambda: shim.count("C_Finalize") > ended)
        people.take_out("card")
        shim.clear()

    async with make_personal() as pool:
        key = pool.key("P-256")
        ended = shim.count("C_Finalize")
        await pull()
        await until(lambda: state(pool) == "ABSENT")
        assert (pool.problem(key), (await refused(pool)).reason) == ("TOKEN_ABSENT", "TOKEN_ABSENT")
        people.put_in("card")
        await waits(pool)
        async with leased(pool) as lease:
            await lease.sign(ECDSA, digests(1))
            ended = shim.count("C_Finalize")
            await pull()
            await until(lambda: lease.over == "TOKEN_REMOVED")
        await until(lambda: state(pool) == "ABSENT")
        people.put_in("card")
        await waits(pool)
        assert len(shim.logins()) == 1


async def test_another_card_in_its_place(make_personal: MakePersonal, people: Store, shim: Shim) -> None:
    """
    F3: what it shows when a person comes is not what it showed when its lane was opened: TOKEN_CHANGED, and no PIN is sent;
    a look then says what it is.
    """
    async with make_personal() as pool:
        # SoftHSM does not see a card change hands: so what was seen at the opening is made another's.
        vars(vars(pool)["_personal_lanes"][0])["_opened"]["serial"] = "0001"
        error = await refused(pool)
        assert (error.reason, error.retry_s) == ("TOKEN_CHANGED", None)
        assert shim.logins() == []
        await waits(pool)  # a look finds the right one


async def test_other_keys_do_not_end_a_lease(make_personal: MakePersonal, people: Store) -> None:
    """`set_keys` opens a lane anew that waits; one that somebody has is left alone until the lease is over."""
    first = Key(*reversed(people.made["card"]["P-256"]))
    second = Key(*reversed(people.keys("card", ["P-384"])["P-384"]))
    async with make_personal(keys=[first]) as pool:
        async with leased(pool) as lease:
            pool.set_keys([second])
            assert statuses(await lease.sign(ECDSA, digests(1))) == {("SIGNED", ""): 1}
        await waits(pool)
        async with pool.lease(second.ref, caller="ann", pin=Pin(PIN), timeout_s=5) as lease:
            assert statuses(await lease.sign(ECDSA, digests(1))) == {("SIGNED", ""): 1}
        await waits(pool)
        (pid,) = pids(pool)
        pool.set_keys([first])
        await until(lambda: pids(pool) not in ([pid], [0]))
        await waits(pool)


async def test_who_waits_is_told_when_it_is_in_vain(make_personal: MakePersonal, shim: Shim) -> None:
    """A drain turns away those in the line at once, not at their deadlines; a token being opened is told as that."""
    async with make_personal() as pool:
        async with leased(pool):
            waiting = [asyncio.create_task(refused(pool, caller=name)) for name in "bc"]
            await asyncio.sleep(0)
            pool.drain("card")
            assert [(await each).reason for each in waiting] == ["TOKEN_DRAINED"] * 2
        shim.script("C_Initialize * delay 0.5")
        await until(lambda: pids(pool) == [0])
        pool.resume("card")
        error = await refused(pool, timeout_s=0.1)
        assert (error.reason, type(error)) == ("TOKEN_STARTING", Unavailable)


async def test_a_service_s_token_beside_it(
    people: Store, own_store: Store, shim: Shim, resets: Resets, tmp_path: Path
) -> None:
    """Leases come and go, wrong PINs too; a token with a service PIN in the same store signs all the while."""
    people.token("seal")
    people.keys("seal", ["P-256"])
    configs = [config(people, shim=shim, pin=None, personal=True), config(people, "seal", shim=shim)]
    async with pool_over(*configs, state=tmp_path / "state", reset=resets) as pool:
        key = Key(*reversed(people.made["seal"]["P-256"])).ref
        batch = asyncio.create_task(pool.sign(key, ECDSA, items := digests(3_000, 0, ECDSA), caller="seal"))
        for pin in (PIN, WRONG, PIN):
            if pin == WRONG:
                assert (await refused(pool, pin)).reason == "PIN_INCORRECT"
                continue
            async with leased(pool, pin) as lease:
                assert statuses(await lease.sign(ECDSA, digests(5, 50_000, ECDSA))) == {("SIGNED", ""): 5}
        outcomes = await batch
        assert statuses(outcomes) == {("SIGNED", ""): 3_000}
        for item, outcome in zip(items[::100], outcomes[::100], strict=True):
            check(ECDSA, spki(people, "seal"), item, outcome.signature)
        assert {name for _, name in resets.made} == {"card"}
        assert lanes_up(view(pool, "seal"))


async def test_a_card_without_a_pin_is_nobody_s(
    make_personal: MakePersonal, shim: Shim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that asks for no PIN would sign for whoever comes: it is not served as a person's."""

    async def asks_for_none(child: Any, token: Any) -> dict[str, Any]:
        return await open_token(child, token) | {"login": False}

    monkeypatch.setattr("pool.personal.open_token", asks_for_none)
    async with make_personal() as pool:
        assert state(pool) == "LOCKED"
        assert "asks for no PIN" in view(pool).detail
        assert (await refused(pool)).reason == "PIN_LOCKED"
    assert shim.logins() == []
