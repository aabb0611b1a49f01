"""What a token is given and what leaves it, compared with an independent ASN.1 library and with `cryptography`."""

import hashlib

import pytest
from asn1crypto.algos import DigestInfo, DSASignature
from asn1crypto.core import Null
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils, x25519
from hypothesis import given
from hypothesis import strategies as st

from pool.mechanism import CKG_MGF1, CKM_HASH, DIGEST_BYTES, Algorithm, Hash, Scheme, WrongSignature
from pool.public import KeyRefused, algorithms, key_type, load_public_key, verify
from tests.pool.rig import ECDSA, EDDSA, PSS, RSA, token_input, worlds_form

HASHES = {Hash.SHA256: hashes.SHA256(), Hash.SHA384: hashes.SHA384(), Hash.SHA512: hashes.SHA512()}
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def spki(private: object) -> bytes:
    return private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def digest(hash_: Hash, text: bytes = b"a text") -> bytes:
    return hashlib.new(hash_.value, text).digest()


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize("hash_", Hash)
def test_pkcs1_input_is_the_der_of_digest_info(hash_: Hash, rsa_key: rsa.RSAPrivateKey) -> None:
    """RFC 8017, 9.2: the token signs DigestInfo with explicit NULL parameters."""
    value = digest(hash_)
    name = hash_.value.lower()
    wanted = DigestInfo({"digest_algorithm": {"algorithm": name, "parameters": Null()}, "digest": value}).dump()
    assert token_input(Algorithm(Scheme.RSA_PKCS1_V15, hash_), spki(rsa_key), value) == wanted
    assert DIGEST_BYTES[hash_] == len(value) == Algorithm(Scheme.ECDSA, hash_).item_bytes


def test_pss_and_eddsa_items_reach_the_token_as_they_are(rsa_key: rsa.RSAPrivateKey) -> None:
    """A PSS digest and an Ed25519 message are signed without anything round them."""
    assert token_input(PSS, spki(rsa_key), digest(Hash.SHA256)) == digest(Hash.SHA256)
    message = b"m" * 4096
    assert token_input(EDDSA, spki(ed25519.Ed25519PrivateKey.generate()), message) == message


def test_hash_numbers_are_those_of_the_standard() -> None:
    """PKCS#11 v3.1: hash and mask generation numbers that belong together, as python-pkcs11 has them."""
    assert CKM_HASH == {Hash.SHA256: 0x250, Hash.SHA384: 0x260, Hash.SHA512: 0x270}
    assert CKG_MGF1 == {Hash.SHA256: 2, Hash.SHA384: 3, Hash.SHA512: 4}


@given(
    half=st.sampled_from([32, 48, 66]),
    r=st.one_of(st.integers(1, 300), st.integers(1, 2**256 - 1), st.sampled_from([2**255, 2**248, 2**247])),
    s=st.one_of(st.integers(1, 300), st.integers(1, 2**256 - 1), st.sampled_from([2**255, 2**248, 2**247])),
)
def test_ecdsa_leaves_as_minimal_der(half: int, r: int, s: int) -> None:
    """r||s of fixed width becomes a SEQUENCE of two minimal INTEGERs: leading zeros go, a sign byte comes."""
    der = worlds_form(ECDSA, r.to_bytes(half) + s.to_bytes(half))
    assert der == DSASignature({"r": r, "s": s}).dump(force=True)
    assert utils.decode_dss_signature(der) == (r, s)


@pytest.mark.parametrize("raw", [b"", b"\x01", bytes(63), bytes(65), b"\1" * 65, bytes(32) + b"\1" * 32, b"\1" * 134])
def test_ecdsa_of_no_known_form_is_no_signature(raw: bytes) -> None:
    """What cannot be cut in two halves of a curve's length, neither zero, is refused, not guessed at."""
    with pytest.raises(WrongSignature):
        worlds_form(ECDSA, raw)


