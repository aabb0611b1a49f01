"""
What anchors know of a ledger and its database does not, because an older state was put back; and the rows that declare it
as lost, for good.

Lost are, of each epoch, the rows from the first that is not there to the last one that a checkpoint names. Other rows
nobody can name, unless the database of before can still be read. The chain goes on with an epoch that is higher than any
that is known to have begun, so that no place in it is used twice, and with the number after the newest checkpoint.

    EPOCH   "restored": the reason, the time of the newest row that is kept, and what is known of the requests in between
    GAP     one for each epoch of which rows are lost
    INTENT  those that the database of before has, and nothing there closes: the next start says that they may have been
            signed

Who can write to an anchor may leave any note there, so that only those are believed that the key has signed, and those
before them that they name.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from signer.chain import Kind, Row, after
from signer.clock import rfc3339
from signer.database import Epochs, Past
from signer.entry import Entry
from signer.evidence import fields
from signer.note import MAGIC, NOTHING, Head, Note, NoteError, key_id, note_of, parse
from signer.recovery import Broken, Found

log = logging.getLogger("signer.lost")

EPOCH_MAX = 10**17  # whoever says more has tampered: numbers have at most 18 digits


@dataclass(frozen=True, slots=True)
class Loss:
    """Rows of one epoch, and the hash of the last of them."""

    epoch: int
    first: int
    last: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    losses: tuple[Loss, ...]
    newest: Note | None  # the checkpoint to go on from
    begun: int  # the last epoch that is known to have begun


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


def lost(
    past: Past, found: Found, notes: Sequence[Note], spki: bytes, *, more: Sequence[Head] = (), begun: int = 0
) -> Lost:
    """
    What is lost behind the last row that was found. `notes` are those that anchors have, `spki` the key that must have
    signed them; `more` and `begun` the last rows and the last epoch that the database of before tells of. Raises `Broken`
    where what is there is another ledger than that of the anchors.
    """
    ours = [note for note in notes if note.checkpoint.own.instance == found.instance]
    # Other daemons of the database may have a key of their own: those are not false.
    key = key_id(spki)
    others = [note for note in notes if note.key == key and found.instance in _named_besides(note)]
    if notes and not ours and not others:
        raise Broken(f"the anchors know other ledgers than {found.instance}: it belongs to another daemon")
    newest = _newest(found, ours, spki)
    believed = [(head, note) for note in _believed([*ours, *others], spki) for head in note.checkpoint.heads]
    heads = [(head, note) for head, note in believed if head.instance == found.instance]
    losses = tuple(_losses(past, found, heads, more))
    epochs = [found.epoch, begun, *(head.epoch for head, _ in heads), *(loss.epoch for loss in losses)]
    return Lost(losses, newest, max(epochs))


def _named_besides(note: Note) -> set[str]:
    """The chains that a checkpoint names, its own daemon's aside."""
    return {head.instance for head in note.checkpoint.others}


def check(note: Note, spki: bytes) -> None:
    """Raises `NoteError` unless the key has signed it, and its chains could go on."""
    note.check(spki)
    if any(head.epoch >= EPOCH_MAX for head in note.checkpoint.heads):
        raise NoteError(f"checkpoint {note.checkpoint.number} names an epoch that no daemon has begun")


def _believed(notes: Sequence[Note], spki: bytes) -> Iterator[Note]:
    """Which of them the key has signed, or the next one names: that is quicker to see, and holds as well."""
    named: set[bytes] = set()
    for note in sorted(notes, key=lambda note: -note.checkpoint.number):
        if note.checkpoint.hash not in named:
            try:
                check(note, spki)
            except NoteError as error:
                log.warning(
                    "an anchor has a false checkpoint, which was ignored: %s; keep that anchor as evidence", error
                )
                continue
        named.add(note.checkpoint.previous)
        yield note


def _newest(found: Found, ours: Sequence[Note], spki: bytes) -> Note | None:
    """The checkpoint to go on from: an anchor's, or the ledger's where that is newer."""
    own = next(parse(found.note)) if found.note else None
    newest = max([*ours, *([own] if own else [])], key=lambda note: note.checkpoint.number, default=None)
    if newest is not None and newest is not own:
        try:
            check(newest, spki)
        except NoteError as error:
            raise Broken(
                f"the newest checkpoint of the anchors is not this daemon's: {error}. Keep the anchor as evidence, and "
                "take that note out of a copy only once you know who put it there"
            ) from None
    return newest


def _losses(past: Past, found: Found, heads: Sequence[tuple[Head, Note]], more: Sequence[Head]) -> Iterator[Loss]:
    """Of each epoch: what is behind the last row that is there, and was anchored, or else is known by `more`."""
    end = (found.epoch, found.sequence)
    last: dict[int, Head] = {}
    for head, note in heads:
        if (head.epoch, head.sequence) <= end:
            _check_same(past, head, note)
        elif head.epoch not in last or head.sequence > last[head.epoch].sequence:
            last[head.epoch] = head
    for head in more:
        if (head.epoch, head.sequence) > end:
            last.setdefault(head.epoch, head)
    for epoch, head in sorted(last.items()):
        yield Loss(epoch, found.sequence + 1 if epoch == found.epoch else 1, head.sequence, head.hash)


def _check_same(past: Past, head: Head, note: Note) -> None:
    """What is there is what was anchored. What is not was archived, or an earlier restore has declared it."""
    there = past.hash_of(head.instance, head.epoch, head.sequence)
    if there is not None and there != head.hash:
        raise Broken(
            f"row {head.epoch}/{head.sequence} is another than checkpoint {note.checkpoint.number} says: what was put "
            "back was changed; take another backup"
        )


def declare(
    backend: Epochs,
    found: Found,
    what: Lost,
    *,
    intents: Sequence[dict[str, Any]] = (),
    reason: str,
    requests: str,
    version: str,
    now: datetime,
) -> int:
    """
    Write it into the chain, in one commit, and fence off whoever wrote this chain before; answers the epoch that has begun.
    `requests` says what is known of those in between, `intents` what was under way. Raises `entry.Failed`.
    """
    time = rfc3339(now)
    checkpoint = what.newest.checkpoint.hash.hex() if what.newest else NOTHING.hex()
    restored = {"reason": reason, "kept": found.time, "requests": requests}
    entries = [
        Entry(
            Kind.EPOCH,
            {"time": time, "version": version, "checkpoint": checkpoint, "restored": restored},
            note=str(what.newest) if what.newest else "",
        )
    ]
    for loss in what.losses:
        place = {"instance": found.instance, "epoch": loss.epoch, "from": loss.first, "to": loss.last}
        said = {"hash": loss.hash.hex(), "reason": reason, "kept": found.time, "time": time}
        entries.append(Entry(Kind.GAP, place | said))
    entries += [Entry(Kind.INTENT, intent | {"time": time}) for intent in intents]
    rows: list[Row] = []
    for sequence, entry in enumerate(entries, 1):
        previous = rows[-1].hash if rows else found.hash
        rows.append(after(found.instance, what.begun + 1, sequence, previous, entry.kind, entry.fields))
    backend.begin_epoch(found.instance, found.epoch, what.begun + 1, entries, rows)
    return what.begun + 1
