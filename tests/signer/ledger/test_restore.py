"""A backup of a running daemon, and what becomes of a ledger when it is put back."""

import argparse
import resource
import shutil
import signal
import sqlite3
import stat
import tracemalloc
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from signer import restore as restoring
from signer.chain import Kind
from signer.cli import restore as command
from signer.database import StoreError
from signer.evidence import SqliteEvidence
from signer.lost import Loss
from signer.note import NOTHING, Checkpoint, Head, Note, parse
from signer.recovery import Found
from signer.request_id import new_request_id
from signer.restore import Halfway
from signer.store import open_store
from tests.daemon import Rig, running, until
from tests.signer.access.calls import Caller, ask, card_rig, digest, shim_of, signed, statuses
from tests.signer.ledger.book import book, request, result, signatures, statuses_of
from tests.signer.ledger.histories import Key
from tests.signer.ledger.kept import Kept
from tests.signer.ledger.test_export import checkpoints, export, verify

REASON = "the disk failed on Monday"


@pytest.fixture
def rig() -> Iterator[Rig]:
    with running(card_rig("P-256")) as made:
        yield made


@dataclass(frozen=True)
class Lost:
    """A daemon that is stopped, with a backup and rows after it."""

    rig: Rig
    backup: Path
    request: str  # signed after the backup


@pytest.fixture(scope="module")
def once() -> Iterator[tuple[Kept, Lost]]:
    with running(card_rig("P-256")) as made:
        there = Lost(made, *lose_rows(made))
        yield Kept(made), there


@pytest.fixture
def lost(once: tuple[Kept, Lost]) -> Lost:
    kept, there = once
    kept.put_back()
    return there


def backup(rig: Rig, name: str = "monday.sqlite") -> Path:
    file = rig.directory / name
    done = rig.command("backup", "--config", rig.config, file)
    assert done.returncode == 0, done.stderr
    return file


def restore(rig: Rig, file: Path, *words: str) -> CompletedProcess[str]:
    return rig.command("restore", "--config", rig.config, "--reason", REASON, *words, file)


def again(rig: Rig) -> None:
    rig.launch()
    rig.wait_serving()


def new_checkpoint(rig: Rig) -> None:
    """A start makes one at once, which covers everything before it."""
    before = checkpoints(rig)
    rig.stop()
    again(rig)
    until(lambda: checkpoints(rig) > before, 5, "a checkpoint")


def lose_rows(rig: Rig) -> tuple[Path, str]:
    """A backup, and a request after it that checkpoints cover; the daemon is stopped then."""
    with Caller(rig) as portal:
        assert statuses(portal.sign()) == ["SIGNED"]
        file = backup(rig)
        message = ask(request_id=new_request_id(), digests=[digest(7)])
        assert statuses(portal.sign(message)) == ["SIGNED"]
    new_checkpoint(rig)
    rig.stop()
    return file, message.request_id


def test_a_backup_while_it_runs(rig: Rig) -> None:
    """
    One file, whole, its owner's alone, with every row that was there; the daemon signs on; nothing is written over. It
    is never put back under a daemon that runs: exit 75, and nothing is touched.
    """
    with Caller(rig) as portal:
        assert statuses(portal.sign()) == ["SIGNED"]
        until(lambda: checkpoints(rig), 5, "a checkpoint")
        count = len(book(rig.state))
        file = backup(rig)
        assert statuses(portal.sign()) == ["SIGNED"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*) FROM ledger_rows").fetchone()[0] >= count
    assert sorted(path.name for path in rig.directory.glob("*monday*")) == ["monday.sqlite"]
    content = file.read_bytes()
    done = rig.command("backup", "--config", rig.config, file)
    assert (done.returncode, file.read_bytes()) == (2, content)
    done = restore(rig, file)
    assert done.returncode == 75
    assert "stop it first" in done.stderr
    assert not list(rig.state.glob("paraph.sqlite.*"))


