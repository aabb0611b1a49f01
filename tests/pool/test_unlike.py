"""
One pool over unlike hardware: one key on a card that needs 185 ms for a signature, on an HSM with two lanes, and on a stick
whose PIN was refused. Each does what it can, by when it would be done; none holds up another.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pool import Pin, Pool
from tests.pool.rig import ECDSA, audit, config, digests, pids, pool_over, state, statuses, until, view
from tests.shim import Shim
from tests.softhsm import MODULE, Store

CARD_S, HSM_S = 0.185, 0.004
TOKENS = ("card", "hsm", "stick")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, bytes]:
    """The three tokens with their one key, to be copied from, and its public half."""
    directory = tmp_path_factory.mktemp("unlike")
    store, private = Store(directory / "softhsm"), ec.generate_private_key(ec.SECP256R1())
    pem = directory / "key.pem"
    pem.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    for label in TOKENS:
        store.token(label)
        store.add(label, pem, "seal")
    spki = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return store, spki


@contextlib.asynccontextmanager
async def unlike(made: tuple[Store, bytes], directory: Path) -> AsyncIterator[tuple[Pool, str, dict[str, Shim]]]:
    """The pool, its only key, and the shims before the tokens; the speeds of card and HSM are known."""
    store = Store(directory / "softhsm")
    made[0].copy_to(store)
    shims = {name: Shim(directory / name, str(MODULE)) for name in TOKENS}
    shims["card"].script(f"C_Sign * delay {CARD_S}")
    shims["hsm"].script(f"C_Sign * delay {HSM_S}")
    tokens = (
        config(store, "card", shim=shims["card"]),
        config(store, "hsm", shim=shims["hsm"], lanes=2),
        config(store, "stick", shim=shims["stick"], pin=lambda: Pin("9999")),
    )
    async with pool_over(*tokens, state=directory / "state") as pool:
        key = pool.key("seal")
        await until(lambda: state(pool, "stick") == "LOCKED")
        number = 0
        while not all(lane.item_s for name in ("card", "hsm") for lane, _ in view(pool, name).lanes):
            await pool.sign(key, ECDSA, digests(20, 900_000 + 20 * number))
            number += 1
        yield pool, key, shims


async def test_each_does_what_it_can(made: tuple[Store, bytes], tmp_path: Path) -> None:
    """
    Of a batch the card takes as many as it makes meanwhile, and no last one that the others would have done before it; the
    HSM the rest; the locked stick none, after one login. All are signed once, in hardly more time than the two need.
    """
    async with unlike(made, tmp_path) as (pool, key, shims):
        before = {name: len(shim.signs()) for name, shim in shims.items()}
        items, began = digests(900), time.monotonic()
        outcomes = await pool.sign(key, ECDSA, items)
        took_s = time.monotonic() - began
        assert statuses(outcomes) == {("SIGNED", ""): len(items)}
        by = Counter(outcome.token for outcome in outcomes)
        asked = Counter(call.data for name, shim in shims.items() for call in shim.signs()[before[name] :])
        assert asked == Counter(item.hex() for item in items), "once each"
        assert by["card"] + by["hsm"] == len(items)
        assert took_s / CARD_S - 3 <= by["card"] <= took_s / CARD_S + 1, (by, took_s)
        last = {name: shims[name].log()[-1].t for name in ("card", "hsm")}
        assert last["card"] - last["hsm"] <= 1.5 * CARD_S * 1e9, "the end waited for the card"
        assert len(shims["stick"].logins()) == 1


async def test_who_waits_is_not_given_the_slow_one(made: tuple[Store, bytes], tmp_path: Path) -> None:
    """A single digest goes to the HSM though the card is idle, and beside a batch it is there sooner than the card could."""
    async with unlike(made, tmp_path) as (pool, key, _):
        for number in range(20):
            [outcome] = await pool.sign(key, ECDSA, digests(1, 5_000 + number))
            assert outcome.token == "hsm"
        batch = asyncio.create_task(pool.sign(key, ECDSA, digests(400), caller="bulk"))
        times = []
        for number in range(10):
            began = time.monotonic()
            [outcome] = await pool.sign(key, ECDSA, digests(1, 6_000 + number), caller="person")
            times.append(time.monotonic() - began)
            assert outcome.token == "hsm"
        assert sorted(times)[5] < CARD_S / 2, times
        await batch


@pytest.mark.parametrize("how", ["drained", "killed"])
async def test_one_takes_over_from_the_other(how: str, made: tuple[Store, bytes], tmp_path: Path) -> None:
    """
    The HSM goes in the middle of a batch: what it had not begun goes to the card, which is slow but there; with its lanes
    killed what was under C_Sign is INDETERMINATE, at most one a lane. When it is back it takes over again.
    """
    async with unlike(made, tmp_path) as (pool, key, shims):
        before = len(shims["hsm"].signs())
        items = digests(100)
        batch = asyncio.create_task(pool.sign(key, ECDSA, items))
        await until(lambda: len(shims["hsm"].signs()) > before + 45)
        lanes = pids(pool, "hsm")
        if how == "killed":
            for pid in lanes:
                os.kill(pid, signal.SIGKILL)
        pool.drain("hsm")
        outcomes = await batch
        found = statuses(outcomes)
        in_doubt = sum(count for (status, _), count in found.items() if status == "INDETERMINATE")
        assert in_doubt <= (len(lanes) if how == "killed" else 0)
        assert found["SIGNED", ""] == len(items) - in_doubt
        assert any(outcome.token == "card" for outcome in outcomes[-20:])
        for name in ("card", "hsm"):
            mine = [(i, o) for i, o in zip(items, outcomes, strict=True) if o.token == name]
            audit(shims[name], made[1], ECDSA, [item for item, _ in mine], [outcome for _, outcome in mine])
        await until(lambda: pids(pool, "hsm") == [0, 0])
        pool.resume("hsm")
        await until(lambda: state(pool, "hsm") == "READY")
        outcomes = await pool.sign(key, ECDSA, digests(40, 2_000))
        assert Counter(outcome.token for outcome in outcomes)["hsm"] >= 30
