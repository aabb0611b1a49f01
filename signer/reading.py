"""
One pass over the segments, row by row: each becomes part of a stretch, and what it says of others is noted for later.

What can be judged of a row beside its neighbours alone is judged here: whether it is a row, whether it is whole, whether it
stands where its number belongs, whether it says what a row of its kind says.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeGuard

from signer.chain import ChainError, Kind, Row, read
from signer.note import NOTHING
from signer.stretch import CODES, HASH_BYTES, Stretch
from signer.verdict import Findings, Flaw, Gap, Place, Unknown, place_name, row_name

_decode = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class Possible:
    """A POSSIBLE_UNRELEASED_SIGNATURE, and the place of the INTENT that it names."""

    stretch: Stretch
    sequence: int
    intent: Place


@dataclass(frozen=True, slots=True)
class Named:
    """A CHECKPOINT row, and the hash that it names."""

    stretch: Stretch
    sequence: int
    note: bytes


class Reading:
    """What one pass over the segments leaves to be compared."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self.stretches: list[Stretch] = []
        self.possible: list[Possible] = []
        self.gaps: list[Gap] = []
        self.named: dict[tuple[str, int], list[Named]] = {}  # by chain and checkpoint
        self.begun_after: dict[bytes, tuple[str, Place]] = {}  # by EPOCH rows: a checkpoint's hash -> chain, place
        self.restored: set[tuple[str, int]] = set()  # epochs of chains that a restore has begun
        self.unknown: dict[tuple[str, int], Unknown] = {}  # those of which it does not know what was signed before
        self.first_time = self.last_time = ""
        self._says: dict[str, Callable[[Row, dict[str, Any], Stretch], str]] = {
            Kind.EPOCH: self._epoch,
            Kind.OUTCOME: self._outcome,
            Kind.POSSIBLE: self._possible,
            Kind.CHECKPOINT: self._checkpoint,
            Kind.GAP: self._gap,
        }

    def segment(self, number: int, lines: Iterable[str]) -> None:
        stretch, expected, line = None, 0, 1
        edited = _Run(self._findings)
        try:
            for row in read(lines):
                line += 1
                if stretch is None or row.sequence != expected or row.epoch != stretch.epoch:
                    stretch = self._begin(stretch, row, number, line)
                expected = row.sequence + 1
                stretch.hashes += row.hash
                stretch.kinds.append(CODES[row.kind])
                if _is_whole(row):
                    edited.end()
                    self._read(row, stretch)
                elif not (stretch.is_accused and row.sequence == stretch.first):
                    edited.add(stretch, row.sequence)
        except ChainError as error:
            said = f"{error.said}; nothing from here on was looked at"
            self._findings.add(Flaw.UNREADABLE, f"segment {number + 1}", said, number, error.line)
        edited.end()

    def _begin(self, before: Stretch | None, row: Row, segment: int, line: int) -> Stretch:
        place, is_accused = (row.epoch, row.sequence), False
        if before is not None and not (row.sequence == 1 and row.epoch > before.epoch):
            is_accused, seen = True, (before.epoch, before.last)
            kind = Flaw.MISSING if place > seen else Flaw.MISPLACED
            said = "rows between them are missing" if place > seen else "rows were swapped, inserted or repeated"
            self._findings.add(
                kind, row_name(row.instance, *place), f"it stands behind row {place_name(seen)}: {said}", segment, line
            )
        made = Stretch(row.instance, row.epoch, row.sequence, row.previous, segment, line, is_accused)
        self.stretches.append(made)
        return made

    def _read(self, row: Row, stretch: Stretch) -> None:
        if (row.kind == Kind.EPOCH) != (row.sequence == 1):
            said = f"a row {row.kind}: the first row of an epoch, and no other, is {Kind.EPOCH}"
            self._findings.add(Flaw.MISPLACED, *_say(stretch, row, said))
        fields = _fields(row.body)
        if fields is None:
            self._findings.add(Flaw.UNREADABLE, *_say(stretch, row, "what it says is no JSON object"))
            return
        time = fields.get("time")
        if time.__class__ is str:
            self.last_time = max(self.last_time, time)
            if time < self.first_time or not self.first_time:
                self.first_time = time
        says = self._says.get(row.kind)
        if says is not None and (problem := says(row, fields, stretch)):
            self._findings.add(Flaw.UNFOUNDED, *_say(stretch, row, problem))

    # Each answers what is wrong.

    def _epoch(self, row: Row, fields: dict[str, Any], stretch: Stretch) -> str:
        checkpoint = _hash(fields.get("checkpoint"))
        if checkpoint is None:
            return "it does not say which checkpoint was the last"
        if checkpoint != NOTHING:
            self.begun_after.setdefault(checkpoint, (row.instance, (row.epoch, row.sequence)))
        restored = fields.get("restored")
        if isinstance(restored, dict):
            self.restored.add((row.instance, row.epoch))
            if restored.get("requests") == "unknown":
                since, reason = (str(restored.get(name, "")) for name in ("kept", "reason"))
                place, until = (row.epoch, row.sequence), str(fields.get("time", ""))
                self.unknown[row.instance, row.epoch] = Unknown(row.instance, place, since, until, reason)
        return ""

    def _outcome(self, row: Row, fields: dict[str, Any], stretch: Stretch) -> str:
        intent = fields.get("intent")
        if not _is_number(intent) or intent >= row.sequence:
            return f"it names no earlier row as its {Kind.INTENT}"
        stretch.outcomes.append(row.sequence)
        stretch.outcomes.append(-intent if fields.get("closed") is False else intent)
        return ""

    def _possible(self, row: Row, fields: dict[str, Any], stretch: Stretch) -> str:
        intent = fields.get("intent")
        if not isinstance(intent, list) or len(intent) != 2 or not all(map(_is_number, intent)):
            return f"it does not name the place of an {Kind.INTENT}"
        if intent[0] >= row.epoch:
            return f"it names an {Kind.INTENT} of epoch {intent[0]}, which is no earlier one"
        self.possible.append(Possible(stretch, row.sequence, (intent[0], intent[1])))
        return ""

    def _checkpoint(self, row: Row, fields: dict[str, Any], stretch: Stretch) -> str:
        number, note = fields.get("number"), _hash(fields.get("note"))
        if not _is_number(number) or note is None:
            return "it does not say which checkpoint was made"
        self.named.setdefault((row.instance, number), []).append(Named(stretch, row.sequence, note))
        return ""

    def _gap(self, row: Row, fields: dict[str, Any], stretch: Stretch) -> str:
        instance, epoch, first, last = (fields.get(name) for name in ("instance", "epoch", "from", "to"))
        hash_ = _hash(fields.get("hash"))
        if not (_is_number(epoch) and _is_number(first) and _is_number(last) and first <= last):
            return "it does not say which rows are lost"
        if not isinstance(instance, str) or hash_ is None:
            return "it does not say of which chain, and with which hash at the end, rows are lost"
        reason, time = (str(fields.get(name, "")) for name in ("reason", "time"))
        place = (row.epoch, row.sequence)
        if instance == row.instance and place <= (epoch, last):
            return "it declares rows as lost that come after it"
        self.gaps.append(Gap(instance, epoch, first, last, hash_, reason, time, row.instance, place))
        return ""


