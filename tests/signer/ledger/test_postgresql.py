"""The ledger on PostgreSQL: a server that is killed, cut off, frozen, full or another; and several daemons on one."""

import asyncio
import contextlib
import itertools
import os
import random
import stat
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pool.record import Unrecorded
from signer import postgresql
from signer.chain import Kind
from signer.clock import Clock
from signer.database import Database, StoreError, database_at
from signer.entry import Entry, Failed
from signer.errors import Refusal
from signer.ledger import Ledger
from signer.postgresql import END_S, LOCK_S
from signer.postgresql_reader import LOOK_S
from signer.record import DIGESTS, Asked
from signer.recovery import begin
from signer.store import open_store
from signer.writer import RETRY_S, Writer
from tests.daemon import until
from tests.pool import rig
from tests.postgres import Postgres
from tests.processes import standing_still
from tests.signer.ledger.cut import LATE_S, Way
from tests.signer.ledger.entries import (
    CIPHER,
    chain,
    counted,
    executed,
    found,
    intent,
    name_of,
    outcome,
    placed,
    started,
    writer_on,
)

_databases = itertools.count()


@pytest.fixture
def name() -> str:
    return f"postgresql {next(_databases)}"


@pytest.fixture
def url(postgres: Postgres, name: str) -> str:
    made = postgres.create(name)
    open_store(made).dispose()
    return made


@pytest.fixture
def db(url: str, tmp_path: Path) -> Database:
    return database_at(url, tmp_path)


@pytest.fixture
def way(postgres: Postgres, url: str) -> Iterator[Way]:
    with Way(postgres) as made:
        yield made


def one_more(at: tuple[int, int, bytes], instance: str) -> tuple[list[Entry], list[Any], tuple[int, int, bytes]]:
    """An entry and its row, and where the chain stands then."""
    entry = intent(os.urandom(16), instance)
    made = placed(at, instance, entry)
    return [entry], made, (at[0], made[-1][0].sequence, made[-1][0].hash)


# ---- one connection that is lost


@pytest.mark.parametrize("how", ["after", "late"])
def test_lost_in_a_commit_that_was_made(way: Way, name: str, tmp_path: Path, how: str) -> None:
    """
    The answer to a COMMIT does not arrive, or the COMMIT itself arrives late: it is not said to have failed, and it is
    there once.
    """
    db = database_at(way.url(name), tmp_path)
    before, backend, at = started(db)
    entries, made, at = one_more(at, before.instance)
    backend.write(entries, made)
    entries, made, at = one_more(at, before.instance)
    way.cut = how
    began = time.monotonic()
    backend.write(entries, made)
    assert way.cuts == 1
    assert how == "after" or time.monotonic() - began >= LATE_S * 0.9, "somebody still held the lock"
    entries, made, at = one_more(at, before.instance)
    backend.write(entries, made)
    backend.close()
    assert [row.sequence for row in chain(db)] == [1, 2, 3, 4]


def test_lost_before_the_commit(way: Way, name: str, tmp_path: Path) -> None:
    """The COMMIT does not arrive: the group has failed, nothing of it is there, and the same places are written next."""
    db = database_at(way.url(name), tmp_path)
    before, backend, at = started(db)
    entries, made, _ = one_more(at, before.instance)
    way.cut = "before"
    with pytest.raises(Failed, match="nothing was written") as failed:
        backend.write(entries, made)
    assert (failed.value.reason, failed.value.is_fatal) == ("STORE_BUSY", False)
    assert [row.sequence for row in chain(db)] == [1]
    entries, made, _ = one_more(at, before.instance)
    backend.write(entries, made)
    backend.close()
    assert chain(db)[1:] == [row for row, _ in made]


def test_lost_in_a_commit_and_nobody_to_ask(way: Way, name: str, tmp_path: Path) -> None:
    """As long as the server is away it is neither written nor failed; then it is what it is."""
    db = database_at(way.url(name), tmp_path)
    before, backend, at = started(db)
    entries, made, _ = one_more(at, before.instance)

    def back() -> None:
        time.sleep(4 * RETRY_S)
        way.is_open = True

    way.cut, way.is_open = "after", False
    threading.Thread(target=back, daemon=True).start()
    began = time.monotonic()
    backend.write(entries, made)
    assert time.monotonic() - began >= 3 * RETRY_S
    backend.close()
    assert [row.sequence for row in chain(db)] == [1, 2]


