"""A real daemon, a card behind the shim, and certificates that must not be signed with: the shim's log tells."""

import queue
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from signer.v1 import signing_pb2 as pb
from tests.daemon import Rig, running, until
from tests.pki import DAY, Authority, pem
from tests.signer.access.calls import Caller, answer_of, ask, card_rig, enrol, metric, signed
from tests.signer.outputs.drafts import draft
from tests.signer.people.crls import HELD, HOUR, Reasons, crl

Entry = tuple[str, str]  # code and reason of the answer
REVOKED: Entry = ("FAILED_PRECONDITION", "CERT_REVOKED")
UNKNOWN: Entry = ("UNAVAILABLE", "REVOCATION_UNAVAILABLE")
CASES: dict[str, Entry] = {
    "expired": ("FAILED_PRECONDITION", "CERT_EXPIRED"),
    "not-yet-valid": ("FAILED_PRECONDITION", "CERT_NOT_YET_VALID"),
    "revoked": REVOKED,
    "on-hold": REVOKED,
    "list-ended": UNKNOWN,
    "list-too-old": UNKNOWN,
    "list-missing": UNKNOWN,
    "list-of-another-signer": UNKNOWN,
    "issuer-revoked": REVOKED,
    "chain-unknown": ("FAILED_PRECONDITION", "CERT_UNTRUSTED"),
    "another-key": ("FAILED_PRECONDITION", "KEY_UNKNOWN"),
}


class Lists:
    """CAs of a rig, each with its list in a file; `changing` has issued the certificate `changes`, which a test revokes."""

    changing: Authority
    changes: int

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        _, self.spki = rig.store.made["card"]["P-256"]
        self.directory = rig.directory / "crls"
        self.directory.mkdir()

    def ca(self, name: str, more: str = "") -> Authority:
        """An issuing CA, and the section of the configuration for it."""
        made = Authority(name, self.rig.pki.root)
        issuer = self.directory / f"{name}.pem"
        issuer.write_bytes(pem(made.certificate))
        self.rig.sections.append(f'[[trust.crl]]\nissuer = "{issuer}"\nfile = "{self.file(name)}"\n{more}')
        return made

    def file(self, name: str) -> Path:
        return self.directory / f"{name}.crl"

    def put(self, ca: Authority, name: str, revoked: Reasons | None = None, **more: Any) -> None:
        """The CA's list, in one step; readable for the daemon's user."""
        now = datetime.now(UTC).replace(microsecond=0)
        new = self.file(name).with_suffix(".new")
        new.write_bytes(crl(ca, revoked, **{"begins": now - HOUR, "ends": now + HOUR} | more))
        new.chmod(0o644)
        new.rename(self.file(name))

    def enrol(
        self, credential: str, ca: Authority, key: Any = None, issuers: Sequence[Authority] = (), **more: Any
    ) -> int:
        """A credential with a certificate of this CA, over the card's key; answers its serial number."""
        public = key or serialization.load_der_public_key(self.spki)
        made = ca.issue("Signer", public, "content_commitment", **more)
        chain = pem(made, ca.certificate, *(one.certificate for one in issuers))
        enrol(self.rig, credential, chain, "P-256", ("RAW", "CADES_B_B", "PADES_B_B"))
        return made.serial_number


@pytest.fixture(scope="module")
def lists() -> Iterator[Lists]:
    """A daemon with a credential for each case, and two beside them: with 'well' and 'changing' all is well at first."""
    rig = card_rig("P-256")
    made = Lists(rig)
    now = datetime.now(UTC).replace(microsecond=0)
    listed = made.ca("listed")
    made.enrol("expired", listed, begins=-9 * DAY, ends=-timedelta(seconds=1))
    made.enrol("not-yet-valid", listed, begins=HOUR, ends=DAY)
    made.enrol("chain-unknown", Authority("A CA that nobody knows"))
    made.enrol("another-key", listed, ec.generate_private_key(ec.SECP256R1()).public_key())
    revoked: Mapping[int, x509.ReasonFlags] = {
        made.enrol("revoked", listed): x509.ReasonFlags.key_compromise,
        made.enrol("on-hold", listed): HELD,
    }
    made.put(listed, "listed", revoked)
    made.enrol("issuer-revoked", above := Authority("issued", high := made.ca("high")), issuers=[high])
    made.put(high, "high", {above.certificate.serial_number: None})
    ended, old, missing, forged = (made.ca(name, more) for name, more in (
        ("ended", ""), ("old", "max_age_h = 2"), ("missing", ""), ("forged", ""),
    ))  # fmt: skip
    made.enrol("list-ended", ended)
    made.put(ended, "ended", begins=now - 2 * HOUR, ends=now - timedelta(seconds=1))
    made.enrol("list-too-old", old)
    made.put(old, "old", begins=now - 3 * HOUR)
    made.enrol("list-missing", missing)
    made.enrol("list-of-another-signer", forged)
    made.put(forged, "forged", key=listed.key)
    made.enrol("well", listed)
    made.changing = made.ca("changing")
    made.changes = made.enrol("changing", made.changing)
    made.put(made.changing, "changing")
    role, rpcs, _ = rig.callers["portal"]
    rig.callers["portal"] = (role, rpcs, ["p-256", "well", "changing", *CASES])
    with running(rig):
        yield made


@pytest.fixture(scope="module")
def portal(lists: Lists) -> Iterator[Caller]:
    with Caller(lists.rig) as caller:
        yield caller


def digests(caller: Caller, credential: str, output: str) -> Entry:
    return caller.sign(credential=credential, output=output).brief


