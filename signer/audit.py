"""
What can be said of a ledger elsewhere: from its files, the checkpoints that were kept, and the public key. Pure.

`examine` goes through the segments once and keeps 33 bytes of a row (its hash and its kind) and 16 more of an OUTCOME;
then through the checkpoints, which it compares with them. It finds what was deleted, edited, swapped, inserted, cut off,
set back to an older state, forked, or computed anew by somebody without the key.

What nobody can find: rows after the newest checkpoint. Whoever can write the files may have cut off some of those, or
written others in their place. `Report.unanchored` says how many there are. So it is with the beginning: a chain whose
first rows are elsewhere is reported as `from_middle`, not as tampered with; what came before is as good as the
checkpoint that has its hash.
"""

import json
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeGuard

from signer.chain import GENESIS, ChainError, Kind, Row, read
from signer.note import NOTHING, Checkpoint, Head, Note, NoteError

FINDINGS_MAX = 1000  # more are counted, not kept
HASH_BYTES = 32

Place = tuple[int, int]  # epoch, sequence


class Flaw(StrEnum):
    UNREADABLE = "UNREADABLE"  # a line is no row: what follows it in its file was not looked at
    EDITED = "EDITED"  # a hash is not that of what is said at this place after the row before
    MISSING = "MISSING"  # rows or checkpoints between others, or a whole chain
    MISPLACED = "MISPLACED"  # swapped, inserted, repeated: it stands where its number does not belong
    FORK = "FORK"  # two rows, or two checkpoints, in one place
    TRUNCATED = "TRUNCATED"  # a chain ends before what was anchored
    ROLLED_BACK = "ROLLED_BACK"  # an older state was gone on from: what was anchored after it is left out
    RECOMPUTED = "RECOMPUTED"  # whole in itself, and not what was anchored: computed anew without the key
    UNFOUNDED = "UNFOUNDED"  # a row says something about another that is not so
    UNSIGNED = "UNSIGNED"  # a checkpoint that the key has not signed


class Verdict(StrEnum):
    WHOLE = "WHOLE"
    GAP = "GAP"  # whole, but for what was declared as lost
    TAMPERED = "TAMPERED"


@dataclass(frozen=True, slots=True)
class Finding:
    kind: Flaw
    place: str  # a row as 'INSTANCE EPOCH/SEQUENCE', a chain as 'INSTANCE', or 'checkpoint NUMBER'
    sentence: str
    segment: int | None = None  # of those that were given, from 0
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """What a GAP row declares as lost, and where that stands."""

    instance: str
    epoch: int
    first: int
    last: int
    hash: bytes  # of the row `last`
    reason: str
    time: str
    declared_by: str
    declared_at: Place
    is_anchored: bool = False  # without, anybody who can write the files may have declared it

    def covers(self, head: Head) -> bool:
        return (self.instance, self.epoch) == (head.instance, head.epoch) and self.first <= head.sequence <= self.last


@dataclass(frozen=True, slots=True)
class ChainState:
    instance: str
    rows: int
    epochs: int
    first: Place
    last: Place
    from_middle: bool  # it does not begin with the first row of all
    attached_by: int | None  # the number of a checkpoint that has the hash before its first row
    anchored: Head | None  # the newest head of it in a checkpoint
    anchored_by: int | None  # that checkpoint's number
    anchored_time: datetime | None
    unanchored: int  # rows after it, and those of a lost branch after what was anchored of that


@dataclass(frozen=True, slots=True)
class Report:
    findings: tuple[Finding, ...]
    more: int  # findings beyond those
    gaps: tuple[Gap, ...]
    chains: tuple[ChainState, ...]
    rows: dict[str, int]  # by kind
    checkpoints: int
    absent: int  # checkpoints between those, of which only the ledger tells
    first_time: str
    last_time: str

    @property
    def verdict(self) -> Verdict:
        if self.findings:
            return Verdict.TAMPERED
        return Verdict.GAP if self.gaps else Verdict.WHOLE

    @property
    def epochs(self) -> int:
        return sum(chain.epochs for chain in self.chains)

    @property
    def unanchored(self) -> int:
        return sum(chain.unanchored for chain in self.chains)


