"""A person allows exactly what she has seen, and nothing else is signed with her key."""

import hashlib
import uuid
from typing import Any

from signer.v1 import signing_pb2 as pb
from tests.signer.access.calls import digests, said, signed, statuses
from tests.signer.people.persons import ALGORITHMS, Town, redeem, seen, stream, terms

WRONG = "wrong horse 8"


def test_a_login_of_nobody(town: Town) -> None:
    """
    A number that is nobody's is answered like any other: after as many wrong codes from one address nothing more is looked
    at, whosever they are.
    """
    login = pb.Login(
        credential="nobody-login", digest_algorithm="SHA256", signature_algorithm="ECDSA",
        audience="https://portal.example", nonce=bytes(16),
    )  # fmt: skip

    def tried(**more: Any) -> tuple[str, str]:
        given = {"secret_code": "a wrong code", "otp": "000000", "source": "192.0.2.30", "login": login} | more
        request = pb.AuthenticateRequest(request_id=str(uuid.uuid4()), **given)
        return said(lambda: town["window"].signing.Authenticate(request, timeout=10)).brief

    unknown, locked = ("NOT_FOUND", "CREDENTIAL_UNKNOWN"), ("PERMISSION_DENIED", "OTP_LOCKED")
    assert [tried() for _ in range(31)] == [unknown] * 30 + [locked]
    login.credential = "ada-login"
    assert tried() == locked
    login.credential = "nobody-login"
    assert tried(source="192.0.2.31") == unknown


def test_what_she_allows_is_signed_once(town: Town) -> None:
    """And the same request again has the same answer; another request with the same reference is refused."""
    ada = town.people["ada"]
    wanted = digests(3)
    reference = town.reference(ada, terms(wanted))
    request_id = str(uuid.uuid4())
    first = redeem(town, reference, wanted, request_id=request_id)
    assert statuses(first) == ["SIGNED"] * 3
    before = signed(town.rig)
    assert redeem(town, reference, wanted, request_id=request_id).value == first.value
    assert redeem(town, reference, wanted).brief == ("PERMISSION_DENIED", "AUTHZ_USED")
    assert signed(town.rig) == before


def test_without_her_nothing_is_signed(town: Town) -> None:
    before = signed(town.rig)
    assert redeem(town, b"", digests(1)).brief == ("PERMISSION_DENIED", "AUTHZ_MISSING")
    assert redeem(town, bytes(32), digests(1)).brief == ("PERMISSION_DENIED", "AUTHZ_UNKNOWN")
    assert signed(town.rig) == before


def test_documents(town: Town) -> None:
    """She allows files by their SHA-256; the portal sends them."""
    ada, files = town.people["ada"], [b"one letter", b"another letter"]
    reference = town.reference(ada, seen(files))
    sent = stream([*files, b"a third one"], authorisation=reference)
    results = [m.result for m in town["portal"].signing.SignDocuments(sent, timeout=20) if m.HasField("result")]
    told = {one.index: (pb.ItemStatus.Name(one.status), one.reason) for one in results}
    assert told == {0: ("SIGNED", ""), 1: ("SIGNED", ""), 2: ("FAILED", "AUTHZ_COUNT")}


def test_a_changed_document(town: Town) -> None:
    """F54: the document was changed between approval and signing: AUTHZ_DIGEST, and nothing is signed."""
    ada, before = town.people["ada"], signed(town.rig)
    reference = town.reference(ada, seen([b"pay 10 euro"]))
    sent = stream([b"pay 99 euro"], authorisation=reference)
    [result] = [m.result for m in town["portal"].signing.SignDocuments(sent, timeout=20)]
    assert (pb.ItemStatus.Name(result.status), result.reason) == ("FAILED", "AUTHZ_DIGEST")
    assert signed(town.rig) == before


def test_what_was_not_seen(town: Town) -> None:
    """A person's credential takes no digests of documents that the daemon has not seen, unless its policy does."""
    ada = town.people["ada"]
    answer = town.authorise(ada, terms(digests(1), "ada-seen"))
    assert answer.brief == ("FAILED_PRECONDITION", "NOT_SEEN")


def test_wrong_codes(town: Town) -> None:
    """A wrong secret code and a wrong one-time code are told alike; a device's code that was shown is used up by it."""
    ada, wanted = town.people["ada"], terms(digests(1))
    otp = ada.otp()
    assert town.authorise(ada, wanted, code="not her code", otp=otp).brief == ("PERMISSION_DENIED", "OTP_INCORRECT")
    assert town.authorise(ada, wanted, otp="000000").brief == ("PERMISSION_DENIED", "OTP_INCORRECT")
    assert town.authorise(ada, wanted).code == "OK"
    assert town.authorise(ada, wanted, otp=otp).brief == ("PERMISSION_DENIED", "OTP_INCORRECT")
    unlock(town, "ada")


