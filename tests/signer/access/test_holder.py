"""A listing of one person's credentials: which are hers, and for whom they are."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from pool import Key
from signer.credential import Credential, Output, Purpose
from signer.errors import Refusal
from signer.holder import Holders
from signer.service import SigningService
from signer.v1 import signing_pb2 as pb
from tests.signer.outputs.certificates import chain

KEY = ec.generate_private_key(ec.SECP256R1())
_MADE = chain("P-256")


def certificate(name: str, ca: str = "CA", kind: _ASN1Type = _ASN1Type.UTF8String) -> bytes:
    """In DER, of a key and number of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ca, kind)])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name, kind)])
    template = x509.load_der_x509_certificate(_MADE.ders[0])
    made = x509.CertificateBuilder(
        issuer, subject, key.public_key(), x509.random_serial_number(), template.not_valid_before_utc,
        template.not_valid_after_utc,
    ).sign(KEY, hashes.SHA256())  # fmt: skip
    return made.public_bytes(Encoding.DER)


def stored(name: str, der: bytes, subject: str = "") -> Credential:
    key, outputs = Key(_MADE.spki, label="key"), frozenset({Output.RAW})
    return Credential(name, Purpose.SIGNATURE, (der,), key, outputs, subject=subject)


ADA, ADAS_NEXT, EVE = certificate("Ada"), certificate("Ada", kind=_ASN1Type.PrintableString), certificate("Eve")
ALL: Mapping[str, Credential] = {
    one.name: one
    for one in (
        stored("ada", ADA, "ada"),
        stored("ada-login", certificate("Ada's login"), "ada"),
        stored("ada-next", ADAS_NEXT),
        stored("ada-elsewhere", certificate("Ada", ca="Another")),
        stored("eve", EVE, "eve"),
        stored("seal", certificate("A seal")),
        stored("other-seal", certificate("Another seal")),
    )
}


def sha256(der: bytes) -> bytes:
    return hashlib.sha256(der).digest()


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ([ADA], {"ada", "ada-login", "ada-next"}),
        ([sha256(ADA)], {"ada", "ada-login", "ada-next"}),
        ([certificate("Ada")], {"ada", "ada-login", "ada-next"}),
        ([sha256(certificate("Ada"))], set()),
        ([EVE, ADA], {"ada", "ada-login", "ada-next", "eve"}),
        ([ALL["seal"].certificates[0]], {"seal"}),
        ([certificate("Nobody")], set()),
        ([], set()),
    ],
    ids=["certificate", "hash", "name", "unknown hash", "two", "no subject", "nobody", "nothing"],
)
def test_whose_is_found(given: list[bytes], names: set[str]) -> None:
    """
    By the certificate itself, by the names that one CA gave, however it encoded them, and by the subject; what belongs to no
    subject brings no others along.
    """
    assert Holders(ALL).of(given) == names


@pytest.mark.parametrize("wrong", [b"", b"x", ADA[:-1], bytes(33)])
def test_what_is_no_certificate_is_refused(wrong: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        Holders(ALL).of([ADA, wrong])
    assert refused.value.reason == "CERTIFICATE_INVALID"


async def test_a_listing_is_of_one_person() -> None:
    """Of what the caller may use alone, page by page; one that comes later is found, and a group is nobody's."""
    credentials = dict(ALL)
    nothing: Any = None
    pool: Any = SimpleNamespace(problem=lambda _: "", presence=lambda _: None)
    policy: Any = SimpleNamespace(groups={"ada-elsewhere": ("eve",)}, check_credential=lambda *_: None)
    service = SigningService(
        pool, nothing, nothing, nothing, nothing, lambda: policy, lambda: credentials, nothing, nothing
    )
    allowed = frozenset(ALL) - {"ada-next"} | {"ada-later"}
    caller = SimpleNamespace(name="portal", credentials=allowed, subject=None)
    call: Any = SimpleNamespace(caller=caller, promise=lambda _: None)

    async def asked(token: str = "") -> tuple[list[str], str]:
        request = pb.ListCredentialsRequest(of_person=[ADA], page_size=1, page_token=token)
        answer = await service.list_credentials(request, call)
        return [one.name for one in answer.credentials], answer.next_page_token

    names, token = await asked()
    assert names == ["ada"]
    assert await asked(token) == (["ada-login"], "")
    credentials = {**credentials, "ada-later": replace(ALL["eve"], name="ada-later", subject="ada")}
    names, token = await asked(token)
    assert names == ["ada-later"]
