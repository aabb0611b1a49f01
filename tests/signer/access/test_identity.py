"""Who is calling: one URI of a client certificate, or the Unix socket, and nothing else."""

import json
import os
import pwd
import queue
import re
import socket
import stat
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from signer.clock import Clock
from signer.config import Caller as ConfiguredCaller
from signer.config import ConfigError, Listener
from signer.errors import Refusal
from signer.handlers import Admission, Call, Gatekeeper
from signer.listener import Door
from signer.policy import Policy
from signer.v1 import operator_pb2 as op
from signer.v1 import signing_pb2 as pb
from tests.daemon import Rig, as_user, running, until
from tests.pki import Authority
from tests.signer.access.calls import (
    Answer,
    Caller,
    ask,
    asked,
    card_rig,
    digests,
    metric,
    reload,
    said,
    shim_of,
    signed,
    statuses,
    untouched,
)

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become two other users")
Names = list[x509.GeneralName]


def uri(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(text)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    made = card_rig("P-256")
    made.callers["desk"] = ("operator", ["ListTokens"], ())
    made.sockets = {"operator": ("operator.sock", "0600"), "desk": ("desk.sock", "0660")}
    with running(made):
        yield made


# ---- what TLS itself turns away


def test_the_configured_caller_is_let_in(rig: Rig) -> None:
    """The control of this file: what the other tests spoil, whole, gets a signature."""
    with Caller(rig) as portal:
        assert statuses(portal.sign()) == ["SIGNED"]


def _shaken_off(rig: Rig, credentials: grpc.ChannelCredentials) -> None:
    """The handshake fails: no call is even counted."""
    from signer.v1 import signing_pb2_grpc

    calls = metric(rig, "paraph_calls_total")
    with untouched(rig), grpc.secure_channel(f"127.0.0.1:{rig.port}", credentials) as channel:
        answer = said(lambda: signing_pb2_grpc.SigningStub(channel).SignDigests(ask(), timeout=10))
    assert answer.brief == ("UNAVAILABLE", "")
    assert metric(rig, "paraph_calls_total") == calls


def test_no_client_certificate(rig: Rig) -> None:
    """Row 5.1: without a certificate of its own nobody gets through the handshake: no handler is entered."""
    _shaken_off(rig, grpc.ssl_channel_credentials(rig.pki.ca_file.read_bytes()))


def test_no_tls(rig: Rig) -> None:
    """An address never speaks plain text."""
    from signer.v1 import signing_pb2_grpc

    with untouched(rig), grpc.insecure_channel(f"127.0.0.1:{rig.port}") as channel:
        answer = said(lambda: signing_pb2_grpc.SigningStub(channel).SignDigests(ask(), timeout=10))
    assert answer.brief == ("UNAVAILABLE", "")


def test_wrong_ca(rig: Rig) -> None:
    """Row 5.1: the right URI from a CA that is not ours is worth nothing, even if that CA has our CA's name."""
    for name in ("Somebody", "Test issuing"):
        files = rig.pki.tls(f"forged-{name[:4]}", [uri("urn:test:portal")], issuer=Authority(name))
        _shaken_off(rig, rig.tls("portal", files))


@pytest.mark.parametrize(
    ("begins", "ends"), [(-timedelta(days=2), -timedelta(minutes=1)), (timedelta(hours=1), timedelta(days=2))]
)
def test_certificate_out_of_its_time(rig: Rig, begins: timedelta, ends: timedelta) -> None:
    """Row 5.1: a certificate that has expired, or is not valid yet, does not begin a connection."""
    _shaken_off(rig, rig.tls("portal", rig.pki.caller("portal-then", begins=begins, ends=ends)))


@pytest.mark.parametrize(("version", "taken"), [("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)])
def test_tls_version(rig: Rig, version: str, taken: bool) -> None:
    """Row 5.1: TLS 1.2 is the floor: to an offer of 1.1 the server hangs up without a word."""
    certificate, key = rig.files("portal")
    client = ["openssl", "s_client", "-connect", f"127.0.0.1:{rig.port}", "-cert", certificate, "-key", key]
    more = [version, "-cipher", "DEFAULT@SECLEVEL=0", "-alpn", "h2", "-CAfile", rig.pki.ca_file]
    done = subprocess.run([*client, *more], input=b"", capture_output=True, timeout=30, check=False)
    text = (done.stdout + done.stderr).decode(errors="replace")
    if taken:
        assert "Verify return code: 0 (ok)" in text
        assert "ALPN protocol: h2" in text
    else:
        written = re.search(r"SSL handshake has read 0 bytes and written (\d+) bytes", text)
        assert written, text
        assert int(written[1]) > 0, "the client did offer it, and the server hung up"
        assert "Cipher is (NONE)" in text


# ---- certificates of our CA that name no caller


@pytest.mark.parametrize(
    "names",
    [
        pytest.param([uri("urn:test:nobody")], id="unknown-uri"),
        pytest.param([uri("urn:test:portal"), uri("urn:test:operator")], id="two-callers"),
        pytest.param([uri("urn:test:portal"), uri("urn:test:nobody")], id="two-uris"),
        pytest.param([uri("urn:test:portal"), uri("urn:test:portal")], id="the-same-uri-twice"),
        pytest.param([], id="no-names"),
        pytest.param([x509.DNSName("localhost")], id="no-uri"),
        pytest.param([x509.DNSName("urn:test:portal")], id="dns-like-the-uri"),
        pytest.param([x509.RFC822Name("urn:test:portal@urn")], id="mail-like-the-uri"),
        pytest.param([x509.DNSName("urn:test:portal"), uri("urn:test:nobody")], id="dns-beside-an-unknown-uri"),
        pytest.param([uri("urn:test:porta")], id="prefix"),
        pytest.param([uri("urn:test:portal2")], id="longer"),
        pytest.param([uri("urn:test:portal/")], id="slash"),
        pytest.param([uri("urn:test:portal ")], id="space"),
        pytest.param([uri("urn:test:portal\x00")], id="nul"),
        pytest.param([uri("urn:test:portal\x00.evil.example")], id="nul-and-more"),
        pytest.param([uri("urn:test:portal,urn:test:operator")], id="list"),
        pytest.param([uri("x-urn:test:portal")], id="suffix-of"),
        pytest.param([uri("URN:TEST:PORTAL")], id="upper-case"),
        pytest.param([uri("urn:test:Portal")], id="one-letter-upper"),
        pytest.param([uri("urn:test:%70ortal")], id="percent"),
        pytest.param([uri("urn:test:*")], id="star"),
    ],
)
def test_certificate_that_names_no_caller(rig: Rig, names: Names, request: pytest.FixtureRequest) -> None:
    """The caller is the one whose URI is the certificate's only URI, letter for letter."""
    files = rig.pki.tls(f"odd-{request.node.callspec.id}", names)
    with untouched(rig), Caller(rig, files=files) as odd:
        for answer in (odd.sign(), said(lambda: odd.operator.GetServerInfo(op.GetServerInfoRequest(), timeout=10))):
            assert (answer.code, answer.reason, answer.domain) == ("UNAUTHENTICATED", "CALLER_UNKNOWN", "paraph")


def test_common_name_is_not_identity(rig: Rig) -> None:
    """A subject that reads like a caller's URI names nobody."""
    with untouched(rig), Caller(rig, files=rig.pki.tls("urn:test:portal", [])) as odd:
        assert odd.sign().brief == ("UNAUTHENTICATED", "CALLER_UNKNOWN")


def test_other_names_beside_the_uri_do_not_matter(rig: Rig) -> None:
    """One URI among names of other kinds is exactly one URI."""
    names = [x509.DNSName("urn:test:operator"), uri("urn:test:portal"), x509.DNSName("localhost")]
    with Caller(rig, files=rig.pki.tls("mixed", names)) as portal:
        assert statuses(portal.sign()) == ["SIGNED"]


SPOOFED = [
    ("x-caller", "operator"),
    ("caller", "operator"),
    ("x-forwarded-client-cert", "URI=urn:test:operator"),
    ("x-ssl-client-s-dn", "CN=operator"),
    ("x-forwarded-for", "127.0.0.1"),
    ("authorization", "Bearer operator"),
    ("peer_uri", "urn:test:operator"),
]


def test_headers_are_not_identity(rig: Rig) -> None:
    """Whatever a header claims: a stranger stays a stranger, the portal stays the portal."""
    info = op.GetServerInfoRequest()
    stranger = rig.pki.tls("stranger", [uri("urn:test:nobody")])
    with untouched(rig), Caller(rig, files=stranger) as nobody:
        answer = said(lambda: nobody.operator.GetServerInfo(info, timeout=10, metadata=SPOOFED))
        assert answer.brief == ("UNAUTHENTICATED", "CALLER_UNKNOWN")
    with Caller(rig) as portal:
        answer = said(lambda: portal.operator.GetServerInfo(info, timeout=10, metadata=SPOOFED))
        assert answer.brief == ("PERMISSION_DENIED", "RPC_NOT_ALLOWED")
    spoofed = [(name, value.replace("operator", "portal")) for name, value in SPOOFED]
    with Caller(rig, "operator") as operator:
        answer = said(lambda: operator.operator.GetServerInfo(info, timeout=10, metadata=spoofed))
        assert answer.value.caller == "operator"


# ---- certificates that stop being good


def _fingerprint(certificate: Path) -> str:
    return x509.load_pem_x509_certificates(certificate.read_bytes())[0].fingerprint(hashes.SHA256()).hex()


def _deny(rig: Rig, *certificates: Path) -> None:
    rig.denied.write_text("".join(f"{_fingerprint(path)}  # {path.name}\n" for path in certificates))
    assert "reloaded" in reload(rig)


def test_denied_certificate(rig: Rig) -> None:
    """Row 5.1: a hash on the deny-list ends a certificate at the next call, on open connections and on new ones."""
    files = rig.pki.tls("stolen", [uri("urn:test:portal")])
    with Caller(rig, files=files) as already, Caller(rig) as other:
        assert statuses(already.sign()) == ["SIGNED"]
        _deny(rig, files[0])
        try:
            with untouched(rig), Caller(rig, files=files) as anew:
                for caller in (already, anew):
                    assert caller.sign().brief == ("UNAUTHENTICATED", "CALLER_REVOKED")
            assert statuses(other.sign()) == ["SIGNED"], "another certificate of the same caller is as good as before"
        finally:
            _deny(rig)
        assert statuses(already.sign()) == ["SIGNED"]


def test_denied_in_the_middle_of_a_stream(rig: Rig) -> None:
    """
    F48: the caller's certificate is revoked, by the deny-list, during a long stream: new calls are refused (above), and the
    stream ends at its next item, which is not signed.
    """
    files = rig.pki.tls("streaming", [uri("urn:test:portal")])
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with Caller(rig, files=files) as portal:
        stream = portal.signing.StreamDigests(iter(requests.get, None), timeout=30)
        requests.put(ask())
        assert statuses(said(lambda: next(stream))) == ["SIGNED"]
        _deny(rig, files[0])
        try:
            before = signed(rig)
            requests.put(ask())
            assert said(lambda: next(stream)).brief == ("UNAUTHENTICATED", "CALLER_REVOKED")
            assert signed(rig) == before
        finally:
            requests.put(None)
            _deny(rig)


def test_denied_while_a_stream_is_held_back(rig: Rig) -> None:
    """F48: what came before the certificate was revoked, and waits for its turn on a stream, is not signed either."""
    files = rig.pki.tls("held", [uri("urn:test:portal")])
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    held = digests(17, 900_000)
    with Caller(rig, files=files) as portal:
        stream = portal.signing.StreamDigests(iter(requests.get, None), timeout=30)
        requests.put(ask())
        assert statuses(said(lambda: next(stream))) == ["SIGNED"]
        before = signed(rig)
        shim_of(rig).script(f"C_Sign {before + 1}+ hold 20")
        requests.put(ask(digests=digests(5_000, 1_000), timeout_s=25))
        until(lambda: signed(rig) > before)
        requests.put(ask(digests=held, timeout_s=0.05))
        until(requests.empty)
        portal.signing.ListCredentials(pb.ListCredentialsRequest(), timeout=10)  # behind it, on the same connection
        _deny(rig, files[0])
        try:
            shim_of(rig).clear()
            assert said(lambda: list(stream)).brief == ("UNAUTHENTICATED", "CALLER_REVOKED")
        finally:
            requests.put(None)
            _deny(rig)
    assert statuses(_signed_again(rig)) == ["SIGNED"]
    assert not {each.hex() for each in held} & set(asked(rig))


async def test_denied_while_a_call_waits_for_its_turn() -> None:
    """A call that was let in and not begun yet is refused, too, when its certificate is denied meanwhile."""
    policies = [Policy({}, {}, frozenset(), ()), Policy({}, {}, frozenset({b"denied"}), ())]
    caller = ConfiguredCaller(name="portal", role="submit", rpcs=frozenset({"SignDigests"}))
    admission, refused = Admission(), Refusal("CALLER_REVOKED")
    nothing: Any = None

    class Context:
        def add_done_callback(self, _callback: object) -> None:
            pass

    def identify() -> ConfiguredCaller:
        raise refused

    keeper = Gatekeeper(nothing, lambda: policies[0], Clock(), admission, nothing, nothing)
    call = Call("SignDigests", caller, 0.0, Clock().wall(), identify, admission)
    await keeper.admit(call, Context(), None)  # nothing was denied

    async def meanwhile(*_: object) -> None:
        policies.pop(0)

    admission.starts.turn = meanwhile  # type: ignore[method-assign]
    with pytest.raises(Refusal, match="CALLER_REVOKED"):
        await keeper.admit(call, Context(), None)


def _signed_again(rig: Rig) -> Answer:
    """By another connection: what a lane had of the stream is done then."""
    with Caller(rig) as portal:
        return portal.sign()


def test_certificate_expires_on_an_open_connection(rig: Rig) -> None:
    """
    F48, row 5.1: the caller's certificate expires during a long stream: TLS looked at it once; its end is looked at again at
    every call, which is refused, and at every message of a stream, which ends before that one is signed.
    """
    files = rig.pki.tls("short", [uri("urn:test:portal")], ends=timedelta(seconds=3))
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with Caller(rig, files=files) as portal:
        stream = portal.signing.StreamDigests(iter(requests.get, None), timeout=30)
        requests.put(ask())
        assert statuses(said(lambda: next(stream))) == ["SIGNED"]
        assert statuses(portal.sign()) == ["SIGNED"]
        refused = until(lambda: a if (a := portal.sign()).code != "OK" else None, 6, "the certificate's end")
        assert refused.brief == ("UNAUTHENTICATED", "CALLER_EXPIRED")
        with untouched(rig):
            assert portal.sign().brief == ("UNAUTHENTICATED", "CALLER_EXPIRED")
        before = signed(rig)
        requests.put(ask())
        assert said(lambda: next(stream)).brief == ("UNAUTHENTICATED", "CALLER_EXPIRED")
        assert signed(rig) == before
        requests.put(None)


# ---- Unix sockets: whoever the mode lets in is the caller


CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"


def _connects(path: Path, uid: int, gid: int) -> bool:
    """Whether the kernel lets a user connect to a socket."""
    command = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"]
    done = subprocess.run(
        [*command, "/usr/bin/python3", "-I", "-c", CONNECT, path], text=True, capture_output=True, check=False
    )
    assert done.returncode == 0 or "PermissionError" in done.stderr, done.stderr
    return done.returncode == 0


@NEEDS_ROOT
def test_socket_mode_is_the_gate(rig: Rig) -> None:
    """0600 lets in the daemon's user, 0660 its group too, and the kernel refuses everybody else."""
    assert rig.user is not None
    nobody = pwd.getpwnam("nobody")
    own, shared = rig.directory / "operator.sock", rig.directory / "desk.sock"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (own, shared)] == [0o600, 0o660]
    people = [(rig.user.pw_uid, rig.user.pw_gid), (nobody.pw_uid, rig.user.pw_gid), (nobody.pw_uid, nobody.pw_gid)]
    assert [_connects(own, *who) for who in people] == [True, False, False]
    assert [_connects(shared, *who) for who in people] == [True, True, False]


def test_socket_is_its_caller(rig: Rig) -> None:
    """A call through a socket is the socket's caller's: it may what the caller may, and no more."""
    for name in ("operator", "desk"):
        profile = rig.directory / f"{name}.toml"
        profile.write_text(f'server = "unix:{rig.directory / name}.sock"\n')
        profile.chmod(0o644)
        done = rig.command("tokens", "--json", "--profile", profile)
        assert done.returncode == 0, done.stderr
        assert [token["name"] for token in json.loads(done.stdout)] == ["card"]
    drain = rig.command("tokens", "--drain", "card", "--profile", rig.directory / "desk.toml")
    assert drain.returncode == 77
    assert "RPC_NOT_ALLOWED" in drain.stderr


def test_headers_do_not_change_a_sockets_caller(rig: Rig) -> None:
    """On a socket too, what a header claims is not looked at."""
    from signer.v1 import operator_pb2_grpc

    with grpc.insecure_channel(f"unix:{rig.directory}/desk.sock") as channel:
        stub = operator_pb2_grpc.OperatorStub(channel)
        spoofed = [(k, v) for k, v in SPOOFED if k != "authorization"]
        answer = said(lambda: stub.GetServerInfo(op.GetServerInfoRequest(), timeout=10, metadata=spoofed))
    assert answer.brief == ("PERMISSION_DENIED", "RPC_NOT_ALLOWED")


@pytest.mark.parametrize("mode", ["0600", "0660"])
async def test_socket_is_never_wider_than_its_mode(tmp_path: Path, mode: str) -> None:
    """The socket is bound under umask 0177, so before its mode is set nobody but the owner can connect."""
    seen = []

    class Recording(Door):
        def _bind_socket(self, path: Path) -> None:
            super()._bind_socket(path)
            seen.append(stat.S_IMODE(path.stat().st_mode))

    before = os.umask(0)
    try:
        door = Recording(Listener(socket=tmp_path / "s", mode=mode, caller="desk"), ())
        await door.open()
        assert seen == [0o600]
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == int(mode, 8)
        assert os.umask(0) == 0, "the umask is the daemon's own again"
    finally:
        os.umask(before)
    await door.close(0)
    assert not (tmp_path / "s").exists()


async def test_only_a_socket_is_replaced(tmp_path: Path) -> None:
    """A path that holds anything but a socket is a mistake in the configuration, and is left alone."""
    path = tmp_path / "important"
    path.write_text("not a socket")
    door = Door(Listener(socket=path, caller="desk"), ())
    with pytest.raises(ConfigError, match="is not a socket"):
        await door.open()
    assert path.read_text() == "not a socket"


async def test_a_dead_daemons_socket_is_replaced(tmp_path: Path) -> None:
    """What a killed daemon left in the socket's place does not hold up the next."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    door = Door(Listener(socket=path, caller="desk"), ())
    await door.open()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    await door.close(0)


@NEEDS_ROOT
def test_daemons_files_are_nobodys_business(rig: Rig) -> None:
    """The state directory, the database and the PIN cannot be read by another user."""
    nobody = pwd.getpwnam("nobody")
    for path in (rig.state / "paraph.sqlite", rig.state / "lock", rig.directory / "card.pin"):
        done = subprocess.run(as_user(["cat", path], nobody), capture_output=True, check=False)
        assert done.returncode != 0, path
