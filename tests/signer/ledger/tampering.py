"""
What somebody does to a ledger's files, and where. `TAMPERS` are done without the key, but for the last: there an old
database is put back, and the daemon goes on with it and signs.
"""

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from signer import chain
from signer.chain import GENESIS, Kind, Row
from signer.note import Note
from tests.signer.ledger.histories import Chain, History, Key, Rows, Story, cut, newest_heads

Lines = list[list[str]]
Tampered = tuple[Lines, list[Note]]
STRANGER = Key(1)


@dataclass
class Case:
    """A ledger in files, whole, and its anchor; `it` is the chain that will be tampered with, `anchored` its last such row."""

    rng: random.Random
    history: History
    it: Chain
    anchored: int
    pieces: dict[str, list[Rows]]
    notes: list[Note]
    story: Story

    @property
    def rows(self) -> Rows:
        return self.it.rows

    def files(self, **changed: list[Rows]) -> Lines:
        """The lines of all files, those of a chain from other pieces."""
        pieces = (self.pieces | changed).values()
        return [list(chain.write(piece)) for each in pieces for piece in each if piece]

    def with_rows(self, rows: Rows) -> Lines:
        return self.files(**{self.it.instance: cut(self.rng, rows) if rows else []})

    def places(self, lines: Lines) -> dict[tuple[int, int], tuple[int, int]]:
        """Where the chain's rows are: file and line."""
        found = {}
        for number, file in enumerate(lines):
            if file[0].split(" ")[1] == self.it.instance:
                for line, text in enumerate(file[1:], 1):
                    epoch, sequence = text.split(" ", 2)[:2]
                    found[int(epoch), int(sequence)] = number, line
        return found

    def find(self, lines: Lines, index: int) -> tuple[int, int]:
        row = self.rows[index]
        return self.places(lines)[row.epoch, row.sequence]


def case(rng: random.Random) -> Case | None:
    """None where nothing of any chain is anchored and still there."""
    story = Story(rng, restores=rng.choice((0, 0, 1)))
    story.go_on(rng.randrange(8, 40))
    story.checkpoint(rng.choice(story.chains), is_anchored=True)
    story.go_on(rng.randrange(12))
    history = story.history()
    heads = newest_heads(history.notes)
    choices = []
    for each in history.chains:
        places = {(row.epoch, row.sequence): index for index, row in enumerate(each.rows)}
        head = heads.get(each.instance)
        if head is not None and (head.epoch, head.sequence) in places:
            choices.append((each, places[head.epoch, head.sequence]))
    if not choices:
        return None
    it, anchored = rng.choice(choices)
    pieces = {each.instance: cut(rng, each.rows) for each in history.chains}
    notes = sorted(history.notes, key=lambda note: note.checkpoint.number)
    return Case(rng, history, it, anchored, pieces, notes, story)


def indexes(it: Case, position: str) -> Sequence[int]:
    rows = it.rows
    begins = [index for index, row in enumerate(rows) if index and row.kind == Kind.EPOCH]
    found: dict[str, Sequence[int]] = {
        "first": [0],
        "second": range(1, 2),
        "middle": range(2, it.anchored),
        "last anchored": [it.anchored],
        "after the last anchor": range(it.anchored + 1, len(rows)),
        "epoch boundary": sorted({*begins, *(index - 1 for index in begins)}),
        "checkpoint row": [index for index, row in enumerate(rows) if row.kind == Kind.CHECKPOINT],
    }
    return [index for index in found[position] if index < len(rows)]


POSITIONS = (
    *("first", "second", "middle", "last anchored", "after the last anchor"),
    *("epoch boundary", "checkpoint row"),
)


# ---- what is done. Each answers None where nobody could find it: behind the last anchor some things leave no trace.


