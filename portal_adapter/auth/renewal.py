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
    if this.issuer != that.issuer or _issuing_key(this) is None or _issuing_key(this) != _issuing_key(that):
        return False
    if this.not_valid_before_utc <= that.not_valid_before_utc:
        return False
    is_same_person = this.subject == that.subject and _has_serial(this)
    return is_same_person or _key(this) == _key(that)


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
