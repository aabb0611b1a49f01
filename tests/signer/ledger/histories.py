"""
Ledgers as daemons write them, at random by a seed: what must never be accused, and what `tampering.py` tampers with.

What happens is what may happen to a daemon: it is killed with signatures under way, an anchor is away for a while, a
backup is restored and the loss declared, old files are on another disk, a file is there twice.
"""

import random
import uuid
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from signer import chain
from signer.chain import GENESIS, Kind, Row
from signer.clock import rfc3339
from signer.note import NOTHING, Checkpoint, Head, Note, sign

BEGIN = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
Rows = list[Row]


class Key:
    """A checkpoint key."""

    def __init__(self, seed: int = 0) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32, "big"))
        self.spki = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, checkpoint: Checkpoint) -> Note:
        return sign(checkpoint, self.spki, "ED25519", self._key.sign)


KEY = Key()


@dataclass
class Chain:
    """One daemon's, as its database has it."""

    instance: str
    rows: Rows = field(default_factory=list)
    open: dict[tuple[int, int], str] = field(default_factory=dict)  # INTENTs that nothing has closed -> the request
    told: Checkpoint | None = None  # the last one that the database knows

    @property
    def place(self) -> tuple[int, int]:
        return (self.rows[-1].epoch, self.rows[-1].sequence) if self.rows else (0, 0)

    @property
    def head(self) -> Head:
        return Head(self.instance, *self.place, self.rows[-1].hash)

    def add(self, kind: Kind, begins: int | None = None, **fields: object) -> Row:
        """The next row, or the first one of the epoch that it begins."""
        last = self.rows[-1] if self.rows else None
        place = (begins, 1) if begins else (last.epoch, last.sequence + 1)
        named = {name.rstrip("_"): value for name, value in fields.items()}  # `from_` is a word of Python
        self.rows.append(chain.after(self.instance, *place, last.hash if last else GENESIS, kind, named))
        return self.rows[-1]


@dataclass
class History:
    chains: list[Chain]
    notes: list[Note]  # that an anchor has, in their order
    lost: Rows = field(default_factory=list)  # left behind by restores that declared it, and archived before
    has_gap: bool = False


