"""What an audit says: its verdict, what it found, what is declared as lost, and the state of each chain."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from signer.note import Head

FINDINGS_MAX = 1000  # more are counted, not kept

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
    GAP = "GAP"  # whole, but for what was declared as lost, or as not known
    UNPROVEN = "UNPROVEN"  # nothing is wrong with what was given; but a beginning was not, or no checkpoint covers it
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
class Unknown:
    """A restore that says of itself that nobody knows what was signed before it, since the last row that is kept."""

    instance: str
    place: Place
    since: str
    until: str
    reason: str


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

    @property
    def is_proven(self) -> bool:
        """Up to what is anchored, nothing can have been cut off at its beginning, or made up."""
        return not self.from_middle and self.anchored is not None


@dataclass(frozen=True, slots=True)
class Report:
    findings: tuple[Finding, ...]
    more: int  # findings beyond those
    gaps: tuple[Gap, ...]
    unknown: tuple[Unknown, ...]
    chains: tuple[ChainState, ...]
    rows: dict[str, int]  # by kind
    checkpoints: int
    absent: int  # checkpoints between those, of which only the ledger tells
    others: int  # checkpoints of other daemons in a log, which say nothing of these chains
    not_given: tuple[tuple[str, int], ...]  # chains that other daemons name, each with the first checkpoint that does
    first_time: str
    last_time: str

    @property
    def verdict(self) -> Verdict:
        if self.findings:
            return Verdict.TAMPERED
        if self.not_given or not all(chain.is_proven for chain in self.chains):
            return Verdict.UNPROVEN
        return Verdict.GAP if self.gaps or self.unknown else Verdict.WHOLE

    @property
    def epochs(self) -> int:
        return sum(chain.epochs for chain in self.chains)

    @property
    def unanchored(self) -> int:
        return sum(chain.unanchored for chain in self.chains)


class Findings:
    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.more = 0

    def add(self, kind: Flaw, place: str, sentence: str, segment: int | None = None, line: int | None = None) -> None:
        if len(self.kept) < FINDINGS_MAX:
            self.kept.append(Finding(kind, place, sentence, segment, line))
        else:
            self.more += 1


def row_name(instance: str, epoch: int, sequence: int) -> str:
    return f"{instance} {epoch}/{sequence}"


def place_name(place: Place) -> str:
    return f"{place[0]}/{place[1]}"


def place_of(head: Head) -> Place:
    return head.epoch, head.sequence
