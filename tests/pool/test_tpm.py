"""The pool over a TPM: it locks for real, warns of nothing, keeps its count, and is lost so that only a signature shows it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pool import Pin, Pool, PoolError, TryRefused, Unavailable
from tests.pool.persons import Resets, waits
from tests.pool.rig import ECDSA, RSA, check, digests, open_tries, pool_over, state, statuses, until, view
from tests.pool.stacks import signs_all, token
from tests.shim import Shim
from tests.tpm import TRIES, Tpm

WRONG = "9999"
REFUSED = r"2 of 3 tries may be spent.*--clear-lockout.*override"


@pytest.fixture(scope="module")
def chip() -> Iterator[Tpm]:
    with Tpm() as made:
        made.token("card")
        made.keys(["RSA-2048", "P-256"])
        yield made


@pytest.fixture
def card(chip: Tpm) -> Tpm:
    """The token with all its tries."""
    chip.unblock()
    assert chip.failed_tries() == 0
    return chip


@pytest.fixture
def shim(card: Tpm, tmp_path: Path) -> Shim:
    return Shim(tmp_path / "shim", str(card.module))


async def test_it_signs_in_every_mechanism(card: Tpm, tmp_path: Path) -> None:
    """RSA-2048 in PKCS#1 v1.5 and PSS, P-256, with three hashes each, every signature verified by `cryptography`."""
    async with pool_over(token(card), state=tmp_path) as pool:
        assert len(await signs_all(pool, card)) == 9
    assert card.failed_tries() == 0


async def test_a_stale_service_pin_costs_one_try(card: Tpm, shim: Shim, tmp_path: Path) -> None:
    """F21: a service PIN that is stale: one C_Login, one try by the TPM's own count, LOCKED, over five starts of the pool."""
    for _ in range(5):
        async with Pool([token(card, WRONG, shim=shim)], state=tmp_path) as pool:
            await pool.ready()
            assert state(pool) == "LOCKED"
            with pytest.raises(Unavailable, match="PIN_LOCKED"):
                await pool.sign(view(pool).keys[0], RSA, digests(1))
    assert (len(shim.logins()), card.failed_tries()) == (1, 1)


async def test_the_last_try_is_a_person_s(card: Tpm, shim: Shim, tmp_path: Path) -> None:
    """
    F16: two wrong PINs of three, of which the token says nothing: our count refuses an unlock until a person overrides.
    F17: the override's wrong PIN locks it for real: even the right one is CKR_PIN_LOCKED then, and no machine sends it
    again. Its owner clears it, a person unlocks it, and it signs.
    """
    pin = WRONG
    async with Pool([token(card, lambda: Pin(pin), shim=shim)], state=tmp_path) as pool:
        await pool.ready()
        pool.unlock("card")
        await pool.ready()
        with pytest.raises(TryRefused, match=r"2 of 3 tries may be spent.*override"):
            pool.unlock("card")
        assert (len(shim.logins()), card.failed_tries()) == (2, 2)
        pool.unlock("card", override=True)
        await pool.ready()
        assert (len(shim.logins()), card.failed_tries()) == (3, TRIES)
        pin = card.pin
        pool.unlock("card", override=True)
        await pool.ready()
        assert view(pool).detail == "the token refused the PIN (CKR_PIN_LOCKED): check its PIN file, then unlock it"
    async with Pool([token(card, shim=shim)], state=tmp_path) as pool:
        await pool.ready()
        assert (state(pool), len(shim.logins())) == ("LOCKED", 4)
        card.unblock()
        pool.unlock("card", override=True)
        await pool.ready()
        assert state(pool) == "READY"


async def test_a_right_pin_gives_no_tries_back(card: Tpm, shim: Shim, tmp_path: Path) -> None:
    """
    Row 2.5: a TPM keeps its count although the right PIN came: wrong, right, wrong, right leaves it one try, and then the
    machine sends nothing by itself, and an unlock is refused until a person, who has cleared the count, overrides.
    """
    for spent, unlocked in ((1, "READY"), (2, "LOCKED")):
        async with Pool([token(card, WRONG, shim=shim)], state=tmp_path) as pool:
            await pool.ready()
            assert (state(pool), card.failed_tries()) == ("LOCKED", spent)
        async with Pool([token(card, shim=shim)], state=tmp_path) as pool:
            await pool.ready()
            with contextlib.nullcontext() if spent == 1 else pytest.raises(TryRefused, match=REFUSED):
                pool.unlock("card")
            await pool.ready()
            assert (state(pool), card.failed_tries()) == (unlocked, spent)
    assert len(shim.logins()) == 3
    card.unblock()
    async with Pool([token(card, shim=shim)], state=tmp_path) as pool:
        await pool.ready()
        pool.unlock("card", override=True)
        await pool.ready()
        assert state(pool) == "READY"
    async with Pool([token(card, shim=shim)], state=tmp_path) as pool:
        await pool.ready()
        assert state(pool) == "READY", "and by itself, too"


