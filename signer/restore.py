"""
An older state of the ledger takes its place again, and what it lacks is declared as lost (`lost.py`).

Of SQLite the state is a backup. All is written into a copy of it, in one commit, before the copy takes the old database's
place; the old one is kept beside it. PostgreSQL's own means have put the state back before: there it is declared in place.

Requests of the last day that the database of before knows, and the backup does not, are taken over where all of it can
still be read: who sends one of them again gets the answer of then; of what was under way, that it may have been signed.
Where it cannot, or was put back to an older state itself, nobody knows them all any more, and ids of before are burnt as
far as they say when they were made (`burnt_ids.py`).
"""

import contextlib
import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from signer import recovery
from signer.appearing import sync_directory
from signer.burnt import burn
from signer.chain import Kind
from signer.clock import rfc3339
from signer.database import Database, StoreError, Where
from signer.evidence import SqliteEvidence, read_only
from signer.lost import EPOCH_MAX, Loss, Lost, declare, lost
from signer.note import NOTHING, Checkpoint, Head, Note, parse
from signer.recovery import Broken, Found
from signer.remembered import remembered
from signer.sqlite import SqliteDatabase
from signer.store import open_store

_SIDES = ("-wal", "-shm")  # what SQLite keeps beside a database, by the end of its name
_ASK = (
    "what anchors know that are no files was not looked at, and no old database tells which checkpoints they have. Give "
    "--anchor FILE with what the log server or the webhook has kept, or an empty file if that is nothing: else a number "
    "that a checkpoint has there may be used again, and the ledger is never whole any more"
)
_HALFWAY = (
    "{error}. It is not certain which database is in its place: see to the disk, rename {aside}, and what is beside it with "
    "that name, to {database} again, and run this once more"
)
_BEGUN = "SELECT coalesce(max(epoch), 0) FROM ledger_instances WHERE instance = ? AND epoch < ?"
_ENDS = "SELECT epoch, max(sequence), hash FROM ledger_rows WHERE instance = ? GROUP BY epoch"
_NO_ROW = (AttributeError, KeyError, TypeError, ValueError)  # raised by what no daemon has written
# What the old database knows of requests that the backup does not: who asks again gets the answer of then.
_CARRIED = ("ledger_chains", "ledger_requests", "ledger_results")


class Halfway(Exception):
    """The old database's place may be another's already. The message says where it is, and what to do."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done, for whoever did it."""

    epoch: int
    kept: tuple[int, int]  # the last row that is there
    since: str  # its time, and that of the declaration (RFC 3339): what was signed in between is not in the chain
    until: str
    losses: tuple[Loss, ...]
    aside: Path | None = None  # where the old database is, if there was one
    carried: int | None = None  # requests of the old database that are still known; None: it does not know all of them
    trouble: str = ""  # why not, if it is there


@dataclass(slots=True)
class _Old:
    """What the old database tells, up to what cannot be read. `carried` is None where that is not all; `trouble` says why."""

    instance: str = ""
    begun: int = 0  # the last epoch that it knows of, which no checkpoint may have seen
    notes: Sequence[Note] = ()
    ends: Sequence[Head] = ()  # the last row of each epoch
    intents: Sequence[dict[str, Any]] = ()  # under way
    carried: int | None = None
    trouble: str = ""


def restore(
    backup: Path, database: Path, notes: Sequence[Note], spki: bytes, reason: str, version: str, *, is_all: bool = True
) -> Restored:
    """
    Put a backup into the place of the SQLite database. `notes` are those that anchors have, with `is_all` all of them;
    `spki` is the key that must have signed them. Nobody else uses the database.

    Raises `Broken` where the backup is none of this ledger's, `StoreError`, `OSError`: then nothing has happened; `Halfway`.
    """
    draft = database.with_name(f"{database.name}.restoring")
    _remove(draft)
    try:
        _copy(backup, draft)
        found, what, old = _look(draft, database, notes, spki, is_all)
        _burn(draft)
        now = datetime.now(UTC)
        requests = "unknown" if old.carried is None else "carried"
        backend = SqliteDatabase(draft).backend()
        try:
            epoch = declare(
                backend, found, what, intents=old.intents, reason=reason, requests=requests, version=version, now=now
            )
        finally:
            backend.close()
        aside = _exchange(draft, database)
    finally:
        _remove(draft)
    kept = (found.epoch, found.sequence)
    return Restored(epoch, kept, found.time, rfc3339(now), what.losses, aside, old.carried, old.trouble)


