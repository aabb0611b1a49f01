"""
The checkpoints that were kept, one after the other, beside the chains: whether the key has signed each, whether they follow
one another, whether their heads are rows that the chains have. Each daemon numbers its own; what they say of the chains of
others counts as much, and the two need not come in any order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from signer.chain import GENESIS
from signer.note import NOTHING, Checkpoint, Head, Note, NoteError
from signer.reading import Reading
from signer.stretch import Chain
from signer.verdict import ChainState, Findings, Flaw, Gap, Place, place_name, place_of, row_name


@dataclass(slots=True)
class Lost:
    """The newest anchored head of an epoch that the segments do not have."""

    head: Head
    number: int


class _Series:
    """A daemon's checkpoints, which follow one another."""

    def __init__(self) -> None:
        self.numbers: dict[int, bytes] = {}
        self.last: tuple[int, bytes] | None = None
        self.head: Head | None = None


class Anchored:
    """The checkpoints, one after the other, beside the chains."""

    def __init__(self, chains: dict[str, Chain], reading: Reading, spki: bytes, findings: Findings) -> None:
        self._chains, self._reading, self._spki, self._findings = chains, reading, spki, findings
        self._series: dict[str, _Series] = {}  # by instance
        self.count = 0
        self.absent = 0
        self.untold: list[tuple[Checkpoint, int]] = []  # of what is before them no row tells; and who stands there
        self.newest: dict[str, tuple[Head, int, datetime]] = {}
        self.attached: dict[str, int] = {}
        self.lost: dict[tuple[str, int], Lost] = {}  # by chain and epoch, as the chain's own daemon has said
        self.lost_to_others: dict[tuple[str, int], Lost] = {}  # ... and as another one has
        self.is_shared = False  # other daemons write in the same database
        self.not_given: dict[str, int] = {}  # chains that only others name, and the first checkpoint that does
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
        series = self._series.setdefault(checkpoint.own.instance, _Series())
        is_copy = series.numbers.get(number) == hash_
        if not is_copy:
            self._check_order(series, checkpoint)
            self._reading.begun_after.pop(hash_, None)
            self.count += 1
        series.numbers.setdefault(number, hash_)
        series.last = number, hash_
        if not is_copy:
            self._check_advance(series, checkpoint.own, number)
            self._take_head(checkpoint.own, number, checkpoint.time, self.lost)
            for head in checkpoint.others:
                self.is_shared = True
                if head.instance in self._chains:
                    self._take_head(head, number, checkpoint.time, self.lost_to_others)
                else:
                    self.not_given.setdefault(head.instance, number)

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
            if previous not in self._told(checkpoint.own.instance, number - 1):
                self.untold.append((checkpoint, series.last[0]))

    def _told(self, instance: str, number: int) -> set[bytes]:
        """The hash of a checkpoint, by the rows of a chain."""
        return {named.note for named in self._reading.named.get((instance, number), ())}

    def check_untold(self, gaps: Sequence[Gap]) -> None:
        """
        An anchor that was away does not get every checkpoint; but the ledger has had each before. Where the row that told
        of it may be elsewhere, or is declared as lost, that is not known.
        """
        for checkpoint, last in self.untold:
            if not self._may_be_gone(checkpoint.own.instance, checkpoint.number - 1, gaps):
                said = f"it stands behind checkpoint {last}, and no row tells of those between them"
                self._findings.add(Flaw.MISSING, f"checkpoint {checkpoint.number}", said)

    def _may_be_gone(self, instance: str, number: int, gaps: Sequence[Gap]) -> bool:
        """Whether a chain may have told of a checkpoint in rows that are not there."""
        chain = self._chains.get(instance)
        if chain is None or any(gap.instance == instance for gap in gaps):
            return True
        told = min((told for of, told in self._reading.named if of == instance), default=number + 1)
        return chain.stretches[0].previous != GENESIS and number < told

    def hash_of(self, instance: str, number: int) -> bytes | None:
        """The checkpoint with this number that this chain's daemon has made."""
        series = self._series.get(instance)
        return series.numbers.get(number) if series else None

    def _take_head(self, head: Head, number: int, time: datetime, lost: dict[tuple[str, int], Lost]) -> None:
        place = place_of(head)
        before = self.newest.get(head.instance)
        if before is None or place >= place_of(before[0]):
            self.newest[head.instance] = head, number, time
        chain = self._chains.get(head.instance)
        if chain is None or place > chain.last:
            _lose(lost, head, number)
        elif place < chain.first:
            self._take_earlier(chain, head, number)
        elif (found := chain.hash_at(place)) is None:
            _lose(lost, head, number)
        elif found != head.hash:
            self._contradict(chain, head, number)
        else:
            epoch = head.instance, head.epoch
            self._covered[epoch] = max(head.sequence, self._covered.get(epoch, 0))

    def _check_advance(self, series: _Series, head: Head, number: int) -> None:
        before = series.head
        if before is None or place_of(head) >= place_of(before):
            series.head = head
        if before is None or head == before or place_of(head) > place_of(before):
            return
        place, seen = place_of(head), place_of(before)
        kind = Flaw.FORK if place == seen else Flaw.ROLLED_BACK
        said = (
            "another row with this number was anchored before"
            if place == seen
            else f"row {place_name(seen)} was before"
        )
        self._findings.add(
            kind, f"checkpoint {number}", f"it has the head {row_name(head.instance, *place)}, and {said}"
        )

    def _take_earlier(self, chain: Chain, head: Head, number: int) -> None:
        """A head before the first row that the segments have: it may be the very one before."""
        first = chain.stretches[0]
        is_neighbour = head.epoch == first.epoch and head.sequence == first.first - 1
        is_at_an_end = head.epoch < first.epoch and first.first == 1
        if head.hash == first.previous and (is_neighbour or is_at_an_end):
            self.attached[head.instance] = number
        elif is_neighbour:
            self._contradict(chain, head, number)

    def _contradict(self, chain: Chain, head: Head, number: int) -> None:
        """Told once of a chain: everything after it differs, too."""
        if chain.instance in self._contradicted:
            return
        self._contradicted.add(chain.instance)
        place = row_name(head.instance, head.epoch, head.sequence)
        stretch = chain.find(place_of(head))
        _, segment, line = stretch.at(head.sequence) if stretch else (place, None, None)
        said = f"checkpoint {number} has another hash for it: rows up to here were changed, and computed anew"
        self._findings.add(Flaw.RECOMPUTED, place, said, segment, line)

    def is_anchored(self, instance: str, place: Place) -> bool:
        newest = self.newest.get(instance)
        return newest is not None and place <= place_of(newest[0])

    def check_epochs(self, gaps: Sequence[Gap]) -> None:
        """What an anchored epoch began after is known, unless older rows or checkpoints are elsewhere."""
        if gaps or any(chain.stretches[0].previous != GENESIS for chain in self._chains.values()):
            return
        told = {named.note for rows in self._reading.named.values() for named in rows}
        for hash_, (instance, place) in self._reading.begun_after.items():
            if hash_ not in told and self.is_anchored(instance, place) and self.hash_of(instance, 1) is not None:
                said = "the epoch began after a checkpoint that neither the anchor nor a row knows"
                self._findings.add(Flaw.FORK, row_name(instance, *place), said)

    def state(self, chain: Chain, branches: Iterable[Place]) -> ChainState:
        """`branches`: of each epoch of which something is declared as lost, the first row that is."""
        head, number, time = self.newest.get(chain.instance, (None, None, None))
        newest = place_of(head) if head else (0, 0)
        first = chain.stretches[0]
        loose = sum(self._loose(chain, branch) for branch in branches if branch <= newest)
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

    def _loose(self, chain: Chain, branch: Place) -> int:
        """How many rows of a lost branch are there, before the newest head of all, and after the branch's own."""
        epoch, first = branch
        newest = self.newest[chain.instance][0]
        end = min(chain.last_in(epoch), newest.sequence) if epoch == newest.epoch else chain.last_in(epoch)
        return max(0, end - max(first - 1, self._covered.get((chain.instance, epoch), 0)))


def _lose(lost: dict[tuple[str, int], Lost], head: Head, number: int) -> None:
    known = lost.get((head.instance, head.epoch))
    if known is None or head.sequence >= known.head.sequence:
        lost[head.instance, head.epoch] = Lost(head, number)
