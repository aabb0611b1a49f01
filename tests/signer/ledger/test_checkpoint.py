"""Checkpoints: when they are made, where they go, and what happens while nobody takes them. No test waits for real."""

import asyncio
import hashlib
import itertools
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from prometheus_client import generate_latest

from signer import checkpoint as checkpoints
from signer.anchor import SYSLOG_BYTES_MAX, Anchor, AnchorChanged, AnchorError, FileAnchor, syslog_message
from signer.chain import Kind, Row
from signer.checkpoint import ALARM_S, CHUNKS_MAX, LAST_S, OTHERS_MAX, PERIOD_S, QUEUE_NOTES_MAX, STOP_S, Checkpoints
from signer.checkpoint_key import Made, NotMade
from signer.clock import Clock
from signer.database import Epochs
from signer.entry import Entry
from signer.metrics import Metrics
from signer.note import NOTHING, Head, Note, parse
from signer.sqlite import SqliteDatabase
from tests.signer.ledger.entries import chain, found, ledger_on

BEGIN = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
SHORT_LAST_S = 0.1  # where anchors are away on purpose: each end would wait two seconds for them
QUIET_TURNS = 40  # turns of the loop in which everything that can go on without time has


@pytest.fixture(autouse=True)
def short_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only time that is real; `test_the_end` waits for it in full."""
    monkeypatch.setattr(checkpoints, "LAST_S", SHORT_LAST_S)


@dataclass
class Now:
    s: float = 5_000.0
    sleepers: list[tuple[float, asyncio.Event]] = field(default_factory=list)


@dataclass(frozen=True)
class Time(Clock):
    """A clock that stands still until `passes`, and the pauses that follow it."""

    _now: Now = field(default_factory=Now)

    @property
    def now(self) -> float:
        return self._now.s

    def wall(self) -> datetime:
        return BEGIN + timedelta(seconds=int(self.now - 5_000))

    def monotonic(self) -> float:
        return self.now

    async def pause(self, event: asyncio.Event, seconds: float) -> None:
        assert seconds > 0
        over = asyncio.Event()
        entry = (self.now + seconds, over)
        self._now.sleepers.append(entry)
        waits = [asyncio.ensure_future(each.wait()) for each in (event, over)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
            self._now.sleepers.remove(entry)

    async def passes(self, seconds: float) -> None:
        """Everybody wakes in the order of time, and does what is to be done before it goes on."""
        end = self.now + seconds
        await quiet()
        while due := [at for at, _ in self._now.sleepers if at <= end]:
            self._now.s = max(self.now, min(due))
            for at, over in self._now.sleepers:
                if at <= self.now:
                    over.set()
            await quiet()
        self._now.s = end
        await quiet()


async def quiet() -> None:
    """Until nothing more happens without time; real files are written in threads."""
    for _ in range(QUIET_TURNS):
        await asyncio.sleep(0)
    while any(thread.name.startswith("anchor ") for thread in threading.enumerate()):
        await asyncio.sleep(0.0005)
        for _ in range(QUIET_TURNS):
            await asyncio.sleep(0)


class Desk:
    """An anchor in memory; `away` is what it says instead of taking a note."""

    def __init__(self, name: str = "desk") -> None:
        self._name = name
        self.notes: list[Note] = []
        self.away: Exception | None = None
        self.asked = 0
        self.slow: asyncio.Event | None = None
        self.room = 10**6

    @property
    def name(self) -> str:
        return self._name

    async def put(self, note_text: str) -> None:
        self.asked += 1
        if self.slow is not None:
            await self.slow.wait()
        if self.away is not None:
            raise self.away
        if not self.room:
            raise AnchorError(f"{self.name}: full")
        self.room -= 1
        self.notes += parse(note_text)

    @property
    def numbers(self) -> list[int]:
        return [note.checkpoint.number for note in self.notes]


class Key:
    """A checkpoint key as a token's would be: asked asynchronously, and away now and then."""

    algorithm = "ED25519"
    on_token = None

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self.spki = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.away: Exception | None = None
        self.makes_junk = False

    async def make(self, message: bytes) -> Made:
        await asyncio.sleep(0)
        if self.away is not None:
            raise self.away
        return Made(bytes(64) if self.makes_junk else self._key.sign(message), "card")