def declare_in_place(
    database: Database, url: str, notes: Sequence[Note], spki: bytes, reason: str, version: str, *, is_all: bool = True
) -> Restored | None:
    """
    Declare what the database at `url` lacks, which was put back to an older state by its own means; None where no anchor
    knows of anything that is lost, and nothing is written. Whoever still writes this chain is fenced off.

    Raises `Broken`, `StoreError`, `entry.Failed`.
    """
    if not is_all:
        raise Broken(_ASK)
    past = database.past()
    try:
        found = recovery.look(past)
        _check_rows(found, "the database")
        what = lost(past, found, notes, spki)
    finally:
        past.close()
    if not what.losses:
        return None
    _burn(url)  # before it is declared: once it is, nothing is found to be lost any more
    now = datetime.now(UTC)
    backend = database.backend()
    try:
        epoch = declare(backend, found, what, reason=reason, requests="unknown", version=version, now=now)
    finally:
        backend.close()
    return Restored(epoch, (found.epoch, found.sequence), found.time, rfc3339(now), what.losses)


def _check_rows(found: Found, what: str) -> None:
    if not found.epoch:
        raise Broken(f"{what} has no rows: it is older than the daemon's first start, or of something else")


def _copy(backup: Path, draft: Path) -> None:
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(read_only(backup)) as source, closing(sqlite3.connect(draft)) as copy:
        try:
            source.backup(copy)
        except sqlite3.Error as error:
            raise StoreError(f"{backup}: {error}") from None
    open_store(draft).dispose()


def _look(draft: Path, database: Path, notes: Sequence[Note], spki: bytes, is_all: bool) -> tuple[Found, Lost, _Old]:
    """What stands in the copy, and what it lacks, by the anchors and by the old database."""
    past = SqliteDatabase(draft).past()
    try:
        found = recovery.look(past)
        _check_rows(found, "the backup")
        own = next(parse(found.note)).checkpoint if found.note else None
        old = _ask(database, draft, found, spki, own.number if own else 0)
        # Of the old database it is known whose it is, of anchors that name others alone not.
        known = [] if old.instance and not any(note.checkpoint.names(found.instance) for note in notes) else notes
        if not is_all and not _is_whole(old.notes, own, known):
            raise Broken(_ASK)
        what = lost(past, found, [*known, *old.notes], spki, more=old.ends, begun=old.begun)
        if old.carried is not None and not all(_has_last(old, loss) for loss in what.losses):
            old.carried = None
            old.trouble = "the old database lacks rows that anchors know: it does not tell what became of all requests"
        return found, what, old
    finally:
        past.close()


def _ask(database: Path, draft: Path, found: Found, spki: bytes, after: int) -> _Old:
    """What the old database tells, of its checkpoints those behind number `after`; requests are written into the draft."""
    told = _Old()
    if not database.is_file():
        return told
    try:
        with SqliteEvidence(database) as old:
            old.connection.text_factory = str  # bytes that are no text are no daemon's
            told.instance = old.instance
            if not old.instance:
                raise StoreError(f"{database} has no ledger")
            if old.instance != found.instance:
                said = f"the backup is of the ledger {found.instance}, and this daemon's is {old.instance}"
                raise Broken(f"{said}: it belongs to another daemon")
            told.begun = next(old.ask(_BEGUN, old.instance, EPOCH_MAX))[0]
            told.notes = remembered(old, spki, after)
            told.ends = _ends(old)
            told.intents = _open_intents(old, found)
            told.carried = _carry(old, draft)
    except StoreError as error:
        told.intents = ()  # of requests that are not taken over
        told.trouble = f"nothing was taken over from the old database, which could not be read: {error}"
    except sqlite3.Error as error:
        raise StoreError(f"{draft}: {error}") from None
    return told


def _has_last(old: _Old, loss: Loss) -> bool:
    """Whether the old database tells of what is lost; of epochs before its first one the archived files do."""
    first = min((end.epoch for end in old.ends), default=0)
    return loss.epoch < first or any(end.epoch == loss.epoch and end.sequence >= loss.last for end in old.ends)


def _is_whole(old: Sequence[Note], own: Checkpoint | None, known: Sequence[Note]) -> bool:
    """Whether these checkpoints are all from the backup's own to the last; a database that was put back itself has none."""
    if not old or old[-1].checkpoint.previous != (own.hash if own else NOTHING):
        return False
    mine, last = old[0].checkpoint.own.instance, old[0].checkpoint.number
    return all(note.checkpoint.number <= last for note in known if note.checkpoint.own.instance == mine)


