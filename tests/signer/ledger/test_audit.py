"""What an auditor finds: everything that was done without the key, and nothing in ledgers as daemons write them."""

import random
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest

from signer import chain, verdict
from signer.audit import examine
from signer.chain import GENESIS, Kind, Row
from signer.note import NOTHING, Head, Note
from signer.verdict import Flaw, Report, Verdict
from tests.signer.ledger.histories import (
    KEY,
    Chain,
    Rows,
    Story,
    anchors,
    newest_heads,
    random_history,
    segments,
    unanchored,
)
from tests.signer.ledger.tampering import POSITIONS, STRANGER, TAMPERS, Case, case, indexes

A, B = "aa" * 16, "bb" * 16
# Behind the last anchor these leave no trace; and before its first row a database cannot be put back.
NO_TRACE = {
    *((kind, "after the last anchor") for kind in ("truncate", "roll back", "recompute", "recompute and sign")),
    ("put an old database back", "after the last anchor"),
    ("put an old database back", "first"),
}


def _number(note: Note) -> int:
    return note.checkpoint.number


def said(report: Report) -> str:
    return "\n".join(f"{each.kind} {each.place}: {each.sentence}" for each in report.findings)


# ---- histories


def check_history(seed: object) -> Report:
    """A random correct history as files, in disorder: no finding, and the figures of what was given. Answers the report."""
    rng = random.Random(f"history {seed}")
    history = random_history(rng)
    notes, files = anchors(rng, history), segments(rng, history)
    report = examine(files, notes, KEY.spki)
    assert report.findings == (), f"{seed}: {said(report)}"
    rows = {(file[0].split(" ")[1], *line.split(" ", 3)[:3]) for file in files for line in file[1:]}
    assert report.rows == {str(kind): sum(row[3] == kind for row in rows) for kind in Kind}
    heads = newest_heads(notes)
    is_proven = all((each.instance, "1", "1", Kind.EPOCH) in rows and each.instance in heads for each in history.chains)
    expected = Verdict.GAP if any(row[3] == Kind.GAP for row in rows) else Verdict.WHOLE
    assert report.verdict is (expected if is_proven else Verdict.UNPROVEN)
    assert {each.instance for each in report.chains} == {each.instance for each in history.chains}
    assert report.epochs == len({row[:2] for row in rows})
    assert report.checkpoints == len(set(map(str, notes)))
    for each in report.chains:
        assert each.anchored == heads.get(each.instance)
        assert each.last == next(it.place for it in history.chains if it.instance == each.instance)
    if not history.lost:
        kept = {each.instance: each.unanchored for each in report.chains}
        assert all(kept[name] == min(count, _given(rows, name)) for name, count in unanchored(history, notes))
    return report


def _given(rows: Iterable[tuple[str, ...]], instance: str) -> int:
    return sum(row[0] == instance for row in rows)


@pytest.mark.parametrize("part", range(5))
def test_correct_histories_are_never_accused(part: int) -> None:
    """500 random histories with kills, anchors that were away, declared restores, files twice and elsewhere: no finding."""
    reports = [check_history(f"{part} {seed}") for seed in range(100)]
    assert {report.verdict for report in reports} == {Verdict.WHOLE, Verdict.GAP, Verdict.UNPROVEN}
    for seen in (
        [report.absent for report in reports],
        [each.from_middle for report in reports for each in report.chains],
        [each.attached_by for report in reports for each in report.chains],
        [report.unanchored for report in reports],
        [gap.is_anchored for report in reports for gap in report.gaps],
        [not gap.is_anchored for report in reports for gap in report.gaps],
    ):
        assert any(seen)


def tampered(kind: str, position: str, seed: object) -> Report | None:
    """The report on a random history after that was done there; None where this history has no such place."""
    rng = random.Random(f"{kind} {position} {seed}")
    it = case(rng)
    places = indexes(it, position) if it is not None else ()
    done = TAMPERS[kind](it, rng.choice(places)) if it is not None and places else None
    if done is None:
        return None
    files, notes = done
    rng.shuffle(files)
    return examine(files, notes, KEY.spki)


def is_seen(kind: str, report: Report) -> bool:
    """Rows that are gone from the beginning, or a whole chain that only others name, may be in files that were not given."""
    may_be_elsewhere = kind == "behead" or bool(report.not_given)
    return bool(report.findings) or (may_be_elsewhere and report.verdict is Verdict.UNPROVEN)


@pytest.mark.parametrize("kind", TAMPERS)
def test_tampering_is_found(kind: str) -> None:
    """
    Row 4.4: delete, edit, swap, insert, truncate, roll back, fork the log, restore an old database, edit and recompute the
    chain without the key: every one is found by an offline verifier with only the public key and the last external anchor.

    Each kind of it at each kind of place: a chain's first and second row, its middle, the last row that is anchored and
    those after it, an epoch's end and beginning, a CHECKPOINT row. What cannot be found is in `NO_TRACE`, and below.
    """
    for position in POSITIONS:
        reports = [report for seed in range(60) if (report := tampered(kind, position, seed)) is not None]
        missed = [number for number, report in enumerate(reports) if not is_seen(kind, report)]
        assert missed == [], f"{position}: {missed}"
        assert (len(reports) < 15) == ((kind, position) in NO_TRACE), f"{position}: only {len(reports)}"
        if (kind, position) in NO_TRACE:
            assert reports == []


def test_what_nobody_can_find() -> None:
    """Behind the newest anchor rows can be cut off or written anew: it is not found, and said how many are not anchored."""
    seen = Counter()
    for seed in range(200):
        it = case(random.Random(seed))
        if it is None or it.anchored + 1 >= len(it.rows):
            continue
        rest = len(it.rows) - 1 - it.anchored
        for name, rows in (("all", it.rows), ("cut", it.rows[: it.anchored + 1]), ("anew", _anew(it))):
            report = examine(it.with_rows(rows), it.notes, KEY.spki)
            assert not report.findings, said(report)
            (state,) = (each for each in report.chains if each.instance == it.it.instance)
            assert state.anchored == newest_heads(it.notes)[it.it.instance]
            assert state.unanchored == {"all": rest, "cut": 0, "anew": 1}[name]
            seen[name] += 1
    assert min(seen.values()) > 50


def _anew(it: Case) -> Rows:
    other = Chain(it.it.instance, it.rows[: it.anchored + 1])
    other.add(Kind.RELEASED, requests=["made up"], time=it.story.now)
    return other.rows


# ---- one chain, row by row


