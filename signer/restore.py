"""
A backup is put in the place of a ledger, and what it lacks is declared as lost: by rows of the chain, for good.

What is lost is what anchors know and the backup does not: of each epoch from the first row that is not there to the last
one that a checkpoint names. Of an epoch of which no lost row was anchored, it is what the old database has, if that can
still be read. Other rows nobody can name. The chain goes on with an epoch that is higher than any
that is known to have begun, so that no place in it is used twice, and with the number after the newest checkpoint.

    EPOCH   "restored": the reason, the time of the backup's newest row, and what is known of the requests in between
    GAP     one for each epoch of which rows are lost

All of it is written into a copy of the backup, in one commit, before the copy takes the old database's place. The old
one is kept beside it.
"""

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from signer import recovery
from signer.appearing import sync_directory
from signer.chain import Kind, Row, after
from signer.clock import rfc3339
from signer.database import StoreError
from signer.entry import Entry
from signer.evidence import fields, instance_of, read_only
from signer.note import MAGIC, NOTHING, Head, Note, NoteError, note_of, parse
from signer.recovery import Broken, Found
from signer.sqlite import SqliteDatabase, SqlitePast
from signer.store import open_store

_EPOCH_MAX = 10**17  # an old database that says more was tampered with: numbers have at most 18 digits
_SIDES = ("-wal", "-shm")  # what SQLite keeps beside a database, by the end of its name
# What the old database knows of requests that the backup does not: who asks again gets the answer of then.
_CARRIED = ("ledger_chains", "ledger_requests", "ledger_results")


