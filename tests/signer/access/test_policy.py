"""Who may call what with which credential; and what a reload of the configuration changes."""

import itertools
import signal
import ssl
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from signer import credential as rows
from signer.clock import Clock
from signer.config import ROLES
from signer.credential import State
from signer.store import open_store
from signer.v1 import operator_pb2, signing_pb2
from signer.v1 import operator_pb2 as op
from signer.v1 import signing_pb2 as pb
from tests.daemon import SUBMIT, Rig, running, until
from tests.signer.access.calls import (
    Answer,
    Caller,
    ask,
    card_rig,
    enrol,
    reload,
    said,
    shim_of,
    signed,
    statuses,
    untouched,
    within,
)

SERVICES = (signing_pb2.DESCRIPTOR.services_by_name["Signing"], operator_pb2.DESCRIPTOR.services_by_name["Operator"])
RPCS = [method.name for service in SERVICES for method in service.methods]
OPENING = {
    "output": "CADES_B_B",
    "digest_algorithm": "SHA256",
    "signature_algorithm": "ECDSA",
}


def _document(credential: str) -> Iterator[Any]:
    yield pb.SignDocumentsRequest(
        open=pb.OpenDocuments(request_id=str(uuid.uuid4()), credential=credential, **OPENING)  # type: ignore[arg-type]
    )
    yield pb.SignDocumentsRequest(begin=pb.BeginDocument(index=0, name="a"))
    yield pb.SignDocumentsRequest(chunk=b"text")
    yield pb.SignDocumentsRequest(end=pb.EndDocument(crc32c=google_crc32c.value(b"text")))


def _look(_credential: str) -> Iterator[Any]:
    yield pb.VerifyDocumentRequest(open=pb.OpenVerify(name="a"))
    yield pb.VerifyDocumentRequest(chunk=b"text")


def _first(stream: Any) -> Any:
    answer = next(stream)
    stream.cancel()
    return answer


