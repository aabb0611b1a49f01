"""
Checkpoints that a SQLite database of before can still tell of: the last one, as the key has signed it, and those before it,
made again from rows. Each names the hash of the one before it, so that nothing made again can be another.

A checkpoint is in its database before any anchor has it: no anchor knows one that such a database does not.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from itertools import chain, pairwise
from typing import Any

from signer.chain import Kind
from signer.evidence import SqliteEvidence
from signer.lost import check
from signer.note import NOTHING, Checkpoint, Head, Note, NoteError, parse

_LAST = "SELECT note FROM ledger_instances WHERE instance = ? AND note != ''"
_CHECKPOINTS = """
SELECT epoch, sequence, body FROM ledger_rows WHERE instance = ? AND kind = ? ORDER BY epoch DESC, sequence DESC
"""
_BEFORE = (
    "SELECT sequence, hash FROM ledger_rows WHERE instance = ? AND epoch = ? AND sequence < ? ORDER BY sequence DESC"
)


def remembered(db: SqliteEvidence, spki: bytes, after: int) -> list[Note]:
    """
    Those with a higher number than `after`, the newest first, if the key has signed the newest. Of the others the signature
    is not there. Raises `StoreError`.
    """
    found: list[Note] = []
    with suppress(NoteError):
        for (said,) in db.ask(_LAST, db.instance):
            last = next(parse(str(said)))
            check(last, spki)
            for note in chain([last], _earlier(db, last.checkpoint)):
                if note.checkpoint.number <= after:
                    break
                found.append(note)
    return found


def _earlier(db: SqliteEvidence, last: Checkpoint) -> Iterator[Note]:
    """Up to the first that no rows tell of: these were archived, or an earlier restore has declared them as lost."""
    previous = last.previous
    rows = db.ask(_CHECKPOINTS, db.instance, Kind.CHECKPOINT)
    with suppress(AttributeError, KeyError, TypeError, ValueError):  # no row that a daemon has written
        told = chain(((epoch, sequence, json.loads(body)) for epoch, sequence, body in rows), [(0, 0, None)])
        for (epoch, sequence, said), (_, _, before) in pairwise(told):
            if said["note"] == previous.hex():
                made = _made_again(db, (epoch, sequence), said, before)
                if made is None:
                    return
                yield made
                previous = made.checkpoint.previous


def _made_again(
    db: SqliteEvidence, place: tuple[int, int], said: dict[str, Any], before: dict[str, Any] | None
) -> Note | None:
    """Its head is a row of its epoch before its own, as a rule the last one."""
    if before is None and said["number"] != 1:
        return None
    previous = NOTHING if before is None else bytes.fromhex(before["note"])
    for sequence, hash_ in db.ask(_BEFORE, db.instance, *place):
        head = Head(db.instance, place[0], sequence, hash_)
        made = Checkpoint(said["number"], datetime.fromisoformat(said["time"]), previous, head)
        if made.hash.hex() == said["note"]:
            return Note(made, said["key"], "ED25519", b"")
    return None
