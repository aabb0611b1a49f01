"""What a person does at her token itself: the PIN at the reader's pad, the touch before a signature."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pool import Algorithm, BadRequest, Hash, Pin, PinRefused, Pool, PoolError, Scheme, TokenConfig, Unavailable
from pool.login import Cost
from pool.token import Presence
from tests.pool.conftest import MakePersonal
from tests.pool.persons import WRONG, Resets, count, waits
from tests.pool.rig import ECDSA, config, digests, pids, pool_over, state, statuses, until, view
from tests.shim import Shim
from tests.softhsm import MODULE, PIN, Store

PAD = "C_GetTokenInfo * pad"
P384 = Algorithm(Scheme.ECDSA, Hash.SHA384)


def at_pad(pool: Pool, *, caller: str = "ann", timeout_s: float = 10.0, **more: Any) -> Any:
    return pool.lease("card", caller=caller, pin=None, timeout_s=timeout_s, **more)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return tmp_path / "state"


async def test_a_pin_typed_at_the_pad(make_personal: MakePersonal, shim: Shim, disk: Path) -> None:
    """F12: while the reader asks for the PIN the token is WAITING and says for what; then it is hers, by one C_Login."""
    shim.script(PAD, f"C_Login * typed {PIN}", "C_Login * hold 20")
    async with make_personal(presence=Presence.PAD) as pool:
        entering = asyncio.create_task((lease := at_pad(pool)).__aenter__())
        await until(lambda: state(pool) == "WAITING")
        assert "typed at the reader" in view(pool).detail
        assert count(disk) == (0, 0)  # nobody has typed anything yet
        shim.script(PAD, f"C_Login * typed {PIN}")
        mine = await entering
        assert state(pool) == "LEASED"
        assert statuses(await mine.sign(ECDSA, digests(3))) == {("SIGNED", ""): 3}
        await lease.__aexit__(None, None, None)
        await waits(pool)
    assert [login.pinlen for login in shim.logins()] == [0]


@contextlib.asynccontextmanager
async def beside_a_pad(
    people: Store, shim: Shim, disk: Path, *, is_unclear: bool = False, **other: Any
) -> AsyncIterator[tuple[Pool, asyncio.Task[Any]]]:
    """
    A card at a pad, where somebody is waited for by this task, and a service's token "other" of the same module.
    `is_unclear`: she was there before, and the answer said nothing of her PIN.
    """
    people.token("other")
    people.keys("other", ["P-384"])
    shim.script("C_GetTokenInfo@card * pad", f"C_Login@card * {'return 0x5' if is_unclear else 'hang 60'}")
    card = config(people, shim=shim, pin=None, personal=True, presence=Presence.PAD)
    async with pool_over(card, config(people, "other", shim=shim, **other), state=disk, reset=Resets()) as pool:
        await waits(pool)
        if is_unclear:
            with pytest.raises(PinRefused, match="PIN_UNCLEAR"):
                await at_pad(pool).__aenter__()
            await waits(pool)
            shim.script("C_GetTokenInfo@card * pad", "C_Login@card * hang 60")
        entering = asyncio.create_task(at_pad(pool, timeout_s=60).__aenter__())
        await until(lambda: state(pool) == "WAITING")
        yield pool, entering
        entering.cancel()
        await asyncio.wait([entering])


async def test_other_tokens_start_beside_a_pad(people: Store, shim: Shim, disk: Path) -> None:
    """F12: while a person is waited for at a pad, a token of the same module starts, and signs."""
    async with beside_a_pad(people, shim, disk) as (pool, _):
        pool.drain("other")
        await until(lambda: pids(pool, "other") == [0])
        pool.resume("other")
        await until(lambda: state(pool, "other") == "READY")
        outcomes = await pool.sign(pool.key("P-384"), P384, digests(1, 0, P384))
        assert statuses(outcomes) == {("SIGNED", ""): 1}
        assert state(pool) == "WAITING"


async def test_a_module_that_stands_no_login_beside_a_pad(people: Store, shim: Shim, disk: Path) -> None:
    """
    F18: a module that answers GENERAL_ERROR to a right PIN while a person is at a pad: one try without an answer, and the
    next login waits until she has gone: the service is not LOCKED, and READY then.
    """
    async with beside_a_pad(people, shim, disk) as (pool, entering):
        shim.script("C_GetTokenInfo@card * pad", "C_Login@card * hang 60", "C_Login@other * return 0x5")
        pool.drain("other")
        await until(lambda: pids(pool, "other") == [0])
        before = len(shim.logins())
        pool.resume("other")
        await until(lambda: len(shim.logins()) == before + 1)
        await asyncio.sleep(2)  # the lane rests for less
        assert (len(shim.logins()), state(pool, "other")) == (before + 1, "OPEN")
        shim.script("C_GetTokenInfo@card * pad")
        entering.cancel()
        await until(lambda: state(pool, "other") == "READY")


async def test_a_person_whose_pin_was_unclear_beside_a_pad(people: Store, shim: Shim, disk: Path) -> None:
    """F18: the same of a person's PIN: her second one is sent when nobody is at the pad any more."""
    async with beside_a_pad(people, shim, disk, pin=None, personal=True) as (pool, entering):
        shim.script("C_GetTokenInfo@card * pad", "C_Login@card * hang 60", "C_Login@other * return 0x5")

        async def come() -> None:
            async with pool.lease("other", caller="bob", pin=Pin(PIN), timeout_s=20):
                pass

        with pytest.raises(PinRefused, match="PIN_UNCLEAR"):
            await come()
        await waits(pool, "other")
        shim.script("C_GetTokenInfo@card * pad")
        before, coming = len(shim.logins()), asyncio.create_task(come())
        await asyncio.sleep(0.5)
        assert len(shim.logins()) == before
        entering.cancel()
        await coming


