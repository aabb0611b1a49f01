"""How long what a person allows is good for, whatever somebody does to the system's clock."""

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from pool import Algorithm, Hash, Scheme
from signer import pending
from signer.clock import Clock
from signer.consent import SENT_S
from signer.credential import CredentialError, Output, add
from signer.database import StoreError
from signer.errors import Refusal
from signer.gate import LIFETIME_S, LIFETIME_S_MAX, Bounds, Gate
from signer.pending import Batch, Item
from signer.steady import CLOCK_JUMP_S, Steady
from signer.v1 import operator_pb2 as op
from signer.v1 import signing_pb2 as pb
from tests.daemon import until
from tests.jump import Jump
from tests.pki import Pki
from tests.signer.access.calls import Paraph, ask, digests, shim_of, signed, statuses
from tests.signer.ledger.book import book, found
from tests.signer.people.office import NOON, SPKI, HandClock, Office
from tests.signer.people.persons import Town, redeem, terms
from tests.signer.people.terminal import profile

HOUR_S = 3_600.0
SESSION_S_MAX = 30 * 60  # ETSI TS 119 431-1, SIG-A.5-09


@pytest.fixture
def office(tmp_path: Path) -> Office:
    """It opens at a moment that is no whole second."""
    return Office(tmp_path, now=NOON + 0.7)


# ---- row 1.3: a short life


@pytest.mark.parametrize(
    ("lifetime_s", "lives_s"), [(None, 120), (0, 120), (1, 1), (60, 60), (300, 300), (301, 300), (86_400, 300)]
)
async def test_row_1_3_a_short_life(office: Office, lifetime_s: int | None, lives_s: int) -> None:
    """
    Row 1.3: a short life: by a clock to set, an authorisation is redeemed one second before its end, and not at its end,
    5 s later or whenever: AUTHZ_EXPIRED. It lives 120 s where the credential says nothing, and never longer than 300 s.
    """
    bounds = {} if lifetime_s is None else {"lifetime_s": lifetime_s}
    ada = await office.enrol("ada")
    given = [await office.authorise(ada, **bounds) for _ in range(5)]
    begins = office.steady.now()
    ends = {until for _, until in given}
    assert ends == {begins + lives_s}
    references = [reference for reference, _ in given]
    if lives_s > 1:
        office.clock.passes(lives_s - 1 - 0.7)  # in the store times are whole seconds, cut off
        assert await office.reason(office.redeem(ada, references.pop())) == "OK"
        office.clock.passes(1)
    else:
        office.clock.passes(lives_s)
    for later_s in (0.0, 5.0, 0.001, HOUR_S):
        office.clock.passes(later_s)
        assert await office.reason(office.redeem(ada, references.pop())) == "AUTHZ_EXPIRED"


def test_row_1_3_the_cap_of_a_credential(tmp_path: Path) -> None:
    """Row 1.3: default 120 s, hard cap 300 s: no credential is stored that says more, or nothing."""
    office, chain = Office(tmp_path), Pki(tmp_path / "pki").signer("Ada", SPKI)
    assert (LIFETIME_S, LIFETIME_S_MAX, Bounds().lifetime_s) == (120, 300, 120)
    for lifetime_s in (0, 301, 86_400, -1):
        with pytest.raises(CredentialError, match="lives 1 to 300 s"):
            add(
                office.engine, "ada", chain, cka_id=None, key_label="key", outputs=[Output.RAW], clock=Clock(),
                gate=Gate.CODE_HOTP, subject="ada", bounds=Bounds(lifetime_s=lifetime_s),
            )  # fmt: skip