class _Run:
    """Rows one behind the other that are all not whole: one finding."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._first: tuple[str, int, int] | None = None
        self._more = 0

    def add(self, stretch: Stretch, sequence: int) -> None:
        if self._first is None:
            self._first, self._more = stretch.at(sequence), 0
        else:
            self._more += 1

    def end(self) -> None:
        if self._first is not None:
            place, segment, line = self._first
            more = f"; nor are those of the {self._more} rows after it" if self._more else ""
            said = "its hash is not that of what it says after the row before it: one of the two was changed or removed"
            self._findings.add(Flaw.EDITED, place, said + more, segment, line)
            self._first = None


def _is_whole(row: Row) -> bool:
    try:
        return row.is_whole()
    except UnicodeEncodeError:  # bytes that are no UTF-8, read as surrogates (PEP 383)
        return False


def _fields(body: str) -> dict[str, Any] | None:
    try:
        found, end = _decode(body)
    except (ValueError, RecursionError):
        return None
    return found if end == len(body) and isinstance(found, dict) else None


def _is_number(value: Any) -> TypeGuard[int]:
    return value.__class__ is int and 0 < value < 10**18


def _hash(value: Any) -> bytes | None:
    """Of 64 hexadecimal digits."""
    try:
        found = bytes.fromhex(value)
    except (ValueError, TypeError):
        return None
    return found if found.hex() == value and len(found) == HASH_BYTES else None


def _say(stretch: Stretch, row: Row, sentence: str) -> tuple[str, str, int, int]:
    place, segment, line = stretch.at(row.sequence)
    return place, sentence, segment, line