def test_restore_declares_what_is_lost(lost: Lost) -> None:
    """
    After a restore the daemon starts and signs; the verifier says that the ledger is whole but for a declared gap (exit
    3); an epoch that had begun in what is lost is not used again; and the old database is kept.
    """
    rig, file = lost.rig, lost.backup
    old = {(row.epoch, row.sequence): row.hash for row in book(rig.state)}
    heads = [note.checkpoint.heads[0] for note in parse(rig.anchor.read_text())]
    done = restore(rig, file)
    assert done.returncode == 0, done.stderr
    assert " that were taken over from the old database: 1. The same request id" in done.stdout
    rows = book(rig.state)
    gaps = [row for row in rows if row.kind == Kind.GAP]
    begin = next(row for row in rows if row.epoch == gaps[0].epoch)
    assert [row.kind for row in rows if row.epoch == begin.epoch] == [Kind.EPOCH] + [Kind.GAP] * len(gaps)
    assert begin.epoch > max(epoch for epoch, _ in old)
    assert begin.fields["restored"]["reason"] == REASON
    kept = [row for row in rows if row.epoch < begin.epoch]
    for gap in gaps:
        said = gap.fields
        assert set(said) >= {"instance", "epoch", "from", "to", "hash", "reason", "time", "kept"}
        assert said["hash"] == old[said["epoch"], said["to"]].hex()
        assert said["from"] == (kept[-1].sequence + 1 if said["epoch"] == kept[-1].epoch else 1)
        anchored = [head.sequence for head in heads if head.epoch == said["epoch"] and head.sequence >= said["from"]]
        unanchored = max(sequence for epoch, sequence in old if epoch == said["epoch"])
        assert said["to"] == (anchored[-1] if anchored else unanchored)
    newest = heads[-1]
    assert (newest.epoch, newest.sequence) == (gaps[-1].fields["epoch"], gaps[-1].fields["to"])
    [aside] = rig.state.glob("paraph.sqlite.before-*Z")
    with closing(sqlite3.connect(aside)) as db:
        assert db.execute("SELECT count(*) FROM ledger_rows").fetchone() == (len(old),)
    again(rig)
    with Caller(rig) as portal:
        assert statuses(portal.sign()) == ["SIGNED"]
        before = signed(rig)
        told = portal.sign(request_id=lost.request, digests=[digest(7)])
        assert signatures(told) == signatures(result(portal, lost.request)), "carried over from the old database"
        assert signed(rig) == before, "a request of the lost range was signed again"
    done = verify(rig, export(rig, "after"))
    assert done.returncode == 3, done.stdout
    assert REASON in done.stdout
    new_checkpoint(rig)
    rig.stop()
    assert not rig.log.read_text().count("somebody changed it")
    done = verify(rig, export(rig, "much later"))
    assert done.returncode == 3, done.stdout
    for path in (rig.state / "paraph.sqlite", *rig.state.glob("paraph.sqlite-*")):
        path.unlink()
    shutil.move(aside, rig.state / "paraph.sqlite")
    done = verify(rig, export(rig, "found again"), rig.directory / "much later")
    assert done.returncode == 3, "both branches, as they were: " + done.stdout


def test_who_has_no_key_is_not_believed(lost: Lost) -> None:
    """
    Notes in a log that somebody else has signed, with old numbers: they are named and ignored, whatever they say; the newest
    of all is never ignored. What is declared as lost is what this daemon's own say.
    """
    rig, file = lost.rig, lost.backup
    instance = book(rig.state)[0].instance
    real = list(parse(rig.anchor.read_text()))
    number = real[-1].checkpoint.number
    forged = rig.directory / "from the log server"
    too_far = Head(instance, 999999999999999999, 5, bytes(32))
    forged.write_text("".join(str(_forged(number - 1, head)) for head in (too_far, Head(instance, 1, 2, bytes(32)))))
    rig._hand_over()
    done = restore(rig, file, "--anchor", str(forged))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("an anchor has a false checkpoint, which was ignored: checkpoint") == 2
    rows = book(rig.state)
    assert rows[-1].epoch == real[-1].checkpoint.heads[0].epoch + 1
    assert {row.fields["epoch"] for row in rows if row.kind == Kind.GAP} == {1, 2}
    again(rig)
    done = verify(rig, export(rig, "after"))
    assert done.returncode == 3, done.stdout
    rig.stop()
    forged.write_text(str(_forged(number + 99, too_far)))
    rig._hand_over()
    done = restore(rig, file, "--anchor", str(forged))
    assert done.returncode == 1
    assert "the newest checkpoint of the anchors is not this daemon's" in done.stderr