async def test_row_1_3_two_clocks(office: Office) -> None:
    """
    Row 1.3: skew at most 5 s: of two daemons with one database the one whose clock is 5 s behind redeems what the other
    has issued just now; one that is further behind does not, and neither does anyone after the end.
    """
    ada = await office.enrol("ada")
    (first, _), (second, _), (third, _) = [await office.authorise(ada) for _ in range(3)]
    now = int(office.steady.now())
    for behind_s, reference, answer in ((5.001, first, "AUTHZ_EXPIRED"), (5.0, second, "OK")):
        slow = Office(office.path.parent, office.engine, now=now - behind_s)
        assert await slow.reason(slow.redeem(ada, reference)) == answer
    fast = Office(office.path.parent, office.engine, now=now + LIFETIME_S)
    assert await fast.reason(fast.redeem(ada, third)) == "AUTHZ_EXPIRED"


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S])
async def test_row_1_3_the_clock_jumps(office: Office, by_s: float) -> None:
    """
    Row 1.3: the system's clock jumps by one hour either way: what was allowed before lives until its end by the clock that
    only goes on, not a second longer and not shorter, and so does a one-time code that was sent.
    """
    ada, bob = await office.enrol("ada"), await office.enrol("bob", "sent")
    references = [(await office.authorise(ada))[0] for _ in range(3)]
    otp = await office.otp(bob)
    office.clock.is_set(by_s)
    assert await office.reason(office.redeem(ada, references.pop())) == "OK"
    office.clock.passes(LIFETIME_S - 2)
    assert await office.reason(office.redeem(ada, references.pop())) == "OK"
    office.clock.passes(2)
    assert await office.reason(office.redeem(ada, references.pop())) == "AUTHZ_EXPIRED"
    office.clock.is_set(-by_s)  # and back: only so is it looked at again
    office.clock.passes(SENT_S - LIFETIME_S)
    assert await office.reason(office.authorise(bob, otp=otp)) == "OTP_EXPIRED"


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S, -LIFETIME_S, -20.0])
async def test_row_1_3_nothing_lives_again(office: Office, by_s: float) -> None:
    """
    Row 1.3: a jump that an operator confirms ends whatever is open: an authorisation, a one-time code that was sent and a
    batch that waits are over, at once, after an hour, when a clock that was put back shows their time once more, and
    whenever between.
    """
    ada, bob = await office.enrol("ada"), await office.enrol("bob", "sent")
    references = [(await office.authorise(ada))[0] for _ in range(4)]
    otp, batch = await office.otp(bob), waiting(office)
    office.clock.passes(10)
    assert is_there(office, batch)
    office.clock.is_set(by_s)
    await office.consent.confirm_clock("operator")
    for seconds in (0.0, 15.0, LIFETIME_S, HOUR_S - LIFETIME_S):
        office.clock.passes(seconds)
        assert await office.reason(office.redeem(ada, references.pop())) == "AUTHZ_EXPIRED"
        assert not is_there(office, batch)
    assert await office.reason(office.authorise(bob, otp=otp)) == "OTP_EXPIRED"
    reference, ends = await office.authorise(ada)
    assert ends == office.steady.now() + LIFETIME_S
    assert await office.reason(office.redeem(ada, reference)) == "OK"


async def test_row_1_3_confirmed_without_a_jump(office: Office) -> None:
    """An operator who confirms a clock that was not set, or by no more than 5 s, ends nothing."""
    ada = await office.enrol("ada")
    reference, _ = await office.authorise(ada)
    batch = waiting(office)
    office.clock.is_set(-CLOCK_JUMP_S)
    await office.consent.confirm_clock("operator")
    assert is_there(office, batch)
    assert await office.reason(office.redeem(ada, reference)) == "OK"


async def test_row_1_3_a_start_with_a_clock_that_was_put_back(office: Office) -> None:
    """
    Row 1.3: what was allowed by a clock that is behind at the next start is over then, and is not there any more when the
    clock shows its time again.
    """
    ada = await office.enrol("ada")
    reference, _ = await office.authorise(ada)
    again = Office(office.path.parent, office.engine, now=office.steady.now() - HOUR_S)
    await again.consent.look_around()
    again.clock.passes(HOUR_S + 1)
    assert await again.reason(again.redeem(ada, reference)) == "AUTHZ_UNKNOWN"


async def test_row_1_3_a_session(office: Office) -> None:
    """
    Row 1.3: session cap 30 min: a batch is signed within 15 minutes of its opening or not at all, and what is left of it
    goes 15 minutes after its end.
    """
    batch = waiting(office)
    opened = office.steady.now()
    office.clock.passes(pending.LIFE_S - 1)
    assert is_there(office, batch)
    with office.engine.begin() as connection:
        pending.begin(connection, batch.id, "here")
        pending.end(connection, batch.id, pending.State.SIGNED, office.steady.now())
    office.clock.passes(pending.LIFE_S - 1)
    assert is_there(office, batch)
    office.clock.passes(1)
    assert not is_there(office, batch)
    assert office.steady.now() - opened <= SESSION_S_MAX
    late = waiting(office)
    office.clock.passes(pending.LIFE_S)
    assert not is_there(office, late)


