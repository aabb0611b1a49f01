"""What is taken away stops what is being signed: at the next item, with the reason, and what was begun is recorded."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from signer.v1 import operator_pb2 as op
from signer.v1 import signing_pb2 as pb
from tests.daemon import until
from tests.pki import pem
from tests.signer.access.calls import Answer, ask, digests, reload, said, shim_of, signed, statuses
from tests.signer.people.crls import HOUR, crl
from tests.signer.people.persons import STICK_PIN, Town, batch, stream, terms

COUNT = 60
ITEM_S = 0.15


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    made = Town()
    issuer = made.rig.directory / "issuing.pem"
    issuer.write_bytes(pem(made.rig.pki.issuing.certificate))
    made.rig.sections += ["[[trust.crl]]", f'issuer = "{issuer}"', f'file = "{made.rig.directory / "issuing.crl"}"']
    _revoke(made, [], 1)
    with made:
        made.enrol("ada", "hotp")
        yield made


def _revoke(town: Town, serials: list[int], number: int) -> None:
    now = datetime.now(UTC)
    content = crl(town.rig.pki.issuing, dict.fromkeys(serials), number=number, begins=now - HOUR, ends=now + 24 * HOUR)
    new = town.rig.directory / "new.crl"
    new.write_bytes(content)
    new.chmod(0o644)
    new.rename(town.rig.directory / "issuing.crl")


@dataclass(frozen=True)
class Act:
    """`undo` puts it back; `credential` signs meanwhile, a person's or a seal."""

    do: Callable[[Town], object]
    undo: Callable[[Town], object]
    reason: str
    credential: str = "p-256"


def _suspend_subject(town: Town, *, resume: bool = False) -> None:
    town["operator"].operator.SuspendSubject(op.SuspendSubjectRequest(subject="ada", resume=resume), timeout=10)


def _suspend_credential(town: Town, name: str, *, suspended: bool = True) -> None:
    request = op.SetCredentialStateRequest(name=name, suspended=suspended)
    town["operator"].operator.SetCredentialState(request, timeout=10)


def _deny(town: Town, caller: str = "portal", *, with_a_mistake: bool = False) -> None:
    certificate = x509.load_pem_x509_certificate(town.rig.files(caller)[0].read_bytes())
    town.rig.denied.write_text(certificate.fingerprint(hashes.SHA256()).hex() + "\n" + "abc\n" * with_a_mistake)
    reload(town.rig)


def _allow(town: Town) -> None:
    town.rig.denied.write_text("")
    assert "reloaded" in reload(town.rig)


def _configure(town: Town, *removed: str) -> None:
    kept = town.rig.callers
    town.rig.callers = {name: caller for name, caller in kept.items() if name not in removed}
    town.rig.write_config()
    town.rig.callers = kept
    assert "reloaded" in reload(town.rig)


def _configure_without(town: Town, credential: str) -> None:
    role, rpcs, names = town.rig.callers["portal"]
    town.rig.callers["portal"] = role, rpcs, sorted({*(names or ())} - {credential})
    _configure(town)
    town.rig.callers["portal"] = role, rpcs, names


def _command(town: Town, *words: object) -> None:
    done = town.rig.command("credential", "--config", town.rig.config, *words)
    assert done.returncode == 0, done


def _revoked_by_its_ca(town: Town) -> None:
    [row] = [
        row
        for row in town["portal"].signing.ListCredentials(pb.ListCredentialsRequest(), timeout=10).credentials
        if row.name == "p-256"
    ]
    _revoke(town, [x509.load_der_x509_certificate(row.certificates[0]).serial_number], 2)
    until(lambda: "(number 2," in town.rig.log.read_text(), 10, "the new list")


def _not_revoked(town: Town) -> None:
    _revoke(town, [], 3)
    until(lambda: "(number 3," in town.rig.log.read_text(), 10, "the newest list")


