"""
The inventory of security events (ETSI TS 119 431-1, OVR-6.4.5-02, the life of what people allow, refusals): each is
provoked, and is then written in the ledger, or where that is not the place, in the log.
"""

import re
import signal
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography.hazmat.primitives import serialization

from signer.chain import Kind, Row
from signer.config import ROLES
from signer.gate import Bounds, Gate
from signer.v1 import operator_pb2 as op
from signer.v1 import signing_pb2 as pb
from tests.daemon import until
from tests.pki import pem
from tests.processes import children
from tests.signer.access.calls import Caller, ask, digests, reload, said, shim_of, signed, statuses
from tests.signer.ledger.book import book
from tests.signer.ledger.test_restore import new_checkpoint
from tests.signer.people.persons import ALGORITHMS, OUTPUTS, STICK_PIN, Town, batch, redeem, terms

HEX = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class InLedger:
    """A row of this kind, with these fields; a pattern is searched for in the field's text."""

    kind: Kind
    fields: dict[str, Any]

    def found(self, rows: list[Row], _log: str) -> bool:
        return any(row.kind == self.kind and self._fits(row.fields) for row in rows)

    def _fits(self, said: dict[str, Any]) -> bool:
        return all(
            bool(wanted.search(str(said.get(name)))) if isinstance(wanted, re.Pattern) else said.get(name) == wanted
            for name, wanted in self.fields.items()
        )


@dataclass(frozen=True)
class InLog:
    """A line that has this pattern."""

    pattern: str

    def found(self, _rows: list[Row], log: str) -> bool:
        return re.search(self.pattern, log, re.MULTILINE) is not None


Written = InLedger | InLog
Do = Callable[[Town], Any]


def row(kind: Kind, **fields: Any) -> InLedger:
    return InLedger(kind, fields)


def register(what: str, who: Any = "operator", **fields: Any) -> InLedger:
    return row(Kind.REGISTER, what=re.compile(f"^{what}$"), who=who, **fields)


# ---- what happens


def operate(rpc: str, request: Any) -> Do:
    def do(town: Town) -> None:
        answer = said(lambda: getattr(town["operator"].operator, rpc)(request, timeout=10))
        assert answer.code == "OK", answer

    return do


def refused(reason: str, do: Callable[[Town], Any]) -> Do:
    """By a call whose answer says so."""

    def run(town: Town) -> None:
        answer = do(town)
        assert answer.reason == reason, answer

    return run


def enrolment(name: str, factor: str = "hotp") -> Do:
    def do(town: Town) -> None:
        answer = said(lambda: town["operator"].operator.EnrolSubject(town.enrolment(name, factor), timeout=10))
        assert answer.code == "OK", answer

    return do


def completed(town: Town) -> None:
    town.enrol("fay", "hotp")


def complete(enrolment_: Callable[[Town], str], otp: str) -> Do:
    def do(town: Town) -> Any:
        given = {"secret_code": "some code 17", "otp": otp, "source": "192.0.2.7"}
        request = pb.CompleteEnrolmentRequest(enrolment=enrolment_(town), **given)
        return said(lambda: town["window"].signing.CompleteEnrolment(request, timeout=10))

    return do


def gil(town: Town) -> str:
    after = len(town.inbox.messages)
    enrolment("gil")(town)
    return town.inbox.code("gil", "enrolment-code", after)


def stored(town: Town) -> None:
    label, spki = town.owned["ada"]
    issuing = town.rig.pki.issuing
    certificate = issuing.issue("Signer", serialization.load_der_public_key(spki), "content_commitment")
    request = op.RegisterCredentialRequest(
        name="ada-new", certificates=pem(certificate, issuing.certificate), key_label=label, outputs=OUTPUTS,
        gate="code+hotp", subject="ada",
    )  # fmt: skip
    operate("RegisterCredential", request)(town)


def state(*, is_suspended: bool) -> Do:
    return operate("SetCredentialState", op.SetCredentialStateRequest(name="ada-seen", suspended=is_suspended))


def suspension(*, resume: bool) -> Do:
    return operate("SuspendSubject", op.SuspendSubjectRequest(subject="eve", resume=resume))


def wrong(town: Town) -> Any:
    return town.authorise(town.people["ada"], terms(digests(1)), code="not her code")