def test_five_wrong_ones_lock_her_alone(town: Town) -> None:
    """F33: five wrong attempts: OTP_LOCKED for 15 minutes, for that subject alone, and no PIN is touched."""
    ada, wanted = town.people["ada"], terms(digests(1))
    bob = town.people.get("bob") or town.enrol("bob", "sent")
    logins = town.rig.shim.number("C_Login") if town.rig.shim else 0
    after = len(town.inbox.messages)
    for _ in range(5):
        assert town.authorise(ada, wanted, otp="12345").reason == "OTP_INCORRECT"
    assert "too often" in town.inbox.next("ada", "locked", after)["text"]
    locked = town.authorise(ada, wanted)
    assert locked.brief == ("PERMISSION_DENIED", "OTP_LOCKED")
    assert locked.retry_s is not None
    assert 800 < locked.retry_s <= 901  # whole seconds, rounded up
    reference = town.reference(bob, terms(digests(1), "bob"))
    assert statuses(redeem(town, reference, digests(1), credential="bob")) == ["SIGNED"]
    assert town.rig.shim is not None
    assert town.rig.shim.number("C_Login") == logins
    unlock(town, "ada")
    assert town.authorise(ada, wanted).code == "OK"


def test_strangers_lock_nobody_who_is_known(town: Town) -> None:
    """
    Row 6.6: three wrong logins, or changes of the code, by who is not known: right ones are not looked at any more then, but
    she signs, and logs in where the window knows her; so does her own computer, for which nobody has to say so.
    """
    ada = town.people["ada"]
    unlock(town, "ada")

    def tries(code: str, **more: Any) -> str:
        wanted = pb.Login(
            credential="ada-login", audience="https://portal.example", nonce=uuid.uuid4().bytes, **ALGORITHMS
        )
        request = pb.AuthenticateRequest(
            request_id=str(uuid.uuid4()), login=wanted, secret_code=code, otp=ada.otp(), source="192.0.2.9", **more
        )
        answer = said(lambda: town["window"].signing.Authenticate(request, timeout=10))
        return answer.reason or answer.code

    wrong = pb.ChangeCodeRequest(credential="ada", secret_code=WRONG, otp="000000", new_secret_code="entirely other 9")
    assert [tries(WRONG) for _ in range(2)] == ["OTP_INCORRECT"] * 2
    assert said(lambda: town["window"].signing.ChangeCode(wrong, timeout=10)).reason == "OTP_INCORRECT"
    assert tries(ada.code) == "OTP_LOCKED"
    assert said(lambda: town["window"].signing.ChangeCode(wrong, timeout=10)).reason == "OTP_LOCKED"
    assert tries(ada.code, known=True) == "OK"
    assert town.authorise(ada, terms(digests(1))).code == "OK"
    assert said(lambda: town["ada-laptop"].signing.ChangeCode(wrong, timeout=10)).reason == "OTP_INCORRECT"
    wrong.known = True
    assert said(lambda: town["window"].signing.ChangeCode(wrong, timeout=10)).reason == "OTP_INCORRECT"
    unlock(town, "ada")


def unlock(town: Town, name: str) -> None:
    from signer.v1 import operator_pb2 as op

    assert (
        said(lambda: town["operator"].operator.UnlockSubject(op.UnlockSubjectRequest(subject=name), timeout=10)).code
        == "OK"
    )


def test_login(town: Town) -> None:
    """A statement that the daemon builds, signed with the authentication credential."""
    ada = town.people["ada"]
    nonce = hashlib.sha256(b"nonce").digest()
    login = pb.Login(
        credential="ada-login",
        digest_algorithm="SHA256",
        signature_algorithm="ECDSA",
        audience="https://portal.example",
        nonce=nonce,
    )
    request = pb.AuthenticateRequest(
        request_id=str(uuid.uuid4()), login=login, secret_code=ada.code, otp=ada.otp(), source="192.0.2.7"
    )
    answer = town["window"].signing.Authenticate(request, timeout=10)
    lines = answer.statement.decode().splitlines()
    assert lines[:5] == ["paraph-login-v1", "window", "https://portal.example", nonce.hex(), "ada"]
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = x509.load_der_x509_certificate(answer.certificates[0]).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(answer.signature, answer.statement, ec.ECDSA(hashes.SHA256()))


def test_the_result_of_a_login(town: Town) -> None:
    """It is not kept: a signature without its statement is of no use to whoever asks for the request again."""
    ada = town.people["ada"]
    login = pb.Login(
        credential="ada-login",
        digest_algorithm="SHA256",
        signature_algorithm="ECDSA",
        audience="https://portal.example",
        nonce=hashlib.sha256(b"another").digest(),
    )
    name = str(uuid.uuid4())
    request = pb.AuthenticateRequest(request_id=name, login=login, secret_code=ada.code, otp=ada.otp())
    laptop = town["ada-laptop"]
    assert laptop.signing.Authenticate(request, timeout=10).signature
    result = said(lambda: laptop.signing.GetResult(pb.GetResultRequest(request_id=name), timeout=10))
    assert result.brief == ("NOT_FOUND", "REQUEST_UNKNOWN")
