"""
What can be said of a ledger elsewhere: from its files, the checkpoints that were kept, and the public key. Pure.

`examine` goes through the segments once and keeps 33 bytes of a row (its hash and its kind) and 16 more of an OUTCOME;
then through the checkpoints, which it compares with them. It finds what was deleted, edited, swapped, inserted, cut off,
set back to an older state, forked, or computed anew by somebody without the key.

What nobody can find: rows after the newest checkpoint. Whoever can write the files may have cut off some of those, or
written others in their place. `Report.unanchored` says how many there are. A chain whose first rows are elsewhere, or of
which no checkpoint was given, is not tampered with as far as anybody can see, and not whole: that is `UNPROVEN`. So is a
ledger of several daemons of which a chain was not given.

One after the other: signer/reading.py, stretch.py, anchored.py, losses.py, and here what rows say about others; the
report is in signer/verdict.py.
"""

import heapq
from collections.abc import Container, Iterable, Iterator

from signer.anchored import Anchored
from signer.chain import Kind
from signer.losses import Losses, check_joins
from signer.note import Note, key_id
from signer.reading import Named, Possible, Reading
from signer.stretch import CODES, IS_SETTLED, WAS_SETTLED, Chain, Stretch, joined
from signer.verdict import Findings, Flaw, Report, place_name


def examine(
    segments: Iterable[Iterable[str]], notes: Iterable[Note], spki: bytes, *, logged: Iterable[Note] = ()
) -> Report:
    """
    What these segments (the lines of each, in any order of segments) are worth beside these checkpoints, in the order in
    which they were kept. A segment or a checkpoint that is given twice counts once.

    `logged` are those of a log, where lines may arrive in another order, and other daemons put theirs, too: they count by
    their numbers, and what another key has signed for chains that are not here is only counted.
    """
    findings = Findings()
    reading = Reading(findings)
    for number, lines in enumerate(segments):
        reading.segment(number, lines)
    chains = {chain.instance: chain for chain in joined(reading.stretches, findings)}
    rows = {str(kind): sum(chain.count(kind) for chain in chains.values()) for kind in Kind}
    anchor = Anchored(chains, reading, spki, findings)
    ours, others = _of_a_log(logged, chains, spki)
    for note in heapq.merge(notes, ours, key=_number):
        anchor.take(note)
    losses = Losses(chains, anchor, reading.gaps, findings)
    losses.check()
    for chain in chains.values():
        check_joins(chain, losses, findings)
        _check_outcomes(chain, losses, findings)
    _check_possible(reading.possible, chains, findings)
    if not findings.kept:  # a row that was edited may have been the one that closes an INTENT
        for chain in chains.values():
            _check_open(chain, reading, losses, findings)
    _check_named(reading.named, anchor, losses, findings)
    anchor.check_epochs(losses.gaps)
    anchor.check_untold(losses.gaps)
    return Report(
        findings=tuple(findings.kept),
        more=findings.more,
        gaps=tuple(losses.gaps),
        unknown=tuple(reading.unknown.values()),
        chains=tuple(anchor.state(chain, losses.branches(chain.instance)) for chain in chains.values()),
        rows=rows,
        checkpoints=anchor.count,
        absent=anchor.absent,
        others=others,
        not_given=tuple(anchor.not_given.items()),
        first_time=reading.first_time,
        last_time=reading.last_time,
    )


def _of_a_log(notes: Iterable[Note], chains: Container[str], spki: bytes) -> tuple[list[Note], int]:
    """Those that are to be judged, by their numbers, and how many there are of others."""
    key, ours, others = key_id(spki), list[Note](), 0
    for note in notes:
        if note.key == key or note.checkpoint.own.instance in chains:
            ours.append(note)
        else:
            others += 1
    return sorted(ours, key=_number), others


def _number(note: Note) -> int:
    return note.checkpoint.number


# ---- what rows say about others


def _check_outcomes(chain: Chain, losses: Losses, findings: Findings) -> None:
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
            if code == CODES[Kind.INTENT]:
                if named > 0:
                    home.kinds[intent - home.first] |= WAS_SETTLED if losses.has(epoch, sequence) else IS_SETTLED
                continue
            had = f"which is no {Kind.INTENT}" if code < WAS_SETTLED else "which was closed before"
            place, segment, line = stretch.at(sequence)
            findings.add(Flaw.UNFOUNDED, place, f"it is the {Kind.OUTCOME} of row {intent}, {had}", segment, line)


def _check_possible(rows: Iterable[Possible], chains: dict[str, Chain], findings: Findings) -> None:
    """What a restored daemon did not know of is no OUTCOME to it."""
    for row in rows:
        home = chains[row.stretch.instance].find(row.intent)
        if home is None:
            continue
        code = home.kinds[row.intent[1] - home.first]
        if code & ~WAS_SETTLED != CODES[Kind.INTENT]:
            had = f"which has its {Kind.OUTCOME}" if code & IS_SETTLED else f"which is no {Kind.INTENT}"
            place, segment, line = row.stretch.at(row.sequence)
            findings.add(Flaw.UNFOUNDED, place, f"it names row {place_name(row.intent)}, {had}", segment, line)


def _check_open(chain: Chain, reading: Reading, losses: Losses, findings: Findings) -> None:
    """
    A start says of every INTENT before it that no OUTCOME closes that it may have been signed; a restore leaves that to the
    next start. Where it does not, somebody has hidden that from it.
    """
    told = {row.intent for row in reading.possible if row.stretch.instance == chain.instance}
    starts = (epoch for epoch in _begun(chain, losses) if (chain.instance, epoch) not in reading.restored)
    last = max(starts, default=0)
    for stretch in chain.stretches:
        if stretch.epoch >= last:
            break
        for sequence in _unsettled(stretch):
            is_lost = losses.has((chain.instance, stretch.epoch), sequence)
            if not is_lost and (stretch.epoch, sequence) not in told:
                place, segment, line = stretch.at(sequence)
                said = (
                    f"no {Kind.OUTCOME} closes it, and epoch {last} began without saying that it may have been signed"
                )
                findings.add(Flaw.MISSING, place, said, segment, line)


def _begun(chain: Chain, losses: Losses) -> Iterator[int]:
    """The epochs of which all that a start writes is there: something else comes after it."""
    is_done = chain.stretches[-1].kinds[-1] not in {CODES[Kind.EPOCH], CODES[Kind.POSSIBLE]}
    for stretch in chain.stretches:
        is_lost = losses.has((chain.instance, stretch.epoch), 1)
        if stretch.first == 1 and not is_lost and (is_done or stretch.epoch < chain.last[0]):
            yield stretch.epoch


def _unsettled(stretch: Stretch) -> Iterator[int]:
    """The INTENTs that no OUTCOME closes, but for what is declared as lost."""
    for code in (CODES[Kind.INTENT], CODES[Kind.INTENT] | WAS_SETTLED):
        at = stretch.kinds.find(code)
        while at >= 0:
            yield stretch.first + at
            at = stretch.kinds.find(code, at + 1)


def _check_named(
    rows: dict[tuple[str, int], list[Named]], anchor: Anchored, losses: Losses, findings: Findings
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
