"""
Before anything is served: is the ledger whole, what did a crash leave open, and which epoch begins?

Every row of this instance's chain is hashed again. An INTENT that no OUTCOME closes was with a lane when the daemon
ended: it may have been signed, and nothing of it was released. Its items are INDETERMINATE from now on, and a row says
so. The same for an INTENT to which the token was never asked: on the disk there is no difference.
"""

import json
import uuid
from collections import deque
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from signer.chain import GENESIS, Kind, Row, after, row_hash
from signer.cipher import Cipher
from signer.clock import rfc3339
from signer.database import Epochs, Past
from signer.entry import Entry
from signer.note import NOTHING, Head, parse
from signer.results import Part, Range

REASON = "INTERRUPTED"
# The place of what is no row of the chain: it says which row was archived last, and has that one's hash (archive.py).
ARCHIVED = (0, 0)
TIMES_MOST = 20_000  # a day of one checkpoint each 4 s
_OUTCOME = '{"intent":'  # how the body of every OUTCOME begins (entry.py)
_AFTER_ALL = 1 << 31  # behind the results that an attempt itself has written


class Broken(Exception):
    """The ledger is not what was written: nothing is signed with it. The message says where."""


@dataclass(frozen=True, slots=True)
class Found:
    """Where the ledger stands: the last row of all, and the last checkpoint's note, empty if there was none."""

    instance: str
    epoch: int
    sequence: int
    hash: bytes
    note: str
    open_intents: tuple[Row, ...]
    anchored: datetime | None = None  # of when the newest checkpoint is that an anchor has, as far as the chain knows
    began: datetime | None = None  # when the first row was written, of those that are there
    gaps: tuple[Row, ...] = ()  # what restores have declared as lost
    time: str = ""  # of the last row (RFC 3339)
    times: tuple[tuple[int, float], ...] = ()  # of starts and checkpoints, the last ones: epoch, and seconds since 1970

    @property
    def head(self) -> Head | None:
        return Head(self.instance, self.epoch, self.sequence, self.hash) if self.epoch else None


def look(past: Past) -> Found:
    """Read the whole chain of this daemon's instance; raises `Broken`, and what `Past` raises."""
    instance, epoch, note = past.instance()
    last, open_, checkpoint, gaps, dated = _walk(past, instance)
    if last is None:
        if epoch:
            raise Broken(f"the ledger has no rows, and epoch {epoch} was begun: it was emptied")
        return Found(instance, 0, 0, GENESIS, note, ())
    if last.epoch != epoch:
        raise Broken(f"the ledger ends in epoch {last.epoch}, and epoch {epoch} was begun: its end is missing")
    anchored = _time(checkpoint, "anchored") if checkpoint is not None else None
    with closing(rows(past, instance)) as chain:
        first = next((row for row, _ in chain), None)
    began = _time(first, "time") if first is not None else None
    time = str(last.fields.get("time", ""))
    texts = ((of, json.loads(body).get("time")) for of, body in dated)
    times = tuple((of, datetime.fromisoformat(text).timestamp()) for of, text in texts if text)
    return Found(
        instance, epoch, last.sequence, last.hash, note, tuple(open_), anchored, began, tuple(gaps), time, times
    )


def _time(row: Row, name: str) -> datetime | None:
    said = row.fields.get(name)
    return datetime.fromisoformat(said) if said else None


def rows(past: Past, instance: str) -> Generator[tuple[Row, int | None]]:
    """The chain in its order, as it stands there, each with the INTENT that it closes; the first kept row says what was before."""
    previous = GENESIS
    for epoch, sequence, kind, body, hash_, closes in past.rows(instance):
        if (epoch, sequence) != ARCHIVED:
            yield Row(instance, epoch, sequence, kind, body, previous, hash_), closes
        previous = hash_


def _walk(past: Past, instance: str) -> tuple[Row | None, list[Row], Row | None, list[Row], Iterable[tuple[int, str]]]:
    """
    The last row, the intents that are open, the last checkpoint's row, the gaps, and of the last starts and checkpoints
    epoch and body.

    A million chunks are two million rows, and somebody waits for the daemon: an object is made only of what is answered.
    """
    last_epoch = last_sequence = 0
    kind, body, previous, hash_ = "", "", GENESIS, GENESIS
    checkpoint, gaps = None, []
    dated: deque[tuple[int, str]] = deque(maxlen=TIMES_MOST)
    intents: dict[tuple[int, int], tuple[str, bytes, bytes]] = {}
    with closing(past.rows(instance)) as chain:
        for epoch, sequence, kind, body, now, closes in chain:
            if (epoch, sequence) == ARCHIVED:
                (last_epoch, last_sequence), hash_ = json.loads(body)["last"], now
                continue
            if (epoch, sequence) != (last_epoch, last_sequence + 1) and not (
                kind == Kind.EPOCH and sequence == 1 and _may_begin(epoch, last_epoch, body)
            ):
                raise Broken(f"row {epoch}/{sequence} does not follow the one before it: rows are missing")
            previous, hash_ = hash_, now
            if row_hash(instance, epoch, sequence, previous, kind, body) != hash_:
                raise Broken(f"row {epoch}/{sequence} is not what was written")
            last_epoch, last_sequence = epoch, sequence
            if closes != (closed_intent(body) if kind == Kind.OUTCOME else None):
                raise Broken(
                    f"row {epoch}/{sequence} is said to close another INTENT than it does: somebody has changed that"
                )
            if closes is not None:
                intents.pop((epoch, closes), None)
            elif kind == Kind.INTENT:
                intents[epoch, sequence] = (body, previous, hash_)
            elif kind == Kind.POSSIBLE:
                intents.pop(tuple(json.loads(body)["intent"]), None)
            elif kind == Kind.CHECKPOINT:
                dated.append((epoch, body))
                checkpoint = Row(instance, epoch, sequence, kind, body, previous, hash_)
            elif kind == Kind.EPOCH:
                dated.append((epoch, body))
            elif kind == Kind.GAP:
                gaps.append(Row(instance, epoch, sequence, kind, body, previous, hash_))
    if not last_epoch:
        return None, [], None, [], ()
    open_ = [Row(instance, *place, Kind.INTENT, text, before, made) for place, (text, before, made) in intents.items()]
    return Row(instance, last_epoch, last_sequence, kind, body, previous, hash_), open_, checkpoint, gaps, dated


