"""
Certificate revocation lists: which are taken, and what they say (RFC 5280, 5 and 6.3.3).

Taken is a full list of one CA, signed with its key by RSA, ECDSA or Ed25519 over SHA-256 or longer. Its
IssuingDistributionPoint, where it has one, may be of these forms and no others:

    onlyContainsUserCerts               signers' certificates are users'; nothing is said of their issuers'
    onlyContainsCACerts                 the other way round
    distributionPoint.fullName, URIs    a part of the CA's certificates: those that name one of these URIs as theirs

Refused, because they say nothing or only a part of what must be known: lists of attribute certificates alone, of some
reasons alone, indirect ones, deltas, and those with a critical extension that is not known here.

`read` is done in a process of its own (crl_reader.py); its table is what the daemon looks up.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from mmap import mmap

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes
from cryptography.x509.oid import ExtensionOID

FILE_BYTES_MAX = 64 * 1024 * 1024  # a million entries with serial numbers of 20 bytes and reasons have 53 MB
URL_BYTES_MAX = 16 * 1024 * 1024  # what a network may make us take: 300 000 such entries
POINTS_BYTES_MAX = 16 * 1024  # of URIs in IssuingDistributionPoint: they go into one packet
SERIAL_BYTES = 20  # at most: RFC 5280, 4.1.2.2
RECORD_BYTES = SERIAL_BYTES + 1  # a serial number, big-endian, and the place of its reason in REASONS
NO_NUMBER = -1  # a list without CRLNumber is older than any with one

# The words of RFC 5280, 5.3.1. `removeFromCRL` stands in deltas alone.
REASONS = (
    *("unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded", "cessationOfOperation"),
    *("certificateHold", "privilegeWithdrawn", "aACompromise"),
)
ON_HOLD = "certificateHold"
_HASHES = {"sha256", "sha384", "sha512"}
_UNDERSTOOD = {
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    ExtensionOID.CRL_NUMBER,
    ExtensionOID.ISSUING_DISTRIBUTION_POINT,
}
_PEM = b"-----BEGIN X509 CRL-----"


class CrlRefused(Exception):
    """The list is not taken; the message says why, as the end of a sentence that begins with 'the CRL'."""


class Whose(StrEnum):
    """Whose certificates a list is of."""

    ALL = "all"
    USERS = "users"
    CAS = "CAs"


@dataclass(frozen=True, slots=True)
class RevocationList:
    number: int
    this_update: datetime
    next_update: datetime
    points: frozenset[str]  # URIs; empty: all certificates of the CA
    whose: Whose
    table: bytes | mmap  # records of `RECORD_BYTES`, sorted

    def __len__(self) -> int:
        return len(self.table) // RECORD_BYTES

    def reason(self, serial: int) -> str | None:
        """
        Why the certificate with this serial number, one with `is_listable`, is revoked; None if it is not listed. Of a
        million it takes 5 us.
        """
        wanted, table = serial.to_bytes(SERIAL_BYTES, "big"), self.table
        place = bisect_left(
            range(len(self)), wanted, key=lambda i: table[i * RECORD_BYTES : i * RECORD_BYTES + SERIAL_BYTES]
        )
        record = table[place * RECORD_BYTES : (place + 1) * RECORD_BYTES]
        return REASONS[record[SERIAL_BYTES]] if record[:SERIAL_BYTES] == wanted else None

    def has_in_scope(self, points: frozenset[str], *, is_ca: bool) -> bool:
        """Whether the list is of certificates of this kind with these distribution points, too (RFC 5280, 6.3.3 b 2)."""
        if self.whose is (Whose.USERS if is_ca else Whose.CAS):
            return False
        return not self.points or not self.points.isdisjoint(points)


def read(content: bytes, issuer: x509.Certificate) -> RevocationList:
    """
    The list in these bytes, DER or PEM, of this CA; raises `CrlRefused`. What is to be said of its times is the
    caller's business. A million entries (53 MB) take 5 s of a processor and 250 MB.
    """
    try:
        return _read((x509.load_pem_x509_crl if content.startswith(_PEM) else x509.load_der_x509_crl)(content), issuer)
    except (CrlRefused, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 -- given hostile input a parser raises anything at all
        raise CrlRefused(f"cannot be read: {error}") from None


def _read(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> RevocationList:
    """The library parses most parts only when they are asked for, and then raises what loading raises."""
    if crl.issuer != issuer.subject:
        raise CrlRefused(f"is of another issuer: {crl.issuer.rfc4514_string()}")
    _check_signature(crl, issuer.public_key())  # type: ignore[arg-type]  # the configuration's check: keys that sign
    number, points, whose = NO_NUMBER, frozenset[str](), Whose.ALL
    for extension in crl.extensions:
        value = extension.value
        if isinstance(value, x509.DeltaCRLIndicator):
            raise CrlRefused("is a delta; give a full one")
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise CrlRefused(f"has the critical extension {extension.oid.dotted_string}, which is not known here")
        if isinstance(value, x509.CRLNumber):
            number = value.crl_number
            if not is_listable(number):
                raise CrlRefused("has a number that is negative or longer than 20 bytes (RFC 5280, 5.2.3)")
        elif isinstance(value, x509.IssuingDistributionPoint):
            points, whose = _scope(value)
    if crl.next_update_utc is None:
        raise CrlRefused("has no nextUpdate, so that nobody knows when it ends (RFC 5280, 5.1.2.5)")
    return RevocationList(number, crl.last_update_utc, crl.next_update_utc, points, whose, _table(crl))


def is_listable(serial: int) -> bool:
    """Whether a list that is taken could name this serial number."""
    return serial >= 0 and serial.bit_length() <= 8 * SERIAL_BYTES


def points_of(certificate: x509.Certificate) -> frozenset[str]:
    """Where a certificate says that its CA's own list is, one of all reasons: URIs."""
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except x509.ExtensionNotFound:
        return frozenset()
    own = (point for point in points if point.crl_issuer is None and point.reasons is None)
    return frozenset(uri for point in own for uri in _uris(point.full_name or ()))


