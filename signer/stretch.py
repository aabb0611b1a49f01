"""
What is kept of a ledger's rows: stretches of them as they stand in the segments, and the chains that these make together.

Of a row its hash and its kind are kept, 33 bytes; of an OUTCOME 16 more. What stands in two segments is compared, and kept
once.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from signer.chain import Kind
from signer.verdict import Findings, Flaw, Place, row_name

HASH_BYTES = 32
CODES: dict[str, int] = {str(kind): code for code, kind in enumerate(Kind)}
IS_SETTLED = 0x80  # beside the code of an INTENT: the OUTCOME that closes it was seen
WAS_SETTLED = 0x40  # the same, among what is declared as lost


@dataclass(slots=True, eq=False)
class Stretch:
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
        return row_name(self.instance, self.epoch, sequence), self.segment, self.line + sequence - self.first

    def forget_before(self, sequence: int) -> None:
        """Another stretch has these rows."""
        count = sequence - self.first
        self.previous = self.hash(sequence - 1)
        del self.hashes[: count * HASH_BYTES], self.kinds[:count]
        self.first, self.line = sequence, self.line + count


class Chain:
    """The rows of one instance: stretches that do not overlap, in their order."""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.stretches: list[Stretch] = []
        self._starts: list[Place] = []

    def append(self, stretch: Stretch) -> None:
        self.stretches.append(stretch)
        self._starts.append((stretch.epoch, stretch.first))

    @property
    def first(self) -> Place:
        return self._starts[0]

    @property
    def last(self) -> Place:
        return self.stretches[-1].epoch, self.stretches[-1].last

    def find(self, place: Place) -> Stretch | None:
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
        return sum(stretch.kinds.count(CODES[kind]) for stretch in self.stretches)

    def count_after(self, place: Place) -> int:
        return sum(
            len(s.kinds) if s.epoch > place[0] else max(0, s.last - max(place[1], s.first - 1))
            for s in self.stretches
            if s.epoch >= place[0]
        )


def joined(stretches: list[Stretch], findings: Findings) -> Iterator[Chain]:
    """What stands twice is compared and kept once."""
    chain = None
    for stretch in sorted(stretches, key=lambda s: (s.instance, s.epoch, s.first, -len(s.kinds))):
        if chain is None or chain.instance != stretch.instance:
            if chain is not None:
                yield chain
            chain = Chain(stretch.instance)
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


def _compare(one: Stretch, other: Stretch, findings: Findings) -> None:
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