def test_other_signatures_leave_as_they_are() -> None:
    """RSA and Ed25519 signatures have one form only."""
    assert all(worlds_form(algorithm, b"\0raw") == b"\0raw" for algorithm in (RSA, PSS, EDDSA))


@pytest.mark.parametrize(
    ("curve", "order_bytes"),
    [(ec.SECP256R1(), 32), (ec.SECP384R1(), 48), (ec.SECP521R1(), 66)],
    ids=["P-256", "P-384", "P-521"],
)
@pytest.mark.parametrize("hash_", Hash)
def test_ecdsa_digest_is_cut_to_the_order(curve: ec.EllipticCurve, order_bytes: int, hash_: Hash) -> None:
    """FIPS 186-5, 6.4.1: a longer digest is cut to its leftmost bytes; the result is a signature of the whole one."""
    private = ec.generate_private_key(curve)
    value = digest(hash_)
    given = token_input(Algorithm(Scheme.ECDSA, hash_), spki(private), value)
    assert given == value[:order_bytes]
    # What a token does with its input: sign it as a number, without hashing.
    prehashed = {32: Hash.SHA256, 48: Hash.SHA384, 64: Hash.SHA512}[len(given)]
    der = private.sign(given, ec.ECDSA(utils.Prehashed(HASHES[prehashed])))
    private.public_key().verify(der, value, ec.ECDSA(utils.Prehashed(HASHES[hash_])))
    verify(Algorithm(Scheme.ECDSA, hash_), spki(private), value, der)


@pytest.mark.parametrize("hash_", Hash)
def test_verify_takes_what_cryptography_signs(hash_: Hash, rsa_key: rsa.RSAPrivateKey) -> None:
    """The verifier accepts PKCS#1 v1.5 and PSS signatures with the salt length of the hash."""
    value, prehashed = digest(hash_), utils.Prehashed(HASHES[hash_])
    pss = padding.PSS(padding.MGF1(HASHES[hash_]), HASHES[hash_].digest_size)
    verify(
        Algorithm(Scheme.RSA_PKCS1_V15, hash_), spki(rsa_key), value, rsa_key.sign(value, padding.PKCS1v15(), prehashed)
    )
    verify(Algorithm(Scheme.RSA_PSS, hash_), spki(rsa_key), value, rsa_key.sign(value, pss, prehashed))


@pytest.mark.parametrize("salt", [0, 20, 31, 33, padding.PSS.MAX_LENGTH])
def test_verify_refuses_another_salt_length(salt: int, rsa_key: rsa.RSAPrivateKey) -> None:
    """RFC 4055, 3.1: a salt of another length contradicts the parameters that the CMS will name."""
    value = digest(Hash.SHA256)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt)
    signature = rsa_key.sign(value, pss, utils.Prehashed(hashes.SHA256()))
    with pytest.raises(InvalidSignature):
        verify(PSS, spki(rsa_key), value, signature)


def test_verify_refuses_another_mask_hash(rsa_key: rsa.RSAPrivateKey) -> None:
    """PSS has one hash for the digest and the mask."""
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), 32)
    signature = rsa_key.sign(digest(Hash.SHA256), pss, utils.Prehashed(hashes.SHA256()))
    with pytest.raises(InvalidSignature):
        verify(PSS, spki(rsa_key), digest(Hash.SHA256), signature)


def test_verify_refuses_another_key_item_or_algorithm(rsa_key: rsa.RSAPrivateKey) -> None:
    """A signature belongs to one key, one item and one algorithm; one flipped bit is none."""
    value = digest(Hash.SHA256)
    other = spki(rsa.generate_private_key(65537, 2048))
    signature = rsa_key.sign(value, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))
    flipped = bytes([signature[0] ^ 1]) + signature[1:]
    for algorithm, key, item, claimed in (
        (RSA, other, value, signature),
        (RSA, spki(rsa_key), digest(Hash.SHA256, b"other"), signature),
        (PSS, spki(rsa_key), value, signature),
        (RSA, spki(rsa_key), value, flipped),
        (RSA, spki(rsa_key), value, signature[:-1]),
        (RSA, spki(rsa_key), value, b""),
    ):
        with pytest.raises(InvalidSignature):
            verify(algorithm, key, item, claimed)