class Book:
    """A chain with an EPOCH row, and its checkpoints."""

    def __init__(self, instance: str = A) -> None:
        self.story = Story(random.Random(1))
        self.it = Chain(instance)
        self.story.chains, self.story.is_shared = [self.it], False
        self.story.start(self.it)

    @property
    def rows(self) -> Rows:
        return self.it.rows

    @property
    def notes(self) -> list[Note]:
        return self.story.anchored

    def checkpoint(self, *, is_anchored: bool = True) -> None:
        self.story.checkpoint(self.it, is_anchored=is_anchored)

    def fill(self, count: int) -> None:
        for _ in range(count):
            self.story.release(self.it)

    def restore(self, length: int) -> None:
        """The first so many rows are there again, and a new epoch."""
        old = Chain(self.it.instance, self.rows[:length])
        self.it.rows, self.it.open = old.rows, {}
        self.story.start(self.it, max(head.epoch for note in self.notes for head in note.checkpoint.heads) + 1)

    def declare(self, head: Head, first: int, **changed: object) -> None:
        said_ = {"instance": A, "epoch": head.epoch, "from": first, "to": head.sequence, "hash": head.hash.hex()}
        self.rows.append(
            chain.after(
                self.it.instance,
                self.rows[-1].epoch,
                self.rows[-1].sequence + 1,
                self.rows[-1].hash,
                Kind.GAP,
                said_ | {"reason": "the disk", "time": self.story.now} | changed,
            )
        )

    def report(self, *pieces: Rows, notes: list[Note] | None = None) -> Report:
        files = [list(chain.write(piece)) for piece in pieces or (self.rows,)]
        return examine(files, self.notes if notes is None else notes, KEY.spki)


@pytest.fixture
def book() -> Book:
    return Book()


def found(report: Report, kind: Flaw, words: str = "") -> bool:
    return any(each.kind is kind and words in each.sentence for each in report.findings)


def test_nothing() -> None:
    """No file and no checkpoint is no ledger, and nothing is wrong with it."""
    report = examine([], [], KEY.spki)
    assert (report.verdict, report.chains, report.unanchored, report.first_time) == (Verdict.WHOLE, (), 0, "")


def test_report(book: Book) -> None:
    """The figures: rows, epochs, times, the newest anchored head and what comes after it."""
    book.fill(4)
    book.checkpoint()
    book.story.start(book.it)
    book.fill(1)
    report = book.report()
    (state,) = report.chains
    assert (report.verdict, report.checkpoints, report.epochs, report.absent, report.more) == (
        Verdict.WHOLE,
        1,
        2,
        0,
        0,
    )
    assert (state.instance, state.rows, state.epochs, state.first, state.last) == (A, 8, 2, (1, 1), (2, 2))
    assert (state.anchored, state.anchored_by) == (book.notes[0].checkpoint.heads[0], 1)
    assert state.anchored_time == book.notes[0].checkpoint.time
    assert (state.unanchored, report.unanchored, state.from_middle, state.attached_by) == (3, 3, False, None)
    assert report.rows[Kind.EPOCH] == 2
    times = sorted(row.fields["time"] for row in book.rows)
    assert (report.first_time, report.last_time) == (times[0], times[-1])


def test_place_of_a_finding(book: Book) -> None:
    """A finding names segment and line, chain and row; rows that are not whole one behind the other are one finding."""
    book.fill(9)
    files = [list(chain.write(book.rows[:4])), list(chain.write(book.rows[4:]))]
    for line in (2, 3, 5):
        files[1][line] = files[1][line].replace("requests", "request5")
    report = examine(files, [], KEY.spki)
    assert [(each.kind, each.place, each.segment, each.line) for each in report.findings] == [
        (Flaw.EDITED, f"{A} 1/6", 1, 3),
        (Flaw.EDITED, f"{A} 1/9", 1, 6),
    ] or said(report)
    assert "nor are those of the 1 rows after it" in report.findings[0].sentence