def delete(it: Case, index: int) -> Tampered | None:
    """A line, or some; or a whole file but the chain's first, or a line and the header made to fit."""
    if index == len(it.rows) - 1 and index > it.anchored:
        return None
    lines = it.files()
    file, line = it.find(lines, index)
    text = lines[file]
    is_beginning = line == 1 and index > 0
    if is_beginning and it.rng.random() < 0.5:
        if len(text) > 2:
            text[0] = f"{chain.MAGIC} {it.it.instance} {it.rows[index].hash.hex()}\n"
            del text[1]
        else:
            del lines[file]
        return lines, it.notes
    if it.rng.random() < 0.3 and (index + len(text) - line <= it.anchored or line + 1 < len(text)):
        stop = it.rng.randrange(line + 1, len(text)) if line + 1 < len(text) else line + 1
        del text[line:stop]
    else:
        del text[line]
    return lines, it.notes


def behead(it: Case, index: int) -> Tampered | None:
    """Every row up to this one, and the header made to fit, as what is left after an archive looks."""
    return (it.with_rows(it.rows[index + 1 :]), it.notes) if index + 1 < len(it.rows) else None


def edit(it: Case, index: int) -> Tampered:
    """One character, of the row or of its file's header."""
    lines = it.files()
    file, line = it.find(lines, index)
    if it.rng.random() < 0.15:
        line = 0
    text = lines[file][line]
    place = it.rng.randrange(len(text))
    other = it.rng.choice([c for c in '0123456789abcdefA {}",:' if c != text[place]])
    lines[file][line] = text[:place] + other + text[place + 1 :]
    lines[file] = "".join(lines[file]).splitlines(keepends=True)  # a line end may have been the character
    return lines, it.notes


def edit_kind(it: Case, index: int) -> Tampered:
    lines = it.files()
    file, line = it.find(lines, index)
    kind = it.rng.choice([kind for kind in Kind if kind != it.rows[index].kind])
    lines[file][line] = replace(it.rows[index], kind=str(kind)).line
    return lines, it.notes


def edit_with_own_hash(it: Case, index: int) -> Tampered | None:
    """The row's hash is made to fit; not those of the rows after it."""
    if index == len(it.rows) - 1 and index > it.anchored:
        return None
    lines = it.files()
    file, line = it.find(lines, index)
    lines[file][line] = _rechained([_changed(it.rows[index])], it.rows[index].previous)[0].line
    return lines, it.notes


def swap(it: Case, index: int) -> Tampered | None:
    """With the row beside it, or any other of any file."""
    lines = it.files()
    file, line = it.find(lines, index)
    others = [(f, n) for f, text in enumerate(lines) for n in range(1, len(text)) if (f, n) != (file, line)]
    beside = [other for other in others if other in {(file, line - 1), (file, line + 1)}]
    choices = beside if beside and it.rng.random() < 0.6 else others
    if not choices:
        return None
    there, at = it.rng.choice(choices)
    lines[file][line], lines[there][at] = lines[there][at], lines[file][line]
    return lines, it.notes


def insert(it: Case, index: int) -> Tampered | None:
    """A row of one's own, whole behind the one before it; or one that is there already."""
    if index == len(it.rows) - 1:
        index -= 1
    if index < 0:
        return None
    lines = it.files()
    file, line = it.find(lines, index)
    row, after = it.rows[index], it.rows[index + 1]
    if it.rng.random() < 0.4 or row.epoch != after.epoch:
        made = it.rng.choice([each for each in it.rows if each is not after])  # that would be there twice, in two files
    else:
        fields = {"requests": [], "time": it.story.now}
        made = chain.after(row.instance, row.epoch, row.sequence + 1, row.hash, Kind.RELEASED, fields)
    lines[file].insert(line + 1, made.line)
    return lines, it.notes


def truncate(it: Case, index: int) -> Tampered | None:
    """From this row on."""
    if index > it.anchored:
        return None
    return it.with_rows(it.rows[:index]), it.notes


def roll_back(it: Case, index: int) -> Tampered | None:
    """All chains as they were; perhaps others' rows behind that, made without the key."""
    if index > it.anchored:
        return None
    kept = it.rows[:index]
    others = {each.instance: [each.rows[: it.rng.randrange(1, len(each.rows) + 1)]] for each in it.history.chains}
    if kept and it.rng.random() < 0.5:
        old = _daemon(it, kept)
        it.story.start(old)
        it.story.intend(old)
        it.story.settle(old)
        kept = old.rows
    return it.files(**(others | {it.it.instance: [kept]})), it.notes


