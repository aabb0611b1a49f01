"""Who becomes a person to the service: an operator names her, she sets the code, and nobody else ever does."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pyotp
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor
from sqlalchemy import select

from signer import credential as rows
from signer.clock import Clock
from signer.code import Code, CodesError
from signer.config import ROLES, Caller
from signer.credential import Output
from signer.gate import Gate
from signer.queued import CONTACT_ROWS_MAX
from signer.store import enrolments, subjects
from signer.subject import ENROLMENT_S
from signer.v1 import operator_pb2, signing_pb2
from signer.v1 import operator_pb2 as op
from signer.v1 import signing_pb2 as pb
from tests.pki import Pki
from tests.signer.access.calls import Answer, digests, said, signed, statuses
from tests.signer.people.office import SECRET, WAIT_S, Office
from tests.signer.people.persons import Person, Town, redeem, terms
from tests.signer.people.test_bound import drained

HOUR_S = 3_600.0
OTHER_SECRET = "another code 8"


@pytest.fixture
def office(tmp_path: Path) -> Office:
    """With a credential for each of three people, as an operator has stored them."""
    made, pki = Office(tmp_path), Pki(tmp_path / "pki")
    for name in ("ada", "bob", "cleo"):
        stored(made, pki, name)
    return made


def stored(office: Office, pki: Pki, name: str, gate: Gate = Gate.CODE_HOTP) -> None:
    own = ec.generate_private_key(ec.SECP256R1()).public_key()  # one key, one owner
    spki = own.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    rows.add(
        office.engine, name, pki.signer(name, spki), cka_id=None, key_label="key", outputs=[Output.RAW], clock=Clock(),
        gate=gate, subject=name,
    )  # fmt: skip


def state(office: Office, name: str = "ada") -> tuple[str, str]:
    """Of the subject ('' where there is none) and of the credential of the same name."""
    with office.engine.connect() as connection:
        found = connection.execute(select(subjects.c.state).where(subjects.c.name == name)).scalar_one_or_none()
    return found or "", rows.read(office.engine)[name].state.value


def resumed(office: Office, name: str = "ada") -> tuple[str, str]:
    """As `paraph credential resume` does it."""
    rows.set_state(office.engine, name, rows.State.ACTIVE, Clock())
    return state(office, name)


def refused(answer: Answer) -> tuple[str, str]:
    assert answer.code != "OK", answer
    return answer.brief


# ---- the operator names, the person sets


async def test_pending_until_the_person_sets_the_code(office: Office) -> None:
    """
    An operator names a subject and a contact; PENDING are she and her credential until she has set the code and shown a
    first one-time code, whatever the operator resumes meanwhile. The enrolment code goes to the contact, and is good once.
    """
    assert state(office) == ("", "PENDING") == resumed(office)
    assert await office.named("ada") == 0
    assert state(office) == ("PENDING", "PENDING") == resumed(office)
    await office.consent.suspend("ada", "operator", resume=True)
    assert state(office) == ("PENDING", "PENDING") == resumed(office)
    code = office.code("ada", "enrolment-code")
    ada = await office.finish("ada", "hotp", code)
    assert state(office) == ("ACTIVE", "ACTIVE")
    assert await office.reason(office.authorise(ada)) == "OK"
    for begun in (office.consent.begin_completing(code, "", None), office.finish("ada", "hotp", code)):
        assert await office.reason(begun) == "ENROLMENT_UNKNOWN"
    stored(office, Pki(office.path.parent / "more"), "dan")
    assert state(office, "dan") == ("", "PENDING"), "of somebody else"


@pytest.mark.parametrize("factor", ["hotp", "totp", "sent"])
async def test_the_first_one_time_code(office: Office, factor: str) -> None:
    """
    Without the first one-time code nothing is set: wrong ones are counted like any others, five lock, and 15 minutes later
    the enrolment goes on. A code against the rules is refused, and nobody is told apart by it.
    """
    await office.named("ada", factor)
    code = office.code("ada", "enrolment-code")
    for _ in range(5):
        wrong = await office.reason(office.consent.complete(code, office.given(SECRET, "000000"), None))
        assert wrong == ("OTP_EXPIRED" if factor == "sent" else "OTP_INCORRECT")
    assert await office.reason(office.consent.complete(code, office.given(SECRET, "000000"), None)) == "OTP_LOCKED"
    assert state(office) == ("PENDING", "PENDING")
    office.clock.passes(15 * 60 + 1)
    ada = await office.finish("ada", factor, code)
    office.clock.passes(60)
    assert state(office) == ("ACTIVE", "ACTIVE")
    assert await office.reason(office.authorise(ada)) == "OK"


async def test_a_lost_hasher_costs_nothing(office: Office) -> None:
    """Where her code cannot be hashed now, nothing is set and no attempt counted; the enrolment code stays good."""
    await office.named("ada")
    code = office.code("ada", "enrolment-code")
    office.codes.fails = CodesError("CODES_BUSY")
    for _ in range(10):
        assert await office.reason(office.finish("ada", "hotp", code)) == "CODES_BUSY"
    office.codes.fails = None
    await office.finish("ada", "hotp", code)


async def test_over_after_its_time(office: Office) -> None:
    """An enrolment code is good from when it is sent for 72 hours, to the second, and what was not sent is no code."""
    await office.named("ada")
    code = office.code("ada", "enrolment-code")
    with office.engine.connect() as connection:
        [row] = connection.execute(select(enrolments)).all()
    office.clock.passes(ENROLMENT_S - 1)
    name, uri, _ = await office.consent.begin_completing(code, "", None)
    assert (name, pyotp.parse_uri(uri).name) == ("ada", "ada")
    office.clock.passes(1)
    for begun in (office.consent.begin_completing(code, "", None), office.finish("ada", "hotp", code)):
        assert await office.reason(begun) == "ENROLMENT_UNKNOWN"
    assert state(office) == ("PENDING", "PENDING")
    assert row.code.hex() not in code


async def test_no_enrolment_code_is_guessed(office: Office) -> None:
    """80 random bits, and a source has 30 attempts in 15 minutes; a person's own certificate is good for herself alone."""
    await office.named("ada")
    code = office.code("ada", "enrolment-code")
    assert len(code.replace("-", "")) == 16
    assert await office.reason(office.consent.begin_completing(code, "192.0.2.1", "bob")) == "ENROLMENT_UNKNOWN"
    for number in range(29):
        guess = f"AAAA-BBBB-CCCC-{number:04}"
        assert await office.reason(office.consent.begin_completing(guess, "192.0.2.1", None)) == "ENROLMENT_UNKNOWN"
    assert await office.reason(office.consent.begin_completing(code, "192.0.2.1", None)) == "OTP_LOCKED"
    assert (
        await office.reason(office.consent.begin_completing(code.lower().replace("-", " "), "192.0.2.2", "ada")) == "OK"
    )