@dataclass
class Ledger:
    """Heads of three chains, the daemon's own of which grows by what is recorded."""

    records: list[Note] = field(default_factory=list)
    broken: Exception | None = None
    others: dict[int, int] = field(default_factory=lambda: {3: 3, 1: 1})  # chains of other daemons, and their last rows

    async def heads(self) -> tuple[Head, Sequence[Head]]:
        row = 1 + len(self.records)
        own = Head(f"{2:032x}", 3, row, hashlib.sha256(bytes([row % 256])).digest())
        return own, [Head(f"{chain:032x}", 7, row, bytes(32)) for chain, row in self.others.items()]

    async def record(self, note: Note, token: str) -> None:
        assert token == "card"
        if self.broken is not None:
            raise self.broken
        self.records.append(note)


class Setting:
    def __init__(self, anchors: Sequence[Anchor], *, time: Time | None = None, **more: Any) -> None:
        self.time, self.key, self.ledger = time or Time(), Key(), Ledger()
        self.made = Checkpoints(
            self.key,
            self.ledger.heads,
            self.ledger.record,
            anchors,
            clock=self.time,
            pause=self.time.pause,
            **{"last": None} | more,
        )

    @asynccontextmanager
    async def runs(self) -> AsyncIterator[Checkpoints]:
        async with self.made:
            await quiet()
            yield self.made


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# ---- when they are made


async def test_one_each_minute() -> None:
    """
    Row 4.5: a signed checkpoint every 60 s or 1 000 chunks at the latest, listing the head of every daemon's own chain,
    exported to an append-only file on another mount, syslog or a webhook.

    The first comes with the start. Each is signed, names the one before and all chains, and is in the ledger before it
    is anywhere else.
    """
    desk = Desk()
    setting = Setting([desk])
    async with setting.runs() as made:
        assert desk.numbers == [1]
        await setting.time.passes(PERIOD_S - 0.001)
        assert desk.numbers == [1]
        await setting.time.passes(0.001)
        assert desk.numbers == [1, 2]
        await setting.time.passes(5 * PERIOD_S)
        assert desk.numbers == [1, 2, 3, 4, 5, 6, 7]
        assert made.last_number == 7
    previous = NOTHING
    for row, note in enumerate(desk.notes, 1):
        note.check(setting.key.spki)
        assert note.checkpoint.previous == previous
        previous = note.checkpoint.hash
        assert [(head.instance[-1], head.epoch, head.sequence) for head in note.checkpoint.heads] == [
            ("2", 3, row),
            ("1", 7, 1),
            ("3", 7, 3),
        ]
    assert desk.notes[1].checkpoint.time == BEGIN + timedelta(minutes=1)
    assert setting.ledger.records == desk.notes


async def test_more_chains_than_go_into_one() -> None:
    """
    Of very many daemons those are named that have signed since the last checkpoint, and as many others as a log server's
    message takes: two checkpoints together have them all.
    """
    desk, others = Desk(), dict.fromkeys(range(100, 100 + OTHERS_MAX + 20), 1)
    setting = Setting([desk])
    setting.ledger.others = others
    async with setting.runs():
        moved = 100 + OTHERS_MAX + 5
        others[moved] = 2
        others[100] = 2
        await setting.time.passes(PERIOD_S)
        assert desk.numbers == [1, 2]
    named = [[int(head.instance, 16) for head in note.checkpoint.others] for note in desk.notes]
    assert [len(each) for each in named] == [OTHERS_MAX] * 3
    assert {100, moved} <= set(named[1])
    assert set(named[0] + named[1]) == set(others)
    for note in desk.notes:
        assert len(syslog_message(str(note), Clock())) <= SYSLOG_BYTES_MAX
        assert list(parse(str(note))) == [note]


async def test_one_each_thousand_chunks() -> None:
    """The thousandth chunk since the last one brings the next at once, and begins both counts anew."""
    desk = Desk()
    setting = Setting([desk])
    async with setting.runs() as made:
        await setting.time.passes(30)
        made.chunk_recorded(CHUNKS_MAX - 1)
        await setting.time.passes(1)
        assert desk.numbers == [1]
        made.chunk_recorded(1)
        await quiet()
        assert desk.numbers == [1, 2]
        made.chunk_recorded(CHUNKS_MAX - 1)
        await setting.time.passes(PERIOD_S - 0.001)
        assert desk.numbers == [1, 2]
        await setting.time.passes(0.001)
        assert desk.numbers == [1, 2, 3], "counted from the last one"
        made.chunk_recorded(CHUNKS_MAX - 1)
        await quiet()
        assert desk.numbers == [1, 2, 3], "the minute's checkpoint covers the chunks before it"
        made.chunk_recorded(5 * CHUNKS_MAX)
        await quiet()
        assert desk.numbers == [1, 2, 3, 4]


