"""What happens between two steps: somebody else acts, a call goes away, a key has two names."""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from signer import credential as rows
from signer import guesses, subject
from signer.clock import Clock
from signer.credential import CredentialError, Output
from signer.errors import Refusal
from signer.gate import Gate
from signer.secret import Code
from signer.store import credentials, open_store
from tests.pki import Pki
from tests.signer.people.office import SECRET, SPKI, Office, Person

OTHER = "entirely other 9"


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


async def test_suspended_while_the_call_waits(office: Office) -> None:
    """A credential that an operator has suspended after the person allowed it, and before the key was used, signs nothing."""
    ada = await office.enrol("ada")
    reference, _ = await office.authorise(ada)
    ask = office.ask(office.credential(ada), reference)
    with office.engine.begin() as connection:
        connection.execute(update(credentials).where(credentials.c.name == "ada").values(state="SUSPENDED"))
    assert await office.reason(office.consent.redeem(ask)) == "CREDENTIAL_SUSPENDED"


async def test_enrolled_anew_in_the_middle(office: Office) -> None:
    """Who has an enrolment code that was replaced while her secret code was hashed completes nothing with it."""
    await office.named("ada")
    old = office.code("ada", "enrolment-code")
    _, uri, _ = await office.consent.begin_completing(old, "", None)
    hash_ = office.codes.hash

    async def meanwhile(code: object) -> object:
        await office.named("ada")
        return await hash_(code)

    office.codes.hash = meanwhile

    otp = Person("ada", "hotp", uri).otp()
    assert await office.reason(office.consent.complete(old, office.given(SECRET, otp), None)) == "ENROLMENT_UNKNOWN"
    office.codes.hash = hash_
    await office.finish("ada", "hotp", office.code("ada", "enrolment-code"))


async def test_a_code_that_was_changed_in_the_middle(office: Office) -> None:
    """
    A secret code that was changed while it was compared is a wrong one by then: it allows nothing any more, and what came with
    it from her device is used up, as by any wrong one.
    """
    ada = await office.enrol("ada")
    first, second = ada.otp(), ada.otp()
    matches = office.codes.matches

    async def meanwhile(code: Code, stored: str) -> bool:
        office.codes.matches = matches
        changes = office.consent.change_code(office.credential(ada), office.given(SECRET, first), Code("a new code 8"))
        assert await office.reason(changes) == "OK"
        return bool(await matches(code, stored))

    office.codes.matches = meanwhile
    assert await office.reason(office.authorise(ada, otp=second)) == "OTP_INCORRECT"
    assert await office.reason(office.authorise(ada, secret="a new code 8", otp=second)) == "OTP_INCORRECT"
    assert await office.reason(office.authorise(ada, secret="a new code 8")) == "OK"


async def test_a_code_alone_cannot_be_tried(office: Office) -> None:
    """
    Whether the secret code is right is told by nothing that is said to who has no one-time code: the answers to a right and
    to a wrong one are the same, of a code that is wrong, used, or was never sent.
    """
    ada, bob = await office.enrol("ada"), await office.enrol("bob", "sent")
    used = ada.otp()
    await office.authorise(ada, otp=used)
    for person, otp in ((ada, "000000"), (ada, used), (bob, "000000")):
        answers = {await office.reason(office.authorise(person, secret=one, otp=otp)) for one in (SECRET, "wrong one")}
        assert len(answers) == 1, (person.name, answers)


def before_each(office: Office, number: int, act: Callable[[], Coroutine[Any, Any, object]]) -> Callable[[], bool]:
    """`act` is done, whole, before the transaction of this number that `Consent` begins; asked whether it was, it is no more."""
    consent: Any = office.consent
    real, begun = consent._do, itertools.count()
    done = False

    async def transact(one: Any) -> Any:
        nonlocal done
        if not done and next(begun) == number:
            done = True
            consent._do = consent._proof._transact = real
            await act()
        return await real(one)

    def was_done() -> bool:
        consent._do = consent._proof._transact = real
        return done

    consent._do = consent._proof._transact = transact
    return was_done


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("is_changed", [True, False])
async def test_taken_away_before_it_was_allowed(tmp_path: Path, number: int, *, is_changed: bool) -> None:
    """
    Whatever step of an authorisation comes before it: once she has changed her code, or an operator has suspended and
    resumed her, nothing can be redeemed that was allowed with a proof of before.
    """
    office = Office(tmp_path)
    ada = await office.enrol("ada")
    first, second = ada.otp(), ada.otp()

    async def change() -> None:
        if is_changed:
            await office.consent.change_code(office.credential(ada), office.given(SECRET, second), Code.chosen(OTHER))
        else:
            for resume in (False, True):
                await office.consent.suspend("ada", "operator", resume=resume)

    was_done = before_each(office, number, change)
    reference, refused = b"", ""
    try:
        reference, _ = await office.authorise(ada, otp=first)
    except Refusal as refusal:
        refused = refusal.reason
    is_done = was_done()
    if not is_done:
        await change()
    is_proved_later = is_done and number < 2 and not is_changed  # resumed before the one-time code was looked at
    told = refused or await office.reason(office.redeem(ada, reference))
    assert (told == "OK") is is_proved_later, told
    assert told in {"OK", "AUTHZ_UNKNOWN", "OTP_INCORRECT", "OTP_USED"}