def test_a_daemon_that_ends_does_not_wait_for_it(way: Way, name: str, tmp_path: Path) -> None:
    """The next start finds out."""
    db = database_at(way.url(name), tmp_path)
    before, backend, at = started(db)
    entries, made, _ = one_more(at, before.instance)
    way.cut, way.is_open = "after", False
    backend.ending()
    with pytest.raises(Failed, match="the next start finds out"):
        backend.write(entries, made)
    backend.close()
    way.is_open = True
    seen, backend, _ = started(db)
    backend.close()
    assert len(seen.open_intents) == 1


def test_an_epoch_begun_by_a_commit_that_was_lost(way: Way, name: str, tmp_path: Path) -> None:
    db = database_at(way.url(name), tmp_path)
    seen, backend = found(db), db.backend()
    with contextlib.closing(db.past()) as past:
        way.cut = "after"
        at = begin(past, backend, seen, CIPHER, "1")
    assert way.cuts == 1
    entries, made, _ = one_more(at, seen.instance)
    backend.write(entries, made)
    backend.close()
    assert [(row.epoch, row.sequence) for row in chain(db)] == [(1, 1), (1, 2)]


def test_a_connection_that_ended_meanwhile(db: Database, postgres: Postgres) -> None:
    """The server was restarted while nothing was written: the next commit has a new connection, and nobody sees it."""
    before, backend, at = started(db)
    postgres.kill()
    postgres.start()
    entries, made, at = one_more(at, before.instance)
    backend.write(entries, made)
    backend.close()
    assert len(chain(db)) == 2


def test_rows_that_were_acknowledged_are_gone(db: Database, url: str) -> None:
    """A server that lagged takes over: the daemon ends, and writes nothing behind the gap."""
    before, backend, at = started(db)
    for _ in range(3):
        entries, made, at = one_more(at, before.instance)
        backend.write(entries, made)
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    executed(url, "DELETE FROM ledger_rows WHERE sequence = 4", f"{ended} AND pid <> pg_backend_pid()")
    entries, made, at = one_more(at, before.instance)
    with pytest.raises(Failed, match="row 1/4 was acknowledged and is not in the database any more") as failed:
        backend.write(entries, made)
    assert failed.value.is_fatal
    backend.close()
    assert len(chain(db)) == 3


@pytest.mark.parametrize("is_begun_here", [True, False])
def test_rows_are_gone_when_the_writer_tries_whether_it_can_write(
    db: Database, url: str, postgres: Postgres, is_begun_here: bool
) -> None:
    """
    The same where nothing had to be written in the outage: the write that met it failed, and the first thing on the new
    connection is a pulse. Neither it nor what comes after it is written.
    """
    before, backend, at = started(db)
    entries, made, at = one_more(at, before.instance)
    backend.write(entries, made)
    if not is_begun_here:
        backend.close()
        backend = db.backend()
        backend.go_on(before.instance, *at)
    postgres.kill()
    entries, made, _ = one_more(at, before.instance)
    with pytest.raises(Failed) as failed:
        backend.write(entries, made)
    assert (failed.value.reason, failed.value.is_fatal) == ("STORE_BUSY", False)
    postgres.start()
    executed(url, "DELETE FROM ledger_rows WHERE sequence = 2")
    for write in (backend.pulse, partial(backend.write, entries, made)):
        with pytest.raises(Failed, match="row 1/2 was acknowledged and is not in the database any more") as failed:
            write()
        assert failed.value.is_fatal
    backend.close()
    assert [row.sequence for row in chain(db)] == [1]


def test_a_daemon_that_was_killed_in_a_commit(db: Database, url: str) -> None:
    """The start waits for what it had under way, and goes on behind that."""
    before, backend, at = started(db)
    entries, made, at = one_more(at, before.instance)
    assert isinstance(backend, postgresql.Postgresql)
    assert backend._db is not None
    backend._insert(backend._db, entries, made)

    def commit() -> None:
        time.sleep(0.5)
        assert backend._db is not None
        backend._db.commit()

    late = threading.Thread(target=commit)
    late.start()
    seen, second, _ = started(db)
    late.join()
    backend.close()
    second.close()
    assert (seen.sequence, len(seen.open_intents)) == (2, 1)
    assert found(db).epoch == 2


