"""The pool over opencryptoki's soft token: it counts PINs truly and says so, and its module has a daemon of its own."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pool import Pin, PinRefused, Pool, TryRefused, Unavailable
from tests.opencryptoki import TRIES, Opencryptoki
from tests.pool.persons import Resets, leased, refused, waits
from tests.pool.rig import RSA, check, digests, open_tries, pids, pool_over, state, until, view
from tests.pool.stacks import signs_all, token
from tests.shim import Shim

WRONG = "99999999"


@pytest.fixture(scope="module")
def house() -> Iterator[Opencryptoki]:
    with Opencryptoki() as made:
        made.token("card")
        made.keys(["RSA-2048"])
        yield made


@pytest.fixture
def card(house: Opencryptoki) -> Opencryptoki:
    """The token with all its tries."""
    house.unblock()
    assert house.flags() == set()
    return house


@pytest.fixture
def shim(card: Opencryptoki, tmp_path: Path) -> Shim:
    return Shim(tmp_path / "shim", str(card.module))


async def test_it_signs_in_every_mechanism(card: Opencryptoki, tmp_path: Path) -> None:
    """RSA-2048, PKCS#1 v1.5 and PSS, with three hashes, over two lanes, each signature verified by `cryptography`."""
    async with pool_over(token(card, lanes=2), state=tmp_path) as pool:
        assert all(lane.direct for lane, _ in view(pool).lanes)
        assert len(await signs_all(pool, card)) == 6
    assert card.flags() == set()


async def test_two_houses_are_two_tokens(card: Opencryptoki, tmp_path: Path) -> None:
    """Two of them at once, in one pool: each key is signed with by its own token."""
    with Opencryptoki() as other:
        other.token("other")
        other.keys(["RSA-2048"])
        async with pool_over(token(card), token(other, name="other"), state=tmp_path) as pool:
            for stack, name in ((card, "card"), (other, "other")):
                (key,) = view(pool, name).keys
                [outcome] = await pool.sign(key, RSA, digests(1))
                assert outcome.token == name
                check(RSA, stack.made["RSA-2048"][1], digests(1)[0], outcome.signature)


async def test_a_stale_service_pin_costs_one_try(card: Opencryptoki, shim: Shim, tmp_path: Path) -> None:
    """
    F21: a service PIN that is stale: one C_Login, then LOCKED, over five starts of the pool, and requests are told
    PIN_LOCKED; the token's own word is COUNT_LOW and nothing more. A person's unlock with the right PIN brings it back,
    with all tries.
    """
    for _ in range(5):
        async with Pool([token(card, WRONG, shim=shim, lanes=2)], state=tmp_path) as pool:
            await pool.ready()
            assert state(pool) == "LOCKED"
            with pytest.raises(Unavailable, match="PIN_LOCKED"):
                await pool.sign(view(pool).keys[0], RSA, digests(1))
    assert len(shim.logins()) == 1
    assert card.flags() == {"count low"}
    async with Pool([token(card, shim=shim)], state=tmp_path) as pool:
        await pool.ready()
        pool.unlock("card")
        await pool.ready()
        assert state(pool) == "READY"
    assert card.flags() == set()


async def test_the_last_try_is_a_person_s(card: Opencryptoki, shim: Shim, tmp_path: Path) -> None:
    """
    F16: two wrong PINs of three: the token says FINAL_TRY, and an unlock is refused until a person overrides. F17: what
    the override spends locks it; the token says LOCKED, and no C_Login is sent any more, whoever overrides, over two
    starts. With a new PIN from its security officer the try that a person has allowed, and nobody could use, is sent.
    """
    pin = WRONG
    async with Pool([token(card, lambda: Pin(pin), shim=shim)], state=tmp_path) as pool:
        await pool.ready()
        pool.unlock("card")
        await pool.ready()
        assert (len(shim.logins()), card.flags()) == (2, {"final try"})
        with pytest.raises(TryRefused, match=r"2 of 3 tries may be spent.*override"):
            pool.unlock("card")
        assert (len(shim.logins()), card.flags()) == (2, {"final try"})
        pool.unlock("card", override=True)
        await pool.ready()
    assert (len(shim.logins()), card.flags()) == (3, {"locked"})
    for _ in range(2):
        async with Pool([token(card, lambda: Pin(pin), shim=shim)], state=tmp_path) as pool:
            await pool.ready()
            pool.unlock("card", override=True)
            await pool.ready()
            assert "the token says that its PIN is locked" in view(pool).detail
    assert len(shim.logins()) == 3
    pin = "87654321"
    card.unblock(pin)
    async with Pool([token(card, lambda: Pin(pin), shim=shim)], state=tmp_path) as pool:
        await pool.ready()
        assert state(pool) == "READY"
    assert len(shim.logins()) == 4
    card.unblock("12345678")