class Story:
    """
    Daemons at work. `shared`: they share a database, and each one's checkpoints name the chains of all.
    """

    def __init__(self, rng: random.Random, key: Key = KEY, *, restores: int = 2) -> None:
        self.rng, self._key = rng, key
        self.is_shared = rng.random() < 0.5
        self.chains = [Chain(f"{rng.getrandbits(128):032x}") for _ in range(rng.choice((1, 1, 2, 3)))]
        self.anchored: list[Note] = []
        self.lost: Rows = []
        self.has_gap = False
        self._restores = restores
        self._backups: list[list[Chain]] = []
        self._now = BEGIN
        for each in self.chains:
            self.start(each)

    @property
    def now(self) -> str:
        self._now += timedelta(seconds=self.rng.randrange(3))
        return rfc3339(self._now)

    def history(self) -> History:
        return History(self.chains, self.anchored, self.lost, self.has_gap)

    def go_on(self, steps: int) -> None:
        does = (
            self.intend,
            self.settle,
            self.release,
            self.refuse,
            self.checkpoint,
            self.start,
            self.back_up,
            self.restore,
        )
        for _ in range(steps):
            step = self.rng.choices(does, (24, 28, 8, 3, 12, 4, 3, 2))[0]
            step(self.rng.choice(self.chains))

    # ---- what happens

    def start(self, it: Chain, epoch: int | None = None) -> None:
        """The daemon begins, and tells what its end has left open."""
        told = it.told.hash if it.told else NOTHING
        it.add(Kind.EPOCH, epoch or it.place[0] + 1, time=self.now, version="0.2.0", checkpoint=told.hex())
        for place, request in it.open.items():
            it.add(Kind.POSSIBLE, intent=list(place), request=request, items=[0], time=self.now)
        it.open.clear()

    def intend(self, it: Chain) -> None:
        request = str(uuid.UUID(int=self.rng.getrandbits(128)))
        items = [[0, self.rng.randrange(1, 9)]]
        said = {"request": request, "caller": "portal", "credential": "clerk", "attempt": 1, "items": items}
        row = it.add(Kind.INTENT, **said, signed=f"{self.rng.getrandbits(256):064x}", token="card", time=self.now)
        it.open[row.epoch, row.sequence] = request

    def settle(self, it: Chain) -> None:
        """All of an INTENT's items, or some before the others."""
        if it.open:
            place = self.rng.choice(list(it.open))
            is_last = self.rng.random() < 0.7
            signatures = f"{self.rng.getrandbits(256):064x}"
            it.add(Kind.OUTCOME, intent=place[1], signed=1, signatures=signatures, closed=is_last, time=self.now)
            if is_last:
                del it.open[place]

    def release(self, it: Chain) -> None:
        kind = self.rng.choice((Kind.RELEASED, Kind.RELEASED, Kind.NOT_DELIVERED))
        it.add(kind, requests=[str(uuid.UUID(int=self.rng.getrandbits(128)))], time=self.now)

    def refuse(self, it: Chain) -> None:
        it.add(Kind.MISMATCH, request=str(uuid.UUID(int=self.rng.getrandbits(128))), caller="portal", time=self.now)

    def checkpoint(self, it: Chain, *, is_anchored: bool | None = None) -> None:
        """It is in the ledger before it goes to the anchor, which may be away."""
        others = tuple(sorted(each.head for each in self.chains if self.is_shared and each is not it))
        moment = datetime.fromisoformat(self.now)
        last = it.told
        made = Checkpoint(last.number + 1 if last else 1, moment, last.hash if last else NOTHING, it.head, others)
        note = self._key.sign(made)
        it.add(Kind.CHECKPOINT, number=made.number, note=made.hash.hex(), key=note.key, time=rfc3339(moment))
        it.told = made
        if is_anchored or (is_anchored is None and self.rng.random() < 0.85):
            self.anchored.append(note)

    def back_up(self, it: Chain) -> None:
        self._backups.append(deepcopy(self.chains if self.is_shared else [it]))

    def restore(self, it: Chain) -> None:
        """A backup is put back. What an anchor knows to be lost is declared; checkpoints go on behind the anchor's last."""
        if not self._backups or self._restores == 0:
            return
        self._restores -= 1
        backup = deepcopy(self.rng.choice(self._backups))
        for old in backup:
            now = next(each for each in self.chains if each.instance == old.instance)
            self._put_back(now, old)
        # What a later backup knows is gone for good: it would begin epochs anew.
        self._backups = [[each for each in kept if _is_part(each, self.chains)] for kept in self._backups]
        self._backups = [kept for kept in self._backups if len(kept) == (len(self.chains) if self.is_shared else 1)]

    def _put_back(self, it: Chain, old: Chain) -> None:
        """
        Told are the anchors of all daemons; or this one's own, whose losses end earlier then. What of an epoch is lost as
        only others know is always told: without, the chain goes on from before it and nothing says so.
        """
        notes = [note.checkpoint for note in self.anchored if note.checkpoint.own.instance == it.instance]
        own = {made.own.epoch: made.own for made in notes}
        newest = {
            head.epoch: head for note in self.anchored for head in note.checkpoint.heads if head.instance == it.instance
        }
        kept = {(row.epoch, row.sequence) for row in old.rows}
        missing = {epoch: head for epoch, head in newest.items() if (epoch, head.sequence) not in kept}
        if self.rng.random() < 0.5:
            missing |= {epoch: head for epoch, head in own.items() if (epoch, head.sequence) not in kept}
        gone, it.rows, it.open = it.rows[len(old.rows) :], old.rows, old.open
        known = [each for each in (old.told, *notes[-1:]) if each is not None]
        it.told = max(known, key=lambda each: each.number, default=None)
        self.start(it, max([*newest, it.place[0]]) + 1)
        if missing:
            self.has_gap = True
            self._declare(it, missing.values(), old_place=self._places(it))
        self._archive(it, gone, set(missing))

    @staticmethod
    def _places(it: Chain) -> dict[int, int]:
        """epoch -> its last row."""
        return {row.epoch: row.sequence for row in it.rows}

    def _declare(self, it: Chain, missing: Iterable[Head], old_place: dict[int, int]) -> None:
        for head in missing:
            said = {"instance": it.instance, "epoch": head.epoch, "from_": old_place.get(head.epoch, 0) + 1}
            it.add(Kind.GAP, **said, to=head.sequence, hash=head.hash.hex(), reason="disk", time=self.now)

    def _archive(self, it: Chain, gone: Rows, declared: set[int]) -> None:
        """Files that were archived before have what is lost; as far as that is declared epoch for epoch, it shows as lost."""
        self.lost = [row for row in self.lost if row.instance != it.instance]
        epochs = sorted({row.epoch for row in gone})
        if epochs and set(epochs) <= declared and self.rng.random() < 0.7:
            self.lost += gone


