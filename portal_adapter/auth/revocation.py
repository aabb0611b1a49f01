"""
Whether a certificate was revoked, by the lists that its CA publishes (RFC 5280, 6.3) and the operator puts here: at a login,
and at each request of a session, which looks anew only when a list has changed.

A list counts when the CA has signed it, and until its nextUpdate; it is read again when its file has changed. Without a
good one nobody of that CA logs in: a list that is no longer renewed may leave out whoever steals a card now.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from portal_adapter.auth.strength import is_hash_short
from portal_adapter.refusal import Refusal, guard


def read(content: bytes) -> x509.CertificateRevocationList:
    """PEM or DER; raises ValueError, for a list that is signed with a short hash, too."""
    is_pem = content.lstrip().startswith(b"-----BEGIN")
    found = (x509.load_pem_x509_crl if is_pem else x509.load_der_x509_crl)(content)
    try:
        is_short = is_hash_short(found)
    except UnsupportedAlgorithm:
        raise ValueError("is signed by an algorithm that is not known") from None
    if is_short:
        raise ValueError("is signed with a hash that is not safe any more: SHA-256 or a longer one is wanted")
    return found


def check(certificate: x509.Certificate, issuer: x509.Certificate, lists: Sequence[Path], now: int) -> None:
    """Raises `guard-failed` `certificate-revoked`, and `signer-unavailable` where no good list says anything."""
    found = [one for one in map(_of, lists) if one is not None and _is_of(one, issuer)]
    if any(one.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None for one in found):
        raise guard("certificate-revoked", "This product was revoked. Ask its issuer for a new one.")
    moment = datetime.fromtimestamp(now, UTC)
    if not any(one.next_update_utc is None or moment < one.next_update_utc for one in found):
        message = "Your product cannot be checked just now. Please try again in a few minutes."
        raise Refusal("signer-unavailable", message, reason="no-revocation-list", retry_after_s=60)


def is_revoked(der: bytes, issuers: tuple[x509.Certificate, ...], lists: Sequence[Path]) -> bool:
    """Of a certificate that was accepted before. A list that is over still says what it says; one that is gone says nothing."""
    return _is_revoked(der, issuers, tuple((path, _stamp(path)) for path in lists))


@lru_cache(maxsize=1024)
def _is_revoked(
    der: bytes, issuers: tuple[x509.Certificate, ...], lists: tuple[tuple[Path, tuple[int, int] | None], ...]
) -> bool:
    serial = x509.load_der_x509_certificate(der).serial_number
    found = [one for path, _ in lists if (one := _of(path)) is not None]
    return any(
        one.get_revoked_certificate_by_serial_number(serial) is not None
        for issuer in issuers
        if _is_issuer(der, issuer)
        for one in found
        if _is_of(one, issuer)
    )


def _is_issuer(der: bytes, issuer: x509.Certificate) -> bool:
    try:
        x509.load_der_x509_certificate(der).verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _of(path: Path) -> x509.CertificateRevocationList | None:
    try:
        stamp = _stamp(path)
        return None if stamp is None else _read(path, *stamp)
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=32)
def _read(path: Path, _changed: int, _size: int) -> x509.CertificateRevocationList:
    return read(path.read_bytes())


def _is_of(one: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        return one.issuer == issuer.subject and one.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
