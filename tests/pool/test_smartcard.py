"""
True smartcards: the pool over OpenSC, pcscd and cards that are pulled, swapped, hang and count PINs (tests/card).

What a card was asked is the card's own word: its log and its counters.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from pool import Key, Outcome, PinRefused, Pool, Unavailable
from pool.opensc import configuration
from pool.tries import Tries
from tests.card import Card, Pcscd, transmit
from tests.card.client import SELECT, SHARING_VIOLATION, PcscError
from tests.card.pcscd import OPENSC
from tests.card.piv import PIN, PUK
from tests.pool.cards import BACK_S, LABEL, WRONG, at_work, card_token, insert, logged_in, pins, pull, tries
from tests.pool.persons import count, leased, refused, waits
from tests.pool.rig import ECDSA, check, digests, gone, pids, pool_over, state, statuses, until, view

SLOT = 0x9A
WRONG_VERIFY = bytes.fromhex("0020008008") + WRONG.encode() + b"\xff\xff"


@pytest.fixture(scope="module")
def readers() -> Iterator[Pcscd]:
    with Pcscd("desk", "rack") as started:
        yield started


@pytest.fixture
async def pcscd(readers: Pcscd) -> AsyncIterator[Pcscd]:
    """Two readers, empty before and after."""
    yield readers
    if not readers.pid:
        readers.start()
    for name in ("desk", "rack"):
        if readers[name].card is not None:
            await pull(readers, name)


class Held:
    """A card with one key; `key` is the pool's name for it."""

    def __init__(self, kind: str = "p256", slot: int = SLOT, **more: Any) -> None:
        self.card = Card(**more)
        self.spki = self.card.add(slot, kind, LABEL)
        self.key = Key(self.spki, b"\x01").ref

    def checked(self, outcomes: list[Outcome], start: int = 0) -> list[Outcome]:
        """The same; each signature verifies, and the card has made no other."""
        for item, outcome in zip(digests(len(outcomes), start, ECDSA), outcomes, strict=True):
            if outcome.signature:
                check(ECDSA, self.spki, item, outcome.signature)
        return outcomes

    @property
    def signed(self) -> list[bytes]:
        return [event.data for event in self.card.seen("sign") if event.status == 0x9000]


@pytest.fixture
def held() -> Held:
    return Held()


@contextlib.asynccontextmanager
async def service(pcscd: Pcscd, tmp_path: Path, **more: Any) -> AsyncIterator[Pool]:
    async with pool_over(card_token(pcscd, **more), state=tmp_path / "state") as pool:
        yield pool


@contextlib.asynccontextmanager
async def personal(pcscd: Pcscd, tmp_path: Path, **more: Any) -> AsyncIterator[Pool]:
    async with pool_over(card_token(pcscd, personal=True, **more), state=tmp_path / "state") as pool:
        yield pool


# ---- pulled, swapped, moved


async def test_a_service_s_card_dies_in_the_middle_of_a_batch(pcscd: Pcscd, held: Held, tmp_path: Path) -> None:
    """
    F1: the token is pulled in the middle of a batch: what came before is signed, the one under C_Sign INDETERMINATE, the
    rest not attempted; TOKEN_REMOVED.

    F2: it is put back: it signs again within 3 s, after one PIN, with the same key.
    """
    await insert(pcscd, held.card)
    async with service(pcscd, tmp_path) as pool:
        held.card.dies_in = 5
        outcomes = held.checked(await pool.sign(held.key, ECDSA, digests(20, 0, ECDSA), timeout_s=10))
        assert [outcome.status.value for outcome in outcomes] == ["SIGNED"] * 4 + ["INDETERMINATE"] + (
            ["NOT_ATTEMPTED"] * 15
        )
        assert outcomes[4].reason == "TOKEN_REMOVED"
        assert {outcome.reason for outcome in outcomes[5:]} <= {"TOKEN_REMOVED", "TOKEN_ABSENT"}
        assert held.signed == digests(4, 0, ECDSA)
        await until(lambda: state(pool) == "ABSENT")
        assert "no card is in reader 'desk 00 00'" in view(pool).detail
        with pytest.raises(Unavailable, match="TOKEN_ABSENT"):
            await pool.sign(held.key, ECDSA, digests(1, 0, ECDSA))
        await pull(pcscd)
        assert pins(held.card) == 1
        pcscd["desk"].insert(held.card)
        began = time.monotonic()
        await until(lambda: state(pool) == "READY")
        assert statuses(held.checked(await pool.sign(held.key, ECDSA, digests(1, 50, ECDSA)), 50)) == {
            ("SIGNED", ""): 1
        }
        assert time.monotonic() - began <= BACK_S
        assert pins(held.card) == 2


