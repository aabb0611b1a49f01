"""
Makes the demo's certificates: a root, an issuing CA, the certificates of the tokens' keys, and those for TLS.

    python deploy/demo/pki.py DIRECTORY < keys.json

The keys come as JSON from tokens.py. What is there, fits its key and is valid for another month is kept. Persons and
company are invented, and the CA's own keys lie in plain files: rely on nothing that it certifies.
"""

import ipaddress
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
    load_pem_private_key,
)
from cryptography.x509.oid import AuthorityInformationAccessOID as Access
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PUBLISHED = "http://pki.paraph.invalid"  # nobody answers there, and nobody ever will (RFC 2606, 2)
POLICY = x509.ObjectIdentifier("2.25.207741183290561934216590448717430113981")  # of a UUID, so nobody else's (X.667)
DOCUMENT_SIGNING = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36")
YEAR = timedelta(days=365)
KEPT = timedelta(days=30)  # what ends sooner is made anew

ORGANIZATION = "Millbrook Demo Company"
PERSONS = {"ana": ("Ana", "Lindqvist"), "bo": ("Bo", "Marchetti"), "cleo": ("Cleo", "Okonjo")}
COMPANY = (NameOID.ORGANIZATION_NAME, ORGANIZATION)
CALLERS = ("portal", "window", "operator")

Extension = tuple[x509.ExtensionType, bool]  # the second says whether it is critical


@dataclass(frozen=True)
class Wish:
    """A certificate as it should be."""

    subject: x509.Name
    public_key: x509.base.CertificatePublicKeyTypes
    lifetime: timedelta
    extensions: Sequence[Extension]


@dataclass(frozen=True)
class Authority:
    """A CA: its name in file names and URLs, its key, its certificate and those above it."""

    name: str
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]


def name(common_name: str, *more: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    """XX is a country code that ISO 3166 leaves to its users: no country."""
    parts = [(NameOID.COUNTRY_NAME, "XX"), *more, (NameOID.COMMON_NAME, common_name)]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def holder(label: str) -> x509.Name:
    """Whose key it is, by the first word of its label."""
    who = label.partition("-")[0]
    if who == "seal":
        return name(f"{ORGANIZATION}, seal", COMPANY, (NameOID.ORGANIZATION_IDENTIFIER, "NTRXX-DEMO-0001"))
    given, family = PERSONS[who]
    return name(
        f"{given} {family}",
        (NameOID.GIVEN_NAME, given),
        (NameOID.SURNAME, family),
        (NameOID.SERIAL_NUMBER, f"DEMO-{who.upper()}"),
    )


def usage(*allowed: str) -> Extension:
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{each: each in allowed for each in every}), True


def is_authority(path_length: int) -> list[Extension]:
    constraints = x509.BasicConstraints(ca=True, path_length=path_length)
    return [(constraints, True), usage("key_cert_sign", "crl_sign")]


def issued_by(issuer: str) -> list[Extension]:
    """Where the issuer's certificate, revocation list and OCSP responder would be, and by what policy it works."""
    certificate, crl, ocsp = (
        x509.UniformResourceIdentifier(f"{PUBLISHED}/{path}") for path in (f"{issuer}.cer", f"{issuer}.crl", "ocsp")
    )
    access = (x509.AccessDescription(Access.CA_ISSUERS, certificate), x509.AccessDescription(Access.OCSP, ocsp))
    return [
        (x509.AuthorityInformationAccess(access), False),
        (x509.CRLDistributionPoints([x509.DistributionPoint([crl], None, None, None)]), False),
        (x509.CertificatePolicies([x509.PolicyInformation(POLICY, None)]), False),
    ]


def for_signatures() -> list[Extension]:
    """
    ContentCommitment and nothing else: such a key never proves who is at the other end of a connection.

    NSS and `openssl cms` judge signatures on documents by the purpose of e-mail; the other is RFC 9336. They are not
    left out, because pdfsig (poppler 22.12) takes NSS's note that there is no such extension for a fault.
    """
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION, DOCUMENT_SIGNING])
    return [usage("content_commitment"), (purposes, False)]


