"""PostgreSQL was put back to an older state: the daemon refuses it, `paraph restore` declares what is lost, all goes on."""

import itertools
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from signer import restore as restoring
from signer.burnt_ids import CLOCK_S
from signer.chain import Kind
from signer.database import Database, Epochs, StoreError, database_at
from signer.entry import Failed
from signer.note import NOTHING, Checkpoint, Head, Note
from signer.postgresql import PostgresqlDatabase
from signer.recovery import Broken
from signer.request_id import new_request_id
from signer.restore import Restored, declare_in_place
from signer.store import open_store
from tests import postgres as servers
from tests.daemon import Rig, running, until
from tests.postgres import Postgres
from tests.signer.access.calls import Caller, ask, card_rig, digest, signed, statuses
from tests.signer.ledger.book import book, result, signatures
from tests.signer.ledger.cut import Way
from tests.signer.ledger.entries import chain, counted, executed, found, intent, placed, started
from tests.signer.ledger.histories import KEY, Key
from tests.signer.ledger.ids import made_at
from tests.signer.ledger.test_export import checkpoints, export, verify
from tests.signer.ledger.test_restore import REASON, again, new_checkpoint

_databases = itertools.count()


@pytest.fixture
def name() -> str:
    return f"put back {next(_databases)}"


@pytest.fixture
def rig(postgres: Postgres, name: str) -> Iterator[Rig]:
    made = card_rig("P-256")
    made.database = postgres.create(name)
    with running(made):
        yield made


@pytest.fixture
def db(postgres: Postgres, name: str, tmp_path: Path) -> Database:
    open_store(postgres.create(name)).dispose()
    return database_at(postgres.url(name), tmp_path)


