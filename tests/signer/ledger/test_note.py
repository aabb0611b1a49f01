"""Checkpoints: signed by each kind of key, read back, and refused when one byte is another."""

import base64
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from signer import note
from signer.note import NOTHING, Checkpoint, Head, Note, NoteError, parse, sign

OWN = Head("ab" * 16, 3, 44, b"\1" * 32)
OTHERS = (Head("0c" * 16, 12, 1, b"\2" * 32), Head("0d" * 16, 5, 6, b"\3" * 32))
FIRST = Checkpoint(1, datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC), NOTHING, OWN, OTHERS)
SECOND = Checkpoint(2, datetime(2026, 5, 4, 3, 3, 1, tzinfo=UTC), FIRST.hash, OWN)
Make = Callable[[bytes], bytes]


def _ecdsa(curve: ec.EllipticCurve, hash_: hashes.HashAlgorithm) -> tuple[bytes, Make]:
    key = ec.generate_private_key(curve)
    return _spki(key), lambda digest: key.sign(digest, ec.ECDSA(utils.Prehashed(hash_)))


def _rsa() -> tuple[bytes, Make]:
    key = rsa.generate_private_key(65537, 2048)
    return _spki(key), lambda digest: key.sign(digest, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))


def _ed25519() -> tuple[bytes, Make]:
    key = ed25519.Ed25519PrivateKey.generate()
    return _spki(key), key.sign


