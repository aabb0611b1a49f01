"""The ledger over starts of a daemon: what one leaves behind, and what the next makes of it."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from signer import checkpoint, checkpoint_key
from signer.books import Books, opened
from signer.checkpoint import Checkpoints
from signer.clock import Clock
from signer.config import Ledger, LedgerAnchor
from signer.sqlite import Sqlite
from signer.store import open_store
from tests.signer.ledger.entries import asked, counted


@dataclass(frozen=True)
class Ahead(Clock):
    """The system's clock, set by so many seconds."""

    s: float = 0.0

    def epoch(self) -> float:
        return time.time() + self.s

    def wall(self) -> datetime:
        return datetime.fromtimestamp(int(self.epoch()), UTC)


class Place:
    """A state directory with SQLite's database, and what a configuration says of its ledger."""

    def __init__(self, directory: Path, *anchors: LedgerAnchor) -> None:
        self.state = directory / "state"
        self.state.mkdir()
        self.database = self.state / "paraph.sqlite"
        open_store(self.database).dispose()
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        keys = directory / "checkpoint.key", directory / "data.key"
        for file, content in zip(keys, (pem, os.urandom(32)), strict=True):
            file.write_bytes(content)
            file.chmod(0o400)
        self.config = Ledger(checkpoint_key=keys[0], data_key_file=keys[1], anchor=anchors)

    @contextlib.asynccontextmanager
    async def starts(self, clock: Clock) -> AsyncIterator[tuple[Books, Checkpoints]]:
        key = checkpoint_key.of(self.config, lambda: pytest.fail("no token"))
        async with opened(self.config, self.database, self.state, clock) as books, books.checkpointed(key) as made:
            yield books, made


@pytest.fixture(autouse=True)
def short_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anchors are away on purpose."""
    monkeypatch.setattr(checkpoint, "LAST_S", 0.2)


async def test_an_anchor_that_never_worked(tmp_path: Path) -> None:
    """After 24 h nothing is signed, however often the daemon is started: they count from the ledger's first row."""
    place = Place(tmp_path, LedgerAnchor(file=tmp_path / "mount" / "checkpoints"))
    for hours in (0, 23.9):
        async with place.starts(Ahead(hours * 3600)) as (books, made):
            assert (books.ledger.trouble, made.anchored_at) == ("", None)
    async with place.starts(Ahead(24 * 3600)) as (books, made):
        assert (books.ledger.trouble, made.anchored_at) == ("CHECKPOINT_OVERDUE", None)
        assert made.age_s >= 24 * 3600
        (tmp_path / "mount").mkdir()
        async with asyncio.timeout(10):
            while books.ledger.trouble:  # noqa: ASYNC110 -- until its next attempt
                await asyncio.sleep(0.01)
        assert made.anchored_at is not None
    async with place.starts(Ahead(24 * 3600)) as (books, _):
        assert books.ledger.trouble == ""


async def test_a_clock_that_was_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It was 25 h behind when a request was accepted, and is right again, over a restart, too: what only looks a day old is
    kept, and what is goes.
    """
    erased, real = threading.Semaphore(0), Sqlite.erase

    def erase(self: Sqlite, before: int, most: int) -> int:
        gone = real(self, before, most)
        erased.release()
        return gone

    monkeypatch.setattr(Sqlite, "erase", erase)
    place = Place(tmp_path, LedgerAnchor(file=tmp_path / "checkpoints"))
    async with place.starts(Ahead(-25 * 3600)) as (books, _):
        record = await books.ledger.enter(asked(1), time.monotonic() + 10)
        one = record.intend(0, 1, "card")
        await one.durable
        one.settled([b"signature"], {})
        await record.finish(time.monotonic() + 10)
        record.leave()
    for days, left in ((0, 1), (1.1, 0)):
        while erased.acquire(blocking=False):
            pass
        async with place.starts(Ahead(days * 24 * 3600)):
            assert await asyncio.to_thread(erased.acquire, timeout=10)
        assert counted(place.database, "ledger_requests") == left
