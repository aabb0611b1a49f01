"""Codes are guessed at a few times a day and no more, whoever guesses, from wherever, and however many at a time."""

import asyncio
import base64
import random
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyotp
import pytest
from sqlalchemy import Engine, func, select

from portal_adapter.window.settings import Limits
from signer import guesses, otp
from signer.code import CodesError
from signer.consent import SENT_S
from signer.errors import Refusal
from signer.guesses import DAY_S, SHORT_S
from signer.otp import DIGITS, GRACE_S, STEP_S
from signer.proof import SENT_MAX
from signer.queued import CONTACT_ROWS_MAX
from signer.store import guesses as rows
from signer.store import open_store
from tests.postgres import Postgres
from tests.signer.access.calls import digests, shim_of
from tests.signer.people.office import NOON, SECRET, Office, Person
from tests.signer.people.persons import Town, terms

SHORT, DAY = 5, 10  # wrong ones, within 15 minutes and within a day
GUESSES = 10_000
P_DAY_MAX = 2e-5  # of a one-time code of six digits


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


async def guess(office: Office, person: Person, source: str = "", **given: Any) -> str:
    """The reason of an attempt that is wrong, where nothing else is given."""
    return await office.reason(
        office.authorise(person, source=source, **{"secret": "a wrong code", "otp": "000000"} | given)
    )


def most_within(times: list[float], span_s: float) -> int:
    """The most of these times that lie within less than so many seconds."""
    most, first = 0, 0
    for last, time in enumerate(times):
        while times[first] <= time - span_s:
            first += 1
        most = max(most, last - first + 1)
    return most


async def test_row_1_8_ten_thousand_guesses(office: Office) -> None:
    """
    Row 1.8: codes are rate-limited: of 10 000 guesses at one subject with three keys, from as many sources, over four days,
    at most 5 in any 15 minutes and 10 in any 24 hours are compared with anything, whatever key and source; all the others
    are OTP_LOCKED, also for who has the right codes, and told for how long.
    """
    chance = random.Random(seed := secrets.randbits(32))
    ada = await office.enrol("ada")
    first = len(office.codes.compared)
    told = {"OTP_INCORRECT": 0, "OTP_LOCKED": 0}
    for number in range(GUESSES):
        office.clock.passes(chance.choice([0.0, 0.0, 0.001, 0.4, 7.3, 30.0, 138.9]))
        told[await guess(office, ada, f"2001:db8::{number:x}", name=f"key {number % 3}")] += 1
    compared = office.codes.compared[first:]
    assert told == {"OTP_INCORRECT": len(compared), "OTP_LOCKED": GUESSES - len(compared)}
    assert most_within(compared, SHORT_S) == SHORT, seed
    assert most_within(compared, DAY_S) == DAY, seed
    assert 3 * DAY <= len(compared) <= 5 * DAY, "it is no lock for ever"
    while await guess(office, ada) != "OTP_LOCKED":
        pass
    with pytest.raises(Refusal) as locked:
        await office.authorise(ada)
    assert locked.value.reason == "OTP_LOCKED"
    assert 0 < (locked.value.retry_s or 0) <= DAY_S


@pytest.mark.parametrize("fraction_s", [0.0, 0.001, 0.5, 0.999])
async def test_row_1_8_the_edges(office: Office, fraction_s: float) -> None:
    """
    Row 1.8: at most 5 wrong ones in 15 minutes, 10 in a day, to the fraction of a second: the sixth is compared when the
    first is 15 minutes old and not before, the eleventh when that is a day old; `retry_s` says when, within a second.
    """
    ada = await office.enrol("ada")
    office.clock.passes(fraction_s)
    begin, compared = office.steady.now(), office.codes.compared
    before = len(compared)
    for at_s in (0, SHORT_S, DAY_S):
        office.clock.passes(begin + at_s - office.steady.now() - 0.01)
        if at_s:
            with pytest.raises(Refusal) as locked:
                await office.authorise(ada, otp="000000")
            assert 0 < (locked.value.retry_s or 0) <= 1.02
        office.clock.passes(1.01 if at_s else 0.01)
        for _ in range(SHORT):
            assert await guess(office, ada) == "OTP_INCORRECT"
        assert await guess(office, ada) == "OTP_LOCKED"
    assert len(compared) - before == 3 * SHORT
    assert most_within(compared[before:], SHORT_S) <= SHORT
    assert most_within(compared[before:], DAY_S) <= DAY


