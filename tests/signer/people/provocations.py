"""
What refuses people's calls: reason -> how it is provoked, with canaries in every field that the refusal leaves free.

What is not here is in `ELSEWHERE`: faults of the machine, and what no call of people's has. Their texts have no word of
a caller's, which test_secrets.py reads in the source.
"""

import sqlite3
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from signer.code import WAITING_MAX
from signer.v1 import operator_pb2 as op
from signer.v1 import signing_pb2 as pb
from tests.daemon import until
from tests.pki import Authority
from tests.signer.access.calls import Answer, Caller, ask, digests, reload, shim_of, signed
from tests.signer.people.persons import STICK_PIN
from tests.signer.people.stage import CODE, PIN, WRONG_CODE, WRONG_OTP, WRONG_PIN, Stage

Provoke = Callable[[Stage], Answer]
TABLE: dict[str, Provoke] = {}


def provokes(*reasons: str) -> Callable[[Provoke], Provoke]:
    def put(provoke: Provoke) -> Provoke:
        TABLE.update(dict.fromkeys(reasons, provoke))
        return provoke

    return put


def authorize(**more: Any) -> Provoke:
    """Authorize, of terms that are wrong in one way."""
    return lambda stage: stage.call("Authorize", stage.authorize(stage.terms(**({"given": digests(1)} | more))))


def opening(make: Callable[[Stage], Any]) -> Provoke:
    """OpenBatch, with these messages."""
    return lambda stage: stage.heard(
        "OpenBatch", lambda: stage.town["portal"].signing.OpenBatch(make(stage), timeout=20)
    )


# ---- who calls


@provokes("CALLER_UNKNOWN")
def stranger(stage: Stage) -> Answer:
    with Caller(stage.town.rig, "stranger") as caller:
        return stage.call("Authorize", stage.authorize(), caller)


@provokes("CALLER_REVOKED")
def denied(stage: Stage) -> Answer:
    rig = stage.town.rig
    files = rig.pki.caller("window", ends=timedelta(hours=1))
    certificate = x509.load_pem_x509_certificate(files[0].read_bytes())
    from cryptography.hazmat.primitives import hashes

    rig.denied.write_text(certificate.fingerprint(hashes.SHA256()).hex() + "\n")
    assert "reloaded" in reload(rig)
    try:
        with Caller(rig, "window", files) as caller:
            return stage.call("Authorize", stage.authorize(), caller)
    finally:
        rig.denied.write_text("")
        reload(rig)


@provokes("RPC_NOT_ALLOWED")
def submitter(stage: Stage) -> Answer:
    return stage.call("Authorize", stage.authorize(), "portal")


@provokes("METADATA_TOO_LARGE")
def metadata(stage: Stage) -> Answer:
    return stage.call("Authorize", stage.authorize(), metadata=[("x-note", CODE * 500)])


@provokes("MESSAGE_TOO_LARGE")
def message(stage: Stage) -> Answer:
    return stage.call("Authorize", stage.authorize(secret_code=CODE * 60_000))


@provokes("MESSAGE_MALFORMED")
def malformed(stage: Stage) -> Answer:
    raw = stage.town["window"].channel.unary_unary(
        "/signer.v1.Signing/Authorize", lambda data: data, pb.AuthorizeResponse.FromString
    )
    content = b"\x12" + bytes([len(CODE)]) + CODE.encode() + b"\x1a\xff" + WRONG_OTP.encode()
    return stage.heard("Authorize", lambda: raw(content, timeout=10))


# ---- what is named

TABLE["CREDENTIAL_UNKNOWN"] = authorize(credential=CODE)
TABLE["OUTPUT_NOT_ALLOWED"] = authorize(credential="ada-cms")
TABLE["OUTPUT_MISSING"] = authorize(output=0)
TABLE["ALGORITHM_MISSING"] = authorize(signature_algorithm=0)
TABLE["ALGORITHM_NOT_ALLOWED"] = authorize(signature_algorithm="RSA_PSS")
TABLE["CERT_USAGE"] = authorize(credential="ada-login")
TABLE["CREDENTIAL_PENDING"] = authorize(credential="fay")
TABLE["GATE_MISMATCH"] = authorize(credential="p-256")
TABLE["NOT_SEEN"] = authorize(credential="ada-seen")
TABLE["BATCH_EMPTY"] = authorize(given=[])
TABLE["BATCH_TOO_LARGE"] = authorize(given=digests(5_001))
TABLE["AUTHZ_CALLER"] = authorize(caller=CODE)