# How each RPC is called with a credential's name; those of tokens name one that is not there, so nothing changes.
CALLS: dict[str, Callable[[Caller, str], Any]] = {
    "ListCredentials": lambda c, _: c.signing.ListCredentials(pb.ListCredentialsRequest(), timeout=10),
    "GetCredential": lambda c, name: c.signing.GetCredential(pb.GetCredentialRequest(credential=name), timeout=10),
    "SignDigests": lambda c, name: c.signing.SignDigests(ask(credential=name), timeout=10),
    "StreamDigests": lambda c, name: _first(c.signing.StreamDigests(iter([ask(credential=name)]), timeout=10)),
    "SignDocuments": lambda c, name: _first(c.signing.SignDocuments(_document(name), timeout=10)),
    "GetResult": lambda c, _: c.signing.GetResult(pb.GetResultRequest(request_id=str(uuid.uuid4())), timeout=10),
    "VerifyDocument": lambda c, name: c.signing.VerifyDocument(_look(name), timeout=20),
    "GetServerInfo": lambda c, _: c.operator.GetServerInfo(op.GetServerInfoRequest(), timeout=10),
    "ReloadConfig": lambda c, _: c.operator.ReloadConfig(op.ReloadConfigRequest(), timeout=10),
    "ListTokens": lambda c, _: c.operator.ListTokens(op.ListTokensRequest(), timeout=10),
    "WatchTokens": lambda c, _: _first(c.operator.WatchTokens(op.WatchTokensRequest(), timeout=10)),
    "UnlockToken": lambda c, _: c.operator.UnlockToken(op.UnlockTokenRequest(token="none"), timeout=10),
    "DrainToken": lambda c, _: c.operator.DrainToken(op.DrainTokenRequest(token="none"), timeout=10),
    "OpenBatch": lambda c, name: c.signing.OpenBatch(
        iter([pb.OpenBatchRequest(open=pb.BatchOpening(request_id=str(uuid.uuid4()), credential=name))]), timeout=10
    ),
    "GetBatch": lambda c, _: _first(c.signing.GetBatch(pb.GetBatchRequest(request_id=str(uuid.uuid4())), timeout=10)),
    "ListBatches": lambda c, _: c.signing.ListBatches(pb.ListBatchesRequest(), timeout=10),
    "CancelBatch": lambda c, _: c.signing.CancelBatch(pb.CancelBatchRequest(request_id=str(uuid.uuid4())), timeout=10),
    "SignBatch": lambda c, _: c.signing.SignBatch(
        pb.SignBatchRequest(request_id=str(uuid.uuid4()), secret_code="some code"), timeout=10
    ),
    "RequestOtp": lambda c, name: c.signing.RequestOtp(
        pb.RequestOtpRequest(terms=pb.Terms(credential=name)), timeout=10
    ),
    "Authorize": lambda c, name: c.signing.Authorize(pb.AuthorizeRequest(terms=pb.Terms(credential=name)), timeout=10),
    "Authenticate": lambda c, name: c.signing.Authenticate(
        pb.AuthenticateRequest(request_id=str(uuid.uuid4()), login=pb.Login(credential=name)), timeout=10
    ),
    "CompleteEnrolment": lambda c, _: c.signing.CompleteEnrolment(
        pb.CompleteEnrolmentRequest(enrolment="ABCD"), timeout=10
    ),
    "ChangeCode": lambda c, name: c.signing.ChangeCode(
        pb.ChangeCodeRequest(credential=name, secret_code="kiln and clay 4", new_secret_code="clay and kiln 5"),
        timeout=10,
    ),
    "RegisterCredential": lambda c, _: c.operator.RegisterCredential(
        op.RegisterCredentialRequest(name="none"), timeout=10
    ),
    "SetCredentialState": lambda c, _: c.operator.SetCredentialState(
        op.SetCredentialStateRequest(name="none"), timeout=10
    ),
    "EnrolSubject": lambda c, _: c.operator.EnrolSubject(op.EnrolSubjectRequest(subject="none"), timeout=10),
    "SuspendSubject": lambda c, _: c.operator.SuspendSubject(op.SuspendSubjectRequest(subject="none"), timeout=10),
    "UnlockSubject": lambda c, _: c.operator.UnlockSubject(op.UnlockSubjectRequest(subject="none"), timeout=10),
    "ListSubjects": lambda c, _: c.operator.ListSubjects(op.ListSubjectsRequest(), timeout=10),
    "ConfirmClock": lambda c, _: c.operator.ConfirmClock(op.ConfirmClockRequest(), timeout=10),
    "ResumeToken": lambda c, _: c.operator.ResumeToken(op.ResumeTokenRequest(token="none"), timeout=10),
}
CALLERS = {
    "portal": sorted(ROLES["submit"]),
    "window": sorted(ROLES["consent"]),
    "operator": sorted(ROLES["operator"]),
    "mute": [],
    "nobody": None,
}
CREDENTIALS = ("p-256", "forbidden", "nonexistent")
NAMES_A_CREDENTIAL = {
    *("GetCredential", "SignDigests", "StreamDigests", "SignDocuments"),
    *("RequestOtp", "Authorize", "Authenticate"),
}
# What this daemon, which serves no people, answers to who may call; the credential p-256 is a seal.
WITHOUT_PEOPLE = {
    **dict.fromkeys(("RequestOtp", "Authorize", "Authenticate"), ("FAILED_PRECONDITION", "GATE_MISMATCH")),
    **dict.fromkeys(
        (
            "OpenBatch",
            "SignBatch",
            "CompleteEnrolment",
            "ChangeCode",
            "SuspendSubject",
            "UnlockSubject",
            "ListSubjects",
        ),
        ("FAILED_PRECONDITION", "PEOPLE_NOT_SERVED"),
    ),
    **dict.fromkeys(("GetBatch", "CancelBatch"), ("NOT_FOUND", "BATCH_UNKNOWN")),
    "RegisterCredential": ("INVALID_ARGUMENT", "CREDENTIAL_INVALID"),
    "SetCredentialState": ("NOT_FOUND", "CREDENTIAL_UNKNOWN"),
    "EnrolSubject": ("INVALID_ARGUMENT", "SUBJECT_INVALID"),
}
NAMES_A_TOKEN = {"UnlockToken", "DrainToken", "ResumeToken"}