def goes_on(writer: Writer, written: int) -> bool:
    return writer.written > written and not writer.trouble


async def test_a_server_killed_while_nothing_is_written(db: Database, postgres: Postgres) -> None:
    """Row 4.3: the writer says by itself that nothing can be written, and that it can be again."""
    before, backend, (epoch, sequence, hash_) = started(db)
    writer = writer_on(backend, before.instance, epoch, hash_, sequence)
    postgres.kill()
    await rig.until(lambda: writer.trouble, 1.5)
    postgres.start()
    await rig.until(lambda: not writer.trouble, 5)
    await writer.close()


async def test_a_server_killed_in_a_stream_of_entries(db: Database, url: str, postgres: Postgres) -> None:
    """
    The server is killed and started again, some times, while entries are written: what was acknowledged is there, what
    was refused is not, nothing is there twice, what must be written is written, and the writer recovers by itself.
    """
    chance = random.Random(5)
    before, backend, (epoch, sequence, hash_) = await asyncio.to_thread(started, db)
    writer = writer_on(backend, before.instance, epoch, hash_, sequence)
    written: list[str] = []
    refused: list[str] = []
    closing: list[Entry] = []
    stopping = asyncio.Event()

    async def client() -> None:
        while not stopping.is_set():
            entry = intent(os.urandom(16), before.instance)
            try:
                await writer.intend(entry)
            except Unrecorded as error:
                assert error.reason == "STORE_BUSY"
                refused.append(entry.fields["request"])
                await asyncio.sleep(chance.uniform(0.0, 0.1))
                continue
            written.append(entry.fields["request"])
            closing.append(outcome(entry))
            writer.add(closing[-1])  # it must be: the writer goes on with it
            await asyncio.sleep(chance.uniform(0.0, 0.005))

    clients = [asyncio.create_task(client()) for _ in range(8)]
    for _ in range(4):
        await asyncio.sleep(chance.uniform(0.1, 0.6))
        await asyncio.to_thread(postgres.kill)
        await asyncio.sleep(chance.uniform(0.1, 0.5))
        seen = writer.written
        await asyncio.to_thread(postgres.start)
        await asyncio.to_thread(until, partial(goes_on, writer, seen), 10)
    stopping.set()
    await asyncio.gather(*clients)
    await writer.close()
    stored = await asyncio.to_thread(chain, db)
    there = [row.fields["request"] for row in stored if row.kind == Kind.INTENT]
    assert sorted(there) == sorted(written)
    assert len(set(there)) == len(there)
    assert refused, "it was never hit"
    assert not set(refused) & set(there)
    assert sum(row.kind == Kind.OUTCOME for row in stored) == len(closing)
    assert await asyncio.to_thread(counted, url, "ledger_results") == len(closing)
    assert await asyncio.to_thread(counted, url, "ledger_requests") == len(written)
    assert (await asyncio.to_thread(found, db)).open_intents == ()


# ---- a server that answers with trouble

DISK_FULL = [
    """CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$""",
    "CREATE TRIGGER no_room BEFORE INSERT ON ledger_rows FOR EACH ROW EXECUTE FUNCTION no_room()",
]


@contextlib.contextmanager
def system(postgres: Postgres, name: str, value: str) -> Iterator[None]:
    """A setting of the whole server."""

    def said(statement: str) -> None:
        with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(statement)
            connection.execute("SELECT pg_reload_conf()")

    def is_now(wanted: str) -> bool:
        with psycopg.connect(postgres.url("postgres")) as connection:
            return connection.execute("SELECT current_setting(%s)", [name]).fetchone() == (wanted,)

    said(f"ALTER SYSTEM SET {name} = {value}")
    until(lambda: is_now(value), 5)
    try:
        yield
    finally:
        said(f"ALTER SYSTEM RESET {name}")
        until(lambda: not is_now(value), 5)


def test_a_full_disk(db: Database, url: str) -> None:
    """F23: AUDIT_UNWRITABLE while there is no room (53100), nothing written, and it heals by itself."""
    before, backend, at = started(db)
    executed(url, *DISK_FULL)
    entries, made, _ = one_more(at, before.instance)
    for _ in range(2):
        with pytest.raises(Failed, match="AUDIT_UNWRITABLE: could not extend file") as failed:
            backend.write(entries, made)
        assert not failed.value.is_fatal
    assert counted(url, "ledger_requests") == 0
    executed(url, "DROP TRIGGER no_room ON ledger_rows")
    backend.write(entries, made)
    backend.close()
    assert len(chain(db)) == 2


