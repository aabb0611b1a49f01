"""Verifying in a lane: the OpenSSL of Python itself, held against `cryptography`, which the parent verifies with."""

import ctypes
import ctypes.util
from collections.abc import Callable

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from pool import Algorithm, Scheme, libcrypto
from pool.mechanism import DIGEST_BYTES, WrongSignature
from pool.public import algorithms, verifier
from pool.worker import by_cryptography
from tests.pool.rig import PSS, RSA, digests
from tests.pool.test_mechanism import HASHES, spki

PRIVATE = {
    "RSA-2048": rsa.generate_private_key(65537, 2048),
    "RSA-3072": rsa.generate_private_key(65537, 3072),
    "P-256": ec.generate_private_key(ec.SECP256R1()),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "P-521": ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
}


def sign(kind: str, algorithm: Algorithm, item: bytes) -> bytes:
    private = PRIVATE[kind]
    if algorithm.hash is None:
        return private.sign(item)
    prehashed = utils.Prehashed(HASHES[algorithm.hash])
    if algorithm.scheme is Scheme.ECDSA:
        return private.sign(item, ec.ECDSA(prehashed))
    pad = padding.PKCS1v15()
    if algorithm.scheme is Scheme.RSA_PSS:
        pad = padding.PSS(padding.MGF1(HASHES[algorithm.hash]), DIGEST_BYTES[algorithm.hash])
    return private.sign(item, pad, prehashed)


def good(check: Callable[[bytes, bytes], None], item: bytes, signature: bytes) -> bool:
    try:
        check(item, signature)
    except (WrongSignature, InvalidSignature):
        return False
    return True


@pytest.mark.parametrize("kind", PRIVATE)
def test_both_judge_alike(kind: str) -> None:
    """Right ones, another item's, each byte flipped, cut, lengthened, empty: one verdict, and the next is right again."""
    key = spki(PRIVATE[kind])
    for algorithm in algorithms(key):
        ours, theirs = libcrypto.verifier(algorithm, key), verifier(algorithm, key)
        fallback = by_cryptography(algorithm, key)
        assert ours is not None
        first, second = digests(2, algorithm=algorithm)
        signature = sign(kind, algorithm, first)
        wrong = [
            *(signature[:i] + bytes([signature[i] ^ 1]) + signature[i + 1 :] for i in range(0, len(signature), 7)),
            *(signature[:-1], signature + b"\0", b"", bytes(len(signature)), b"\xff" * len(signature)),
        ]
        for check in (ours, theirs, fallback):
            assert good(check, first, signature)
            assert not good(check, second, signature)
            for one in wrong:
                assert not good(check, first, one), (algorithm, one.hex())
            assert good(check, first, signature)


@pytest.mark.parametrize("salt", [0, 20, 31, 33, padding.PSS.MAX_LENGTH])
def test_another_salt_length_is_wrong(salt: int) -> None:
    """RFC 4055, 3.1: as the parent judges."""
    [item] = digests(1)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt)
    signature = PRIVATE["RSA-2048"].sign(item, pss, utils.Prehashed(hashes.SHA256()))
    check = libcrypto.verifier(PSS, spki(PRIVATE["RSA-2048"]))
    assert not good(check, item, signature)


def test_another_mask_hash_is_wrong() -> None:
    """PSS has one hash for the digest and the mask."""
    [item] = digests(1)
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), 32)
    signature = PRIVATE["RSA-2048"].sign(item, pss, utils.Prehashed(hashes.SHA256()))
    assert not good(libcrypto.verifier(PSS, spki(PRIVATE["RSA-2048"])), item, signature)


@pytest.mark.parametrize("kind", ["RSA-2048", "RSA-3072"])
def test_an_rsa_signature_has_its_key_s_length(kind: str) -> None:
    """RFC 8017, 8.1.2 and 8.2.2, step 1: one whose leading zero was left out is refused, though its number is right."""
    key = spki(PRIVATE[kind])
    for algorithm in algorithms(key):
        for number in range(3_000):
            [item] = digests(1, number, algorithm)
            signature = sign(kind, algorithm, item)
            if signature[0] == 0:
                break
            if algorithm not in {PSS, RSA}:
                break  # one of each padding is enough
        else:
            pytest.fail("no signature began with a zero")
        if signature[0] == 0:
            for check in (libcrypto.verifier(algorithm, key), verifier(algorithm, key)):
                assert good(check, item, signature)
                assert not good(check, item, signature[1:])


def test_a_verdict_leaves_no_error_behind() -> None:
    """The module that signs next may ask the same copy of OpenSSL for *its* error."""
    library = ctypes.CDLL(libcrypto._hashlib.__file__)
    library.ERR_peek_error.restype = ctypes.c_ulong
    for kind, private in PRIVATE.items():
        for algorithm in algorithms(spki(private)):
            check = libcrypto.verifier(algorithm, spki(private))
            assert not good(check, digests(1, algorithm=algorithm)[0], b"\x30" + bytes(70)), kind
            assert library.ERR_peek_error() == 0


def test_a_key_that_openssl_does_not_read_is_left_to_others() -> None:
    """None, so that the lane verifies in the other way; nothing is raised into the lane's start."""
    assert libcrypto.verifier(PSS, b"\x30\x03abc") is None


def test_without_openssl_s_symbols_the_other_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that has OpenSSL built in without symbols: None, too."""
    monkeypatch.setattr(libcrypto._hashlib, "__file__", ctypes.util.find_library("c") or "libc.so.6")
    libcrypto._openssl.cache_clear()
    try:
        assert libcrypto.verifier(PSS, spki(PRIVATE["RSA-2048"])) is None
    finally:
        libcrypto._openssl.cache_clear()