ACTS = {
    "a person is suspended": Act(_suspend_subject, lambda town: _suspend_subject(town, resume=True), "SUBJECT_SUSPENDED", "ada"),
    "a person's credential is suspended": Act(
        lambda town: _suspend_credential(town, "ada"), lambda town: _suspend_credential(town, "ada", suspended=False), "CREDENTIAL_SUSPENDED", "ada"
    ),
    "a seal is suspended": Act(
        lambda town: _suspend_credential(town, "p-256"), lambda town: _suspend_credential(town, "p-256", suspended=False), "CREDENTIAL_SUSPENDED"
    ),
    "by the command": Act(lambda town: _command(town, "suspend", "p-256"), lambda town: _command(town, "resume", "p-256"), "CREDENTIAL_SUSPENDED"),
    "the certificate of who asked is denied": Act(_deny, _allow, "CALLER_REVOKED"),
    "in a list with a mistake": Act(lambda town: _deny(town, with_a_mistake=True), _allow, "CALLER_REVOKED"),
    "who asked is removed": Act(lambda town: _configure(town, "portal"), _configure, "CALLER_UNKNOWN"),
    "who asked may not sign with it any more": Act(lambda town: _configure_without(town, "p-256"), _configure, "CREDENTIAL_UNKNOWN"),
    "its CA has revoked the certificate": Act(_revoked_by_its_ca, _not_revoked, "CERT_REVOKED"),
}  # fmt: skip


class Work:
    """A call of 60 digests in a thread, on a card that takes its time; entered when it has begun."""

    def __init__(self, town: Town, call: Callable[[], Answer]) -> None:
        self._town = town
        self._answers: list[Answer] = []
        self._thread = threading.Thread(target=lambda: self._answers.append(call()))
        self.before = signed(town.rig)

    def __enter__(self) -> Self:
        shim_of(self._town.rig).script(f"C_Sign {self.before + 1}+ delay {ITEM_S}")
        self._thread.start()
        until(lambda: signed(self._town.rig) > self.before + 2, 10, "three signatures in work")
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        shim_of(self._town.rig).clear()

    def answer(self) -> Answer:
        self._thread.join(3 * ITEM_S + 1.0)
        assert not self._thread.is_alive(), "it goes on"
        return self._answers[0]


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_what_is_being_signed_stops(town: Town, act: Act) -> None:
    """F48: the item in work is finished and answered, no other is begun, and the rest says why."""
    wanted, more = digests(COUNT), {}
    if act.credential == "ada":
        more["authorisation"] = town.reference(town.people["ada"], terms(wanted))
    request = ask(credential=act.credential, digests=wanted, **more)
    try:
        with Work(town, lambda: town["portal"].sign(request, timeout_s=60)) as work:
            act.do(town)
            then = signed(town.rig)
            answer = work.answer()
        made = signed(town.rig) - work.before
        assert signed(town.rig) <= then + 1
        assert statuses(answer) == ["SIGNED"] * made + ["NOT_ATTEMPTED"] * (COUNT - made)
        assert {item.reason for item in answer.value.items[made:]} == {act.reason}
    finally:
        act.undo(town)
    first = [item.signature for item in answer.value.items[:made]]
    kept = town["portal"].signing.GetResult(pb.GetResultRequest(request_id=request.request_id), timeout=10)
    assert [one.item.signature for one in kept.items if one.item.signature] == first
    if act.credential == "p-256":  # nothing stands in its way any more: only what is missing is signed
        again = town["portal"].sign(request, timeout_s=30)
        assert statuses(again) == ["SIGNED"] * COUNT
        assert [item.signature for item in again.value.items[:made]] == first
    assert statuses(town["portal"].sign()) == ["SIGNED"]


@pytest.mark.parametrize("reason", ["CREDENTIAL_SUSPENDED", "CALLER_REVOKED"])
def test_on_her_own_token(town: Town, reason: str) -> None:
    """Also in a lease: what her stick has begun is finished, and the batch is open as before."""
    opened = town["portal"].signing.OpenBatch(batch([b"one", b"two"] * 10, credential="dora"), timeout=30)
    name = opened.batch.request_id
    list(town["window"].signing.GetBatch(pb.GetBatchRequest(link=opened.link), timeout=10))
    request = pb.SignBatchRequest(request_id=name, pin=STICK_PIN, source="192.0.2.7")
    try:
        with Work(town, lambda: said(lambda: town["window"].signing.SignBatch(request, timeout=60))) as work:
            if reason == "CALLER_REVOKED":
                _deny(town, "window")
            else:
                _suspend_credential(town, "dora")
            then = signed(town.rig)
            answer = work.answer()
        assert answer.code == "OK"
        made = signed(town.rig) - work.before
        assert signed(town.rig) <= then + 1
        told = [(pb.ItemStatus.Name(one.status), one.reason) for one in answer.value.outcomes]
        assert told == [("SIGNED", "")] * made + [("NOT_ATTEMPTED", reason)] * (20 - made)
        assert answer.value.batch.state == pb.Batch.OPEN
    finally:
        _suspend_credential(town, "dora", suspended=False)
        _allow(town)