def _forged(number: int, head: Head) -> Note:
    return Key(1).sign(Checkpoint(number, datetime(2026, 11, 26, tzinfo=UTC), NOTHING, head))


def test_the_key_is_the_service_s_alone(lost: Lost) -> None:
    """Without its public half nobody knows whose the checkpoints are: exit 78, and what to give."""
    rig = lost.rig
    config = rig.config.read_text()
    own = f'checkpoint_key = "{rig.keys / "checkpoint.key"}"'
    assert own in config
    rig.config.write_text(config.replace(own, 'checkpoint_key_credential = "checkpoint.key"'))
    try:
        done = restore(rig, lost.backup)
        assert done.returncode == 78
        assert "--key takes checkpoint.pub" in done.stderr
        assert not list(rig.state.glob("paraph.sqlite.*"))
        done = restore(rig, lost.backup, "--key", str(rig.keys / "checkpoint.pub"))
        assert done.returncode == 0, done.stderr
    finally:
        rig.config.write_text(config)


def test_an_anchor_that_lags(lost: Lost) -> None:
    """
    What a log server has and the file has not: the old database tells which checkpoint was the last, and the series goes on
    behind it; the log server's own notes beside the new ones are whole.
    """
    rig, file = lost.rig, lost.backup
    everything = rig.anchor.read_text()
    rig.anchor.write_text(str(next(parse(everything))))
    with logged_elsewhere(rig):
        done = restore(rig, file)
        assert done.returncode == 0, done.stderr
    last = list(parse(everything))[-1]
    gap = [row.fields for row in book(rig.state) if row.kind == Kind.GAP][-1]
    assert gap["hash"] == last.checkpoint.heads[0].hash.hex()
    before = checkpoints(rig)
    again(rig)
    until(lambda: checkpoints(rig) >= before + 2, 5, "the last checkpoint, and a new one")
    rig.stop()
    fresh = [note for note in parse(rig.anchor.read_text()) if note.checkpoint.number > last.checkpoint.number]
    assert fresh[0].checkpoint.previous == last.checkpoint.hash
    rig.anchor.write_text(everything + "".join(map(str, fresh)))
    done = verify(rig, export(rig, "after"))
    assert done.returncode == 3, done.stdout


@pytest.mark.parametrize("old", ["gone", "put back itself", "of another key"])
def test_nobody_says_which_checkpoint_was_the_last(lost: Lost, old: str) -> None:
    """
    A log server may know more than the file, and no old database says what: refused, with what to give; nothing is touched.
    With what it has kept, all goes on.
    """
    rig, file = lost.rig, lost.backup
    elsewhere = rig.directory / "from the log server"
    elsewhere.write_text(rig.anchor.read_text())
    rig.anchor.write_text(str(next(parse(rig.anchor.read_text()))))
    database = rig.state / "paraph.sqlite"
    if old == "of another key":
        note = next(parse(rig.anchor.read_text()))
        with closing(sqlite3.connect(database)) as db, db:
            db.execute("UPDATE ledger_instances SET note = ?", (str(Key(1).sign(note.checkpoint)),))
    else:
        for path in rig.state.glob("paraph.sqlite*"):
            path.unlink()
    if old == "put back itself":
        shutil.copy(file, database)
    rig._hand_over()
    before = database.read_bytes() if database.exists() else None
    with logged_elsewhere(rig):
        done = restore(rig, file)
        assert done.returncode == 1
        assert "Give --anchor FILE with what the log server or the webhook has kept" in done.stderr
        assert (database.read_bytes() if database.exists() else None) == before
        done = restore(rig, file, "--anchor", str(elsewhere))
        assert done.returncode == 0, done.stderr
    assert {row.fields["epoch"] for row in book(rig.state) if row.kind == Kind.GAP} == {1, 2}


