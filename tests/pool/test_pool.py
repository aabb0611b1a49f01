"""The pool over real SoftHSM tokens: signing, what it refuses, and the life of a token."""

import asyncio
import contextlib
import hashlib
import logging
import os
import signal
import statistics
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from pool import Algorithm, BadRequest, Busy, Hash, Key, Pin, PinFile, Pool, Status, TryRefused, Unavailable, WrongEvent
from pool.keeper import how_many
from pool.mechanism import EDDSA_MESSAGE_BYTES_MAX
from pool.public import algorithms
from pool.token import NO_KEY
from tests.conftest import Keys, MakePool
from tests.pool.rig import (
    ECDSA,
    EDDSA,
    PSS,
    RSA,
    audit,
    check,
    children,
    config,
    digests,
    gone,
    lanes_up,
    open_tries,
    pids,
    pool_over,
    state,
    statuses,
    until,
    view,
    warm,
)
from tests.shim import Shim
from tests.softhsm import KINDS, PIN, Store

CKR_PIN_INCORRECT = "0xA0"


def key_of(pair: tuple[bytes, bytes]) -> Key:
    return Key(pair[1], pair[0])


def card(store: Store, label: str = "card", kinds: tuple[str, ...] = ("P-256",)) -> Keys:
    """A token of a test's own."""
    store.token(label)
    return store.keys(label, kinds)


async def signs(pool: Pool, ref: str, algorithm: Algorithm = ECDSA, start: int = 0) -> bool:
    """Whether the pool signs one digest right now."""
    outcomes = await pool.sign(ref, algorithm, digests(1, start, algorithm), timeout_s=5)
    return outcomes[0].status is Status.SIGNED


# ---- signing


async def test_every_kind_of_key_signs_in_every_way(make_pool: MakePool, keys: Keys) -> None:
    """All key kinds and algorithms, several items each, verified by another library, in order."""
    async with make_pool() as pool:
        done = 0
        for kind in KINDS:
            spki = keys[kind][1]
            ref = pool.key(kind)
            assert ref == key_of(keys[kind]).ref
            for algorithm in algorithms(spki):
                items = digests(4, 0, algorithm) if algorithm.hash else [b"m", bytes(4096), b"x" * 333]
                outcomes = await pool.sign(ref, algorithm, items)
                for item, outcome in zip(items, outcomes, strict=True):
                    assert (outcome.status, outcome.reason, outcome.token) == (Status.SIGNED, "", "card")
                    check(algorithm, spki, item, outcome.signature)
                    done += 1
        assert done == 4 * (3 * 6 + 3 * 3) + 3


async def test_a_large_batch_comes_back_in_order(make_pool: MakePool, keys: Keys) -> None:
    """2 000 digests over two lanes: each answer is the signature of the digest in its place."""
    async with make_pool(lanes=2) as pool:
        items = digests(2_000, 0, ECDSA)
        outcomes = await pool.sign(pool.key("P-256"), ECDSA, items)
        assert statuses(outcomes) == {("SIGNED", ""): 2_000}
        for item, outcome in zip(items, outcomes, strict=True):
            check(ECDSA, keys["P-256"][1], item, outcome.signature)


