"""A person chooses another secret code: by the one that she has and a one-time code, and her contact is told."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from signer.code import CodesError
from signer.errors import Refusal
from signer.secret import Code
from tests.signer.people.office import SECRET, WEAK, Office, Person

NEW = "clay and kiln 5"


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


async def one_time(office: Office, person: Person) -> str:
    """A one-time code that is right now, for a change."""
    if person.factor != "sent":
        return person.otp(office.steady.now())
    await office.consent.send_change_otp(office.credential(person), "window")
    return office.code(person.name, "change-code")


async def change(
    office: Office, person: Person, *, secret: str = SECRET, new: str = NEW, otp: str | None = None
) -> str:
    """What it is answered: the subject, or a refusal's reason."""
    given = office.given(secret, await one_time(office, person) if otp is None else otp, "window 192.0.2.7")
    try:
        return await office.consent.change_code(office.credential(person), given, Code(new))
    except Refusal as refusal:
        return refusal.reason


async def allows(office: Office, person: Person, secret: str) -> str:
    office.clock.passes(60)  # a step of a device, and a message, is good once
    return await office.reason(office.authorise(person, secret=secret))


@pytest.mark.parametrize("factor", ["hotp", "totp", "sent"])
async def test_the_new_code_and_no_longer_the_old(office: Office, factor: str) -> None:
    """
    With the right codes the new secret code is good at once and the old one no more; it is written down before, and her
    contact is told when it was, and whom to tell if it was not she. The one-time code is used up.
    """
    ada = await office.enrol("ada", factor)
    used = await one_time(office, ada)
    office.messages()
    assert await change(office, ada, otp=used) == "ada"
    assert {"subject": "ada", "what": "secret code changed", "who": "ada"} in [
        fields for _, fields in office.book.notes
    ]
    [(to, template, text)] = office.messages()
    assert (to, template) == ("ada", "code-changed")
    assert datetime.fromtimestamp(office.steady.now(), UTC).strftime("%Y-%m-%d %H:%M") in text
    assert "the help desk" in text
    assert NEW not in text
    again = await change(office, ada, secret=NEW, new=SECRET, otp=used)
    assert again in {"OTP_USED", "OTP_INCORRECT", "OTP_EXPIRED"}
    assert await allows(office, ada, SECRET) == "OTP_INCORRECT"
    assert await allows(office, ada, NEW) == "OK"


@pytest.mark.parametrize("factor", ["hotp", "totp", "sent"])
async def test_nothing_without_both_codes(office: Office, factor: str) -> None:
    """
    A wrong secret code and a wrong one-time code are told alike and counted like any others: five lock, also for signing.
    The old secret code stays, and nobody is told of a change.
    """
    ada = await office.enrol("ada", factor)
    good = await one_time(office, ada)
    wrong = [
        ("not her code", good),
        (SECRET, "000000"),
        ("not her code", "000000"),
        (SECRET, "000000"),
        (SECRET, "000000"),
    ]
    for secret, code in wrong:
        assert await change(office, ada, secret=secret, otp=code) == "OTP_INCORRECT"
    assert await change(office, ada, otp=good) == "OTP_LOCKED"
    assert await office.reason(office.authorise(ada, otp=good)) == "OTP_LOCKED"
    assert "code-changed" not in [template for _, template, _ in office.messages()]
    office.clock.passes(15 * 60 + 1)
    assert await allows(office, ada, SECRET) == "OK"


async def test_an_easy_code_costs_nothing(office: Office) -> None:
    """
    One that is easy to guess is refused before anything is compared: no attempt is counted and no one-time code used up.
    What whoever guesses would try first is known: her name, her contact, her products, the service.
    """
    ada = await office.enrol("ada")
    code = await one_time(office, ada)
    before = len(office.codes.compared)
    for _ in range(10):
        assert await change(office, ada, new=WEAK, otp=code) == "CODE_WEAK"
    assert len(office.codes.compared) == before
    assert {"ada", "Paraph", "127"} <= set(office.codes.judged[-1])
    assert await change(office, ada, otp=code) == "ada"


async def test_enrolment_takes_no_easy_code(office: Office) -> None:
    """The same when she sets her first one: nothing is counted, and the enrolment code stays good."""
    await office.named("ada")
    code = office.code("ada", "enrolment-code")
    for _ in range(10):
        assert await office.reason(office.finish("ada", "hotp", code, WEAK)) == "CODE_WEAK"
    await office.finish("ada", "hotp", code)


async def test_who_may_not(office: Office) -> None:
    """Somebody suspended, one whose device makes the codes, a ledger that cannot be written, hashers that are busy: nothing changes."""
    ada = await office.enrol("ada")
    await office.consent.suspend("ada", "operator", resume=False)
    code = ada.otp()
    assert await change(office, ada, otp=code) == "SUBJECT_SUSPENDED"
    with pytest.raises(Refusal) as error:
        await office.consent.send_change_otp(office.credential(ada), "window")
    assert error.value.reason == "GATE_MISMATCH"
    await office.consent.suspend("ada", "operator", resume=True)
    office.book.trouble = "CHECKPOINT_OVERDUE"
    assert await change(office, ada, otp=code) == "CHECKPOINT_OVERDUE"
    office.book.trouble = ""
    office.codes.fails = CodesError("CODES_BUSY")
    assert await change(office, ada, otp=code) == "CODES_BUSY"
    office.codes.fails = None
    assert await allows(office, ada, SECRET) == "OK"


async def test_of_two_at_once_one_counts(office: Office) -> None:
    """Two changes by the same old code at the same time: one is done, and the other is told that its code is not right."""
    ada = await office.enrol("ada")
    first, second = ada.otp(), ada.otp()
    answers = await asyncio.gather(
        change(office, ada, new=NEW, otp=first), change(office, ada, new="a third code 6", otp=second)
    )
    assert "ada" in answers
    stored = {new: await allows(office, ada, new) for new in (NEW, "a third code 6")}
    assert list(stored.values()).count("OK") == 1, (answers, stored)


async def test_codes_for_nobody(office: Office) -> None:
    """Of a product that there is not neither the answers nor what they cost tell anything."""
    given = office.given(SECRET, "000000", "window 192.0.2.7")
    assert await office.reason(office.consent.nobody(given, Code(WEAK))) == "CODE_WEAK"
    assert office.codes.judged[-1] == ["Paraph"]
    spent = office.codes.spent
    assert await office.reason(office.consent.nobody(given, Code(NEW))) == "OK"
    assert office.codes.spent == spent + 1