def _spki(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


KEYS = {
    "ED25519": _ed25519(),
    "ECDSA-SHA256": _ecdsa(ec.SECP256R1(), hashes.SHA256()),
    "ECDSA-SHA384": _ecdsa(ec.SECP384R1(), hashes.SHA384()),
    "ECDSA-SHA512": _ecdsa(ec.SECP521R1(), hashes.SHA512()),
    "RSA-SHA256": _rsa(),
}


def signed(checkpoint: Checkpoint = FIRST, algorithm: str = "ED25519") -> Note:
    spki, make = KEYS[algorithm]
    return sign(checkpoint, spki, algorithm, make)


@pytest.mark.parametrize("algorithm", KEYS)
def test_round_trip(algorithm: str) -> None:
    """Each kind of key: what is signed is read back as it was, and is the key's."""
    notes = [signed(FIRST, algorithm), signed(SECOND, algorithm)]
    found = list(parse("".join(map(str, notes))))
    assert [each.checkpoint.number for each in found] == [1, 2]
    assert list(map(str, found)) == list(map(str, notes))
    assert found[1].checkpoint.previous == found[0].checkpoint.hash
    for each in found:
        each.check(KEYS[algorithm][0])
    assert set(KEYS) == set(note.ALGORITHMS)


def test_text() -> None:
    """The text is that of the format, the daemon's own head first, the others in the order of their instances."""
    assert FIRST.text.splitlines() == [
        "paraph-checkpoint-v1",
        "1",
        "2026-05-04T03:02:01Z",
        "0" * 64,
        f"{'ab' * 16} 3 44 {'01' * 32}",
        f"{'0c' * 16} 12 1 {'02' * 32}",
        f"{'0d' * 16} 5 6 {'03' * 32}",
    ]
    assert str(signed()).startswith(f"{FIRST.text}\n")
    assert str(signed()).endswith("=\n\n")


@pytest.mark.parametrize("algorithm", KEYS)
def test_another_key(algorithm: str) -> None:
    """A signature by another key is refused, under its own name and under this one's."""
    spki, _ = KEYS[algorithm]
    for other in (_ed25519(), _ecdsa(ec.SECP256R1(), hashes.SHA256())):
        name = "ED25519" if len(other[0]) < 50 else "ECDSA-SHA256"
        made = sign(FIRST, other[0], name, other[1])
        with pytest.raises(NoteError, match="is signed by key"):
            made.check(spki)
        with pytest.raises(NoteError, match=r"signature of checkpoint 1 is wrong|which its key cannot make"):
            replace(made, key=note.key_id(spki)).check(spki)


@pytest.mark.parametrize("algorithm", KEYS)
@pytest.mark.parametrize("name", KEYS)
def test_another_algorithm(algorithm: str, name: str) -> None:
    """A signature counts only under the algorithm that made it; a name that the key has no use for is an error of the note."""
    made = replace(signed(FIRST, algorithm), algorithm=name)
    if name == algorithm:
        made.check(KEYS[algorithm][0])
    else:
        with pytest.raises(NoteError):
            made.check(KEYS[algorithm][0])


@pytest.mark.parametrize("algorithm", KEYS)
def test_every_byte_counts(algorithm: str) -> None:
    """No byte of a note can be another: it is no note then, or none of this key's."""
    text = str(signed(FIRST, algorithm))
    rng = random.Random(0)
    for index in range(len(text)):
        for other in rng.sample("0123456789abcdefABC \n=+/Z-:", 3):
            if other == text[index]:
                continue
            with pytest.raises(NoteError):
                for each in parse(text[:index] + other + text[index + 1 :]):
                    each.check(KEYS[algorithm][0])


def test_a_file_cut_off() -> None:
    """A file that ends within a note is refused; at an end of one it has fewer."""
    text = str(signed()) + str(signed(SECOND))
    whole = {0, len(str(signed())), len(text)}
    for length in range(len(text) + 1):
        if length in whole:
            assert len(list(parse(text[:length]))) == sorted(whole).index(length)
        else:
            with pytest.raises(NoteError):
                list(parse(text[:length]))


GOOD = str(signed())
BODY, SEAL, _ = GOOD.split("\n\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"\n{GOOD}", "begins with"),
        (GOOD.replace("v1", "v2"), "begins with"),
        ("a\n\nb\n\nc\n\n", "in the middle"),
        ("a\n\nb\n\n", "no signature"),
        (GOOD.replace("\n1\n", "\n0\n"), "a checkpoint is not in its one form"),
        (GOOD.replace("\n1\n", "\n01\n"), "a checkpoint is not in its one form"),
        (GOOD.replace("\n1\n", "\n-1\n"), "a checkpoint is not in its one form"),
        (GOOD.replace("\n1\n", "\n1_0\n"), "a checkpoint is not in its one form"),
        (GOOD.replace("\n1\n", f"\n{10**18}\n"), "a checkpoint is not in its one form"),
        (GOOD.replace("\n1\n", "\none\n"), "number, time or previous hash"),
        (GOOD.replace("03:02:01Z", "03:02:01"), "number, time or previous hash"),
        (GOOD.replace("2026-05", "2026-5"), "a checkpoint is not in its one form"),
        (GOOD.replace("0" * 64, "0" * 63), "number, time or previous hash"),
        (GOOD.replace("0" * 64, "0" * 62), "a checkpoint is not in its one form"),
        (GOOD.replace(" 12 1 ", " 12 01 "), "names no chain"),
        (GOOD.replace(" 12 1 ", " 12 0 "), "names no chain"),
        (GOOD.replace(" 12 1 ", " 12  1 "), "names no chain"),
        (GOOD.replace("ab" * 16, "AB" * 16), "names no chain"),
        (GOOD.replace("0d" * 16, "0b" * 16), "a checkpoint is not in its one form"),
        ("".join(f"{line}\n" for line in BODY.split("\n")[:4]) + f"\n{SEAL}\n\n", "at least one chain"),
        (GOOD.replace("ab" * 16, "0c" * 16).replace(" 3 44 ", " 13 44 "), "a checkpoint is not in its one form"),
        (GOOD.replace("ED25519", "ED448"), "no signature of a kind"),
        (f"{BODY}\n\n{SEAL} x\n\n", "no signature of a kind"),
        (f"{BODY}\n\nx{SEAL[1:]}\n\n", "signature of checkpoint 1 is not in its one form"),
        (f"{BODY}\n\n{SEAL[:-1]}\n\n", "not base64"),
        (f"{BODY}\n\n{SEAL}*\n\n", "not base64"),
        (GOOD.replace("\n", "\r\n"), "in the middle"),
    ],
)
def test_malformed(text: str, said: str) -> None:
    """What is no checkpoint in its one form is refused, and why is said."""
    with pytest.raises(NoteError, match=said):
        list(parse(text))


def test_one_signature_has_one_spelling() -> None:
    """Base64 whose last character has bits that are not used would be the same signature."""
    made = replace(signed(), signature=bytes(64))
    spelt = base64.b64encode(bytes(64)).decode()
    assert spelt in str(made)
    with pytest.raises(NoteError, match="one form"):
        list(parse(str(made).replace(spelt, spelt.replace("A==", "B=="))))