def streamed(caller: Caller, credential: str, output: str) -> Entry:
    request = ask(credential=credential, output=output)
    (answer,) = caller.signing.StreamDigests(iter([request]), timeout=10)
    code = next((c.name for c in grpc.StatusCode if c.value[0] == answer.error.code), "")
    return code, answer.error.reason


def documents(caller: Caller, credential: str, output: str) -> Entry:
    """Where one document's answer says why it was not signed, the code is left to the reason."""
    data = draft() if output == "PADES_B_B" else b"text"
    messages = [
        pb.SignDocumentsRequest(
            open=pb.OpenDocuments(
                request_id=str(uuid.uuid4()),
                credential=credential,
                output=output,  # type: ignore[arg-type]
                digest_algorithm="SHA256",  # type: ignore[arg-type]
                signature_algorithm="ECDSA",  # type: ignore[arg-type]
            )
        ),
        pb.SignDocumentsRequest(begin=pb.BeginDocument(index=0, name="a")),
        pb.SignDocumentsRequest(chunk=data),
        pb.SignDocumentsRequest(end=pb.EndDocument(crc32c=google_crc32c.value(data))),
    ]
    try:
        result = next(iter(caller.signing.SignDocuments(iter(messages), timeout=20))).result
    except grpc.RpcError as error:
        return answer_of(error).brief
    if result.status == pb.SIGNED:
        return "", ""
    return CASES[credential][0], result.reason


WAYS: dict[str, tuple[Callable[[Caller, str, str], Entry], tuple[str, ...]]] = {
    "digests": (digests, ("RAW", "CADES_B_B", "PADES_B_B")),
    "stream": (streamed, ("RAW", "CADES_B_B", "PADES_B_B")),
    "documents": (documents, ("CADES_B_B", "PADES_B_B")),
}
FORMATS = [(way, output) for way, (_, outputs) in WAYS.items() for output in outputs]


@pytest.mark.parametrize("way, output", FORMATS)
def test_no_key_use(lists: Lists, portal: Caller, way: str, output: str) -> None:
    """
    Row 1.5: with a certificate that is not valid no key is used, for the whole matrix of expired, not yet valid, revoked,
    on hold, of an unknown chain, over another key than the credential's, by every format: no signature at all.

    And with lists that are missing, ended, too old, or signed by another, so that nobody knows. Each is refused with its reason before C_Sign, and the certificate beside it signs.
    """
    call, _ = WAYS[way]
    before = signed(lists.rig)
    answers = {credential: call(portal, credential, output) for credential in CASES}
    assert answers == CASES
    assert signed(lists.rig) == before
    assert call(portal, "well", output) in {("", ""), ("OK", "")}
    assert signed(lists.rig) == before + 1


def test_what_is_said_and_when_to_come_back(portal: Caller) -> None:
    """F36: a revoked certificate is refused with its reason, one on hold with that; where nobody knows, with a time to retry."""
    answers = {credential: portal.sign(credential=credential) for credential in CASES}
    assert "(keyCompromise)" in answers["revoked"].message
    assert "(on hold)" in answers["on-hold"].message
    assert "no CRL of its issuer was had yet" in answers["list-missing"].message
    assert "no CRL of its issuer was had yet" in answers["list-of-another-signer"].message
    assert "the CRL of its issuer ended on" in answers["list-ended"].message
    assert {answers[name].retry_s for name, answer in CASES.items() if answer == UNKNOWN} == {5.0}
    assert {answers[name].retry_s for name, answer in CASES.items() if answer == REVOKED} == {None}


def test_metrics_and_log(lists: Lists) -> None:
    """Each list's age and failures are in the metrics, by its issuer; a bad list is in the log."""
    rig = lists.rig
    assert 3600 <= metric(rig, "paraph_crl_age_seconds", issuer="CN=listed") < 4000
    assert metric(rig, "paraph_crl_age_seconds", issuer="CN=missing") == float("inf")
    assert metric(rig, "paraph_crl_failures_total", issuer="CN=listed") == 0
    assert metric(rig, "paraph_crl_failures_total", issuer="CN=forged") >= 1
    assert "CN=forged" in rig.log.read_text()
    assert "is not signed with the key of its issuer's certificate" in rig.log.read_text()


def test_revoked_while_the_daemon_runs(lists: Lists, portal: Caller) -> None:
    """F36: once its CA has revoked a certificate, calls and streams that were open before are refused within seconds,
    without a restart, and the key is not used any more."""
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    answers = portal.signing.StreamDigests(iter(requests.get, None), timeout=60)
    requests.put(ask(credential="changing"))
    assert [item.status for item in next(answers).items] == [pb.SIGNED]
    lists.put(lists.changing, "changing", {lists.changes: None}, number=2)
    until(lambda: portal.sign(credential="changing").brief == REVOKED, 10, "CERT_REVOKED")
    before = signed(lists.rig)
    requests.put(ask(credential="changing"))
    assert next(answers).error.reason == "CERT_REVOKED"
    assert signed(lists.rig) == before
    requests.put(None)
    assert list(answers) == []


def test_a_restart_without_the_list(lists: Lists) -> None:
    """F37: a daemon that starts while a CA's list is away goes on with the last good one: what it revokes stays revoked."""
    lists.rig.stop()
    lists.file("listed").rename(lists.file("listed").with_suffix(".away"))
    lists.rig.launch()
    lists.rig.wait_serving()
    with Caller(lists.rig) as portal:
        assert portal.sign(credential="well").code == "OK"
        assert portal.sign(credential="revoked").brief == REVOKED
        assert portal.sign(credential="list-missing").brief == UNKNOWN
    assert metric(lists.rig, "paraph_crl_failures_total", issuer="CN=listed") >= 1