async def test_row_1_8_one_message_for_each_lock(office: Office) -> None:
    """
    Row 1.8: she is told of each lock once, however many wrong attempts come at one moment; not where the one that would
    have locked her proves right, or was never looked at.
    """
    ada, bob = await office.enrol("ada"), await office.enrol("bob")

    def told() -> list[str]:
        return [to for to, template, _ in office.messages() if template == "locked"]

    for _ in range(2):  # the second time it is the lock of a day
        answers = await asyncio.gather(*(guess(office, ada) for _ in range(12)))
        assert answers.count("OTP_INCORRECT") == SHORT
        assert told() == ["ada"]
        office.clock.passes(SHORT_S + 1)
    await asyncio.gather(*(guess(office, bob) for _ in range(SHORT - 1)))
    assert await office.reason(office.authorise(bob)) == "OK"
    office.codes.fails = CodesError("CODES_FAILED")
    assert await guess(office, bob) == "CODES_FAILED"
    office.codes.fails = None
    assert told() == []
    assert await guess(office, bob) == "OTP_INCORRECT"
    assert told() == ["bob"]


async def test_row_1_8_who_is_right_is_not_counted(office: Office) -> None:
    """Row 1.8: failures are counted, and who gives the right codes again and again is never locked."""
    ada = await office.enrol("ada")
    for number in range(40):
        assert await guess(office, ada) == "OTP_INCORRECT" or number >= SHORT - 1
        assert await office.reason(office.authorise(ada)) == "OK"
        office.clock.passes(SHORT_S)
        if number == SHORT - 2:
            break
    for _ in range(40):
        assert await office.reason(office.authorise(ada)) == "OK"


async def test_row_1_8_nobody_else_is_locked(office: Office) -> None:
    """
    Row 1.8: the limit is per subject: one subject's lock locks nobody else, not from the same source either, and whoever
    is locked has other attempts 15 minutes later.
    """
    people = [await office.enrol(name) for name in ("ada", "bob", "cleo")]
    ada, *others = people
    for _ in range(SHORT):
        assert await guess(office, ada, "192.0.2.1") == "OTP_INCORRECT"
    assert await guess(office, ada, "192.0.2.2") == "OTP_LOCKED"
    for person in others:
        assert await office.reason(office.authorise(person, source="192.0.2.1")) == "OK"
    office.clock.passes(SHORT_S)
    assert await office.reason(office.authorise(ada, source="192.0.2.1")) == "OK"


async def test_row_1_8_per_source(office: Office) -> None:
    """
    Row 1.8: the limit is per source, too, and the source is the address that the consent caller states: after 30 wrong
    ones in 15 minutes, spread over many subjects, nothing from there is compared, not even what is right; from another
    address the same subjects are served; after 200 in a day it is a day.
    """
    people = [await office.enrol(f"person-{number}") for number in range(32)]
    compared = len(office.codes.compared)
    for number, person in enumerate(people):
        expected = "OTP_INCORRECT" if number < 30 else "OTP_LOCKED"
        assert await guess(office, person, "192.0.2.1") == expected
    assert len(office.codes.compared) == compared + 30
    assert await office.reason(office.authorise(people[31], source="192.0.2.1")) == "OTP_LOCKED"
    assert await office.reason(office.authorise(people[31], source="192.0.2.2")) == "OK"
    wrong = 30
    for number in range(30, 400):
        if number % 30 == 0:
            office.clock.passes(SHORT_S + 1)
        wrong += await guess(office, people[number % 32], "192.0.2.1") == "OTP_INCORRECT"
    assert wrong == 200
    office.clock.passes(SHORT_S + 1)
    assert await office.reason(office.authorise(people[31], source="192.0.2.1")) == "OTP_LOCKED"
    office.clock.passes(DAY_S)
    assert await office.reason(office.authorise(people[31], source="192.0.2.1")) == "OK"