@pytest.mark.parametrize("algorithm", [ECDSA, EDDSA], ids=str)
def test_verify_refuses_another_curve_key(algorithm: Algorithm) -> None:
    """The same for keys on curves."""
    if algorithm is ECDSA:
        mine, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        signature = mine.sign(digest(Hash.SHA256), ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    else:
        mine, other = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
        signature = mine.sign(digest(Hash.SHA256))
    verify(algorithm, spki(mine), digest(Hash.SHA256), signature)
    with pytest.raises(InvalidSignature):
        verify(algorithm, spki(other), digest(Hash.SHA256), signature)


def test_an_ecdsa_signature_of_zeros_is_refused() -> None:
    """A token that answers zeros has not signed (r and s are 1 to the order less 1)."""
    private = ec.generate_private_key(ec.SECP256R1())
    for raw in (bytes(64), bytes(32) + b"\1" * 32, P256_ORDER.to_bytes(32) * 2):
        with pytest.raises((InvalidSignature, WrongSignature)):
            verify(ECDSA, spki(private), digest(Hash.SHA256), worlds_form(ECDSA, raw))


def test_an_algorithm_has_a_hash_unless_it_is_ed25519() -> None:
    """No default: what is left out is refused, and so is what makes no sense."""
    for scheme in (Scheme.RSA_PKCS1_V15, Scheme.RSA_PSS, Scheme.ECDSA):
        with pytest.raises(ValueError, match="needs a digest algorithm"):
            Algorithm(scheme, None)
    with pytest.raises(ValueError, match="takes none"):
        Algorithm(Scheme.ED25519, Hash.SHA256)
    assert EDDSA.item_bytes is None
    assert [str(algorithm) for algorithm in (RSA, EDDSA)] == ["RSA_PKCS1_V15_SHA256", "ED25519"]


def test_kinds_and_what_they_can_be_asked_for(rsa_key: rsa.RSAPrivateKey) -> None:
    """Every kind of key has its name and its algorithms."""
    kinds = {
        "RSA-2048": (rsa_key, {Scheme.RSA_PKCS1_V15, Scheme.RSA_PSS}, 6),
        "P-256": (ec.generate_private_key(ec.SECP256R1()), {Scheme.ECDSA}, 3),
        "P-384": (ec.generate_private_key(ec.SECP384R1()), {Scheme.ECDSA}, 3),
        "P-521": (ec.generate_private_key(ec.SECP521R1()), {Scheme.ECDSA}, 3),
        "Ed25519": (ed25519.Ed25519PrivateKey.generate(), {Scheme.ED25519}, 1),
    }
    for name, (private, schemes, count) in kinds.items():
        assert key_type(spki(private)) == name
        possible = algorithms(spki(private))
        assert len(set(possible)) == len(possible) == count
        assert {algorithm.scheme for algorithm in possible} == schemes


@pytest.mark.parametrize(
    "private",
    [
        rsa.generate_private_key(65537, 1024),
        ec.generate_private_key(ec.SECP256K1()),
        ec.generate_private_key(ec.SECP224R1()),
        x25519.X25519PrivateKey.generate(),
    ],
    ids=["RSA-1024", "secp256k1", "P-224", "X25519"],
)
def test_other_kinds_of_key_are_refused(private: object) -> None:
    """Short RSA keys, other curves and keys that do not sign are named as what they are: refused."""
    with pytest.raises(KeyRefused, match="RSA of at least 2048 bits"):
        load_public_key(spki(private))


def test_what_is_no_key_is_refused() -> None:
    """Bytes that are no SubjectPublicKeyInfo raise ValueError, of which KeyRefused is one."""
    with pytest.raises(ValueError):
        load_public_key(b"\x30\x03abc")