async def test_a_person_is_told_without_a_number(card: Tpm, shim: Shim, tmp_path: Path, resets: Resets) -> None:
    """
    F15: PIN_INCORRECT, and not how many tries are left: the token says nothing. After a right PIN the first wrong one
    still counts (F16): two of three are spent, and PIN_FINAL_TRY_GUARD comes before a PIN is sent. F17: the override's
    wrong one locks it, and it is PIN_LOCKED for everybody.
    """
    one = token(card, None, shim=shim, personal=True)
    async with pool_over(one, state=tmp_path, wait=False, reset=resets) as pool:
        await waits(pool)
        key = pool.key("P-256")

        def lease(pin: str, **more: bool) -> Any:
            return pool.lease(key, caller="ann", pin=Pin(pin), timeout_s=10, **more)

        async def wrong(**more: bool) -> Any:
            with pytest.raises(PoolError) as error:
                async with lease(WRONG, **more):
                    pytest.fail("the lease was given")
            return error.value

        error = await wrong()
        assert (error.reason, error.tries_left) == ("PIN_INCORRECT", None)
        await waits(pool)
        async with lease(card.pin) as given:
            [outcome] = await given.sign(ECDSA, digests(1))
            check(ECDSA, card.made["P-256"][1], digests(1)[0], outcome.signature)
        await waits(pool)
        assert (await wrong()).reason == "PIN_INCORRECT"
        await waits(pool)
        assert (await wrong()).reason == "PIN_FINAL_TRY_GUARD"
        assert (len(shim.logins()), card.failed_tries()) == (3, 2)
        await waits(pool)
        assert (await wrong(override=True)).reason == "PIN_LOCKED"
        assert card.failed_tries() == TRIES
        await until(lambda: state(pool) == "LOCKED")
        assert (await wrong(override=True)).reason == "PIN_LOCKED"
    assert len(shim.logins()) == 4


async def test_it_is_lost_where_only_a_signature_shows_it(
    card: Tpm, shim: Shim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    F6: the TPM is gone, and its module lists the token as before. The item under C_Sign is INDETERMINATE, the others of
    its request are NOT_ATTEMPTED, the lane is replaced, in vain, until the breaker opens. When the TPM is back it signs
    again, without a restart; and no PIN was sent to what was gone.
    """
    monkeypatch.setattr("pool.keeper.TRIPPED_S", 0.2)
    monkeypatch.setattr("pool.attendant.PING_EVERY_S", 0.1)
    async with pool_over(token(card, shim=shim), state=tmp_path) as pool:
        key = pool.key("RSA-2048")
        assert (await pool.sign(key, RSA, digests(1)))[0].status == "SIGNED"
        card.kill()
        try:
            looks = shim.number("C_GetTokenInfo")
            await until(lambda: shim.number("C_GetTokenInfo") >= looks + 2)
            assert (state(pool), view(pool).lanes[0][0].problem) == ("READY", ""), (
                "nothing is wrong with it, by its word"
            )
            outcomes = await pool.sign(key, RSA, digests(3, 10), timeout_s=10)
            assert statuses(outcomes) == {("INDETERMINATE", "TOKEN_FAULT"): 1, ("NOT_ATTEMPTED", "TOKEN_FAULT"): 2}
            assert outcomes[0].detail == "CKR_GENERAL_ERROR"
            await until(lambda: state(pool) == "TRIPPED")
            with pytest.raises(Unavailable, match="TOKEN_FAULT"):
                await pool.sign(key, RSA, digests(1))
            assert len(shim.logins()) == 1
        finally:
            card.start()
        await until(lambda: state(pool) == "READY", 10)
        [outcome] = await pool.sign(key, RSA, digests(1, 20))
        check(RSA, card.made["RSA-2048"][1], digests(1, 20)[0], outcome.signature)
        # The TPM itself takes a loss of power for an attack, and counts one: no login of ours was refused.
        assert [call.rv for call in shim.log() if call.fn == "C_Login" and call.ev == "leave"] == [0, 0]
        assert open_tries(tmp_path) == 0


async def test_a_short_loss_is_mended_by_a_new_lane(card: Tpm, tmp_path: Path) -> None:
    """F6: gone and back between two signatures: the first costs its item and the lane, the next is signed, within 2 s."""
    async with pool_over(token(card), state=tmp_path) as pool:
        key = pool.key("RSA-2048")
        assert (await pool.sign(key, RSA, digests(1)))[0].status == "SIGNED"
        card.kill()
        card.start()
        [outcome] = await pool.sign(key, RSA, digests(1, 10))
        assert (outcome.status, outcome.detail) == ("INDETERMINATE", "CKR_GENERAL_ERROR")
        [outcome] = await pool.sign(key, RSA, digests(1, 11), timeout_s=2)
        assert outcome.status == "SIGNED"
        assert state(pool) == "READY"
        assert open_tries(tmp_path) == 0
