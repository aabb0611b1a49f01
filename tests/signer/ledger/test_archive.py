"""Old rows leave the database for a file, and the ledger is as whole as before: to the daemon, and to an auditor."""

import argparse
import json
import signal
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from sqlalchemy import Engine, event

from signer import archive as archives
from signer import config, store
from signer.archive import Archived, NotWhole, Pause, archive
from signer.chain import Kind, Row
from signer.cli import archive as command
from signer.database import DATABASE, database_at, where
from signer.lost import notes_of
from signer.note import Note
from signer.note import sign as made
from signer.recovery import Broken
from signer.store import open_store
from tests.daemon import Rig, running, until
from tests.postgres import Postgres
from tests.signer.access.calls import Caller, card_rig, digest, shim_of, statuses
from tests.signer.ledger.book import book, found, request, result
from tests.signer.ledger.histories import Key
from tests.signer.ledger.kept import Kept
from tests.signer.ledger.test_export import change, export, verify
from tests.signer.ledger.test_restore import again, new_checkpoint

LATER = timedelta(days=2)


@pytest.fixture(scope="module")
def kept() -> Iterator[Kept]:
    """Rows that a checkpoint covers, and rows behind it."""
    with running(card_rig("P-256")) as made:
        sign(made)
        new_checkpoint(made)
        sign(made)
        made.stop(signal.SIGKILL)  # a daemon that ends in order makes a last checkpoint
        yield Kept(made)


@pytest.fixture
def rig(kept: Kept) -> Rig:
    return kept.put_back()


def archived(
    rig: Rig, later: timedelta = LATER, pause: Pause = lambda _: None, more: Sequence[Note] = ()
) -> Archived | None:
    """As the command does it, so much later."""
    directory = rig.directory / "archive"
    directory.mkdir(exist_ok=True)
    public = load_pem_public_key((rig.keys / "checkpoint.pub").read_bytes())
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    place = where(config.load(rig.config))
    engine = open_store(place)
    with closing(database_at(place, rig.state).past()) as past:
        notes = [*notes_of([rig.anchor]), *more]
        done = archive(past, engine, notes, spki, directory, now=datetime.now(UTC) + later, pause=pause)
    engine.dispose()
    return done


def sign(rig: Rig, times: int = 3) -> None:
    with Caller(rig) as portal:
        for number in range(times):
            assert statuses(portal.sign(digests=[digest(number)])) == ["SIGNED"]


def check_life(rig: Rig) -> None:
    """Archived twice, while the daemon runs and after a start; every time all files together are whole."""
    files: list[Path] = []
    for _ in range(2):
        sign(rig)
        new_checkpoint(rig)
        sign(rig)
        everything = book(rig.state)
        done = archived(rig)
        assert done is not None
        files.append(done.file)
        assert done.deleted == done.rows - 1 > 0, "the row that the checkpoint names stays"
        assert book(rig.state)[0].hash == everything[done.deleted].hash
        sign(rig)
        again_started = found(rig.state)
        assert again_started.epoch
        rig._hand_over()
        done_verify = verify(rig, *files, export(rig, f"rest {len(files)}"))
        assert done_verify.returncode == 0, done_verify.stdout
        assert "with its first row" in done_verify.stdout
        alone = verify(rig, rig.directory / f"rest {len(files)}")
        assert alone.returncode == 4, "the rest by itself does not say that the files before it were"
        assert "give the archived segments, too" in " ".join(alone.stdout.split())
    rig.stop()
    again(rig)
    sign(rig)