def examine(segments: Iterable[Iterable[str]], notes: Iterable[Note], spki: bytes) -> Report:
    """
    What these segments (the lines of each, in any order of segments) are worth beside these checkpoints, in the order in
    which they were kept. A segment or a checkpoint that is given twice counts once.
    """
    findings = _Findings()
    reading = _Reading(findings)
    for number, lines in enumerate(segments):
        reading.segment(number, lines)
    chains = {chain.instance: chain for chain in _chains(reading.stretches, findings)}
    rows = {str(kind): sum(chain.count(kind) for chain in chains.values()) for kind in Kind}
    anchor = _Anchor(chains, reading, spki, findings)
    for note in notes:
        anchor.take(note)
    losses = _Losses(chains, anchor, reading.gaps, findings)
    losses.check()
    for chain in chains.values():
        _check_joins(chain, losses, findings)
        _check_outcomes(chain, losses, findings)
    _check_possible(reading.possible, chains, findings)
    _check_named(reading.named, anchor, losses, findings)
    anchor.check_epochs(losses)
    anchor.check_untold(losses)
    return Report(
        findings=tuple(findings.kept),
        more=findings.more,
        gaps=tuple(losses.gaps),
        chains=tuple(anchor.state(chain, losses) for chain in chains.values()),
        rows=rows,
        checkpoints=anchor.count,
        absent=anchor.absent,
        first_time=reading.first_time,
        last_time=reading.last_time,
    )


class _Findings:
    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.more = 0

    def add(self, kind: Flaw, place: str, sentence: str, segment: int | None = None, line: int | None = None) -> None:
        if len(self.kept) < FINDINGS_MAX:
            self.kept.append(Finding(kind, place, sentence, segment, line))
        else:
            self.more += 1


# ---- the segments, row by row

_CODES: dict[str, int] = {str(kind): code for code, kind in enumerate(Kind)}
_IS_SETTLED = 0x80  # beside the code of an INTENT: the OUTCOME that closes it was seen
_WAS_SETTLED = 0x40  # the same, among what is declared as lost
_decode = json.JSONDecoder().raw_decode


@dataclass(slots=True, eq=False)
class _Stretch:
    """Rows of one epoch that stand one behind the other in one segment."""

    instance: str
    epoch: int
    first: int
    previous: bytes
    segment: int
    line: int
    is_accused: bool  # it is known already that it does not belong where it stands
    hashes: bytearray = field(default_factory=bytearray)
    kinds: bytearray = field(default_factory=bytearray)
    # Pairs: an OUTCOME's sequence, and its INTENT's, below zero if more are to come.
    outcomes: "array[int]" = field(default_factory=lambda: array("q"))

    @property
    def last(self) -> int:
        return self.first + len(self.kinds) - 1

    def hash(self, sequence: int) -> bytes:
        return self.hashes_of(sequence, sequence + 1)

    def hashes_of(self, start: int, stop: int) -> bytes:
        """Of these rows, one behind the other."""
        return bytes(self.hashes[(start - self.first) * HASH_BYTES : (stop - self.first) * HASH_BYTES])

    def at(self, sequence: int) -> tuple[str, int, int]:
        """The place in words, the segment and the line."""
        return _row(self.instance, self.epoch, sequence), self.segment, self.line + sequence - self.first

    def forget_before(self, sequence: int) -> None:
        """Another stretch has these rows."""
        count = sequence - self.first
        self.previous = self.hash(sequence - 1)
        del self.hashes[: count * HASH_BYTES], self.kinds[:count]
        self.first, self.line = sequence, self.line + count


@dataclass(frozen=True, slots=True)
class _Possible:
    """A POSSIBLE_UNRELEASED_SIGNATURE, and the place of the INTENT that it names."""

    stretch: _Stretch
    sequence: int
    intent: Place


@dataclass(frozen=True, slots=True)
class _Named:
    """A CHECKPOINT row, and the hash that it names."""

    stretch: _Stretch
    sequence: int
    note: bytes