@dataclass(frozen=True, slots=True)
class Loss:
    """Rows of one epoch, and the hash of the last of them."""

    epoch: int
    first: int
    last: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done, for whoever did it."""

    epoch: int
    kept: tuple[int, int]  # the last row of the backup
    losses: tuple[Loss, ...]
    aside: Path | None  # where the old database is, if there was one
    carried: int | None  # requests of the old database that are still known; None: it could not be read


def is_declared(found: Found, head: Head) -> bool:
    """Whether a restore has declared this row as lost."""
    return any(_covers(fields(row), head) for row in found.gaps)


def _covers(gap: dict[str, Any], head: Head) -> bool:
    if (gap["instance"], gap["epoch"]) != (head.instance, head.epoch):
        return False
    is_last = head.sequence == gap["to"]
    return bool(gap["from"] <= head.sequence <= gap["to"]) and (not is_last or gap["hash"] == head.hash.hex())


def notes_of(files: Iterable[Path]) -> list[Note]:
    """
    Every whole checkpoint in these files, of those that are there: as an anchor has kept them (a last one that is torn is
    left out), or a log with such lines. Raises `Broken`.
    """
    found: list[Note] = []
    for file in files:
        try:
            text = file.read_bytes().decode()
            if text and not text.startswith(f"{MAGIC}\n"):
                text = "".join(note_of(line) for line in text.split("\n") if f"{MAGIC}\\n" in line)
            found += parse(_whole(text))
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError, NoteError) as error:
            raise Broken(f"the anchor {file} cannot be read: {error}") from None
    return found


def _whole(text: str) -> str:
    """Up to the last note's end: a note has two empty lines."""
    parts = text.split("\n\n")
    return "".join(f"{part}\n\n" for part in parts[: (len(parts) - 1) // 2 * 2])


def restore(
    backup: Path, database: Path, notes: Sequence[Note], spki: bytes | None, reason: str, version: str
) -> Restored:
    """
    Put a backup into the place of the database. `notes` are those that anchors have; `spki` is the key that must have
    signed the newest, None where that cannot be read here. Nobody else uses the database.

    Raises `Broken` where the backup is none of this ledger's, `StoreError`, `OSError`.
    """
    draft = database.with_name(f"{database.name}.restoring")
    _remove(draft)
    try:
        _copy(backup, draft)
        done = _declare(draft, database, notes, spki, reason, version)
        aside = _exchange(draft, database)
    finally:
        _remove(draft)
    return Restored(**done, aside=aside)


def _copy(backup: Path, draft: Path) -> None:
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(read_only(backup)) as source, closing(sqlite3.connect(draft)) as copy:
        try:
            source.backup(copy)
        except sqlite3.Error as error:
            raise StoreError(f"{backup}: {error}") from None
    open_store(draft).dispose()


def _declare(
    draft: Path, database: Path, notes: Sequence[Note], spki: bytes | None, reason: str, version: str
) -> dict[str, Any]:
    """Write into the copy what is lost."""
    past = SqliteDatabase(draft).past()
    try:
        found = recovery.look(past)
        if not found.epoch:
            raise Broken("the backup has no rows: it is older than the daemon's first start, or of something else")
        ours = [note for note in notes if any(head.instance == found.instance for head in note.checkpoint.heads)]
        _check_owner(found, database, notes, ours)
        newest = _newest(found, ours, spki)
        lost = _losses(past, found, ours, database)
    finally:
        past.close()
    began = max([found.epoch, *(loss.epoch for loss in lost), _begun(database, found.instance), *_epochs(found, ours)])
    now = rfc3339(datetime.now(UTC))
    carried = _carry(database, draft)
    kept = _time_of_last(draft, found)
    said = {"reason": reason, "kept": kept, "requests": "unknown" if carried is None else "carried"}
    checkpoint = newest.checkpoint.hash.hex() if newest else NOTHING.hex()
    entries = [
        Entry(
            Kind.EPOCH,
            {"time": now, "version": version, "checkpoint": checkpoint, "restored": said},
            note=str(newest) if newest else "",
        )
    ]
    for loss in lost:
        place = {"instance": found.instance, "epoch": loss.epoch, "from": loss.first, "to": loss.last}
        entries.append(Entry(Kind.GAP, {**place, "hash": loss.hash.hex(), "reason": reason, "kept": kept, "time": now}))
    _begin(draft, found, began, entries)
    return {"epoch": began + 1, "kept": (found.epoch, found.sequence), "losses": tuple(lost), "carried": carried}


def _check_owner(found: Found, database: Path, notes: Sequence[Note], ours: Sequence[Note]) -> None:
    """Whether the backup is of this daemon, as far as the old database or the anchors say whose it is."""
    before = instance_of(database) if database.is_file() else ""
    if (before and before != found.instance) or (not before and notes and not ours):
        known = f"this daemon's is {before}" if before else "the anchors know others only"
        raise Broken(f"the backup is of the ledger {found.instance}, and {known}: it belongs to another daemon")


def _newest(found: Found, ours: Sequence[Note], spki: bytes | None) -> Note | None:
    """The checkpoint to go on from: an anchor's, or the backup's where that is newer."""
    own = next(parse(found.note)) if found.note else None
    newest = max([*ours, *([own] if own else [])], key=lambda note: note.checkpoint.number, default=None)
    if newest is not None and newest is not own and spki is not None:
        try:
            newest.check(spki)
        except NoteError as error:
            raise Broken(
                f"the newest checkpoint of the anchors is not this daemon's: {error}. Keep the anchor as evidence, and "
                "take that note out of a copy only once you know who put it there"
            ) from None
    return newest


def _losses(past: SqlitePast, found: Found, ours: Sequence[Note], database: Path) -> list[Loss]:
    """Of each epoch: what is behind the backup's last row, and was anchored, or is in the old database."""
    last: dict[int, Head] = {}
    for note in ours:
        for head in note.checkpoint.heads:
            if head.instance != found.instance:
                continue
            if (head.epoch, head.sequence) <= (found.epoch, found.sequence):
                _check_same(past, head, note)
            elif head.epoch not in last or head.sequence > last[head.epoch].sequence:
                last[head.epoch] = head
    for head in _ends(database, found):
        last.setdefault(head.epoch, head)
    return [
        Loss(epoch, found.sequence + 1 if epoch == found.epoch else 1, head.sequence, head.hash)
        for epoch, head in sorted(last.items())
    ]


def _ends(database: Path, found: Found) -> Iterator[Head]:
    """The last row of each epoch in the old database that the backup lacks, as far as it can be read."""
    query = "SELECT epoch, max(sequence), hash FROM ledger_rows WHERE instance = ? GROUP BY epoch"
    with contextlib.suppress(StoreError, sqlite3.Error), closing(read_only(database)) as old:
        for epoch, sequence, hash_ in old.execute(query, (found.instance,)):
            if (
                isinstance(hash_, bytes)
                and len(hash_) == len(NOTHING)
                and epoch < _EPOCH_MAX
                and ((epoch, sequence) > (found.epoch, found.sequence))
            ):
                yield Head(found.instance, epoch, sequence, hash_)


def _check_same(past: SqlitePast, head: Head, note: Note) -> None:
    """What is there is what was anchored. What is not was archived, or an earlier restore has declared it."""
    there = past.hash_of(head.instance, head.epoch, head.sequence)
    if there is not None and there != head.hash:
        raise Broken(
            f"row {head.epoch}/{head.sequence} of the backup is another than checkpoint {note.checkpoint.number} says: "
            "it was changed; take another backup"
        )


def _epochs(found: Found, ours: Sequence[Note]) -> Iterator[int]:
    for note in ours:
        yield from (head.epoch for head in note.checkpoint.heads if head.instance == found.instance)


def _begun(database: Path, instance: str) -> int:
    """The last epoch that the old database knows of, which no checkpoint may have seen; 0 where it cannot be read."""
    begun = 0
    with contextlib.suppress(StoreError, sqlite3.Error), closing(read_only(database)) as old:
        for table in ("ledger_instances", "ledger_rows"):
            (epoch,) = old.execute(f"SELECT max(epoch) FROM {table} WHERE instance = ?", (instance,)).fetchone()  # noqa: S608
            if isinstance(epoch, int) and epoch < _EPOCH_MAX:
                begun = max(begun, epoch)
    return begun


def _time_of_last(draft: Path, found: Found) -> str:
    """When the newest row that is kept was written: what was asked later is not in it."""
    with closing(read_only(draft)) as copy:
        query = "SELECT body FROM ledger_rows WHERE instance = ? AND epoch = ? AND sequence = ?"
        (body,) = copy.execute(query, (found.instance, found.epoch, found.sequence)).fetchone()
    return str(json.loads(body).get("time", ""))


def _carry(database: Path, draft: Path) -> int | None:
    """
    Take over what the old database knows of requests of the last day and the backup does not: they were signed, and are
    not signed again. None where nothing of it can be read; then those ids are not known any more.
    """
    if not database.is_file():
        return None
    try:
        with closing(read_only(database)) as old:
            tables = {table: old.execute(f"SELECT * FROM {table}").fetchall() for table in _CARRIED}  # noqa: S608
        with closing(sqlite3.connect(draft)) as copy, copy:
            return sum(_insert(copy, table, rows) for table, rows in tables.items())
    except (StoreError, sqlite3.Error):
        return None


def _insert(copy: sqlite3.Connection, table: str, rows: Sequence[tuple[Any, ...]]) -> int:
    """What is not there yet; answers how many requests."""
    if not rows:
        return 0
    places = ", ".join("?" * len(rows[0]))
    count = copy.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({places})", rows).rowcount  # noqa: S608
    return count if table == "ledger_requests" else 0


def _begin(draft: Path, found: Found, began: int, entries: list[Entry]) -> None:
    """The epoch's first commit."""
    with closing(sqlite3.connect(draft)) as copy, copy:  # nobody else sees it yet
        copy.execute("UPDATE ledger_instances SET epoch = ? WHERE instance = ?", (began, found.instance))
    rows: list[Row] = []
    for sequence, entry in enumerate(entries, 1):
        previous = rows[-1].hash if rows else found.hash
        rows.append(after(found.instance, began + 1, sequence, previous, entry.kind, entry.fields))
    backend = SqliteDatabase(draft).backend()
    try:
        backend.begin_epoch(found.instance, began + 1, entries, rows)
    finally:
        backend.close()


def _exchange(draft: Path, database: Path) -> Path | None:
    """
    The copy takes the old database's name; that one keeps everything under another. Both are there at any moment: what is
    in the old one's log would be read as the new one's, so that the log goes first.
    """
    with closing(sqlite3.connect(draft, isolation_level=None)) as copy:
        copy.execute("PRAGMA journal_mode = DELETE")  # all of it is in the one file
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    aside = None
    if database.exists():
        aside = database.with_name(f"{database.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}")
        os.link(database, aside)
        for side in _SIDES:
            with contextlib.suppress(FileNotFoundError):
                os.link(f"{database}{side}", f"{aside}{side}")
        sync_directory(database.parent)
        for side in _SIDES:
            database.with_name(f"{database.name}{side}").unlink(missing_ok=True)
        sync_directory(database.parent)
    draft.rename(database)
    sync_directory(database.parent)
    return aside


def _remove(draft: Path) -> None:
    for side in ("", *_SIDES, "-journal"):
        draft.with_name(f"{draft.name}{side}").unlink(missing_ok=True)