def locked(town: Town) -> None:
    for _ in range(5):
        wrong(town)
    assert wrong(town).reason == "OTP_LOCKED"
    town.unlock("ada")


def allowed(town: Town) -> bytes:
    return town.reference(town.people["ada"], terms(digests(1)))


def redeemed(town: Town) -> None:
    assert statuses(redeem(town, allowed(town), digests(1))) == ["SIGNED"]


def expired(town: Town) -> Any:
    reference = town.reference(town.people["ada"], terms(digests(1), "ada-brief"))
    time.sleep(2.1)  # so long it lives
    return redeem(town, reference, digests(1), credential="ada-brief")


def login(code: str = "") -> Do:
    def do(town: Town) -> Any:
        ada = town.people["ada"]
        wanted = pb.Login(credential="ada-login", audience="https://portal.example", nonce=bytes(32), **ALGORITHMS)
        request = pb.AuthenticateRequest(
            request_id=str(uuid.uuid4()), login=wanted, secret_code=code or ada.code, otp=ada.otp(), source="192.0.2.7"
        )
        return said(lambda: town["window"].signing.Authenticate(request, timeout=10))

    return do


def change(code: str, new: str) -> Do:
    def do(town: Town) -> Any:
        given = {"secret_code": code, "otp": town.people["ada"].otp(), "source": "192.0.2.7", "new_secret_code": new}
        request = pb.ChangeCodeRequest(credential="ada", **given)
        return said(lambda: town["window"].signing.ChangeCode(request, timeout=10))

    return do


def changed(town: Town) -> None:
    ada = town.people["ada"]
    for old, new in ((ada.code, "clay and kiln 5"), ("clay and kiln 5", ada.code)):
        assert change(old, new)(town).code == "OK"


def opened(town: Town, credential: str = "ada-seen") -> tuple[str, str]:
    answer = town["portal"].signing.OpenBatch(batch([b"a letter"], credential), timeout=20)
    return answer.batch.request_id, answer.link


def shown(town: Town, credential: str = "ada-seen") -> str:
    name, link = opened(town, credential)
    list(town["window"].signing.GetBatch(pb.GetBatchRequest(link=link), timeout=10))
    return name


def cancelled(town: Town) -> None:
    town["window"].signing.CancelBatch(pb.CancelBatchRequest(request_id=shown(town)), timeout=10)


def signed_by_her(town: Town) -> None:
    ada = town.people["ada"]
    given = pb.SignBatchRequest(request_id=shown(town), secret_code=ada.code, otp=ada.otp())
    assert said(lambda: town["window"].signing.SignBatch(given, timeout=20)).code == "OK"


def pin(text: str, **more: Any) -> Do:
    def do(town: Town) -> Any:
        until(lambda: stick(town) == op.Token.OPEN, 10, "the stick waits for its person")
        given = pb.SignBatchRequest(request_id=shown(town, "dora"), pin=text, source="192.0.2.7", **more)
        return said(lambda: town["window"].signing.SignBatch(given, timeout=20))

    return do


def stick(town: Town) -> Any:
    tokens = town["operator"].operator.ListTokens(op.ListTokensRequest(), timeout=10).tokens
    return next(token.state for token in tokens if token.name == "stick")


def sent(what: str) -> Do:
    def do(town: Town) -> None:
        wanted: dict[str, Any] = {"terms": terms(digests(1), "bob")}
        if what == "login":
            login_ = pb.Login(credential="bob-login", audience="https://p.example", nonce=bytes(32), **ALGORITHMS)
            wanted = {"login": login_}
        elif what == "change":
            wanted = {"change": "bob"}
        answer = said(lambda: town["window"].signing.RequestOtp(pb.RequestOtpRequest(**wanted), timeout=10))
        assert answer.code == "OK", answer

    return do


def mismatched(town: Town) -> Any:
    name = str(uuid.uuid4())
    assert statuses(town["portal"].sign(request_id=name)) == ["SIGNED"]
    return town["portal"].sign(request_id=name, digests=digests(2))


