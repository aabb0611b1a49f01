"""
The life of one request, out of the rows of a chain and the checkpoints beside it. Pure.

A row is dated by the moment in which its commit began, in milliseconds: rows with one time went to the disk together. What
is no row (accepted, covered by a checkpoint), and what a start or a restore wrote, has whole seconds.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any

from signer.chain import Kind, Row
from signer.clock import rfc3339
from signer.evidence import fields
from signer.note import Note

ACCEPTED = "ACCEPTED"  # is no row: a request is accepted before its first INTENT, which brings the time along
CHECKPOINT = "CHECKPOINT"

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Event:
    kind: str
    time: str  # RFC 3339, with milliseconds where a commit is meant; empty where nothing says when
    place: Place | None  # of its row; of a checkpoint the last row that it covers
    what: str
    intent: Place | None = None  # the INTENT whose outcome it is

    def value(self, request: str) -> dict[str, Any]:
        """For JSON."""
        epoch, sequence = self.place or (None, None)
        found = {"request": request, "kind": self.kind, "time": self.time, "epoch": epoch, "sequence": sequence}
        return {**found, "what": self.what}


def life(rows: Iterable[Row], notes: Iterable[Note], request: str, accepted: str) -> list[Event]:
    """
    What happened, in its order; nothing where the rows do not tell of it. `request` is a UUID, or one with a document's
    index; `accepted` the time of that, empty where it is forgotten.
    """
    instance, events = "", []
    for row, event in _events(rows, request):
        instance = row.instance
        events.append(event)
    if not events:
        return []
    waited = list(takewhile(lambda event: event.kind == Kind.BATCH, events))  # for a person: then it became a request
    rest = events[len(waited) :]
    begin = []
    if accepted:
        begin = [Event(ACCEPTED, accepted, None, "the request was accepted")]
    elif rest:
        begin = [Event(ACCEPTED, rest[0].time, None, "the request was accepted, at this time at the latest")]
    checkpoints = list(_covering(events, instance, notes))
    rest = sorted([*rest, *checkpoints], key=lambda event: (event.place, event.kind == CHECKPOINT))
    return [*waited, *begin, *rest]


def _events(rows: Iterable[Row], request: str) -> Iterator[tuple[Row, Event]]:
    intents: dict[Place, str] = {}  # with their times
    id_ = request.partition("/")[0]
    for row in rows:
        if row.kind != Kind.OUTCOME and id_ not in row.body:
            continue  # of a million rows few are read
        if row.kind == Kind.OUTCOME and not intents:
            continue
        said, place = fields(row), (row.epoch, row.sequence)
        if row.kind == Kind.OUTCOME:
            intent = (row.epoch, said.get("intent", 0))
            if intent in intents:
                took = _took(intents[intent], _time(said))
                yield row, Event(row.kind, _time(said), place, _outcome(said) + took + _doubt(row), intent)
        elif any(_is(name, request) for name in (said.get("request"), *_several(said))):
            if row.kind == Kind.INTENT:
                intents[place] = _time(said)
            yield row, Event(row.kind, _time(said), place, _what(row.kind, said) + _doubt(row), _intent(row.kind, said))


def _doubt(row: Row) -> str:
    try:
        is_whole = row.is_whole()
    except UnicodeEncodeError:  # bytes that are no UTF-8
        is_whole = False
    return "" if is_whole else " -- this row is NOT WHOLE"


def _several(said: dict[str, Any]) -> Sequence[Any]:
    found = said.get("requests")
    return found if isinstance(found, list) else ()


def _is(name: Any, request: str) -> bool:
    """A document of a request is named UUID/INDEX."""
    return isinstance(name, str) and (name == request or name.partition("/")[0] == request)


def _time(said: dict[str, Any]) -> str:
    """Of a row that somebody has changed, as far as it can be read."""
    second, later_ms = str(said.get("time", "")), said.get("commit_ms")
    if not isinstance(later_ms, int):
        return second
    try:
        moment = datetime.fromisoformat(second) + timedelta(milliseconds=later_ms)
    except (ValueError, OverflowError):
        return second
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _took(before: str, now: str) -> str:
    """From the commit of an INTENT to that of its OUTCOME, where both are known."""
    if "." not in before or "." not in now:
        return ""
    try:
        took = datetime.fromisoformat(now) - datetime.fromisoformat(before)
    except (ValueError, TypeError):  # what somebody has changed: no time, or one without its zone
        return ""
    return f", {took / timedelta(milliseconds=1):,.0f} ms after its INTENT"


def _intent(kind: str, said: dict[str, Any]) -> Place | None:
    place = said.get("intent")
    return (place[0], place[1]) if kind == Kind.POSSIBLE and isinstance(place, list) and len(place) == 2 else None


def _what(kind: str, said: dict[str, Any]) -> str:
    if kind == Kind.INTENT:
        name = str(said.get("request", "")).partition("/")[2]
        document = f"document {name}, " if name else ""
        attempt = f", attempt {said['attempt']}" if said.get("attempt", 1) != 1 else ""
        return f"{document}{_items(said)} about to go to token {said.get('token')}{attempt}"
    if kind == Kind.BATCH:
        return f"{said.get('count')} documents for {said.get('subject')} were {said.get('what')}"
    words: dict[str, str] = {
        Kind.RELEASED: "the answer was taken",
        Kind.NOT_DELIVERED: "signed, and nobody was there to take the answer",
        Kind.POSSIBLE: f"{_items(said)} may have been signed; nothing was released",
        Kind.MISMATCH: "the request id came again with another body, or from another caller",
    }
    return words.get(kind, "")


def _items(said: dict[str, Any]) -> str:
    """Ranges of places, or places: as many as it says, where somebody has changed it as far as can be seen."""
    found = said.get("items")
    try:
        return _count(sum(each[1] - each[0] if isinstance(each, list) else 1 for each in found or ()), "item")
    except (TypeError, IndexError):
        return "? items"


def _outcome(said: dict[str, Any]) -> str:
    parts = [f"{said.get('signed', 0)} signed"]
    parts += [f"{len(said[word])} {word}" for word in ("failed", "indeterminate") if isinstance(said.get(word), list)]
    return ", ".join(parts) + ("" if said.get("closed", True) else ", more to come")


def _covering(events: Sequence[Event], instance: str, notes: Iterable[Note]) -> Iterator[Event]:
    """Of each row the first checkpoint that covers it; those that cover the same ones besides say nothing more."""
    left = sorted(event.place for event in events if event.place is not None)
    for note in sorted(notes, key=lambda note: (note.checkpoint.time, note.checkpoint.number)):
        for head in note.checkpoint.heads:
            place = (head.epoch, head.sequence)
            covered = [each for each in left if each <= place] if head.instance == instance else []
            if covered:
                left = left[len(covered) :]
                what = f"checkpoint {note.checkpoint.number} covers {_count(len(covered), 'row')} of it"
                yield Event(CHECKPOINT, rfc3339(note.checkpoint.time), place, what)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def uncovered(events: Sequence[Event]) -> int:
    """How many rows no checkpoint covers yet."""
    heads = [event.place for event in events if event.kind == CHECKPOINT and event.place]
    last = max(heads, default=(0, 0))
    return sum(event.kind != CHECKPOINT and event.place is not None and event.place > last for event in events)