@provokes("STRING_TOO_LONG")
def long_name(stage: Stage) -> Answer:
    terms = stage.terms(digests(1))
    terms.items[0].name = f"{CODE}\n"
    return stage.call("Authorize", stage.authorize(terms))


@provokes("DIGEST_LENGTH")
def short_digest(stage: Stage) -> Answer:
    terms = stage.terms([])
    terms.items.add(name=CODE, input_sha256=WRONG_CODE.encode())
    return stage.call("Authorize", stage.authorize(terms))


@provokes("CREDENTIAL_INVALID")
def no_credential(stage: Stage) -> Answer:
    """Everything in it is wrong; then all but one thing after the other, and the certificate at the last."""
    fields: dict[str, Any] = {"gate": CODE, "outputs": [CODE], "name": CODE, "subject": CODE, "hours": PIN}
    right = {"gate": "code+hotp", "outputs": ["RAW"], "name": "some", "subject": "ada", "hours": "08-18"}
    for field in ("", *right):
        fields |= {field: right[field]} if field else {}
        request = op.RegisterCredentialRequest(certificates=PIN.encode(), key_label=CODE, key_id=PIN.encode(), **fields)
        answer = stage.call("RegisterCredential", request, "operator")
        assert answer.reason == "CREDENTIAL_INVALID"
    return answer


@provokes("CREDENTIAL_SUSPENDED")
def suspended(stage: Stage) -> Answer:
    for state in (True, False):
        request = op.SetCredentialStateRequest(name="ada-cms", suspended=state)
        assert stage.call("SetCredentialState", request, "operator").code == "OK"
        if state:
            answer = stage.call("Authorize", stage.authorize(stage.terms(digests(1), "ada-cms")))
    return answer


def registered(name: str, certified: Callable[[Stage], dict[str, Any]]) -> Provoke:
    """A batch for a credential whose certificate is wrong in one way."""

    def provoke(stage: Stage) -> Answer:
        assert stage.register(name, **certified(stage)).code == "OK"
        return opening(lambda stage: stage.batch(name))(stage)

    return provoke


TABLE["CERT_EXPIRED"] = registered("expired", lambda _: {"ends": -timedelta(seconds=1), "begins": -timedelta(days=2)})
TABLE["CERT_NOT_YET_VALID"] = registered("future", lambda _: {"begins": timedelta(hours=1)})
TABLE["CERT_UNTRUSTED"] = registered("strange", lambda _: {"ca": Authority("A CA that nobody knows")})
TABLE["REVOCATION_UNAVAILABLE"] = registered("unlisted", lambda stage: {"ca": stage.unlisted})
TABLE["OUT_OF_HOURS"] = registered("hours", lambda stage: {"hours": stage.not_now()})
TABLE["AUTHZ_COUNT"] = registered("two", lambda _: {"digests_max": 1})


@provokes("KEY_UNKNOWN")
def no_key(stage: Stage) -> Answer:
    assert stage.register("absent", key=ec.generate_private_key(ec.SECP256R1()).public_key()).code == "OK"
    reference = stage.allowed("absent", digests(1))
    return stage.redeem(reference, digests(1), credential="absent")


@provokes("CREDENTIAL_CHANGED")
def another_key(stage: Stage) -> Answer:
    """The credential of a batch has another key by the time that it is signed."""
    name = stage.followed("ada")
    with closing(sqlite3.connect(stage.town.rig.state / "paraph.sqlite")) as database, database:
        [before] = database.execute("SELECT key FROM batches WHERE id = ?", (uuid.UUID(name).bytes,)).fetchone()
        database.execute("UPDATE batches SET key = ? WHERE id = ?", (f"{before[:-1]}x", uuid.UUID(name).bytes))
    return stage.call("SignBatch", stage.sign(name))


# ---- codes

TABLE["OTP_INCORRECT"] = lambda stage: stage.call("Authorize", stage.authorize())
TABLE["CODE_RULES"] = lambda stage: stage.call("Authorize", stage.authorize(secret_code=f"{CODE}\n"))
TABLE["SOURCE_INVALID"] = lambda stage: stage.call("Authorize", stage.authorize(source=CODE))
TABLE["NONCE_LENGTH"] = lambda stage: stage.call("Authenticate", stage.login(nonce=CODE.encode()[:8]))


@provokes("OTP_USED")
def used(stage: Stage) -> Answer:
    """The code that cleo was enrolled with; where its time is over, the next one, twice."""
    terms, otp = stage.terms(digests(1), "cleo"), stage.town.people["cleo"].last
    answer = stage.call("Authorize", stage.authorize(terms, otp=otp))
    if answer.reason == "OTP_INCORRECT":
        otp = stage.otp("cleo")
        assert stage.call("Authorize", stage.authorize(terms, otp=otp)).code == "OK"
        answer = stage.call("Authorize", stage.authorize(terms, otp=otp))
    return answer