# ---- once more


async def test_re_enrolment_takes_everything_away_at_once(office: Office) -> None:
    """
    Enrolled again, she has nothing at once: what she has allowed, a code that was sent, her secret code and her device are
    good for nothing, her credential is PENDING; the old contact is told at once when it begins, and nothing is sent to the
    new one before. The others have what they had.
    """
    ada, bob = await office.enrol("ada", "sent"), await office.enrol("bob")
    reference, _ = await office.authorise(ada)
    office.clock.passes(60)
    otp, bobs = await office.otp(ada), (await office.authorise(bob))[0]
    office.messages()
    assert await office.named("ada", "hotp", "ada-new") == WAIT_S
    assert state(office) == ("PENDING", "PENDING") == resumed(office)
    begins = f"{datetime.fromtimestamp(office.steady.now() + WAIT_S).astimezone():%Y}"
    [(to, template, text)] = office.messages()
    assert (to, template) == ("ada", "enrolment-revoked")
    assert begins in text
    assert await office.reason(office.redeem(ada, reference)) == "AUTHZ_UNKNOWN"
    assert await office.reason(office.authorise(ada, otp=otp)) == "SUBJECT_SUSPENDED"
    assert await office.reason(office.otp(ada)) == "SUBJECT_SUSPENDED"
    assert await office.reason(office.redeem(bob, bobs)) == "OK"
    with office.engine.connect() as connection:
        [row] = connection.execute(select(subjects).where(subjects.c.name == "ada")).all()
    assert (row.code, row.seed, row.last) == ("", b"", 0)