async def test_a_person_s_card_is_pulled_from_her_lease(pcscd: Pcscd, held: Held, tmp_path: Path) -> None:
    """
    F1, F2: the item under C_Sign is INDETERMINATE/TOKEN_REMOVED, the rest not attempted, the lease over; put back, the card
    waits for its PIN within 3 s, is sent none by itself, and signs in the next lease.
    """
    await insert(pcscd, held.card)
    async with personal(pcscd, tmp_path) as pool:
        async with leased(pool, PIN) as lease:
            held.card.hang_s = 30.0
            signing = asyncio.create_task(lease.sign(ECDSA, digests(3, 0, ECDSA)))
            await at_work(held.card)
            await pull(pcscd)
            outcomes = await signing
            assert [outcome.status.value for outcome in outcomes] == ["INDETERMINATE", "NOT_ATTEMPTED", "NOT_ATTEMPTED"]
            assert outcomes[0].reason == "TOKEN_REMOVED"
            assert lease.over == "TOKEN_REMOVED"
        await until(lambda: state(pool) == "ABSENT")
        began = time.monotonic()
        pcscd["desk"].insert(held.card)
        await waits(pool)
        assert time.monotonic() - began <= BACK_S
        assert pins(held.card) == 1
        async with leased(pool, PIN) as lease:
            assert statuses(held.checked(await lease.sign(ECDSA, digests(3, 0, ECDSA)))) == {("SIGNED", ""): 3}


@pytest.mark.parametrize("same_serial", [False, True])
async def test_another_card_in_the_same_reader(pcscd: Pcscd, held: Held, tmp_path: Path, same_serial: bool) -> None:
    """F3: another card in the same place: CHANGED, TOKEN_CHANGED, and no PIN is sent to it; the right one is welcome back."""
    other = Held(guid=held.card.guid if same_serial else None)
    await insert(pcscd, held.card)
    configured = card_token(pcscd)
    async with pool_over(configured, state=tmp_path / "state", keys=[Key(held.spki, b"\x01")]) as pool:
        await pull(pcscd)
        await insert(pcscd, other.card)
        await until(lambda: state(pool) == "CHANGED")
        with pytest.raises(Unavailable, match="TOKEN_CHANGED"):
            await pool.sign(held.key, ECDSA, digests(1, 0, ECDSA))
        if not same_serial:
            await pull(pcscd)
            await until(lambda: state(pool) == "ABSENT")
            await insert(pcscd, held.card)
            await until(lambda: state(pool) == "READY")
            outcomes = held.checked(await pool.sign(held.key, ECDSA, digests(2, 0, ECDSA)))
            assert statuses(outcomes) == {("SIGNED", ""): 2}
    assert pins(other.card) == 0
    assert tries(other.card) == 3
    assert other.signed == []


@pytest.mark.parametrize("is_fast", [False, True])
async def test_a_card_that_is_swapped_while_its_lane_waits(
    pcscd: Pcscd, held: Held, tmp_path: Path, is_fast: bool
) -> None:
    """
    F3: a person comes with her PIN at the very moment in which another card sits in her reader: it does not hear the PIN,
    also where the swap was so fast that pcscd has not seen it. (pcscd may then call the reader empty until the next real
    insertion: no hand is that fast.)
    """
    other = Held()
    await insert(pcscd, held.card)
    async with personal(pcscd, tmp_path) as pool:
        if is_fast:
            pcscd["desk"].remove()
        else:
            await pull(pcscd)
        pcscd["desk"].insert(other.card)
        error = await refused(pool, PIN)
        assert error.reason in {"TOKEN_CHANGED", "TOKEN_ABSENT", "TOKEN_REMOVED", "PIN_UNCLEAR"}
        if is_fast:
            await pull(pcscd)
            await insert(pcscd, other.card)
        await until(lambda: state(pool) == "CHANGED", 10)
    assert pins(other.card) == 0
    assert tries(other.card) == 3
    if not is_fast:
        assert count(tmp_path / "state") == (0, 0), "a try that was not made"