async def test_chunks_while_one_is_made() -> None:
    """They are perhaps not in it: a thousand of them bring the next."""
    desk = Desk()
    setting = Setting([desk])
    real = setting.ledger.record

    async def record(note: Note, token: str) -> None:
        if note.checkpoint.number == 1:
            setting.made.chunk_recorded(CHUNKS_MAX)
        await real(note, token)

    setting.made._record = record
    async with setting.runs():
        assert desk.numbers == [1, 2]


async def test_it_goes_on_from_the_last() -> None:
    """After a start the numbers go on; the last one is put again, since nobody knows whether it arrived."""
    before = Desk()
    first = Setting([before])
    async with first.runs():
        await first.time.passes(PERIOD_S)
    after = Desk()
    second = Setting([after], last=before.notes[-1])
    async with second.runs() as made:
        assert made.last_number == 4
        assert after.numbers == [3, 4]
        assert after.notes[0] == before.notes[-1]
        assert after.notes[1].checkpoint.previous == before.notes[-1].checkpoint.hash
        assert second.ledger.records == after.notes[1:], "it is in the ledger already"


async def test_a_clean_end_leaves_nothing_without_an_anchor() -> None:
    """What was recorded since the last checkpoint is in the one that is made at the end, and the anchor has it."""
    desk = Desk()
    setting = Setting([desk])
    async with setting.runs() as made:
        assert desk.numbers == [1]
        made.chunk_recorded(3)
    assert desk.numbers == [1, 2]


# ---- anchors that are away


