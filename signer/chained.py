"""
Whether a credential's certificates lead to a configured root: each signed by the next one, the last by a root, all of
them valid now (RFC 5280, 6.1, as far as a chain that the operator has stored needs it).

A document that is signed under a chain that nobody trusts is worth nothing to who gets it, and the key was used. Where
no roots are configured nothing is known of that, and nothing is checked.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from signer.credential import Credential
from signer.errors import Refusal

_KEPT_MAX = 10_000  # credentials that were looked at; then all are looked at anew


class Chains:
    """Each credential is looked at once for each set of roots: 100 us a certificate, for ever after a dictionary's look-up."""

    def __init__(self) -> None:
        self._roots: tuple[bytes, ...] = ()
        self._ends: dict[bytes, tuple[datetime, datetime] | None] = {}

    def check(self, credential: Credential, roots: tuple[bytes, ...], now: datetime) -> None:
        """`roots` in DER; raises `Refusal` CERT_UNTRUSTED."""
        if not roots:
            return
        if roots is not self._roots or len(self._ends) >= _KEPT_MAX:
            self._roots = roots
            self._ends.clear()
        key = credential.chain_hash
        if key not in self._ends:
            self._ends[key] = _limits(credential.certificates, roots)
        limits = self._ends[key]
        if limits is None:
            raise Refusal("CERT_UNTRUSTED")
        if not limits[0] <= now < limits[1]:
            raise Refusal("CERT_UNTRUSTED", "a certificate of its issuers is not valid now")


def _limits(chain: Sequence[bytes], roots: Sequence[bytes]) -> tuple[datetime, datetime] | None:
    """From when until when all issuers of the chain are valid; None where it leads to no root."""
    certificates = [x509.load_der_x509_certificate(one) for one in chain]
    trusted = [x509.load_der_x509_certificate(one) for one in roots]
    for certificate, issuer in pairwise(certificates):
        if not _has_signed(issuer, certificate):
            return None
    last = certificates[-1]
    root = last if chain[-1] in roots else next((one for one in trusted if _has_signed(one, last)), None)
    if root is None:
        return None
    issuers = [*certificates[1:], root]
    return max(one.not_valid_before_utc for one in issuers), min(one.not_valid_after_utc for one in issuers)


def _has_signed(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    """By name, signature, and the right to issue (basicConstraints, RFC 5280, 4.2.1.9)."""
    try:
        certificate.verify_directly_issued_by(issuer)
        return bool(issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