def expected(rpc: str, caller: str, credential: str) -> tuple[str, str]:
    """The (code, reason) of a cell."""
    allowed = CALLERS[caller]
    if allowed is None:
        return "UNAUTHENTICATED", "CALLER_UNKNOWN"
    if rpc not in allowed:
        return "PERMISSION_DENIED", "RPC_NOT_ALLOWED"
    if rpc in NAMES_A_CREDENTIAL and credential != "p-256":
        return "NOT_FOUND", "CREDENTIAL_UNKNOWN"
    if rpc in WITHOUT_PEOPLE:
        return WITHOUT_PEOPLE[rpc]
    if rpc == "GetResult":
        return "NOT_FOUND", "REQUEST_UNKNOWN"
    if rpc in NAMES_A_TOKEN:
        return "NOT_FOUND", "TOKEN_UNKNOWN"
    return "OK", ""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    made = card_rig("P-256")
    enrol(made, "forbidden", *made.credentials["p-256"])
    made.callers = {
        "portal": ("submit", CALLERS["portal"] or [], ["p-256", "nonexistent-but-allowed"]),
        "window": ("consent", CALLERS["window"] or [], ["p-256"]),
        "operator": ("operator", CALLERS["operator"] or [], ()),
        "mute": ("submit", [], ["p-256"]),
    }
    with running(made):
        yield made


@pytest.fixture(scope="module")
def callers(rig: Rig) -> Iterator[dict[str, Caller]]:
    made = {name: Caller(rig, name) for name in CALLERS}
    yield made
    for caller in made.values():
        caller.channel.close()


# ---- the matrix


@pytest.mark.parametrize("rpc", RPCS)
@pytest.mark.parametrize("caller", CALLERS)
def test_every_cell(rig: Rig, callers: dict[str, Caller], caller: str, rpc: str) -> None:
    """
    Row 5.2: each RPC of both services, by each kind of caller, with each kind of credential: every cell of the matrix is
    allowed by name or denied.
    """
    answers: dict[str, Answer] = {}
    for credential in CREDENTIALS:
        before = signed(rig)
        answer = said(lambda: CALLS[rpc](callers[caller], credential))  # noqa: B023 -- called at once
        if rpc == "StreamDigests" and answer.code == "OK" and answer.value.HasField("error"):
            problem = answer.value.error
            assert (problem.code, answer.value.items) == (5, [])  # google.rpc.Code NOT_FOUND
            answer = Answer("NOT_FOUND", problem.reason, "paraph", problem.message, details=problem.SerializeToString())
        assert answer.brief == expected(rpc, caller, credential), answer
        assert answer.code == "OK" or answer.domain == "paraph"
        if answer.code != "OK":
            assert signed(rig) == before
        answers[credential] = answer
    assert answers["forbidden"] == answers["nonexistent"], "one answer, byte for byte, for both"


def test_credential_that_is_allowed_and_not_there(callers: dict[str, Caller]) -> None:
    """A name on the allow-list without a credential of that name is answered like any unknown one."""
    answers = [callers["portal"].sign(credential=name) for name in ("nonexistent-but-allowed", "nonexistent", "")]
    assert {answer.brief for answer in answers} == {("NOT_FOUND", "CREDENTIAL_UNKNOWN")}
    assert len(set(answers)) == 1


def test_list_shows_only_what_is_allowed(callers: dict[str, Caller]) -> None:
    """ListCredentials answers the caller's own credentials and says nothing of others."""
    answer = callers["portal"].signing.ListCredentials(pb.ListCredentialsRequest(), timeout=10)
    assert [credential.name for credential in answer.credentials] == ["p-256"]


def test_rpc_that_does_not_exist(rig: Rig, callers: dict[str, Caller]) -> None:
    """What no service declares is UNIMPLEMENTED, and no method of ours is entered."""
    with untouched(rig):
        for path in ("/signer.v1.Signing/DrainToken", "/signer.v1.Signing/signdigests", "/signer.v1.Ledger/Read"):
            call = callers["portal"].channel.unary_unary(path)
            assert said(lambda: call(b"", timeout=10)).code == "UNIMPLEMENTED"  # noqa: B023