@pytest.mark.parametrize("spent", [1, 2])
async def test_its_flags_are_respected_where_our_count_knows_nothing(
    card: Opencryptoki, shim: Shim, tmp_path: Path, spent: int
) -> None:
    """
    F16: somebody else has spent tries, so that our count is empty: COUNT_LOW and FINAL_TRY each keep the machine from
    sending even the right PIN, and a person's unlock sends it.
    """
    for _ in range(spent):
        card.wrong_pin()
    async with Pool([token(card, shim=shim)], state=tmp_path) as pool:
        await pool.ready()
        assert state(pool) == "LOCKED"
        assert "fewer than 3 PIN tries left" in view(pool).detail
        assert shim.logins() == []
        pool.unlock("card")
        await pool.ready()
        assert state(pool) == "READY"
    assert card.flags() == set()


async def test_a_person_is_told_what_is_left(card: Opencryptoki, shim: Shim, tmp_path: Path, resets: Resets) -> None:
    """
    F15: PIN_INCORRECT with two tries left, then with one, as token and our count agree. F16: then
    PIN_FINAL_TRY_GUARD without a C_Login. F17: the override's wrong PIN locks it: PIN_LOCKED, to everybody after it.
    """
    one = token(card, None, shim=shim, personal=True)
    async with pool_over(one, state=tmp_path, wait=False, reset=resets) as pool:
        await waits(pool)
        for left in (2, 1):
            error = await refused(pool, WRONG)
            assert (type(error), error.reason, error.tries_left) == (PinRefused, "PIN_INCORRECT", left)
            await waits(pool)
        error = await refused(pool, card.pin)
        assert (error.reason, error.tries_left, len(shim.logins())) == ("PIN_FINAL_TRY_GUARD", 1, 2)
        await waits(pool)
        error = await refused(pool, WRONG, override=True)
        assert (error.reason, len(shim.logins())) == ("PIN_LOCKED", TRIES)
        await until(lambda: state(pool) == "LOCKED")
        error = await refused(pool, card.pin, override=True)
        assert (error.reason, len(shim.logins())) == ("PIN_LOCKED", TRIES)
    assert card.flags() == {"locked"}


async def test_a_person_s_right_pin_gives_all_tries_back(
    card: Opencryptoki, shim: Shim, tmp_path: Path, resets: Resets
) -> None:
    """F15: wrong, right, wrong, right: each time PIN_INCORRECT with two left; signed in between; never nearer the end."""
    one = token(card, None, shim=shim, personal=True)
    async with pool_over(one, state=tmp_path, wait=False, reset=resets) as pool:
        for _ in range(2):
            await waits(pool)
            error = await refused(pool, WRONG)
            assert (error.reason, error.tries_left) == ("PIN_INCORRECT", 2)
            await waits(pool)
            async with leased(pool, card.pin) as lease:
                [outcome] = await lease.sign(RSA, digests(1))
                assert outcome.status == "SIGNED"
    assert card.flags() == set()


async def test_its_daemon_is_killed(card: Opencryptoki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    F49: opencryptoki's own daemon, pkcsslotd, is killed: a lane that is up goes on; one that is lost then cannot come back (C_Initialize fails), no
    PIN is spent, and when the daemon runs again the lane signs, without a restart of ours.
    """
    monkeypatch.setattr("pool.keeper.TRIPPED_S", 0.2)
    async with pool_over(token(card), state=tmp_path) as pool:
        key = pool.key("RSA-2048")
        card.kill()
        try:
            assert (await pool.sign(key, RSA, digests(1)))[0].status == "SIGNED"
            os.kill(pids(pool)[0], signal.SIGKILL)
            await until(lambda: "CKR_FUNCTION_FAILED" in view(pool).lanes[0][0].problem)
            with pytest.raises(Unavailable, match="TOKEN_FAULT"):
                await until(lambda: state(pool) == "TRIPPED")
                await pool.sign(key, RSA, digests(1))
        finally:
            card.start()
        await until(lambda: state(pool) == "READY", 10)
        assert (await pool.sign(key, RSA, digests(1)))[0].status == "SIGNED"
        assert open_tries(tmp_path) == 0
    assert card.flags() == set()


def test_a_house_leaves_nothing() -> None:
    """The host's own opencryptoki is untouched, and no process of a house is left when it is closed."""

    def host() -> list[Path]:
        places = ("etc/opencryptoki/*", "var/lib/opencryptoki/**/*", "run/lock/opencryptoki/**/*", "run/pkcsslotd*")
        return sorted(path for place in places for path in Path("/").glob(place))

    before = host()
    with Opencryptoki() as house:
        house.token()
        members = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and _lives_in(entry, house)]
        assert len(members) == 2, "pkcsslotd, and the process that holds the house"
    assert not any(member.exists() for member in members)
    assert host() == before


def _lives_in(process: Path, house: Opencryptoki) -> bool:
    try:
        return (process / "ns" / "mnt").readlink() == Path(f"/proc/{house.pid}/ns/mnt").readlink()
    except (FileNotFoundError, PermissionError):  # it ended, or it is not ours to look at
        return False
