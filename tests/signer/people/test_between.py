"""What happens between two steps: somebody else acts, a call goes away, a key has two names."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import update

from signer import credential as rows
from signer.clock import Clock
from signer.credential import CredentialError, Output
from signer.gate import Gate
from signer.store import credentials
from tests.pki import Pki
from tests.signer.people.office import SECRET, SPKI, Office, Person


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


async def test_who_goes_away_has_tried_nothing(office: Office) -> None:
    """A call that is cancelled before it was answered costs no attempt, however often."""
    ada = await office.enrol("ada")
    matches = office.codes.matches

    async def hangs(*_: object) -> bool:
        await asyncio.Event().wait()
        return False

    office.codes.matches = hangs
    for _ in range(12):
        call = asyncio.ensure_future(office.authorise(ada, otp="000000"))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    office.codes.matches = matches
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
    for gate, subject in ((Gate.CALLER, ""), (Gate.CODE_TOTP, "mallory"), (Gate.TOKEN_PIN, "ada")):
        with pytest.raises(CredentialError, match="one key, one owner"):
            add("later", gate, subject)
