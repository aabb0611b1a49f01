"""
Signature algorithms, and what each means to a PKCS#11 token.

The pool takes digests, so a token is asked only for *raw* mechanisms: CKM_RSA_PKCS over a DigestInfo (RFC 8017, 9.2),
CKM_RSA_PKCS_PSS, CKM_ECDSA, and CKM_EDDSA over a message, because pure EdDSA has no digest (RFC 8032). Tokens without
the hash-and-sign mechanisms are many, tokens without the raw ones few.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from operator import itemgetter

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

EDDSA_MESSAGE_BYTES_MAX = 4096  # only signed attributes cross to a worker, never a document
RSA_BITS_MIN = 2048  # ETSI TS 119 312 ends 1 900 bits; shorter keys are refused


class Scheme(StrEnum):
    RSA_PKCS1_V15 = "RSA_PKCS1_V15"
    RSA_PSS = "RSA_PSS"
    ECDSA = "ECDSA"
    ED25519 = "ED25519"


class Hash(StrEnum):
    SHA256 = "SHA256"
    SHA384 = "SHA384"
    SHA512 = "SHA512"


DIGEST_BYTES = {Hash.SHA256: 32, Hash.SHA384: 48, Hash.SHA512: 64}
_HASHES: dict[Hash, hashes.HashAlgorithm] = {
    Hash.SHA256: hashes.SHA256(),
    Hash.SHA384: hashes.SHA384(),
    Hash.SHA512: hashes.SHA512(),
}
# RFC 8017, 9.2, note 1: the DER of DigestInfo up to the digest itself.
_DIGEST_INFO = {
    Hash.SHA256: bytes.fromhex("3031300d060960864801650304020105000420"),
    Hash.SHA384: bytes.fromhex("3041300d060960864801650304020205000430"),
    Hash.SHA512: bytes.fromhex("3051300d060960864801650304020305000440"),
}
# PKCS#11 v3.1, section 2: mechanism, hash and mask generation numbers.
CKM = {Scheme.RSA_PKCS1_V15: 0x1, Scheme.RSA_PSS: 0xD, Scheme.ECDSA: 0x1041, Scheme.ED25519: 0x1057}
CKM_HASH = {Hash.SHA256: 0x250, Hash.SHA384: 0x260, Hash.SHA512: 0x270}
CKG_MGF1 = {Hash.SHA256: 0x2, Hash.SHA384: 0x3, Hash.SHA512: 0x4}
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


class KeyRefused(ValueError):
    """The public key is of a kind that this pool does not sign with; the message says which kinds it does."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What is asked of a key. `hash` is None for Ed25519 and only for it: there the item is the message."""

    scheme: Scheme
    hash: Hash | None

    def __post_init__(self) -> None:
        if (self.hash is None) != (self.scheme is Scheme.ED25519):
            raise ValueError(f"{self.scheme} {'needs a digest algorithm' if self.hash is None else 'takes none'}")

    def __str__(self) -> str:
        return self.scheme.value if self.hash is None else f"{self.scheme}_{self.hash}"

    @property
    def item_bytes(self) -> int | None:
        """The exact length of an item; None where it is a message of 1 to `EDDSA_MESSAGE_BYTES_MAX` bytes."""
        return None if self.hash is None else DIGEST_BYTES[self.hash]


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


def key_type(spki: bytes) -> str:
    """A key's kind in words: 'RSA-2048', 'P-256', 'Ed25519'."""
    key = load_public_key(spki)
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA-{key.key_size}"
    return _CURVES[key.curve.name] if isinstance(key, ec.EllipticCurvePublicKey) else "Ed25519"


def algorithms(spki: bytes) -> tuple[Algorithm, ...]:
    """Every algorithm that the key can be asked for."""
    key = load_public_key(spki)
    if isinstance(key, rsa.RSAPublicKey):
        schemes = (Scheme.RSA_PKCS1_V15, Scheme.RSA_PSS)
        return tuple(Algorithm(scheme, hash_) for scheme in schemes for hash_ in Hash)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return tuple(Algorithm(Scheme.ECDSA, hash_) for hash_ in Hash)
    return (Algorithm(Scheme.ED25519, None),)


def token_input(algorithm: Algorithm, spki: bytes, item: bytes) -> bytes:
    """What `C_Sign` gets for an item."""
    return to_token(algorithm, spki)(item)


@lru_cache(maxsize=4096)
def to_token(algorithm: Algorithm, spki: bytes) -> Callable[[bytes], bytes]:
    """
    The same for many items.

    An ECDSA digest longer than the group order is cut to its leftmost bytes here (FIPS 186-5, 6.4.1), because tokens
    disagree about who does it.
    """
    if algorithm.scheme is Scheme.RSA_PKCS1_V15:
        assert algorithm.hash is not None
        return _DIGEST_INFO[algorithm.hash].__add__
    if algorithm.scheme is Scheme.ECDSA:
        key = load_public_key(spki)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return itemgetter(slice((key.key_size + 7) // 8))
    return bytes


def from_token(algorithm: Algorithm, raw: bytes) -> bytes:
    """A token's output in the form the world uses: ECDSA leaves as DER (RFC 3279, 2.2.3), not as r||s."""
    if algorithm.scheme is not Scheme.ECDSA:
        return raw
    half = len(raw) // 2
    if not half or len(raw) % 2:
        raise InvalidSignature
    return utils.encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))


def verify(algorithm: Algorithm, spki: bytes, item: bytes, signature: bytes) -> None:
    """Raise `InvalidSignature` unless the signature (as `from_token` gives it) is the key's over the item."""
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
    pad = padding.PKCS1v15()
    if algorithm.scheme is Scheme.RSA_PSS:
        pss = padding.PSS(padding.MGF1(hash_), hash_.digest_size)
        return lambda item, signature: key.verify(signature, item, pss, prehashed)
    return lambda item, signature: key.verify(signature, item, pad, prehashed)