def test_every_rpc_has_a_role() -> None:
    """
    Row 5.2: an RPC without a policy fails the build: whoever declares one says which role may call it, and this file how it is tested. To open batches and to allow them
    is never one role's but a person's own.
    """
    assert set(itertools.chain.from_iterable(ROLES.values())) == set(RPCS) == set(CALLS)
    assert ROLES["self"] == ROLES["submit"] | ROLES["consent"]
    assert not ROLES["operator"] & ROLES["self"]
    opens, allows = {"OpenBatch", "SignDigests", "SignDocuments", "StreamDigests"}, {"Authorize", "SignBatch"}
    assert [role for role, rpcs in ROLES.items() if rpcs & opens and rpcs & allows] == ["self"]


# ---- reloads


@pytest.fixture(scope="module")
def changing() -> Iterator[Rig]:
    """A daemon whose configuration the tests below change and put back."""
    made = card_rig("P-256")
    made.callers["extra"] = ("submit", SUBMIT, None)
    made.start()
    del made.callers["extra"]
    made.write_config()
    try:
        assert "reloaded: 2 callers" in reload(made)
        yield made
    finally:
        made.close()


def test_new_and_removed_callers(changing: Rig) -> None:
    """A caller that is added may call at once, on the connection it has; one that is removed may not."""
    with Caller(changing, "extra") as extra:
        assert extra.sign().brief == ("UNAUTHENTICATED", "CALLER_UNKNOWN")
        changing.callers["extra"] = ("submit", SUBMIT, None)
        changing.write_config()
        reload(changing)
        assert statuses(extra.sign()) == ["SIGNED"]
        changing.callers["extra"] = ("submit", ["SignDigests"], ())
        changing.write_config()
        reload(changing)
        assert extra.sign().brief == ("NOT_FOUND", "CREDENTIAL_UNKNOWN")
        changing.callers["extra"] = ("submit", ["ListCredentials"], None)
        changing.write_config()
        reload(changing)
        assert extra.sign().brief == ("PERMISSION_DENIED", "RPC_NOT_ALLOWED")
        del changing.callers["extra"]
        changing.write_config()
        reload(changing)
        assert extra.sign().brief == ("UNAUTHENTICATED", "CALLER_UNKNOWN")