async def test_whose_try_had_no_answer_is_alone_at_the_pad(people: Store, shim: Shim, disk: Path) -> None:
    """F18: at a pad, too: nothing of the module starts beside a second login."""
    async with beside_a_pad(people, shim, disk, is_unclear=True) as (pool, entering):
        pool.drain("other")
        await until(lambda: pids(pool, "other") == [0])
        pool.resume("other")
        await asyncio.sleep(0.5)
        assert (state(pool, "other"), pids(pool, "other")) == ("OPEN", [0])
        entering.cancel()
        await until(lambda: state(pool, "other") == "READY")


async def test_nobody_comes_to_the_pad(make_personal: MakePersonal, shim: Shim, disk: Path) -> None:
    """
    F12: a login that waits at the pad can be cancelled: the token is open again within 2.5 s, no second C_Login follows, no
    try is counted however often it happens, and the next person can have it.
    """
    shim.script(PAD, "C_Login * hold 60")
    async with make_personal(presence=Presence.PAD) as pool:
        for turn in range(1, 4):
            entering = asyncio.create_task(at_pad(pool, timeout_s=60).__aenter__())
            await until(lambda: state(pool) == "WAITING")
            entering.cancel()
            began = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await entering
            await until(lambda: state(pool) == "OPEN")
            assert time.monotonic() - began < 2.5
            assert len(shim.logins()) == turn
            await waits(pool)
        assert count(disk) == (0, 0)
        shim.script(PAD, f"C_Login * typed {PIN}")
        async with at_pad(pool) as lease:
            assert statuses(await lease.sign(ECDSA, digests(1))) == {("SIGNED", ""): 1}


async def test_the_deadline_passes_at_the_pad(make_personal: MakePersonal, shim: Shim) -> None:
    """F12: who does not come in time is told so at the deadline."""
    shim.script(PAD, "C_Login * hold 60")
    async with make_personal(presence=Presence.PAD) as pool:
        began = time.monotonic()
        with pytest.raises(Unavailable) as error:
            await at_pad(pool, timeout_s=0.5).__aenter__()
        assert error.value.reason == "DEADLINE_EXCEEDED"
        assert 0.4 < time.monotonic() - began < 1.0


@pytest.mark.parametrize(("how", "reason"), [("crash", "MODULE_CRASH"), ("hang 60", "TOKEN_TIMEOUT")])
async def test_no_answer_from_the_pad(
    make_personal: MakePersonal, shim: Shim, disk: Path, how: str, reason: str
) -> None:
    """F12: the driver dies or hangs while the reader asks for the PIN: nothing is counted, and she is told so."""
    shim.script(PAD, f"C_Login * {how}")
    async with make_personal(presence=Presence.PAD, start_timeout_s=1.0) as pool:
        with pytest.raises(Unavailable) as error:
            await at_pad(pool).__aenter__()
        assert (error.value.reason, count(disk)) == (reason, (0, 0))
        assert error.value.detail.endswith(f"; {Cost.AT_PAD}")
        await waits(pool)


async def test_a_wrong_pin_at_the_pad_counts(make_personal: MakePersonal, shim: Shim, disk: Path) -> None:
    """F15, F16: a refusal at the pad is a refusal; after two of three the last try is not asked for."""
    shim.script(PAD, f"C_Login * typed {WRONG}")
    async with make_personal(presence=Presence.PAD) as pool:
        for reason in ("PIN_INCORRECT", "PIN_INCORRECT", "PIN_FINAL_TRY_GUARD"):
            with pytest.raises(PinRefused) as error:
                await at_pad(pool).__aenter__()
            assert error.value.reason == reason
            await waits(pool)
    assert count(disk) == (2, 0)
    assert len(shim.logins()) == 2