def test_archived_while_it_runs(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some rows at a time; the daemon signs on, and starts again, with a chain that begins in the middle."""
    again(rig)
    monkeypatch.setattr(archives, "DELETE_ROWS", 3)
    check_life(rig)
    check_two_at_once(rig)


def test_archived_in_postgresql(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    made = card_rig("P-256")
    made.database = postgres.create("archive")
    with running(made):
        check_life(made)
        sign(made)
        new_checkpoint(made)
        check_one_after_the_other(made.database, *book(made.state)[:2])
        monkeypatch.setattr(archives, "DELETE_ROWS", 3)
        check_two_at_once(made)


def check_two_at_once(rig: Rig) -> None:
    """One begins while another is at it, and is the first to end: both say what they have deleted, and all is whole."""
    sign(rig, 6)
    new_checkpoint(rig)
    everything, others = len(book(rig.state)), list[Archived | None]()

    def another(_: float) -> None:
        if not others:
            others.append(archived(rig))
        assert found(rig.state).epoch, "a daemon would start now"

    slower = archived(rig, pause=another)
    [faster] = others
    assert slower is not None
    assert faster is not None
    assert (slower.deleted, faster.deleted > 3) == (3, True)
    assert slower.deleted + faster.deleted == everything - len(book(rig.state))
    rig._hand_over()
    rest = rig.directory / f"rest {everything}"
    done = verify(rig, slower.file, faster.file, export(rig, rest.name))
    assert done.returncode == 4, "all is there but what was archived before: " + done.stdout
    new_checkpoint(rig)


def check_one_after_the_other(url: str, first: Row, second: Row) -> None:
    """PostgreSQL's transactions do not exclude one another: who would move the mark waits for who does."""
    engine = open_store(url)
    with ThreadPoolExecutor() as pool, psycopg.connect(url, autocommit=True) as watching:
        later: list[Future[int]] = []

        def begin_another(_connection: object) -> None:
            if not later:
                later.append(pool.submit(archives._delete_to, engine, first))
                until(lambda: watching.execute("SELECT FROM pg_locks WHERE NOT granted").fetchone() is not None, 5, "")

        event.listen(engine, "commit", begin_another)
        assert archives._delete_to(engine, second) == 2
        assert later[0].result() == 0
    engine.dispose()


def test_the_lock_is_held_for_the_rows_that_go(rig: Rig) -> None:
    """While rows are deleted the daemon waits: SQLite looks at no other rows of the chain than those."""
    asked: list[tuple[str, Any]] = []
    listen = lambda _connection, _cursor, statement, values, *_: asked.append((statement, values))  # noqa: E731
    event.listen(Engine, "before_cursor_execute", listen)
    try:
        assert archived(rig) is not None
    finally:
        event.remove(Engine, "before_cursor_execute", listen)
    deletes = [each for each in asked if each[0].startswith("DELETE FROM ledger_rows")]
    assert deletes
    with closing(sqlite3.connect(rig.state / DATABASE)) as db:
        plans = [db.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall() for statement, values in deletes]
    assert all("epoch" in detail for plan in plans for *_, detail in plan), plans


def test_somebody_else_has_the_lock(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lock that lasts: exit 75, what to do, and nothing is lost. Done again, everything is in the files."""
    everything = book(rig.state)
    first, second = rig.directory / "first", rig.directory / "second"
    checked = archives._check
    with closing(sqlite3.connect(rig.state / DATABASE, isolation_level=None)) as other:

        def lock(*words: Any) -> None:
            checked(*words)
            other.execute("BEGIN IMMEDIATE")

        monkeypatch.setattr(archives, "_check", lock)
        monkeypatch.setattr(store, "BUSY_S", 0.1)
        assert archived_by_command(rig, first, monkeypatch) == 75
        [file] = first.iterdir()
        said = capsys.readouterr().err
        assert f"database is locked; not every row of {file} was deleted. Keep it, and try again with another" in said
        other.execute("ROLLBACK")
    monkeypatch.setattr(archives, "_check", checked)
    assert book(rig.state) == everything
    assert archived_by_command(rig, second, monkeypatch) == 0
    rig._hand_over()
    done = verify(rig, file, *second.iterdir(), export(rig, "rest"))
    assert done.returncode == 0, done.stdout


def archived_by_command(rig: Rig, directory: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """In this process, two days later."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + LATER

    directory.mkdir()
    monkeypatch.setattr(command, "datetime", Later)
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    return command.run(parser.parse_args(["--config", str(rig.config), str(directory)]))


def test_nothing_young_is_archived(rig: Rig) -> None:
    """Rows of the last 24 h stay: their requests may come again. The command says that there is nothing."""
    before = book(rig.state)
    directory = rig.directory / "files"
    directory.mkdir()
    rig._hand_over()
    done = rig.command("audit", "archive", "--config", rig.config, directory)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing to archive" in done.stdout
    assert archived(rig, timedelta(hours=23)) is None
    assert [row.hash for row in book(rig.state)][: len(before)] == [row.hash for row in before]


def test_what_is_open_stays(rig: Rig) -> None:
    """An INTENT without OUTCOME, and all after it, is not archived; its request ends as if nothing had been."""
    message = request(digests=[digest(1)])
    again(rig)
    shim_of(rig).script("C_Sign * hold 60")
    with Caller(rig) as portal:
        call = portal.signing.SignDigests.future(message, timeout=20)
        until(lambda: [row for row in book(rig.state) if message.request_id in row.body], 5, "INTENT")
        done = archived(rig)
        assert done is not None
        assert [row.kind for row in book(rig.state) if message.request_id in row.body] == [Kind.INTENT]
        shim_of(rig).clear()
        assert call.result().items[0].signature
        assert result(portal, message.request_id).code == "OK"


def test_a_broken_ledger_is_not_archived(rig: Rig) -> None:
    """Evidence stays where it is: edited rows, and rows that were made anew without the key."""
    change(rig, "UPDATE ledger_rows SET body = replace(body, 'portal', 'nobody') WHERE kind = 'INTENT'")
    with pytest.raises(Broken):
        archived(rig)
    done = rig.command("audit", "archive", "--config", rig.config, rig.directory)
    assert done.returncode == 1
    assert "nothing was deleted" in done.stderr
    assert not list((rig.directory / "archive").iterdir())


def test_a_file_that_is_not_whole(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written is judged as it is read back; if that says no, nothing is deleted and no file is left."""
    count = len(book(rig.state))
    segment = archives._segment
    monkeypatch.setattr(archives, "_segment", lambda rows: (line.replace("portal", "nobody") for line in segment(rows)))
    with pytest.raises(NotWhole, match="EDITED"):
        archived(rig)
    assert len(book(rig.state)) >= count
    assert not list((rig.directory / "archive").iterdir())


def test_others_put_into_the_same_log(rig: Rig) -> None:
    """Another daemon's checkpoints, by another key or by the same one, and false ones, are no reason against a file."""
    first = notes_of([rig.anchor])[0]
    elsewhere = replace(first.checkpoint, own=replace(first.checkpoint.own, instance="ab" * 16))
    by_path = load_pem_private_key((rig.keys / "checkpoint.key").read_bytes(), None)
    assert isinstance(by_path, Ed25519PrivateKey)
    spki = by_path.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    same_key = made(elsewhere, spki, "ED25519", by_path.sign)
    false = Key(1).sign(replace(first.checkpoint, number=first.checkpoint.number + 1))
    done = archived(rig, more=[Key(1).sign(elsewhere), same_key, false])
    assert done is not None
    assert done.deleted


def test_an_anchor_that_is_behind(rig: Rig) -> None:
    """An anchor that was away knows only a row that has left the database: that is no reason to refuse a start."""
    first = "".join(map(str, notes_of([rig.anchor])[:1]))
    assert archived(rig) is not None
    rig.anchor.write_text(first)
    again(rig)
    sign(rig)


def test_what_is_missing_after_the_mark_is_seen(rig: Rig) -> None:
    """The mark says which row was the last: the first one behind it may not be taken away."""
    assert archived(rig) is not None
    with closing(sqlite3.connect(rig.state / DATABASE)) as db:
        [(body,)] = db.execute("SELECT body FROM ledger_rows WHERE epoch = 0 AND sequence = 0").fetchall()
        assert list(json.loads(body)) == ["last"]
    change(rig, f"DELETE FROM ledger_rows WHERE {_FIRST}")
    with pytest.raises(Broken, match="rows are missing"):
        found(rig.state)


_FIRST = (
    "(epoch, sequence) = (SELECT epoch, sequence FROM ledger_rows WHERE epoch > 0 ORDER BY epoch, sequence LIMIT 1)"
)
