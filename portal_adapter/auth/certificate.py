"""
A person's certificate: who she is, who issued it, and what it is good for (TOK-02, TOK-03, TOK-07).

Accepted is what one of the configured CAs has issued directly and what is valid now (RFC 5280, 6.1, for a path of one), has a
key that is long enough (strength.py) and, by its list where there is one, is not revoked. Its names are givenName and surname
of the subject (ETSI EN 319 412-2, 4.2.4): what has none is no person's.
"""

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from portal_adapter.auth import revocation, strength
from portal_adapter.language import msgid
from portal_adapter.refusal import Refusal, guard, invalid

AUTHENTICATION, SIGNATURE = "authentication", "signature"
_KEY_TOO_SHORT = msgid(
    "The key of this product is too short to be safe. Ask its issuer for a certificate with a longer key."
)
_HASH_TOO_SHORT = msgid(
    "This product’s certificate is signed in a way that is not safe any more. Ask its issuer for a new one."
)
# What the library makes of bytes that anybody may have sent: not all of it is a ValueError.
_UNREADABLE = (
    ValueError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Certificate:
    der: bytes
    fingerprint: str  # SHA-256, hexadecimal
    family: str
    given: str
    serial: str  # of the subject (serialNumber), else the certificate's own in hexadecimal
    issuer: str  # for people
    not_after: int
    usages: frozenset[str]
    policies: frozenset[str]


@dataclass(frozen=True, slots=True)
class Issuers:
    """
    The CAs whose certificates are accepted, and the files of what they have revoked: without any nobody looks. RSA keys of
    people have at least `rsa_bits_min` bits.
    """

    certificates: tuple[x509.Certificate, ...]
    crls: tuple[Path, ...] = ()
    rsa_bits_min: int = strength.RSA_BITS_MIN

    def accept(self, der: bytes, now: int) -> Certificate:
        """Raises `Refusal` for what is not accepted, whatever is wrong with it."""
        try:
            certificate = x509.load_der_x509_certificate(der)
            found = read(der)
        except _UNREADABLE:
            raise invalid("product", "certificate-unreadable", "This certificate cannot be read.") from None
        issuer = next((one for one in self.certificates if _issued(certificate, one)), None)
        if issuer is None:
            raise guard("untrusted-issuer", "This product is not from an issuer that is accepted here.")
        if strength.fault_of_key(certificate, self.rsa_bits_min):
            raise guard("key-too-short", _KEY_TOO_SHORT)
        if strength.is_hash_short(certificate):
            raise guard("hash-too-short", _HASH_TOO_SHORT)
        if now < int(certificate.not_valid_before_utc.timestamp()):
            raise guard("certificate-not-yet-valid", "This product is not valid yet.")
        if now >= found.not_after:
            raise guard("certificate-expired", "This product has expired. Ask its issuer for a new one.")
        if self.crls:
            revocation.check(certificate, issuer, self.crls, now)
        return found

    def is_revoked(self, der: bytes) -> bool:
        """Of a certificate that was accepted before, by the lists as they are now."""
        return bool(self.crls) and revocation.is_revoked(der, self.certificates, self.crls)

    def is_strong(self, der: bytes) -> bool:
        """Whether the key of a certificate, of whatever issuer, is long enough to sign with."""
        return not strength.fault_of_key(x509.load_der_x509_certificate(der), self.rsa_bits_min)


def check_for_login(certificate: Certificate) -> None:
    """Raise unless it may authenticate somebody (TOK-03)."""
    if AUTHENTICATION not in certificate.usages:
        message = "This certificate is for signing. Log in with the authentication certificate of your product."
        raise invalid("product", "wrong-certificate-usage", message)


def check_professional(certificate: Certificate, oids: tuple[str, ...]) -> None:
    """Raise unless it has a professional policy (TOK-04)."""
    if not certificate.policies & set(oids):
        raise Refusal("auth-too-weak", "Acting for a business needs a professional product.", reason="pro-required")


def is_professional(der: bytes, oids: tuple[str, ...]) -> bool:
    """Whether a certificate has a professional policy, whatever it is for (TOK-04)."""
    return bool(_policies(x509.load_der_x509_certificate(der)) & set(oids))


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (*_UNREADABLE, TypeError, InvalidSignature):
        return False
    return True


def read(der: bytes) -> Certificate:
    """What a certificate says, accepted or not; raises `Refusal` where it names no person, and ValueError."""
    certificate = x509.load_der_x509_certificate(der)
    family, given = _name(certificate, NameOID.SURNAME), _name(certificate, NameOID.GIVEN_NAME)
    if not family or not given:
        raise invalid("product", "no-person", "This certificate names no person.")
    return Certificate(
        der=der,
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        family=family,
        given=given,
        serial=_name(certificate, NameOID.SERIAL_NUMBER) or f"{certificate.serial_number:x}",
        issuer=_issuer(certificate),
        not_after=int(certificate.not_valid_after_utc.timestamp()),
        usages=_usages(certificate),
        policies=_policies(certificate),
    )


def _name(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    return " ".join(str(one.value) for one in certificate.subject.get_attributes_for_oid(oid)).strip()


def _issuer(certificate: x509.Certificate) -> str:
    for oid in (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME):
        found = certificate.issuer.get_attributes_for_oid(oid)
        if found:
            return str(found[0].value)
    return certificate.issuer.rfc4514_string()


def _usages(certificate: x509.Certificate) -> frozenset[str]:
    usages = set()
    try:
        key = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return frozenset()
    try:
        extended = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        for_clients = ExtendedKeyUsageOID.CLIENT_AUTH in extended
    except x509.ExtensionNotFound:  # restricts nothing
        for_clients = True
    if key.digital_signature and for_clients:
        usages.add(AUTHENTICATION)
    if key.content_commitment:
        usages.add(SIGNATURE)
    return frozenset(usages)


def _policies(certificate: x509.Certificate) -> frozenset[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.CertificatePolicies).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(policy.policy_identifier.dotted_string for policy in found)