async def test_an_unlock_allows_one_try_at_the_pad(make_personal: MakePersonal, shim: Shim, disk: Path) -> None:
    """F16, F18: what an operator grants is used up by one try, as with a typed PIN; an answer without a meaning counts."""
    shim.script(PAD, f"C_Login * typed {WRONG}", "C_Login * after 0x5")
    async with make_personal(presence=Presence.PAD) as pool:
        for reason in ("PIN_UNCLEAR", "PIN_LOCKED"):
            with pytest.raises(PoolError) as error:
                await at_pad(pool).__aenter__()
            assert error.value.reason == reason
            await until(lambda: state(pool) in {"OPEN", "LOCKED"})
            if reason == "PIN_UNCLEAR":
                await waits(pool)
        assert count(disk) == (0, 2)
        await until(lambda: state(pool) == "LOCKED")
        pool.unlock("card", override=True)
        await waits(pool)
        shim.script(PAD, f"C_Login * typed {WRONG}")
        with pytest.raises(PoolError):
            await at_pad(pool).__aenter__()
        logins = len(shim.logins())
        with pytest.raises(PoolError) as guarded:
            await at_pad(pool).__aenter__()
        assert guarded.value.reason == "PIN_LOCKED"
        assert len(shim.logins()) == logins


async def test_a_pin_that_is_not_wanted(make_personal: MakePersonal, shim: Shim) -> None:
    """
    A PIN that would be shown for nothing is refused before anything happens. F20: so is nobody's PIN where one is wanted:
    PIN_INCORRECT, without a C_Login.
    """
    shim.script(PAD)
    async with make_personal(presence=Presence.PAD) as pool:
        with pytest.raises(BadRequest) as error:
            await pool.lease("card", caller="ann", pin=Pin(PIN), timeout_s=5).__aenter__()
        assert (error.value.reason, shim.logins()) == ("PIN_AT_PAD", [])
    async with make_personal() as pool:
        with pytest.raises(PinRefused) as missing:
            await at_pad(pool).__aenter__()
        assert (missing.value.reason, shim.logins()) == ("PIN_INCORRECT", [])


async def test_a_reader_without_a_pad(make_personal: MakePersonal, shim: Shim) -> None:
    """The configuration says pad and the driver does not: a person has to see to it, and nobody waits at it."""
    async with make_personal(presence=Presence.PAD, wait=False) as pool:
        await until(lambda: state(pool) == "LOCKED")
        assert "no pad" in view(pool).detail
        with pytest.raises(PoolError):
            await at_pad(pool).__aenter__()
    assert shim.logins() == []


async def test_a_touch_is_waited_for(make_personal: MakePersonal, shim: Shim) -> None:
    """F12: a signature that waits for a touch shows as WAITING, and LEASED again when it was touched, one by one."""
    async with make_personal(presence=Presence.TOUCH) as pool:
        async with pool.lease("card", caller="ann", pin=Pin(PIN), timeout_s=20) as lease:
            shim.script("C_Sign * hold 20")
            signing = asyncio.create_task(lease.sign(ECDSA, digests(2)))
            for number in range(2):
                await until(lambda: state(pool) == "WAITING")
                assert "touch" in view(pool).detail
                shim.script(f"C_Sign {shim.number('C_Sign') + 1} hold 20" if not number else "")  # touched
                await until(lambda: state(pool) == "LEASED")
            assert statuses(await signing) == {("SIGNED", ""): 2}
        await waits(pool)


async def test_a_touch_that_nobody_makes(make_personal: MakePersonal, shim: Shim) -> None:
    """F12: cancelled while it waits for a touch: the token is open again within 2.5 s, and waits for the next person."""
    async with make_personal(presence=Presence.TOUCH) as pool:
        async with pool.lease("card", caller="ann", pin=Pin(PIN), timeout_s=60) as lease:
            shim.script("C_Sign * hold 60")
            signing = asyncio.create_task(lease.sign(ECDSA, digests(1)))
            await until(lambda: state(pool) == "WAITING")
            signing.cancel()
        began = time.monotonic()
        shim.script("")
        await until(lambda: state(pool) == "OPEN")
        assert time.monotonic() - began < 2.5
        await waits(pool)


def test_presence_is_a_persons() -> None:
    """A service has nobody at the token."""
    with pytest.raises(ValueError, match="only a person's token"):
        TokenConfig("seal", MODULE, "card", presence=Presence.TOUCH)