def test_a_server_that_only_reads(db: Database, postgres: Postgres) -> None:
    """Read-only (25006), as a server is that was taken back: nothing is written, and it heals by itself."""
    before, backend, at = started(db)
    entries, made, _ = one_more(at, before.instance)
    with system(postgres, "default_transaction_read_only", "on"):
        until(lambda: failure(backend, entries, made), 5)
        told = failure(backend, entries, made)
        assert told is not None
        assert "read-only" in told.detail
    backend.write(entries, made)
    backend.close()


def failure(backend: Any, entries: list[Entry], made: list[Any]) -> Failed | None:
    try:
        backend.write(entries, made)
    except Failed as failed:
        return failed
    return None


def test_a_lock_that_somebody_holds(db: Database, url: str) -> None:
    """F22: STORE_BUSY within the time a lock is waited for, and the next is written when it is free."""
    before, backend, at = started(db)
    entries, made, _ = one_more(at, before.instance)
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE ledger_rows")
        began = time.monotonic()
        with pytest.raises(Failed, match="STORE_BUSY: canceling statement due to lock timeout"):
            backend.write(entries, made)
        assert time.monotonic() - began < LOCK_S + 1
    backend.write(entries, made)
    backend.close()


def test_too_many_connections(postgres: Postgres, url: str, name: str, tmp_path: Path) -> None:
    """STORE_BUSY, and the next is written when there is room."""
    executed(
        url,
        "DROP ROLE IF EXISTS few",
        "CREATE ROLE few LOGIN CONNECTION LIMIT 1",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO few",
    )
    limited = url.replace("postgresql://paraph@", "postgresql://few@")
    try:
        before, backend, at = started(database_at(url, tmp_path))
        backend.close()
        entries, made, _ = one_more(at, before.instance)
        backend = database_at(limited, tmp_path).backend()
        assert isinstance(backend, postgresql.Postgresql)
        backend.go_on(before.instance, *at)
        with psycopg.connect(limited), pytest.raises(Failed, match=r"STORE_BUSY: .*too many connections"):
            backend.write(entries, made)
        until(lambda: failure(backend, entries, made) is None, 5)
        backend.close()
    finally:
        executed(url, "DROP OWNED BY few", "DROP ROLE few")


async def test_a_server_that_hangs(db: Database, postgres: Postgres) -> None:
    """
    Row 4.3: it stands still: the writer is in trouble within a second, look-ups are refused, the loop goes on; and when
    the server does, what was under way is written.
    """
    before, backend, (epoch, sequence, hash_) = await asyncio.to_thread(started, db)
    writer, reader = writer_on(backend, before.instance, epoch, hash_, sequence), db.reader()
    assert await reader.any_of(bytes(16)) is None
    with standing_still(postgres.processes()):
        waiting = writer.intend(intent(os.urandom(16), before.instance))
        looks = [asyncio.create_task(reader.any_of(os.urandom(16))) for _ in range(3)]
        looks.append(asyncio.create_task(reader.results(bytes(16), 0)))  # type: ignore[arg-type]
        longest, began = 0.0, time.monotonic()
        while time.monotonic() - began < LOOK_S + 0.3:
            turn = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - turn)
        assert longest < 0.3, "the loop waited, too"
        assert writer.trouble == "STORE_BUSY"
        assert [isinstance(one.exception(), Refusal) for one in looks] == [True] * 4
        assert not waiting.done()
    await waiting
    assert writer.trouble == ""
    assert await reader.any_of(bytes(16)) is None
    await writer.close()
    await reader.close()


async def test_a_daemon_that_ends_while_the_server_hangs(db: Database, postgres: Postgres) -> None:
    """It ends within a few seconds; and what was in doubt then is for the next start to find out."""
    before, backend, (epoch, sequence, hash_) = await asyncio.to_thread(started, db)
    writer, reader = writer_on(backend, before.instance, epoch, hash_, sequence), db.reader()
    assert await reader.any_of(bytes(16)) is None
    with standing_still(postgres.processes()):
        waiting = writer.intend(intent(os.urandom(16), before.instance))
        looking = asyncio.create_task(reader.any_of(bytes(16)))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        backend.ending()
        await writer.close()
        await reader.close()
        assert time.monotonic() - began < END_S + 8
        assert isinstance(waiting.exception(), Unrecorded)
        assert isinstance((await asyncio.gather(looking, return_exceptions=True))[0], Refusal)
    assert len(await asyncio.to_thread(chain, db)) in {1, 2}