async def stranger(office: Office, person: Person, **given: Any) -> str:
    """The reason of a login, or a change of the code, by who is not known where she does it; wrong codes by default."""
    typed = office.given(**{"secret": "a wrong code", "otp": "000000"} | given)
    return await office.reason(office.allow(person, replace(typed, is_open=True)))


async def test_row_6_6_strangers_lock_nobody_out(office: Office) -> None:
    """
    Rows 6.6 and 1.8: over three days of somebody's wrong codes, three in fifteen minutes and six in a day are compared with
    anything; at every moment she signs, and logs in where she is known, and of ten wrong codes a day four are hers. What
    she does wrong herself counts against all.
    """
    ada = await office.enrol("ada")
    chance = random.Random(seed := secrets.randbits(32))
    times = []
    for number in range(600):  # the first ones at one moment, so that both limits are reached whatever comes
        office.clock.passes(chance.choice([0.0, 0.4, 60.0, 900.0]) if number > 8 else 0.0)
        if (told := await stranger(office, ada)) != "OTP_LOCKED":
            assert told == "OTP_INCORRECT"
            times.append(office.steady.now())
        assert await office.reason(office.authorise(ada)) == "OK", seed
    assert (most_within(times, SHORT_S), most_within(times, DAY_S)) == (3, 6), seed
    office.clock.passes(DAY_S)
    for own in (2, 2):  # in each quarter of an hour
        assert [await stranger(office, ada) for _ in range(4)] == ["OTP_INCORRECT"] * 3 + ["OTP_LOCKED"]
        assert [await guess(office, ada) for _ in range(own + 1)] == ["OTP_INCORRECT"] * own + ["OTP_LOCKED"]
        office.clock.passes(SHORT_S + 1)
    assert await guess(office, ada) == "OTP_LOCKED", "ten in a day, whoever made them"
    assert await stranger(office, ada) == "OTP_LOCKED"


async def test_row_6_6_codes_that_strangers_ask_for(office: Office) -> None:
    """Row 6.6: as many as the window sends for strangers to log in with in ten minutes leave room for the one that she signs with."""
    bob, most = await office.enrol("bob", "sent"), 2 * Limits().codes_in_10_minutes
    for number in range(most):
        asked = office.terms(bob, digests=[bytes([number]) * 32])
        await office.consent.send_otp(office.credential(bob), asked, "https://portal.example", "window", is_login=True)
    assert await office.reason(office.authorise(bob)) == "OK"


async def test_row_6_6_whom_strangers_lock_is_told(office: Office) -> None:
    """Row 6.6: once for each lock, and what goes on; the operator sees it, and ends it. Until then right codes are not looked at."""
    ada = await office.enrol("ada")

    def told() -> list[str]:
        return [template for _, template, _ in office.messages()]

    for _ in range(2):
        await asyncio.gather(*(stranger(office, ada) for _ in range(12)))
        assert told() == ["login-locked"]
        office.clock.passes(SHORT_S + 1)
    assert await stranger(office, ada, secret=SECRET, otp=ada.otp()) == "OTP_LOCKED"
    [[entry], _] = await office.consent.roll("ada", "")
    assert entry.locked_until is not None
    assert entry.locked_until - office.steady.now() == pytest.approx(DAY_S - 2 * SHORT_S, abs=3)
    await office.consent.unlock("ada", "operator")
    assert await stranger(office, ada, secret=SECRET, otp=ada.otp()) == "OK"
    for _ in range(2):
        await stranger(office, ada)
    for _ in range(3):
        await guess(office, ada)
    assert told() == ["locked"]


async def test_row_1_8_of_nobody(office: Office) -> None:
    """
    Row 1.8: codes for a credential that there is not cost what others do: a hash each, and an attempt of their source, with
    which those of people from there are over, too. What could not be hashed is no attempt.
    """
    ada, given = await office.enrol("ada"), office.given("a wrong code", "000000", "192.0.2.1")
    office.codes.fails = CodesError("CODES_FAILED")
    assert await office.reason(office.consent.nobody(given)) == "CODES_FAILED"
    office.codes.fails = None
    for _ in range(30):
        assert await office.reason(office.consent.nobody(given)) == "OK"
    assert office.codes.spent == 30
    assert await office.reason(office.consent.nobody(given)) == "OTP_LOCKED"
    assert await guess(office, ada, "192.0.2.1") == "OTP_LOCKED"
    assert await office.reason(office.consent.nobody(office.given("a wrong code", "000000", "192.0.2.2"))) == "OK"
    assert await office.reason(office.authorise(ada, source="192.0.2.2")) == "OK"
    assert office.codes.spent == 31