@pytest.mark.parametrize("whose", ["personal", "service"])
async def test_a_card_that_is_swapped_between_the_look_and_the_pin(
    pcscd: Pcscd, held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """
    F3: the card was recognised, and another one is in the reader when the PIN comes: CHANGED, and it hears no PIN. (OpenSC
    alone would see to that; test_swapped.py has a module that would send it.)
    """
    other, real = Held(), Tries.begin
    loop = asyncio.get_running_loop()

    async def swap() -> None:
        await pull(pcscd)
        await insert(pcscd, other.card)

    def begin(self: Tries, *args: Any) -> None:  # in a thread of its own
        asyncio.run_coroutine_threadsafe(swap(), loop).result(20)
        real(self, *args)

    await insert(pcscd, held.card)
    if whose == "personal":
        async with personal(pcscd, tmp_path) as pool:
            monkeypatch.setattr(Tries, "begin", begin)
            assert (await refused(pool, PIN)).reason == "TOKEN_REMOVED"
            await until(lambda: state(pool) == "CHANGED", 10)
    else:
        monkeypatch.setattr(Tries, "begin", begin)
        async with pool_over(card_token(pcscd), state=tmp_path / "state", wait=False) as pool:
            await until(lambda: state(pool) == "CHANGED", 15)
    assert (pins(held.card), pins(other.card), tries(other.card)) == (0, 0, 3)


async def test_a_card_of_another_label_in_the_reader(pcscd: Pcscd, held: Held, tmp_path: Path) -> None:
    """F3: a card that is somebody else's altogether is CHANGED, and the operator reads whose it is."""
    held.card.add(SLOT, "p256", "Somebody Else")
    await insert(pcscd, held.card)
    async with service(pcscd, tmp_path) as pool:
        assert state(pool) == "CHANGED"
        assert view(pool).detail == "the card in reader 'desk 00 00' is labelled 'Somebody Else'"
    assert pins(held.card) == 0


async def test_a_token_is_known_by_what_it_is_and_not_by_its_slot(pcscd: Pcscd, held: Held, tmp_path: Path) -> None:
    """F4: a card that is put into another reader has another slot: a token without a reader's name is found wherever it is."""
    other = Held()
    await insert(pcscd, other.card, "desk")
    await insert(pcscd, held.card, "rack")
    async with service(pcscd, tmp_path, serial=held.card.serial, reader=None) as pool:
        assert statuses(await pool.sign(held.key, ECDSA, digests(1, 0, ECDSA))) == {("SIGNED", ""): 1}
        for name in ("desk", "rack"):
            await pull(pcscd, name)
        await until(lambda: state(pool) in {"CHANGED", "ABSENT"})
        await insert(pcscd, held.card, "desk")
        await until(lambda: state(pool) == "READY", 8)
        assert statuses(held.checked(await pool.sign(held.key, ECDSA, digests(1, 5, ECDSA)), 5)) == {("SIGNED", ""): 1}
    assert pins(other.card) == 0


async def test_a_card_that_went_and_came_between_two_looks(pcscd: Pcscd, held: Held, tmp_path: Path) -> None:
    """F2: faster than pcscd looks, it has no power and answers nobody: it is reset, and signs again without anybody's doing."""
    await insert(pcscd, held.card)
    async with service(pcscd, tmp_path) as pool:
        for number in range(4):
            pcscd["desk"].insert(pcscd["desk"].remove())

            async def signs(start: int) -> bool:
                try:
                    outcomes = await pool.sign(held.key, ECDSA, digests(1, start, ECDSA), timeout_s=2)
                except Unavailable:
                    return False
                return statuses(outcomes) == {("SIGNED", ""): 1}

            end = time.monotonic() + 15
            while not await signs(number):
                assert time.monotonic() < end, view(pool).detail
                await asyncio.sleep(0.1)
    assert tries(held.card) == 3


async def test_a_reader_that_is_not_there(pcscd: Pcscd, held: Held, tmp_path: Path) -> None:
    """F4: the reader that a token names is not there: TOKEN_ABSENT, and the operator reads which readers there are."""
    await insert(pcscd, held.card)
    configured = card_token(pcscd, reader="desk 07 00")
    async with pool_over(configured, state=tmp_path / "state", keys=[Key(held.spki, b"\x01")]) as pool:
        assert state(pool) == "ABSENT"
        assert "PC/SC has no reader 'desk 07 00'; it has 'desk 00 00'" in view(pool).detail.replace(
            "'desk 00 01', ", ""
        )
        with pytest.raises(Unavailable, match="TOKEN_ABSENT"):
            await pool.sign(held.key, ECDSA, digests(1, 0, ECDSA))
    assert pins(held.card) == 0


@pytest.mark.parametrize("whose", ["service", "person"])
async def test_a_card_forgets_its_login(pcscd: Pcscd, held: Held, tmp_path: Path, whose: str) -> None:
    """
    F5: C_Sign says that the session is gone (a card that was reset): it is rebuilt where the PIN is the service's own;
    a person gives hers again (LOGIN_REQUIRED), and OpenSC has kept none to send by itself. Nothing is signed twice.
    """
    await insert(pcscd, held.card)
    batch = digests(6, 0, ECDSA)
    if whose == "service":
        async with service(pcscd, tmp_path) as pool:
            assert statuses(await pool.sign(held.key, ECDSA, digests(2, 20, ECDSA))) == {("SIGNED", ""): 2}
            held.card.reset()
            outcomes = held.checked(await pool.sign(held.key, ECDSA, batch))
            assert statuses(outcomes) == {("SIGNED", ""): 6}
            assert pins(held.card) == 2
    else:
        async with personal(pcscd, tmp_path) as pool:
            async with leased(pool, PIN) as lease:
                held.card.reset()
                outcomes = await lease.sign(ECDSA, batch)
                assert statuses(outcomes) == {("NOT_ATTEMPTED", "LOGIN_REQUIRED"): 6}
            await waits(pool)
            assert pins(held.card) == 1
    assert len(held.signed) == len(set(held.signed))


# ---- PINs


async def test_wrong_pins_and_the_card_s_own_counter(pcscd: Pcscd, held: Held, tmp_path: Path) -> None:
    """
    F15: a wrong PIN: PIN_INCORRECT, and one try is gone.

    F16: a second on a card with three tries: PIN_FINAL_TRY_GUARD before the third, which never reaches the card; with her
    express word the right one does.
    """
    await insert(pcscd, held.card)
    async with personal(pcscd, tmp_path) as pool:
        for left in (2, 1):
            error = await refused(pool, WRONG)
            assert (type(error), error.reason) == (PinRefused, "PIN_INCORRECT")
            assert tries(held.card) == left
            await waits(pool)
        for pin in (WRONG, PIN, WRONG):
            error = await refused(pool, pin)
            assert (error.reason, error.tries_left) == ("PIN_FINAL_TRY_GUARD", 1)
            await waits(pool)
        assert (pins(held.card), tries(held.card)) == (2, 1)
        async with leased(pool, PIN, override=True) as lease:
            assert statuses(held.checked(await lease.sign(ECDSA, digests(2, 0, ECDSA)))) == {("SIGNED", ""): 2}
        assert tries(held.card) == 3


async def test_a_card_that_others_have_locked_and_its_puk(pcscd: Pcscd, held: Held, tmp_path: Path) -> None:
    """
    F17: the PIN is locked: PIN_LOCKED, no PIN is sent any more; the operator reads the command that unblocks the card with
    its PUK, runs it, unlocks the token, and the new PIN signs.
    """
    await insert(pcscd, held.card)
    for _ in range(3):
        transmit(pcscd.environment, pcscd["desk"].name, SELECT, WRONG_VERIFY)
    async with personal(pcscd, tmp_path) as pool:
        await until(lambda: state(pool) == "LOCKED")
        assert (await refused(pool, PIN)).reason == "PIN_LOCKED"
        assert (pins(held.card), tries(held.card)) == (3, 0)
        command = "pkcs15-tool --reader 'desk 00 00' --unblock-pin"
        assert f"`{command}` asks for its PUK" in view(pool).detail
        await until(lambda: pids(pool) == [0])
        words = ["--reader", pcscd["desk"].name, "--unblock-pin", "--puk", PUK, "--new-pin", "24680246"]
        done = await asyncio.to_thread(
            subprocess.run,
            ["pkcs15-tool", *words],
            env=os.environ | pcscd.environment,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        pool.unlock("card")
        await waits(pool)
        async with leased(pool, "24680246") as lease:
            assert statuses(held.checked(await lease.sign(ECDSA, digests(1, 0, ECDSA)))) == {("SIGNED", ""): 1}
        assert tries(held.card) == 3


async def test_a_service_s_pin_that_was_changed_on_the_card(pcscd: Pcscd, tmp_path: Path) -> None:
    """F21: a stale service PIN costs one try, and none after a restart; the token waits for a person."""
    held = Held(pin="654321")
    await insert(pcscd, held.card)
    for _ in range(3):
        async with service(pcscd, tmp_path) as pool:
            assert state(pool) == "LOCKED"
            with pytest.raises(Unavailable, match="PIN_LOCKED"):
                await pool.sign(held.key, ECDSA, digests(1, 0, ECDSA))
        assert (pins(held.card), tries(held.card)) == (1, 2)


async def test_two_people_and_one_card(pcscd: Pcscd, held: Held, tmp_path: Path) -> None:
    """F20: while A is logged in, B waits her turn in vain (TOKEN_BUSY) and no PIN of hers is sent; then it is told as wrong."""
    await insert(pcscd, held.card)
    async with personal(pcscd, tmp_path) as pool:
        async with leased(pool, PIN, caller="ann") as lease:
            assert (await refused(pool, WRONG, caller="bob", timeout_s=0.5)).reason == "TOKEN_BUSY"
            assert (await refused(pool, PIN, caller="bob", timeout_s=0.5)).reason == "TOKEN_BUSY"
            assert statuses(await lease.sign(ECDSA, digests(2, 0, ECDSA))) == {("SIGNED", ""): 2}
            assert pins(held.card) == 1
        await waits(pool)
        assert (await refused(pool, WRONG, caller="bob")).reason == "PIN_INCORRECT"
        assert (pins(held.card), tries(held.card)) == (2, 2)


async def test_a_pin_that_hangs_is_sent_once(pcscd: Pcscd, held: Held, tmp_path: Path) -> None:
    """
    F12: the card hangs over a PIN: who waits may go at any time, the lane is ended within two seconds, the try counts, and
    no second PIN is sent.
    """
    await insert(pcscd, held.card)
    async with personal(pcscd, tmp_path) as pool:
        held.card.hang_s = 2.5

        async def come() -> None:
            async with leased(pool, PIN):
                pytest.fail("the lease was given")

        coming = asyncio.create_task(come())
        await at_work(held.card)
        assert state(pool) == "LEASED"
        (pid,) = pids(pool)
        began = time.monotonic()
        coming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await coming
        await until(lambda: gone(pid))
        assert time.monotonic() - began < 2.0
        assert count(tmp_path / "state") == (0, 1), "the try counts as spent until its answer is known"
        await waits(pool)
        assert pins(held.card) == 1


async def test_a_card_that_answers_errors(pcscd: Pcscd, held: Held, tmp_path: Path) -> None:
    """A signature that the card answers with an error is INDETERMINATE, and OpenSC sends no PIN again by itself."""
    await insert(pcscd, held.card)
    async with personal(pcscd, tmp_path) as pool, leased(pool, PIN) as lease:
        held.card.words = [0x6F00] * 3
        outcomes = await lease.sign(ECDSA, digests(1, 0, ECDSA))
        assert (outcomes[0].status.value, outcomes[0].reason) == ("INDETERMINATE", "TOKEN_FAULT")
        assert pins(held.card) == 1


async def test_a_key_that_wants_its_pin_each_time(pcscd: Pcscd, tmp_path: Path) -> None:
    """A PIV card's signature key (9C): one login of the lease, and one before each signature; the card counts them."""
    held = Held(slot=0x9C)
    await insert(pcscd, held.card)
    async with personal(pcscd, tmp_path) as pool:
        async with leased(pool, PIN) as lease:
            outcomes = held.checked(await lease.sign(ECDSA, digests(3, 0, ECDSA)))
            assert statuses(outcomes) == {("SIGNED", ""): 3}
        assert [event.what for event in held.card.events if event.what != "ask"] == ["verify"] + ["verify", "sign"] * 3
        await waits(pool)
        assert count(tmp_path / "state") == (0, 0)


# ---- what a lease leaves


@pytest.mark.parametrize("end", ["release", "expiry", "caller gone", "lane killed", "card pulled", "module hangs"])
async def test_nobody_finds_a_card_logged_in_after_a_lease(pcscd: Pcscd, held: Held, tmp_path: Path, end: str) -> None:
    """Row 2.6: after every way of ending a lease another process's empty VERIFY is refused, before the card waits anew."""
    await insert(pcscd, held.card)
    async with personal(pcscd, tmp_path) as pool:

        async def use() -> None:
            async with leased(pool, PIN, timeout_s=2.0 if end == "expiry" else 10.0) as lease:
                await lease.sign(ECDSA, digests(1, 0, ECDSA))
                assert held.card.is_verified
                if end == "lane killed":
                    os.kill(pids(pool)[0], signal.SIGKILL)
                if end == "card pulled":
                    await pull(pcscd)
                    await insert(pcscd, held.card)
                if end == "module hangs":
                    held.card.hang_s = 2.5
                    await lease.sign(ECDSA, digests(1, 0, ECDSA), timeout_s=0.5)
                if end in {"expiry", "lane killed", "card pulled"}:
                    await until(lambda: bool(lease.over))
                if end == "caller gone":
                    await asyncio.sleep(60)

        using = asyncio.create_task(use())
        if end == "caller gone":
            await until(lambda: held.card.is_verified)
            using.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await using
        await until(lambda: state(pool) != "LEASED", 10)
        assert not held.card.is_verified
        with contextlib.suppress(PcscError):  # the lane that waits for the next person has the card to itself
            assert not await logged_in(pcscd, pcscd["desk"])
        assert pins(held.card) == 1
    assert not await logged_in(pcscd, pcscd["desk"])


_DAEMON = """
import asyncio, sys
from pathlib import Path
from pool import Pin, Pool, TokenConfig

async def main():
    module, label, reader, socket, state = sys.argv[1:]
    config = TokenConfig(
        "card", Path(module), label, reader=reader, personal=True, environment={"PCSCLITE_CSOCK_NAME": socket}
    )
    async with Pool([config], state=Path(state)) as pool:
        await pool.ready()
        async with pool.lease("card", caller="ann", pin=Pin(sys.stdin.readline().strip()), timeout_s=60):
            print("leased", flush=True)
            await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_what_a_daemon_that_was_killed_leaves(pcscd: Pcscd, held: Held, tmp_path: Path) -> None:
    """
    Row 2.6: a daemon is killed in the middle of a lease: its lane dies with it, and another process's empty VERIFY is
    refused, also after the next start, which sends no PIN.
    """
    await insert(pcscd, held.card)
    words = [OPENSC, LABEL, pcscd["desk"].name, pcscd.environment["PCSCLITE_CSOCK_NAME"], tmp_path / "state"]
    with subprocess.Popen(  # noqa: ASYNC220 -- it is spoken to line by line
        [sys.executable, "-c", _DAEMON, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as daemon:
        assert daemon.stdin is not None
        assert daemon.stdout is not None
        daemon.stdin.write(PIN + "\n")
        daemon.stdin.flush()
        assert await asyncio.to_thread(daemon.stdout.readline) == "leased\n"
        daemon.kill()
    await until(lambda: not held.card.is_verified)
    assert not await logged_in(pcscd, pcscd["desk"])
    async with personal(pcscd, tmp_path) as pool:
        await waits(pool)
        assert not held.card.is_verified
    assert not await logged_in(pcscd, pcscd["desk"])
    assert pins(held.card) == 1


async def test_a_card_that_others_left_logged_in(pcscd: Pcscd, held: Held, tmp_path: Path) -> None:
    """Row 2.6: what another program has left of a login is gone before a token is opened."""
    await insert(pcscd, held.card)
    verify = bytes.fromhex("0020008008") + PIN.encode() + b"\xff\xff"
    await asyncio.to_thread(transmit, pcscd.environment, pcscd["desk"].name, SELECT, verify)
    assert await logged_in(pcscd, pcscd["desk"])
    async with personal(pcscd, tmp_path):
        assert not held.card.is_verified
        assert pins(held.card) == 1
    assert not await logged_in(pcscd, pcscd["desk"])


# ---- pcscd, and other cards


async def test_pcscd_goes_and_comes_back(pcscd: Pcscd, held: Held, tmp_path: Path) -> None:
    """F49: pcscd is killed: UNAVAILABLE/PCSC_DOWN; started again, the card signs within 5 s, by a new lane."""
    await insert(pcscd, held.card)
    async with service(pcscd, tmp_path) as pool:
        (pid,) = pids(pool)
        pcscd.kill(signal.SIGTERM)
        await until(lambda: state(pool) == "UNREACHABLE")
        assert "pcscd does not answer" in view(pool).detail
        with pytest.raises(Unavailable, match="PCSC_DOWN") as error:
            await pool.sign(held.key, ECDSA, digests(1, 0, ECDSA))
        assert error.value.retry_s
        began = time.monotonic()
        pcscd.start()
        await until(lambda: state(pool) == "READY")
        assert statuses(held.checked(await pool.sign(held.key, ECDSA, digests(2, 0, ECDSA)))) == {("SIGNED", ""): 2}
        assert time.monotonic() - began <= 5.0
        assert pids(pool) != [pid]
        assert (pins(held.card), tries(held.card)) == (2, 3)


async def test_pcscd_is_killed_under_a_signature(pcscd: Pcscd, held: Held, tmp_path: Path) -> None:
    """F49: of what was under way, what was signed stays, the one under C_Sign is INDETERMINATE/PCSC_DOWN, the rest not begun."""
    await insert(pcscd, held.card)
    async with service(pcscd, tmp_path) as pool:
        held.card.latency_s = 0.1
        signing = asyncio.create_task(pool.sign(held.key, ECDSA, digests(30, 0, ECDSA), timeout_s=5))
        await until(lambda: len(held.signed) >= 3)
        pcscd.kill()
        outcomes = held.checked(await signing)
        told = statuses(outcomes)
        assert told["INDETERMINATE", "PCSC_DOWN"] <= 1
        assert told["SIGNED", ""] >= 2  # the last of the three may be the one that nobody was told of
        assert told["SIGNED", ""] + told["INDETERMINATE", "PCSC_DOWN"] + told["NOT_ATTEMPTED", "PCSC_DOWN"] == 30
        assert len(held.signed) <= told["SIGNED", ""] + 1
        await until(lambda: state(pool) == "UNREACHABLE")


async def test_cards_side_by_side_do_not_wait_for_each_other(pcscd: Pcscd, held: Held, tmp_path: Path) -> None:
    """
    A card at work for 3 s in the other reader does not hold up a start, and both sign at their own speed: each lane sees
    its reader alone. No other program can use a card while a lane has it.
    """
    other = Held()
    await insert(pcscd, held.card)
    await insert(pcscd, other.card, "rack")
    rack = card_token(pcscd, "rack", name="rack")
    async with pool_over(rack, state=tmp_path / "rack") as slow:
        other.card.hang_s = 3.0
        signing = asyncio.create_task(slow.sign(other.key, ECDSA, digests(1, 0, ECDSA)))
        await at_work(other.card)
        began = time.monotonic()
        async with service(pcscd, tmp_path) as pool:
            assert state(pool) == "READY"
            assert statuses(held.checked(await pool.sign(held.key, ECDSA, digests(3, 0, ECDSA)))) == {("SIGNED", ""): 3}
            assert time.monotonic() - began < 3.0
            assert not signing.done()
            with pytest.raises(PcscError) as error:
                await logged_in(pcscd, pcscd["desk"])
            assert error.value.code == SHARING_VIOLATION
        assert statuses(await signing) == {("SIGNED", ""): 1}


def test_the_configuration_that_opensc_gets() -> None:
    """Every reader but ours is ignored; not one whose name is part of ours, nor one that cannot be written."""
    text = configuration("Reader 1 00 00", ["Reader 1 00 00", "Reader 1", "Other 00 00", 'Odd "one"', "Third 01 00"])
    assert 'ignored_readers = "Other 00 00", "Third 01 00";' in text
    assert "use_pin_caching = false;" in text
    assert "disconnect_action = reset;" in text
    assert "connect_exclusive = true;" in text
    assert "ignored_readers" not in configuration("Reader 1 00 00", ["Reader 1 00 00"])