class _Reading:
    """What one pass over the segments leaves to be compared."""

    def __init__(self, findings: _Findings) -> None:
        self._findings = findings
        self.stretches: list[_Stretch] = []
        self.possible: list[_Possible] = []
        self.gaps: list[Gap] = []
        self.named: dict[tuple[str, int], list[_Named]] = {}  # by chain and checkpoint
        self.begun_after: dict[bytes, tuple[str, Place]] = {}  # by EPOCH rows: a checkpoint's hash -> chain, place
        self.first_time = self.last_time = ""
        self._says: dict[str, Callable[[Row, dict[str, Any], _Stretch], str]] = {
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
                stretch.kinds.append(_CODES[row.kind])
                if _is_whole(row):
                    edited.end()
                    self._read(row, stretch)
                elif not (stretch.is_accused and row.sequence == stretch.first):
                    edited.add(stretch, row.sequence)
        except ChainError as error:
            said = f"{error.said}; nothing from here on was looked at"
            self._findings.add(Flaw.UNREADABLE, f"segment {number + 1}", said, number, error.line)
        edited.end()

    def _begin(self, before: _Stretch | None, row: Row, segment: int, line: int) -> _Stretch:
        place, is_accused = (row.epoch, row.sequence), False
        if before is not None and not (row.sequence == 1 and row.epoch > before.epoch):
            is_accused, seen = True, (before.epoch, before.last)
            kind = Flaw.MISSING if place > seen else Flaw.MISPLACED
            said = "rows between them are missing" if place > seen else "rows were swapped, inserted or repeated"
            self._findings.add(
                kind, _row(row.instance, *place), f"it stands behind row {_of(seen)}: {said}", segment, line
            )
        made = _Stretch(row.instance, row.epoch, row.sequence, row.previous, segment, line, is_accused)
        self.stretches.append(made)
        return made

    def _read(self, row: Row, stretch: _Stretch) -> None:
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

    def _epoch(self, row: Row, fields: dict[str, Any], stretch: _Stretch) -> str:
        checkpoint = _hash(fields.get("checkpoint"))
        if checkpoint is None:
            return "it does not say which checkpoint was the last"
        if checkpoint != NOTHING:
            self.begun_after.setdefault(checkpoint, (row.instance, (row.epoch, row.sequence)))
        return ""

    def _outcome(self, row: Row, fields: dict[str, Any], stretch: _Stretch) -> str:
        intent = fields.get("intent")
        if not _is_number(intent) or intent >= row.sequence:
            return f"it names no earlier row as its {Kind.INTENT}"
        stretch.outcomes.append(row.sequence)
        stretch.outcomes.append(-intent if fields.get("closed") is False else intent)
        return ""

    def _possible(self, row: Row, fields: dict[str, Any], stretch: _Stretch) -> str:
        intent = fields.get("intent")
        if not isinstance(intent, list) or len(intent) != 2 or not all(map(_is_number, intent)):
            return f"it does not name the place of an {Kind.INTENT}"
        if intent[0] >= row.epoch:
            return f"it names an {Kind.INTENT} of epoch {intent[0]}, which is no earlier one"
        self.possible.append(_Possible(stretch, row.sequence, (intent[0], intent[1])))
        return ""

    def _checkpoint(self, row: Row, fields: dict[str, Any], stretch: _Stretch) -> str:
        number, note = fields.get("number"), _hash(fields.get("note"))
        if not _is_number(number) or note is None:
            return "it does not say which checkpoint was made"
        self.named.setdefault((row.instance, number), []).append(_Named(stretch, row.sequence, note))
        return ""

    def _gap(self, row: Row, fields: dict[str, Any], stretch: _Stretch) -> str:
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

    def __init__(self, findings: _Findings) -> None:
        self._findings = findings
        self._first: tuple[str, int, int] | None = None
        self._more = 0

    def add(self, stretch: _Stretch, sequence: int) -> None:
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


def _row(instance: str, epoch: int, sequence: int) -> str:
    return f"{instance} {epoch}/{sequence}"


def _of(place: Place) -> str:
    return f"{place[0]}/{place[1]}"


def _say(stretch: _Stretch, row: Row, sentence: str) -> tuple[str, str, int, int]:
    place, segment, line = stretch.at(row.sequence)
    return place, sentence, segment, line


# ---- the chains, put together


class _Chain:
    """The rows of one instance: stretches that do not overlap, in their order."""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.stretches: list[_Stretch] = []
        self._starts: list[Place] = []

    def append(self, stretch: _Stretch) -> None:
        self.stretches.append(stretch)
        self._starts.append((stretch.epoch, stretch.first))

    @property
    def first(self) -> Place:
        return self._starts[0]

    @property
    def last(self) -> Place:
        return self.stretches[-1].epoch, self.stretches[-1].last

    def find(self, place: Place) -> _Stretch | None:
        index = bisect_right(self._starts, place) - 1
        stretch = self.stretches[index] if index >= 0 else None
        return stretch if stretch and stretch.epoch == place[0] and place[1] <= stretch.last else None

    def hash_at(self, place: Place) -> bytes | None:
        stretch = self.find(place)
        return None if stretch is None else stretch.hash(place[1])

    def last_in(self, epoch: int) -> int:
        """The sequence of the last row of an epoch, 0 if there is none."""
        index = bisect_right(self._starts, (epoch + 1, 0)) - 1
        return self.stretches[index].last if index >= 0 and self.stretches[index].epoch == epoch else 0

    def count(self, kind: Kind) -> int:
        return sum(stretch.kinds.count(_CODES[kind]) for stretch in self.stretches)

    def count_after(self, place: Place) -> int:
        return sum(
            len(s.kinds) if s.epoch > place[0] else max(0, s.last - max(place[1], s.first - 1))
            for s in self.stretches
            if s.epoch >= place[0]
        )


def _chains(stretches: list[_Stretch], findings: _Findings) -> Iterator[_Chain]:
    """What stands twice is compared and kept once."""
    chain = None
    for stretch in sorted(stretches, key=lambda s: (s.instance, s.epoch, s.first, -len(s.kinds))):
        if chain is None or chain.instance != stretch.instance:
            if chain is not None:
                yield chain
            chain = _Chain(stretch.instance)
        for other in reversed(chain.stretches):
            if other.epoch != stretch.epoch or other.last < stretch.first:
                break
            _compare(other, stretch, findings)
        end = chain.last_in(stretch.epoch)
        if stretch.last <= end:
            continue
        if stretch.first <= end:
            stretch.forget_before(end + 1)
        chain.append(stretch)
    if chain is not None:
        yield chain


def _compare(one: _Stretch, other: _Stretch, findings: _Findings) -> None:
    start, stop = max(one.first, other.first), min(one.last, other.last) + 1
    if one.hashes_of(start, stop) == other.hashes_of(start, stop):
        return
    for sequence in range(start, stop):
        if one.hash(sequence) != other.hash(sequence):
            place, segment, line = other.at(sequence)
            said = f"another row has this place, in segment {one.segment + 1}, line {one.at(sequence)[2]}"
            findings.add(Flaw.FORK, place, said, segment, line)
            other.is_accused = True
            return


# ---- the checkpoints


@dataclass(slots=True)
class _Lost:
    """The newest anchored head of an epoch that the segments do not have."""

    head: Head
    number: int


class _Series:
    """Checkpoints that follow one another: a daemon's, with the heads of one chain or of several."""

    def __init__(self) -> None:
        self.numbers: dict[int, bytes] = {}
        self.last: tuple[int, bytes] | None = None


class _Anchor:
    """The checkpoints, one after the other, beside the chains."""

    def __init__(self, chains: dict[str, _Chain], reading: _Reading, spki: bytes, findings: _Findings) -> None:
        self._chains, self._reading, self._spki, self._findings = chains, reading, spki, findings
        self._series: dict[str, _Series] = {}  # by instance
        self._by_last: dict[bytes, _Series] = {}
        self.count = 0
        self.absent = 0
        self.untold: list[tuple[Checkpoint, int]] = []  # of what is before them no row tells; and who stands there
        self.newest: dict[str, tuple[Head, int, datetime]] = {}
        self.attached: dict[str, int] = {}
        self.lost: dict[tuple[str, int], _Lost] = {}
        self._covered: dict[tuple[str, int], int] = {}  # by chain and epoch: the last head that is there
        self._contradicted: set[str] = set()

    def take(self, note: Note) -> None:
        checkpoint = note.checkpoint
        number, hash_ = checkpoint.number, checkpoint.hash
        try:
            note.check(self._spki)
        except NoteError as error:
            self._findings.add(Flaw.UNSIGNED, f"checkpoint {number}", str(error))
            return
        series = self._series_of(checkpoint)
        is_copy = series.numbers.get(number) == hash_
        if not is_copy:
            self._check_order(series, checkpoint)
            self._reading.begun_after.pop(hash_, None)
            self.count += 1
        series.numbers.setdefault(number, hash_)
        self._follow(series, number, hash_)
        if not is_copy:
            for head in checkpoint.heads:
                self._series[head.instance] = series
                self._take_head(head, number, checkpoint.time)

    def _series_of(self, checkpoint: Checkpoint) -> _Series:
        known = (self._series[head.instance] for head in checkpoint.heads if head.instance in self._series)
        return next(known, None) or self._by_last.get(checkpoint.previous) or _Series()

    def _follow(self, series: _Series, number: int, hash_: bytes) -> None:
        if series.last is not None:
            self._by_last.pop(series.last[1], None)
        series.last = number, hash_
        self._by_last[hash_] = series

    def _check_order(self, series: _Series, checkpoint: Checkpoint) -> None:
        number, previous, place = checkpoint.number, checkpoint.previous, f"checkpoint {checkpoint.number}"
        if number in series.numbers:
            self._findings.add(Flaw.FORK, place, "two checkpoints have this number, and the key has signed both")
        elif series.last is None:
            if (number == 1) != (previous == NOTHING):
                self._findings.add(Flaw.FORK, place, "the first checkpoint, and no other, names none before it")
        elif number == series.last[0] + 1:
            if previous != series.last[1]:
                self._findings.add(Flaw.FORK, place, f"it names another checkpoint {number - 1} than is before it")
        elif number < series.last[0]:
            self._findings.add(Flaw.MISPLACED, place, f"it stands behind checkpoint {series.last[0]}")
        else:
            self.absent += number - series.last[0] - 1
            if not any(previous in self._told(head.instance, number - 1) for head in checkpoint.heads):
                self.untold.append((checkpoint, series.last[0]))

    def _told(self, instance: str, number: int) -> set[bytes]:
        """The hash of a checkpoint, by the rows of a chain."""
        return {named.note for named in self._reading.named.get((instance, number), ())}

    def check_untold(self, losses: "_Losses") -> None:
        """
        An anchor that was away does not get every checkpoint; but the ledger has had each before. Where the row that told
        of it may be elsewhere, or is declared as lost, that is not known.
        """
        for checkpoint, last in self.untold:
            if not any(self._may_be_gone(head.instance, checkpoint.number - 1, losses) for head in checkpoint.heads):
                said = f"it stands behind checkpoint {last}, and no row tells of those between them"
                self._findings.add(Flaw.MISSING, f"checkpoint {checkpoint.number}", said)

    def _may_be_gone(self, instance: str, number: int, losses: "_Losses") -> bool:
        """Whether a chain may have told of a checkpoint in rows that are not there."""
        chain = self._chains.get(instance)
        if chain is None or any(gap.instance == instance for gap in losses.gaps):
            return True
        told = min((told for of, told in self._reading.named if of == instance), default=number + 1)
        return chain.stretches[0].previous != GENESIS and number < told

    def hash_of(self, instance: str, number: int) -> bytes | None:
        """The checkpoint with this number that has a head of this chain."""
        series = self._series.get(instance)
        return series.numbers.get(number) if series else None

    def _take_head(self, head: Head, number: int, time: datetime) -> None:
        place = head.epoch, head.sequence
        before = self.newest.get(head.instance)
        if before is not None and (place, head.hash) != (_place(before[0]), before[0].hash):
            self._check_advance(before[0], head, number)
        if before is None or place >= _place(before[0]):
            self.newest[head.instance] = head, number, time
        chain = self._chains.get(head.instance)
        if chain is None or place > chain.last:
            self._lose(head, number)
        elif place < chain.first:
            self._take_earlier(chain, head, number)
        elif (found := chain.hash_at(place)) is None:
            self._lose(head, number)
        elif found != head.hash:
            self._contradict(chain, head, number)
        else:
            epoch = head.instance, head.epoch
            self._covered[epoch] = max(head.sequence, self._covered.get(epoch, 0))

    def _check_advance(self, before: Head, head: Head, number: int) -> None:
        place, seen = _place(head), _place(before)
        if place > seen:
            return
        kind = Flaw.FORK if place == seen else Flaw.ROLLED_BACK
        said = "another row with this number was anchored before" if place == seen else f"row {_of(seen)} was before"
        self._findings.add(kind, f"checkpoint {number}", f"it has the head {_row(head.instance, *place)}, and {said}")

    def _lose(self, head: Head, number: int) -> None:
        known = self.lost.get((head.instance, head.epoch))
        if known is None or head.sequence >= known.head.sequence:
            self.lost[head.instance, head.epoch] = _Lost(head, number)

    def _take_earlier(self, chain: _Chain, head: Head, number: int) -> None:
        """A head before the first row that the segments have: it may be the very one before."""
        first = chain.stretches[0]
        is_neighbour = head.epoch == first.epoch and head.sequence == first.first - 1
        is_at_an_end = head.epoch < first.epoch and first.first == 1
        if head.hash == first.previous and (is_neighbour or is_at_an_end):
            self.attached[head.instance] = number
        elif is_neighbour:
            self._contradict(chain, head, number)

    def _contradict(self, chain: _Chain, head: Head, number: int) -> None:
        """Told once of a chain: everything after it differs, too."""
        if chain.instance in self._contradicted:
            return
        self._contradicted.add(chain.instance)
        place = _row(head.instance, head.epoch, head.sequence)
        stretch = chain.find(_place(head))
        _, segment, line = stretch.at(head.sequence) if stretch else (place, None, None)
        said = f"checkpoint {number} has another hash for it: rows up to here were changed, and computed anew"
        self._findings.add(Flaw.RECOMPUTED, place, said, segment, line)

    def is_anchored(self, instance: str, place: Place) -> bool:
        newest = self.newest.get(instance)
        return newest is not None and place <= _place(newest[0])

    def check_epochs(self, losses: "_Losses") -> None:
        """What an anchored epoch began after is known, unless older rows or checkpoints are elsewhere."""
        if losses.gaps or any(chain.stretches[0].previous != GENESIS for chain in self._chains.values()):
            return
        told = {named.note for rows in self._reading.named.values() for named in rows}
        for hash_, (instance, place) in self._reading.begun_after.items():
            if hash_ not in told and self.is_anchored(instance, place) and 1 in self._series[instance].numbers:
                said = "the epoch began after a checkpoint that neither the anchor nor a row knows"
                self._findings.add(Flaw.FORK, _row(instance, *place), said)

    def state(self, chain: _Chain, losses: "_Losses") -> ChainState:
        head, number, time = self.newest.get(chain.instance, (None, None, None))
        newest = _place(head) if head else (0, 0)
        first = chain.stretches[0]
        loose = sum(self._loose(chain, branch) for branch in losses.branches(chain.instance) if branch <= newest)
        return ChainState(
            instance=chain.instance,
            rows=sum(len(stretch.kinds) for stretch in chain.stretches),
            epochs=len({stretch.epoch for stretch in chain.stretches}),
            first=chain.first,
            last=chain.last,
            from_middle=first.previous != GENESIS,
            attached_by=self.attached.get(chain.instance),
            anchored=head,
            anchored_by=number,
            anchored_time=time,
            unanchored=chain.count_after(newest) + loose,
        )

    def _loose(self, chain: _Chain, branch: Place) -> int:
        """How many rows of a lost branch are there, before the newest head of all, and after the branch's own."""
        epoch, first = branch
        newest = self.newest[chain.instance][0]
        end = min(chain.last_in(epoch), newest.sequence) if epoch == newest.epoch else chain.last_in(epoch)
        return max(0, end - max(first - 1, self._covered.get((chain.instance, epoch), 0)))


def _place(head: Head) -> Place:
    return head.epoch, head.sequence


# ---- what was lost, and what was declared as lost


_OLDER = ": fetch the files anew if they are older than the checkpoint"


class _Losses:
    def __init__(
        self, chains: dict[str, _Chain], anchor: _Anchor, declared: Iterable[Gap], findings: _Findings
    ) -> None:
        self._chains, self._anchor, self._findings = chains, anchor, findings
        self._lost = dict(anchor.lost)
        for instance, (head, number, _) in anchor.newest.items():
            chain = chains.get(instance)
            if chain and _place(head) < chain.first and anchor.attached.get(instance) != number:
                self._lost[instance, head.epoch] = _Lost(head, number)
        self.gaps: list[Gap] = []  # those that say what is so
        self._lost_from: dict[tuple[str, int], int] = {}  # by chain and epoch
        distinct = list(_distinct(declared, anchor))
        self._lost_epochs = {(gap.instance, gap.epoch) for gap in distinct if gap.first == 1}
        for gap in distinct:
            if problem := self._problem(gap):
                place = _row(gap.declared_by, *gap.declared_at)
                self._findings.add(Flaw.UNFOUNDED, place, f"it declares other rows as lost than are: {problem}")
            else:
                self.gaps.append(gap)
                epoch = gap.instance, gap.epoch
                self._lost_from[epoch] = min(gap.first, self._lost_from.get(epoch, gap.first))

    def check(self) -> None:
        for (instance, epoch), lost in self._lost.items():
            head, chain = lost.head, self._chains.get(instance)
            if any(gap.covers(head) for gap in self.gaps):
                continue
            place = _row(instance, *_place(head))
            said = f"checkpoint {lost.number} has it as the head, and "
            if chain is None:
                self._findings.add(Flaw.MISSING, place, f"{said}no row of this chain was given")
            elif _place(head) > chain.last:
                self._findings.add(Flaw.TRUNCATED, place, f"{said}the chain ends with row {_of(chain.last)}{_OLDER}")
            elif _place(head) < chain.first:
                self._findings.add(
                    Flaw.MISSING, place, f"{said}nothing ties it to the first row given, {_of(chain.first)}"
                )
            elif head.sequence < chain.last_in(epoch):
                self._findings.add(Flaw.MISSING, place, f"{said}it is not between its neighbours")
            else:
                self._findings.add(Flaw.ROLLED_BACK, place, f"{said}the chain goes on without it")

    def goes_on_from(self, instance: str, epoch: int) -> Iterator[int]:
        """The last rows before what is declared as lost of an epoch; 0: all of it is."""
        return (gap.first - 1 for gap in self.gaps if (gap.instance, gap.epoch) == (instance, epoch))

    def branches(self, instance: str) -> Iterator[Place]:
        """Of each epoch of which something is declared as lost: the first row that is."""
        return ((epoch, first) for (of, epoch), first in self._lost_from.items() if of == instance)

    def has(self, epoch: tuple[str, int], sequence: int) -> bool:
        """Whether a row is among those that are declared as lost, or comes after them."""
        return sequence >= self._lost_from.get(epoch, sequence + 1)

    def _problem(self, gap: Gap) -> str:
        """Why a declaration is not so, as far as that can be seen."""
        chain, lost = self._chains.get(gap.instance), self._lost.get((gap.instance, gap.epoch))
        if chain is not None and (found := chain.hash_at((gap.epoch, gap.last))) is not None and found != gap.hash:
            return f"row {gap.last} has another hash"
        if lost is not None:
            if lost.head.sequence == gap.last and lost.head.hash != gap.hash:
                return f"row {gap.last} was anchored with another hash"
            # A declaration may know of checkpoints that these lack: newer ones, and those that an anchor has missed.
            is_all = gap.is_anchored and not self._anchor.absent
            if lost.head.sequence > gap.last or (is_all and lost.head.sequence < gap.last):
                return f"the last of them that was anchored is row {lost.head.sequence}"
        if not self._begins_right(gap, chain):
            return f"row {gap.first} is not the first of them"
        return ""

    def _begins_right(self, gap: Gap, chain: _Chain | None) -> bool:
        """It begins behind the last row that there is, or (rows found again) behind the one that was gone on from."""
        if gap.first == 1 or (chain is not None and gap.epoch < chain.first[0]):
            return True
        if chain is None:
            return False
        before = chain.hash_at((gap.epoch, gap.first - 1))
        later = [s for s in chain.stretches if s.epoch > gap.epoch and s.first == 1]
        is_end = all((s.instance, s.epoch) in self._lost_epochs for s in later)
        return before is not None and (is_end or any(s.previous == before for s in later))


def _distinct(declared: Iterable[Gap], anchor: _Anchor) -> Iterator[Gap]:
    """Each once, with what is known of where it stands."""
    for gap in sorted({(g.declared_by, g.declared_at): g for g in declared}.values(), key=lambda g: g.declared_at):
        yield replace(gap, is_anchored=anchor.is_anchored(gap.declared_by, gap.declared_at))


def _check_joins(chain: _Chain, losses: _Losses, findings: _Findings) -> None:
    """Each stretch goes on from the one before it, or, at the beginning of an epoch, from before what is declared lost."""
    first = chain.stretches[0]
    if first.previous == GENESIS and first.first != 1:
        place, segment, line = first.at(first.first)
        findings.add(Flaw.MISSING, place, "it says that no row is before it, and has not the number 1", segment, line)
    for index, stretch in enumerate(chain.stretches[1:], 1):
        before = chain.stretches[index - 1]
        place, segment, line = stretch.at(stretch.first)
        expected = before.last + 1 if before.epoch == stretch.epoch else 1
        if stretch.is_accused:
            continue
        if stretch.first != expected:
            said = f"row {_of((before.epoch, before.last))} is before it: rows between them are missing"
            findings.add(Flaw.MISSING, place, said, segment, line)
        elif not _may_follow(chain, index, losses):
            kind, said = _broken(chain, index)
            findings.add(kind, place, said, segment, line)


def _may_follow(chain: _Chain, index: int, losses: _Losses) -> bool:
    stretch, epoch = chain.stretches[index], 0
    for earlier in range(index - 1, -1, -1):
        before = chain.stretches[earlier]
        if before.epoch == epoch:
            continue  # this epoch is declared as lost from its first row on
        if stretch.previous == before.hashes[-HASH_BYTES:]:
            return True
        if before.epoch == stretch.epoch:
            return False
        epoch, ends = before.epoch, set(losses.goes_on_from(chain.instance, before.epoch))
        if any(end and chain.hash_at((epoch, end)) == stretch.previous for end in ends):
            return True
        if 0 not in ends:
            return False
    return False


def _broken(chain: _Chain, index: int) -> tuple[Flaw, str]:
    """Why a stretch does not follow the one before it."""
    stretch, before = chain.stretches[index], chain.stretches[index - 1]
    last = _of((before.epoch, before.last))
    if before.epoch == stretch.epoch:
        return Flaw.FORK, f"it names another row before it than {last}"
    if any(stretch.previous in s.hashes for s in chain.stretches[:index]):
        return Flaw.ROLLED_BACK, f"it goes on from an older row than {last}, and no {Kind.GAP} row declares that"
    return Flaw.MISSING, f"it does not go on from row {last}: rows between them are missing"


# ---- what rows say about others


def _check_outcomes(chain: _Chain, losses: _Losses, findings: _Findings) -> None:
    """
    Each OUTCOME has an INTENT, and after the one that closes it comes no other. What the segments do not have is not
    known.
    """
    for stretch in chain.stretches:
        epoch = chain.instance, stretch.epoch
        pairs = iter(stretch.outcomes)
        for sequence, named in zip(pairs, pairs, strict=True):
            if sequence < stretch.first:
                continue  # another stretch has this row
            intent = abs(named)
            home = stretch if intent >= stretch.first else chain.find((stretch.epoch, intent))
            if home is None:
                continue
            code = home.kinds[intent - home.first]
            if code == _CODES[Kind.INTENT]:
                if named > 0:
                    home.kinds[intent - home.first] |= _WAS_SETTLED if losses.has(epoch, sequence) else _IS_SETTLED
                continue
            had = f"which is no {Kind.INTENT}" if code < _WAS_SETTLED else "which was closed before"
            place, segment, line = stretch.at(sequence)
            findings.add(Flaw.UNFOUNDED, place, f"it is the {Kind.OUTCOME} of row {intent}, {had}", segment, line)


def _check_possible(rows: Iterable[_Possible], chains: dict[str, _Chain], findings: _Findings) -> None:
    """What a restored daemon did not know of is no OUTCOME to it."""
    for row in rows:
        home = chains[row.stretch.instance].find(row.intent)
        if home is None:
            continue
        code = home.kinds[row.intent[1] - home.first]
        if code & ~_WAS_SETTLED != _CODES[Kind.INTENT]:
            had = f"which has its {Kind.OUTCOME}" if code & _IS_SETTLED else f"which is no {Kind.INTENT}"
            place, segment, line = row.stretch.at(row.sequence)
            findings.add(Flaw.UNFOUNDED, place, f"it names row {_of(row.intent)}, {had}", segment, line)


def _check_named(
    rows: dict[tuple[str, int], list[_Named]], anchor: _Anchor, losses: _Losses, findings: _Findings
) -> None:
    """A CHECKPOINT row names what was anchored, and what others name; but for rows that are lost, and found again."""
    for (instance, number), named in rows.items():
        known = anchor.hash_of(instance, number)
        for row in named:
            if losses.has((instance, row.stretch.epoch), row.sequence):
                continue
            known = known or row.note
            if row.note != known:
                place, segment, line = row.stretch.at(row.sequence)
                said = f"it names another checkpoint {number} than was anchored, or than another row names"
                findings.add(Flaw.FORK, place, said, segment, line)