def waiting(office: Office) -> Batch:
    now = office.steady.now()
    algorithm = Algorithm(Scheme.ECDSA, Hash.SHA256)
    batch = Batch(
        int(now * 1_000).to_bytes(16, "big"), "portal", "ada", "ada", "f" * 64, Output.RAW, algorithm, True, now,
        now + pending.LIFE_S, pending.State.OPEN, "", (Item("letter", 0, b"", bytes(32)),),
    )  # fmt: skip
    with office.engine.begin() as connection:
        pending.put(connection, batch, now)
    return batch


def is_there(office: Office, batch: Batch) -> bool:
    try:
        with office.engine.begin() as connection:
            pending.get(connection, batch.id, office.steady.now())
    except Refusal as refusal:
        assert refusal.reason == "BATCH_UNKNOWN"
        return False
    return True


# ---- F34


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S, 5.001, -5.001])
async def test_f34_new_authorisations(office: Office, by_s: float) -> None:
    """
    F34: the system's clock jumps by an hour either way, or by just more than 5 s: new authorisations are refused
    FAILED_PRECONDITION/CLOCK_UNSAFE, and so are one-time codes to be sent; no attempt is counted and no code looked at;
    once an operator has confirmed the clock they are given again. A step of 5 s and less changes nothing.
    """
    ada, bob = await office.enrol("ada"), await office.enrol("bob", "sent")
    compared = len(office.codes.compared)
    office.clock.is_set(by_s)
    for _ in range(20):
        with pytest.raises(Refusal) as refused:
            await office.authorise(ada, otp="000000")
        assert (refused.value.reason, refused.value.code.name) == ("CLOCK_UNSAFE", "FAILED_PRECONDITION")
    assert await office.reason(office.otp(bob)) == "CLOCK_UNSAFE"
    assert len(office.codes.compared) == compared
    await office.consent.confirm_clock("operator")
    assert await office.reason(office.authorise(ada)) == "OK"
    office.clock.passes(60)
    assert await office.reason(office.authorise(bob)) == "OK"
    office.clock.is_set(5.0 if by_s > 0 else -5.0)
    assert await office.reason(office.authorise(ada)) == "OK"


def test_f34_as_exact_as_the_system() -> None:
    """F34: the daemon's own clock begins with the system's, to the millisecond: a step of 5 s is not taken for one of 4."""
    for _ in range(3):
        steady = Steady(Clock())
        before, now, after = time.time(), steady.now(), time.time()
        assert before - 0.001 <= now <= after + 0.001
        assert abs(steady.jump_s) < 0.001


@pytest.fixture
def kept(tmp_path: Path) -> Callable[[HandClock], Steady]:
    """A daemon's time at each of its starts, by this clock."""
    return lambda clock: Steady(clock, tmp_path / "clock")  # type: ignore[arg-type]


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S, CLOCK_JUMP_S + 1, -CLOCK_JUMP_S - 1])
def test_f34_a_restart_forgets_no_step(kept: Callable[[HandClock], Steady], by_s: float) -> None:
    """F34: a step that no operator has confirmed is there after any number of restarts, and the time goes on as before it."""
    clock = HandClock()
    steady = kept(clock)
    clock.is_set(by_s)
    for _ in range(3):
        steady.keep()
        clock.passes(10)
        steady = kept(clock)
    assert not steady.is_safe
    assert abs(steady.jump_s - by_s) < 0.001
    assert abs(steady.now() - NOON - 30) < 0.001
    assert abs(steady.confirm() - by_s) < 0.001
    clock.passes(10)
    again = kept(clock)
    assert again.is_safe
    assert again.now() == clock.epoch()


@pytest.mark.parametrize(("back_s", "is_safe"), [(HOUR_S, False), (20.0, False), (15.0, True), (9.0, True)])
def test_f34_put_back_while_the_daemon_was_off(
    kept: Callable[[HandClock], Steady], back_s: float, is_safe: bool
) -> None:
    """
    F34: a clock that was put back while the daemon was off is noticed at its start, once it is more than 5 s before the time
    that was known last; the daemon's own time never goes back.
    """
    clock = HandClock()
    kept(clock).keep()
    clock.passes(10)
    clock.is_set(-back_s)
    steady = kept(clock)
    assert steady.is_safe == is_safe
    assert steady.now() >= NOON