async def test_row_1_8_per_key(office: Office) -> None:
    """Row 1.8: the limit is per key: a subject's attempts with several of her credentials are counted together."""
    ada = await office.enrol("ada")
    told = [await guess(office, ada, name=f"key {number}") for number in range(8)]
    assert told == ["OTP_INCORRECT"] * SHORT + ["OTP_LOCKED"] * 3


async def test_row_1_8_a_crash_costs_the_attempt(office: Office) -> None:
    """
    Row 1.8: the attempt is on the disk before anything is compared: a daemon that dies between the two has given none away;
    and where the hashers answer nothing, so that nobody was told anything, none is counted.
    """
    ada = await office.enrol("ada")

    class Died(BaseException):
        pass

    for _ in range(SHORT):
        office.codes.fails = Died()
        with pytest.raises(Died):
            await office.authorise(ada)
    again = Office(office.path.parent, now=office.steady.now())
    assert await again.reason(again.authorise(ada)) == "OTP_LOCKED"
    assert again.codes.compared == []
    again.clock.passes(SHORT_S + 1)
    for reason in ("CODES_BUSY", "CODES_FAILED"):
        again.codes.fails = CodesError(reason)
        for _ in range(2 * SHORT):
            assert await again.reason(again.authorise(ada, otp="000000")) == reason
    again.codes.fails = None
    ada.counter = 1
    assert await again.reason(again.authorise(ada)) == "OK"


@pytest.mark.parametrize("secret", [SECRET, "a wrong code"])
async def test_row_1_8_a_call_that_is_given_up(office: Office, secret: str) -> None:
    """
    Row 1.8: who gives up a call has no attempt for nothing: while what was found out is being written, it is counted like
    any other; while nothing has been compared yet, it is not. Else a used-up code would tell, later and of a thousand
    such calls at once, that one of them was right.
    """
    ada = await office.enrol("ada")
    for _ in range(2 * SHORT):
        office.codes.fails = asyncio.CancelledError()
        with pytest.raises(asyncio.CancelledError):
            await office.authorise(ada, otp="000000")
    office.codes.fails = None
    lock, matches = sqlite3.connect(office.path, isolation_level=None), office.codes.matches
    is_held = asyncio.Event()

    async def matches_and_holds(*given: Any) -> bool:
        answer = bool(await matches(*given))
        lock.execute("BEGIN IMMEDIATE")
        is_held.set()
        return answer

    office.codes.matches = matches_and_holds
    for _ in range(SHORT):
        call = asyncio.create_task(office.authorise(ada, secret=secret, otp="000000"))
        await is_held.wait()
        is_held.clear()
        await asyncio.sleep(0.02)  # into the transaction that waits for the lock
        call.cancel()
        await asyncio.sleep(0)
        lock.execute("ROLLBACK")
        with pytest.raises(asyncio.CancelledError):
            await call
    lock.close()
    office.codes.matches = matches
    assert await office.reason(office.authorise(ada)) == "OTP_LOCKED"


async def test_row_1_8_one_code_at_a_time(office: Office) -> None:
    """
    Row 1.8: each guess is at one code: where others have been sent for other things, they are wrong ones here, and told so
    in the same word.
    """
    bob = await office.enrol("bob", "sent")
    lists = [[bytes([number]) * 32] for number in range(SHORT)]
    sent = [await office.otp(bob, digests=one) for one in lists]
    given = [office.given(SECRET, one) for one in [*sent[1:], "000000"]]
    told = [await office.reason(office.allow(bob, one, digests=lists[0])) for one in given[:SHORT]]
    assert told == ["OTP_INCORRECT"] * SHORT


