"""
What somebody gets who has stolen everything that the portal has: its client certificate, its key file and its database.
He is nobody's confused deputy: the daemon decides, and the portal may only submit.
"""

import hashlib
import sqlite3
import uuid
from typing import Any

import google_crc32c
import pytest

from signer.config import ROLES
from signer.config import Caller as Configured
from signer.v1 import signing_pb2 as pb
from tests.portal.place import b64
from tests.portal.real import Real
from tests.signer.access.calls import Answer, Caller, said

ALGORITHMS = {"digest_algorithm": "SHA256", "signature_algorithm": "ECDSA"}


def login(real: Real, **more: Any) -> pb.Login:
    fields = {"credential": "ada-login", "audience": real.portal_origin, "nonce": bytes(32), **ALGORITHMS}
    return pb.Login(**(fields | more))


def terms() -> pb.Terms:
    item = pb.TermsItem(name="deed.pdf", input_sha256=bytes(32))
    return pb.Terms(credential="ada", output="CADES_B_B", caller="portal", items=[item], **ALGORITHMS)


def requests(real: Real) -> dict[str, Any]:
    """Everything that takes what people type, with right codes where there are any."""
    ada = real.people["ada"]
    codes = {"secret_code": ada.secret_code, "otp": ada.otp(), "source": "192.0.2.7"}
    ada.counter -= 1  # nobody will look at it
    return {
        "Authenticate": pb.AuthenticateRequest(request_id=str(uuid.uuid4()), login=login(real), **codes),
        "Authorize": pb.AuthorizeRequest(terms=terms(), **codes),
        "SignBatch": pb.SignBatchRequest(request_id=str(uuid.uuid4()), **codes),
        "RequestOtp": pb.RequestOtpRequest(login=login(real, credential="dan-login"), source="192.0.2.7"),
        "CompleteEnrolment": pb.CompleteEnrolmentRequest(enrolment="AAAA-BBBB", **codes),
        "ChangeCode": pb.ChangeCodeRequest(credential="ada-login", new_secret_code="clay and kiln 5", **codes),
    }


@pytest.mark.parametrize(
    "rpc", ["Authenticate", "Authorize", "SignBatch", "RequestOtp", "CompleteEnrolment", "ChangeCode"]
)
def test_the_portal_s_certificate_may_only_submit(real: Real, rpc: str) -> None:
    """
    Row 6.8, TOK-14: no confused deputy: with the portal's own client certificate, stolen, every call that takes a code is
    refused, the right codes given too: it may only submit. The signing window alone, a process, an origin, a certificate and a
    role of its own, may authorise; what a window in wrong hands could do stands in SECURITY.md.
    """
    with Caller(real.rig, "portal") as stolen:
        answer = said(lambda: getattr(stolen.signing, rpc)(requests(real)[rpc], timeout=10))
        assert answer.brief == ("PERMISSION_DENIED", "RPC_NOT_ALLOWED")
        # It is the portal's, and works: what it may do, it may.
        assert said(lambda: stolen.signing.ListCredentials(pb.ListCredentialsRequest(), timeout=10)).code == "OK"


def test_no_configuration_gives_the_portal_more() -> None:
    """TOK-14, row 6.8: a caller that submits cannot be given a call that takes codes; the configuration is refused."""
    for rpc in ROLES["consent"] - ROLES["submit"]:
        with pytest.raises(ValueError, match="the role submit has no"):
            Configured(name="portal", uri="urn:x:portal", role="submit", rpcs={rpc}, credentials=())


def test_the_portal_s_certificate_signs_with_nobody_s_key(real: Real) -> None:
    """TOK-14, row 6.8: digests for a person's key come to nothing without what she allowed; an invented reference is none."""

    def signs(credential: str, authorisation: bytes) -> Answer:
        digest = hashlib.sha256(b"a deed").digest()
        with Caller(real.rig, "portal") as stolen:
            return stolen.sign(
                pb.SignDigestsRequest(
                    request_id=str(uuid.uuid4()), credential=credential, output="RAW", digests=[digest],
                    crc32c=google_crc32c.value(digest), authorisation=authorisation, **ALGORITHMS,
                )
            )  # fmt: skip

    assert signs("ada", b"").reason == "AUTHZ_MISSING"
    assert signs("ada", bytes(32)).reason == "AUTHZ_UNKNOWN"
    assert signs("ada-login", b"").reason in {"CERT_USAGE", "AUTHZ_MISSING", "OUTPUT_NOT_ALLOWED"}


def test_the_portal_s_database_and_key_log_in_nowhere(real: Real) -> None:
    """
    TOK-14, row 6.8: of a session that is open, the stolen database has no cookie, and what it has is accepted as none; of a login it
    has no challenge. The key file makes forms' tokens, and no session.
    """
    browser = real.browser()
    browser.logs_in(real.people["ada"])
    copy = real.directory / "stolen.db"
    with sqlite3.connect(real.directory / "state" / "portal.db") as mine, sqlite3.connect(copy) as stolen:
        mine.backup(stolen)
        rows = [str(value) for (value,) in stolen.execute("SELECT token FROM sessions WHERE ended IS NULL")]
    mine.close()
    stolen.close()
    content = copy.read_bytes()
    copy.unlink()
    for cookie in browser.http.cookies.jar:
        if cookie.name in {"__Host-session", "__Host-visitor"}:
            assert cookie.value is not None
            assert cookie.value.encode() not in content
    assert rows
    key = (real.directory / "key").read_bytes()
    for value in (*rows, key.hex(), hashlib.sha256(key).hexdigest()):
        answer = real.browser().get("/account", headers={"cookie": f"__Host-session={value}"})
        assert answer.status_code == 303


def test_the_window_alone_may_not_submit(real: Real) -> None:
    """TOK-14, row 6.8: the window's certificate takes codes, and submits nothing: it can have nothing signed that no portal sends."""
    with Caller(real.rig, "window") as window:
        for rpc in ("SignDigests", "GetResult"):
            request = getattr(pb, f"{rpc}Request")()
            answer = said(lambda rpc=rpc, request=request: getattr(window.signing, rpc)(request, timeout=10))  # type: ignore[misc]
            assert answer.brief == ("PERMISSION_DENIED", "RPC_NOT_ALLOWED")


def test_a_statement_of_another_caller_opens_nothing(real: Real) -> None:
    """TOK-14, row 6.8: a statement that names another portal, made by the window with right codes, is refused by this one."""
    ada, browser = real.people["ada"], real.browser()
    address = browser.asks_for_window(ada.number)
    nonce = bytes.fromhex(address.partition("nonce=")[2][:64])
    request = pb.AuthenticateRequest(
        request_id=str(uuid.uuid4()), login=login(real, audience="https://other.example", nonce=nonce),
        secret_code=ada.secret_code, otp=ada.otp(), source="192.0.2.7",
    )  # fmt: skip
    with Caller(real.rig, "window") as window:
        made = window.signing.Authenticate(request, timeout=10)
    given = {
        "statement": b64(made.statement), "signature": b64(made.signature), "certificate": b64(made.certificates[0])
    }  # fmt: skip
    page = browser.get("/login/returned", params=given)
    assert browser.post("/login/statement", page.text).status_code == 401
    assert browser.get("/account").status_code == 303