@pytest.mark.parametrize(("back_s", "is_safe"), [(HOUR_S, False), (6.0, False), (4.0, True), (-HOUR_S, True)])
def test_f34_nothing_is_kept_but_the_ledger(kept: Callable[[HandClock], Steady], back_s: float, is_safe: bool) -> None:
    """
    F34: a clock that was put back is noticed by the time of the ledger's last row, too, where the daemon's own file is gone.
    Where it is there, it alone counts: a row of a time to come is what a clock has left that was wrong and is confirmed.
    """
    clock = HandClock()
    steady = kept(clock)
    steady.know(NOON + back_s)
    assert steady.is_safe == is_safe
    assert steady.now() >= max(NOON, NOON + back_s)
    steady.confirm()
    steady = kept(clock)
    steady.know(NOON + back_s)
    assert steady.is_safe


def test_f34_a_clock_that_is_right_again(kept: Callable[[HandClock], Steady]) -> None:
    """F34: a step that was taken back while the daemon was off for a moment is none any more."""
    clock = HandClock()
    steady = kept(clock)
    clock.is_set(HOUR_S)
    steady.keep()
    clock.passes(2)
    clock.is_set(-HOUR_S)
    assert kept(clock).is_safe


def test_f34_a_small_step_is_not_kept(kept: Callable[[HandClock], Steady]) -> None:
    """F34: a clock that was put forward by 5 s or less is taken as it is by the next start."""
    clock = HandClock()
    steady = kept(clock)
    clock.is_set(CLOCK_JUMP_S)
    steady.keep()
    clock.passes(1)
    assert kept(clock).now() == clock.epoch()


@pytest.mark.parametrize("content", [b"", b"{}", b'{"time": 1', b'{"time": null, "step_s": 0}', b"[]"])
def test_f34_what_was_written_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    """F34: where the time that was known last is not to be read, nothing starts, and the message says what to do."""
    file = tmp_path / "clock"
    file.write_bytes(content)
    with pytest.raises(StoreError, match=f"{file}.* see that the system's clock is right, then remove this file"):
        Steady(Clock(), file)


def test_f34_the_file_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    F34: where the time cannot be written down, what was written before stays, and a clock is not confirmed; the file is its
    owner's alone.
    """
    clock, file = HandClock(), tmp_path / "clock"
    steady = Steady(clock, file)  # type: ignore[arg-type]
    steady.keep()
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("signer.durable.os.fsync", full)
    clock.is_set(HOUR_S)
    with pytest.raises(OSError, match="No space"):
        steady.confirm()
    assert not steady.is_safe
    assert file.read_bytes() == before


def test_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What the time is has reached the disk before it takes the place of what it was, and its name has afterwards: after a power
    cut the one or the other is there.
    """
    clock, file = HandClock(), tmp_path / "clock"
    steady = Steady(clock, file)  # type: ignore[arg-type]
    steady.keep()
    before = file.read_bytes()
    synced: list[tuple[bool, bool]] = []

    def fsync(fd: int) -> None:
        place = Path(f"/proc/self/fd/{fd}").readlink()
        synced.append((place.is_dir(), file.read_bytes() == before))

    monkeypatch.setattr(os, "fsync", fsync)
    clock.passes(60)
    steady.keep()
    assert synced == [(False, True), (True, False)]


@pytest.fixture(scope="module")
def jumping() -> Iterator[tuple[Town, Jump]]:
    """A town whose system's clock can be set."""
    town = Town()
    jump = Jump(town.rig.directory)
    town.rig.environment = jump.environment
    with town:
        town.enrol("ada", "hotp")
        yield town, jump