def closed_intent(body: str) -> int | None:
    """
    The INTENT of which an OUTCOME leaves nothing open, by its row's own text, which its hash covers; what the database has
    beside it is only quicker to find. Not by a JSON parser, which would take seconds for a million rows.
    """
    if not body.startswith(_OUTCOME) or '"closed":true' not in body:
        return None
    return int(body[len(_OUTCOME) : body.index(",")])


def _may_begin(epoch: int, last: int, body: str) -> bool:
    """Whether this epoch may follow that one: only a restore leaves some out, those that had begun in what is lost."""
    return epoch == last + 1 or (epoch > last and '"restored":{' in body)


def has_row(past: Past, head: Head) -> bool:
    """Whether the chain has this row."""
    return past.hash_of(head.instance, head.epoch, head.sequence) == head.hash


def was_archived(past: Past, head: Head) -> bool:
    """Whether this row's place is before the first one that is still in the database."""
    with closing(past.rows(head.instance)) as raw:
        first = next(raw, None)
    if first is None or first[:2] != ARCHIVED:
        return False
    last: list[int] = json.loads(first[3])["last"]
    return [head.epoch, head.sequence] <= last


def begin(past: Past, backend: Epochs, found: Found, cipher: Cipher, version: str) -> tuple[int, int, bytes]:
    """
    Begin the next epoch, and write down what the last one left open, in one commit; answers the epoch, and its last row's
    place and hash. `backend` writes in that epoch from now on.

    Raises `entry.Failed`.
    """
    now = rfc3339(datetime.now(UTC))
    epoch = found.epoch + 1
    checkpoint = _checkpoint_hash(found.note)
    entries = [Entry(Kind.EPOCH, {"time": now, "version": version, "checkpoint": checkpoint})]
    for intent in found.open_intents:
        entries.append(_possible(past, intent, len(entries), cipher, now))
    written: list[Row] = []
    for sequence, entry in enumerate(entries, 1):
        previous = written[-1].hash if written else found.hash
        written.append(after(found.instance, epoch, sequence, previous, entry.kind, entry.fields))
    backend.begin_epoch(found.instance, found.epoch, epoch, entries, written)
    return epoch, len(written), written[-1].hash


def _possible(past: Past, intent: Row, number: int, cipher: Cipher, now: str) -> Entry:
    """The row for one INTENT, and the results of its items that have none."""
    fields = intent.fields
    id_, item, places = items_of(fields)
    for data in past.results(id_, item):
        part = Part.of(cipher.open(id_, item, data))
        places = [place for place in places if place not in _decided(part, fields["attempt"])]
    said = {"intent": [intent.epoch, intent.sequence], "request": fields["request"], "items": places, "time": now}
    entry = Entry(Kind.POSSIBLE, said, must=True)
    if places:
        ranges: list[Range] = [(place, place + 1) for place in places]
        problems = dict.fromkeys(places, ("INDETERMINATE", REASON))
        part = Part(fields["attempt"], fields["token"], ranges, [None] * len(places), problems)
        place_of_result = (fields["attempt"] << 32) + _AFTER_ALL + number
        entry.result = (id_, item, place_of_result, part.value())
    entry.complete(cipher.seal)
    return entry


def items_of(intent: dict[str, Any]) -> tuple[bytes, int, list[int]]:
    """The request and the item of it that an INTENT names, and the places that were given to a token."""
    name, _, index = intent["request"].partition("/")
    places = [place for start, stop in intent["items"] for place in range(start, stop)]
    return uuid.UUID(name).bytes, int(index) if index else -1, places


def _decided(part: Part, attempt: int) -> set[int]:
    """The places that have a signature, or were told of in this attempt already."""
    all_places = [place for start, stop in part.ranges for place in range(start, stop)]
    signed = {place for place, one in zip(all_places, part.signatures, strict=True) if one}
    return signed | (part.problems.keys() if part.attempt == attempt else set())


def _checkpoint_hash(note: str) -> str:
    return next(parse(note)).checkpoint.hash.hex() if note else NOTHING.hex()
