"""
Whether a certificate is a renewal of another one: the same CA says that it is the same person's (TOK-06).

The whole subject is compared, and has to have a serialNumber: a CA gives one name to one person and no other, for as long
as it exists (RFC 5280, 4.1.2.6; RFC 3739, 3.1.2), and tells people of the same names apart by that attribute. Names alone
are many people's. Or the key is the same: who has it could log in with the old one.

It is newer than what it renews, so that an old card which was given up, lost or stolen does not come back.
"""

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID


def is_renewal(new: bytes, old: bytes) -> bool:
    """Both in DER, and accepted when they were presented."""
    this, that = x509.load_der_x509_certificate(new), x509.load_der_x509_certificate(old)
    if not _is_of_one_issuer(this, that) or this.not_valid_before_utc <= that.not_valid_before_utc:
        return False
    return _is_of_one_person(this, that) or _key(this) == _key(that)


def is_same_person(one: bytes, other: bytes) -> bool:
    """Whether two certificates are of one person by what their CA says, as those of one card are. Both in DER."""
    this, that = x509.load_der_x509_certificate(one), x509.load_der_x509_certificate(other)
    return _is_of_one_issuer(this, that) and _is_of_one_person(this, that)


def _is_of_one_issuer(this: x509.Certificate, that: x509.Certificate) -> bool:
    key = _issuing_key(this)
    return this.issuer == that.issuer and key is not None and key == _issuing_key(that)


def _is_of_one_person(this: x509.Certificate, that: x509.Certificate) -> bool:
    return this.subject == that.subject and _has_serial(this)


def _issuing_key(certificate: x509.Certificate) -> bytes | None:
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except x509.ExtensionNotFound:
        return None
    return found.key_identifier


def _has_serial(certificate: x509.Certificate) -> bool:
    found = certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    return bool(found) and all(str(one.value).strip() for one in found)


def _key(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