async def test_re_enrolment_waits(office: Office) -> None:
    """
    The new enrolment waits for `wait_h`, 24 hours: its code is sent to the new contact then, and not a second earlier; with
    it she sets a new code, and the old one is wrong.
    """
    old = await office.enrol("ada")
    assert await office.named("ada", "hotp", "ada-new") == WAIT_S
    office.messages()
    for passed_s in (HOUR_S, WAIT_S - HOUR_S - 1):
        office.clock.passes(passed_s)
        await office.consent.look_around()
        assert office.messages() == []
    office.clock.passes(1)
    await office.consent.look_around()
    code = office.code("ada-new", "enrolment-code")
    await office.consent.look_around()
    assert office.messages() == [], "it is sent once"
    new = await office.finish("ada", "hotp", code, OTHER_SECRET)
    assert state(office) == ("ACTIVE", "ACTIVE")
    assert await office.reason(office.authorise(new, secret=OTHER_SECRET)) == "OK"
    assert await office.reason(office.authorise(new, secret=SECRET)) == "OTP_INCORRECT"
    assert await office.reason(office.authorise(old, secret=OTHER_SECRET)) == "OTP_INCORRECT"


async def test_the_wait_cannot_be_shortened(office: Office) -> None:
    """
    Asking again does not shorten the wait, nor does suspending and resuming in between; asking again for another contact
    begins it anew, and the contact that is replaced is told: nobody's address slips in at the last moment.
    """
    await office.enrol("ada")
    await office.named("ada", contact="ada-new")
    office.messages()
    office.clock.passes(HOUR_S)
    assert await office.named("ada", contact="ada-new") == WAIT_S - HOUR_S
    await office.consent.suspend("ada", "operator", resume=False)
    await office.consent.suspend("ada", "operator", resume=True)
    office.messages()
    assert await office.named("ada", contact="ada-new") == WAIT_S - HOUR_S
    office.clock.passes(WAIT_S - HOUR_S - 1)
    assert office.messages() == []
    assert await office.named("ada", contact="mallory") == WAIT_S
    assert [(to, template) for to, template, _ in office.messages()] == [("ada-new", "enrolment-revoked")]
    office.clock.passes(WAIT_S)
    await office.consent.look_around()
    code = office.code("mallory", "enrolment-code")
    assert await office.named("ada", contact="ada-new") == WAIT_S, "the code that was sent is none any more"
    assert await office.reason(office.consent.begin_completing(code, "", None)) == "ENROLMENT_UNKNOWN"


async def test_who_never_was_enrolled_does_not_wait(office: Office) -> None:
    """
    There is nothing to be taken away, and a contact that was mistyped is corrected at once: it is told that the code it got
    is none any more, once, and nobody else is told of anything.
    """
    assert await office.named("ada", contact="mistyped") == 0
    [(to, template, text)] = office.messages()
    assert (to, template) == ("mistyped", "enrolment-code")
    first = text.splitlines()[0].partition(":")[2].strip()
    assert await office.named("ada", contact="ada") == 0
    told = office.messages()
    assert {(to, template) for to, template, _ in told} == {("mistyped", "enrolment-moved"), ("ada", "enrolment-code")}
    assert await office.reason(office.consent.begin_completing(first, "", None)) == "ENROLMENT_UNKNOWN"
    assert await office.named("ada", contact="ada") == 0
    [(to, template, text)] = office.messages()
    assert (to, template) == ("ada", "enrolment-code"), "the contact is the same, and nobody else's"
    code = text.splitlines()[0].partition(":")[2].strip()
    await office.finish("ada", "hotp", code)


# ---- suspended


async def test_suspend_and_resume(office: Office) -> None:
    """
    A suspended person's codes, what she has allowed and a code that was sent are good for nothing, and she is told;
    resumed, her own code and device are good again, and what she had allowed before is not. Nobody else is touched.
    """
    ada, bob = await office.enrol("ada", "sent"), await office.enrol("bob")
    reference, bobs = (await office.authorise(ada))[0], (await office.authorise(bob))[0]
    office.clock.passes(60)
    otp = await office.otp(ada)
    await office.consent.suspend("ada", "operator", resume=False)
    assert [(to, template) for to, template, _ in office.messages()] == [("ada", "suspended")]
    assert state(office)[0] == "SUSPENDED"
    assert await office.reason(office.redeem(ada, reference)) != "OK"
    assert await office.reason(office.authorise(ada, otp=otp)) == "SUBJECT_SUSPENDED"
    assert await office.reason(office.otp(ada)) == "SUBJECT_SUSPENDED"
    assert await office.reason(office.redeem(bob, bobs)) == "OK"
    await office.consent.suspend("ada", "operator", resume=True)
    assert state(office) == ("ACTIVE", "ACTIVE")
    assert await office.reason(office.redeem(ada, reference)) == "AUTHZ_UNKNOWN"
    assert await office.reason(office.authorise(ada, otp=otp)) == "OTP_EXPIRED"
    office.clock.passes(60)
    assert await office.reason(office.authorise(ada)) == "OK"