async def test_row_1_8_few_codes_at_one_time(office: Office) -> None:
    """
    Row 1.8: at most 16 codes are good at one time, each for another thing: one more is refused until the first of them ends,
    or one is used, and makes none of them worthless.
    """
    bob = await office.enrol("bob", "sent")
    lists = [[bytes([number]) * 32] for number in range(SENT_MAX + 1)]
    sent = [await office.otp(bob, digests=one) for one in lists[:SENT_MAX]]
    with pytest.raises(Refusal, match="OTP_SENT") as refused:
        await office.otp(bob, digests=lists[-1])
    assert (SENT_MAX, refused.value.retry_s) == (16, SENT_S)
    assert await office.reason(office.allow(bob, office.given(SECRET, sent[0]), digests=lists[0])) == "OK"
    assert await office.otp(bob, digests=lists[-1])


async def test_row_1_8_at_one_time(office: Office) -> None:
    """Row 1.8: of a hundred guesses at one time, before any of them has its answer, no more than 5 are compared."""
    ada = await office.enrol("ada")
    compared = len(office.codes.compared)
    told = await asyncio.gather(*(guess(office, ada, f"198.51.100.{number}") for number in range(100)))
    assert sorted(told) == ["OTP_INCORRECT"] * SHORT + ["OTP_LOCKED"] * (100 - SHORT)
    assert len(office.codes.compared) == compared + SHORT


async def test_row_1_8_a_lock_that_cannot_be_told(office: Office) -> None:
    """Row 1.8: where her contact takes no more messages, the limit and what is answered are the same."""
    ada = await office.enrol("ada")
    for _ in range(CONTACT_ROWS_MAX):
        await office.consent.suspend("ada", "operator", resume=False)
        await office.consent.suspend("ada", "operator", resume=True)
    assert [await guess(office, ada) for _ in range(SHORT + 1)] == ["OTP_INCORRECT"] * SHORT + ["OTP_LOCKED"]
    assert "locked" not in {template for _, template, _ in office.messages()}


@pytest.fixture(params=["sqlite", "postgresql"])
def engines(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Engine]]:
    """Two of one database, as two daemons have them."""
    where: Path | str = tmp_path / "guesses.sqlite"
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        where = server.create("guesses")
    made = [open_store(where) for _ in range(2)]
    yield made
    for engine in made:
        engine.dispose()


def test_row_1_8_two_daemons(engines: list[Engine]) -> None:
    """Row 1.8: of 32 guesses at one time through two daemons with one database exactly 5 are counted and go on, each round."""
    barrier = threading.Barrier(32)

    def one(number: int, subject: str) -> bool:
        barrier.wait(30)
        try:
            with engines[number % 2].begin() as connection:
                guesses.begin(connection, subject, subject, f"192.0.2.{number}", NOON)
        except Refusal as refusal:
            assert refusal.reason == "OTP_LOCKED"
            return False
        return True

    with ThreadPoolExecutor(32) as threads:
        for subject in ("ada", "bob", "cleo", "dan", "eve"):
            assert sum(threads.map(one, range(32), [subject] * 32)) == SHORT
    with engines[0].begin() as connection:
        assert connection.execute(select(func.count()).select_from(rows)).scalar_one() == 5 * SHORT


# ---- how probable it is to guess one


def test_row_1_8_how_probable_a_guess_is() -> None:
    """
    Row 1.8: P(guess 6 digits per day) <= 2e-5, by counting which codes are accepted: at any moment at most 2 of those that
    a device makes within 2 hours either way (TOTP: this step's or, for 5 s, the last one's; HOTP: the counter's or the
    next one's), 1 of those that are sent, and none of 5 000 others of the million; and there are 10 attempts a day.
    """
    seed, step = secrets.token_bytes(20), int(NOON) // STEP_S
    device = pyotp.HOTP(base64.b32encode(seed).decode())
    made = {device.at(counter) for counter in range(step - 240, step + 240)}
    codes = made | {f"{number:0{DIGITS}}" for number in range(7, 10**DIGITS, 200)}
    early, late = (datetime.fromtimestamp(step * STEP_S + s, UTC) for s in (GRACE_S - 1, GRACE_S))
    key, binding = secrets.token_bytes(32), secrets.token_bytes(32)
    sent = otp.fingerprint(key, device.at(step), binding)
    accepted = {
        "totp": {code for code in codes if otp.totp_step(seed, code, early, 0) is not None},
        "totp, 5 s later": {code for code in codes if otp.totp_step(seed, code, late, 0) is not None},
        "hotp": {code for code in codes if otp.hotp_counter(seed, code, step - 1) is not None},
        "sent": {code for code in codes if otp.matches(key, code, binding, sent)},
    }
    this, last = device.at(step), device.at(step - 1)
    assert accepted == {"totp": {last, this}, "totp, 5 s later": {this}, "hotp": {last, this}, "sent": {this}}
    p_day = 1 - (1 - max(map(len, accepted.values())) / 10**DIGITS) ** DAY
    assert p_day <= P_DAY_MAX


