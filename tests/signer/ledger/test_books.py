"""The ledger over starts of a daemon: what one leaves behind, and what the next makes of it."""

import asyncio
import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from signer import books, checkpoint, checkpoint_key
from signer.books import Books, opened
from signer.checkpoint import Checkpoints
from signer.clock import Clock
from signer.config import Ledger, LedgerAnchor
from signer.database import Where, database_at
from signer.note import NOTHING, Checkpoint, Head, Note, parse, sign
from signer.recovery import Broken
from signer.retention import Retention
from signer.sqlite import Sqlite
from signer.store import open_store
from tests.postgres import Postgres
from tests.signer.ledger.entries import asked, counted, executed, found, started

OTHER = "ab" * 16  # an instance


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
        self.database: Where = self.state / "paraph.sqlite"
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
        async with (
            opened(self.config, self.database, self.state, clock, key.spki) as books,
            books.checkpointed(key) as made,
        ):
            yield books, made


@pytest.fixture(autouse=True)
def short_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anchors are away on purpose."""
    monkeypatch.setattr(checkpoint, "LAST_S", 0.2)


async def test_the_end_while_something_is_erased(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is closed once it is in use no more: SQLite would crash the daemon."""
    path = tmp_path / "paraph.sqlite"
    open_store(path).dispose()
    begun, happened = threading.Event(), []
    erase, close = Sqlite.erase, Sqlite.close

    def erased(eraser: Sqlite, before: int, most: int) -> int:
        begun.set()
        try:
            return erase(eraser, before, most)
        finally:
            happened.append("erased")

    def closed(eraser: Sqlite) -> None:
        happened.append("closed")
        close(eraser)

    monkeypatch.setattr(Sqlite, "erase", erased)
    monkeypatch.setattr(Sqlite, "close", closed)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")  # it waits for that
        erasing = asyncio.create_task(books._keep_erasing(database_at(path, tmp_path), Retention(Clock(), [])))
        assert await asyncio.to_thread(begun.wait, 10)
        erasing.cancel()
        await asyncio.wait([erasing])
    assert happened == ["erased", "closed"]


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


def _set_back(place: Place, older: bytes) -> None:
    assert isinstance(place.database, Path)
    for side in ("", "-wal", "-shm"):
        place.database.with_name(f"{place.database.name}{side}").unlink(missing_ok=True)
    place.database.write_bytes(older)