@provokes("OTP_EXPIRED")
def for_another(stage: Stage) -> Answer:
    town, terms = stage.town, stage.terms(digests(1), "bob")
    until(lambda: stage.call("RequestOtp", pb.RequestOtpRequest(terms=terms)).code == "OK", 40, "another code")
    otp = town.inbox.code("bob", "sign-code")
    return stage.call("Authorize", stage.authorize(stage.terms(digests(2), "bob"), otp=otp))


@provokes("OTP_SENT")
def sent(stage: Stage) -> Answer:
    for _ in range(2):
        answer = stage.call("RequestOtp", pb.RequestOtpRequest(terms=stage.terms(digests(1), "bob")))
    return answer


@provokes("OTP_LOCKED")
def locked(stage: Stage) -> Answer:
    answers = [stage.call("Authorize", stage.authorize(secret_code=WRONG_CODE)) for _ in range(6)]
    stage.town.unlock("ada")
    return answers[-1]


@provokes("CODES_FAILED")
def hashers_die(stage: Stage) -> Answer:
    with stage.hashers_die():
        answer = stage.call("Authorize", stage.authorize())
    stage.town.unlock("ada")
    return answer


@provokes("CODES_BUSY")
def hashers_busy(stage: Stage) -> Answer:
    """More codes than may wait, five at a time, because a sixth wrong one of one subject would not be looked at."""
    town = stage.town
    with ThreadPoolExecutor(WAITING_MAX + 10) as threads, stage.hashers_stand_still():
        asked = []
        for _ in range(WAITING_MAX // 5 + 2):
            town.unlock("ada")
            before = stage.guesses()
            asked += [threads.submit(stage.call, "Authorize", stage.authorize()) for _ in range(5)]
            until(lambda: stage.guesses() >= before + 5 or any(one.done() for one in asked), 10, "five guesses")  # noqa: B023
    town.unlock("ada")
    answers = [one.result() for one in asked]
    return next(answer for answer in answers if answer.reason == "CODES_BUSY")


@provokes("CLOCK_UNSAFE")
def clock_jumps(stage: Stage) -> Answer:
    stage.jump.to(3_600)
    try:
        return stage.call("Authorize", stage.authorize())
    finally:
        stage.jump.to(0)


# ---- what was allowed

TABLE["AUTHZ_MISSING"] = lambda stage: stage.redeem(b"", digests(1))
TABLE["AUTHZ_UNKNOWN"] = lambda stage: stage.redeem(CODE.encode(), digests(1))
TABLE["AUTHZ_KEY"] = lambda stage: stage.redeem(
    stage.allowed("ada", digests(1)), digests(1), credential="ada-cms", output="CADES_B_B"
)
TABLE["AUTHZ_OUTPUT"] = lambda stage: stage.redeem(stage.allowed("ada", digests(1)), digests(1), output="CADES_B_B")


@provokes("AUTHZ_DIGEST")
def other_digest(stage: Stage) -> Answer:
    return stage.redeem(stage.allowed("ada", digests(1)), [CODE.ljust(32, "-").encode()])


@provokes("AUTHZ_USED")
def used_reference(stage: Stage) -> Answer:
    reference = stage.allowed("ada", digests(1))
    assert stage.redeem(reference, digests(1)).code == "OK"
    return stage.redeem(reference, digests(1))


@provokes("AUTHZ_EXPIRED")
def too_late(stage: Stage) -> Answer:
    time.sleep(max(0.0, stage.brief_ends - time.monotonic() + 0.1))
    return stage.redeem(stage.brief, digests(1), credential="ada-brief")


@provokes("CRC_MISMATCH")
def checksum(stage: Stage) -> Answer:
    return stage.redeem(stage.brief, [CODE.ljust(32, "-").encode()], crc32c=1)


@provokes("REQUEST_UNKNOWN")
def request(stage: Stage) -> Answer:
    return stage.call("GetResult", pb.GetResultRequest(request_id=str(uuid.uuid4())), "portal")


@provokes("IDEMPOTENCY_MISMATCH")
def same_id(stage: Stage) -> Answer:
    name = str(uuid.uuid4())
    assert stage.call("SignDigests", ask(request_id=name), "portal").code == "OK"
    return stage.call("SignDigests", ask(request_id=name, digests=[CODE.ljust(32, "-").encode()]), "portal")


@provokes("DEADLINE_EXCEEDED")
def late(stage: Stage) -> Answer:
    reference, rig = stage.allowed("ada", digests(1)), stage.town.rig
    shim_of(rig).script("C_Sign * hold 30")
    try:
        before = signed(rig)
        held = stage.town["portal"].signing.SignDigests.future(ask(digests=digests(1, 50)), timeout=20)
        until(lambda: signed(rig) > before, 5, "the one that is held")
        wanted = ask(credential="ada", digests=digests(1), authorisation=reference)
        return stage.call("SignDigests", wanted, "portal", timeout_s=3.0)
    finally:
        shim_of(rig).clear()
        held.result()


TABLE["PAGE_TOKEN_UNKNOWN"] = lambda stage: stage.call("ListCredentials", pb.ListCredentialsRequest(page_token=CODE))
TABLE["CERTIFICATE_INVALID"] = lambda stage: stage.call(
    "ListCredentials", pb.ListCredentialsRequest(of_person=[CODE.encode()])
)


# ---- batches

TABLE["REQUEST_ID_INVALID"] = lambda stage: stage.call("SignBatch", stage.sign(CODE))


@provokes("BATCH_UNKNOWN")
def no_batch(stage: Stage) -> Answer:
    assert stage.call("GetBatch", pb.GetBatchRequest(link=CODE)).reason == "BATCH_UNKNOWN"
    return stage.call("SignBatch", stage.sign(str(uuid.uuid4())))


@provokes("BATCH_STATE")
def cancelled(stage: Stage) -> Answer:
    name = stage.followed("ada")
    assert stage.call("CancelBatch", pb.CancelBatchRequest(request_id=name)).code == "OK"
    return stage.call("SignBatch", stage.sign(name))


@provokes("TOO_MANY_FOR_PERSON")
def many(stage: Stage) -> Answer:
    """Of another submitter, whose batches are all cancelled again."""
    other = stage.town["other"]
    names = []
    while True:
        messages = list(stage.batch_named("ada", "CADES_B_B"))
        answer = stage.heard("OpenBatch", lambda: other.signing.OpenBatch(iter(messages), timeout=10))  # noqa: B023
        if answer.code != "OK":
            break
        names.append(answer.value.batch.request_id)
    for name in names:
        stage.call("CancelBatch", pb.CancelBatchRequest(request_id=name), "other")
    return answer


TABLE["STREAM_ORDER"] = opening(lambda stage: iter([pb.OpenBatchRequest(digest=pb.TermsItem(name=CODE))]))
TABLE["TEXT_NOT_SEEN"] = opening(lambda stage: stage.document(PIN.encode(), texts={"reason": CODE, "location": PIN}))
TABLE["DOCUMENT_TOO_LARGE"] = opening(lambda stage: stage.document(CODE.encode(), size=2**40))
TABLE["SIZE_MISMATCH"] = opening(lambda stage: stage.document(CODE.encode(), size=4_711))
TABLE["DOCUMENT_EMPTY"] = opening(lambda stage: stage.document(b""))
TABLE["PDF_REJECTED"] = opening(lambda stage: stage.document(f"%PDF-1.7 {CODE}".encode(), output="PADES_B_B"))


# ---- a person's own token


@provokes("PIN_INCORRECT")
def wrong_pin(stage: Stage) -> Answer:
    name = stage.followed("dora")
    until(stage.stick_waits, 10, "the stick waits for its person")
    return stage.call("SignBatch", pb.SignBatchRequest(request_id=name, pin=WRONG_PIN, secret_code=CODE, otp=STICK_PIN))


@provokes("PIN_FINAL_TRY_GUARD")
def last_try(stage: Stage) -> Answer:
    """One wrong PIN more, and the next one might lock the stick: it is not sent."""
    for _ in range(2):
        answer = wrong_pin(stage)
    return answer


# ---- people, by an operator


@provokes("SUBJECT_INVALID")
def no_factor(stage: Stage) -> Answer:
    for words in ({"factor": CODE}, {"contact_kind": PIN}, {"language": WRONG_CODE}):
        answer = stage.call("EnrolSubject", stage.enrolment(**words), "operator")
    return answer


TABLE["CONTACT_INVALID"] = lambda stage: stage.call("EnrolSubject", stage.enrolment(contact=CODE), "operator")
TABLE["SUBJECT_UNKNOWN"] = lambda stage: stage.call(
    "SuspendSubject", op.SuspendSubjectRequest(subject=CODE), "operator"
)


@provokes("CONTACT_UNREACHABLE")
def no_mail(stage: Stage) -> Answer:
    wanted = stage.enrolment(subject="gil", contact_kind="email", contact=f"{CODE}@example.org")
    return stage.call("EnrolSubject", wanted, "operator")


@provokes("SUBJECT_SUSPENDED")
def suspended_person(stage: Stage) -> Answer:
    assert stage.call("SuspendSubject", op.SuspendSubjectRequest(subject="eve"), "operator").code == "OK"
    answer = stage.call("Authorize", stage.authorize(stage.terms(digests(1), "eve"), otp=stage.otp("eve")))
    assert stage.call("SuspendSubject", op.SuspendSubjectRequest(subject="eve", resume=True), "operator").code == "OK"
    return answer


@provokes("ENROLMENT_UNKNOWN")
def no_enrolment(stage: Stage) -> Answer:
    given = {"secret_code": WRONG_CODE, "otp": WRONG_OTP, "source": "192.0.2.8"}
    assert stage.call("CompleteEnrolment", pb.CompleteEnrolmentRequest(enrolment=CODE)).reason == "ENROLMENT_UNKNOWN"
    return stage.call("CompleteEnrolment", pb.CompleteEnrolmentRequest(enrolment=PIN, **given))


@provokes("CODE_WEAK")
def weak(stage: Stage) -> Answer:
    given = {"secret_code": CODE, "otp": stage.otp("ada"), "source": "192.0.2.7", "new_secret_code": "password1"}
    return stage.call("ChangeCode", pb.ChangeCodeRequest(credential="ada", **given))


# ---- faults


@provokes("STORE_BUSY")
def store_busy(stage: Stage) -> Answer:
    """Somebody has the database for longer than is waited for."""
    with closing(sqlite3.connect(stage.town.rig.state / "paraph.sqlite", isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        answer = stage.call("Authorize", stage.authorize())
    stage.town.rig.wait_serving()  # the ledger was not written either
    return answer


@provokes("INTERNAL")
def broken_row(stage: Stage) -> Answer:
    """A row that nobody has written so: a fault of ours, with its traceback in the log."""
    with closing(sqlite3.connect(stage.town.rig.state / "paraph.sqlite")) as database, database:
        database.execute("UPDATE subjects SET seed = ? WHERE name = 'eve'", (bytes(48),))
    return stage.call("Authorize", stage.authorize(stage.terms(digests(1), "eve"), otp=stage.otp("eve")))


@provokes("CERT_REVOKED")
def revoked(stage: Stage) -> Answer:
    """The list was there at the beginning, and is read again within five seconds."""

    def refused() -> Answer | None:
        answer = opening(lambda stage: stage.batch_named("revoked", "CADES_B_B"))(stage)
        return answer if answer.reason == "CERT_REVOKED" else None

    found: Answer = until(refused, 15, "the new list")
    return found


ELSEWHERE: Mapping[str, str] = (
    dict.fromkeys(("CALLER_EXPIRED", "TOO_MANY_CALLS", "DRAINING"), "looked at before the request is")
    | dict.fromkeys(
        (
            *("TOO_MANY_DOCUMENTS", "TOO_MANY_STREAMS", "TOO_MANY_BATCHES", "ANSWERS_UNREAD", "SPOOL_FULL"),
            *("STREAM_OVER", "BACKLOG_FULL"),
        ),
        "counts",
    )
    | dict.fromkeys(
        (
            "ASSEMBLY_FAILED",
            "AUDIT_UNWRITABLE",
            "CHECKPOINT_OVERDUE",
            "REQUEST_BURNT",
            "INTERRUPTED",
            "CANCELLED",
            "POOL_CLOSED",
            "NO_RANDOMNESS",
        ),
        "faults",
    )
    | dict.fromkeys(
        (
            *("TOKEN_ABSENT", "TOKEN_CHANGED", "TOKEN_STARTING", "TOKEN_QUARANTINED", "TOKEN_FAULT", "TOKEN_DRAINED"),
            *("TOKEN_REMOVED", "TOKEN_TIMEOUT", "TOKEN_BUSY", "MODULE_CRASH", "SIGNATURE_INVALID", "PIN_LOCKED"),
            *("PIN_UNCLEAR", "LOGIN_REQUIRED", "PIN_AT_PAD", "PCSC_DOWN", "TOKEN_SESSIONS", "WORKER_LIMIT"),
        ),
        "the tokens' own: tests/pool has them, with PINs",
    )
    | dict.fromkeys(
        ("CONFIG_REJECTED", "TOKEN_STATE", "TOKEN_UNKNOWN"), "operators' calls about tokens and the configuration"
    )
    | dict.fromkeys(("PEOPLE_NOT_SERVED", "NOT_THE_SAME"), "the configuration has no people; a seal's document")
)
