"""A person chooses another secret code: by the one that she has and a one-time code, and her contact is told."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select, update

from signer.code import CodesError
from signer.errors import Refusal
from signer.secret import Code, CodeError
from signer.store import subjects
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
    who = "window 192.0.2.7"
    assert {"subject": "ada", "what": "secret code changed", "who": who} in [fields for _, fields in office.book.notes]
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
async def test_a_hash_of_an_older_setting(office: Office, factor: str) -> None:
    """
    It is good, and replaced once both codes are right, and not before; a change replaces it by the new code's.
    """
    ada = await office.enrol("ada", factor)
    older(office, "ada")
    assert await allows(office, ada, "not her code") == "OTP_INCORRECT"
    assert await office.reason(office.authorise(ada, otp="000000")) in {"OTP_INCORRECT", "OTP_EXPIRED"}
    assert stored(office, "ada") == f"old hash of {SECRET}"
    office.clock.passes(60)
    await office.authorise(ada)
    assert stored(office, "ada") == f"hash of {SECRET}"
    assert await allows(office, ada, SECRET) == "OK"
    older(office, "ada")
    office.clock.passes(60)
    assert await change(office, ada) == "ada"
    assert stored(office, "ada") == f"hash of {NEW}"


def older(office: Office, name: str) -> None:
    """Her hash is one that our predecessor has made."""
    with office.engine.begin() as connection:
        mine = subjects.c.name == name
        connection.execute(update(subjects).where(mine).values(code=f"old hash of {SECRET}"))


def stored(office: Office, name: str) -> str:
    with office.engine.connect() as connection:
        return str(connection.execute(select(subjects.c.code).where(subjects.c.name == name)).scalar_one())


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
    One that is easy to guess, or the one that she has, is refused where her codes are right, and then no attempt is counted
    and no one-time code used up. What whoever guesses would try first is known: her name, her contact, her products, what
    their certificates say of her, the service.
    """
    ada = await office.enrol("ada")
    code = await one_time(office, ada)
    for new, reason in ((WEAK, "CODE_WEAK"), (SECRET, "CODE_RULES")) * 5:
        assert await change(office, ada, new=new, otp=code) == reason
    assert {"ada", "Paraph", "127"} <= set(office.codes.judged[-1])
    assert await change(office, ada, otp=code) == "ada"


async def test_only_she_learns_that_it_is_easy(office: Office) -> None:
    """
    With a wrong code of either kind it is told as wrong, and counted, whatever the new one is: so nobody learns by it what
    she, or her product's number, is built from.
    """
    ada = await office.enrol("ada")
    good = await one_time(office, ada)
    for secret, code in (("not her code", good), (SECRET, "000000"), ("not her code", "000000")):
        assert await change(office, ada, secret=secret, new=WEAK, otp=code) == "OTP_INCORRECT"
    for _ in range(2):
        assert await change(office, ada, new=WEAK, otp="000000") == "OTP_INCORRECT"
    assert await change(office, ada, new=WEAK, otp=good) == "OTP_LOCKED"


async def test_what_the_old_code_allowed_ends(office: Office) -> None:
    """
    An authorisation that was not redeemed yet is none after the change; and a code that was found right before the change
    allows nothing after it.
    """
    ada = await office.enrol("ada", "totp")
    reference, _ = await office.authorise(ada)
    office.clock.passes(60)
    slow = office.codes.matches

    async def changed_meanwhile(code: Code, stored: str) -> bool:
        office.codes.matches = slow
        is_right = await slow(code, stored)
        office.clock.passes(60)
        assert await change(office, ada) == "ada"
        office.clock.passes(60)
        return bool(is_right)

    office.codes.matches = changed_meanwhile
    later = ada.otp(office.steady.now() + 120)
    assert await office.reason(office.authorise(ada, otp=later)) == "OTP_INCORRECT"
    assert await office.reason(office.redeem(ada, reference)) == "AUTHZ_UNKNOWN"


async def test_a_change_that_fails_is_written_down(office: Office) -> None:
    """Where she was suspended at the last moment, the ledger says that it was refused, and by whom it was asked for."""
    ada = await office.enrol("ada")
    note = office.book.note

    async def suspended_meanwhile(kind: str, fields: dict[str, str]) -> None:
        await note(kind, fields)
        if fields["what"] == "secret code changed":
            await office.consent.suspend("ada", "operator", resume=False)

    office.book.note = suspended_meanwhile
    assert await change(office, ada) == "SUBJECT_SUSPENDED"
    rows = [fields for _, fields in office.book.notes]
    assert {"subject": "ada", "what": "secret code changed", "who": "window 192.0.2.7"} in rows
    refused = {"reason": "SUBJECT_SUSPENDED", "subject": "ada", "credential": "ada", "source": "window 192.0.2.7"}
    assert refused in rows


async def test_a_shorter_code_of_before_still_works(office: Office) -> None:
    """One of six characters, chosen when that was allowed, allows and is changed; a new one has eight."""
    ada = await office.enrol("ada")
    with office.engine.begin() as connection:
        connection.execute(update(subjects).values(code="hash of 390257"))
    assert await office.reason(office.authorise(ada, secret="390257")) == "OK"
    with pytest.raises(CodeError, match="8 to 64"):
        Code.chosen("390257")
    assert await change(office, ada, secret="390257") == "ada"


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
    """Of a product that there is not the same is asked, and told: the new code is hashed and judged, easy or not."""
    given = office.given(SECRET, "000000", "window 192.0.2.7")
    for new in (WEAK, NEW):
        spent = office.codes.spent
        assert await office.reason(office.consent.nobody(given, Code(new))) == "OK"
        assert office.codes.spent == spent + 1
        assert office.codes.judged[-1] == ["Paraph"]