def _ends(old: SqliteEvidence) -> list[Head]:
    return [
        Head(old.instance, epoch, sequence, hash_)
        for epoch, sequence, hash_ in old.ask(_ENDS, old.instance)
        if isinstance(hash_, bytes) and len(hash_) == len(NOTHING) and epoch < EPOCH_MAX
    ]


def _carry(old: SqliteEvidence, draft: Path) -> int:
    """
    Take over what the old database knows of requests of the last day and the backup does not: they were signed, and are
    not signed again. Answers how many. Raises `StoreError` where that cannot be read, `sqlite3.Error` where not written.
    """
    with closing(sqlite3.connect(draft)) as copy, copy:
        return {table: _add(old, copy, table) for table in _CARRIED}["ledger_requests"]


def _open_intents(old: SqliteEvidence, found: Found) -> list[dict[str, Any]]:
    """What the old database has under way behind the last row that is kept: a token may have signed it."""
    query = (
        "SELECT epoch, sequence, kind, body FROM ledger_rows "
        "WHERE instance = ? AND (epoch, sequence) > (?, ?) ORDER BY epoch, sequence"
    )
    open_: dict[tuple[int, int], str] = {}
    for epoch, sequence, kind, body in old.ask(query, found.instance, found.epoch, found.sequence):
        if kind == Kind.OUTCOME:
            with contextlib.suppress(*_NO_ROW):
                open_.pop((epoch, recovery.closed_intent(body) or 0), None)
        elif kind == Kind.INTENT:
            open_[epoch, sequence] = body
        elif kind == Kind.POSSIBLE:
            with contextlib.suppress(*_NO_ROW):
                open_.pop(tuple(json.loads(body)["intent"]), None)
    intents = []
    for body in open_.values():
        with contextlib.suppress(*_NO_ROW):
            said = json.loads(body)
            recovery.items_of(said)
            said.pop("commit_ms", None)  # of the row that it was
            intents.append(said)
    return intents


def _burn(where: Where) -> None:
    engine = open_store(where)
    try:
        with engine.begin() as connection:
            burn(connection)
    except DBAPIError as error:
        raise StoreError(" ".join(str(error.orig).split())) from None
    finally:
        engine.dispose()


def _add(old: SqliteEvidence, copy: sqlite3.Connection, table: str) -> int:
    """What is not there yet, row by row: a day may have more than the memory; answers how many."""
    query = f"SELECT * FROM {table}"  # noqa: S608
    places = ", ".join("?" * len(copy.execute(f"{query} LIMIT 0").description))
    return copy.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({places})", old.ask(query)).rowcount  # noqa: S608


def _exchange(draft: Path, database: Path) -> Path | None:
    """
    The copy takes the old database's name; that one keeps everything under another. Both are there at any moment: what is
    in the old one's log would be read as the new one's, so that the log goes first. Raises `Halfway`, or `OSError` where
    nothing has happened yet.
    """
    with closing(sqlite3.connect(draft, isolation_level=None)) as copy:
        copy.execute("PRAGMA journal_mode = DELETE")  # all of it is in the one file
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    aside = database.with_name(f"{database.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}")
    for side in ("", *_SIDES):
        with contextlib.suppress(FileNotFoundError):
            os.link(f"{database}{side}", f"{aside}{side}")
    sync_directory(database.parent)
    try:
        if aside.exists():
            _empty_log(database)
        for side in _SIDES:
            database.with_name(f"{database.name}{side}").unlink(missing_ok=True)
        sync_directory(database.parent)
        draft.rename(database)
        sync_directory(database.parent)
    except OSError as error:
        if not aside.exists():
            raise
        raise Halfway(_HALFWAY.format(error=error, database=database, aside=aside)) from None
    return aside if aside.exists() else None


def _empty_log(database: Path) -> None:
    """All of the old database into its one file: if all ends now, it is not found without what was in its log."""
    try:
        with closing(sqlite3.connect(database)) as old:
            old.execute("PRAGMA wal_checkpoint(FULL)")
    except sqlite3.Error:  # it is damaged: better under no name of a database than less than it was
        database.unlink()


def _remove(draft: Path) -> None:
    for side in ("", *_SIDES, "-journal"):
        draft.with_name(f"{draft.name}{side}").unlink(missing_ok=True)