def undelivered(town: Town) -> None:
    rig = town.rig
    shim_of(rig).script("C_Sign * hold 30")
    before = signed(rig)
    with Caller(rig) as portal:
        call = portal.signing.SignDigests.future(ask(), timeout=30)
        until(lambda: signed(rig) > before, 10, "a signature in work")
        call.cancel()
    shim_of(rig).clear()


def stranger(town: Town) -> Any:
    with Caller(town.rig, "stranger") as caller:
        return caller.sign()


def denied(town: Town) -> Any:
    files = town.rig.pki.caller("portal", begins=-timedelta(days=2), ends=timedelta(hours=1))
    town.rig.denied.write_text(f"{fingerprint(files[0])}\n")
    reload(town.rig)
    with Caller(town.rig, files=files) as caller:
        answer = caller.sign()
    town.rig.denied.write_text("")
    reload(town.rig)
    return answer


def fingerprint(path: Path) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    return x509.load_pem_x509_certificate(path.read_bytes()).fingerprint(hashes.SHA256()).hex()


def reloaded_badly(town: Town) -> None:
    good = town.rig.config.read_text()
    town.rig.config.write_text(good + "\n[nonsense]\n")
    assert "refused" in reload(town.rig)
    town.rig.config.write_text(good)


def spoilt(town: Town) -> None:
    """A flipped bit: the token is quarantined, and only a person may take that back."""
    shim_of(town.rig).script("C_Sign * corrupt")
    assert town["portal"].sign().code != "OK"
    shim_of(town.rig).clear()


def unlocked(town: Town) -> None:
    operate("UnlockToken", op.UnlockTokenRequest(token="card"))(town)
    until(lambda: town["portal"].sign().code == "OK", 10, "the card again")


def lane_crashes(town: Town) -> None:
    tokens = town["operator"].operator.ListTokens(op.ListTokensRequest(), timeout=10).tokens
    [lane] = next(token.lanes for token in tokens if token.name == "card")
    psutil.Process(lane.pid).send_signal(signal.SIGSEGV)
    until(lambda: town["portal"].sign().code == "OK", 10, "a new lane")


def hasher_crashes(town: Town) -> None:
    """Over a code: of one that has nothing to do nobody is told."""
    assert town.rig.process is not None
    hashers = children(town.rig.process.pid, "signer.hasher")
    for hasher in hashers:
        hasher.suspend()
    request = pb.AuthorizeRequest(terms=terms(digests(1)), secret_code="not her code", otp="000000")
    asked = town["window"].signing.Authorize.future(request, timeout=20)
    until(lambda: guesses(town), 10, "an attempt that is counted")
    time.sleep(0.1)
    for hasher in hashers:
        hasher.kill()
    assert said(asked.result).reason == "OTP_INCORRECT"


def guesses(town: Town) -> int:
    with closing(sqlite3.connect(f"file:{town.rig.state / 'paraph.sqlite'}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM guesses").fetchone()[0])


# ---- the inventory: event -> (what is done, where it is written)

