"""
Which credentials are one person's: those that have a certificate of hers, that a CA gave to the same name as one of hers,
and that belong to the same subject of this service as one that has.

A listing of everybody's would grow with the people; a portal asks for one person's at each page that she signs on.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping

from cryptography import x509

from signer.credential import Credential
from signer.errors import Refusal

_HASH_BYTES = 32  # SHA-256

_Names = tuple[str, str]  # a certificate's issuer and subject: by their values, one CA encodes them in several ways


class Holders:
    """An index of one set of credentials; an other set has an other one."""

    def __init__(self, credentials: Mapping[str, Credential]) -> None:
        self.credentials = credentials
        self._by_hash: dict[bytes, list[str]] = defaultdict(list)
        self._by_names: dict[_Names, list[str]] = defaultdict(list)
        self._by_subject: dict[str, list[str]] = defaultdict(list)
        for name, one in credentials.items():
            if one.certificates:
                self._by_hash[hashlib.sha256(one.certificates[0]).digest()].append(name)
                self._by_names[_names(one.x509)].append(name)
            if one.subject:
                self._by_subject[one.subject].append(name)

    def of(self, certificates: Iterable[bytes]) -> set[str]:
        """
        The names of the credentials of whoever has these certificates, each in DER or as its SHA-256. Raises `Refusal`
        CERTIFICATE_INVALID.
        """
        found: set[str] = set()
        for one in certificates:
            if len(one) == _HASH_BYTES:
                known = self._by_hash.get(one, [])
                hers = {_names(self.credentials[name].x509) for name in known}
            else:
                known = self._by_hash.get(hashlib.sha256(one).digest(), [])
                try:
                    hers = {_names(x509.load_der_x509_certificate(one))}
                except ValueError:
                    raise Refusal("CERTIFICATE_INVALID") from None
            found.update(known, *(self._by_names.get(names, []) for names in hers))
        subjects = {self.credentials[name].subject for name in found}
        return found.union(*(self._by_subject.get(subject, ()) for subject in subjects))


def _names(certificate: x509.Certificate) -> _Names:
    return certificate.issuer.rfc4514_string(), certificate.subject.rfc4514_string()
