"""
Public keys, and verifying with them: the parent's side, by `cryptography`.

A lane verifies for itself, with another copy of OpenSSL (`libcrypto.py`): what it signs is looked at by both, now and
then (attendant.VERIFY_EACH).
"""

from collections.abc import Callable
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from pool.mechanism import Algorithm, Hash, Scheme

RSA_BITS_MIN = 2048  # ETSI TS 119 312 ends 1 900 bits; shorter keys are refused
_HASHES: dict[Hash, hashes.HashAlgorithm] = {
    Hash.SHA256: hashes.SHA256(),
    Hash.SHA384: hashes.SHA384(),
    Hash.SHA512: hashes.SHA512(),
}
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


class KeyRefused(ValueError):
    """The public key is of a kind that this pool does not sign with; the message says which kinds it does."""


@lru_cache(maxsize=4096)
def load_public_key(spki: bytes) -> PublicKey:
    """
    The key of a DER SubjectPublicKeyInfo; raises `KeyRefused` for a kind that is not signed with here.

    Kept: parsing costs more than verifying with it.
    """
    key = serialization.load_der_public_key(spki)
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= RSA_BITS_MIN:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise KeyRefused(f"keys are RSA of at least {RSA_BITS_MIN} bits, P-256, P-384, P-521 or Ed25519")


def spki_of_pem(content: bytes) -> bytes:
    """
    The DER SubjectPublicKeyInfo of a public key in PEM. Raises `KeyRefused` as `load_public_key` does, another
    `ValueError` for what is none.
    """
    try:
        key = serialization.load_pem_public_key(content)
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    load_public_key(spki)
    return spki


@lru_cache(maxsize=4096)
def key_type(spki: bytes) -> str:
    """A key's kind in words: 'RSA-2048', 'P-256', 'Ed25519'."""
    key = load_public_key(spki)
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA-{key.key_size}"
    return _CURVES[key.curve.name] if isinstance(key, ec.EllipticCurvePublicKey) else "Ed25519"


@lru_cache(maxsize=4096)
def order_bytes(spki: bytes) -> int:
    """The length of the group order of an elliptic curve's key; 0 for other keys."""
    key = load_public_key(spki)
    return (key.key_size + 7) // 8 if isinstance(key, ec.EllipticCurvePublicKey) else 0


@lru_cache(maxsize=4096)
def signature_bytes_max(spki: bytes) -> int:
    """The longest signature that the key makes, in the world's form."""
    key = load_public_key(spki)
    if isinstance(key, rsa.RSAPublicKey):
        return (key.key_size + 7) // 8
    # Two INTEGERs with a leading zero each, in a SEQUENCE; Ed25519: RFC 8032.
    return 2 * (order_bytes(spki) + 3) + 3 if isinstance(key, ec.EllipticCurvePublicKey) else 64


@lru_cache(maxsize=4096)
def algorithms(spki: bytes) -> tuple[Algorithm, ...]:
    """Every algorithm that the key can be asked for."""
    key = load_public_key(spki)
    if isinstance(key, rsa.RSAPublicKey):
        schemes = (Scheme.RSA_PKCS1_V15, Scheme.RSA_PSS)
        return tuple(Algorithm(scheme, hash_) for scheme in schemes for hash_ in Hash)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return tuple(Algorithm(Scheme.ECDSA, hash_) for hash_ in Hash)
    return (Algorithm(Scheme.ED25519, None),)


def verify(algorithm: Algorithm, spki: bytes, item: bytes, signature: bytes) -> None:
    """Raise `InvalidSignature` (cryptography's) unless the signature, in the world's form, is the key's over the item."""
    verifier(algorithm, spki)(item, signature)


@lru_cache(maxsize=4096)
def verifier(algorithm: Algorithm, spki: bytes) -> Callable[[bytes, bytes], None]:
    """
    The same for many items: what is the same for all of them is made once.

    PSS is checked with the salt length that is asked of tokens, the hash's own: a token that salts otherwise would
    contradict the parameters written into the CMS (RFC 4055, 3.1).
    """
    key = load_public_key(spki)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return lambda item, signature: key.verify(signature, item)
    assert algorithm.hash is not None
    hash_ = _HASHES[algorithm.hash]
    prehashed = utils.Prehashed(hash_)
    if isinstance(key, ec.EllipticCurvePublicKey):
        ecdsa = ec.ECDSA(prehashed)
        return lambda item, signature: key.verify(signature, item, ecdsa)
    pad: padding.AsymmetricPadding = padding.PKCS1v15()
    if algorithm.scheme is Scheme.RSA_PSS:
        pad = padding.PSS(padding.MGF1(hash_), hash_.digest_size)
    key_bytes = (key.key_size + 7) // 8

    def verify_rsa(item: bytes, signature: bytes) -> None:
        if len(signature) != key_bytes:  # RFC 8017, 8.1.2 and 8.2.2, step 1; OpenSSL takes a shorter PSS
            raise InvalidSignature
        key.verify(signature, item, pad, prehashed)

    return verify_rsa