async def test_the_reader_after_a_restart(db: Database, postgres: Postgres) -> None:
    """A look-up that finds its connection gone asks again; while there is no server it is refused."""
    reader = db.reader()
    assert await reader.any_of(bytes(16)) is None
    await asyncio.to_thread(postgres.kill)
    with pytest.raises(Refusal, match="STORE_BUSY"):
        await reader.any_of(bytes(16))
    with pytest.raises(Refusal, match="STORE_BUSY"):
        await reader.all_of(bytes(16), 0, 1)
    await asyncio.to_thread(postgres.start)
    assert await reader.any_of(bytes(16)) is None
    await asyncio.to_thread(postgres.kill)
    await asyncio.to_thread(postgres.start)
    assert await reader.all_of(bytes(16), 0, 1) == []
    await reader.close()


def test_a_server_that_keeps_nothing_is_refused(db: Database, url: str, postgres: Postgres) -> None:
    """fsync=off is said at the start, with what to do; and a reload to it is no way round."""
    before, backend, at = started(db)
    backend.close()
    entries, made, _ = one_more(at, before.instance)
    with system(postgres, "fsync", "off"):
        for use in (lambda: open_store(url), db.past):
            with pytest.raises(StoreError, match=r"fsync=off, .*; set fsync = on") as refused:
                use()
            assert not refused.value.is_temporary
        with pytest.raises(Failed, match=r"AUDIT_UNWRITABLE: .*fsync=off"):
            backend.write(entries, made)


def test_commits_are_durable_whatever_the_server_says(url: str, postgres: Postgres) -> None:
    """synchronous_commit is on, in the ledger and for credentials, where the server has it off."""
    with system(postgres, "synchronous_commit", "off"):
        engine = open_store(url)
        with engine.connect() as one:
            assert one.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"
        engine.dispose()
        with postgresql.connect(url, autocommit=True) as two:
            assert two.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_a_server_that_is_away(postgres: Postgres, url: str) -> None:
    """At the start: it is said by its URL, and passes."""
    postgres.kill()
    try:
        with pytest.raises(StoreError, match="postgresql://") as refused:
            open_store(url)
        assert refused.value.is_temporary
        assert "\n" not in str(refused.value)
    finally:
        postgres.start()


# ---- several daemons on one database


def test_whose_chain_it_is(url: str, tmp_path: Path) -> None:
    """Each state directory has a chain of its own, by the id in it; only the owner can read that file."""
    dbs = [database_at(url, tmp_path / name) for name in ("a", "b")]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for _ in range(2):
        for db in dbs:
            started(db)[1].close()
    instances = [found(db).instance for db in dbs]
    assert [(tmp_path / name / "instance").read_text() for name in ("a", "b")] == instances
    assert instances[0] != instances[1]
    assert [[(row.epoch, row.instance) for row in chain(db)] for db in dbs] == [
        [(1, one), (2, one)] for one in instances
    ]
    assert stat.S_IMODE((tmp_path / "a" / "instance").stat().st_mode) == 0o600
    (tmp_path / "a" / "instance").write_text("")
    with pytest.raises(StoreError, match="holds no id of a ledger"):
        found(dbs[0])