# ---- F33


REUSED = {"hotp": "OTP_INCORRECT", "totp": "OTP_USED", "sent": "OTP_EXPIRED"}
LATE = {"hotp": "OTP_INCORRECT", "totp": "OTP_INCORRECT", "sent": "OTP_EXPIRED"}


@pytest.mark.parametrize("factor", ["hotp", "totp", "sent"])
async def test_f33_one_time_codes(office: Office, factor: str) -> None:
    """
    F33: a one-time code that is wrong, reused, for another request or delivered late is PERMISSION_DENIED/OTP_*; five of
    them lock for 15 minutes, that subject only. (That no PIN is touched: below.)
    """
    ada, bob = await office.enrol("ada", factor), await office.enrol("bob", factor)
    begin, right = office.steady.now(), await office.otp(ada)

    async def given(otp: str, **other: Any) -> str:
        return await office.reason(office.allow(ada, office.given(SECRET, otp), **other))

    assert await given(f"{(int(right) + 1) % 10**DIGITS:0{DIGITS}}") == "OTP_INCORRECT"
    if factor == "sent":
        assert await given(right, digests=[bytes(32)]) == "OTP_EXPIRED", "for another request, and it is not used up"
    else:
        assert await given(right[:-1]) == "OTP_INCORRECT"
    assert await given(right) == "OK"
    assert await given(right, digests=[bytes(32)]) == REUSED[factor]
    office.clock.passes(STEP_S)
    late = await office.otp(ada)
    if factor == "hotp":  # a device's, that was left for the next one
        assert await given(ada.otp()) == "OK"
    else:
        office.clock.passes(SENT_S if factor == "sent" else STEP_S + GRACE_S)
    assert await given(late) == LATE[factor]
    assert await given("000000") == ("OTP_EXPIRED" if factor == "sent" else "OTP_INCORRECT")
    assert await given("000000") == "OTP_LOCKED"
    assert await office.reason(office.authorise(bob)) == "OK"
    office.clock.passes(begin + SHORT_S - office.steady.now() - 0.1)
    assert await given("000000") == "OTP_LOCKED"
    office.clock.passes(1.1)
    assert await office.reason(office.authorise(ada)) == "OK"


def test_f33_no_pin_is_touched(town: Town) -> None:
    """
    F33: wrong, reused or sent for another request, and locked: PERMISSION_DENIED/OTP_* each, and the token hears of none of
    it: no C_Login, so no PIN is tried, and no C_Sign.
    """
    shim, wanted = shim_of(town.rig), terms(digests(1), "dan")
    dan = town.people.get("dan") or town.enrol("dan", "sent")
    town.unlock("dan")
    otp = town.sent(dan, wanted)
    calls = (shim.number("C_Login"), shim.number("C_Sign"))
    wrong = f"{(int(otp) + 1) % 10**DIGITS:0{DIGITS}}"
    told = [town.authorise(dan, wanted, otp=wrong), town.authorise(dan, terms(digests(2), "dan"), otp=otp)]
    assert town.authorise(dan, wanted, otp=otp).code == "OK"
    told += [town.authorise(dan, wanted, otp=otp), town.authorise(dan, wanted, code="a wrong code", otp="000000")]
    told += [town.authorise(dan, wanted, otp="000000"), town.authorise(dan, wanted, otp="000000")]
    reasons = ["OTP_INCORRECT", *["OTP_EXPIRED"] * 4, "OTP_LOCKED"]  # whatever the secret code is
    assert [answer.brief for answer in told] == [("PERMISSION_DENIED", reason) for reason in reasons]
    assert (shim.number("C_Login"), shim.number("C_Sign")) == calls
    town.unlock("dan")