@pytest.mark.parametrize("by_s", [3_600, -3_600])
def test_f34_through_the_daemon(jumping: tuple[Town, Jump], by_s: int) -> None:
    """
    F34: while a batch is being signed the system's clock jumps by an hour, either way: running deadlines go by the
    monotonic clock, so the batch is signed and answered, and a call whose deadline passes is told so when it does; an
    authorisation from before is redeemed; a new one is refused FAILED_PRECONDITION/CLOCK_UNSAFE until an operator
    confirms the clock; the ledger's order is by sequence, and it is found whole.
    """
    town, jump = jumping
    ada, rows = town.people["ada"], len(book(town.rig.state))
    first, second, third = (town.reference(ada, terms(digests(8, start))) for start in (100, 200, 300))
    message = ask(credential="ada", digests=digests(8, 100), authorisation=first)
    before = signed(town.rig)
    try:
        shim_of(town.rig).script("C_Sign * delay 0.1")
        call = town["portal"].signing.SignDigests.future(message, timeout=20)
        until(lambda: signed(town.rig) > before, 10, "the first of the batch")
        jump.to(by_s)
        assert [pb.ItemStatus.Name(item.status) for item in call.result().items] == ["SIGNED"] * 8
        shim_of(town.rig).script("C_Sign * hold 30")
        began = time.monotonic()
        late = town["portal"].sign(ask(credential="ada", digests=digests(8, 200), authorisation=second), timeout_s=1.0)
        assert 0.8 <= time.monotonic() - began <= 2.0
        told = {late.code} if late.code != "OK" else set(statuses(late))
        assert told <= {"DEADLINE_EXCEEDED", "INDETERMINATE", "NOT_ATTEMPTED"}
        shim_of(town.rig).clear()
        assert statuses(redeem(town, third, digests(8, 300))) == ["SIGNED"] * 8
        assert town.authorise(ada, terms(digests(1)), otp="000000").brief == ("FAILED_PRECONDITION", "CLOCK_UNSAFE")
        assert abs(confirmed(town) - by_s) < 1
        assert statuses(redeem(town, town.reference(ada, terms(digests(1))), digests(1))) == ["SIGNED"]
    finally:
        shim_of(town.rig).clear()
        jump.to(0)
        confirmed(town)
    new = book(town.rig.state)[rows:]
    assert [row.sequence for row in new] == list(range(rows + 1, rows + 1 + len(new)))
    times = [datetime.fromisoformat(row.fields["time"]).timestamp() for row in new if "time" in row.fields]
    steps_s = [after - before for before, after in itertools.pairwise(times)]
    assert any(step_s / by_s > 0.9 for step_s in steps_s), "the jump is seen in what rows say, not in their order"
    found(town.rig.state)


def confirmed(town: Town) -> float:
    """By how many seconds the clock had been set that an operator confirms."""
    return float(town["operator"].operator.ConfirmClock(op.ConfirmClockRequest(), timeout=10).step_s)


def test_f34_nothing_else_confirms(jumping: tuple[Town, Jump], paraph: Paraph, tmp_path: Path) -> None:
    """
    F34: a clock that was set is not confirmed by SIGHUP, by ReloadConfig, or by a restart, orderly or not; the log says by
    how many seconds it was set, and what to do; `paraph clock confirm` confirms it, and says the same.
    """
    town, jump = jumping
    ada, rig = town.people["ada"], town.rig
    lines = len(rig.log.read_text())
    advice = (
        "the system's clock was set by +3600 s, so nothing new is authorised; see that it is right, then `paraph clock"
    )

    def is_unsafe() -> bool:
        return town.authorise(ada, terms(digests(1)), otp="000000").reason == "CLOCK_UNSAFE"

    try:
        jump.to(3_600)
        rig.send_signal(signal.SIGHUP)
        until(lambda: advice in rig.log.read_text()[lines:], 10, "what a reload does not confirm")
        town["operator"].operator.ReloadConfig(op.ReloadConfigRequest(), timeout=10)
        assert is_unsafe()
        for how in (signal.SIGTERM, signal.SIGKILL):
            rig.stop(how)
            lines = len(rig.log.read_text())
            rig.launch()
            rig.wait_serving()
            until(lambda: town.authorise(ada, terms(digests(1)), otp="000000").code != "UNAVAILABLE", 10, "a call")
            assert is_unsafe()
            assert advice in rig.log.read_text()[lines:]
        done = paraph("clock", "confirm", "--profile", profile(tmp_path, rig, "operator"))
        assert (done.code, done.out) == (0, "the clock is confirmed; it had been set by +3600.0 s\n"), done
        assert town.authorise(ada, terms(digests(1))).code == "OK"
    finally:
        jump.to(0)
        confirmed(town)


def test_f34_the_file_is_gone(jumping: tuple[Town, Jump]) -> None:
    """F34: with its own file gone, the daemon knows from the ledger that the clock was put back while it was off."""
    town, jump = jumping
    ada, rig = town.people["ada"], town.rig
    try:
        jump.to(3_600)
        confirmed(town)
        rig.stop()
        (rig.state / "clock").unlink()
        jump.to(0)
        rig.launch()
        rig.wait_serving()
        until(lambda: town.authorise(ada, terms(digests(1)), otp="000000").code != "UNAVAILABLE", 10, "a call")
        assert town.authorise(ada, terms(digests(1)), otp="000000").reason == "CLOCK_UNSAFE"
        assert -3_660 < confirmed(town) < -3_540
        assert town.authorise(ada, terms(digests(1))).code == "OK"
    finally:
        jump.to(0)
        confirmed(town)