async def test_one_request_at_two_daemons(url: str, tmp_path: Path) -> None:
    """
    The same request id comes to two daemons at one time: one has it. At the other all that was intended for it fails, and
    nothing else of the same commit does.
    """
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = database_at(url, tmp_path / "a"), database_at(url, tmp_path / "b")
    before, backend, at = await asyncio.to_thread(started, first)
    taken = intent(os.urandom(16), before.instance)
    backend.write([taken], placed(at, before.instance, taken))
    backend.close()
    assert taken.request is not None

    mine, backend, (epoch, sequence, hash_) = await asyncio.to_thread(started, second)
    writer = writer_on(backend, mine.instance, epoch, hash_, sequence)
    ours = [intent(os.urandom(16), mine.instance) for _ in range(3)]
    lost = [intent(taken.request[0], mine.instance), Entry(Kind.INTENT, dict(taken.fields))]
    mismatch = Entry(Kind.MISMATCH, {"request": taken.fields["request"]}, must=True)
    group = [ours[0], lost[0], ours[1], lost[1], mismatch, ours[2]]
    done = asyncio.gather(*[writer.intend(entry) for entry in group], return_exceptions=True)
    for _ in range(3):
        await asyncio.sleep(0)
    assert writer._began, "the commit is under way"
    late = [intent(os.urandom(16), mine.instance), Entry(Kind.INTENT, dict(taken.fields))]
    later = asyncio.gather(*[writer.intend(entry) for entry in late], return_exceptions=True)
    answers = [isinstance(one, Unrecorded) for one in await done]
    assert answers == [False, True, False, True, False, False]
    assert [isinstance(one, Unrecorded) for one in await later] == [False, True]
    assert writer.trouble == ""
    await writer.close()
    stored = await asyncio.to_thread(chain, second)
    assert [row.fields.get("request") for row in stored[1:]] == [
        entry.fields["request"] for entry in (*ours[:2], mismatch, ours[2], late[0])
    ]
    assert (await asyncio.to_thread(found, second)).sequence == len(stored)


def asked_for(id_: bytes, caller: str = "portal", item: int = DIGESTS, body: bytes = bytes(32)) -> Asked:
    return Asked(id_, item, caller, "clerk", "key", "RAW", "ECDSA-SHA256", body, b"certificates", b"c" * 32, [], 2)


async def test_what_another_daemon_has(url: str, tmp_path: Path) -> None:
    """What it has answered is answered; what it may be at is refused, and may be asked again."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = database_at(url, tmp_path / "a"), database_at(url, tmp_path / "b")
    before, backend, at = await asyncio.to_thread(started, first)
    now = int(time.time())
    over, open_ = (intent(os.urandom(16), before.instance, accepted=now) for _ in range(2))
    group = [over, open_, outcome(over)]
    backend.write(group, placed(at, before.instance, *group))
    backend.close()
    mine, other, (epoch, sequence, hash_) = await asyncio.to_thread(started, second)
    reader = second.reader()
    ledger = Ledger(
        lambda flushed: writer_on(other, mine.instance, epoch, hash_, sequence, flushed, CIPHER.seal),
        reader,
        CIPHER,
        Clock(),
    )
    assert over.request is not None
    assert open_.request is not None
    record = await ledger.enter(asked_for(over.request[0]), time.monotonic() + 5)
    assert record.known is not None
    assert list(record.known.signatures) == [b"one", b"two"]
    assert record.todo == []
    record.leave()
    with pytest.raises(Refusal, match=r"STORE_BUSY: .*another daemon has this request"):
        await ledger.enter(asked_for(open_.request[0]), time.monotonic() + 5)
    await ledger.writer.close()
    await reader.close()


async def test_between_looking_and_entering_nobody_slips_in(db: Database) -> None:
    """Many calls with one request id at one time, from two callers: one is new, its twins wait, strangers are refused."""
    before, backend, (epoch, sequence, hash_) = await asyncio.to_thread(started, db)
    reader = db.reader()
    ledger = Ledger(
        lambda flushed: writer_on(backend, before.instance, epoch, hash_, sequence, flushed, CIPHER.seal),
        reader,
        CIPHER,
        Clock(),
    )
    id_ = os.urandom(16)
    at_once = 0
    entered: list[str] = []

    async def call(caller: str) -> str:
        nonlocal at_once
        try:
            record = await ledger.enter(asked_for(id_, caller), time.monotonic() + 5)
        except Refusal as refusal:
            return refusal.reason
        at_once += 1
        assert at_once == 1, "two have it"
        if record.known is None:
            entered.append(caller)
            await record.intend(0, 2, "card").durable
        await asyncio.sleep(0.01)
        at_once -= 1
        record._open = 0  # nothing of it is with a lane any more
        record.leave()
        return "entered"

    answers = await asyncio.gather(*[call("portal" if i % 2 == 0 else "stranger") for i in range(20)])
    assert entered == ["portal"]
    assert answers == ["entered", "REQUEST_UNKNOWN"] * 10
    assert name_of(id_) in {row.fields.get("request") for row in await asyncio.to_thread(chain, db)}
    await ledger.writer.close()
    await reader.close()
