"""
The statement that the daemon signed when a person gave her code in the window (signing.proto, Authenticate).

Six lines: 'paraph-login-v1', caller, audience, nonce in hexadecimal, subject, time. It is believed when its signature is
the presented certificate's, and every line is what this portal expects; a nonce is used once (domain/login.py).
"""

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from portal_adapter.refusal import Refusal

_FORM = "paraph-login-v1"
STATEMENT_BYTES_MAX = 1024


def nonce_of(statement: bytes) -> str:
    """The nonce, in hexadecimal, that a statement names; raises `Refusal` for what is none."""
    return _lines(statement)[3]


def check(statement: bytes, signature: bytes, certificate: bytes, *, caller: str, audience: str) -> None:
    """Raise `Refusal` `unauthenticated` unless it is the certificate's, for this portal, by its own window."""
    lines = _lines(statement)
    if (lines[1], lines[2]) != (caller, audience):
        raise _refused("made-for-another")
    try:
        _verify(certificate, statement, signature)
    except (InvalidSignature, ValueError):
        raise _refused("signature-invalid") from None


def _lines(statement: bytes) -> list[str]:
    try:
        text = statement.decode()
    except UnicodeDecodeError:
        raise _refused("statement-unreadable") from None
    lines = text.split("\n")
    if len(statement) > STATEMENT_BYTES_MAX or len(lines) != 7 or lines[0] != _FORM or lines[6]:
        raise _refused("statement-unreadable")
    return lines


def _verify(certificate: bytes, statement: bytes, signature: bytes) -> None:
    """The window asks for SHA-256, SHA-384 or SHA-512 by the key's kind, as `signer.client.algorithms_for` does."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, statement, padding.PKCS1v15(), hashes.SHA256())
    elif isinstance(key, ec.EllipticCurvePublicKey):
        wanted: dict[str, hashes.HashAlgorithm] = {"secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}
        key.verify(signature, statement, ec.ECDSA(wanted.get(key.curve.name, hashes.SHA256())))
    elif isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, statement)
    else:
        raise ValueError("a key of another kind")


def _refused(reason: str) -> Refusal:
    return Refusal("unauthenticated", "This login could not be checked. Please begin again.", reason=reason)
