"""
Who is calling: the client certificate on TCP, the socket itself on a Unix socket. Never a header.

On TCP the caller is the one whose configured URI is, as a whole, the *only* URI in the certificate's subject
alternative name. gRPC reports URIs by their type (`peer_uri`), but cuts them at a NUL, so the certificate itself is read
too and both must agree; gRPC's other lists mix types, and a DNS name may look like a URI. TLS looks at a certificate only when a connection begins, so its end and the deny-list are looked at here, at
every call and at every message of a stream.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from signer.config import Caller
from signer.errors import Refusal
from signer.policy import Policy
from signer.steady import Steady


class Peers(Protocol):
    """One for each listener."""

    def identify(self, context: Any) -> Caller:
        """The caller behind a gRPC servicer context; raises `Refusal` for anybody else."""
        ...


@dataclass(frozen=True, slots=True)
class SocketPeer:
    """A Unix socket carries no identity: whoever its mode lets in is this caller."""

    name: str
    policy: Callable[[], Policy]

    def identify(self, context: Any) -> Caller:
        caller = self.policy().by_name.get(self.name)
        if caller is None:
            raise Refusal("CALLER_UNKNOWN")
        return caller


@dataclass(frozen=True, slots=True)
class CertificatePeer:
    policy: Callable[[], Policy]
    steady: Steady

    def identify(self, context: Any) -> Caller:
        properties = context.auth_context()
        uris = properties.get("peer_uri", ())
        pems = properties.get("x509_pem_cert", ())
        if len(pems) != 1:
            raise Refusal("CALLER_UNKNOWN")
        fingerprint, not_after, names = _read(bytes(pems[0]))
        if fingerprint in self.policy().denied:
            raise Refusal("CALLER_REVOKED")
        if self.steady.latest() >= not_after:
            raise Refusal("CALLER_EXPIRED", self.steady.why_later())
        if len(uris) != 1:
            raise Refusal("CALLER_UNKNOWN")
        caller = self.policy().by_uri.get(bytes(uris[0]).decode("utf-8", "replace"))
        if caller is None or names != (caller.uri,):
            raise Refusal("CALLER_UNKNOWN")
        return caller


@lru_cache(maxsize=1024)
def _read(pem: bytes) -> tuple[bytes, datetime, tuple[str, ...]]:
    """SHA-256, end and URIs of a certificate; kept, because a connection shows the same one at each call."""
    certificate = x509.load_pem_x509_certificate(pem)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = tuple(names.get_values_for_type(x509.UniformResourceIdentifier))
    except (x509.ExtensionNotFound, ValueError):  # none, or none that can be read
        uris = ()
    return certificate.fingerprint(hashes.SHA256()), certificate.not_valid_after_utc, uris