def fork(it: Case, index: int) -> Tampered:
    """Both: the rows, and in another file others from this one on."""
    rows = [_changed(it.rows[index]), *it.rows[index + 1 :]]
    if it.rng.random() < 0.5:
        rows = rows[:1]
    branch = _rechained(rows, it.rows[index].previous)
    lines = it.files()
    lines.insert(it.rng.randrange(len(lines) + 1), list(chain.write(branch)))
    return lines, it.notes


def recompute(it: Case, index: int) -> Tampered | None:
    """Edited, deleted or inserted, and everything after it computed anew."""
    if index > it.anchored:
        return None
    return it.with_rows(_computed_anew(it, index)), it.notes


def recompute_and_sign(it: Case, index: int) -> Tampered | None:
    """The same, and checkpoints of it signed by another key that says it is this one."""
    if index > it.anchored:
        return None
    rows = _computed_anew(it, index)
    by_place = {(row.epoch, row.sequence): row.hash for row in rows}
    notes = []
    for note in it.notes:
        own, *others = (
            replace(head, hash=by_place.get((head.epoch, head.sequence), head.hash))
            if head.instance == it.it.instance
            else head
            for head in note.checkpoint.heads
        )
        changed = replace(note.checkpoint, own=own, others=tuple(others))
        forged = STRANGER.sign(changed)
        key = it.rng.choice((note.key, forged.key))
        notes.append(note if changed == note.checkpoint else replace(forged, key=key))
    return it.with_rows(rows), notes


def put_back(it: Case, index: int) -> Tampered | None:
    """An old database; the daemon goes on with it, and signs. It knows the last checkpoint by the database, or by the anchor."""
    if not 0 < index <= it.anchored:
        return None
    old = _daemon(it, it.rows[:index])
    before = [note for note in it.notes if note.checkpoint.own.instance == it.it.instance]
    told = [row.fields["number"] for row in old.rows if row.kind == Kind.CHECKPOINT]
    by_number = {note.checkpoint.number: note.checkpoint for note in before}
    if before and it.rng.random() < 0.5:
        old.told = before[-1].checkpoint
    elif told and told[-1] in by_number:
        old.told = by_number[told[-1]]
    story = it.story
    story.chains, story.is_shared, story.anchored = [old], False, list(it.notes)
    story.start(old)
    story.intend(old)
    story.checkpoint(old, is_anchored=True)
    story.settle(old)
    return it.with_rows(old.rows), story.anchored


TAMPERS: dict[str, Callable[[Case, int], Tampered | None]] = {
    "delete": delete,
    "behead": behead,
    "edit": edit,
    "edit the kind": edit_kind,
    "edit with its hash": edit_with_own_hash,
    "swap": swap,
    "insert": insert,
    "truncate": truncate,
    "roll back": roll_back,
    "fork": fork,
    "recompute": recompute,
    "recompute and sign": recompute_and_sign,
    "put an old database back": put_back,
}


# ---- with what


def _daemon(it: Case, rows: Rows) -> Chain:
    return Chain(it.it.instance, list(rows))


def _changed(row: Row) -> Row:
    fields = row.fields
    return replace(row, body=json.dumps(fields | {"caller": f"not {fields.get('caller')}"}, separators=(",", ":")))


def _rechained(rows: Iterable[Row], previous: bytes) -> Rows:
    found = []
    for row in rows:
        hash_ = chain.row_hash(row.instance, row.epoch, row.sequence, previous, row.kind, row.body)
        found.append(replace(row, previous=previous, hash=hash_))
        previous = hash_
    return found


def _computed_anew(it: Case, index: int) -> Rows:
    row, rest = it.rows[index], it.rows[index + 1 :]
    way = it.rng.choice(("edit", "delete", "insert"))
    if way == "edit":
        changed = [_changed(row), *rest]
    else:
        by = -1 if way == "delete" else 1
        before = [] if way == "delete" else [replace(row, kind=str(Kind.RELEASED), body="{}")]
        moved = rest if way == "delete" else [row, *rest]
        changed = before + [
            replace(each, sequence=each.sequence + by) if each.epoch == row.epoch else each for each in moved
        ]
    return it.rows[:index] + _rechained(changed, it.rows[index - 1].hash if index else GENESIS)