@contextmanager
def logged_elsewhere(rig: Rig) -> Iterator[None]:
    """The configuration has a log server beside the file."""
    config = rig.config.read_text()
    section = f'[[ledger.anchor]]\nfile = "{rig.anchor}"\n'
    assert section in config
    rig.config.write_text(config.replace(section, f'{section}[[ledger.anchor]]\nsyslog = "/dev/log"\n'))
    try:
        yield
    finally:
        rig.config.write_text(config)


def test_a_backup_under_c_sign(rig: Rig) -> None:
    """
    The backup has an INTENT whose OUTCOME came later: the restored ledger knows nothing of that, and says so; the signature
    comes over from the old database, and is not made again.
    """
    message = request(digests=[digest(7)])
    with Caller(rig) as portal:
        shim_of(rig).script("C_Sign * hold 60")
        call = portal.signing.SignDigests.future(message, timeout=20)
        until(lambda: [row for row in book(rig.state) if message.request_id in row.body], 5, "INTENT")
        file = backup(rig)
        shim_of(rig).clear()
        made = [item.signature for item in call.result().items]
    new_checkpoint(rig)
    rig.stop()
    assert restore(rig, file).returncode == 0
    before = signed(rig)
    again(rig)
    assert [row.fields["items"] for row in book(rig.state) if row.kind == Kind.POSSIBLE] == [[]]
    with Caller(rig) as portal:
        assert signatures(portal.sign(message)) == made
    assert signed(rig) == before
    new_checkpoint(rig)
    done = verify(rig, export(rig, "after"))
    assert done.returncode == 3, done.stdout


def test_killed_under_c_sign(rig: Rig) -> None:
    """
    A request of after the backup was with a token when the daemon was killed, and the old database has its INTENT: who asks
    for it is told that it may have been signed, and not that it was never attempted.
    """
    until(lambda: checkpoints(rig), 5, "a checkpoint")
    file = backup(rig)
    message = request(digests=[digest(7), digest(8)])
    with Caller(rig) as portal:
        done = request(digests=[digest(6)])
        assert statuses(portal.sign(done)) == ["SIGNED"]
        shim_of(rig).script("C_Sign * hold 60")
        call = portal.signing.SignDigests.future(message, timeout=20)
        until(lambda: [row for row in book(rig.state) if message.request_id in row.body], 5, "INTENT")
        rig.stop(signal.SIGKILL)
        assert call.code() is not None, "it is over, unanswered"
    shim_of(rig).clear()
    assert restore(rig, file).returncode == 0
    before = signed(rig)
    again(rig)
    with Caller(rig) as portal:
        told = result(portal, message.request_id)
        assert statuses_of(told) == ["INDETERMINATE"] * 2
        assert [each.item.reason for each in told.value.items] == ["INTERRUPTED"] * 2
        assert statuses_of(result(portal, done.request_id)) == ["SIGNED"]
    assert signed(rig) == before
    assert [row.fields["items"] for row in book(rig.state) if row.kind == Kind.POSSIBLE] == [[0, 1]]
    done_verify = verify(rig, export(rig, "after"))
    assert done_verify.returncode == 3, done_verify.stdout


@pytest.mark.parametrize("table", ["ledger_instances", "ledger_rows", "ledger_results"])
def test_one_table_of_the_old_database_is_destroyed(lost: Lost, table: str) -> None:
    """
    What can be read of it is not taken for all: nothing is carried over, that is said with its cause, and in the chain; ids
    from before are burnt.
    """
    rig, file = lost.rig, lost.backup
    destroy(rig.state / "paraph.sqlite", table)
    rig._hand_over()
    done = restore(rig, file)
    assert done.returncode == 0, done.stderr
    assert "nothing was taken over from the old database, which could not be read: " in done.stdout
    assert "malformed" in done.stdout
    assert "NOT KNOWN any more" in done.stdout
    begin = [row for row in book(rig.state) if row.kind == Kind.EPOCH][-1]
    assert begin.fields["restored"]["requests"] == "unknown"
    check_burnt(lost)