ADA = {"subject": "ada", "credential": "ada"}
SOURCE = "window 192.0.2.7"
INVENTORY: dict[str, tuple[Do, tuple[Written, ...]]] = {
    # people
    "an enrolment is asked for": (
        enrolment("hal"),
        (register("enrolment asked for", subject="hal"), register("an enrolment code was sent", "", subject="hal")),
    ),
    "a message is sent": (enrolment("hal"), (InLog(r"message [0-9a-f-]{36} \(enrolment-code\) was sent"),)),
    "an enrolment is completed": (completed, (register("enrolled", "fay", subject="fay"),)),
    "an enrolment code is refused": (
        refused("ENROLMENT_UNKNOWN", complete(lambda _: "AAAA-BBBB-CCCC-DDDD", "123456")),
        (row(Kind.REFUSED, reason="ENROLMENT_UNKNOWN", source=SOURCE),),
    ),
    "a first one-time code is refused": (
        refused("OTP_INCORRECT", complete(gil, "000000")),
        (row(Kind.REFUSED, reason="OTP_INCORRECT", subject="gil", source=SOURCE),),
    ),
    "somebody is to be enrolled anew": (enrolment("fay"), (register("enrolment asked for anew", subject="fay"),)),
    "somebody is suspended": (suspension(resume=False), (register("suspended", subject="eve"),)),
    "a suspended person's code is refused": (
        refused("SUBJECT_SUSPENDED", lambda town: town.authorise(town.people["eve"], terms(digests(1), "eve"))),
        (row(Kind.REFUSED, reason="SUBJECT_SUSPENDED", subject="eve", source=SOURCE),),
    ),
    "somebody is resumed": (suspension(resume=True), (register("resumed", subject="eve"),)),
    "somebody is unlocked": (lambda town: town.unlock("ada"), (register("unlocked", subject="ada"),)),
    # credentials
    "a credential is stored": (stored, (register("stored, gate code\\+hotp", credential="ada-new"),)),
    "a credential is suspended": (state(is_suspended=True), (register("SUSPENDED", credential="ada-seen"),)),
    "a suspended credential is refused": (
        refused("CREDENTIAL_SUSPENDED", lambda town: town.authorise(town.people["ada"], terms(digests(1), "ada-seen"))),
        (InLog("Authorize caller=window.* refused: CREDENTIAL_SUSPENDED"),),
    ),
    "a credential is resumed": (state(is_suspended=False), (register("ACTIVE", credential="ada-seen"),)),
    # codes
    "a one-time code is sent to sign": (
        sent("terms"),
        (register("a one-time code was sent for [A-Z2-7]{8}", "window", subject="bob"),),
    ),
    "a one-time code is sent to log in": (
        sent("login"),
        (register("a one-time code was sent to log in", "window", subject="bob"),),
    ),
    "a one-time code is sent to change the secret code": (
        sent("change"),
        (register("a one-time code was sent to change the secret code", "window", subject="bob"),),
    ),
    "a secret code is changed": (changed, (register("secret code changed", SOURCE, subject="ada"),)),
    "a change of a secret code is refused": (
        refused("OTP_INCORRECT", change("not her code", "clay and kiln 5")),
        (row(Kind.REFUSED, reason="OTP_INCORRECT", source=SOURCE, **ADA),),
    ),
    "a code is refused": (
        refused("OTP_INCORRECT", wrong),
        (row(Kind.REFUSED, reason="OTP_INCORRECT", source=SOURCE, **ADA),),
    ),
    "somebody is locked": (
        locked,
        (register("locked until 20[0-9T:Z-]+", SOURCE, subject="ada"), InLog("refused: OTP_LOCKED subject=ada")),
    ),
    # what is allowed
    "something is allowed": (
        allowed,
        (
            row(
                Kind.AUTHORISED, caller="window", count=1, authorisation=HEX, terms=HEX, expires=re.compile("Z$"), **ADA
            ),
        ),
    ),
    "what was allowed is redeemed": (
        redeemed,
        (row(Kind.INTENT, caller="portal", authorisation=HEX, **ADA), row(Kind.OUTCOME, signed=1)),
    ),
    "what was allowed is asked for by somebody else": (
        refused("AUTHZ_CALLER", lambda town: redeem(town, allowed(town), digests(1), "other")),
        (row(Kind.REFUSED, reason="AUTHZ_CALLER", source="other", **ADA),),
    ),
    "something else is asked for": (
        refused("AUTHZ_DIGEST", lambda town: redeem(town, allowed(town), digests(1, 7))),
        (row(Kind.REFUSED, reason="AUTHZ_DIGEST", source="portal", **ADA),),
    ),
    "nothing was allowed": (
        refused("AUTHZ_UNKNOWN", lambda town: redeem(town, bytes(32), digests(1))),
        (row(Kind.REFUSED, reason="AUTHZ_UNKNOWN", source="portal", **ADA),),
    ),
    "what was allowed has expired": (
        refused("AUTHZ_EXPIRED", expired),
        (row(Kind.REFUSED, reason="AUTHZ_EXPIRED", subject="ada", credential="ada-brief"),),
    ),
    # logins
    "somebody logs in": (
        lambda town: login()(town).value.statement,
        (row(Kind.AUTHORISED, output="LOGIN", subject="ada"), row(Kind.INTENT, output="LOGIN", subject="ada")),
    ),
    "a login is refused": (
        refused("OTP_INCORRECT", login("not her code")),
        (row(Kind.REFUSED, reason="OTP_INCORRECT", credential="ada-login"),),
    ),
    # batches
    "a batch is opened": (opened, (row(Kind.BATCH, what="opened", caller="portal", subject="ada", terms=HEX),)),
    "a batch is shown": (shown, (row(Kind.BATCH, what="shown", caller="window", subject="ada"),)),
    "a batch is signed": (
        signed_by_her,
        (row(Kind.AUTHORISED, credential="ada-seen", output="CADES_B_B"), row(Kind.INTENT, credential="ada-seen")),
    ),
    "a batch is cancelled": (cancelled, (row(Kind.BATCH, what="cancelled", caller="window", subject="ada"),)),
    # a person's own token
    "a PIN is taken": (pin(STICK_PIN), (row(Kind.AUTHORISED, subject="dora"), InLog("token stick is LEASED"))),
    "a PIN is refused": (
        refused("PIN_INCORRECT", pin("000000")),
        (row(Kind.REFUSED, reason="PIN_INCORRECT", subject="dora", source=SOURCE),),
    ),
    "the last try is allowed": (
        refused("PIN_INCORRECT", pin("000000", override_final_try=True)),
        (row(Kind.REGISTER, what="the last try of the PIN is allowed", subject="dora", source=SOURCE),),
    ),
    "a seal signs": (
        lambda town: town["portal"].sign(),
        (row(Kind.INTENT, credential="p-256", caller="portal"), row(Kind.OUTCOME, signed=1), row(Kind.RELEASED)),
    ),
    "nobody takes the answer": (undelivered, (row(Kind.NOT_DELIVERED),)),
    "a request id comes with another body": (
        refused("IDEMPOTENCY_MISMATCH", mismatched),
        (row(Kind.MISMATCH, caller="portal"),),
    ),
    # who calls
    "an unknown caller": (refused("CALLER_UNKNOWN", stranger), (InLog(r"refused: CALLER_UNKNOWN: .* peer=ipv4:"),)),
    "a denied certificate": (
        refused("CALLER_REVOKED", denied),
        (InLog("refused: CALLER_REVOKED"), register("the configuration was read again", "SIGHUP")),
    ),
    "a call that is not allowed": (
        refused("RPC_NOT_ALLOWED", lambda town: town.authorise(town.people["ada"], terms(digests(1)), "portal")),
        (InLog("Authorize caller=portal refused: RPC_NOT_ALLOWED"),),
    ),
    # tokens, the configuration and the daemon itself
    "the configuration is read again": (
        operate("ReloadConfig", op.ReloadConfigRequest()),
        (register("the configuration was read again", config=HEX), InLog("signer: reloaded: ")),
    ),
    "the clock is confirmed": (
        operate("ConfirmClock", op.ConfirmClockRequest()),
        (
            register(r"the system's clock is confirmed, set by [+-]\d+ s"),
            InLog(r"the system's clock is confirmed by operator: it had been set by [+-]\d+\.\d s"),
        ),
    ),
    "a configuration is refused": (reloaded_badly, (InLog("signer: reload refused"),)),
    "a token is drained": (
        operate("DrainToken", op.DrainTokenRequest(token="stick")),
        (register("drained", token="stick"), InLog("token stick is DRAINED")),
    ),
    "a token is resumed": (
        operate("ResumeToken", op.ResumeTokenRequest(token="stick")),
        (register("resumed", token="stick"), InLog("token stick is OPEN")),
    ),
    "a token makes a wrong signature": (spoilt, (InLog("token card is QUARANTINED"),)),
    "a token is unlocked": (unlocked, (register("unlocked", token="card"), InLog("token card is READY"))),
    "a lane crashes": (lane_crashes, (InLog(r"lane card\S* is lost"),)),
    "a process that hashes codes is lost": (hasher_crashes, (InLog("a process that hashes codes was lost"),)),
    "a checkpoint is anchored": (lambda town: new_checkpoint(town.rig), (row(Kind.CHECKPOINT),)),
}
ELSEWHERE = {Kind.GAP}  # a restore: tests/signer/ledger/test_restore.py


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    made = Town()
    made.wanted |= {
        "eve": (Gate.CODE_HOTP, "eve", OUTPUTS, Bounds(claimed=True), "content_commitment"),
        "bob-login": (Gate.CODE_SENT, "bob", (), Bounds(), "digital_signature"),
    }
    with made:
        for name, factor in (("ada", "hotp"), ("bob", "sent"), ("eve", "hotp")):
            made.enrol(name, factor)
        yield made