def test_a_stream_of_documents(town: Town) -> None:
    """Documents that came before are not begun any more; each one's answer says why."""
    documents = [b"document %d" % number for number in range(12)]
    try:
        call = stream(documents, credential="p-256")
        with Work(town, lambda: said(lambda: list(town["portal"].signing.SignDocuments(call, timeout=60)))) as work:
            _suspend_credential(town, "p-256")
            then = signed(town.rig)
            answer = work.answer()
        assert signed(town.rig) <= then + 1
        results = [one.result for one in answer.value if one.HasField("result")]
        told = sorted((pb.ItemStatus.Name(one.status), one.reason) for one in results)
        made = signed(town.rig) - work.before
        assert [status for status, _ in told].count("SIGNED") == made
        assert {reason for status, reason in told if status != "SIGNED"} == {"CREDENTIAL_SUSPENDED"}
    finally:
        _suspend_credential(town, "p-256", suspended=False)


def test_others_go_on(town: Town) -> None:
    """Another caller's work with the same credential is signed to its end, beside what was denied."""
    other: list[Answer] = []
    try:
        with Work(town, lambda: town["portal"].sign(digests=digests(COUNT), timeout_s=60)) as work:
            beside = threading.Thread(
                target=lambda: other.append(town["other"].sign(digests=digests(12), timeout_s=60))
            )
            beside.start()
            _deny(town)
            assert {item.reason for item in work.answer().value.items} == {"", "CALLER_REVOKED"}
            beside.join()
        assert statuses(other[0]) == ["SIGNED"] * 12
    finally:
        _allow(town)


def test_what_waits_for_a_lane(town: Town) -> None:
    """Of a request of which nothing was begun nothing is, and the whole call is refused; the one before goes on."""
    waiting: list[Answer] = []
    try:
        with Work(town, lambda: town["other"].sign(digests=digests(20), timeout_s=60)) as work:
            calls = [
                threading.Thread(target=lambda: waiting.append(town["portal"].sign(digests=digests(20), timeout_s=60)))
                for _ in range(3)
            ]
            for call in calls:
                call.start()
            until(lambda: _waiting(town) >= 60, 10, "three requests that wait")
            _deny(town)
            for call in calls:
                call.join(2.0)
        assert {answer.reason for answer in waiting if answer.code != "OK"} <= {"CALLER_REVOKED"}
        assert len(waiting) == 3
        assert statuses(work.answer()) == ["SIGNED"] * 20
    finally:
        _allow(town)


def test_a_batch_whose_caller_may_no_more(town: Town) -> None:
    """It is refused before a one-time code is spent: by the same codes it is signed when he may again."""
    ada = town.people["ada"]
    opened = town["portal"].signing.OpenBatch(batch([b"one"], credential="ada"), timeout=30)
    list(town["window"].signing.GetBatch(pb.GetBatchRequest(link=opened.link), timeout=10))
    given = pb.SignBatchRequest(
        request_id=opened.batch.request_id, secret_code=ada.code, otp=ada.otp(), source="192.0.2.7"
    )
    _configure_without(town, "ada")
    try:
        refused = said(lambda: town["window"].signing.SignBatch(given, timeout=10))
        assert refused.reason == "CREDENTIAL_UNKNOWN"
    finally:
        _configure(town)
    assert said(lambda: town["window"].signing.SignBatch(given, timeout=10)).code == "OK"


def _waiting(town: Town) -> int:
    tokens = town["operator"].operator.ListTokens(op.ListTokensRequest(), timeout=10).tokens
    return sum(int(token.waiting) for token in tokens if token.name == "card")