async def test_suspended_although_she_cannot_be_told(office: Office) -> None:
    """A contact that takes no more messages keeps nobody from being suspended; enrolled anew is who can be told of it."""
    await office.enrol("ada")
    for _ in range(CONTACT_ROWS_MAX + 1):
        await office.consent.suspend("ada", "operator", resume=False)
        assert state(office)[0] == "SUSPENDED"
        await office.consent.suspend("ada", "operator", resume=True)
    assert await office.reason(office.named("ada", contact="ada-new")) == "CONTACT_UNREACHABLE"
    assert state(office) == ("ACTIVE", "ACTIVE")
    assert len(office.messages()) == CONTACT_ROWS_MAX
    assert await office.named("ada", contact="ada-new") == WAIT_S


async def test_an_authorisation_that_was_redeemed_before(office: Office) -> None:
    """What a request has redeemed already goes no further while she is suspended."""
    ada = await office.enrol("ada")
    reference, _ = await office.authorise(ada)
    ask = office.ask(office.credential(ada), reference)
    assert await office.reason(office.consent.redeem(ask)) == "OK"
    await office.consent.suspend("ada", "operator", resume=False)
    assert await office.reason(office.consent.redeem(ask)) == "SUBJECT_SUSPENDED"


async def test_suspended_before_the_end_of_the_enrolment(office: Office) -> None:
    """
    A suspension is ended by an operator alone: who completes an enrolment meanwhile is refused, an enrolment that begins
    meanwhile is not told of, and both go on once she is resumed.
    """
    await office.named("ada")
    code = office.code("ada", "enrolment-code")
    await office.consent.suspend("ada", "operator", resume=False)
    for begun in (
        office.consent.begin_completing(code, "", None),
        office.consent.complete(code, office.given(SECRET, "000000"), None),
    ):
        assert await office.reason(begun) == "SUBJECT_SUSPENDED"
    assert state(office) == ("SUSPENDED", "PENDING") == resumed(office)
    await office.consent.suspend("ada", "operator", resume=True)
    await office.finish("ada", "hotp", code)
    assert state(office) == ("ACTIVE", "ACTIVE")
    await office.named("ada")
    await office.consent.suspend("ada", "operator", resume=False)
    office.messages()
    office.clock.passes(WAIT_S)
    await office.consent.look_around()
    assert office.messages() == []
    await office.consent.suspend("ada", "operator", resume=True)
    await office.consent.look_around()
    await office.finish("ada", "hotp", office.code("ada", "enrolment-code"))


async def test_suspended_while_she_completes_it(office: Office) -> None:
    """Also between her first one-time code and the end of her code's hashing."""
    await office.named("ada")
    code, first = office.code("ada", "enrolment-code"), Person("ada", "hotp")
    _, first.uri, _ = await office.consent.begin_completing(code, "", None)
    hash_ = office.codes.hash

    async def suspended_meanwhile(code: Code) -> str:
        await office.consent.suspend("ada", "operator", resume=False)
        return str(await hash_(code))

    office.codes.hash = suspended_meanwhile
    given = office.given(SECRET, first.otp())
    assert await office.reason(office.consent.complete(code, given, None)) == "SUBJECT_SUSPENDED"
    assert state(office) == ("SUSPENDED", "PENDING")


async def test_resume_never_activates_who_is_not_enrolled(office: Office) -> None:
    """
    `paraph credential resume` makes a person's credential ACTIVE only while the person is; what it found suspended or not
    enrolled becomes ACTIVE with the person, and a credential that is suspended itself stays so.
    """
    await office.enrol("ada")
    rows.set_state(office.engine, "ada", rows.State.SUSPENDED, Clock())
    assert state(office) == ("ACTIVE", "SUSPENDED")
    assert resumed(office) == ("ACTIVE", "ACTIVE")
    await office.consent.suspend("ada", "operator", resume=False)
    assert resumed(office) == ("SUSPENDED", "PENDING")
    await office.consent.suspend("ada", "operator", resume=True)
    assert state(office) == ("ACTIVE", "ACTIVE")
    rows.set_state(office.engine, "ada", rows.State.SUSPENDED, Clock())
    await office.named("ada")
    assert state(office) == ("PENDING", "SUSPENDED")
    assert resumed(office) == ("PENDING", "PENDING")
    rows.set_state(office.engine, "ada", rows.State.SUSPENDED, Clock())
    office.clock.passes(WAIT_S)
    await office.consent.look_around()
    await office.finish("ada", "hotp", office.code("ada", "enrolment-code"))
    assert state(office) == ("ACTIVE", "SUSPENDED")


