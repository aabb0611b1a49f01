"""
P-256 keys whose signatures are made once and kept: the n-th signature over a digest is always the same, and differs from
the one before it.

Signing and verifying are pure functions. What is made of a digest does not depend on who asks when, so that a run learns
nothing from computing it again; and a bit that is wrong is still refused by the real verifier, once for each signature.
"""

import functools
import hashlib
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from pool import Algorithm, Hash, Scheme
from pool.key import Key

ECDSA = Algorithm(Scheme.ECDSA, Hash.SHA256)
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256 (FIPS 186-4, D.1.2.3)


@functools.cache
def private(name: str) -> ec.EllipticCurvePrivateKey:
    """The key of this name: the same in every run."""
    number = int.from_bytes(hashlib.sha512(b"simulated key " + name.encode()).digest()) % (_ORDER - 1) + 1
    return ec.derive_private_key(number, ec.SECP256R1())


@functools.cache
def spki(name: str) -> bytes:
    public = private(name).public_key()
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@functools.cache
def point(name: str) -> bytes:
    public = private(name).public_key()
    return public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


@functools.cache
def key(name: str) -> Key:
    return Key(spki(name), cka_id=name.encode(), label=name)


@functools.cache
def digest(number: int) -> bytes:
    """The digests of all runs: the n-th one of each is the same."""
    return hashlib.sha256(b"simulated digest %d" % number).digest()


@functools.lru_cache(maxsize=200_000)
def signature(name: str, data: bytes, number: int) -> tuple[bytes, bytes]:
    """The `number`-th signature of this key over this digest: as a token gives it (r || s), and as the world wants it."""
    del number  # ECDSA draws a new nonce for each
    der = private(name).sign(data, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    r, s = utils.decode_dss_signature(der)
    return r.to_bytes(32) + s.to_bytes(32), der


def verified(verify: Any) -> Any:
    """A verifier that looks at each signature once."""
    good: set[tuple[Any, ...]] = set()

    def look(algorithm: Algorithm, spki: bytes, item: bytes, signature: bytes) -> None:
        asked = (algorithm, spki, item, signature)
        if asked not in good:
            verify(*asked)
            good.add(asked)

    return look
