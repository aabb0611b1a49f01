"""
Signature algorithms, and what each means to a PKCS#11 token.

The pool takes digests, so a token is asked only for *raw* mechanisms: CKM_RSA_PKCS over a DigestInfo (RFC 8017, 9.2),
CKM_RSA_PKCS_PSS, CKM_ECDSA, and CKM_EDDSA over a message, because pure EdDSA has no digest (RFC 8032). Tokens without
the hash-and-sign mechanisms are many, tokens without the raw ones few.

Nothing is imported here: a lane's process needs this file, and no library for keys (`public.py` is for the parent).
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter
from typing import Any, Self

EDDSA_MESSAGE_BYTES_MAX = 4096  # only signed attributes cross to a worker, never a document


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


_ALGORITHMS: dict[tuple[Scheme, Hash | None], Any] = {}


class WrongSignature(Exception):
    """What a token gave is no signature of its key over the item."""


@dataclass(frozen=True, slots=True, eq=False)
class Algorithm:
    """
    What is asked of a key. `hash` is None for Ed25519 and only for it: there the item is the message.

    There is one object for each, so that it is compared and hashed by its identity: it is in the key of every dictionary
    on a digest's way.
    """

    scheme: Scheme
    hash: Hash | None

    def __new__(cls, scheme: Scheme, hash: Hash | None) -> Self:  # noqa: A002 -- the field's name
        known: Self = _ALGORITHMS.setdefault((scheme, hash), object.__new__(cls))
        return known

    def __reduce__(self) -> tuple[type["Algorithm"], tuple[Scheme, Hash | None]]:
        return Algorithm, (self.scheme, self.hash)

    def __post_init__(self) -> None:
        if (self.hash is None) != (self.scheme is Scheme.ED25519):
            raise ValueError(f"{self.scheme} {'needs a digest algorithm' if self.hash is None else 'takes none'}")

    def __str__(self) -> str:
        return self.scheme.value if self.hash is None else f"{self.scheme}_{self.hash}"

    @property
    def item_bytes(self) -> int | None:
        """The exact length of an item; None where it is a message of 1 to `EDDSA_MESSAGE_BYTES_MAX` bytes."""
        return None if self.hash is None else DIGEST_BYTES[self.hash]


def to_token(algorithm: Algorithm, order_bytes: int) -> Callable[[bytes], bytes]:
    """
    From an item to what `C_Sign` gets; `bytes` where that is the item itself. `order_bytes` is the length of an elliptic curve's group order.

    An ECDSA digest longer than the group order is cut to its leftmost bytes here (FIPS 186-5, 6.4.1), because tokens
    disagree about who does it.
    """
    if algorithm.scheme is Scheme.RSA_PKCS1_V15:
        assert algorithm.hash is not None
        return _DIGEST_INFO[algorithm.hash].__add__
    if algorithm.scheme is Scheme.ECDSA and (algorithm.hash is None or DIGEST_BYTES[algorithm.hash] > order_bytes):
        return itemgetter(slice(order_bytes))
    return bytes


def from_token(algorithm: Algorithm) -> Callable[[bytes], bytes]:
    """
    From a token's output to the form that the world uses: ECDSA leaves as DER (RFC 3279, 2.2.3), not as r||s. What it
    answers raises `WrongSignature` for what has no such form.
    """
    return _der_of_pair if algorithm.scheme is Scheme.ECDSA else bytes


_HALF_BYTES_MAX = 66  # P-521
_INTEGERS = tuple(bytes((0x02, length)) for length in range(0x80))  # X.690, 8.3: tag and length
_SEQUENCES = tuple(bytes((0x30, n)) if n < 0x80 else bytes((0x30, 0x81, n)) for n in range(0x100))


def _der_of_pair(raw: bytes) -> bytes:
    half = len(raw) // 2
    r, s = raw[:half], raw[half:]
    if len(s) != half or not 0 < half <= _HALF_BYTES_MAX:
        raise WrongSignature
    if not r[0] or not s[0]:  # one in 128; and every P-521
        r, s = r.lstrip(b"\0"), s.lstrip(b"\0")
        if not r or not s:
            raise WrongSignature
    if r[0] & 0x80:  # a DER INTEGER has a sign
        r = b"\0" + r
    if s[0] & 0x80:
        s = b"\0" + s
    r_bytes, s_bytes = len(r), len(s)
    return _SEQUENCES[r_bytes + s_bytes + 4] + _INTEGERS[r_bytes] + r + _INTEGERS[s_bytes] + s