@pytest.mark.parametrize("event", INVENTORY)
def test_row_1_7_each_event_is_written(town: Town, event: str) -> None:
    """
    Row 1.7: the audit inventory is complete: each event of security of the inventory (who is enrolled, suspended, unlocked;
    credentials; codes sent and refused, locks; what is allowed, redeemed, refused, over; logins; batches; PINs; callers;
    tokens; the configuration; crashes) has a test that provokes it, and is in the ledger or the log afterwards.
    """
    do, expected = INVENTORY[event]
    rows, lines = len(book(town.rig.state)), len(town.rig.log.read_text())
    do(town)
    for written in expected:
        until(
            lambda: written.found(book(town.rig.state)[rows:], town.rig.log.read_text()[lines:]),  # noqa: B023
            5, f"{written} in {[(one.kind, one.body) for one in book(town.rig.state)[rows:]]}",
        )  # fmt: skip
    town.unlock("ada")


def test_row_1_7_the_ledger_is_whole(town: Town) -> None:
    """Row 1.7: with all these rows `paraph audit verify` finds the ledger whole, and `show` has words for each of them."""
    rig = town.rig
    said_ = {
        "somebody is locked": "ada: locked until",
        "a credential is suspended": "ada-seen: SUSPENDED, by operator",
        "a credential is resumed": "ada-seen: ACTIVE, by operator",
        "a batch is cancelled": "1 documents for ada were cancelled",
        "a token is drained": "stick: drained, by operator",
        "a token is resumed": "stick: resumed, by operator",
        "the configuration is read again": "the configuration was read again, by operator",
    }
    for event in said_:
        INVENTORY[event][0](town)
    new_checkpoint(rig)
    file = rig.directory / "ledger"
    assert rig.command("audit", "export", "--config", rig.config, "-o", file).returncode == 0
    done = rig.command("audit", "verify", file, "--anchor", rig.anchor, "--key", rig.keys / "checkpoint.pub")
    assert done.returncode == 0, done
    words = rig.command("audit", "show", file).stdout
    assert [one for one in said_.values() if one not in words] == []


