"""Chains of certificates, long and short, with their keys in memory. Nothing here is fit to be trusted."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from tests.pki import usage

BEGIN, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2054, 1, 1, tzinfo=UTC)
CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
BALLAST = x509.ObjectIdentifier("2.25.1")
# The certificates of a chain get longer or shorter by this; over 65 535 a length takes three bytes.
BALLAST_BYTES = (0, 100, 300, 66_000)


@cache
def key_of(kind: str) -> Any:
    """One key of each kind: making an RSA key takes long."""
    if kind.startswith("RSA-"):
        return rsa.generate_private_key(65537, int(kind[4:]))
    return ed25519.Ed25519PrivateKey.generate() if kind == "Ed25519" else ec.generate_private_key(CURVES[kind])


@dataclass(frozen=True)
class Chain:
    """`ders`: the signer's certificate, then its issuers; the last one is self-signed where `rooted`."""

    kind: str
    ders: tuple[bytes, ...]
    rooted: bool

    @property
    def key(self) -> Any:
        return key_of(self.kind)

    @property
    def spki(self) -> bytes:
        return spki_of(self.key.public_key())

    @property
    def pem(self) -> bytes:
        made = (x509.load_der_x509_certificate(der) for der in self.ders)
        return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in made)


def spki_of(public: Any) -> bytes:
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(subject: str, issuer: str, public: Any, ballast: int, serial: int, *, ca: bool) -> bytes:
    signer = key_of("P-256") if issuer.startswith("CA") else key_of("P-384")
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(BEGIN)
        .not_valid_after(END)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(usage("key_cert_sign" if ca else "content_commitment"), critical=True)
    )
    if ballast:
        builder = builder.add_extension(x509.UnrecognizedExtension(BALLAST, bytes(ballast)), critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@cache
def chain(kind: str, length: int = 3, *, rooted: bool = True, ballast: int = 0, serial: int = 2**159 - 1) -> Chain:
    """
    `length` certificates: the signer's, CAs, and the root at the end where `rooted`. A rooted chain of one is
    self-signed. `ballast` bytes make the signer's certificate longer than its issuers'; a short `serial` makes its
    identifier shorter.
    """
    subjects = ["Signer", *(f"CA {number}" for number in range(1, length))]
    if rooted:
        subjects[-1] = "Root"
    issuers = [*subjects[1:], "Root" if rooted else f"CA {length}"]
    ders = tuple(
        _certificate(
            subject,
            issuer,
            key_of(kind).public_key() if not place else key_of("P-384" if subject == "Root" else "P-256").public_key(),
            0 if place else ballast,
            serial if not place else 100 + place,
            ca=place > 0,
        )
        for place, (subject, issuer) in enumerate(zip(subjects, issuers, strict=True))
    )
    return Chain(kind, ders, rooted)
