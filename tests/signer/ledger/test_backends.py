"""The ledger on either database: the same tests, the same answers. What only PostgreSQL can do is in test_postgresql.py."""

import asyncio
import contextlib
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Connection, inspect, select
from sqlalchemy.exc import DBAPIError

from signer import credential as rows
from signer import store
from signer.chain import GENESIS, Kind
from signer.clock import Clock
from signer.database import Database, Stored, StoreError, Where, database_at
from signer.entry import Entry, Failed, Taken
from signer.recovery import Broken, begin, has_row, look
from signer.results import Part, outcomes
from signer.store import VERSION, open_store
from tests.pki import Pki
from tests.postgres import Postgres
from tests.signer.ledger.entries import (
    CIPHER,
    as_it_is,
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


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Where:
    """An empty place."""
    if request.param == "sqlite":
        return tmp_path / "state" / "paraph.sqlite"
    server: Postgres = request.getfixturevalue("postgres")
    return server.create(f"backends {next(_databases)}")


@pytest.fixture
def db(where: Where, tmp_path: Path) -> Database:
    open_store(where).dispose()
    (tmp_path / "state").mkdir(exist_ok=True)
    return database_at(where, tmp_path / "state")


def test_what_is_written_is_read(db: Database, where: Where) -> None:
    """Rows, a request with its results in their order, its certificates, and the last checkpoint, byte for byte."""
    before, backend, at = started(db)
    assert (before.epoch, before.hash, before.note, before.head) == (0, GENESIS, "", None)
    id_ = os.urandom(16)
    first = intent(id_, before.instance)
    group = [first, outcome(first, 2, [None, b"two"]), outcome(first, 1, [b"one", None])]
    group[2].closes = False
    text_ = {"text": 'a "b" \\ \u00e9 \u2028 \n'}
    group.append(Entry(Kind.MISMATCH, text_, must=True))
    written = placed(at, before.instance, *group)
    backend.write(group, written)
    backend.pulse()
    again = Entry(Kind.INTENT, {"request": name_of(id_)}, chain=first.chain)  # its certificates are known already
    last = (at[0], written[-1][0].sequence, written[-1][0].hash)
    backend.write([again], placed(last, before.instance, again))
    backend.close()

    stored = chain(db)
    assert [row.kind for row in stored] == ["EPOCH", "INTENT", "OUTCOME", "OUTCOME", "IDEMPOTENCY_MISMATCH", "INTENT"]
    assert stored[1:5] == [row for row, _ in written]
    assert stored[4].fields == text_
    assert all(row.is_whole() for row in stored)
    now = found(db)
    assert (now.instance, now.epoch, now.sequence, now.open_intents) == (before.instance, 1, 6, (stored[5],))
    with contextlib.closing(db.past()) as past:
        assert now.head is not None
        assert has_row(past, now.head)
        assert past.hash_of(now.instance, 1, 7) is None
    assert first.request is not None
    with_item = (first.request[1], *first.request[2:])

    async def read() -> None:
        reader = db.reader()
        expected = Stored(*with_item)
        assert await reader.any_of(id_) == await reader.request(id_, -1) == expected
        assert await reader.all_of(id_, -1, 5) == [expected]
        assert (await reader.any_of(bytes(16)), await reader.request(id_, 0)) == (None, None)
        parts = [Part.of(CIPHER.open(id_, -1, data)) for data in await reader.results(id_, -1)]
        assert [part.signatures for part in parts] == [[b"one", None], [None, b"two"]]
        assert await reader.certificates(b"c" * 32) == b"certificates"
        await reader.close()

    asyncio.run(read())
    assert counted(where, "ledger_chains") == 1


def test_items_of_a_request(db: Database) -> None:
    """Documents have their places: one, any, some from one on, and many looked up at one time."""
    before, backend, at = started(db)
    id_, other = os.urandom(16), os.urandom(16)
    group = []
    for item in (0, 3, 4, 9):
        made = intent(id_, before.instance)
        assert made.request is not None
        made.request = (id_, item, *made.request[2:])
        group.append(made)
    backend.write(group, placed(at, before.instance, *group))
    backend.close()

    async def read() -> None:
        reader = db.reader()
        assert [each.item for each in await reader.all_of(id_, 3, 2)] == [3, 4]
        asked = [reader.request(id_, item) for item in range(12)] + [reader.any_of(id_), reader.any_of(other)]
        answers = [each and each.item for each in await asyncio.gather(*asked)]
        assert answers == [0, None, None, 3, 4, None, None, None, None, 9, None, None, 0, None]
        await reader.close()

    asyncio.run(read())


def test_a_checkpoint_is_kept(db: Database) -> None:
    before, backend, at = started(db)
    entry = Entry(Kind.CHECKPOINT, {"number": 1}, note="the note\nof the last one\n")
    backend.write([entry], placed(at, before.instance, entry))
    backend.close()
    assert found(db).note == "the note\nof the last one\n"


FAILS = {
    "sqlite": [
        "CREATE TRIGGER fails BEFORE INSERT ON ledger_rows WHEN NEW.kind = 'GAP' BEGIN SELECT RAISE(ABORT, 'no'); END"
    ],
    "postgresql": [
        "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$",
        "CREATE TRIGGER fails BEFORE INSERT ON ledger_rows FOR EACH ROW WHEN (NEW.kind = 'GAP') EXECUTE FUNCTION fails()",
    ],
}


def test_a_group_is_written_or_not(db: Database, where: Where) -> None:
    """Where a statement fails in the middle nothing of its group is left, and the same places are written next."""
    before, backend, at = started(db)
    executed(where, *FAILS["sqlite" if isinstance(where, Path) else "postgresql"])
    first = intent(os.urandom(16), before.instance)
    group = [first, outcome(first), Entry(Kind.GAP, {}), Entry(Kind.CHECKPOINT, {}, note="new")]
    with pytest.raises(Failed, match=r"AUDIT_UNWRITABLE: .*no") as failed:
        backend.write(group, placed(at, before.instance, *group))
    assert not failed.value.is_fatal
    tables = ("ledger_requests", "ledger_results", "ledger_chains")
    assert [counted(where, table) for table in tables] == [0, 0, 0]
    assert [row.kind for row in chain(db)] == ["EPOCH"]
    assert found(db).note == ""
    group = [first, outcome(first)]
    backend.write(group, placed(at, before.instance, *group))
    backend.close()
    assert [counted(where, table) for table in tables] == [1, 1, 1]
    assert [row.sequence for row in chain(db)] == [1, 2, 3]


def test_a_request_that_is_there_already(db: Database, where: Where) -> None:
    """Of a commit that brings it once more nothing is written, and its name is told; without it the rest is."""
    before, backend, at = started(db)
    there = intent(os.urandom(16), before.instance)
    first = placed(at, before.instance, there)
    backend.write([there], first)
    assert there.request is not None
    at = (at[0], first[0][0].sequence, first[0][0].hash)
    others = [intent(os.urandom(16), before.instance) for _ in range(70)]
    group = [*others, intent(there.request[0], before.instance)]
    with pytest.raises(Taken) as taken:
        backend.write(group, placed(at, before.instance, *group))
    assert taken.value.names == {there.fields["request"]}
    assert counted(where, "ledger_requests") == 1
    backend.write(others, placed(at, before.instance, *others))
    assert counted(where, "ledger_requests") == 71
    twice = [intent(id_, before.instance) for id_ in [os.urandom(16)] * 2]  # in one commit: nobody's mistake but ours
    at = (at[0], others[-1].sequence, chain(db)[-1].hash)
    with pytest.raises(Failed):
        backend.write(twice, placed(at, before.instance, *twice))
    backend.close()


def test_a_new_epoch_fences_off_the_old_one(db: Database) -> None:
    """Whose epoch is over writes nothing more, not even a pulse, and ends."""
    before, old, at = started(db)
    first = intent(os.urandom(16), before.instance)
    written = placed(at, before.instance, first)
    old.write([first], written)
    between, new, _ = started(db)
    assert (between.epoch, len(between.open_intents)) == (1, 1)
    stored = chain(db)
    second = intent(os.urandom(16), before.instance)
    last = (at[0], written[-1][0].sequence, written[-1][0].hash)
    with pytest.raises(Failed, match="epoch 1 of this ledger is over") as failed:
        old.write([second], placed(last, before.instance, second))
    assert failed.value.is_fatal
    with pytest.raises(Failed, match="epoch 1 of this ledger is over") as failed:
        old.pulse()
    assert failed.value.is_fatal
    assert chain(db) == stored
    new.pulse()
    old.close()
    new.close()


def test_two_begin_at_one_time(db: Database) -> None:
    """One epoch has one daemon; and none begins behind rows that came after it had looked."""
    before, old, at = started(db)
    backend = db.backend()
    with contextlib.closing(db.past()) as past:
        seen = look(past)
        first = intent(os.urandom(16), before.instance)
        old.write([first], placed(at, before.instance, first))
        with pytest.raises(Failed, match="the ledger has grown since it was read") as failed:
            begin(past, backend, seen, CIPHER, "1")
        assert (failed.value.reason, failed.value.is_fatal) == ("STORE_BUSY", False)
        seen = look(past)
        begin(past, backend, seen, CIPHER, "1")
        with pytest.raises(Failed, match="another daemon has begun an epoch after 1"):
            begin(past, db.backend(), seen, CIPHER, "1")
    old.close()
    backend.close()
    assert [(row.epoch, row.sequence) for row in chain(db)] == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_what_a_crash_left_open(db: Database) -> None:
    """
    F26, F27: an INTENT without an OUTCOME is POSSIBLE_UNRELEASED_SIGNATURE after the next start, its items INDETERMINATE
    where nothing is known of them; once, whichever start that is.
    """
    before, backend, at = started(db)
    closed, open_, half = (intent(os.urandom(16), before.instance) for _ in range(3))
    part = outcome(half, 1, [b"one", None])
    part.closes = False
    group = [closed, open_, outcome(closed), half, part]
    backend.write(group, placed(at, before.instance, *group))
    backend.close()
    seen, backend, _ = started(db)
    backend.close()
    assert [each.fields["request"] for each in seen.open_intents] == [
        name_of(each.request[0]) for each in (open_, half) if each.request
    ]
    possible = [row.fields for row in chain(db) if row.kind == Kind.POSSIBLE]
    places = [(each["intent"], each["items"]) for each in possible]
    assert places == [([1, open_.sequence], [0, 1]), ([1, half.sequence], [1])]
    assert (found(db).open_intents, found(db).epoch) == ((), 2)

    async def known(of: Entry) -> list[str]:
        assert of.request is not None
        reader = db.reader()
        parts = [Part.of(CIPHER.open(of.request[0], -1, data)) for data in await reader.results(of.request[0], -1)]
        await reader.close()
        told = outcomes(2, parts)
        return [told.problems[i].status.value if i in told.problems else "SIGNED" for i in range(2)]

    assert asyncio.run(known(open_)) == ["INDETERMINATE"] * 2
    assert asyncio.run(known(half)) == ["SIGNED", "INDETERMINATE"]
    assert asyncio.run(known(closed)) == ["SIGNED"] * 2


def test_an_emptied_or_shortened_chain_is_refused(db: Database, where: Where) -> None:
    """F25: rows that are gone, in the middle or all of them, are seen."""
    before, backend, at = started(db)
    entries = [intent(os.urandom(16), before.instance) for _ in range(3)]
    backend.write(entries, placed(at, before.instance, *entries))
    backend.close()
    executed(where, "DELETE FROM ledger_rows WHERE sequence = 3")
    with pytest.raises(Broken, match="rows are missing"):
        found(db)
    executed(where, "DELETE FROM ledger_rows")
    with pytest.raises(Broken, match="it was emptied"):
        found(db)


@pytest.mark.parametrize(
    "change", ["closes = 2 WHERE sequence = 5", "closes = NULL WHERE sequence = 4", "closes = 2 WHERE sequence = 4"]
)
def test_what_stands_beside_a_row_is_not_believed(db: Database, where: Where, change: str) -> None:
    """
    Row 4.4: which INTENT is closed stands in the row's text, which is hashed: the column beside it, changed so that an open
    INTENT is hidden, or a closed one is open, is seen at the next start.
    """
    before, backend, at = started(db)
    open_, closed = (intent(os.urandom(16), before.instance) for _ in range(2))
    group = [open_, closed, outcome(closed), Entry(Kind.RELEASED, {"requests": [name_of(os.urandom(16))]}, must=True)]
    backend.write(group, placed(at, before.instance, *group))
    backend.close()
    assert [row.sequence for row in found(db).open_intents] == [open_.sequence] == [2]
    executed(where, f"UPDATE ledger_rows SET {change}")
    with pytest.raises(Broken, match="said to close another INTENT"):
        found(db)


def test_erased_after_a_day(db: Database, where: Where) -> None:
    """Requests before that second and their results go, the oldest first, so many at a time; rows stay."""
    before, backend, at = started(db)
    group: list[Entry] = []
    for accepted in (30, 10, 20, 40):
        first = intent(os.urandom(16), before.instance, accepted=accepted)
        group += [first, outcome(first)]
    backend.write(group, placed(at, before.instance, *group))
    eraser = db.eraser()
    length = len(chain(db))
    assert [eraser.erase(40, 2), eraser.erase(40, 2), eraser.erase(40, 2)] == [2, 1, 0]
    eraser.close()
    backend.close()
    assert (counted(where, "ledger_requests"), counted(where, "ledger_results")) == (1, 1)
    assert len(chain(db)) == length


async def test_the_writer_on_it(db: Database) -> None:
    """Groups of all sizes, in one chain; what was acknowledged is there, in the order it came in."""
    before, backend, (epoch, sequence, hash_) = await asyncio.to_thread(started, db)
    writer = writer_on(backend, before.instance, epoch, hash_, sequence)
    names = []
    for size in (1, 7, 64, 65, 200, 3):
        entries = [intent(os.urandom(16), before.instance) for _ in range(size)]
        names += [entry.fields["request"] for entry in entries]
        await asyncio.gather(*[writer.intend(entry) for entry in entries])
        for entry in entries:
            writer.add(outcome(entry))
    await writer.close()
    stored = await asyncio.to_thread(chain, db)
    assert [row.fields["request"] for row in stored if row.kind == Kind.INTENT] == names
    assert writer.head == (stored[-1].sequence, stored[-1].hash)
    assert (await asyncio.to_thread(found, db)).open_intents == ()


def test_newer_schema_is_refused(where: Where) -> None:
    """F58: a database of a newer program is refused with its version, and left as it is."""
    executed(where, f"UPDATE schema_version SET version = {VERSION + 1}")
    for _ in range(2):
        with pytest.raises(StoreError, match=f"has schema {VERSION + 1}, this program knows {VERSION}") as refused:
            open_store(where)
        assert not refused.value.is_temporary


def old_schema(where: Where) -> None:
    """As version 1 left it: credentials with seven columns, no ledger, and no people."""
    later = set(store.METADATA.tables) - {"schema_version", "credentials", "changes"}
    columns = ("gate", "subject", "digests_max", "lifetime_s", "hours", "claimed")
    executed(
        where,
        *(f"DROP TABLE {name}" for name in sorted(later)),
        *(f"ALTER TABLE credentials DROP COLUMN {name}" for name in columns),
        "INSERT INTO credentials VALUES ('clerk', 'SIGNATURE', 'PEM', NULL, 'key', 'RAW', 'ACTIVE')",
        "UPDATE schema_version SET version = 1",
    )


def tables(where: Where) -> tuple[set[str], int, int]:
    """Names, the schema's version, and how many credentials there are."""
    with as_it_is(where) as connection:
        version = connection.execute(select(store.schema.c.version)).scalar_one()
        count = len(connection.execute(select(store.credentials.c.name)).all())
        return set(inspect(connection).get_table_names()), version, count


def test_older_schema_is_migrated(where: Where) -> None:
    """F58: version 1 becomes this one, and keeps what it has."""
    old_schema(where)
    assert tables(where)[1:] == (1, 1)
    open_store(where).dispose()
    assert tables(where) == (set(store.METADATA.tables), VERSION, 1)


def test_attempts_of_version_3_are_kept(where: Where) -> None:
    """What was counted before there were attempts of strangers counts for everybody."""
    executed(
        where,
        "ALTER TABLE guesses DROP COLUMN is_open",
        "INSERT INTO guesses (subject, credential, source, time) VALUES ('ada', 'ada', '', 1)",
        "UPDATE schema_version SET version = 3",
    )
    open_store(where).dispose()
    assert tables(where)[1] == VERSION
    with as_it_is(where) as connection:
        assert connection.execute(select(store.guesses.c.subject, store.guesses.c.is_open)).all() == [("ada", 0)]


def test_a_migration_that_fails_leaves_the_old_one(where: Where) -> None:
    """F58: a step that fails in the middle changes nothing, and says what is wrong; the next start tries again."""
    old_schema(where)
    # The name of what the migration makes after some tables is taken.
    with as_it_is(where) as connection:
        connection.exec_driver_sql("CREATE INDEX ledger_requests_accepted ON credentials (name)")
    before = tables(where)
    for _ in range(2):
        with pytest.raises(StoreError, match="ledger_requests_accepted"):
            open_store(where)
        assert tables(where) == before
    with as_it_is(where) as connection:
        connection.exec_driver_sql("DROP INDEX ledger_requests_accepted")
    open_store(where).dispose()
    assert tables(where)[1:] == (VERSION, 1)


def test_many_open_it_at_one_time(where: Where) -> None:
    """Daemons and commands that start together make the tables once."""
    with ThreadPoolExecutor(8) as pool:
        for engine in pool.map(open_store, [where] * 8):
            engine.dispose()
    assert counted(where, "schema_version") == 1


def test_a_database_that_is_looked_at(where: Where, tmp_path: Path) -> None:
    """Its credentials, in whatever state it is: no file is made, no step of the schema is taken, nothing is written."""
    assert rows.look(where) == {}
    if isinstance(where, Path):
        assert not where.exists()
        where.parent.mkdir()
        where.touch()
    assert rows.look(where) == {}
    with as_it_is(where) as connection:
        assert inspect(connection).get_table_names() == []
    engine = open_store(where)
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    chain_ = Pki(tmp_path / "pki").signer("Clerk", spki)
    added = rows.add(engine, "clerk", chain_, cka_id=None, key_label="k", outputs=[rows.Output.RAW], clock=Clock())
    engine.dispose()
    assert rows.look(where) == {"clerk": added}
    only = store.as_it_is(where)
    with only.connect() as connection, pytest.raises(DBAPIError, match=r"read-?only"):
        connection.exec_driver_sql("DELETE FROM credentials")
    only.dispose()
    executed(where, "ALTER TABLE credentials RENAME COLUMN outputs TO inputs")
    with pytest.raises(StoreError, match="outputs"):
        rows.look(where)


def test_nothing_is_half_made(where: Where, monkeypatch: pytest.MonkeyPatch) -> None:
    """F58: a first start that fails in the middle leaves no table."""
    migrated = store._migrated

    def fails(connection: Connection) -> int:
        migrated(connection)
        raise DBAPIError("", None, Exception("no"))

    monkeypatch.setattr(store, "_migrated", fails)
    with pytest.raises(StoreError, match="no"):
        open_store(where)
    with as_it_is(where) as connection:
        assert inspect(connection).get_table_names() == []
    monkeypatch.undo()
    open_store(where).dispose()
    assert counted(where, "schema_version") == 1
