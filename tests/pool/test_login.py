"""
A person's PIN: what it may cost, what its person is told, and that nothing of it stays.

The count on disk and the shim's log are compared: what was sent is counted, whatever came of it.
"""

import asyncio
import itertools
import json
import logging
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from pool import Key, Pin, PinError, PinRefused, TryRefused, Unavailable
from pool.login import Cost
from pool.tries import TokenIdentity, Tries
from tests.pool.conftest import MakePersonal
from tests.pool.persons import (
    CKU_CONTEXT_SPECIFIC,
    CKU_USER,
    END_S,
    WRONG,
    Resets,
    count,
    leased,
    log_of,
    refused,
    spki,
    waits,
)
from tests.pool.rig import (
    ECDSA,
    RSA,
    audit,
    children,
    config,
    digests,
    gone,
    open_tries,
    pids,
    pool_over,
    state,
    statuses,
    until,
    view,
)
from tests.shim import Shim
from tests.softhsm import PIN, Store

CKR_GENERAL_ERROR, CKR_DEVICE_REMOVED, CKR_PIN_INCORRECT, CKR_PIN_LOCKED = "0x5", "0x32", "0xA0", "0xA4"


@pytest.fixture(autouse=True)
async def the_loop_is_quiet() -> AsyncIterator[None]:
    """Nothing of the pool fails in a callback or a task where nobody looks."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    yield
    assert heard == []


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Where the pool of `make_personal` keeps its count."""
    return tmp_path / "state"


# ---- wrong PINs


@pytest.mark.parametrize("lies", [False, True], ids=["its flags say so", "its flags say nothing"])
async def test_a_wrong_pin(make_personal: MakePersonal, shim: Shim, disk: Path, lies: bool) -> None:
    """
    F15: one wrong PIN: PIN_INCORRECT, with the tries that are left where the token's flags agree with our count, else
    unknown; sent once, by a process that is gone afterwards; the right one clears all.
    """
    if lies:
        shim.script(f"C_Login 1 return {CKR_PIN_INCORRECT}")
    async with make_personal() as pool:
        (pid,) = pids(pool)
        error = await refused(pool, PIN if lies else WRONG)
        assert (type(error), error.reason, error.tries_left) == (PinRefused, "PIN_INCORRECT", None if lies else 2)
        assert (len(shim.logins()), count(disk)) == (1, (1, 0))
        await until(lambda: gone(pid), END_S)
        await waits(pool)
        assert len(shim.logins()) == 1
        assert view(pool).lanes[0][0].tally.losses == 0, "a person's mistake is not the lane's"
        async with leased(pool) as lease:
            assert statuses(await lease.sign(ECDSA, digests(1))) == {("SIGNED", ""): 1}
        assert count(disk) == (0, 0)


