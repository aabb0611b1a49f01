"""What a token shows of its keys, whatever form it gives them: the SubjectPublicKeyInfo that everybody knows them by."""

import struct
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pkcs11 import Attribute, KeyType, ObjectClass
from pkcs11.exceptions import AttributeTypeInvalid, DeviceRemoved

from pool.shown import publics, spki_of
from tests.pool.test_mechanism import spki

CURVES = {
    ec.SECP256R1: "06082a8648ce3d030107",
    ec.SECP384R1: "06052b81040022",
    ec.SECP521R1: "06052b81040023",
}


class Public(dict[Attribute, Any]):
    """A public key object with these attributes."""

    id, label = b"", ""

    def __init__(self, key_type: KeyType, **attributes: bytes) -> None:
        super().__init__({Attribute[name]: value for name, value in attributes.items()})
        self.key_type = key_type


class Unreadable:
    """A public key object whose kind cannot be read."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    @property
    def key_type(self) -> KeyType:
        raise self._error


class Session:
    def __init__(self, *objects: Any) -> None:
        self._objects = objects

    def get_objects(self, where: dict[Attribute, Any]) -> tuple[Any, ...]:
        return self._objects if where[Attribute.CLASS] is ObjectClass.PUBLIC_KEY else ()


def octets(value: bytes) -> bytes:
    length = bytes((len(value),)) if len(value) < 0x80 else bytes((0x81, len(value)))
    return b"\x04" + length + value


def point(private: Any) -> bytes:
    form = (serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return private.public_key().public_bytes(*form)


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_a_point_with_and_without_its_wrapping(curve: type[ec.EllipticCurve]) -> None:
    """PKCS#11 v3.1, 6.3.3, and tokens that do not know it."""
    private, params = ec.generate_private_key(curve()), bytes.fromhex(CURVES[curve])
    for given in (point(private), octets(point(private))):
        assert spki_of(Public(KeyType.EC, EC_PARAMS=params, EC_POINT=given)) == spki(private)


def test_a_point_that_looks_wrapped() -> None:
    """One raw point in 256 begins like an OCTET STRING of the right length: its own length says what it is."""
    while (private := ec.generate_private_key(ec.SECP256R1())) and point(private)[1] != 0x3F:
        pass
    params = bytes.fromhex(CURVES[ec.SECP256R1])
    assert spki_of(Public(KeyType.EC, EC_PARAMS=params, EC_POINT=point(private))) == spki(private)


def test_rsa_and_ed25519() -> None:
    """With the modulus as PKCS#11 has it, without a sign."""
    private = rsa.generate_private_key(65537, 2048)
    modulus = private.public_key().public_numbers().n.to_bytes(256)
    assert spki_of(Public(KeyType.RSA, MODULUS=modulus, PUBLIC_EXPONENT=b"\1\0\1")) == spki(private)
    edwards = ed25519.Ed25519PrivateKey.generate()
    for given in (edwards.public_key().public_bytes_raw(), octets(edwards.public_key().public_bytes_raw())):
        assert spki_of(Public(KeyType.EC_EDWARDS, EC_POINT=given)) == spki(edwards)


@pytest.mark.parametrize(
    "public",
    [
        Public(KeyType.DSA),
        Public(KeyType.EC, EC_PARAMS=b"\x06\x01\x01", EC_POINT=b"\x04\x01\x01"),
        Public(KeyType.EC, EC_PARAMS=bytes.fromhex(CURVES[ec.SECP256R1]), EC_POINT=b"\x02" + bytes(32)),
        Public(KeyType.EC_EDWARDS, EC_POINT=bytes(57)),
    ],
)
def test_what_is_not_signed_with_is_passed_over(public: Public) -> None:
    """Other kinds, other curves, compressed points, Ed448: None, and no error over somebody else's key."""
    assert spki_of(public) is None


def test_what_cannot_be_read_is_passed_over() -> None:
    """A kind that only its vendor knows, of a wrong length, or none: the next key is shown. Of a card that is gone none is."""
    private = ed25519.Ed25519PrivateKey.generate()
    one = Public(KeyType.EC_EDWARDS, EC_POINT=private.public_key().public_bytes_raw())
    one.id, one.label = b"1", "one"
    errors = [ValueError("0x80000f01 is not a valid KeyType"), struct.error("requires 8 bytes"), AttributeTypeInvalid()]
    assert list(publics(Session(*map(Unreadable, errors), one))) == [(b"1", "one", spki(private))]
    with pytest.raises(DeviceRemoved):
        list(publics(Session(Unreadable(DeviceRemoved()), one)))