def _is_part(old: Chain, chains: list[Chain]) -> bool:
    now = next(each for each in chains if each.instance == old.instance)
    return now.rows[: len(old.rows)] == old.rows


def random_history(rng: random.Random, *, steps: int | None = None, restores: int = 2, key: Key = KEY) -> History:
    story = Story(rng, key, restores=restores)
    story.go_on(rng.randrange(5, 60) if steps is None else steps)
    return story.history()


# ---- as files


def cut(rng: random.Random, rows: Rows) -> list[Rows]:
    """One to four pieces, none empty."""
    cuts = sorted(rng.sample(range(1, len(rows)), min(rng.randrange(4), len(rows) - 1)))
    return [rows[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True)]


def segments(rng: random.Random, history: History, *, is_messy: bool = True) -> list[list[str]]:
    """
    The lines of files in no order. Messy: with what was left behind, some rows twice, and old ones on another disk.
    """
    pieces: list[Rows] = []
    for each in history.chains:
        rows = each.rows
        if is_messy and not history.lost and rng.random() < 0.2:
            rows = rows[_prunable(rng, history, each) :]
        pieces += cut(rng, rows)
        if is_messy and rng.random() < 0.2:
            start = rng.randrange(len(rows))
            pieces.append(rows[start : rng.randrange(start, len(rows)) + 1])
    if is_messy:
        lost = history.lost
        for instance in {row.instance for row in lost}:
            pieces += cut(rng, [row for row in lost if row.instance == instance])
    rng.shuffle(pieces)
    return [list(chain.write(piece)) for piece in pieces]


def _prunable(rng: random.Random, history: History, each: Chain) -> int:
    """So many rows may be elsewhere: those that the newest anchored head covers, while there is something behind."""
    heads = [head for note in history.notes for head in note.checkpoint.heads if head.instance == each.instance]
    places = [(row.epoch, row.sequence) for row in each.rows]
    newest = max(((head.epoch, head.sequence) for head in heads), default=None)
    if newest not in places:  # nothing is anchored, or what was is lost
        return 0
    return rng.randrange(min(places.index(newest) + 2, len(places)))


def anchors(rng: random.Random, history: History, *, is_messy: bool = True) -> list[Note]:
    """The checkpoints in the order of their numbers. Messy: some twice; and old ones, that later ones cover, elsewhere."""
    notes = history.notes
    if is_messy and not history.has_gap and rng.random() < 0.2:
        notes = notes[rng.randrange(len(notes) + 1) :]
    notes = sorted(notes, key=lambda note: note.checkpoint.number)
    if is_messy and notes and rng.random() < 0.3:
        index = rng.randrange(len(notes))
        notes[index:index] = [notes[index]]
    return notes


def newest_heads(notes: Iterable[Note]) -> dict[str, Head]:
    found: dict[str, Head] = {}
    for note in notes:
        for head in note.checkpoint.heads:
            if head.instance not in found or found[head.instance] < head:
                found[head.instance] = head
    return found


def unanchored(history: History, notes: Iterable[Note]) -> Iterator[tuple[str, int]]:
    """How many live rows of each chain come after its newest anchored head."""
    heads = newest_heads(notes)
    for each in history.chains:
        head = heads.get(each.instance)
        seen = (head.epoch, head.sequence) if head else (0, 0)
        yield each.instance, sum((row.epoch, row.sequence) > seen for row in each.rows)