def test_row_1_7_starts_stops_and_crashes(town: Town) -> None:
    """
    Row 1.7: start, stop and crash: a start is a row and its epoch, a stop two lines of the log, and what a crash has left
    open is a row of the next epoch, which no line of a stop stands before.
    """
    rig = town.rig
    shim_of(rig).script("C_Sign * hold 30")
    before, lines = signed(rig), len(rig.log.read_text())
    held = town["portal"].signing.SignDigests.future(ask(), timeout=30)
    until(lambda: signed(rig) > before, 10, "a signature in work")
    rig.stop(signal.SIGKILL)
    held.cancel()
    shim_of(rig).clear()
    rig.launch()
    rig.wait_serving()
    rows = book(rig.state)
    first, *others = [one for one in rows if one.epoch == rows[-1].epoch]
    assert first.kind == Kind.EPOCH
    assert first.fields["version"]
    assert Kind.POSSIBLE in {one.kind for one in others}
    assert "signer: stopped" not in rig.log.read_text()[lines:]
    assert re.search("signer: listening on", rig.log.read_text()[lines:])
    rig.stop()
    assert re.search("signer: stopping.*signer: stopped", rig.log.read_text()[lines:], re.DOTALL)


def test_row_1_7_no_kind_is_forgotten() -> None:
    """Row 1.7: every kind of row that the ledger knows is in the inventory, and every call that changes something."""
    written = {one.kind for _, expected in INVENTORY.values() for one in expected if isinstance(one, InLedger)}
    assert written | {Kind.EPOCH, Kind.POSSIBLE} | ELSEWHERE == set(Kind)
    reading = {"GetServerInfo", "ListTokens", "WatchTokens", "ListSubjects"}
    source = Path(__file__).read_text()
    for rpc in ROLES["operator"] - reading:
        assert f'"{rpc}"' in source or f".{rpc}(" in source or rpc == "UnlockSubject", rpc
