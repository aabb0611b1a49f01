"""
What was lost, and what was declared as lost: which rows that were anchored are not there, which GAP rows say what is so, and
where a chain may go on from an older row because of that.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from signer.anchored import Anchored, Lost
from signer.chain import GENESIS, Kind
from signer.stretch import HASH_BYTES, Chain
from signer.verdict import Findings, Flaw, Gap, Place, place_name, place_of, row_name

_OLDER = ": fetch the files anew if they are older than the checkpoint"


class Losses:
    def __init__(self, chains: dict[str, Chain], anchor: Anchored, declared: Iterable[Gap], findings: Findings) -> None:
        self._chains, self._anchor, self._findings = chains, anchor, findings
        self._lost = dict(anchor.lost)
        for instance, (head, number, _) in anchor.newest.items():
            chain = chains.get(instance)
            if chain and place_of(head) < chain.first and anchor.attached.get(instance) != number:
                self._lost[instance, head.epoch] = Lost(head, number)
        self.gaps: list[Gap] = []  # those that say what is so
        self._lost_from: dict[tuple[str, int], int] = {}  # by chain and epoch
        distinct = list(_distinct(declared, anchor))
        self._lost_epochs = {(gap.instance, gap.epoch) for gap in distinct if gap.first == 1}
        for gap in distinct:
            if problem := self._problem(gap):
                place = row_name(gap.declared_by, *gap.declared_at)
                self._findings.add(Flaw.UNFOUNDED, place, f"it declares other rows as lost than are: {problem}")
            else:
                self.gaps.append(gap)
                epoch = gap.instance, gap.epoch
                self._lost_from[epoch] = min(gap.first, self._lost_from.get(epoch, gap.first))

    def check(self) -> None:
        """
        A declaration knows what the chain's own daemon had anchored. Rows behind those that another's checkpoint names, as
        its last ones, are lost with them.
        """
        undeclared = {
            epoch: lost
            for epoch, lost in self._anchor.lost_to_others.items()
            if not self.has(epoch, lost.head.sequence)
        }
        for (instance, epoch), lost in (undeclared | self._lost).items():
            head, chain = lost.head, self._chains.get(instance)
            if any(gap.covers(head) for gap in self.gaps):
                continue
            place = row_name(instance, *place_of(head))
            said = f"checkpoint {lost.number} has it as the head, and "
            if chain is None:
                self._findings.add(Flaw.MISSING, place, f"{said}no row of this chain was given: give its files, too")
            elif place_of(head) > chain.last:
                self._findings.add(
                    Flaw.TRUNCATED, place, f"{said}the chain ends with row {place_name(chain.last)}{_OLDER}"
                )
            elif place_of(head) < chain.first:
                self._findings.add(
                    Flaw.MISSING, place, f"{said}nothing ties it to the first row given, {place_name(chain.first)}"
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
            # A declaration may know of checkpoints that these lack: newer ones, other daemons', those that an anchor missed.
            is_all = gap.is_anchored and not self._anchor.absent and not self._anchor.is_shared
            if lost.head.sequence > gap.last or (is_all and lost.head.sequence < gap.last):
                return f"the last of them that was anchored is row {lost.head.sequence}"
        if not self._begins_right(gap, chain):
            return f"row {gap.first} is not the first of them"
        return ""

    def _begins_right(self, gap: Gap, chain: Chain | None) -> bool:
        """It begins behind the last row that there is, or (rows found again) behind the one that was gone on from."""
        if gap.first == 1 or (chain is not None and gap.epoch < chain.first[0]):
            return True
        if chain is None:
            return False
        before = chain.hash_at((gap.epoch, gap.first - 1))
        later = [s for s in chain.stretches if s.epoch > gap.epoch and s.first == 1]
        is_end = all((s.instance, s.epoch) in self._lost_epochs for s in later)
        return before is not None and (is_end or any(s.previous == before for s in later))


def _distinct(declared: Iterable[Gap], anchor: Anchored) -> Iterator[Gap]:
    """Each once, with what is known of where it stands."""
    for gap in sorted({(g.declared_by, g.declared_at): g for g in declared}.values(), key=lambda g: g.declared_at):
        yield replace(gap, is_anchored=anchor.is_anchored(gap.declared_by, gap.declared_at))


def check_joins(chain: Chain, losses: Losses, findings: Findings) -> None:
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
            said = f"row {place_name((before.epoch, before.last))} is before it: rows between them are missing"
            findings.add(Flaw.MISSING, place, said, segment, line)
        elif not _may_follow(chain, index, losses):
            kind, said = _broken(chain, index)
            findings.add(kind, place, said, segment, line)


def _may_follow(chain: Chain, index: int, losses: Losses) -> bool:
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


def _broken(chain: Chain, index: int) -> tuple[Flaw, str]:
    """Why a stretch does not follow the one before it."""
    stretch, before = chain.stretches[index], chain.stretches[index - 1]
    last = place_name((before.epoch, before.last))
    if before.epoch == stretch.epoch:
        return Flaw.FORK, f"it names another row before it than {last}"
    if any(stretch.previous in s.hashes for s in chain.stretches[:index]):
        return Flaw.ROLLED_BACK, f"it goes on from an older row than {last}, and no {Kind.GAP} row declares that"
    return Flaw.MISSING, f"it does not go on from row {last}: rows between them are missing"