# ---- the operator's calls


def fields(message: Descriptor) -> Iterator[str]:
    """The names of all fields of a message and of those in it."""
    for field in message.fields:
        yield field.name
        if field.message_type is not None:
            yield from fields(field.message_type)


def test_no_operators_call_has_a_code() -> None:
    """
    An operator's calls can never set or read a code: none of their messages has a field for one, in or out; and a
    configuration that gives an operator a call which has is refused.
    """
    methods = operator_pb2.DESCRIPTOR.services_by_name["Operator"].methods
    names = {name for one in methods for message in (one.input_type, one.output_type) for name in fields(message)}
    assert len(names) > 40
    assert not [name for name in names if any(w in name for w in ("code", "secret", "otp", "seed", "password", "uri"))]
    signing = signing_pb2.DESCRIPTOR.services_by_name["Signing"].methods
    taking = {one.name for one in signing if {"secret_code", "otp"} & {field.name for field in one.input_type.fields}}
    assert taking == {"Authorize", "SignBatch", "Authenticate", "CompleteEnrolment", "ChangeCode"}
    assert not taking & ROLES["operator"]
    for name in taking:
        with pytest.raises(ValueError, match=f"the role operator has no {name}"):
            Caller(name="operator", role="operator", rpcs=frozenset({name}))


def cli(town: Town, *words: str) -> str:
    done = town.rig.command("credential", "--config", town.rig.config, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_through_the_daemon(town: Town) -> None:
    """
    An operator names her, and can do nothing more: PENDING is her credential, whatever is resumed by call or command, until
    she has set the code; every call of an operator that would bring a code is refused; no answer to an operator has the
    enrolment code or the seed in it. With the code, once, in the window, she is enrolled, and signs.
    """
    operator, before, after = town["operator"].operator, signed(town.rig), len(town.inbox.messages)
    pending = ("FAILED_PRECONDITION", "CREDENTIAL_PENDING")
    answers = [operator.EnrolSubject(town.enrolment("fay", "hotp"), timeout=10)]
    code = town.inbox.code("fay", "enrolment-code", after)
    cli(town, "resume", "fay")
    assert {one["name"]: one["state"] for one in json.loads(cli(town, "list", "--json"))}["fay"] == "PENDING"
    for suspended in (True, False):
        answers.append(operator.SetCredentialState(op.SetCredentialStateRequest(name="fay", suspended=suspended)))
    assert answers[-1].state == "PENDING"
    answers.append(operator.SuspendSubject(op.SuspendSubjectRequest(subject="fay", resume=True)))
    answers.append(operator.UnlockSubject(op.UnlockSubjectRequest(subject="fay")))
    fay = Person("fay", "hotp")
    assert refused(redeem(town, b"", digests(1), credential="fay")) == pending
    assert refused(town.authorise(fay, terms(digests(1), "fay"), otp="000000")) == pending
    for method in signing_pb2.DESCRIPTOR.services_by_name["Signing"].methods:
        request = message_factory.GetMessageClass(method.input_type)()
        call = getattr(town["operator"].signing, method.name)
        wanted = iter([request]) if method.client_streaming else request
        answer = said(lambda: drained(call(wanted, timeout=10)))  # noqa: B023 -- called at once
        assert refused(answer) == ("PERMISSION_DENIED", "RPC_NOT_ALLOWED"), method.name
    completing = pb.CompleteEnrolmentRequest(enrolment=code)
    assert refused(said(lambda: town["ada-laptop"].signing.CompleteEnrolment(completing))) == (
        "NOT_FOUND",
        "ENROLMENT_UNKNOWN",
    )
    town.people["fay"] = fay
    town.finish(fay, code)
    seed = pyotp.parse_uri(fay.uri).secret
    told = b"".join(answer.SerializeToString() for answer in answers)
    assert not [secret for secret in (code, code.replace("-", ""), seed, fay.code) if secret.encode() in told]
    assert refused(said(lambda: town["window"].signing.CompleteEnrolment(completing))) == (
        "NOT_FOUND",
        "ENROLMENT_UNKNOWN",
    )
    reference = town.reference(fay, terms(digests(1), "fay"))
    assert signed(town.rig) == before
    assert statuses(redeem(town, reference, digests(1), credential="fay")) == ["SIGNED"]