def _spoil(old: str, new: str) -> Callable[[str], str]:
    def spoiled(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return spoiled


@pytest.mark.parametrize(
    ("spoil", "mistakes"),
    [
        pytest.param(lambda _: "[server\n", ["not TOML"], id="not-toml"),
        pytest.param(lambda text: text + "[oops]\n", ["oops: unknown key"], id="unknown-key"),
        pytest.param(
            lambda text: text.replace('"SignDigests"', '"SignEverything"').replace('role = "operator"', 'role = "king"'),
            ['caller "portal": the role submit has no SignEverything', 'caller "operator": role: '],
            id="two-mistakes",
        ),
        pytest.param(_spoil('kind = "smartcard"', 'kind = "signing-stick"'), ["token: changed, and needs a restart"], id="token"),
        pytest.param(_spoil('name = "card"', 'name = "other"'), ["token: changed, and needs a restart"], id="token-name"),
        pytest.param(_spoil('metrics = "127.0.0.1:', 'metrics = "[::1]:'), ["server: changed, and needs a restart"], id="server"),
        pytest.param(_spoil("denied_certificates", "roots2"), ["trust.roots2: unknown key"], id="trust"),
        pytest.param(lambda text: text + '[[trust.crl]]\nissuer = "/ca"\nfile = "/crl"\n', ["trust.crl: changed, and needs a restart"], id="crl"),
        pytest.param(_spoil("checkpoint.key", "other.key"), ["ledger: changed, and needs a restart"], id="ledger-key"),
        pytest.param(_spoil("anchor/checkpoints", "anchor/other"), ["ledger: changed, and needs a restart"], id="anchor"),
        pytest.param(_spoil("[[ledger.anchor]]", 'database = "postgresql://paraph@db/p"\n[[ledger.anchor]]'), ["ledger: changed, and needs a restart"], id="database"),
        pytest.param(_spoil("checkpoint.key", "other.key"), ["ledger: changed, and needs a restart"], id="ledger-key"),
        pytest.param(_spoil("anchor/checkpoints", "anchor/other"), ["ledger: changed, and needs a restart"], id="anchor"),
        pytest.param(_spoil("[[ledger.anchor]]", 'database = "postgresql://paraph@db/p"\n[[ledger.anchor]]'), ["ledger: changed, and needs a restart"], id="database"),
    ],
)  # fmt: skip
def test_a_bad_file_changes_nothing(changing: Rig, spoil: Callable[[str], str], mistakes: list[str]) -> None:
    """F47: a file with a mistake is refused whole, each mistake named, by SIGHUP as by ReloadConfig; the old one stays."""
    changing.write_config()
    good = changing.config.read_text()
    # In the same file a change that would be fine: it must not come into force either.
    changing.config.write_text(spoil(good.replace('uri = "urn:test:portal"', 'uri = "urn:test:other"')))
    try:
        said_in_log = reload(changing)
        assert "reload refused, the old configuration stays" in said_in_log
        assert within(mistakes, said_in_log)
        with Caller(changing, "operator") as operator, Caller(changing) as portal:
            info = operator.operator.GetServerInfo(op.GetServerInfoRequest(), timeout=10)
            answer = said(lambda: operator.operator.ReloadConfig(op.ReloadConfigRequest(), timeout=10))
            assert answer.brief == ("FAILED_PRECONDITION", "CONFIG_REJECTED")
            assert within(mistakes, answer.message)
            again = operator.operator.GetServerInfo(op.GetServerInfoRequest(), timeout=10)
            assert again.config_sha256 == info.config_sha256
            assert statuses(portal.sign()) == ["SIGNED"]
    finally:
        changing.config.write_text(good)
        assert "reloaded" in reload(changing)


def test_a_bad_deny_list_allows_nobody(changing: Rig) -> None:
    """A line of the deny-list that is no hash is named; its neighbours are denied, and nobody comes off the list by it."""
    with Caller(changing) as portal:
        changing.denied.write_text(f"{_fingerprint(changing, 'operator')}\n")
        assert "reloaded" in reload(changing)
        changing.denied.write_text(f"abc\n{_fingerprint(changing, 'portal')}\n")
        try:
            answer = reload(changing)
            assert within(["refused", f"trust.denied_certificates: {changing.denied}:1: not a SHA-256"], answer)
            assert portal.sign().brief == ("UNAUTHENTICATED", "CALLER_REVOKED")
            with Caller(changing, "operator") as operator:
                answered = said(lambda: operator.operator.ListTokens(op.ListTokensRequest(), timeout=10))
                assert answered.reason == "CALLER_REVOKED"
        finally:
            changing.denied.write_text("")
            assert "reloaded" in reload(changing)
        assert statuses(portal.sign()) == ["SIGNED"]


@pytest.mark.parametrize(
    "spoil", [_spoil("assembly_processes = 1", "assembly_processes = 2"), lambda text: text + "[oops]\n"]
)
def test_a_revocation_waits_for_nothing(changing: Rig, spoil: Callable[[str], str]) -> None:
    """
    While the file has a change that needs a restart, or a mistake, a certificate that was denied and a credential that was
    suspended are refused all the same; the log says what is in force, and such a file allows nobody anew.
    """
    changing.write_config()
    good = changing.config.read_text()
    with Caller(changing) as portal, Caller(changing, "operator") as operator:
        try:
            changing.config.write_text(spoil(good))
            _set_state(changing, State.SUSPENDED)
            said_in_log = reload(changing)
            assert within(
                ["reload refused, the old configuration stays, but", "0 certificates are denied"], said_in_log
            )
            assert portal.sign().reason == "CREDENTIAL_SUSPENDED"
            _set_state(changing, State.ACTIVE)
            changing.denied.write_text(f"{_fingerprint(changing, 'portal')}\n")
            assert "1 certificates are denied, and 1 credentials are in force" in reload(changing)
            assert portal.sign().brief == ("UNAUTHENTICATED", "CALLER_REVOKED")
            changing.denied.write_text("")
            assert "1 certificates are denied" in reload(changing)
            answered = said(lambda: operator.operator.ReloadConfig(op.ReloadConfigRequest(), timeout=10))
            assert "but for credentials and who is denied besides" in answered.message
        finally:
            changing.config.write_text(good)
            changing.denied.write_text("")
            _set_state(changing, State.ACTIVE)
            assert "reloaded" in reload(changing)
        assert statuses(portal.sign()) == ["SIGNED"]


def _set_state(rig: Rig, state: State) -> None:
    engine = open_store(rig.state / "paraph.sqlite")
    rows.set_state(engine, "p-256", state, Clock())
    engine.dispose()


def _fingerprint(rig: Rig, caller: str) -> str:
    certificate = x509.load_pem_x509_certificate(rig.files(caller)[0].read_bytes())
    return certificate.fingerprint(hashes.SHA256()).hex()


def test_reload_says_what_is_in_force(changing: Rig) -> None:
    """ReloadConfig answers the hash of the file it read, and how much is in it."""
    import hashlib

    changing.write_config()
    with Caller(changing, "operator") as operator:
        answer = operator.operator.ReloadConfig(op.ReloadConfigRequest(), timeout=10)
    assert answer.config_sha256 == hashlib.sha256(changing.config.read_bytes()).digest()
    assert (answer.callers, answer.credentials) == (2, 1)


def _server_serial(rig: Rig) -> int:
    """The serial of the certificate that a new connection is shown."""
    import socket

    context = ssl.create_default_context(cafile=str(rig.pki.ca_file))
    context.load_cert_chain(*rig.files("portal"))
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", rig.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        der = wrapped.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def _serial(path: Path) -> int:
    return x509.load_pem_x509_certificates(path.read_bytes())[0].serial_number


def test_new_server_certificate(changing: Rig) -> None:
    """After a reload new connections get the new certificate; those that are open go on with theirs."""
    certificate, key = changing.server_files
    with Caller(changing) as portal:
        assert statuses(portal.sign()) == ["SIGNED"]
        before = _server_serial(changing)
        assert before == _serial(certificate)
        changing.pki.server()
        assert _serial(certificate) != before, "the files have changed"
        assert _server_serial(changing) == before, "nobody has told the daemon"
        assert "reloaded" in reload(changing)
        assert _server_serial(changing) == _serial(certificate)
        assert statuses(portal.sign()) == ["SIGNED"]
    assert key.exists()


def test_certificate_and_key_of_two_pairs(changing: Rig) -> None:
    """A renewal that has replaced only one of the two files is refused, and the daemon stays reachable."""
    certificate, key = changing.server_files
    old = key.read_bytes()
    changing.pki.server()
    new = key.read_bytes()
    key.write_bytes(old)
    try:
        assert within(["reload refused", "key", "does not belong to the certificate"], reload(changing))
        with Caller(changing) as portal:
            assert statuses(portal.sign()) == ["SIGNED"]
    finally:
        key.write_bytes(new)
        assert "reloaded" in reload(changing)
    assert _server_serial(changing) == _serial(certificate)


@pytest.mark.parametrize("name", ["server.pem", "server.key", "ca.pem"])
def test_tls_file_that_cannot_be_read(changing: Rig, name: str) -> None:
    """A TLS file that is empty, or PEM in name only, is named, and the old one stays in use."""
    path = changing.pki.directory / name
    good = path.read_bytes()
    kind = b"PRIVATE KEY" if name.endswith("key") else b"CERTIFICATE"
    try:
        for bad in (b"", b"-----BEGIN " + kind + b"-----\nAAAA\n-----END " + kind + b"-----\n"):
            with Caller(changing) as portal:  # which has read its own files by now
                path.write_bytes(bad)
                assert within(["reload refused", str(path)], reload(changing))
                assert statuses(portal.sign()) == ["SIGNED"]
                path.write_bytes(good)
    finally:
        path.write_bytes(good)
        assert "reloaded" in reload(changing)


# ---- credentials reach the running daemon


def _paraph(rig: Rig, *words: Any) -> str:
    done = rig.command("credential", "--config", rig.config, *words)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_credential_commands_reach_the_daemon(changing: Rig) -> None:
    """`paraph credential` tells the daemon, which follows without a restart and without a new login of the token."""
    chain, label, _ = changing.credentials["p-256"]
    changing.callers["portal"] = ("submit", SUBMIT, ["p-256", "second"])
    changing.write_config()
    reload(changing)
    path = changing.directory / "second.pem"
    path.write_bytes(chain)
    path.chmod(0o644)
    logins = len(shim_of(changing).logins())
    with Caller(changing) as portal:

        def becomes(code: str, reason: str, output: str = "RAW") -> None:
            until(lambda: portal.sign(credential="second", output=output).brief == (code, reason), 5, reason)

        becomes("NOT_FOUND", "CREDENTIAL_UNKNOWN")
        add = ("add", "second", "--certificate", path, "--key-label", label, "--output")
        assert "was told" in _paraph(changing, *add, "RAW")
        becomes("OK", "")
        _paraph(changing, "suspend", "second")
        becomes("FAILED_PRECONDITION", "CREDENTIAL_SUSPENDED")
        assert statuses(portal.sign()) == ["SIGNED"], "the other credential of the same key is not suspended"
        _paraph(changing, "resume", "second")
        becomes("OK", "")
        _paraph(changing, *add, "CADES_B_B")
        becomes("FAILED_PRECONDITION", "OUTPUT_NOT_ALLOWED")
        becomes("OK", "", "CADES_B_B")
        _paraph(changing, "remove", "second")
        becomes("NOT_FOUND", "CREDENTIAL_UNKNOWN")
    assert len(shim_of(changing).logins()) == logins


def test_a_credential_command_waits_for_nothing_else(changing: Rig) -> None:
    """Also while the file has a change that needs a restart it ends when what it did is in force, and says so."""
    changing.write_config()
    good = changing.config.read_text()
    changing.config.write_text(good.replace("assembly_processes = 1", "assembly_processes = 2"))
    try:
        with Caller(changing) as portal:
            assert "has it in force" in _paraph(changing, "suspend", "p-256")
            assert portal.sign().reason == "CREDENTIAL_SUSPENDED"
            assert "has it in force" in _paraph(changing, "resume", "p-256")
            assert statuses(portal.sign()) == ["SIGNED"]
    finally:
        changing.config.write_text(good)
        assert "reloaded" in reload(changing)


def test_a_daemon_that_does_not_answer(changing: Rig) -> None:
    """Then `paraph credential` is no success: it says that the daemon may go on as before, and what to do."""
    changing.send_signal(signal.SIGSTOP)
    try:
        done = changing.command("credential", "--config", changing.config, "suspend", "p-256")
    finally:
        changing.send_signal(signal.SIGCONT)
    assert done.returncode == 69, done
    assert within(["NOT KNOWN TO BE IN FORCE", "has not said so within 10 s", "reload or restart it"], done.stderr)
    _paraph(changing, "resume", "p-256")


def test_a_credential_command_without_a_daemon(changing: Rig) -> None:
    """It is said that it is in force later, and that is no failure: also where one has run that was killed."""
    state, config = changing.directory / "unused", changing.directory / "unused.toml"
    config.write_text(changing.config.read_text().replace(f'"{changing.state}"', f'"{state}"'))
    config.chmod(0o644)
    chain = changing.directory / "p-256.chain.pem"
    add = ("credential", "--config", config, "add", "one", "--certificate", chain, "--key-label", "P-256")
    for output in ("RAW", "CADES_B_B"):
        done = changing.command(*add, "--output", output)
        assert (done.returncode, f"no daemon is seen to use {state}" in done.stderr) == (0, True), done
        (state / "lock").write_text("1")