@pytest.mark.parametrize("is_postgresql", [False, True])
async def test_changed_at_the_same_moment(
    request: pytest.FixtureRequest, tmp_path: Path, *, is_postgresql: bool
) -> None:
    """A change of the code that is not committed yet is waited for, and then nothing is allowed with the old code."""
    server = request.getfixturevalue("postgres") if is_postgresql else None
    engine = open_store(server.create("between") if server is not None else tmp_path / "paraph.sqlite")
    office = Office(tmp_path, engine)
    ada = await office.enrol("ada")
    is_changed, may_commit = threading.Event(), threading.Event()

    def change() -> None:
        with engine.begin() as connection:
            subject.change(connection, "ada", f"hash of {SECRET}", f"hash of {OTHER}")
            is_changed.set()
            may_commit.wait(5)

    changing = asyncio.create_task(asyncio.to_thread(change))
    assert await asyncio.to_thread(is_changed.wait, 5)
    asyncio.get_running_loop().call_later(0.5, may_commit.set)
    assert await office.reason(office.authorise(ada)) == "OTP_INCORRECT"
    await changing
    assert await office.reason(office.authorise(ada, secret=OTHER)) == "OK"
    engine.dispose()


async def test_suspended_while_her_token_takes_the_pin(office: Office) -> None:
    """Nothing is allowed by a PIN that was given before an operator suspended her."""
    ada = await office.enrol("ada")
    await office.consent.suspend("ada", "operator", resume=False)
    allowing = office.consent.allow_with_pin(office.credential(ada), office.terms(ada), "window")
    assert await office.reason(allowing) == "SUBJECT_SUSPENDED"


@pytest.mark.parametrize("is_compared", [False, True], ids=["while it is counted", "while it is compared"])
async def test_who_goes_away_has_tried_nothing(
    office: Office, monkeypatch: pytest.MonkeyPatch, *, is_compared: bool
) -> None:
    """A call that is cancelled before it was answered costs no attempt, however often."""
    ada = await office.enrol("ada")
    matches, begun = office.codes.matches, asyncio.Event()
    loop, begin = asyncio.get_running_loop(), guesses.begin

    async def hangs(*_: object) -> bool:
        begun.set()
        await asyncio.Event().wait()
        return False

    def counts(*given: Any, **more: Any) -> int:
        number = begin(*given, **more)
        if not is_compared:
            loop.call_soon_threadsafe(begun.set)
            time.sleep(0.05)  # in the transaction's thread: the call goes away before it ends
        return number

    monkeypatch.setattr(guesses, "begin", counts)
    office.codes.matches = hangs
    for _ in range(12):
        call = asyncio.ensure_future(office.authorise(ada, otp="000000"))
        await begun.wait()
        begun.clear()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    office.codes.matches = matches
    monkeypatch.undo()
    assert await office.reason(office.authorise(ada)) == "OK"


def test_one_key_one_owner(office: Office, tmp_path: Path) -> None:
    """Nobody makes a seal, or another person's credential, of a key that is a person's."""
    pki = Pki(tmp_path / "pki")

    def add(name: str, gate: Gate, subject: str) -> None:
        rows.add(
            office.engine, name, pki.signer(name, SPKI), cka_id=None, key_label="key", outputs=[Output.RAW],
            clock=Clock(), gate=gate, subject=subject,
        )  # fmt: skip

    add("ada", Gate.CODE_TOTP, "ada")
    add("ada-too", Gate.CODE_TOTP, "ada")
    for gate, owner in ((Gate.CALLER, ""), (Gate.CODE_TOTP, "mallory"), (Gate.TOKEN_PIN, "ada")):
        with pytest.raises(CredentialError, match="one key, one owner"):
            add("later", gate, owner)