def program(name: str, *words: str, content: bytes = b"") -> bytes:
    command = [str(servers._programs() / name), *words]
    done = subprocess.run(command, input=content, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def dumped(url: str) -> bytes:
    return program("pg_dump", "--format=custom", url)


def put_back(server: Postgres, name: str, content: bytes) -> None:
    """In the place of what is there, as a database's administrator does it."""
    program("pg_restore", "--exit-on-error", f"--dbname={server.create(name)}", content=content)


def restore(rig: Rig, *words: object) -> CompletedProcess[str]:
    return rig.command("restore", "--config", rig.config, "--reason", REASON, *words)


def refused(rig: Rig) -> str:
    """What the daemon says that does not start."""
    before = len(rig.log.read_text())
    rig.launch()
    assert rig.process is not None
    assert rig.process.wait(20) == 78
    return rig.log.read_text()[before:]


def put_back_and_declared(rig: Rig, server: Postgres, name: str, content: bytes) -> str:
    """What the command says; before it the daemon does not start, and the verifier says why."""
    put_back(server, name, content)
    assert "`paraph restore --reason` declares what is lost" in refused(rig)
    done = verify(rig, export(rig, f"put back {time.monotonic_ns()}"))
    assert done.returncode == 1, done.stdout
    done = restore(rig)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_put_back_declared_and_on(rig: Rig, postgres: Postgres, name: str) -> None:
    """
    F25: an older state is refused at the start with what to do about it. After `paraph restore` the daemon starts and signs;
    the verifier says that the ledger is whole but for a declared gap (exit 3). What is kept is answered as before; what was
    signed in the lost range is not known any more, as the command has said with its times: an id that says when it was made
    is burnt, over another start, too; a random one cannot be told from a new one, and is signed anew.
    """
    first, second, random = (
        ask(request_id=id_, digests=[digest(number)])
        for number, id_ in enumerate((new_request_id(), new_request_id(), str(uuid.uuid4())))
    )
    with Caller(rig) as portal:
        kept = signatures(portal.sign(first))
        older = dumped(rig.database)
        lost = [signatures(portal.sign(each)) for each in (second, random)]
    new_checkpoint(rig)
    rig.stop()
    before = book(rig.state)
    said = put_back_and_declared(rig, postgres, name, older)
    rows = book(rig.state)
    old = [row for row in rows if row.hash in {each.hash for each in before}]
    fresh = rows[len(old) :]
    losses = [row.fields for row in fresh if row.kind == Kind.GAP]
    assert [row.kind for row in fresh] == [Kind.EPOCH] + [Kind.GAP] * len(losses)
    assert [(loss["epoch"], loss["from"]) for loss in losses] == [(1, old[-1].sequence + 1), (2, 1)]
    by_place = {(row.epoch, row.sequence): row for row in before}
    assert [loss["hash"] for loss in losses] == [by_place[loss["epoch"], loss["to"]].hash.hex() for loss in losses]
    begin = fresh[0].fields
    since, until_ = old[-1].fields["time"], begin["time"]
    assert begin["restored"] == {"reason": REASON, "kept": since, "requests": "unknown"}
    assert f"NOT KNOWN any more: what was signed from {since} to {until_}." in said
    assert "refused with\nREQUEST_BURNT. Other ids, random ones, cannot be told from new ones" in said
    assert [f"rows {loss['from']} to {loss['to']} of epoch {loss['epoch']}" in said for loss in losses] == [True] * 2

    done = verify(rig, export(rig, "declared"))
    assert done.returncode == 3, done.stdout

    again(rig)
    with Caller(rig) as portal:
        count = signed(rig)
        assert signatures(portal.sign(first)) == kept
        assert signed(rig) == count, "what is kept was signed again"
        check_burnt(portal, second)
        assert signed(rig) == count, "a request of the lost range was signed again"
        fresh_id = made_at(time.time() + CLOCK_S + 1)
        assert statuses(portal.sign(request_id=fresh_id, digests=[digest(9)])) == ["SIGNED"]
        assert signatures(portal.sign(random)) not in lost
        assert signed(rig) == count + 2
    done = verify(rig, export(rig, "after"))
    assert done.returncode == 3, done.stdout
    assert REASON in done.stdout

    new_checkpoint(rig)
    with Caller(rig) as portal:
        check_burnt(portal, second)
    rig.stop()
    used = {row.epoch for row in book(rig.state)}
    put_back_and_declared(rig, postgres, name, older)
    assert book(rig.state)[-1].epoch > max(used)
    again(rig)
    done = verify(rig, export(rig, "once more"))
    assert done.returncode == 3, done.stdout


def check_burnt(portal: Caller, message: Any) -> None:
    for told in (portal.sign(message), result(portal, message.request_id)):
        assert (told.code, told.reason) == ("FAILED_PRECONDITION", "REQUEST_BURNT")


def test_nothing_to_declare(rig: Rig) -> None:
    """
    Never under a daemon that runs (75), nor where nothing is lost (1), nor with a file (2), nor where the file is missing
    that says whose chain it is (2): nothing is written. And `paraph backup` says what to keep instead.
    """
    with Caller(rig) as portal:
        assert statuses(portal.sign()) == ["SIGNED"]
    until(lambda: checkpoints(rig), 5, "a checkpoint")
    done = restore(rig)
    assert done.returncode == 75
    assert "stop it first" in done.stderr
    rig.stop()
    before = book(rig.state)
    done = restore(rig)
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing is lost as far as anybody knows" in done.stderr
    done = restore(rig, rig.config)
    assert done.returncode == 2
    assert "run this command without FILE" in done.stderr
    done = rig.command("backup", "--config", rig.config, rig.directory / "copy")
    assert done.returncode == 2
    words = ("pg_dump", str(rig.state / "instance"), "checkpoint key", "data key", "anchors have", str(rig.config))
    assert all(word in done.stderr for word in words), done.stderr
    aside = (rig.state / "instance").rename(rig.state / "aside")
    done = restore(rig)
    assert done.returncode == 2
    assert f"there is no file {rig.state / 'instance'}" in done.stderr
    aside.rename(rig.state / "instance")
    assert book(rig.state) == before
    again(rig)


# ---- the declaration itself


def rolled_back(db: Database, url: str) -> tuple[Epochs, tuple[int, int, bytes], Note]:
    """Four rows, the last of which was anchored, and only two of them left; and who wrote them, and would go on."""
    seen, backend, at = started(db)
    for _ in range(3):
        entry = intent(os.urandom(16), seen.instance)
        made = placed(at, seen.instance, entry)
        backend.write([entry], made)
        at = (at[0], made[-1][0].sequence, made[-1][0].hash)
    head = Head(seen.instance, *at)
    executed(url, "DELETE FROM ledger_rows WHERE sequence > 2")
    return backend, at, KEY.sign(Checkpoint(1, datetime(2026, 11, 26, tzinfo=UTC), NOTHING, head))


def declared(db: Database, *notes: Note, url: str = "", spki: bytes = KEY.spki) -> Restored | None:
    assert isinstance(db, PostgresqlDatabase)
    return declare_in_place(db, url or db._url, notes, spki, REASON, "1")


def test_who_writes_is_fenced_off(db: Database, postgres: Postgres, name: str) -> None:
    """A daemon elsewhere that still writes this chain ends with its next commit; whoever declares second finds no loss."""
    backend, at, note = rolled_back(db, postgres.url(name))
    done = declared(db, note)
    assert done is not None
    assert (done.epoch, done.kept, done.carried) == (2, (1, 2), None)
    assert [(loss.epoch, loss.first, loss.last, loss.hash) for loss in done.losses] == [(1, 3, 4, at[2])]
    instance = note.checkpoint.heads[0].instance
    entry = intent(os.urandom(16), instance)
    with pytest.raises(Failed, match="another daemon writes it now") as failed:
        backend.write([entry], placed(at, instance, entry))
    assert failed.value.is_fatal
    backend.close()
    assert [(row.epoch, row.sequence, row.kind) for row in chain(db)][2:] == [(2, 1, "EPOCH"), (2, 2, "GAP")]
    assert found(db).note == str(note), "the next checkpoint goes on from it"
    assert declared(db, note) is None
    assert len(chain(db)) == 4


def test_somebody_begins_meanwhile(
    db: Database, postgres: Postgres, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking and writing a daemon begins an epoch: nothing is declared."""
    backend, _, note = rolled_back(db, postgres.url(name))
    backend.close()
    real = restoring.lost

    def late(*words: Any) -> Any:
        started(db)[1].close()
        return real(*words)

    monkeypatch.setattr(restoring, "lost", late)
    with pytest.raises(Failed, match="STORE_BUSY: another daemon has begun an epoch after 1"):
        declared(db, note)
    assert {row.kind for row in chain(db)} == {Kind.EPOCH, Kind.INTENT, Kind.POSSIBLE}


def test_one_commit(
    db: Database, postgres: Postgres, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost before the commit arrives: nothing of it is there, and it can be done again."""
    backend, _, note = rolled_back(db, postgres.url(name))
    backend.close()
    real = restoring.lost
    with Way(postgres) as way:

        def cut(*words: Any) -> Any:
            way.cut = "before"
            return real(*words)

        monkeypatch.setattr(restoring, "lost", cut)
        with pytest.raises(Failed, match="nothing was written"):
            declared(database_at(way.url(name), tmp_path), note, url=postgres.url(name))
        assert way.cuts == 1
    monkeypatch.undo()
    assert len(chain(db)) == 2
    assert declared(db, note) is not None


def test_what_the_next_checkpoint_names(db: Database, postgres: Postgres, name: str) -> None:
    """An older checkpoint is believed without its own signature, which a key of before may have made; no other is."""
    backend, at, note = rolled_back(db, postgres.url(name))
    backend.close()
    [head] = note.checkpoint.heads
    other, when = Key(1), datetime(2026, 11, 26, tzinfo=UTC)
    old = other.sign(note.checkpoint)
    false = other.sign(Checkpoint(1, when, NOTHING, Head(head.instance, 1, 999, bytes(32))))
    newest = KEY.sign(Checkpoint(2, when, old.checkpoint.hash, Head(head.instance, 2, 7, bytes(32))))
    done = declared(db, newest, false, old)
    assert done is not None
    assert [(loss.epoch, loss.last, loss.hash) for loss in done.losses] == [(1, 4, at[2]), (2, 7, bytes(32))]


def test_an_epoch_that_nobody_has_begun(db: Database, postgres: Postgres, name: str) -> None:
    """Who has the key cannot have epochs begin either that no checkpoint could name."""
    backend, _, note = rolled_back(db, postgres.url(name))
    backend.close()
    [head] = note.checkpoint.heads
    far = Head(head.instance, 10**17, 7, bytes(32))
    with pytest.raises(Broken, match="checkpoint 2 names an epoch that no daemon has begun"):
        declared(db, note, KEY.sign(Checkpoint(2, note.checkpoint.time, note.checkpoint.hash, far)))
    done = declared(
        db, KEY.sign(Checkpoint(1, note.checkpoint.time, NOTHING, far)), KEY.sign(replace(note.checkpoint, number=2))
    )
    assert done is not None
    assert done.epoch == 2


def test_what_people_have_is_burnt_first(db: Database, postgres: Postgres, name: str) -> None:
    """Where that fails nothing is declared either: done again, both are."""
    backend, _, note = rolled_back(db, postgres.url(name))
    backend.close()
    url = postgres.url(name)
    executed(url, "INSERT INTO sent_codes VALUES ('ada', 'b', 'c', 1)", "ALTER TABLE sent_codes RENAME TO away")
    with pytest.raises(StoreError, match="sent_codes"):
        declared(db, note)
    assert len(chain(db)) == 2
    executed(url, "ALTER TABLE away RENAME TO sent_codes")
    assert declared(db, note) is not None
    assert counted(url, "sent_codes") == 0


def test_not_all_that_anchors_have(db: Database, postgres: Postgres, name: str) -> None:
    """Where a log server or a webhook may know more than was given: nothing is declared, and it says what to give."""
    backend, _, note = rolled_back(db, postgres.url(name))
    backend.close()
    with pytest.raises(Broken, match="Give --anchor FILE"):
        declare_in_place(db, postgres.url(name), [note], KEY.spki, REASON, "1", is_all=False)
    assert len(chain(db)) == 2


def test_what_is_refused(db: Database, postgres: Postgres, name: str) -> None:
    """A state of before the first start, a row that is another than was anchored, a note of another key, other chains."""
    backend, _, note = rolled_back(db, postgres.url(name))
    backend.close()
    before = chain(db)
    [head] = note.checkpoint.heads
    when = datetime(2026, 11, 26, tzinfo=UTC)
    changed = KEY.sign(Checkpoint(2, when, NOTHING, Head(head.instance, 1, 2, bytes(32))))
    other = KEY.sign(Checkpoint(3, when, NOTHING, Head("f" * 32, 1, 2, bytes(32))))
    for notes, spki, said in (
        ([changed], KEY.spki, "row 1/2 is another than checkpoint 2 says"),
        ([note], Key(1).spki, "the newest checkpoint of the anchors is not this daemon's"),
        ([other], KEY.spki, "the anchors know other ledgers than"),
    ):
        with pytest.raises(Broken, match=said):
            declared(db, *notes, spki=spki)
    assert chain(db) == before
    executed(postgres.url(name), "DELETE FROM ledger_rows", "DELETE FROM ledger_instances")
    with pytest.raises(Broken, match="the database has no rows: it is older than the daemon's first start"):
        declared(db, note)
