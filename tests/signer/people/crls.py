"""CRLs for tests: of a real CA, made by `cryptography` where it makes them, and byte by byte where it does not."""

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from signer.crl import NO_NUMBER
from tests.pki import Authority

HOUR = timedelta(hours=1)
BEGIN = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
ECDSA_SHA256, ECDSA_SHA1 = "2a8648ce3d040302", "2a8648ce3d0401"
Reasons = Mapping[int, x509.ReasonFlags | None]
Extensions = Iterable[tuple[x509.ExtensionType, bool]]
HELD = x509.ReasonFlags.certificate_hold


def crl(
    ca: Authority,
    revoked: Reasons | None = None,
    *,
    number: int = 1,
    begins: datetime = BEGIN,
    ends: datetime = BEGIN + 24 * HOUR,
    key: Any = None,
    name: x509.Name | None = None,
    more: Extensions = (),
    entry: Extensions = (),
) -> bytes:
    """The DER of a list with these serial numbers; `more` are extensions of it, `entry` of each of its entries."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(name or ca.name)
    builder = builder.last_update(begins).next_update(ends)
    if number != NO_NUMBER:
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    for extension, critical in more:
        builder = builder.add_extension(extension, critical)
    for serial, reason in (revoked or {}).items():
        one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(begins)
        if reason is not None:
            one = one.add_extension(x509.CRLReason(reason), critical=False)
        for extension, critical in entry:
            one = one.add_extension(extension, critical)
        builder = builder.add_revoked_certificate(one.build())
    key = key or ca.key
    hash_ = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, hash_).public_bytes(Encoding.DER)


def tlv(tag: int, content: bytes) -> bytes:
    """DER of one value (X.690, 8.1)."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def oid(hexadecimal: str) -> bytes:
    return tlv(0x06, bytes.fromhex(hexadecimal))


def moment(when: datetime) -> bytes:
    return tlv(0x17, when.strftime("%y%m%d%H%M%SZ").encode())


def entry(serial: bytes) -> bytes:
    """An entry whose serial number has this content, with the reason keyCompromise."""
    reason = tlv(0x30, oid("551d15") + tlv(0x04, tlv(0x0A, b"\1")))
    return tlv(0x30, tlv(0x02, serial) + moment(BEGIN) + tlv(0x30, reason))


def raw_crl(
    ca: Authority,
    entries: Iterable[bytes] = (),
    *,
    number: bytes = b"\1",
    ends: datetime | None = BEGIN + 24 * HOUR,
    algorithm: str = ECDSA_SHA256,
) -> bytes:
    """The same by hand: `entries` and `number` as they are encoded, perhaps no nextUpdate, another algorithm."""
    signed_by = tlv(0x30, oid(algorithm))
    listed = b"".join(entries)
    tbs = tlv(
        0x30,
        tlv(0x02, b"\1") + signed_by + ca.name.public_bytes() + moment(BEGIN)
        + (moment(ends) if ends else b"")
        + (tlv(0x30, listed) if listed else b"")
        + tlv(0xA0, tlv(0x30, tlv(0x30, oid("551d14") + tlv(0x04, tlv(0x02, number))))),
    )  # fmt: skip
    hash_ = hashes.SHA1() if algorithm == ECDSA_SHA1 else hashes.SHA256()
    return tlv(0x30, tbs + signed_by + tlv(0x03, b"\0" + ca.key.sign(tbs, ec.ECDSA(hash_))))


def long_crl(ca: Authority, count: int) -> bytes:
    """A list of so many certificates, with serial numbers of 20 bytes: 53 bytes each."""
    start, end = entry(b"\1" * 20).split(b"\1" * 20)
    numbers = os.urandom(19 * count)
    return raw_crl(ca, (start + b"\1" + numbers[at : at + 19] + end for at in range(0, len(numbers), 19)))