def is_ca(certificate: x509.Certificate) -> bool:
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except x509.ExtensionNotFound:
        return False


def _check_signature(crl: x509.CertificateRevocationList, key: CertificateIssuerPublicKeyTypes) -> None:
    try:
        hash_ = crl.signature_hash_algorithm  # none with Ed25519
        is_strong = hash_ is None or hash_.name in _HASHES
        is_right = is_strong and crl.is_signature_valid(key)
    except UnsupportedAlgorithm:
        is_strong = is_right = False
    if not is_strong:
        raise CrlRefused("is signed over a hash that is not taken; SHA-256, SHA-384 and SHA-512 are")
    if not is_right:
        raise CrlRefused("is not signed with the key of its issuer's certificate")


def _scope(point: x509.IssuingDistributionPoint) -> tuple[frozenset[str], Whose]:
    """The URIs of the distribution point, and whose certificates they are; raises where that is not all that is to be known."""
    for is_so, what in (
        (point.indirect_crl, "is an indirect one"),
        (point.only_contains_attribute_certs, "is of attribute certificates alone"),
        (point.only_some_reasons is not None, "is of some reasons alone"),
        (point.relative_name is not None, "names its distribution point in a form that is not taken; URIs are"),
    ):
        if is_so:
            raise CrlRefused(what)
    whose = Whose.ALL
    if point.only_contains_user_certs:
        whose = Whose.USERS
    elif point.only_contains_ca_certs:
        whose = Whose.CAS
    if point.full_name is None:
        return frozenset(), whose
    uris = frozenset(_uris(point.full_name))
    if not uris:
        raise CrlRefused("names its distribution point in a form that is not taken; URIs are")
    if sum(map(len, uris)) > POINTS_BYTES_MAX:
        raise CrlRefused(f"names distribution points of more than {POINTS_BYTES_MAX} bytes")
    return uris, whose


def _table(crl: x509.CertificateRevocationList) -> bytes:
    records = []
    for entry in crl:
        serial = entry.serial_number
        if not is_listable(serial):
            raise CrlRefused("has a serial number that is negative or longer than 20 bytes (RFC 5280, 4.1.2.2)")
        records.append(serial.to_bytes(SERIAL_BYTES, "big") + _reason(entry))
    records.sort()
    return b"".join(records)


def _reason(entry: x509.RevokedCertificate) -> bytes:
    reason = "unspecified"
    for extension in entry.extensions:
        if isinstance(extension.value, x509.CertificateIssuer):
            raise CrlRefused("is an indirect one: an entry names another issuer")
        if isinstance(extension.value, x509.CRLReason):
            reason = extension.value.reason.value
        elif extension.critical and not isinstance(extension.value, x509.InvalidityDate):
            raise CrlRefused(f"has an entry with the critical extension {extension.oid.dotted_string}, not known here")
    if reason not in REASONS:
        raise CrlRefused(f"has an entry with the reason {reason}, which belongs into deltas")
    return bytes((REASONS.index(reason),))


def _uris(names: "list[x509.GeneralName] | tuple[x509.GeneralName, ...]") -> Iterator[str]:
    return (name.value for name in names if isinstance(name, x509.UniformResourceIdentifier))
