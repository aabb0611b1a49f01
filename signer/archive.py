"""
Old rows of the chain go from the database into files, and are deleted once those were read back and judged.

A file goes up to a row that a checkpoint of an anchor names, so that it can be judged for itself. That row stays in the
database, too: the chain there begins with it, and every later checkpoint is beside it. What stood before it is said by
a row in a place of its own (`recovery.ARCHIVED`), written in the commit that deletes.

Kept are the rows of a day, whose requests may still come again, and everything from an INTENT on that is open.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine, and_, delete, func, select, tuple_
from sqlalchemy.exc import OperationalError

from signer import recovery, store
from signer.appearing import appearing
from signer.audit import examine
from signer.chain import Row, read, write
from signer.database import Past, StoreError
from signer.evidence import fields
from signer.ledger import KEEP_S
from signer.note import Note
from signer.recovery import ARCHIVED
from signer.verdict import Finding, Verdict

KIND = "ARCHIVED"  # of no row of a chain
DELETE_ROWS = 500  # in a transaction: the daemon waits some milliseconds for its own
PAUSE_S = 0.1  # between two
_MODE = 0o440
_LOCK = int.from_bytes(b"archive")  # PostgreSQL's advisory lock of whoever moves a mark

Place = tuple[int, int]
Pause = Callable[[float], None]


class NotWhole(Exception):
    """What was written is not what the checkpoints say; nothing was deleted. The message says what and where."""


@dataclass(frozen=True, slots=True)
class Archived:
    file: Path
    first: Place
    last: Place  # it is in the database, too
    rows: int
    deleted: int


def archive(
    past: Past,
    engine: Engine,
    notes: Sequence[Note],
    spki: bytes,
    directory: Path,
    *,
    now: datetime,
    pause: Pause = time.sleep,
) -> Archived | None:
    """
    Answers None where nothing is old enough and anchored. Raises `NotWhole`, `recovery.Broken`, what the database raises,
    `OSError` for the directory; `StoreError`, a temporary one, where rows cannot be deleted now: the file is there then.
    """
    found = recovery.look(past)
    notes = [note for note in notes if _is_ours(note, found.instance, spki)]
    end = _end(past, found.instance, (now - timedelta(seconds=KEEP_S)).astimezone(UTC), found.open_intents)
    note, head = _newest(past, notes, end)
    if note is None or head is None:
        return None
    first = next(_rows(past, found.instance, head), None)
    if first is None or (first.epoch, first.sequence) == head:
        return None
    name = f"ledger-{found.instance}-{first.epoch}.{first.sequence}-{head[0]}.{head[1]}"
    with appearing(directory / name, _MODE) as draft:
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            rows = 0
            for line in _segment(_rows(past, found.instance, head)):
                file.write(line)
                rows += 1
        _check(draft, [each for each in notes if each.checkpoint.number <= note.checkpoint.number], spki)
    try:
        deleted = _delete(engine, directory / name, head, pause)
    except OperationalError as error:  # somebody else's lock, no room, or the server is away
        why = " ".join(str(error.orig).split())
        said = f"{why}; not every row of {directory / name} was deleted. Keep it, and try again with another directory"
        raise StoreError(said, is_temporary=True) from None
    return Archived(directory / name, (first.epoch, first.sequence), head, rows - 1, deleted)


def _is_ours(note: Note, instance: str, spki: bytes) -> bool:
    """Others may put theirs into a log."""
    return note.checkpoint.own.instance == instance and note.is_signed_by(spki)


def _end(past: Past, instance: str, before: datetime, open_intents: Sequence[Row]) -> Place | None:
    """The first row that must stay, None if none must: all before it are a day old, and settled."""
    opened = min(((row.epoch, row.sequence) for row in open_intents), default=None)
    with closing(recovery.rows(past, instance)) as rows:
        for row, _ in rows:
            place = (row.epoch, row.sequence)
            if place == opened or _time(row) > before:
                return place
    return None


def _time(row: Row) -> datetime:
    """A row without a time stays."""
    said = fields(row).get("time")
    return datetime.fromisoformat(said) if isinstance(said, str) else datetime.max.replace(tzinfo=UTC)


def _newest(past: Past, notes: Sequence[Note], end: Place | None) -> tuple[Note | None, Place | None]:
    """The newest checkpoint whose head may be the first row that stays, and is the one that is there."""
    for note in sorted(notes, key=lambda note: -note.checkpoint.number):
        head = note.checkpoint.own
        place = (head.epoch, head.sequence)
        if (end is None or place <= end) and recovery.has_row(past, head):
            return note, place
    return None, None


def _rows(past: Past, instance: str, last: Place) -> Iterator[Row]:
    with closing(recovery.rows(past, instance)) as rows:
        for row, _ in rows:
            if (row.epoch, row.sequence) > last:
                return
            yield row


def _segment(rows: Iterator[Row]) -> Iterator[str]:
    yield from write([next(rows)])
    for row in rows:
        yield row.line


def _check(file: Path, notes: Sequence[Note], spki: bytes) -> None:
    """Read it as an auditor does."""
    with file.open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        report = examine([lines], notes, spki)
    if report.verdict is Verdict.TAMPERED:
        raise NotWhole("; ".join(_said(each) for each in report.findings[:3]))


def _said(finding: Finding) -> str:
    return f"{finding.kind} {finding.place}: {finding.sentence}"


def _delete(engine: Engine, file: Path, head: Place, pause: Pause) -> int:
    """Oldest first, as many at a time as hold nobody up; what was not deleted when this ends is the next time's."""
    deleted = 0
    part: list[Row] = []
    with file.open(encoding="utf-8", newline="\n") as lines:
        for row in read(lines):
            if (row.epoch, row.sequence) == head:
                break
            part.append(row)
            if len(part) == DELETE_ROWS:
                deleted += _delete_to(engine, part[-1])
                part.clear()
                pause(PAUSE_S)
    return deleted + (_delete_to(engine, part[-1]) if part else 0)


def _delete_to(engine: Engine, last: Row) -> int:
    """
    Every row up to this one, and what says so, in one commit. Nothing where another archive was here first: a mark that
    went back would name rows that are not there.
    """
    rows = store.rows
    ours = rows.c.instance == last.instance
    # Not `epoch < ? OR ...`: SQLite would look at the whole chain each time, while the daemon waits.
    older = tuple_(rows.c.epoch, rows.c.sequence) <= tuple_(last.epoch, last.sequence)
    said = json.dumps({"last": [last.epoch, last.sequence]}, separators=(",", ":"))
    epoch, sequence = ARCHIVED
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":  # SQLite's transactions exclude one another
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        is_mark = and_(rows.c.epoch == epoch, rows.c.sequence == sequence)
        before = connection.execute(select(rows.c.body).where(ours, is_mark)).scalar()
        if before is not None and json.loads(before)["last"] >= [last.epoch, last.sequence]:
            return 0
        connection.execute(delete(rows).where(ours, is_mark))
        deleted: int = connection.execute(delete(rows).where(ours, older)).rowcount
        connection.execute(
            rows.insert().values(
                instance=last.instance, epoch=epoch, sequence=sequence, kind=KIND, body=said, hash=last.hash
            )
        )
    return deleted