def check_burnt(lost: Lost) -> None:
    """The daemon starts; what was lost is not signed again, and others are."""
    again(lost.rig)
    with Caller(lost.rig) as portal:
        before = signed(lost.rig)
        assert portal.sign(request_id=lost.request, digests=[digest(7)]).reason == "REQUEST_BURNT"
        assert result(portal, lost.request).reason == "REQUEST_BURNT"
        assert signed(lost.rig) == before, "a request of the lost range was signed again"
        assert statuses(portal.sign()) == ["SIGNED"]


def destroy(database: Path, table: str) -> None:
    """A disk has lost the first page of a table."""
    with closing(sqlite3.connect(database, isolation_level=None)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = db.execute("PRAGMA page_size").fetchone()
        (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    with database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(bytes(size))


def test_the_backup_was_put_there_by_hand_before(lost: Lost) -> None:
    """The old database is older than what anchors know: it cannot say what became of requests, and ids are burnt."""
    rig = lost.rig
    for path in rig.state.glob("paraph.sqlite*"):
        path.unlink()
    shutil.copy(lost.backup, rig.state / "paraph.sqlite")
    rig._hand_over()
    done = restore(rig, lost.backup)
    assert done.returncode == 0, done.stderr
    assert "the old database lacks rows that anchors know" in done.stdout
    assert "NOT KNOWN any more" in done.stdout
    again(rig)
    with Caller(rig) as portal:
        before = signed(rig)
        assert portal.sign(request_id=lost.request, digests=[digest(7)]).reason == "REQUEST_BURNT"
        assert signed(rig) == before, "a request of the lost range was signed again"


def test_an_old_database_without_a_ledger(lost: Lost) -> None:
    """A command has made it on the new disk: it is none that says what became of requests."""
    rig = lost.rig
    for path in rig.state.glob("paraph.sqlite*"):
        path.unlink()
    open_store(rig.state / "paraph.sqlite").dispose()
    rig._hand_over()
    done = restore(rig, lost.backup)
    assert done.returncode == 0, done.stderr
    assert "paraph.sqlite has no ledger" in done.stdout
    assert "NOT KNOWN any more" in done.stdout


def test_no_room_for_what_is_taken_over(tmp_path: Path) -> None:
    """It is an error of the copy, and none of the old database, which could be read."""
    old, draft = tmp_path / "old.sqlite", tmp_path / "draft.sqlite"
    for path in (old, draft):
        open_store(path).dispose()
    with closing(sqlite3.connect(old)) as db, db:
        db.execute("INSERT INTO ledger_instances VALUES ('a', 1, '', 0)")
        db.executemany(
            "INSERT INTO ledger_results VALUES (?, -1, 1, zeroblob(10000))", ((bytes([n]),) for n in range(99))
        )
    found = Found("a", 1, 1, bytes(32), "", ())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(StoreError, match=r"draft\.sqlite: "):
            restoring._ask(old, draft, found, b"", 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with closing(sqlite3.connect(draft)) as db:
        assert db.execute("SELECT count(*) FROM ledger_results").fetchone() == (0,)
    assert restoring._ask(old, draft, found, b"", 0).carried == 0


def test_a_day_s_results_are_not_held_in_memory(tmp_path: Path) -> None:
    """What the old database knows of requests is taken over row by row: 40 MB of it want a few."""
    old, draft = tmp_path / "old.sqlite", tmp_path / "draft.sqlite"
    for path in (old, draft):
        open_store(path).dispose()
    with closing(sqlite3.connect(old)) as db, db:
        results = ((number.to_bytes(16, "big"), -1, 1, bytes(10_000)) for number in range(4_000))
        db.executemany("INSERT INTO ledger_results VALUES (?, ?, ?, ?)", results)
        request_ = (bytes(16), -1, "portal", b"", 1, 1, "RAW", b"", b"", "")
        db.execute("INSERT INTO ledger_requests VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", request_)
    tracemalloc.start()
    try:
        assert carried(old, draft) == 1
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    with closing(sqlite3.connect(draft)) as db:
        assert db.execute("SELECT count(*) FROM ledger_results").fetchone() == (4_000,)
    assert carried(old, draft) == 0, "nothing is taken over twice"


def carried(old: Path, draft: Path) -> int:
    with SqliteEvidence(old) as db:
        return restoring._carry(db, draft)


@pytest.mark.parametrize("old", ["whole", "damaged"])
def test_the_disk_fails_in_the_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str) -> None:
    """
    Between the old database's going and the new one's coming: what is found then has all that was in the old one's log, or is
    not there. The old one is under its other name, and that is said, with what to do. Done again, it is done.
    """
    database, draft = tmp_path / "paraph.sqlite", tmp_path / "draft.sqlite"
    for path in (database, draft):
        open_store(path).dispose()
    with closing(sqlite3.connect(database)) as db:
        db.execute("INSERT INTO ledger_chains VALUES ('only', 'in the log')")
        db.commit()
        assert database.with_name("paraph.sqlite-wal").stat().st_size
        if old == "damaged":
            database.write_bytes(b"no database " * 999)
        syncs = []

        def fails(directory: Path) -> None:
            syncs.append(directory)
            if len(syncs) == 2:
                raise OSError(5, "Input/output error")

        monkeypatch.setattr(restoring, "sync_directory", fails)
        with pytest.raises(Halfway, match=f"Input/output error.*rename {database}.before-.*, and what is beside it"):
            restoring._exchange(draft, database)
        assert [path.name for path in tmp_path.glob("paraph.sqlite-*")] == []
        [aside] = [path for path in tmp_path.glob("paraph.sqlite.before-*") if path.name.endswith("Z")]
        if old == "damaged":
            assert not database.exists()
            assert aside.read_bytes().startswith(b"no database")
        else:
            with closing(sqlite3.connect(f"file:{database}?immutable=1", uri=True)) as found:  # the one file alone
                assert found.execute("SELECT certificates FROM ledger_chains").fetchall() == [("in the log",)]
    assert (restoring._exchange(draft, database) is None) == (old == "damaged")
    assert database.exists()
    assert not draft.exists()


def test_what_is_said_of_half_an_exchange(
    lost: Lost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not that all is as it was."""

    def halfway(*_: object) -> int:
        raise Halfway("it is not certain")

    monkeypatch.setattr(command, "_wrong", lambda *_: "")
    monkeypatch.setattr(command, "_restore", halfway)
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    options = ["--config", str(lost.rig.config), "--reason", REASON, str(lost.backup)]
    assert command.run(parser.parse_args(options)) == 1
    assert capsys.readouterr().err == "paraph restore: it is not certain\n"


def test_restored_twice(lost: Lost) -> None:
    """The same backup is put back once more: what came after the first time is declared, too."""
    rig, file = lost.rig, lost.backup
    assert restore(rig, file).returncode == 0
    again(rig)
    new_checkpoint(rig)
    rig.stop()
    used = {(row.epoch, row.sequence) for row in book(rig.state)}
    assert restore(rig, file).returncode == 0
    fresh = [row for row in book(rig.state) if row.epoch > max(epoch for epoch, _ in used)]
    assert fresh[0].kind == Kind.EPOCH
    again(rig)
    done = verify(rig, export(rig, "after"))
    assert done.returncode == 3, done.stdout


@pytest.mark.parametrize("old", ["there", "gone"])
def test_nothing_anchored_is_lost(rig: Rig, old: str) -> None:
    """
    A backup that has all that was anchored: a new epoch all the same. What only the old database knows of is declared by
    it; without that nobody knows, and the verifier says that.
    """
    until(lambda: checkpoints(rig), 5, "a checkpoint")
    with Caller(rig) as portal:
        assert statuses(portal.sign()) == ["SIGNED"]
        file = backup(rig)
        assert statuses(portal.sign()) == ["SIGNED"]
    rig.stop(signal.SIGKILL)  # a daemon that ends in order makes a last checkpoint
    if old == "gone":
        for path in rig.state.glob("paraph.sqlite*"):
            path.unlink()
    done = restore(rig, file)
    assert done.returncode == 0, done.stderr
    assert ("nothing is declared as lost" in done.stdout) == (old == "gone")
    again(rig)
    done = verify(rig, export(rig, "after"))
    assert done.returncode == 3, done.stdout
    assert ("is not known, says row" in " ".join(done.stdout.split())) == (old == "gone")


def test_the_disk_is_new(lost: Lost) -> None:
    """
    Without the old database nobody knows the requests since the backup: that is said, with its times, and in the chain; and
    their ids are burnt.
    """
    rig, file = lost.rig, lost.backup
    for path in rig.state.glob("paraph.sqlite*"):
        path.unlink()
    done = restore(rig, file)
    assert done.returncode == 0, done.stderr
    begin = [row for row in book(rig.state) if row.kind == Kind.EPOCH][-1]
    assert begin.fields["restored"]["requests"] == "unknown"
    since, until_ = begin.fields["restored"]["kept"], begin.fields["time"]
    assert f"NOT KNOWN any more: what was signed from {since} to {until_}." in done.stdout
    assert f"credentials and people are as they were at {since}" in done.stdout
    check_burnt(lost)


def test_no_backup_of_this_ledger(lost: Lost) -> None:
    """What is not a whole ledger of this daemon is not put in its place: exit 1, and the old one still works."""
    rig = lost.rig
    before = (rig.state / "paraph.sqlite").read_bytes()
    for harm in ("no database", "edited", "another daemon's", "empty", "another daemon's, and empty"):
        file = rig.directory / harm
        shutil.copy(lost.backup, file)
        spoil(file, harm)
        rig._hand_over()
        done = restore(rig, file)
        assert done.returncode == 1, f"{harm}: {done.stdout}"
        assert "The daemon's database is as it was" in done.stderr, harm
        assert (rig.state / "paraph.sqlite").read_bytes() == before, harm
        assert not list(rig.state.glob("paraph.sqlite.*")), harm
    again(rig)


def spoil(file: Path, harm: str) -> None:
    if harm == "no database":
        file.write_bytes(b"no database " * 999)
        return
    with closing(sqlite3.connect(file)) as db, db:
        if harm == "edited":
            db.execute("UPDATE ledger_rows SET body = replace(body, '0', '1') WHERE sequence = 1")
        if harm in {"empty", "another daemon's, and empty"}:
            db.execute("DELETE FROM ledger_rows")
            db.execute("UPDATE ledger_instances SET epoch = 0")
        if harm in {"another daemon's", "another daemon's, and empty"}:
            db.execute("UPDATE ledger_instances SET instance = ?", (uuid.uuid4().hex,))


def test_an_older_backup_by_hand_is_still_refused(lost: Lost) -> None:
    """F25: a database that was put back without the command does not start."""
    rig, file = lost.rig, lost.backup
    for path in rig.state.glob("paraph.sqlite*"):
        path.unlink()
    content = file.read_bytes()
    (rig.state / "paraph.sqlite").write_bytes(content)
    rig._hand_over()
    rig.launch()
    assert rig.process is not None
    assert rig.process.wait(20) == 78
    assert "paraph restore --reason" in rig.log.read_text()


def test_without_a_file(lost: Lost) -> None:
    """What PostgreSQL's command line is, is none here: exit 2, with what is to be given; nothing is touched."""
    rig = lost.rig
    before = (rig.state / "paraph.sqlite").read_bytes()
    done = rig.command("restore", "--config", rig.config, "--reason", REASON)
    assert done.returncode == 2
    assert "give FILE, what `paraph backup` has written" in done.stderr
    assert (rig.state / "paraph.sqlite").read_bytes() == before


def test_epochs_that_were_archived_are_not_missed() -> None:
    """An old database whose first epochs are in files, and which has all since, tells what became of every request."""
    old = restoring._Old(ends=[Head("ab" * 16, 6, 900, bytes(32))])
    for loss, is_told in ((Loss(5, 101, 500, b""), True), (Loss(6, 1, 900, b""), True), (Loss(6, 1, 901, b""), False)):
        assert restoring._has_last(old, loss) == is_told
    assert not restoring._has_last(old, Loss(7, 1, 1, b""))
    assert not restoring._has_last(restoring._Old(), Loss(1, 1, 1, b""))