async def test_the_last_try_is_guarded(
    make_personal: MakePersonal, shim: Shim, disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """
    F16: after two wrong PINs of three, PIN_FINAL_TRY_GUARD and no C_Login, also after a restart; the override sends it,
    and who used it stands in the log and on disk.
    """
    async with make_personal() as pool:
        for left in (2, None):  # SoftHSM has no flag for the last try, so that its word is not believed
            error = await refused(pool, WRONG)
            assert (error.reason, error.tries_left) == ("PIN_INCORRECT", left)
    for _ in range(2):
        async with make_personal() as pool:
            error = await refused(pool)
            assert (type(error), error.reason) == (PinRefused, "PIN_FINAL_TRY_GUARD")
            assert "use the override" in str(error)
            assert (len(shim.logins()), state(pool)) == (2, "LEASED")
            await waits(pool)
    caplog.set_level(logging.WARNING)
    async with make_personal() as pool:
        async with leased(pool, caller="ann-of-the-desk", override=True) as lease:
            assert statuses(await lease.sign(ECDSA, digests(1))) == {("SIGNED", ""): 1}
        async with leased(pool, override=True):
            pass  # nothing was to be overridden, so that nothing is written
    assert (len(shim.logins()), count(disk)) == (4, (0, 0))
    assert "ann-of-the-desk overrides the guard" in caplog.text
    database = sqlite3.connect(disk / "tries.sqlite")
    assert database.execute("SELECT caller, refused, open FROM overrides").fetchall() == [("ann-of-the-desk", 2, 0)]
    database.close()


async def test_a_wrong_pin_after_the_override(make_personal: MakePersonal, shim: Shim, disk: Path) -> None:
    """
    F17: three wrong PINs: PIN_LOCKED, the token is LOCKED, and no C_Login is sent any more, by whatever override, over
    restarts; an operator's unlock, with a recorded override, allows one try.
    """
    async with make_personal() as pool:
        for pin, reason in ((WRONG, "PIN_INCORRECT"), (WRONG, "PIN_INCORRECT"), (WRONG, "PIN_LOCKED")):
            assert (await refused(pool, pin, override=True)).reason == reason
        await until(lambda: state(pool) == "LOCKED")
    for _ in range(2):
        async with make_personal() as pool:
            assert state(pool) == "LOCKED"
            for override in (False, True):
                error = await refused(pool, override=override)
                assert (type(error), error.reason, error.retry_s) == (Unavailable, "PIN_LOCKED", None)
            assert pool.problem(pool.key("P-256")) == "PIN_LOCKED"
    assert (len(shim.logins()), count(disk)) == (3, (3, 0))
    async with make_personal() as pool:
        with pytest.raises(TryRefused):
            pool.unlock("card")
        pool.unlock("card", override=True)
        async with leased(pool):
            assert (len(shim.logins()), count(disk)) == (4, (0, 0))


async def test_a_token_that_says_it_is_locked(make_personal: MakePersonal, shim: Shim, disk: Path) -> None:
    """F17: CKR_PIN_LOCKED is the end, however many tries our own count has left: LOCKED at once."""
    shim.script(f"C_Login 1 return {CKR_PIN_LOCKED}")
    async with make_personal() as pool:
        waiting = asyncio.create_task(refused(pool, caller="bob"))
        await asyncio.sleep(0)
        reasons = {(await refused(pool)).reason, (await waiting).reason}
        assert reasons == {"PIN_LOCKED"}
        await until(lambda: state(pool) == "LOCKED")
        assert "CKR_PIN_LOCKED" in view(pool).detail
        assert (len(shim.logins()), count(disk)) == (1, (1, 0))


async def test_a_token_that_says_general_error(make_personal: MakePersonal, shim: Shim, disk: Path) -> None:
    """
    F18: CKR_GENERAL_ERROR for a PIN, right or wrong: counted as a try that may be spent, and the token is not LOCKED for
    it, because a start beside it may have been the cause; when the person's second attempt ends so, too, it is.
    """
    shim.script(f"C_Login * return {CKR_GENERAL_ERROR}")
    async with make_personal() as pool:
        error = await refused(pool)
        assert (type(error), error.reason, error.tries_left) == (PinRefused, "PIN_UNCLEAR", None)
        assert count(disk) == (0, 1)
        await waits(pool)
        error = await refused(pool)
        assert (error.reason, count(disk)) == ("PIN_LOCKED", (0, 2))
        await until(lambda: state(pool) == "LOCKED")
        assert (await refused(pool, override=True)).reason == "PIN_LOCKED"
        assert len(shim.logins()) == 2


async def test_a_general_error_and_then_the_right_pin(make_personal: MakePersonal, shim: Shim, disk: Path) -> None:
    """F18: the second attempt is good: signed, and all tries are there again."""
    shim.script(f"C_Login 1 return {CKR_GENERAL_ERROR}")
    async with make_personal() as pool:
        assert (await refused(pool)).reason == "PIN_UNCLEAR"
        async with leased(pool) as lease:
            assert statuses(await lease.sign(ECDSA, digests(1))) == {("SIGNED", ""): 1}
        assert count(disk) == (0, 0)


async def test_a_card_that_goes_with_the_pin(make_personal: MakePersonal, shim: Shim, disk: Path) -> None:
    """F1: CKR_DEVICE_REMOVED to the login: TOKEN_REMOVED, and the try may be spent."""
    shim.script(f"C_Login 1 return {CKR_DEVICE_REMOVED}")
    async with make_personal() as pool:
        assert (await refused(pool)).reason == "TOKEN_REMOVED"
        assert count(disk) == (0, 1)


# ---- no answer


DAEMON = """
import asyncio, json, sys
from pathlib import Path
from pool import Pin, Pool, TokenConfig

async def main():
    order = json.load(sys.stdin)
    token = TokenConfig("card", Path(order["module"]), "card", personal=True, environment=order["environment"])
    async with Pool([token], state=Path(order["state"])) as pool:
        await pool.ready()
        async with pool.lease("card", caller="ann", pin=Pin(order["pin"]), timeout_s=60):
            await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("moment", ["hang 60", f"after {CKR_PIN_INCORRECT}"])
async def test_a_daemon_killed_in_the_login(
    make_personal: MakePersonal, people: Store, shim: Shim, disk: Path, moment: str
) -> None:
    """
    F19: the daemon is killed between C_Login and the record of its answer: the try was on disk before, and after each
    restart counts as spent; the second time the guard is the same as after two wrong PINs.
    """
    order = {
        "module": shim.module, "environment": people.environment | shim.env, "state": str(disk), "pin": PIN,
    }  # fmt: skip
    for tries in (1, 2):
        shim.script("C_Login * delay 0.3", f"C_Login * {moment}")
        daemon = subprocess.Popen([sys.executable, "-c", DAEMON], stdin=subprocess.PIPE, text=True)  # noqa: ASYNC220
        try:
            daemon.stdin.write(json.dumps(order))
            daemon.stdin.close()
            await until(lambda: len(shim.logins()) == tries)  # noqa: B023
            assert open_tries(disk) == tries, "not written before the PIN was sent"
        finally:
            daemon.kill()
            daemon.wait()
        await until(lambda: gone(shim.logins()[-1].pid), END_S)
        assert count(disk) == (0, tries)
    shim.clear()
    async with make_personal() as pool:
        assert state(pool) == "OPEN"
        assert (await refused(pool)).reason == "PIN_FINAL_TRY_GUARD"
        assert len(shim.logins()) == 2
        async with leased(pool, override=True):
            assert count(disk) == (0, 0)


async def test_a_module_that_dies_in_the_login(make_personal: MakePersonal, shim: Shim, disk: Path) -> None:
    """F19: the lane is lost between C_Login and its answer: MODULE_CRASH, and the try counts."""
    shim.script("C_Login 1 crash-after")
    async with make_personal() as pool:
        error = await refused(pool)
        assert (error.reason, count(disk)) == ("MODULE_CRASH", (0, 1))
        async with leased(pool):
            assert count(disk) == (0, 0)


async def test_a_module_that_hangs_in_the_login(
    make_personal: MakePersonal, shim: Shim, resets: Resets, disk: Path
) -> None:
    """
    F12: an answer at the lease's deadline; the process is killed within a second after it, the card reset, the try
    counted; and no second C_Login.
    """
    shim.script("C_Login 1 hang 60")
    async with make_personal() as pool:
        (pid,) = pids(pool)
        began = time.monotonic()
        error = await refused(pool, timeout_s=0.5)
        assert 0.5 <= time.monotonic() - began <= 0.7
        assert error.reason == "DEADLINE_EXCEEDED"
        await until(lambda: gone(pid), END_S + 0.2)
        await waits(pool)
        assert (count(disk), len(shim.logins()), len(resets.made)) == ((0, 1), 1, 2)


async def test_a_caller_who_goes_while_the_pin_is_under_way(
    make_personal: MakePersonal, shim: Shim, disk: Path
) -> None:
    """F43: gone at once; the answer that comes within a second is written down, and the login ended, unused."""
    shim.script("C_Login 1 delay 0.3")
    async with make_personal() as pool:
        (pid,) = pids(pool)
        task = asyncio.create_task(refused(pool))
        await until(lambda: len(shim.logins()) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert count(disk) == (0, 1)
        await until(lambda: gone(pid), END_S)
        assert {call.fn for call in log_of(shim, pid)} >= {"C_Logout", "C_Finalize"}
        assert count(disk) == (0, 0)
        await waits(pool)


async def test_a_caller_who_goes_while_the_module_hangs(make_personal: MakePersonal, shim: Shim, disk: Path) -> None:
    """F12: cancelled long before the lease's deadline: the process is gone within a second, and the try counts."""
    shim.script("C_Login 1 hang 60")
    async with make_personal() as pool:
        (pid,) = pids(pool)
        task = asyncio.create_task(refused(pool, timeout_s=60))
        await until(lambda: len(shim.logins()) == 1)
        task.cancel()
        await asyncio.wait([task])
        await until(lambda: gone(pid), END_S + 0.2)
        assert count(disk) == (0, 1)
        await waits(pool)


async def test_a_stop_while_the_pin_is_under_way(make_personal: MakePersonal, shim: Shim, disk: Path) -> None:
    """F47: the pool closes: its caller is told, and what became of the try is on disk."""
    shim.script("C_Login 1 delay 0.3")
    async with make_personal() as pool:
        task = asyncio.create_task(refused(pool))
        await until(lambda: len(shim.logins()) == 1)
        await pool.close()
        assert (await task).reason == "POOL_CLOSED"
        assert count(disk) == (0, 0)


async def _last_search(make_personal: MakePersonal, shim: Shim) -> int:
    """Which of a lease's searches is that for the private key, after the PIN."""
    async with make_personal() as pool:
        before = shim.number("C_FindObjectsInit")
        async with leased(pool):
            return shim.number("C_FindObjectsInit") - before


@pytest.mark.parametrize("how", ["crash", "hang 60"])
async def test_what_it_has_cost_where_no_answer_came(
    make_personal: MakePersonal, shim: Shim, disk: Path, how: str
) -> None:
    """
    F12, F19: the lane dies, or hangs past its time, while the token is looked at, in C_Login, and behind it: its person is
    told that no PIN was sent, that it counts as a try, that it was right; and so it stands on the disk.
    """
    searches = await _last_search(make_personal, shim)
    # A login that hangs has a second more than the start: what it says of the PIN is awaited.
    async with make_personal(start_timeout_s=1.0) as pool:
        for function, place, cost, counted in (
            ("C_OpenSession", 1, Cost.NO_PIN, 0),
            ("C_Login", 1, Cost.TRY, 1),
            ("C_FindObjectsInit", searches, Cost.NO_TRY, 0),
        ):
            shim.script(f"{function} {shim.number(function) + place} {how}")
            error = await refused(pool)
            assert error.reason == ("MODULE_CRASH" if how == "crash" else "TOKEN_TIMEOUT")
            assert error.detail.endswith(f"; {cost}"), function
            assert count(disk) == (0, counted), function
            view(pool).lanes[0][0].losses.clear()
            await waits(pool)


async def test_a_refusal_is_told_before_the_module_is_asked_more(
    make_personal: MakePersonal, shim: Shim, disk: Path
) -> None:
    """
    F12, F15: the module hangs in what it is asked after it has refused a PIN: the refusal is known and counted as one, not as
    a login without an answer, which would be tried once more. (The simulation found it.)
    """
    async with make_personal() as pool:
        before = shim.number("C_GetTokenInfo")
        await refused(pool, WRONG)
        asked = shim.number("C_GetTokenInfo") - before  # the last of them behind the refusal
        await waits(pool)
        shim.script(f"C_GetTokenInfo {shim.number('C_GetTokenInfo') + asked} hang 60")
        error = await refused(pool, WRONG)
        assert (error.reason, error.tries_left) == ("PIN_INCORRECT", None), "the token said nothing more"
        assert count(disk) == (2, 0)
        assert len(shim.logins()) == 2


def _dies_once(monkeypatch: pytest.MonkeyPatch, pid: Callable[[], int]) -> list[int]:
    """
    The first lane is killed when the try is on the disk, and before the PIN is on its way; answers how many tries stood there
    before each.
    """
    begin, before = Tries.begin, list[int]()

    def begun(tries: Tries, token: TokenIdentity) -> None:
        before.append(tries.count(token).spent)
        begin(tries, token)
        if len(before) == 1:
            os.kill(lane := pid(), signal.SIGKILL)
            while not gone(lane):
                time.sleep(0.001)

    monkeypatch.setattr(Tries, "begin", begun)
    return before


async def test_a_lane_that_ends_before_the_pin_went_out(
    make_personal: MakePersonal, shim: Shim, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F19: the lane dies between the try and the PIN: her person is told that none was sent, and no try is counted."""
    async with make_personal() as pool:
        _dies_once(monkeypatch, lambda: pids(pool)[0])
        error = await refused(pool)
        assert error.detail.endswith(f"; {Cost.NO_PIN}"), error
        assert (count(disk), shim.logins()) == ((0, 0), [])
        await waits(pool)


async def test_a_start_that_ends_before_the_pin_went_out(
    people: Store, shim: Shim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F19: the same with a service's PIN: the lane is started again, and nothing stands on the disk as a try without an answer."""
    before = _dies_once(monkeypatch, lambda: children()[0].pid)
    async with pool_over(config(people, shim=shim), state=tmp_path / "state", wait=False) as pool:
        await until(lambda: state(pool) == "READY", 15)
        assert len(shim.logins()) == 1
        assert before == [0, 0]


async def test_a_count_that_cannot_be_written(
    make_personal: MakePersonal, shim: Shim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F23: no room on the disk for the try: the PIN is not sent, and the person is told; it may be used again."""

    def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async with make_personal() as pool:
        pin = Pin(PIN)
        with monkeypatch.context() as broken:
            broken.setattr("pool.tries.Tries.begin", full)
            with pytest.raises(Unavailable, match=f"disk is full; {Cost.NO_PIN}"):
                async with pool.lease("card", caller="ann", pin=pin, timeout_s=5):
                    pass
        assert shim.logins() == []
        async with pool.lease("card", caller="ann", pin=pin, timeout_s=5):
            assert len(shim.logins()) == 1


# ---- keys that want the PIN each time


@pytest.fixture(scope="module")
def each_card(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("each") / "softhsm")
    made.token("card")
    made.keys("card", ["P-256", "RSA-2048"], pin_each_time=True)
    return made


@pytest.fixture
def each(own_store: Store, each_card: Store) -> Store:
    """A test's own token "card" with keys that are CKA_ALWAYS_AUTHENTICATE."""
    each_card.copy_to(own_store)
    return own_store


def by_key(pool: Any, kind: str = "P-256", **more: Any) -> Any:
    return pool.lease(pool.key(kind), caller="ann", pin=Pin(PIN), timeout_s=10, **more)


def logins(shim: Shim, user: int) -> int:
    return sum(call.user == user for call in shim.logins())


async def test_a_login_for_each_signature(each: Store, make_personal: MakePersonal, shim: Shim, disk: Path) -> None:
    """
    A batch on such a key is signed with one context-specific login for each signature, by the lease's own PIN; a try is
    on disk meanwhile, and off it afterwards.
    """
    async with make_personal() as pool:
        for kind, algorithm in (("P-256", ECDSA), ("RSA-2048", RSA)):
            async with by_key(pool, kind) as lease:
                before = logins(shim, CKU_CONTEXT_SPECIFIC)
                shim.script("C_Sign * delay 0.002")
                batch = asyncio.create_task(lease.sign(algorithm, items := digests(30, 0, algorithm)))
                await until(lambda: logins(shim, CKU_CONTEXT_SPECIFIC) > before + 3)  # noqa: B023
                assert count(disk) == (0, 1)
                outcomes = await batch
                assert count(disk) == (0, 0)
                assert audit(shim, each.made["card"][kind][1], algorithm, items, outcomes) == []
                assert statuses(outcomes) == {("SIGNED", ""): 30}
                assert logins(shim, CKU_CONTEXT_SPECIFIC) - before == 30
            await waits(pool)
        mine = [call for call in shim.log() if call.ev == "enter" and call.fn in {"C_Login", "C_Sign"}]
        for login, sign in itertools.pairwise(mine):  # each C_Sign comes right after a login of its own
            assert sign.fn == "C_Login" or (login.fn, login.user) == ("C_Login", CKU_CONTEXT_SPECIFIC)
        assert logins(shim, CKU_USER) == 2


async def test_a_pin_refused_between_two_signatures(
    each: Store, make_personal: MakePersonal, shim: Shim, disk: Path
) -> None:
    """
    F15: the PIN was right at the login and is refused before the fourth signature: three are kept, nothing more is tried,
    the lease is over with PIN_INCORRECT, and the try counts.
    """
    async with make_personal() as pool:
        async with by_key(pool) as lease:
            shim.script(f"C_Login {shim.number('C_Login') + 4} return {CKR_PIN_INCORRECT}")
            outcomes = await lease.sign(ECDSA, digests(20, 0, ECDSA))
            assert statuses(outcomes) == {("SIGNED", ""): 3, ("NOT_ATTEMPTED", "PIN_INCORRECT"): 17}
            assert lease.over == "PIN_INCORRECT"
        await waits(pool)
        assert (count(disk), logins(shim, CKU_CONTEXT_SPECIFIC), len(shim.signs())) == ((1, 0), 4, 3)


async def test_a_crash_between_two_signatures(each: Store, make_personal: MakePersonal, shim: Shim, disk: Path) -> None:
    """F19: the lane dies in a login for a signature: that try was on disk, and stays there until a PIN is right again."""
    async with make_personal() as pool:
        async with by_key(pool) as lease:
            shim.script(f"C_Login {shim.number('C_Login') + 4} crash")
            outcomes = await lease.sign(ECDSA, digests(20, 0, ECDSA))
            assert statuses(outcomes)["SIGNED", ""] == 3
            assert lease.over == "MODULE_CRASH"
        await waits(pool)
        assert count(disk) == (0, 1)
        async with by_key(pool) as lease:
            assert count(disk) == (0, 0)
            await lease.sign(ECDSA, digests(2, 100))
        await waits(pool)
        assert count(disk) == (0, 0)


async def test_a_service_s_pin_is_not_sent_again_and_again(each: Store, shim: Shim, tmp_path: Path) -> None:
    """A token with a service PIN does not take such a key into its lane: no C_Login beside the one, and it says why."""
    async with pool_over(config(each, shim=shim), state=tmp_path / "state") as pool:
        assert state(pool) == "READY"
        assert view(pool).lanes[0][0].keys == frozenset()
        assert len(shim.logins()) == 1


# ---- nothing of it stays


async def test_a_pin_is_used_up(make_personal: MakePersonal, shim: Shim) -> None:
    """
    Row 7.3: when it has gone down the parent holds it no more, not in the `Pin` that the caller may still have, either;
    it is not sent twice, and one that was not sent can be used again.
    """
    async with make_personal() as pool:
        secret = str(os.getpid()) + "-no-constant-of-the-source"
        held = sys.getrefcount(secret)
        pin = Pin(secret)
        async with leased(pool):
            with pytest.raises(Unavailable, match="TOKEN_BUSY"):
                async with pool.lease("card", caller="bob", pin=pin, timeout_s=0.1):
                    pass
            assert pin.reveal() == secret
        with pytest.raises(PinRefused) as error:
            async with pool.lease("card", caller="bob", pin=pin, timeout_s=5):
                pass
        assert error.value.reason == "PIN_INCORRECT"
        assert sys.getrefcount(secret) == held
        with pytest.raises(PinError):
            pin.reveal()
        with pytest.raises(Unavailable, match="used up"):
            async with pool.lease("card", caller="bob", pin=pin, timeout_s=5):
                pass
        assert len(shim.logins()) == 2


async def test_a_pin_stands_nowhere(
    own_store: Store, shim: Shim, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """I6: right or wrong, it is in no command line, no environment, no log, no error, no file, no view; and no core."""
    right, wrong = "73019264-right", "73019264-wrong"
    own_store.token("card", right)
    own_store.keys("card", ["P-256"])
    caplog.set_level(logging.DEBUG)
    one = config(own_store, shim=shim, pin=None, personal=True)
    async with pool_over(one, state=tmp_path / "state") as pool:
        error = await refused(pool, wrong)
        async with leased(pool, right) as lease:
            (pid,) = pids(pool)
            assert psutil.Process(pid).rlimit(resource.RLIMIT_CORE) == (0, 0)
            shown = repr((pool.snapshot(), one, lease, vars(lease), error, error.__context__))
            for name in ("cmdline", "environ"):
                assert b"73019264" not in Path(f"/proc/{pid}/{name}").read_bytes()
    assert "73019264" not in shown + caplog.text + repr(error)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "environ"]
    assert not [path for path in files if b"73019264" in path.read_bytes()]


async def test_two_people_of_one_module_log_in_one_after_the_other(
    own_store: Store, shim: Shim, tmp_path: Path, resets: Resets
) -> None:
    """A login is a start as far as the module goes: two at once made a good PIN fail, so that they never are."""
    for label in ("card", "other"):
        own_store.token(label)
        own_store.keys(label, ["P-256"])
    shim.script("C_Login * delay 0.2")
    configs = [config(own_store, label, shim=shim, pin=None, personal=True) for label in ("card", "other")]
    async with pool_over(*configs, state=tmp_path / "state", reset=resets) as pool:

        async def come(name: str) -> None:
            async with pool.lease(name, caller=name, pin=Pin(PIN), timeout_s=5) as lease:
                (outcome,) = await lease.sign(ECDSA, digests(1))
                assert outcome.token == name

        await asyncio.gather(come("card"), come("other"))
        first, left, second, _ = [call for call in shim.log() if call.fn == "C_Login"]
        assert (first.ev, left.ev, second.ev) == ("enter", "leave", "enter")
        assert {Key(spki(own_store, label), b"x").ref for label in ("card", "other")} == {
            ref for each in pool.snapshot() for ref in each.keys
        }
