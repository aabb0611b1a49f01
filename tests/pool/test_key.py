"""A key is its public half, and is found by CKA_ID or label."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from pool import Key
from pool.public import KeyRefused
from tests.pool.test_mechanism import spki


@pytest.fixture(scope="module")
def der() -> bytes:
    return spki(ec.generate_private_key(ec.SECP256R1()))


def test_the_reference_is_the_public_half_only(der: bytes) -> None:
    """Wherever a key sits and whatever it is called there, it is the same key."""
    refs = {Key(der, b"\1").ref, Key(der, label="x").ref, Key(der, b"\2", "y").ref}
    assert refs == {hashlib.sha256(der).hexdigest()}


def test_a_key_says_where_to_look(der: bytes) -> None:
    """Neither CKA_ID nor label is a mistake told at once."""
    with pytest.raises(ValueError, match="CKA_ID"):
        Key(der)


def test_only_keys_that_can_be_signed_with() -> None:
    """A kind the pool does not sign with is refused when the key is named, not when it is used."""
    with pytest.raises(KeyRefused):
        Key(spki(ec.generate_private_key(ec.SECP256K1())), b"\1")
    with pytest.raises(ValueError):
        Key(b"no key", b"\1")


def test_a_key_does_not_change(der: bytes) -> None:
    """It is looked up by its reference everywhere."""
    key = Key(der, b"\1")
    with pytest.raises(AttributeError):
        key.ref = "other"
    assert key == Key(der, b"\1")
    assert key != Key(der, b"\2")