async def test_a_short_request_does_not_wait_behind_bulk(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """
    Beside 600 digests of 2 ms on one lane, 20 short requests are each answered before two frames of bulk could have been
    signed; nothing of what was cut short is signed twice or lost.
    """
    spki, items, short = keys["P-256"][1], digests(600, 0, ECDSA), digests(20, 10_000, ECDSA)
    shim.script("C_Sign * delay 0.002")
    async with make_pool(shim=shim) as pool:
        ref = pool.key("P-256")
        bulk = asyncio.create_task(pool.sign(ref, ECDSA, items, caller="bulk", timeout_s=60))
        await until(lambda: shim.number("C_Sign") > 20)  # the lane is measured
        took, between = [], []
        for item in short:
            before, began = shim.number("C_Sign"), time.monotonic()
            [outcome] = await pool.sign(ref, ECDSA, [item], caller="person")
            took.append(time.monotonic() - began)
            between.append(shim.number("C_Sign") - before)
            check(ECDSA, spki, item, outcome.signature)
            await asyncio.sleep(0.01)  # past the pause between two cuts
        assert not bulk.done()
        outcomes = await bulk
        assert statistics.median(between) <= 4, between
        assert statistics.median(took) < 0.012, took
        assert audit(shim, spki, ECDSA, items, outcomes) == []
        assert statuses(outcomes) == {("SIGNED", ""): 600}


async def test_a_short_request_of_another_key_does_not_wait_behind_bulk(make_pool: MakePool, shim: Shim) -> None:
    """A thousand digests of one key on the only lane: single ones of another key are signed meanwhile, each in a moment."""
    shim.script("C_Sign * delay 0.002")
    async with make_pool(shim=shim) as pool:
        await warm(pool, pool.key("RSA-2048"), RSA)
        bulk = asyncio.create_task(
            pool.sign(pool.key("P-256"), ECDSA, digests(1_000, 0, ECDSA), caller="bulk", timeout_s=60)
        )
        await until(lambda: shim.number("C_Sign") > 100)
        for number in range(10):
            began = time.monotonic()
            [outcome] = await pool.sign(pool.key("RSA-2048"), RSA, digests(1, 5_000 + number), caller="person")
            assert outcome.status is Status.SIGNED
            assert time.monotonic() - began < 0.2
        assert not bulk.done()
        assert statuses(await bulk) == {("SIGNED", ""): 1_000}


async def test_messages_of_mixed_length_are_signed(make_pool: MakePool, keys: Keys) -> None:
    """A short Ed25519 message before many long ones: frames stay within a packet, all are signed."""
    async with make_pool() as pool:
        ref = pool.key("Ed25519")
        await warm(pool, ref, EDDSA)
        items = [b"m", *(index.to_bytes(2) * 2048 for index in range(300))]
        outcomes = await pool.sign(ref, EDDSA, items)
        for item, outcome in zip(items, outcomes, strict=True):
            check(EDDSA, keys["Ed25519"][1], item, outcome.signature)


async def test_many_requests_at_once(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """200 callers with a digest each: each gets its own signature, and the token signed 200 times."""
    async with make_pool(shim=shim, lanes=2) as pool:
        ref, items = pool.key("P-256"), digests(200, 0, ECDSA)
        answers = await asyncio.gather(*(pool.sign(ref, ECDSA, [item], caller=f"c{i}") for i, item in enumerate(items)))
        assert audit(shim, keys["P-256"][1], ECDSA, items, [outcome for (outcome,) in answers]) == []
        assert len(shim.signs()) == 200


async def test_the_same_digest_twice_is_signed_twice(make_pool: MakePool, keys: Keys) -> None:
    """Whether that is wanted is not the pool's question."""
    async with make_pool() as pool:
        item = digests(1)[0]
        outcomes = await pool.sign(pool.key("RSA-2048"), PSS, [item, item])
        assert outcomes[0].signature != outcomes[1].signature
        for outcome in outcomes:
            check(PSS, keys["RSA-2048"][1], item, outcome.signature)


# ---- what is refused before anything is attempted


async def test_bad_requests_are_told_at_once(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """Wrong length with its index, empty batch, unknown key, algorithm of another kind: nothing reaches the token."""
    async with make_pool(shim=shim) as pool:
        ec, ed = pool.key("P-256"), pool.key("Ed25519")
        good = digests(1)[0]
        cases = [
            (ec, ECDSA, [good, good, good[:-1], b""], "DIGEST_LENGTH", 2),
            (ec, Algorithm(ECDSA.scheme, Hash.SHA512), [good], "DIGEST_LENGTH", 0),
            (ed, EDDSA, [b"m", b""], "DIGEST_LENGTH", 1),
            (ed, EDDSA, [b"m", b"m", bytes(EDDSA_MESSAGE_BYTES_MAX + 1)], "DIGEST_LENGTH", 2),
            (ec, ECDSA, [], "BATCH_EMPTY", None),
            ("0" * 64, ECDSA, [good], "KEY_UNKNOWN", None),
            (ec, RSA, [good], "ALGORITHM_NOT_ALLOWED", None),
            (ec, EDDSA, [good], "ALGORITHM_NOT_ALLOWED", None),
            (ed, ECDSA, [good], "ALGORITHM_NOT_ALLOWED", None),
            (pool.key("RSA-2048"), ECDSA, [good], "ALGORITHM_NOT_ALLOWED", None),
        ]
        for ref, algorithm, items, reason, index in cases:
            with pytest.raises(BadRequest) as error:
                await pool.sign(ref, algorithm, items)
            assert (error.value.reason, error.value.index) == (reason, index)
        for call in (pool.drain, pool.resume, pool.unlock):
            with pytest.raises(BadRequest, match="TOKEN_UNKNOWN"):
                call("nobody")
        assert shim.signs() == []


async def test_a_full_line_says_when_to_come_back(make_pool: MakePool, shim: Shim) -> None:
    """Busy, nothing attempted, a time to wait; the request before it is not disturbed."""
    shim.script("C_Sign * delay 0.02")
    async with make_pool(shim=shim, limits={"backlog_items_max": 20, "caller_items_max": 10}) as pool:
        ref = pool.key("P-256")
        first = asyncio.create_task(pool.sign(ref, ECDSA, digests(10), caller="a"))
        await until(shim.signs)
        with pytest.raises(Busy) as error:
            await pool.sign(ref, ECDSA, digests(10, 100), caller="a")
        assert error.value.reason == "BACKLOG_FULL"
        assert 0 < error.value.retry_s <= 60
        with pytest.raises(BadRequest) as never:
            await pool.sign(ref, ECDSA, digests(11, 100), caller="b")
        assert never.value.reason == "BATCH_TOO_LARGE"
        assert statuses(await first) == {("SIGNED", ""): 10}
        assert len(shim.signs()) == 10


async def test_a_label_that_names_several_keys_is_refused(own_store: Store, make_pool: MakePool) -> None:
    """`key()` never picks one of two; by their references both can be used."""
    own_store.token("card")
    first, second = (own_store.keys("card", ["P-256"], ["twin"])["P-256"] for _ in range(2))
    async with make_pool(config(own_store)) as pool:
        for label, count in (("twin", 2), ("none", 0)):
            with pytest.raises(BadRequest, match=f"{count} keys are labelled '{label}'"):
                pool.key(label)
        for number, pair in enumerate((first, second)):
            (outcome,) = await pool.sign(key_of(pair).ref, ECDSA, digests(1, number))
            check(ECDSA, pair[1], digests(1, number)[0], outcome.signature)


async def test_two_tokens_of_one_label_need_their_serials(own_store: Store, tmp_path: Path, shim: Shim) -> None:
    """Neither is guessed at and no PIN is sent; by its serial each is itself."""
    made = []
    for _ in range(2):
        serial = own_store.token("twin")
        made.append((serial, key_of(own_store.keys("twin", ["P-256"])["P-256"]).ref))
    async with pool_over(config(own_store, "twin", shim=shim), state=tmp_path / "state", wait=False) as pool:
        lane, _ = view(pool, "twin").lanes[0]
        await until(lambda: lane.tally.losses >= 2)
        assert state(pool, "twin") == "OPEN"
        assert "2 tokens" in lane.problem
    assert shim.logins() == []
    configs = [config(own_store, "twin", name=serial, serial=serial) for serial, _ in made]
    async with pool_over(*configs, state=tmp_path / "state") as pool:
        for serial, ref in made:
            assert view(pool, serial).serial == serial
            (outcome,) = await pool.sign(ref, ECDSA, digests(1))
            assert (outcome.status, outcome.token) == (Status.SIGNED, serial)


async def test_two_tokens_with_one_name_are_refused(store: Store, tmp_path: Path) -> None:
    """A name is how an operator says which token is meant."""
    with pytest.raises(ValueError, match="same name"):
        Pool([config(store), config(store)], state=tmp_path)


# ---- one key on two tokens


@pytest.fixture
def twins(own_store: Store, tmp_path: Path) -> tuple[Store, bytes]:
    """Two tokens, "a" and "b", with the same RSA key."""
    private = rsa.generate_private_key(65537, 2048)
    pem = tmp_path / "key.pem"
    pem.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    for label in "ab":
        own_store.token(label)
        own_store.add(label, pem, "shared")
    spki = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return own_store, spki


async def test_one_key_on_two_tokens_is_one_pool(twins: tuple[Store, bytes], make_pool: MakePool, shim: Shim) -> None:
    """Both sign a batch; when one is drained the other takes all; resumed, it takes part again."""
    store, spki = twins
    async with make_pool(config(store, "a", shim=shim), config(store, "b", shim=shim)) as pool:
        ref = pool.key("shared")
        shim.script("C_Sign * delay 0.001")
        items = digests(200)
        outcomes = await pool.sign(ref, RSA, items)
        assert audit(shim, spki, RSA, items, outcomes) == []
        by_token = {name: sum(outcome.token == name for outcome in outcomes) for name in "ab"}
        assert min(by_token.values()) >= 50
        pool.drain("a")
        outcomes = await pool.sign(ref, RSA, items := digests(100, 1_000))
        assert audit(shim, spki, RSA, items, outcomes) == []
        assert {outcome.token for outcome in outcomes} == {"b"}
        await until(lambda: pids(pool, "a") == [0])
        pool.resume("a")
        await until(lambda: lanes_up(view(pool, "a")))
        outcomes = await pool.sign(ref, RSA, items := digests(100, 2_000))
        assert {outcome.token for outcome in outcomes} == {"a", "b"}


async def test_a_drain_in_the_middle_loses_nothing(twins: tuple[Store, bytes], make_pool: MakePool, shim: Shim) -> None:
    """The frames that are out are finished, the rest goes to the other token; all are signed once."""
    store, spki = twins
    async with make_pool(config(store, "a", shim=shim), config(store, "b", shim=shim)) as pool:
        shim.script("C_Sign * delay 0.002")
        items = digests(200)
        batch = asyncio.create_task(pool.sign(pool.key("shared"), RSA, items))
        await until(lambda: len(shim.signs()) > 60)
        pool.drain("a")
        outcomes = await batch
        assert audit(shim, spki, RSA, items, outcomes) == []
        assert statuses(outcomes) == {("SIGNED", ""): 200}
        assert {outcome.token for outcome in outcomes} == {"a", "b"}


# ---- PINs


@pytest.mark.parametrize("lies", [False, True], ids=["SoftHSM", "a token whose flags say nothing"])
async def test_a_refused_pin_is_sent_once(own_store: Store, shim: Shim, tmp_path: Path, lies: bool) -> None:
    """F21: over six starts of the pool the token sees one C_Login; the right PIN and a person bring it back."""
    ref = key_of(card(own_store)["P-256"]).ref
    if lies:
        shim.script(f"C_Login 1 return {CKR_PIN_INCORRECT}")
    file = tmp_path / "pin"
    file.write_text(PIN if lies else "9999")
    file.chmod(0o600)
    one = config(own_store, shim=shim, pin=PinFile(file), lanes=2)
    for start in range(6):
        async with pool_over(one, state=tmp_path / "state") as pool:
            assert state(pool) == "LOCKED"
            assert len(shim.logins()) == 1
            with pytest.raises(Unavailable) as error:
                await pool.sign(ref, ECDSA, digests(1))
            assert (error.value.reason, error.value.retry_s) == ("PIN_LOCKED", None)
            if start == 5:
                file.write_text(PIN)
                pool.unlock("card")
                await until(lambda: state(pool) == "READY" and lanes_up(view(pool)))
                assert await signs(pool, ref)
    assert len(shim.logins()) == 3  # the refused one, and one of each lane
    async with pool_over(one, state=tmp_path / "state") as pool:
        assert state(pool) == "READY"


async def test_other_keys_in_the_configuration_do_not_buy_another_try(
    own_store: Store, shim: Shim, tmp_path: Path
) -> None:
    """The count belongs to the token: naming another of its keys does not make it a token never tried."""
    pairs = card(own_store, kinds=("P-256", "P-384"))
    shim.script(f"C_Login * return {CKR_PIN_INCORRECT}")
    for kind in pairs:
        async with pool_over(
            config(own_store, shim=shim), state=tmp_path / "state", keys=[key_of(pairs[kind])]
        ) as pool:
            assert state(pool) == "LOCKED"
    assert len(shim.logins()) == 1


async def test_the_last_try_needs_the_override(own_store: Store, shim: Shim, tmp_path: Path) -> None:
    """F16: after two refusals of three an unlock is refused; with the override one try is allowed."""
    ref = key_of(card(own_store)["P-256"]).ref
    shim.script(f"C_Login 1-2 return {CKR_PIN_INCORRECT}")
    async with pool_over(config(own_store, shim=shim), state=tmp_path / "state") as pool:
        assert state(pool) == "LOCKED"
        pool.unlock("card")
        await until(lambda: len(shim.logins()) == 2 and state(pool) == "LOCKED")
        with pytest.raises(TryRefused, match="2 of 3 tries may be spent"):
            pool.unlock("card")
        assert state(pool) == "LOCKED"
        pool.unlock("card", override=True)
        await until(lambda: state(pool) == "READY")
        assert await signs(pool, ref)
        assert len(shim.logins()) == 3


async def test_a_grant_is_one_try(own_store: Store, shim: Shim, tmp_path: Path) -> None:
    """An unlock with a PIN that is still wrong ends LOCKED again, after one more C_Login and not two."""
    card(own_store)
    async with pool_over(
        config(own_store, shim=shim, pin=lambda: Pin("9999"), pin_tries=5, lanes=2), state=tmp_path / "state"
    ) as pool:
        for logins in (1, 2, 3):
            await until(lambda: state(pool) == "LOCKED" and len(shim.logins()) == logins)  # noqa: B023
            await until(lambda: pids(pool) == [0, 0])
            pool.unlock("card")
        await until(lambda: state(pool) == "LOCKED" and len(shim.logins()) == 4)


async def test_a_pin_that_went_stale_is_tried_once(own_store: Store, shim: Shim, tmp_path: Path) -> None:
    """F21: the PIN file no longer fits when a lane comes back: one try, LOCKED, and the other lanes stop."""
    card(own_store)
    file = tmp_path / "pin"
    file.write_text(PIN)
    file.chmod(0o400)
    async with pool_over(config(own_store, shim=shim, pin=PinFile(file), lanes=2), state=tmp_path / "state") as pool:
        assert state(pool) == "READY"
        file.chmod(0o600)
        file.write_text("9999")
        children_before = pids(pool)
        os.kill(pids(pool)[0], signal.SIGKILL)
        await until(lambda: state(pool) == "LOCKED")
        await until(lambda: pids(pool) == [0, 0])
        assert all(gone(pid) for pid in children_before)
        assert len(shim.logins()) == 3


async def test_a_pin_file_that_cannot_be_used_spends_no_try(own_store: Store, shim: Shim, tmp_path: Path) -> None:
    """Missing, readable by others, or a directory: LOCKED with the file's name, no C_Login; put right, one unlock does it."""
    card(own_store)
    file = tmp_path / "pin"
    file.mkdir()
    async with pool_over(config(own_store, shim=shim, pin=PinFile(file)), state=tmp_path / "state") as pool:
        assert "not a regular file" in view(pool).detail
        file.rmdir()
        for words in ("No such file", "can be read by others"):
            pool.unlock("card")
            await until(lambda: state(pool) == "LOCKED" and words in view(pool).detail)  # noqa: B023
            assert str(file) in view(pool).detail
            file.write_text(PIN)
            file.chmod(0o644)
        assert shim.logins() == []
        file.chmod(0o600)
        pool.unlock("card")
        await until(lambda: state(pool) == "READY")


async def test_a_token_that_wants_a_pin_and_has_none(own_store: Store, shim: Shim, tmp_path: Path) -> None:
    """LOCKED, with the words for it, and no empty PIN is tried."""
    card(own_store)
    async with pool_over(config(own_store, shim=shim, pin=None), state=tmp_path / "state") as pool:
        assert state(pool) == "LOCKED"
        assert "none is configured" in view(pool).detail
        assert shim.logins() == []


# ---- another token, no token


async def test_a_token_with_other_keys_gets_no_pin(own_store: Store, keys: Keys, shim: Shim, tmp_path: Path) -> None:
    """F3: same label, other public keys: CHANGED, no C_Login, and requests are told so."""
    card(own_store)
    wanted = key_of(keys["P-256"])
    async with pool_over(config(own_store, shim=shim), state=tmp_path / "state", keys=[wanted]) as pool:
        assert state(pool) == "CHANGED"
        with pytest.raises(Unavailable, match="TOKEN_CHANGED"):
            await pool.sign(wanted.ref, ECDSA, digests(1))
        assert shim.logins() == []


async def test_a_token_with_another_serial_gets_no_pin(own_store: Store, shim: Shim, tmp_path: Path) -> None:
    """F3: same label, another serial: CHANGED and no C_Login."""
    card(own_store)
    async with pool_over(config(own_store, shim=shim, serial="0" * 16), state=tmp_path / "state") as pool:
        assert state(pool) == "CHANGED"
        assert shim.logins() == []


async def test_a_key_is_found_by_id_and_public_half(own_store: Store, keys: Keys, shim: Shim, tmp_path: Path) -> None:
    """A CKA_ID that exists with another public half is not the key; the key by its right ID is."""
    pair = card(own_store)["P-256"]
    impostor = Key(keys["P-256"][1], pair[0])
    async with pool_over(config(own_store, shim=shim), state=tmp_path / "state", keys=[key_of(pair), impostor]) as pool:
        assert state(pool) == "READY"
        assert await signs(pool, key_of(pair).ref)
        with pytest.raises(Unavailable, match="KEY_UNKNOWN"):
            await pool.sign(impostor.ref, ECDSA, digests(1, 5))
        assert len(shim.signs()) == 1


async def test_a_token_that_appears_becomes_ready(own_store: Store, shim: Shim, tmp_path: Path) -> None:
    """F2: ABSENT while it is not there, READY within 3 s after it is, without a restart; then its serial is known."""
    own_store.token("other")
    async with pool_over(config(own_store, shim=shim), state=tmp_path / "state") as pool:
        assert state(pool) == "ABSENT"
        pair = card(own_store)["P-256"]
        began = time.monotonic()
        await until(lambda: state(pool) == "READY", 5)
        assert time.monotonic() - began <= 3.0
        assert await signs(pool, key_of(pair).ref)
        assert view(pool).serial


async def test_what_a_first_start_says(own_store: Store, tmp_path: Path) -> None:
    """No credential yet: nothing is wrong with the token. A label that is mistyped: which it was, and what the module shows."""
    own_store.token("card")
    own_store.keys("card", ["P-256"])
    mistyped = config(own_store, "Card")
    async with pool_over(config(own_store), mistyped, state=tmp_path / "pool", keys=[], wait=False) as pool:
        await until(lambda: state(pool) == "CHANGED" and state(pool, "Card") == "ABSENT", 15)
        told = view(pool)
        assert (told.detail, told.advice) == (NO_KEY, "")
        assert view(pool, "Card").detail == "no token answers to its label 'Card'; its module shows 'card'"
        _, spki = own_store.made["card"]["P-256"]
        pool.set_keys([Key(spki, None, "P-256")])
        await until(lambda: state(pool) == "READY", 15)


def test_many_labels_are_cut_short() -> None:
    """What a token says of itself moves no cursor, either."""
    told = how_many(0, "x", [f"t{number}\n" for number in range(9)])
    assert told.endswith("'t6\\n', 't7\\n', ...")


async def test_a_token_that_is_pulled_and_put_back(own_store: Store, shim: Shim, tmp_path: Path) -> None:
    """F1, F2, F4: pulled under an idle lane it is ABSENT, requests are told, and put back it signs within 3 s."""
    pair = card(own_store)["P-256"]
    async with pool_over(config(own_store, shim=shim), state=tmp_path / "state") as pool:
        assert await signs(pool, key_of(pair).ref)
        own_store.take_out("card")
        for pid in pids(pool):  # SoftHSM itself does not notice
            os.kill(pid, signal.SIGKILL)
        await until(lambda: state(pool) == "ABSENT")
        with pytest.raises(Unavailable) as error:
            await pool.sign(key_of(pair).ref, ECDSA, digests(1))
        assert error.value.reason == "TOKEN_ABSENT"
        assert error.value.retry_s == pytest.approx(3, abs=1)
        own_store.put_in("card")
        began = time.monotonic()
        await until(lambda: state(pool) == "READY")
        assert time.monotonic() - began <= 3.0
        assert await signs(pool, key_of(pair).ref, start=9)


async def test_one_miss_is_not_absence(own_store: Store, shim: Shim, tmp_path: Path) -> None:
    """A listing without it, once, is looked at again before the token is called ABSENT: it never is, here."""
    card(own_store)
    shim.script("C_GetSlotList 1 absent")
    async with pool_over(config(own_store, shim=shim), state=tmp_path / "state", wait=False) as pool:
        seen = set()
        async with asyncio.timeout(5):
            async for views in pool.watch():
                seen.add(views[0].state.value)
                if "READY" in seen:
                    break
        assert seen == {"OPEN", "READY"}
        assert shim.number("C_GetSlotList") > 2, "the first listing was not the one that missed it"


async def test_another_token_in_its_place_is_not_taken_for_it(own_store: Store, shim: Shim, tmp_path: Path) -> None:
    """F3: pulled, and another of the same label put in: CHANGED, no PIN to it; the first one back: READY."""
    first = card(own_store)
    async with pool_over(config(own_store, shim=shim), state=tmp_path / "state") as pool:
        own_store.take_out("card")
        kept = vars(own_store)["_directories"]["card"]
        card(own_store)
        os.kill(pids(pool)[0], signal.SIGKILL)
        await until(lambda: state(pool) == "CHANGED")
        assert len(shim.logins()) == 1
        own_store.remove("card")
        vars(own_store)["_directories"]["card"] = kept
        own_store.put_in("card")
        await until(lambda: state(pool) == "READY")
        assert await signs(pool, key_of(first["P-256"]).ref)


# ---- the operator


async def test_a_drain_waits_for_frames_and_a_resume_brings_it_back(
    make_pool: MakePool, keys: Keys, shim: Shim
) -> None:
    """What the lane has is signed, the rest is told TOKEN_DRAINED, the lane logs out; then RESUME."""
    async with make_pool(shim=shim) as pool:
        ref = pool.key("P-256")
        await warm(pool, ref, ECDSA)
        shim.script("C_Sign * delay 0.02")
        before, items = len(shim.signs()), digests(600, 0, ECDSA)
        batch = asyncio.create_task(pool.sign(ref, ECDSA, items))
        await until(lambda: len(shim.signs()) > before)
        (pid,) = pids(pool)
        pool.drain("card")
        shim.script()
        outcomes = await batch
        assert audit(shim, keys["P-256"][1], ECDSA, items, outcomes) == []
        assert set(statuses(outcomes)) == {("SIGNED", ""), ("NOT_ATTEMPTED", "TOKEN_DRAINED")}
        await until(lambda: gone(pid))
        logouts = [call for call in shim.log() if call.fn in {"C_Logout", "C_Finalize"} and call.pid == pid]
        assert logouts, "the lane was killed, not told to log out"
        with pytest.raises(Unavailable, match="TOKEN_DRAINED"):
            await pool.sign(ref, ECDSA, digests(1))
        with pytest.raises(WrongEvent):
            pool.drain("card")
        with pytest.raises(WrongEvent):
            pool.unlock("card")
        assert state(pool) == "DRAINED"
        pool.resume("card")
        await until(lambda: state(pool) == "READY")
        assert await signs(pool, ref, start=5_000)
        with pytest.raises(WrongEvent):
            pool.resume("card")


async def test_watch_tells_without_a_change(make_pool: MakePool) -> None:
    """With a time given, a snapshot comes after it though nothing moved; without one none does."""
    async with make_pool() as pool:
        async with contextlib.aclosing(pool.watch(0.05)) as watch, asyncio.timeout(5):
            assert [(await anext(watch))[0].state.value for _ in range(3)] == ["READY"] * 3
        async with contextlib.aclosing(pool.watch()) as watch:
            await anext(watch)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(watch), 0.3)


async def test_a_snapshot_has_the_pin_tries(own_store: Store, tmp_path: Path) -> None:
    """How many tries may be spent, and of how many: for a refused PIN one of 3, though nobody asks the disk for it."""
    card(own_store)
    async with pool_over(config(own_store, pin=lambda: Pin("9999")), state=tmp_path / "state") as pool:
        assert state(pool) == "LOCKED"
        assert (view(pool).pin_tries_used, view(pool).pin_tries) == (1, 3)


async def test_watch_tells_every_change(make_pool: MakePool) -> None:
    """A snapshot now, then one after each change, and the last one is the state of things."""
    async with make_pool() as pool:
        watch, seen = pool.watch(), []
        seen.append((await anext(watch))[0].state.value)
        pool.drain("card")
        seen.append((await asyncio.wait_for(anext(watch), 1))[0].state.value)
        await until(lambda: pids(pool) == [0])
        pool.resume("card")
        async with asyncio.timeout(5):
            while seen[-1] != "READY":
                seen.append((await anext(watch))[0].state.value)
        await watch.aclose()
        assert [one for one, last in zip(seen, [None, *seen], strict=False) if one != last] == [
            "READY",
            "DRAINED",
            "OPEN",
            "READY",
        ]
        assert not vars(pool)["_watchers"]


async def test_a_snapshot_says_what_there_is(make_pool: MakePool, keys: Keys, store: Store) -> None:
    """Name, label, module, serial, model, keys and lanes with their processes."""
    async with make_pool(lanes=2, kind="card of the tests") as pool:
        one = view(pool)
        assert (one.kind, one.label, one.state.value, one.waiting) == ("card of the tests", "card", "READY", 0)
        assert one.model == "SoftHSM project SoftHSM v2"
        assert len(one.serial) == 16
        assert set(one.keys) == {hashlib.sha256(spki).hexdigest() for _, spki in keys.values()}
        assert sorted(pids(pool)) == sorted(child.pid for child in children())
        assert abs(one.since - time.time()) < 20


async def test_other_keys_are_taken_up_while_it_runs(own_store: Store, tmp_path: Path) -> None:
    """`set_keys` opens the lanes anew: what is not wanted any more is unknown, what is new signs."""
    pairs = card(own_store, kinds=("P-256", "P-384"))
    first, second = key_of(pairs["P-256"]), key_of(pairs["P-384"])
    async with pool_over(config(own_store), state=tmp_path / "state", keys=[first]) as pool:
        assert await signs(pool, first.ref)
        with pytest.raises(BadRequest, match="KEY_UNKNOWN"):
            await pool.sign(second.ref, ECDSA, digests(1))
        (pid,) = pids(pool)
        pool.set_keys([second])
        await until(lambda: pids(pool) not in ([pid], [0]) and state(pool) == "READY" and lanes_up(view(pool)))
        assert await signs(pool, second.ref)
        with pytest.raises(BadRequest, match="KEY_UNKNOWN"):
            await pool.sign(first.ref, ECDSA, digests(1))


# ---- the end


async def test_close_answers_all_and_leaves_no_process(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """Waiting work is told POOL_CLOSED, what was signed is delivered, no lane and no probe is left; then it is closed."""
    shim.script("C_Sign * delay 0.02")
    async with make_pool(shim=shim, lanes=2) as pool:
        ref, items = pool.key("P-256"), digests(300, 0, ECDSA)
        batch = asyncio.create_task(pool.sign(ref, ECDSA, items))
        await until(lambda: len(shim.signs()) > 6)
        began = time.monotonic()
        await pool.close()
        assert time.monotonic() - began < 2.5
        assert children() == []
        outcomes = await batch
        assert set(audit(shim, keys["P-256"][1], ECDSA, items, outcomes)) <= set(range(12))
        assert {reason for _, reason in statuses(outcomes)} >= {"", "POOL_CLOSED"}
        with pytest.raises(Unavailable, match="POOL_CLOSED"):
            await pool.sign(ref, ECDSA, digests(1))
        await pool.close()


async def test_turn_away_keeps_one_key(make_pool: MakePool, keys: Keys, shim: Shim) -> None:
    """
    The service stops: waiting work is told POOL_CLOSED and nothing more is taken, what lanes have is signed; one key goes on,
    also when those that still wait for a lane are answered.
    """
    async with make_pool(shim=shim) as pool:
        ref, own = pool.key("P-256"), pool.key("RSA-2048")
        shim.script("C_Sign * delay 0.05")
        for number in range(3):  # it is known to be slow
            await pool.sign(ref, ECDSA, digests(1, number, ECDSA))
        items = digests(40, 100, ECDSA)
        batch = asyncio.create_task(pool.sign(ref, ECDSA, items))
        await until(lambda: len(shim.signs()) > 5)
        pool.turn_away(own)
        outcomes = await batch
        assert set(statuses(outcomes)) == {("SIGNED", ""), ("NOT_ATTEMPTED", "POOL_CLOSED")}
        assert audit(shim, keys["P-256"][1], ECDSA, items, outcomes) == []
        with pytest.raises(Unavailable, match="POOL_CLOSED"):
            await pool.sign(ref, ECDSA, digests(1, 200, ECDSA))
        checkpoint = asyncio.create_task(pool.sign(own, RSA, digests(1)))
        await asyncio.sleep(0)
        pool.answer_all()
        assert statuses(await checkpoint) == {("SIGNED", ""): 1}


async def test_close_while_it_starts(own_store: Store, shim: Shim, tmp_path: Path) -> None:
    """However far a start has come, close leaves no process and no login that counts as open."""
    card(own_store)
    for number in range(8):
        async with pool_over(config(own_store, shim=shim, lanes=2), state=tmp_path / "state", wait=False) as pool:
            await until(lambda: len(shim.logins()) > number or children() or state(pool) == "READY")  # noqa: B023
            if number % 2:
                await until(lambda: state(pool) == "READY")
        assert children() == []
        assert open_tries(tmp_path / "state") == 0
    async with pool_over(config(own_store, shim=shim), state=tmp_path / "state") as pool:
        assert state(pool) == "READY"


async def test_the_log_names_tokens_and_no_pin(
    own_store: Store, shim: Shim, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What an operator reads says which token is in which state and why, and holds no PIN."""
    own_store.token("card", pin="73019264-right")
    own_store.keys("card", ["P-256"])
    caplog.set_level(logging.DEBUG)
    one = config(own_store, shim=shim, pin=lambda: Pin("73019264-wrong"))
    async with pool_over(one, state=tmp_path / "state") as pool:
        assert state(pool) == "LOCKED"
    assert "token card is LOCKED: the token refused the PIN (CKR_PIN_INCORRECT)" in caplog.text
    assert "73019264" not in caplog.text + repr(one) + repr(pool.snapshot())
    assert not any(b"73019264" in path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())