def for_authentication(purpose: x509.ObjectIdentifier, *names: x509.GeneralName) -> list[Extension]:
    extensions: list[Extension] = [usage("digital_signature"), (x509.ExtendedKeyUsage([purpose]), False)]
    if names:
        extensions.append((x509.SubjectAlternativeName(names), False))
    return extensions


def build(wish: Wish, issuer: Authority) -> x509.Certificate:
    now = datetime.now(UTC).replace(microsecond=0)
    identifier = x509.SubjectKeyIdentifier.from_public_key(issuer.key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(wish.subject)
        .issuer_name(issuer.chain[0].subject if issuer.chain else wish.subject)
        .public_key(wish.public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))  # clocks differ
        .not_valid_after(now + wish.lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(wish.public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    for extension, critical in wish.extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer.key, hashes.SHA256())


def keep(path: Path, wish: Wish, issuer: Authority) -> x509.Certificate | None:
    """The certificate in a file, if it still is what is wished for."""
    try:
        old = x509.load_pem_x509_certificates(path.read_bytes())[0]
        old.verify_directly_issued_by(issuer.chain[0] if issuer.chain else old)
        same = all(old.extensions.get_extension_for_oid(new.oid).value == new for new, _ in wish.extensions)
    except (OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return None
    fits = same and old.public_key() == wish.public_key and old.subject == wish.subject
    return old if fits and old.not_valid_after_utc > datetime.now(UTC) + KEPT else None


def issue(path: Path, wish: Wish, issuer: Authority) -> x509.Certificate:
    """The certificate of a file, and in the file behind it those of its issuers without the root."""
    certificate = keep(path, wish, issuer) or build(wish, issuer)
    write(path, b"".join(each.public_bytes(Encoding.PEM) for each in (certificate, *issuer.chain[:-1])))
    return certificate


def write(path: Path, content: bytes) -> None:
    """Whole or not at all; a file that is right is left alone."""
    if not path.exists() or path.read_bytes() != content:
        new = path.with_suffix(".new")
        new.write_bytes(content)
        new.replace(path)


def private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        write(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    loaded = load_pem_private_key(path.read_bytes(), None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    return loaded


def authorities(directory: Path) -> Authority:
    """The issuing CA under its root."""
    root = Authority("root", private_key(directory / "root.key"), ())
    wish = Wish(name("Paraph demo root", COMPANY), root.key.public_key(), 10 * YEAR, is_authority(1))
    root = Authority("root", root.key, (issue(directory / "root.pem", wish, root),))
    key = private_key(directory / "issuing.key")
    wish = Wish(
        name("Paraph demo issuing CA", COMPANY), key.public_key(), 5 * YEAR, is_authority(0) + issued_by("root")
    )
    return Authority("issuing", key, (issue(directory / "issuing.pem", wish, root), *root.chain))


def main(directory: Path, keys: Sequence[dict[str, str]]) -> None:
    os.umask(0o077)
    (directory / "credentials").mkdir(parents=True, exist_ok=True)
    issuing = authorities(directory)

    def end_entity(
        path: Path, subject: x509.Name, key: x509.base.CertificatePublicKeyTypes, use: list[Extension]
    ) -> None:
        is_none = (x509.BasicConstraints(ca=False, path_length=None), True)
        issue(path, Wish(subject, key, 2 * YEAR, [is_none, *use, *issued_by(issuing.name)]), issuing)

    client, server = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
    for key in keys:
        label = key["label"]
        use = for_authentication(client) if label.endswith("-login") else for_signatures()
        public = load_der_public_key(bytes.fromhex(key["spki"]))
        end_entity(directory / "credentials" / f"{label}.pem", holder(label), public, use)
    for caller in CALLERS:
        uri = x509.UniformResourceIdentifier(f"urn:paraph:caller:{caller}")  # its identity, whole (signer/peer.py)
        public = private_key(directory / f"{caller}.key").public_key()
        end_entity(directory / f"{caller}.pem", name(f"Paraph demo {caller}"), public, for_authentication(client, uri))
    addresses = [x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", "::1")]
    use = for_authentication(server, x509.DNSName("localhost"), *addresses)
    end_entity(directory / "server.pem", name("localhost"), private_key(directory / "server.key").public_key(), use)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python deploy/demo/pki.py DIRECTORY < keys.json")
    main(Path(sys.argv[1]), json.load(sys.stdin)["keys"])