def test_many_findings_are_counted(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found beyond a limit is counted only: a file may be broken in every row."""
    monkeypatch.setattr(verdict, "FINDINGS_MAX", 3)
    book.fill(20)
    report = examine(
        [[line.replace("requests", "request5") if n % 2 else line for n, line in enumerate(chain.write(book.rows))]],
        [],
        KEY.spki,
    )
    assert len(report.findings) == 3
    assert report.more > 3
    assert report.verdict is Verdict.TAMPERED


def test_a_line_that_is_no_row(book: Book) -> None:
    """What cannot be read is a finding with its line, and so is what it hides of what was anchored."""
    book.fill(5)
    book.checkpoint()
    lines = list(chain.write(book.rows))
    lines[3] = "junk\n"
    report = examine([lines], book.notes, KEY.spki)
    assert (report.findings[0].kind, report.findings[0].segment, report.findings[0].line) == (Flaw.UNREADABLE, 0, 4)
    assert found(report, Flaw.TRUNCATED)
    assert examine([[]], [], KEY.spki).findings[0].kind is Flaw.UNREADABLE
    assert examine([lines[:1]], [], KEY.spki).findings[0].kind is Flaw.UNREADABLE


@pytest.mark.parametrize("body", ["x", "[]", "1", '{"a":1', "{} {}", "[" * 100_000, '{"a":\udcff}'])
def test_a_body_that_is_none(book: Book, body: str) -> None:
    """What is no JSON object, or no text, is a finding and nothing worse."""
    lines = list(chain.write(book.rows))
    last = book.rows[-1]
    try:
        hash_ = chain.row_hash(A, 1, 2, last.hash, Kind.RELEASED, body)
    except UnicodeEncodeError:
        hash_ = bytes(32)
    lines.append(Row(A, 1, 2, Kind.RELEASED, body, last.hash, hash_).line)
    report = examine([lines], [], KEY.spki)
    assert {each.kind for each in report.findings} <= {Flaw.UNREADABLE, Flaw.EDITED}
    assert [(each.place, each.line) for each in report.findings] == [(f"{A} 1/2", 3)]


def test_one_segment_twice_counts_once(book: Book) -> None:
    """Rows that are in several files, or overlap, are the same rows."""
    book.fill(9)
    book.checkpoint()
    report = book.report(book.rows, book.rows[3:7], book.rows[:8], book.rows)
    assert not report.findings, said(report)
    assert sum(report.rows.values()) == len(book.rows)


def test_the_line_of_a_row_behind_some_that_are_there_twice(book: Book) -> None:
    """A finding about a row of a file that begins with another file's rows has the line that it has."""
    book.fill(5)
    settled(book, 3)
    (finding,) = book.report(book.rows[:5], book.rows[2:]).findings
    assert (finding.place, finding.segment, finding.line) == (f"{A} 1/7", 1, 6)


def test_every_row_after_another(book: Book) -> None:
    """Deleted, swapped and inserted rows have their names."""
    book.fill(8)
    rows = book.rows
    assert found(_read(rows[:3] + rows[4:]), Flaw.MISSING, "it stands behind row 1/3")
    assert found(_read([*rows[:3], rows[4], rows[3], *rows[5:]]), Flaw.MISPLACED, "it stands behind row 1/5")
    assert found(_read([*rows[:3], rows[2], *rows[3:]]), Flaw.MISPLACED, "it stands behind row 1/3")
    assert found(book.report(rows[:3], rows[4:]), Flaw.MISSING, "row 1/3 is before it")
    assert found(book.report(rows[:3], rows[3:5], rows[7:]), Flaw.MISSING, "row 1/5 is before it")


def _read(rows: Rows) -> Report:
    """Lines as they are, whatever they name as what is before."""
    return examine([[f"{chain.MAGIC} {A} {GENESIS.hex()}\n", *(row.line for row in rows)]], [], KEY.spki)


def test_one_finding_for_one_deletion(book: Book) -> None:
    """A row that is taken out is one finding, not one for the row after it and one for the hole."""
    book.fill(8)
    assert len(_read(book.rows[:3] + book.rows[4:]).findings) == 1


def test_segments_join(book: Book) -> None:
    """A file that goes on from another row than the last one of the file before is found, within an epoch and between."""
    book.fill(3)
    book.story.start(book.it)
    book.fill(3)
    rows = book.rows
    other = Chain(A, [*rows[:2]])
    other.add(Kind.RELEASED, requests=["another"], time="2026-05-04T03:02:01Z")
    other.add(Kind.RELEASED, requests=["more"], time="2026-05-04T03:02:01Z")
    assert found(book.report(rows[:3], other.rows[3:]), Flaw.FORK, "it names another row before it than 1/3")
    other.story = None
    Story.start(book.story, other)
    assert found(book.report(rows[:4], other.rows[4:]), Flaw.MISSING, "does not go on from row 1/4")
    third = Chain(A, [*rows[:4]])
    Story.start(book.story, third, 3)
    assert found(book.report(rows, third.rows[4:]), Flaw.ROLLED_BACK, "goes on from an older row than 2/4")
    early = Chain(A, [*rows[:2]])
    Story.start(book.story, early)
    assert found(book.report(rows[:4], early.rows[2:]), Flaw.ROLLED_BACK, "goes on from an older row than 1/4")
    assert found(book.report(rows[:4], rows[5:]), Flaw.MISSING, "row 1/4 is before it")


def test_the_first_row_of_an_epoch_is_EPOCH_and_no_other(book: Book) -> None:  # noqa: N802
    """Rows that are whole, and against the rule."""
    other = Chain(A)
    other.rows = [chain.after(A, 1, 1, GENESIS, Kind.RELEASED, {})]
    assert found(book.report(other.rows), Flaw.MISPLACED, "the first row of an epoch")
    book.it.add(Kind.EPOCH, time=book.story.now, version="1", checkpoint=NOTHING.hex())
    assert found(book.report(), Flaw.MISPLACED, "the first row of an epoch")


def test_epochs_rise(book: Book) -> None:
    """Epochs may leave numbers out; they do not fall."""
    book.story.start(book.it, 5)
    assert not book.report().findings
    book.story.start(book.it, 3)
    assert found(book.report(), Flaw.MISPLACED, "it stands behind row 5/1")


def test_a_chain_that_says_nothing_was_before(book: Book) -> None:
    """A chain whose first row has a number above 1, and no row before it, has lost some."""
    row = chain.after(A, 1, 5, GENESIS, Kind.RELEASED, {})
    assert found(book.report([row]), Flaw.MISSING, "says that no row is before it")


def test_forks_between_files(book: Book) -> None:
    """Two rows with one number, in two files: which row, and where the other is."""
    book.fill(6)
    other = Chain(A, book.rows[:4])
    other.add(Kind.RELEASED, requests=["another"], time="2026-05-04T03:02:01Z")
    report = book.report(book.rows, other.rows)
    (finding,) = report.findings
    assert (finding.kind, finding.place, finding.segment, finding.line) == (Flaw.FORK, f"{A} 1/5", 1, 6)
    assert "in segment 1, line 6" in finding.sentence
    for _ in range(5):  # beyond the end of the rows that it forks from
        report = book.report(book.rows[:3], book.rows[3:], other.rows[4:])
        assert [(each.kind, each.place) for each in report.findings] == [(Flaw.FORK, f"{A} 1/5")]
        other.add(Kind.RELEASED, requests=["more"], time="2026-05-04T03:02:01Z")


# ---- what rows say about others


def settled(book: Book, intent: object, **more: object) -> Report:
    book.it.add(Kind.OUTCOME, intent=intent, time=book.story.now, **more)
    return book.report()


@pytest.mark.parametrize("intent", [None, "2", 0, -2, True, 2.0, 3, 4, 10**30, [1, 2]])
def test_an_outcome_names_an_earlier_row(book: Book, intent: object) -> None:
    """What is no sequence number of a row before it is found."""
    book.story.intend(book.it)
    assert found(settled(book, intent), Flaw.UNFOUNDED, "names no earlier row")


def test_an_outcome_has_an_intent_of_its_own(book: Book) -> None:
    """It is that of an INTENT; and none comes after the one that closes it."""
    book.story.intend(book.it)
    assert not settled(book, 2, closed=False).findings
    assert not settled(book, 2, closed=False).findings
    assert not settled(book, 2, closed=True).findings
    assert found(settled(book, 2, closed=True), Flaw.UNFOUNDED, "it is the OUTCOME of row 2, which was closed before")
    again = Book()
    again.story.intend(again.it)
    assert not settled(again, 2).findings
    assert found(settled(again, 2, closed=False), Flaw.UNFOUNDED, "which was closed before")
    assert found(settled(Book(), 1), Flaw.UNFOUNDED, "it is the OUTCOME of row 1, which is no INTENT")


def test_an_intent_in_another_file(book: Book) -> None:
    """An INTENT is looked for in all files; one in a file that is elsewhere is not held against its OUTCOME."""
    book.story.intend(book.it)
    book.fill(3)
    settled(book, 2)
    settled(book, 3)
    for pieces in ((book.rows[:4], book.rows[4:]), (book.rows[4:], book.rows[:4])):
        (finding,) = book.report(*pieces).findings
        assert (finding.kind, finding.place) == (Flaw.UNFOUNDED, f"{A} 1/7")
    assert not book.report(book.rows[4:]).findings


@pytest.mark.parametrize(
    ("intent", "words"),
    [
        ([1, 2], ""),
        ([1, 3], "which has its OUTCOME"),
        ([1, 4], "which is no INTENT"),
        ([2, 2], "of epoch 2, which is no earlier one"),
        ([3, 1], "of epoch 3, which is no earlier one"),
        (2, "does not name the place"),
        ([1], "does not name the place"),
        ([1, 2, 3], "does not name the place"),
        ([1, "2"], "does not name the place"),
        ([0, 2], "does not name the place"),
        ([1, 10**18], "does not name the place"),
        (None, "does not name the place"),
    ],
)
def test_what_was_possibly_signed(book: Book, intent: object, words: str) -> None:
    """A POSSIBLE_UNRELEASED_SIGNATURE names an INTENT of an earlier epoch that nothing has closed."""
    for _ in range(2):
        book.story.intend(book.it)
    settled(book, 3)
    settled(book, 2, closed=False)
    book.it.open.clear()
    book.story.start(book.it)
    book.it.add(Kind.POSSIBLE, intent=intent, time=book.story.now)
    report = book.report(book.rows[5:], book.rows[:5])
    assert bool(report.findings) == bool(words), said(report)
    assert not words or found(report, Flaw.UNFOUNDED, words)


def test_an_intent_that_a_start_keeps_silent_about() -> None:
    """
    What no OUTCOME closes may have been signed: each start says so, unless a restore has begun the epoch. Some items alone
    close nothing; rows that were cut off behind the EPOCH row may have said it.
    """
    book = Book()
    for _ in range(3):
        book.story.intend(book.it)
    settled(book, 2)
    settled(book, 3, closed=False)
    book.checkpoint()
    book.it.open.clear()
    assert not book.report().findings
    told = next(iter(book.notes)).checkpoint.hash.hex()
    book.it.add(Kind.EPOCH, 2, time=book.story.now, checkpoint=told, restored={"requests": "carried"})
    book.fill(1)
    assert not book.report().findings
    book.it.add(Kind.EPOCH, 3, time=book.story.now, checkpoint=told)
    assert not book.report().findings
    book.it.add(Kind.POSSIBLE, intent=[1, 4], time=book.story.now)
    assert not book.report().findings
    book.fill(1)
    report = book.report(book.rows[:3], book.rows[3:])
    (finding,) = report.findings
    assert (finding.kind, finding.place, finding.segment, finding.line) == (Flaw.MISSING, f"{A} 1/3", 0, 4)
    assert "epoch 3 began without saying that it may have been signed" in finding.sentence
    assert not book.report(book.rows[3:]).findings, "it is among what was not given"


def test_an_intent_among_what_is_lost() -> None:
    """Of an INTENT that was lost, and is found again, the restored daemon knows nothing; of one that is kept it does."""
    book = Book()
    book.story.intend(book.it)
    book.checkpoint()
    book.story.intend(book.it)
    book.checkpoint()
    lost, head = book.rows[3:], book.notes[-1].checkpoint.heads[0]
    book.restore(3)
    book.declare(head, 4)
    report = book.report(book.rows, lost)
    assert [(each.kind, each.place) for each in report.findings] == [(Flaw.MISSING, f"{A} 1/2")]
    book.it.rows[3:] = []
    book.it.open[1, 2] = "a request"
    book.story.start(book.it, 2)
    book.declare(head, 4)
    assert book.report(book.rows, lost).verdict is Verdict.GAP


@pytest.mark.parametrize("checkpoint", [None, "", 0, "0" * 63, "0" * 66, "G" * 64, "A" * 64])
def test_an_epoch_names_a_checkpoint(book: Book, checkpoint: object) -> None:
    """64 hexadecimal digits, or it is said that there are none."""
    book.it.add(Kind.EPOCH, 2, checkpoint=checkpoint)
    assert found(book.report(), Flaw.UNFOUNDED, "which checkpoint was the last")


def test_an_epoch_begins_after_a_checkpoint_that_is_known(book: Book) -> None:
    """An anchored epoch that names a checkpoint of which neither the anchor nor a row tells; with all of both at hand."""
    book.checkpoint()
    book.it.add(Kind.EPOCH, 2, checkpoint="ab" * 32)
    assert not book.report().findings
    book.checkpoint()
    assert found(book.report(), Flaw.FORK, "the epoch began after a checkpoint that neither")
    assert not book.report(notes=book.notes[1:]).findings
    assert not book.report(book.rows[1:]).findings
    told = Book()
    told.checkpoint()
    told.checkpoint(is_anchored=False)
    told.story.start(told.it)
    told.checkpoint()
    assert not told.report().findings


# ---- checkpoints


@pytest.mark.parametrize("fields", [{}, {"number": 1}, {"number": 0, "note": "ab" * 32}, {"number": 1, "note": "x"}])
def test_a_checkpoint_row_names_a_checkpoint(book: Book, fields: dict[str, object]) -> None:
    book.it.add(Kind.CHECKPOINT, **fields)
    assert found(book.report(), Flaw.UNFOUNDED, "which checkpoint was made")


def test_a_checkpoint_row_names_what_was_anchored(book: Book) -> None:
    """Another hash than the anchor's, or than another row's, is a fork; a number that the anchor has not is not known."""
    book.checkpoint()
    book.checkpoint(is_anchored=False)
    assert not book.report().findings
    book.it.add(Kind.CHECKPOINT, number=1, note="ab" * 32)
    report = book.report()
    assert [(each.kind, each.place) for each in report.findings] == [(Flaw.FORK, f"{A} 1/4")]
    other = Book()
    other.checkpoint()
    other.rows.pop()
    other.it.add(Kind.CHECKPOINT, number=1, note="ab" * 32)
    assert found(other.report(), Flaw.FORK, "it names another checkpoint 1")
    other = Book()
    other.checkpoint(is_anchored=False)
    other.it.add(Kind.CHECKPOINT, number=1, note="ab" * 32)
    assert found(other.report(), Flaw.FORK, "it names another checkpoint 1")


def test_a_signature_by_another_key(book: Book) -> None:
    """What the key has not signed says nothing, and is found."""
    book.fill(2)
    book.checkpoint()
    forged = STRANGER.sign(book.notes[0].checkpoint)
    for note in (forged, replace(forged, key=book.notes[0].key)):
        report = book.report(notes=[note])
        assert [each.kind for each in report.findings] == [Flaw.UNSIGNED]
        assert (report.checkpoints, report.chains[0].anchored) == (0, None)


def anchored(count: int) -> Book:
    made = Book()
    for _ in range(count):
        made.fill(2)
        made.checkpoint()
    return made


def test_checkpoints_follow_one_another() -> None:
    """Swapped, edited, doubled or from another series; an anchor may begin with any number, and have one twice."""
    book = anchored(5)
    notes = book.notes
    assert not book.report().findings
    assert not book.report(notes=notes[2:]).findings
    assert not book.report(notes=[notes[0], notes[0], *notes[1:], *notes[2:]]).findings
    assert book.report(notes=[*notes, *notes]).checkpoints == 5
    assert found(book.report(notes=[*notes[:2], notes[3], notes[2], notes[4]]), Flaw.MISPLACED, "behind checkpoint 4")
    other = _signed_again(notes[2], time=notes[3].checkpoint.time)
    report = book.report(notes=[*notes[:3], other, *notes[3:]])
    assert found(report, Flaw.FORK, "two checkpoints have this number")
    assert found(book.report(notes=[*notes[:2], other, *notes[3:]]), Flaw.FORK, "names another checkpoint 3 than is")
    for wrong in (_signed_again(notes[0], previous=b"\1" * 32), _signed_again(notes[1], previous=NOTHING)):
        assert found(book.report(notes=[wrong]), Flaw.FORK, "the first checkpoint, and no other")


def _signed_again(note: Note, **changed: object) -> Note:
    return KEY.sign(replace(note.checkpoint, **changed))


def test_an_anchor_that_was_away() -> None:
    """Checkpoints that are not in the anchor are told of by rows; if none tells of them, they are missing."""
    book = anchored(5)
    report = book.report(notes=[*book.notes[:1], *book.notes[3:]])
    assert not report.findings, said(report)
    assert (report.checkpoints, report.absent) == (3, 2)
    assert book.report(book.rows[10:], notes=[*book.notes[:1], *book.notes[3:]]).absent == 2
    untold = anchored(3)
    untold.rows.pop()
    untold.fill(1)
    untold.checkpoint()
    notes = [untold.notes[0], untold.notes[3]]
    assert found(
        untold.report(notes=notes), Flaw.MISSING, "behind checkpoint 1, and no row tells of those between them"
    )
    # The row may be among those that are elsewhere, but not where older checkpoints are told of.
    assert found(untold.report(untold.rows[6:], notes=notes), Flaw.MISSING, "no row tells")
    assert not untold.report(untold.rows[7:], notes=notes).findings


def test_heads_go_forward(book: Book) -> None:
    """A checkpoint with an older head than the one before, or another in its place: the daemon was set back."""
    book = anchored(3)
    old, last = book.notes[0].checkpoint.heads[0], book.notes[2].checkpoint.heads[0]
    after = book.notes[2].checkpoint

    def next_with(head: Head) -> Report:
        made = replace(after, number=4, previous=after.hash, own=head)
        return book.report(notes=[*book.notes, KEY.sign(made)])

    assert not next_with(last).findings
    assert found(next_with(old), Flaw.ROLLED_BACK, "and row 1/9 was before")
    assert next_with(old).chains[0].anchored == last
    assert found(
        next_with(replace(last, hash=b"\1" * 32)), Flaw.FORK, "another row with this number was anchored before"
    )


def test_daemons_with_anchors_of_their_own() -> None:
    """Two daemons count their own checkpoints: the same number in both is no fork."""
    one, other = anchored(3), Book(B)
    for _ in range(2):
        other.fill(1)
        other.checkpoint()
    notes = sorted([*one.notes, *other.notes], key=lambda note: note.checkpoint.number)
    report = one.report(one.rows, other.rows, notes=notes)
    assert not report.findings, said(report)
    assert {each.instance: each.anchored_by for each in report.chains} == {A: 3, B: 2}
    assert found(
        one.report(
            one.rows, other.rows, notes=[*notes, _signed_again(other.notes[0], own=other.notes[1].checkpoint.own)]
        ),
        Flaw.FORK,
    )


class Two:
    """Two daemons with one database, whose checkpoints name both chains."""

    def __init__(self) -> None:
        self.one, self.other = Book(A), Book(B)
        self.story = self.one.story
        self.story.chains, self.story.is_shared = [self.one.it, self.other.it], True
        self.other.story = self.story

    @property
    def notes(self) -> list[Note]:
        return self.story.anchored

    def report(self, *pieces: Rows, notes: list[Note] | None = None) -> Report:
        return self.one.report(
            *pieces or (self.one.rows, self.other.rows), notes=self.notes if notes is None else notes
        )


@pytest.fixture
def two() -> Two:
    """Each has made a checkpoint; the other was killed then, with rows that only the first one's second checkpoint covers."""
    two = Two()
    for book in (two.one, two.other):
        book.fill(2)
        book.checkpoint()
    two.other.fill(2)
    two.one.checkpoint()
    return two


def test_a_daemon_that_was_killed_is_covered_by_another(two: Two) -> None:
    """
    Row 4.5: a signed checkpoint every 60 s or 1 000 chunks at the latest, listing the head of every daemon's own chain,
    exported to an append-only file on another mount, syslog or a webhook.

    What a daemon has written after its own last checkpoint cannot be cut off, changed, or gone on without.
    """
    report = two.report()
    assert (report.verdict, report.not_given) == (Verdict.WHOLE, ()), said(report)
    [state] = [each for each in report.chains if each.instance == B]
    assert (state.anchored, state.anchored_by, state.unanchored) == (two.other.it.head, 2, 0)
    own = [note for note in two.notes if note.checkpoint.own.instance == B]
    cut = two.other.rows[:-1]
    assert two.report(two.one.rows, cut, notes=own).verdict is Verdict.WHOLE  # by its own alone nobody sees it
    assert found(two.report(two.one.rows, cut), Flaw.TRUNCATED, "checkpoint 2 has it as the head")
    changed = [
        *cut,
        chain.after(B, 1, len(cut) + 1, cut[-1].hash, Kind.RELEASED, {"requests": [], "time": two.story.now}),
    ]
    assert found(two.report(two.one.rows, changed), Flaw.RECOMPUTED)
    two.other.it.rows = cut
    two.story.start(two.other.it)
    assert found(two.report(), Flaw.ROLLED_BACK)


def test_a_chain_that_only_another_daemon_names(two: Two) -> None:
    """Whoever judges one daemon's files is told that there are others; and that they were deleted if there are none."""
    own = [note for note in two.notes if note.checkpoint.own.instance == A]
    report = two.report(two.one.rows, notes=own)
    assert (report.verdict, report.not_given) == (Verdict.UNPROVEN, ((B, 1),)), said(report)
    assert found(two.report(two.one.rows), Flaw.MISSING, "no row of this chain was given")  # its own checkpoint has it


def test_checkpoints_of_two_daemons_come_in_any_order(two: Two) -> None:
    """One that was made before another and arrives after it has an older head of the other's chain: that is no flaw."""
    two.other.checkpoint()
    two.one.fill(3)
    two.one.checkpoint()
    mine, others = ([note for note in two.notes if note.checkpoint.own.instance == each] for each in (A, B))
    for notes in ([*mine, *others], [*others, *mine], sorted(two.notes, key=_number)):
        report = two.report(notes=notes)
        assert report.verdict is Verdict.WHOLE, said(report)
        assert {each.instance: each.unanchored for each in report.chains} == {A: 1, B: 0}


@pytest.mark.parametrize("is_told", [False, True], ids=["own anchors", "all anchors"])
def test_a_loss_of_which_another_daemon_knows_more(two: Two, *, is_told: bool) -> None:
    """A restore that was given the chain's own anchors declares less than others' checkpoints name: it is declared."""
    own = [note.checkpoint.own for note in two.notes if note.checkpoint.own.instance == B][-1]
    head = two.other.it.head if is_told else own
    two.other.it.rows = two.other.rows[:2]
    two.story.start(two.other.it, 2)
    two.other.it.add(
        Kind.GAP,
        instance=B,
        epoch=1,
        from_=3,
        to=head.sequence,
        hash=head.hash.hex(),
        reason="disk",
        time=two.story.now,
    )
    two.story.checkpoint(two.other.it, is_anchored=True)
    report = two.report()
    assert report.verdict is Verdict.GAP, said(report)
    assert [(gap.first, gap.last) for gap in report.gaps] == [(3, head.sequence)]


def test_a_log_of_several_daemons() -> None:
    """
    A log server mixes lines, and takes those of others: numbers are the order there, and what another key has signed for
    chains that are not here is counted, and no finding. In an anchor's own file both are.
    """
    book, other = anchored(4), Book(B)
    other.checkpoint()
    strange = STRANGER.sign(other.notes[0].checkpoint)
    files = [list(chain.write(book.rows))]
    mixed = [book.notes[2], strange, book.notes[0], book.notes[3], book.notes[1]]
    report = examine(files, [], KEY.spki, logged=mixed)
    assert (report.verdict, report.checkpoints, report.others) == (Verdict.WHOLE, 4, 1), said(report)
    assert not examine(files, book.notes[:2], KEY.spki, logged=mixed).findings
    report = examine(files, mixed, KEY.spki)
    assert {Flaw.MISPLACED, Flaw.ROLLED_BACK, Flaw.UNSIGNED} == {each.kind for each in report.findings}


def test_a_log_excuses_nothing_of_ours() -> None:
    """What another key has signed for this chain, what says it is by this key, and a chain of this key that is not given."""
    book, other = anchored(3), Book(B)
    other.checkpoint()
    files = [list(chain.write(book.rows))]
    forged = STRANGER.sign(book.notes[2].checkpoint)
    elsewhere = replace(STRANGER.sign(other.notes[0].checkpoint), key=book.notes[0].key)
    for note in (forged, elsewhere):
        assert found(examine(files, book.notes, KEY.spki, logged=[note]), Flaw.UNSIGNED)
    report = examine(files, book.notes, KEY.spki, logged=other.notes)
    assert found(report, Flaw.MISSING, "no row of this chain was given: give its files, too")
    again = _signed_again(book.notes[1], own=book.notes[2].checkpoint.own)
    assert found(examine(files, [], KEY.spki, logged=[again, *book.notes]), Flaw.FORK)
    cut = [list(chain.write(book.rows[:-3]))]
    assert found(examine(cut, [], KEY.spki, logged=reversed(book.notes)), Flaw.TRUNCATED)


# ---- beginnings and ends


def test_what_was_anchored_is_there() -> None:
    """Cut off before the newest head, a chain that is not there at all, a head that others contradict."""
    book = anchored(4)
    at = [(head.epoch, head.sequence) for note in book.notes for head in note.checkpoint.heads]
    assert found(book.report(book.rows[: at[-1][1] - 1]), Flaw.TRUNCATED, "the chain ends with row 1/11")
    assert not book.report(book.rows[: at[-1][1]]).findings
    assert found(book.report(Book(B).rows), Flaw.MISSING, "no row of this chain was given")
    assert found(examine([], book.notes, KEY.spki), Flaw.MISSING, "no row of this chain was given")
    other = Chain(A, book.rows[:1])
    for _ in range(30):
        other.add(Kind.RELEASED, requests=[], time=book.story.now)
    report = book.report(other.rows)
    assert [(each.kind, each.place) for each in report.findings] == [(Flaw.RECOMPUTED, f"{A} 1/3")]
    hole = book.report(book.rows[: at[1][1] - 1], book.rows[at[1][1] :])
    assert found(hole, Flaw.MISSING, "it is not between its neighbours")


def test_from_the_middle() -> None:
    """Rows before the first that is given are elsewhere: what came before is as good as the checkpoint that has its hash."""
    book = anchored(3)
    book.story.start(book.it)
    book.fill(2)
    heads = [note.checkpoint.heads[0].sequence for note in book.notes]
    for start, by in ((heads[0], 1), (heads[1], 2), (heads[0] + 1, None), (heads[2], 3)):
        report = book.report(book.rows[start:])
        assert not report.findings, said(report)
        (state,) = report.chains
        assert (report.verdict, state.from_middle, state.attached_by) == (Verdict.UNPROVEN, True, by)
    assert (state.anchored, state.unanchored) == (book.notes[2].checkpoint.heads[0], len(book.rows) - heads[2])


def test_from_the_middle_at_an_epoch() -> None:
    """The same where the first row given begins an epoch: the one before it has a number that nobody knows."""
    book = Book()
    book.fill(3)
    book.story.checkpoint(book.it, is_anchored=True)
    book.it.rows.pop()  # so that the anchored head is the last of its epoch
    book.story.start(book.it)
    book.fill(2)
    (state,) = book.report(book.rows[4:]).chains
    assert (state.from_middle, state.attached_by, book.report(book.rows[4:]).verdict) == (True, 1, Verdict.UNPROVEN)


def test_a_beginning_that_was_deleted() -> None:
    """
    Rows up to 24 are gone and the header fits, while rows 10, 20 and 30 were anchored: not whole; with the rows before, it
    is. So where no checkpoint names a row of a chain.
    """
    book = Book()
    while len(book.notes) < 3:
        book.fill(10 * (len(book.notes) + 1) - len(book.rows))
        book.checkpoint()
    assert [note.checkpoint.heads[0].sequence for note in book.notes] == [10, 20, 30]
    report = book.report(book.rows[24:])
    assert (report.verdict, report.findings) == (Verdict.UNPROVEN, ()), said(report)
    assert book.report(book.rows[24:], book.rows[:24]).verdict is Verdict.WHOLE
    assert book.report(book.rows[24:], book.rows[3:24]).verdict is Verdict.UNPROVEN
    assert book.report(notes=[]).verdict is Verdict.UNPROVEN
    other = Book(B)
    assert book.report(book.rows, other.rows).verdict is Verdict.UNPROVEN


def test_nothing_ties_it() -> None:
    """Rows that begin behind the newest anchored head, and not with it, may be anybody's."""
    book = anchored(2)
    book.story.start(book.it)
    book.fill(2)
    for start in (7, 8):
        assert found(book.report(book.rows[start:]), Flaw.MISSING, "nothing ties it to the first row given"), start
    back = anchored(3)
    back.restore(3)
    assert found(back.report(back.rows[3:]), Flaw.MISSING, "nothing ties it"), "it goes on from an older head"
    last = book.notes[1].checkpoint
    other = replace(last.heads[0], sequence=5, hash=book.rows[7].hash)  # the key has signed what is not so
    report = book.report(book.rows[8:], notes=[book.notes[0], _signed_again(book.notes[1], own=other)])
    assert found(report, Flaw.MISSING, "nothing ties it")
    wrong = list(chain.write(book.rows[6:]))
    wrong[0] = f"{chain.MAGIC} {A} {'ab' * 32}\n"
    assert found(examine([wrong], book.notes, KEY.spki), Flaw.EDITED)


def test_a_neighbour_that_was_anchored_as_another() -> None:
    """The hash that a file names before its first row is compared with the head that was anchored there."""
    book = anchored(3)
    index = book.notes[0].checkpoint.heads[0].sequence
    other = Chain(A, [*book.rows[: index - 1]])
    for _ in range(12):
        other.add(Kind.RELEASED, requests=["other"], time=book.story.now)
    report = book.report(other.rows[index:], notes=book.notes[:1])
    assert found(report, Flaw.RECOMPUTED, "checkpoint 1 has another hash for it")


# ---- declared losses


@pytest.fixture
def restored() -> tuple[Book, Head, Rows]:
    """A chain that was set back to its first 4 rows; what was lost up to the newest head, and the rows that were."""
    book = anchored(3)
    lost, head = book.rows[4:], book.notes[-1].checkpoint.heads[0]
    book.restore(4)
    return book, head, lost


Restored = tuple[Book, Head, Rows]


def test_a_declared_loss(restored: Restored) -> None:
    """What a GAP row declares exactly is no finding: the report says it, and whether a checkpoint covers the row."""
    book, head, _ = restored
    assert {each.kind for each in book.report().findings} == {Flaw.ROLLED_BACK}
    book.declare(head, 5)
    report = book.report()
    assert (report.verdict, report.findings) == (Verdict.GAP, ()), said(report)
    (gap,) = report.gaps
    assert (gap.instance, gap.epoch, gap.first, gap.last, gap.hash) == (A, 1, 5, 9, head.hash)
    assert (gap.reason, gap.declared_by, gap.declared_at, gap.is_anchored) == ("the disk", A, (2, 2), False)
    made = replace(book.notes[-1].checkpoint, number=4, previous=book.notes[-1].checkpoint.hash, own=book.it.head)
    (gap,) = book.report(notes=[*book.notes, KEY.sign(made)]).gaps
    assert gap.is_anchored


def test_a_declared_loss_whose_beginning_is_elsewhere(restored: Restored) -> None:
    """The rows before what is lost may be on another disk."""
    book, head, _ = restored
    book.declare(head, 5)
    report = book.report(book.rows[4:])
    assert (report.verdict, report.chains[0].from_middle, len(report.gaps)) == (Verdict.UNPROVEN, True, 1), said(report)


@pytest.mark.parametrize(
    ("first", "changed", "words"),
    [
        (4, {}, "row 4 is not the first of them"),
        (6, {}, "row 6 is not the first of them"),
        (5, {"to": 8}, "the last of them that was anchored is row 9"),
        (5, {"hash": "ab" * 32}, "was anchored with another hash"),
        (5, {"instance": B}, ""),
        (1, {"instance": B}, ""),
        (5, {"epoch": 2}, "come after it"),
        (1, {"epoch": 3}, "come after it"),
        (5, {"to": 4}, "does not say which rows"),
        (0, {}, "does not say which rows"),
        (5, {"to": None}, "does not say which rows"),
        (5, {"epoch": "1"}, "does not say which rows"),
        (5, {"instance": None}, "does not say of which chain"),
        (5, {"hash": "x"}, "does not say of which chain"),
    ],
)
def test_a_loss_that_is_declared_otherwise(
    restored: Restored, first: int, changed: dict[str, object], words: str
) -> None:
    """A declaration of other rows excuses nothing, and is a finding itself."""
    book, head, _ = restored
    book.declare(head, first, **changed)
    report = book.report()
    assert found(report, Flaw.ROLLED_BACK), said(report)
    assert not words or found(report, Flaw.UNFOUNDED, words), said(report)


def test_a_declaration_knows_at_least_what_its_checkpoints_know(restored: Restored) -> None:
    """Of more rows than were anchored only a declaration may speak that is newer than these checkpoints."""
    book, head, _ = restored
    book.declare(head, 5, to=11, hash="ab" * 32)
    assert book.report().verdict is Verdict.GAP
    made = replace(book.notes[-1].checkpoint, number=4, previous=book.notes[-1].checkpoint.hash, own=book.it.head)
    report = book.report(notes=[*book.notes, KEY.sign(made)])
    assert found(report, Flaw.UNFOUNDED, "the last of them that was anchored is row 9")


def test_a_declaration_by_a_checkpoint_that_an_anchor_has_missed(restored: Restored) -> None:
    """The daemon knew what was lost by another anchor than this one: that is no finding."""
    book, head, _ = restored
    book.declare(head, 5)
    made = replace(book.notes[-1].checkpoint, number=4, previous=book.notes[-1].checkpoint.hash, own=book.it.head)
    report = book.report(notes=[*book.notes[:2], KEY.sign(made)])
    assert (report.verdict, report.absent, report.gaps[0].is_anchored) == (Verdict.GAP, 1, True), said(report)


def test_a_loss_of_whole_epochs() -> None:
    """Each epoch of which something was anchored is declared for itself; one that is not is a finding."""
    book = anchored(2)
    book.story.start(book.it)
    book.fill(2)
    book.checkpoint()
    heads = [note.checkpoint.heads[0] for note in book.notes]
    lost = book.rows[4:]
    book.restore(4)
    book.declare(heads[1], 5)
    assert found(book.report(), Flaw.ROLLED_BACK)
    book.declare(heads[2], 1)
    assert book.report().verdict is Verdict.GAP
    assert len(book.report().gaps) == 2
    report = book.report(book.rows, lost)
    assert report.verdict is Verdict.GAP, said(report)
    late = Book()
    late.it.rows = book.rows[:5]
    late.declare(heads[2], 2)
    assert found(late.report(notes=book.notes[:1] + book.notes[2:]), Flaw.UNFOUNDED, "row 2 is not the first")


def test_lost_rows_that_are_found_again(restored: Restored) -> None:
    """Files that were archived before may have what is lost: it fits, and what was not anchored of it is counted."""
    book, head, lost = restored
    book.declare(head, 5)
    before = book.report().unanchored
    report = book.report(book.rows, lost)
    assert report.verdict is Verdict.GAP, said(report)
    assert report.unanchored == before + len([row for row in lost if row.sequence > head.sequence])
    book.it.told = book.notes[-1].checkpoint
    book.checkpoint()
    assert book.report(book.rows, lost).unanchored == 1 + 1, "row 1/10, and the newest CHECKPOINT row"
    part = book.report(book.rows, lost[:3])
    assert part.verdict is Verdict.GAP, said(part)
    other = Chain(A, book.rows[:4])
    for _ in range(8):
        other.add(Kind.RELEASED, requests=["other"], time=book.story.now)
    report = book.report(book.rows, other.rows[4:])
    assert found(report, Flaw.UNFOUNDED, "row 9 has another hash")
    assert found(report, Flaw.RECOMPUTED)


def test_lost_rows_that_do_not_fit(restored: Restored) -> None:
    """Lost rows that are found again are a chain, too: one that goes on from before what is lost is none of them."""
    book, head, lost = restored
    book.declare(head, 5)
    forged = chain.after(A, 1, 6, book.rows[3].hash, Kind.RELEASED, {})
    assert found(book.report(book.rows, lost[:1], [forged]), Flaw.FORK, "it names another row before it than 1/5")


def test_an_epoch_goes_on_from_what_is_declared_as_lost() -> None:
    """A loss of all of an epoch, and the next one goes on from within: it was not all."""
    book = anchored(2)
    book.story.start(book.it)
    book.fill(4)
    book.checkpoint()
    head, lost = book.notes[-1].checkpoint.heads[0], book.rows[10:]
    book.restore(10)
    book.declare(head, 1)
    assert found(book.report(book.rows[:10], lost, book.rows[10:]), Flaw.ROLLED_BACK)


def test_lost_rows_without_a_declaration(restored: Restored) -> None:
    """Two branches of a chain, and no row that tells of it: an older state was gone on from."""
    book, _, lost = restored
    assert found(book.report(book.rows, lost), Flaw.ROLLED_BACK, "no GAP row declares that")


def test_a_loss_excuses_no_other() -> None:
    """A row that is missing elsewhere in the same epoch is not what was declared."""
    book = anchored(3)
    book.story.start(book.it)
    book.declare(Head(A, 1, 12, b"\1" * 32), 11)
    report = book.report(book.rows[:2], book.rows[3:], notes=book.notes[:1])
    assert len(report.gaps) == 1
    assert found(report, Flaw.MISSING, "checkpoint 1 has it as the head, and it is not between its neighbours")


def test_a_loss_that_is_none() -> None:
    """A declaration of rows that are there, and from which the chain goes on, is not so."""
    book = anchored(2)
    book.story.start(book.it)
    book.declare(book.notes[-1].checkpoint.heads[0], 3)
    assert found(book.report(), Flaw.UNFOUNDED, "row 3 is not the first of them")


def test_what_a_restored_daemon_does_not_know() -> None:
    """An OUTCOME among what is lost, and found again, is none to who was restored to before it; nor a CHECKPOINT row."""
    book = Book()
    book.story.intend(book.it)
    book.fill(1)
    settled(book, 2)
    book.checkpoint()
    book.checkpoint(is_anchored=False)
    lost, head = book.rows[3:], book.notes[-1].checkpoint.heads[0]
    book.restore(3)
    book.declare(head, 4)
    book.it.add(Kind.POSSIBLE, intent=[1, 2], time=book.story.now)
    book.it.told = book.notes[-1].checkpoint
    book.checkpoint()
    report = book.report(book.rows, lost)
    assert report.verdict is Verdict.GAP, said(report)
    assert book.report().verdict is Verdict.GAP


def test_a_loss_that_another_chain_declares(restored: Restored) -> None:
    """
    A daemon that begins a chain of its own after the restore declares there what the old one has lost; without a checkpoint
    of its own nothing proves that.
    """
    book, head, lost = restored
    book.it.rows = book.rows[:4]
    other = Book(B)
    other.declare(head, 5)
    for pieces in ((book.rows, other.rows), (book.rows + lost, other.rows)):
        report = book.report(*pieces)
        assert report.verdict is Verdict.UNPROVEN, said(report)
        assert report.gaps[0].declared_by == B
    late = Book(B)
    late.declare(head, 6)
    assert found(book.report(book.rows, late.rows), Flaw.UNFOUNDED, "row 6 is not the first")
    both = anchored(3)
    both.story.start(both.it)
    both.fill(2)
    both.checkpoint()
    heads = [note.checkpoint.heads[0] for note in both.notes]
    two = Book(B)
    two.declare(heads[2], 5)
    two.declare(heads[3], 1)
    report = both.report(both.rows, two.rows)
    assert (report.verdict, len(report.gaps)) == (Verdict.UNPROVEN, 2), said(report)
    gone = Book(B)
    gone.declare(head, 1)
    assert book.report(gone.rows).verdict is Verdict.UNPROVEN
    gone.checkpoint()
    assert book.report(gone.rows, notes=sorted([*book.notes, *gone.notes], key=_number)).verdict is Verdict.GAP
    wrong = Book(B)
    wrong.declare(head, 2)
    assert found(book.report(wrong.rows), Flaw.UNFOUNDED, "row 2 is not the first")


def test_a_restore_of_which_nobody_knows_what_is_lost(book: Book) -> None:
    """No row is known to be missing, and the chain says that there may be some: that is a gap."""
    book.checkpoint()
    told = book.notes[0].checkpoint.hash.hex()
    said_ = {"reason": "the disk", "kept": "2026-05-04T03:02:01Z", "requests": "carried"}
    book.it.add(Kind.EPOCH, 2, time=book.story.now, checkpoint=told, restored=said_)
    assert book.report().verdict is Verdict.WHOLE
    time = book.story.now
    book.it.add(Kind.EPOCH, 3, time=time, checkpoint=told, restored=said_ | {"requests": "unknown"})
    report = book.report(book.rows, book.rows[1:])
    assert (report.verdict, report.gaps) == (Verdict.GAP, ()), said(report)
    assert report.unknown == (verdict.Unknown(A, (3, 1), "2026-05-04T03:02:01Z", time, "the disk"),)


# ---- size


def test_memory() -> None:
    """Rows are not kept: a hundred bytes of each, where each has 400."""

    def lines() -> Iterator[str]:
        yield f"{chain.MAGIC} {A} {GENESIS.hex()}\n"
        previous = GENESIS
        for sequence in range(1, count + 1):
            kind = Kind.EPOCH if sequence == 1 else Kind.INTENT if sequence % 2 == 0 else Kind.OUTCOME
            fields = {"checkpoint": NOTHING.hex(), "intent": sequence - 1, "items": [[0, 256]], "more": "x" * 150}
            row = chain.after(A, 1, sequence, previous, kind, fields)
            previous = row.hash
            yield row.line

    count = 20_000
    tracemalloc.start()
    try:
        report = examine([lines()], [], KEY.spki)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not report.findings
    assert peak / count < 100, peak
