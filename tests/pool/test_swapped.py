"""
A card is changed for another one in the few milliseconds between the look at it and its PIN: no other card hears the PIN.

The shim's log says whose session each C_Login was in. The other token has the same PIN, and would take it.
"""

from pathlib import Path
from typing import Any

import pytest

from pool import Pin, PoolError, Unavailable
from pool.keeper import TokenKeeper
from pool.token import Event, Presence
from pool.tries import Tries
from tests.pool.conftest import MakePersonal
from tests.pool.persons import count, refused
from tests.pool.rig import ECDSA, config, digests, pool_over, state, statuses, until, view
from tests.shim import Shim
from tests.softhsm import PIN, Store

PAD = "C_GetTokenInfo * pad"
SWAP = [f"{function}@card * swap other" for function in ("C_OpenSession", "C_GetTokenInfo", "C_Login")]


@pytest.fixture
def two(people: Store) -> Store:
    """The card, and one that somebody puts in its place."""
    people.token("other")
    people.keys("other", ["P-256"])
    return people


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return tmp_path / "state"


def when_counted(monkeypatch: pytest.MonkeyPatch, shim: Shim) -> None:
    """Swap the cards when the try is written down: the card was looked at, and the PIN comes next."""
    real = Tries.begin

    def begin(self: Tries, *args: Any) -> None:
        shim.script(*SWAP)
        real(self, *args)

    monkeypatch.setattr(Tries, "begin", begin)


def heard(shim: Shim) -> list[str | None]:
    """The tokens of which a session was given a PIN, or asked for one."""
    return [call.token for call in shim.logins()]


async def test_a_person_s_card(
    make_personal: MakePersonal, two: Store, shim: Shim, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    F3: swapped between the look and her PIN: C_Login is called in the session that the look was made in, which ended with
    the card: TOKEN_REMOVED, the token ABSENT, and the other card hears nothing, then or later.
    """
    async with make_personal() as pool:
        when_counted(monkeypatch, shim)
        error = await refused(pool)
        assert (type(error), error.reason) == (Unavailable, "TOKEN_REMOVED")
        await until(lambda: state(pool) == "ABSENT")
        assert "no token answers to its label" in view(pool).detail
        assert heard(shim) == ["card"]
        assert count(disk) == (0, 1), "what a driver answers to a PIN is not proof that it was not sent"


async def test_a_service_s_card(two: Store, shim: Shim, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F3: swapped between the look and the PIN of a service, too: ABSENT, and the other card hears nothing."""
    when_counted(monkeypatch, shim)
    async with pool_over(config(two, shim=shim), state=disk, wait=False) as pool:
        await until(lambda: state(pool) == "ABSENT", 10)
        assert heard(shim) == ["card"]
        assert count(disk) == (0, 1)


async def test_at_the_pad(
    make_personal: MakePersonal, two: Store, shim: Shim, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F3: swapped before the reader asks for the PIN: what would be typed then is not for the other card."""
    shim.script(PAD, f"C_Login * typed {PIN}")
    async with make_personal(presence=Presence.PAD) as pool:
        real = TokenKeeper.on

        def on(self: TokenKeeper, event: Event, *args: Any) -> None:
            if event is Event.AWAIT:
                shim.script(PAD, f"C_Login * typed {PIN}", *SWAP)
            real(self, event, *args)

        monkeypatch.setattr(TokenKeeper, "on", on)
        with pytest.raises(PoolError) as error:
            await pool.lease("card", caller="ann", pin=None, timeout_s=10).__aenter__()
        assert error.value.reason == "TOKEN_REMOVED"
        await until(lambda: state(pool) == "ABSENT")
        assert heard(shim) == ["card"]


async def test_between_the_list_and_the_look(two: Store, shim: Shim, disk: Path) -> None:
    """F3: swapped when the token was found by its label, and its keys were not seen yet: ABSENT, and no PIN at all."""
    # The listing asks each of SoftHSM's three slots (one is its place for another token); then the session is opened.
    shim.script("C_OpenSession@card 1 swap other", "C_GetTokenInfo@card 4+ swap other")
    async with pool_over(config(two, shim=shim), state=disk, wait=False) as pool:
        await until(lambda: state(pool) == "ABSENT", 10)
        assert heard(shim) == []


async def test_a_pin_at_the_pad_is_for_the_session_of_the_look(make_personal: MakePersonal, shim: Shim) -> None:
    """The one login of a lease is in the session that the last look has opened, with a PIN and without."""
    shim.script(PAD, f"C_Login * typed {PIN}", "C_FindObjectsFinal * log")
    for presence, pin in ((Presence.PAD, None), (None, Pin(PIN))):
        async with make_personal(presence=presence) as pool:
            async with pool.lease("card", caller="ann", pin=pin, timeout_s=10) as lease:
                assert statuses(await lease.sign(ECDSA, digests(1))) == {("SIGNED", ""): 1}
            login = shim.logins()[-1]
            before = [call for call in shim.log() if call.pid == login.pid and call.t < login.t]
            searches = [call.session for call in before if call.fn == "C_FindObjectsFinal"]
            assert searches[-1] == login.session