def _copied(place: Place) -> bytes:
    with closing(sqlite3.connect(place.database)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Path(place.database).read_bytes()


JUNK = b"paraph-checkpoint-v1\njunk\n\nno seal\n\n"


@pytest.mark.parametrize(
    ("what", "refused"),
    [
        ("whole", "an older state was put back"),
        ("torn", "an older state was put back"),
        ("torn by a byte", "an older state was put back"),
        ("a byte more", "an older state was put back"),
        ("junk behind it", "an older state was put back"),
        ("an old note again", "an older state was put back"),
        ("a forged note behind it", "an older state was put back"),
        ("buried", "ends without a whole checkpoint.*move it away"),
        ("nothing whole", "ends without a whole checkpoint.*move it away"),
    ],
)
async def test_an_older_database_beside_a_spoilt_anchor(tmp_path: Path, what: str, refused: str) -> None:
    """
    What stands behind the last whole checkpoint of a file, and what is torn of it, hides none that is there: the older
    database is refused. Where nothing whole is left, nobody can say, and that is refused, too.
    """
    file = tmp_path / "checkpoints"
    place = Place(tmp_path, LedgerAnchor(file=file))
    for _ in range(2):  # the second knows that the first one's checkpoints are in the anchor
        await once(place)
    older = _copied(place)
    for _ in range(2):
        await once(place)
    whole = file.read_bytes()
    notes = [str(note).encode() for note in parse(whole.decode())]
    head = next(parse(notes[0].decode())).checkpoint.heads[0]
    forged = str(made_by_nobody(head)).encode()
    file.write_bytes(
        {
            "whole": whole,
            "torn": whole[: -len(notes[-1]) // 2],
            "torn by a byte": whole[:-1],
            "a byte more": whole + b"x",
            "junk behind it": whole + JUNK * 100,
            "an old note again": whole + notes[0],
            "a forged note behind it": whole + forged,
            "buried": whole + JUNK * 40_000,
            "nothing whole": JUNK,
        }[what]
    )
    _set_back(place, older)
    with pytest.raises(Broken, match=refused):
        await once(place)


async def test_a_spoilt_anchor_beside_its_own_database(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """
    Torn by a power cut, with the database that it belongs to: no reason. Nor is one that is empty, or has a part of its first
    checkpoint, because it may be new; but that is said.
    """
    file = tmp_path / "checkpoints"
    place = Place(tmp_path, LedgerAnchor(file=file))
    file.write_bytes(b"paraph-checkpoint-v1\n1\n2026")  # nothing was anchored before: the first note of all
    await once(place)
    file.unlink()
    for _ in range(2):
        await once(place)
    whole = file.read_bytes()
    for content in (whole[:-1], whole[:-200], whole + b"x"):
        file.write_bytes(content)
        await once(place)
    said = f"{file} has no whole checkpoint, and an anchor had one of this ledger: if it is not new, it was emptied"
    assert said not in caplog.text
    for content in (b"", whole[:100]):
        file.write_bytes(content)
        await once(place)
        assert said in caplog.text
        caplog.clear()


def emptied(database: Where) -> None:
    """As somebody does who can write the database and has no key: another ledger, of which nothing is there yet."""
    executed(
        database,
        *(f"DELETE FROM {table}" for table in ("ledger_rows", "ledger_requests", "ledger_results")),
        f"UPDATE ledger_instances SET instance = '{OTHER}', epoch = 0, note = ''",
    )


async def once(place: Place) -> None:
    """A start, and an end."""
    async with place.starts(Clock()):
        pass


async def test_another_ledger_in_its_place(tmp_path: Path) -> None:
    """
    A file anchor knows of a ledger that is not there, and the one that is there is new: the start is refused, also once
    rows were made up for it, and a checkpoint without the key, whatever other anchors there are; until a person has moved
    the file away.
    """
    files = tmp_path / "first", tmp_path / "second"
    place = Place(tmp_path, *(LedgerAnchor(file=file) for file in files))
    for _ in range(2):
        await once(place)
    emptied(place.database)
    for harm in (lambda _: None, made_up_rows, made_up_checkpoint):
        harm(place)
        with pytest.raises(Broken, match=f"in {files[0]} is of another ledger, .* {OTHER}: .*move it away"):
            await once(place)
    for file in files:
        file.rename(f"{file}.kept")
    for _ in range(2):
        await once(place)


def made_up_rows(place: Place) -> None:
    """Their hashes need no key."""
    _, backend, _ = started(database_at(place.database, place.state))
    backend.close()


def made_up_checkpoint(place: Place) -> None:
    head = found(database_at(place.database, place.state)).head
    assert head is not None
    note = made_by_nobody(head)
    executed(place.database, f"UPDATE ledger_instances SET note = '{note}'")


def made_by_nobody(head: Head) -> Note:
    key = Ed25519PrivateKey.generate()
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return sign(Checkpoint(1, datetime.now(UTC), NOTHING, head), spki, "ED25519", key.sign)


async def test_an_anchor_of_another_daemon_is_no_reason(tmp_path: Path, postgres: Postgres) -> None:
    """
    Two daemons on one PostgreSQL with one file, which says so while they run: both start, the first time and again.
    """
    url = postgres.create("books")
    open_store(url).dispose()
    places = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        places.append(Place(tmp_path / name, LedgerAnchor(file=tmp_path / "checkpoints")))
        places[-1].database = url
    for _ in range(2):
        for place in places:
            await once(place)


async def test_a_checkpoint_names_the_chains_of_all(tmp_path: Path, postgres: Postgres) -> None:
    """
    Row 4.5: a signed checkpoint every 60 s or 1 000 chunks at the latest, listing the head of every daemon's own chain,
    exported to an append-only file on another mount, syslog or a webhook.

    Of daemons on one PostgreSQL: each one's next checkpoint has the last row of the other, which is not running.
    """
    url = postgres.create("books")
    open_store(url).dispose()
    places = {}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        places[name] = Place(tmp_path / name, LedgerAnchor(file=tmp_path / name / "checkpoints"))
        places[name].database = url
    for name in ("a", "b", "a"):
        await once(places[name])
    first, *_, last = parse((tmp_path / "a" / "checkpoints").read_text())
    assert first.checkpoint.others == ()
    own = next(parse((tmp_path / "b" / "checkpoints").read_text())).checkpoint.own
    [other] = last.checkpoint.others
    assert other.instance == own.instance != last.checkpoint.own.instance
    past = database_at(url, tmp_path / "b").past()
    try:
        *_, (epoch, sequence, _, _, hash_, _) = past.rows(own.instance)
    finally:
        past.close()
    assert (other.epoch, other.sequence, other.hash) == (epoch, sequence, hash_)
