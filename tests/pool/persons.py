"""What the tests of people's tokens share: recorded resets, leases that are refused, and what the shim's log says of them."""

import asyncio
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from pool import Pin, Pool, PoolError, TokenConfig
from pool.reader import ResetFailed
from tests.pool.rig import children, state, until, view
from tests.shim import Call, Shim
from tests.softhsm import PIN, Store

END_S = 1.0  # after a lease, its worker is gone
WRONG = "99999"
CKU_USER, CKU_CONTEXT_SPECIFIC = 1, 2


class Resets:
    """Stands for the readers: when which token's card was reset, and which lanes ran then."""

    def __init__(self) -> None:
        self.made: list[tuple[int, str]] = []  # CLOCK_MONOTONIC in ns, as in the shim's log
        self.beside: list[set[int]] = []
        self.failures = 0
        self.takes_s = 0.0

    async def __call__(self, token: TokenConfig) -> None:
        if self.failures:
            self.failures -= 1
            raise ResetFailed("SCardConnect: 0x8010000b")
        await asyncio.sleep(self.takes_s)
        self.beside.append({child.pid for child in children()})
        self.made.append((time.monotonic_ns(), token.name))


def leased(pool: Pool, pin: str = PIN, *, caller: str = "ann", timeout_s: float = 10.0, **more: Any) -> Any:
    return pool.lease("card", caller=caller, pin=Pin(pin), timeout_s=timeout_s, **more)


async def refused(pool: Pool, pin: str = PIN, **more: Any) -> Any:
    """The error that a lease is refused with."""
    with pytest.raises(PoolError) as error:
        async with leased(pool, pin, **more):
            pytest.fail("the lease was given")
    return error.value


async def waits(pool: Pool, name: str = "card") -> None:
    """The token is open, and its lane waits for a person."""
    await until(lambda: state(pool, name) == "OPEN" and view(pool, name).lanes[0][0].state == "OPEN", 10)


def spki(store: Store, label: str = "card") -> bytes:
    return store.made[label]["P-256"][1]


def log_of(shim: Shim, pid: int) -> list[Call]:
    return [call for call in shim.log() if call.pid == pid]


def count(state: Path) -> tuple[int, int]:
    """(refused, open) of the only token, as they are on disk."""
    database = sqlite3.connect(state / "tries.sqlite")
    try:
        return database.execute("SELECT refused, open FROM tries").fetchone() or (0, 0)
    finally:
        database.close()