async def test_f56_anchors_down_for_a_day(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """
    F56: the remote log or anchor target is down: signing goes on while the local durable ledger works; alarm; notes
    queue; after 24 h (policy) nothing is signed and health is NOT_SERVING.

    With a real file whose directory goes away and comes back. Tested here: the alarm, the queue, and that `may_sign` is
    false after 24 h and true when a note is anchored again. What the daemon's health makes of it is tested elsewhere.
    """
    place = tmp_path / "mount"
    place.mkdir()
    file = place / "checkpoints"
    setting = Setting([FileAnchor(file)])
    async with setting.runs() as made:
        await setting.time.passes(PERIOD_S)
        assert len(list(parse(file.read_text()))) == 2
        assert (made.may_sign, made.problem, made.age_s, made.queued) == (True, "", 0, {f"file:{file}": 0})
        place.rename(tmp_path / "away")
        # The next one is due in 60 s, and the alarm 60 s later: not before, and once.
        await setting.time.passes(PERIOD_S + ALARM_S - 0.001)
        late = [message for message in errors(caplog) if "No anchor" in message]
        assert (made.may_sign, late) == (True, [])
        await setting.time.passes(0.001)
        assert made.may_sign
        assert "No anchor has the checkpoint that was due 60 s ago" in made.problem
        assert str(file) in made.problem
        late = [message for message in errors(caplog) if "No anchor" in message]
        assert late == [made.problem]
        assert made.age_s == PERIOD_S + ALARM_S
        # The ledger still gets every one of them, and the queue holds them.
        await setting.time.passes(STOP_S - PERIOD_S - ALARM_S - 0.001)
        assert made.may_sign
        assert made.last_number == len(setting.ledger.records) == 2 + 24 * 60 - 1
        assert made.queued == {f"file:{file}": 24 * 60 - 1}
        assert [message for message in errors(caplog) if "No anchor" in message] == late
        await setting.time.passes(0.001)
        assert not made.may_sign
        assert "nothing is signed until one does" in made.problem
        assert errors(caplog)[-1] == made.problem
        # It is back: all of them go there in their order, and then it signs again.
        (tmp_path / "away").rename(place)
        await setting.time.passes(PERIOD_S)
        async with asyncio.timeout(30):  # a day of notes, each with its fsync
            while made.queued[f"file:{file}"]:
                await quiet()
        assert (made.may_sign, made.problem, made.queued) == (True, "", {f"file:{file}": 0})
        assert made.age_s < PERIOD_S
        notes = list(parse(file.read_text()))
        assert [note.checkpoint.number for note in notes] == list(range(1, made.last_number + 1))
        for before, note in itertools.pairwise(notes):
            note.check(setting.key.spki)
            assert note.checkpoint.previous == before.checkpoint.hash
        alarms = len(errors(caplog))
        await setting.time.passes(10 * PERIOD_S)
        assert len(errors(caplog)) == alarms


async def test_one_anchor_is_enough(caplog: pytest.LogCaptureFixture) -> None:
    """One of two is away for days: no alarm, signing goes on, and its own notes wait for it."""
    desk, gone = Desk("desk"), Desk("gone")
    gone.away = AnchorError("gone: is being painted")
    setting = Setting([gone, desk])
    async with setting.runs() as made:
        await setting.time.passes(2 * 3600)
        assert (made.may_sign, made.problem, errors(caplog)) == (True, "", [])
        assert made.queued == {"gone": 121, "desk": 0}
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert warnings == ["gone: is being painted; its checkpoints wait"], "once"
        gone.away = None
        await setting.time.passes(PERIOD_S)
        assert gone.numbers == desk.numbers


async def test_retries_back_off() -> None:
    """After 1, 2, 4, ... s, and then once a minute; what was first comes first, and is not overtaken."""
    desk = Desk()
    desk.away = AnchorError("desk: closed")
    setting = Setting([desk])
    async with setting.runs():
        asked = []
        for _ in range(130):
            asked.append(desk.asked)
            await setting.time.passes(1)
        at = [second for second in range(1, 130) if asked[second] > asked[second - 1]]
        assert at == [1, 3, 7, 15, 31, 63, 123]
        desk.away = OSError("an anchor that raises what it should not")
        await setting.time.passes(PERIOD_S)
        desk.away = None
        await setting.time.passes(PERIOD_S)
        assert desk.numbers == list(range(1, setting.made.last_number + 1))
        # And after a success it begins with 1 s again.
        desk.away, asked_before = AnchorError("desk: closed"), desk.asked
        await setting.time.passes(PERIOD_S)
        assert desk.asked >= asked_before + 2


async def test_a_queue_has_an_end(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The oldest are kept; what is left out is covered by a later one, and said once."""
    assert QUEUE_NOTES_MAX >= STOP_S / PERIOD_S, "a day of them"
    monkeypatch.setattr(checkpoints, "QUEUE_NOTES_MAX", 5)
    desk = Desk()
    desk.away = AnchorError("desk: closed")
    setting = Setting([desk])
    async with setting.runs() as made:
        await setting.time.passes(9 * PERIOD_S)
        assert made.queued == {"desk": 5}
        assert len([message for message in errors(caplog) if "left out" in message]) == 1
        desk.away = None
        await setting.time.passes(PERIOD_S)
        numbers = desk.numbers
        assert numbers[:5] == [1, 2, 3, 4, 5]
        await setting.time.passes(PERIOD_S)
        assert desk.numbers[-1] == made.last_number
        assert made.problem == ""


async def test_the_alarm_counts_from_the_oldest(caplog: pytest.LogCaptureFixture) -> None:
    """A thousand chunks make one due at once: the alarm is 60 s after that, not after the minute."""
    desk = Desk()
    setting = Setting([desk])
    async with setting.runs() as made:
        await setting.time.passes(10)
        desk.away = AnchorError("desk: closed")
        made.chunk_recorded(CHUNKS_MAX)
        await setting.time.passes(ALARM_S - 0.001)
        assert (made.problem, errors(caplog)) == ("", [])
        await setting.time.passes(0.001)
        assert "was due 60 s ago (desk: closed)" in made.problem
        assert errors(caplog) == [made.problem]


async def test_an_anchor_that_is_back_for_a_moment(caplog: pytest.LogCaptureFixture) -> None:
    """It takes the oldest and no more, which says nothing of the day since: nothing is signed still. It is no new alarm."""
    desk = Desk()
    setting = Setting([desk])
    async with setting.runs() as made:
        desk.away = AnchorError("desk: closed")
        await setting.time.passes(STOP_S + PERIOD_S)
        assert not made.may_sign
        assert len(errors(caplog)) == 2
        desk.away, desk.room = None, 1
        await setting.time.passes(PERIOD_S)
        assert desk.numbers == [1, 2]
        assert (made.may_sign, made.age_s) == (False, STOP_S + PERIOD_S)
        assert made.anchored_at == BEGIN + timedelta(seconds=PERIOD_S)
        assert "No anchor has a checkpoint of the last 24 h (desk: full)" in made.problem
        assert len(errors(caplog)) == 2
        desk.room = 10**6
        await setting.time.passes(PERIOD_S)
        assert (made.may_sign, made.problem) == (True, "")
        assert made.anchored_at == desk.notes[-1].checkpoint.time


async def test_an_anchor_that_is_behind(caplog: pytest.LogCaptureFixture) -> None:
    """What it takes late is older than what another has: neither the age nor what the next start counts from goes back."""
    desk, gone = Desk("desk"), Desk("gone")
    gone.away = AnchorError("gone: is being painted")
    setting = Setting([desk, gone])
    async with setting.runs() as made:
        await setting.time.passes(10 * PERIOD_S)
        desk.away, gone.away, gone.room = AnchorError("desk: closed"), None, 3
        await setting.time.passes(PERIOD_S)
        assert gone.numbers == [1, 2, 3]
        assert (made.age_s, made.anchored_at) == (PERIOD_S, BEGIN + timedelta(seconds=10 * PERIOD_S))


async def test_an_anchor_that_hangs_without_limit(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it does, the others get theirs, and the alarm comes."""
    hung, desk = Desk("hung"), Desk("desk")
    hung.slow = asyncio.Event()
    setting = Setting([hung, desk])
    async with setting.runs() as made:
        await setting.time.passes(3 * PERIOD_S)
        assert desk.numbers == [1, 2, 3, 4]
        assert made.problem == ""
        desk.away = AnchorError("desk: closed")
        await setting.time.passes(3 * PERIOD_S)
        assert errors(caplog) == [made.problem.replace("120 s ago", "60 s ago")]


async def test_a_start_does_not_begin_the_day_anew(caplog: pytest.LogCaptureFixture) -> None:
    """Who says when an anchor last took one is held to it: after 24 h, restarts or not, nothing is signed."""
    desk = Desk()
    desk.away = AnchorError("desk: closed")
    setting = Setting([desk], anchored=BEGIN - timedelta(hours=23))
    async with setting.runs() as made:
        assert (made.may_sign, made.age_s) == (True, 23 * 3600)
        await setting.time.passes(3600)
        assert not made.may_sign
    late = Setting([desk], anchored=BEGIN - timedelta(hours=30))
    caplog.clear()
    async with late.runs() as made:
        assert not made.may_sign
        assert made.problem == (
            "No anchor has a checkpoint of the last 30 h (desk: closed): nothing is signed until one does."
        )
        assert [message for message in errors(caplog) if "No anchor" in message]
        desk.away = None
        await late.time.passes(1)
        assert (made.may_sign, made.problem) == (True, "")
        assert made.anchored_at == BEGIN, "when it was made"
    never = Setting([desk], began=BEGIN - timedelta(hours=23))
    desk.away = AnchorError("desk: closed")
    async with never.runs() as made:
        assert (made.may_sign, made.age_s, made.anchored_at) == (True, 23 * 3600, None)
        await never.time.passes(3600)
        assert not made.may_sign
    ahead = Setting([desk], anchored=BEGIN + timedelta(days=400))
    assert ahead.made.age_s == 0, "a clock that was set back is no reason to sign for a year"


async def test_the_last_one_of_two_days_ago_is_put_again() -> None:
    """A daemon that was off for so long signs nothing because of it, but once the first of its own is taken."""
    before, desk = Desk(), Desk()
    first = Setting([before])
    async with first.runs():
        pass
    desk.room = 1
    second = Setting([desk], time=Time(Now(Now.s + 2 * STOP_S)), last=before.notes[-1], anchored=BEGIN)
    async with second.runs() as made:
        assert (desk.numbers, made.may_sign, made.age_s) == ([2], False, 2 * STOP_S)
        desk.room = 1
        await second.time.passes(1)
        assert (desk.numbers, made.may_sign, made.age_s) == ([2, 3], True, 1)


async def test_without_a_first_note_the_alarm_comes(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing was anchored since the start: the first one was due then."""
    desk = Desk()
    desk.away = AnchorError("desk: closed")
    setting = Setting([desk])
    async with setting.runs() as made:
        await setting.time.passes(ALARM_S - 0.001)
        assert errors(caplog) == []
        await setting.time.passes(0.001)
        assert errors(caplog) == [made.problem]


# ---- anchors that were changed


async def test_a_changed_anchor_is_an_alarm_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """However well the others are: once in the log, and in `problem` until it is put back."""
    file, desk = tmp_path / "checkpoints", Desk()
    setting = Setting([FileAnchor(file), desk])
    async with setting.runs() as made:
        await setting.time.passes(2 * PERIOD_S)
        good = file.read_text()
        file.write_text("".join(str(note) for note in list(parse(good))[:2]))
        await setting.time.passes(10 * PERIOD_S)
        assert (made.may_sign, desk.numbers) == (True, list(range(1, 14)))
        assert len(errors(caplog)) == 1
        assert "somebody changed it" in errors(caplog)[0]
        assert made.problem.count("somebody changed it") == 1
        file.write_text(good)
        await setting.time.passes(PERIOD_S)
        assert made.problem == ""
        assert [note.checkpoint.number for note in parse(file.read_text())] == desk.numbers


async def test_a_changed_anchor_after_one_that_was_away(caplog: pytest.LogCaptureFixture) -> None:
    """The alarm is not swallowed because it failed before for another reason."""
    desk = Desk()
    desk.away = AnchorError("desk: closed")
    setting = Setting([desk, Desk("other")])
    async with setting.runs() as made:
        await setting.time.passes(10)
        assert made.problem == ""
        desk.away = AnchorChanged("desk: somebody was here")
        await setting.time.passes(10)
        assert errors(caplog) == ["desk: somebody was here"]
        assert made.problem == "desk: somebody was here."


# ---- a key or a ledger that fails


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda s: setattr(s.key, "away", OSError("no such token")),
            "The checkpoint key does not sign (OSError('no such",
        ),
        (
            lambda s: setattr(s.key, "away", NotMade("token card: TOKEN_ABSENT: pulled")),
            "The checkpoint key does not sign: token card: TOKEN_ABSENT: pulled",
        ),
        (lambda s: setattr(s.key, "makes_junk", True), "The checkpoint key makes wrong signatures (the signature of"),
        (lambda s: setattr(s.key, "away", TimeoutError()), "The checkpoint key has not signed within 30 s"),
        (lambda s: setattr(s.ledger, "broken", OSError("full")), "The ledger takes no checkpoint (OSError('full'))"),
    ],
)
async def test_none_can_be_made(spoil: Any, said: str, caplog: pytest.LogCaptureFixture) -> None:
    """An alarm at once, one; later that of the anchors, which get nothing; when it works again no number is missing."""
    desk = Desk()
    setting = Setting([desk])
    async with setting.runs() as made:
        spoil(setting)
        await setting.time.passes(PERIOD_S)
        assert len(errors(caplog)) == 1
        assert said in errors(caplog)[0]
        assert made.problem.startswith(said)
        await setting.time.passes(ALARM_S)
        assert len(errors(caplog)) == 2
        assert "No anchor has the checkpoint that was due 60 s ago" in made.problem
        assert made.may_sign
        assert desk.numbers == [1]
        await setting.time.passes(STOP_S - ALARM_S - PERIOD_S)
        assert not made.may_sign
        setting.key.away, setting.key.makes_junk, setting.ledger.broken = None, False, None
        await setting.time.passes(PERIOD_S)
        assert desk.numbers[:2] == [1, 2]
        assert desk.notes[1].checkpoint.previous == desk.notes[0].checkpoint.hash
        assert (made.may_sign, made.problem) == (True, "")


async def test_a_key_that_fails_is_not_asked_all_the_time() -> None:
    """However many chunks come: after 1, 2, 4, ... s, and then once a minute."""
    setting = Setting([Desk()])
    async with setting.runs() as made:
        asked: list[float] = []

        async def make(_: bytes) -> Made:
            asked.append(setting.time.now)
            raise OSError("no such token")

        setting.key.make = make  # type: ignore[method-assign]
        for _ in range(200):
            made.chunk_recorded(CHUNKS_MAX)
            await setting.time.passes(1)
        assert "was due 200 s ago" in made.problem, "the chunks do not put it off"
        assert [round(b - a) for a, b in itertools.pairwise(asked)] == [1, 2, 4, 8, 16, 32, 60, 60]


async def test_a_key_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a limit of its own, in real seconds: here a short one."""
    monkeypatch.setattr(checkpoints, "KEY_S", 0.02)
    setting = Setting([Desk()])

    async def make(_: bytes) -> Made:
        await asyncio.sleep(60)
        return Made(b"", "card")

    setting.key.make = make  # type: ignore[method-assign]
    async with setting.runs() as made:
        await asyncio.sleep(0.1)
        assert "has not signed within 0.02 s" in made.problem


# ---- the rest


async def test_real_time() -> None:
    """`pause` ends at its time, and earlier with its event."""
    event = asyncio.Event()
    async with asyncio.timeout(5):
        await checkpoints.pause(event, 0.01)
        asyncio.get_running_loop().call_later(0.01, event.set)
        await checkpoints.pause(event, 60)
        assert event.is_set()


async def test_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one is made at the end; it ends soon, whatever hangs, and nothing is made afterwards."""
    monkeypatch.setattr(checkpoints, "LAST_S", LAST_S)
    desk = Desk()
    desk.slow = asyncio.Event()
    setting = Setting([desk])
    async with asyncio.timeout(5):
        async with setting.runs():
            pass
    await setting.time.passes(PERIOD_S)
    assert len(setting.ledger.records) == 2
    assert [task for task in asyncio.all_tasks() if task.get_name() == "checkpoints"] == []


class Held:
    """A real backend whose commits wait until `go_on` is set."""

    def __init__(self, backend: Epochs) -> None:
        self._backend = backend
        self.begun, self.go_on = threading.Event(), threading.Event()

    def write(self, entries: Sequence[Entry], rows: Sequence[tuple[Row, int | None]]) -> None:
        self.begun.set()
        self.go_on.wait()
        self._backend.write(entries, rows)

    def pulse(self) -> None:
        self._backend.pulse()

    def close(self) -> None:
        self._backend.close()


@pytest.mark.parametrize("is_in_time", [True, False])
async def test_the_end_while_one_is_committed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_in_time: bool
) -> None:
    """
    A commit that is slow when the daemon ends: its checkpoint is waited for, and the last one has the next number. Where
    it takes too long there is no other: two with one number would be a fork for ever.
    """
    desk, path = Desk(), tmp_path / "paraph.sqlite"
    async with ledger_on(path, Held) as (ledger, held):
        made = Checkpoints(Key(), ledger.heads, ledger.record_checkpoint, [desk], last=None)
        await made.__aenter__()
        await asyncio.to_thread(held.begun.wait)
        if is_in_time:
            monkeypatch.setattr(checkpoints, "LAST_S", 60.0)
            end = asyncio.create_task(made.__aexit__(None, None, None))
            await quiet()
            assert not end.done()
            held.go_on.set()
            await end
        else:
            await made.__aexit__(None, None, None)
            held.go_on.set()
    rows = [row.fields["number"] for row in chain(SqliteDatabase(path)) if row.kind == Kind.CHECKPOINT]
    assert rows == ([1, 2] if is_in_time else [1])
    assert desk.numbers == ([1, 2] if is_in_time else [])
    (last,) = parse(found(SqliteDatabase(path)).note)
    assert last.checkpoint.number == rows[-1], "the next start goes on from it"


async def test_metrics() -> None:
    """The age and each queue are asked for when somebody scrapes; without checkpoints neither is there."""
    desk, gone = Desk("desk"), Desk("gone")
    gone.away = AnchorError("gone: is being painted")
    setting = Setting([desk, gone])
    async with setting.runs() as made:
        metrics = Metrics(list, int, lambda: made.age_s, lambda: made.queued)
        await setting.time.passes(PERIOD_S + 7)
        text = generate_latest(metrics.registry).decode()
    assert "\nparaph_checkpoint_age_seconds 7.0\n" in text
    assert '\nparaph_anchor_queue{anchor="desk"} 0.0\nparaph_anchor_queue{anchor="gone"} 2.0\n' in text
    assert "paraph_checkpoint" not in generate_latest(Metrics(list, int).registry).decode()
