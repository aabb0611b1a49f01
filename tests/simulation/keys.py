"""
Keys, P-256 in a simulation, whose signatures are made once and kept: the n-th signature over a digest is always the same, and differs from
the one before it.

Signing and verifying are pure functions. What is made of a digest does not depend on who asks when, so that a run learns
nothing from computing it again; and a bit that is wrong is still refused by the real verifier, once for each signature.
"""

import functools
import hashlib
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from pool import Algorithm, Hash, Scheme
from pool.key import Key

ECDSA = Algorithm(Scheme.ECDSA, Hash.SHA256)
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256 (FIPS 186-4, D.1.2.3)

_INFO_BYTES = 19 + 32  # a DigestInfo with SHA-256 (RFC 8017, 9.2)


@functools.cache
def private(name: str) -> ec.EllipticCurvePrivateKey:
    """The key of this name: the same in every run."""
    number = int.from_bytes(hashlib.sha512(b"simulated key " + name.encode()).digest()) % (_ORDER - 1) + 1
    return ec.derive_private_key(number, ec.SECP256R1())


def is_rsa(name: str) -> bool:
    return name.startswith("RSA-")


@functools.cache
def private_rsa(name: str) -> rsa.RSAPrivateKey:
    """For tests of the pool, which are written for real tokens; another one in each process."""
    return rsa.generate_private_key(65537, int(name.removeprefix("RSA-")))


def numbers(name: str) -> tuple[bytes, bytes]:
    """Modulus and exponent of an RSA key."""
    public = private_rsa(name).public_key().public_numbers()
    return public.n.to_bytes((public.n.bit_length() + 7) // 8), public.e.to_bytes(3)


@functools.cache
def spki(name: str) -> bytes:
    public = private_rsa(name).public_key() if is_rsa(name) else private(name).public_key()
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
    if is_rsa(name):
        if len(data) != _INFO_BYTES:  # only RSA_PKCS1_V15 with SHA-256
            return b"", b""
        digest = data[-hashes.SHA256.digest_size :]
        made = private_rsa(name).sign(digest, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))
        return made, made
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
