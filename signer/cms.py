"""
CMS signatures (RFC 5652) of the ETSI B-B levels, spliced from a template.

Everything that is the same for all signatures of a credential, an algorithm and a profile is encoded once, with
asn1crypto. A signature then costs a few concatenations: digest, time and signature go between constant bytes, and the
lengths round them are written anew.

The profiles, line by line:
- content-type and message-digest (RFC 5652, 11.1 and 11.2);
- signing-certificate-v2 (RFC 5035) with the hash of the signer's certificate: EN 319 122-1, 5.2.2; EN 319 142-1, 6.3;
- CAdES only, signing-time (EN 319 122-1, 5.2.1): PAdES carries the time as /M and forbids the attribute (6.3 m);
- the chain without its root (EN 319 122-1, 6.3: all but the trust anchor);
- digestAlgorithm without parameters (RFC 5754, 2), for which asn1crypto would write NULL;
- RSASSA-PSS with explicit parameters, one hash for both uses, the salt as long as it (RFC 4056);
- SET OF in DER order (X.690, 11.6), whatever the lengths.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache, lru_cache

from asn1crypto import algos, cms, core, tsp, x509

from pool import Algorithm, Hash, Scheme

_SEQUENCE, _SET, _OCTET_STRING, _CONTEXT_0 = 0x30, 0x31, 0x04, 0xA0
_OID_SIGNED_DATA = core.ObjectIdentifier("1.2.840.113549.1.7.2").dump()
_OID_DATA = core.ObjectIdentifier("1.2.840.113549.1.7.1").dump()
_OID_MESSAGE_DIGEST = core.ObjectIdentifier("1.2.840.113549.1.9.4").dump()
_OID_SIGNING_TIME = core.ObjectIdentifier("1.2.840.113549.1.9.5").dump()
_VERSION_1 = core.Integer(1).dump()  # RFC 5652, 5.1 and 5.3: X.509 certificates, issuerAndSerialNumber, id-data
_UTC_TIME_YEARS = range(1950, 2050)  # RFC 5652, 11.3


class Profile(StrEnum):
    CADES_B_B = "CADES_B_B"
    PADES_B_B = "PADES_B_B"


def header(tag: int, length: int) -> bytes:
    """Tag and length of a DER value (X.690, 8.1.3)."""
    if length < 0x80:
        return bytes((tag, length))
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size)


def tlv(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return header(tag, len(body)) + body


@dataclass(frozen=True, slots=True)
class Attributes:
    """Signed attributes: what is hashed and signed (`der`, with the SET tag), and their body for the CMS."""

    body: bytes

    @property
    def der(self) -> bytes:
        """RFC 5652, 5.4: the signature is over the SET OF, not over its [0] form."""
        return tlv(_SET, self.body)


class Template:
    """
    The constant parts for one certificate chain (DER, the signer's first), algorithm and profile.

    `digest` is the hash of message-digest: the algorithm's own, and SHA-512 for Ed25519 (RFC 8419, 3.1).
    """

    def __init__(self, certificates: Sequence[bytes], algorithm: Algorithm, profile: Profile) -> None:
        self.digest = algorithm.hash or Hash.SHA512
        self.digest_bytes = hashlib.new(self.digest.value).digest_size
        self._profile = profile
        identifier, signature_bytes_max = _signer(certificates[0])
        digest_algorithm = tlv(_SEQUENCE, _digest_algorithm(self.digest))
        self._constant_attributes = (_content_type(), _signing_certificate_v2(certificates[0]))
        chain = [der for der in certificates if not _is_root(der)] or [certificates[0]]
        self._data_head = _VERSION_1 + tlv(_SET, digest_algorithm)
        self._certificates = tlv(_CONTEXT_0, *sorted(set(chain)))
        self._signer_head = _VERSION_1 + identifier + digest_algorithm
        self._signature_algorithm = _signature_algorithm(algorithm)
        longest = self.attributes(bytes(self.digest_bytes), datetime(2050, 1, 1, tzinfo=UTC))
        self.bytes_max = len(self.detached(longest, bytes(signature_bytes_max)))

    def attributes(self, content_digest: bytes, signing_time: datetime | None) -> Attributes:
        """The signed attributes over a content; `signing_time` is for CAdES, and left out of PAdES."""
        parts = [
            *self._constant_attributes,
            tlv(_SEQUENCE, _OID_MESSAGE_DIGEST, tlv(_SET, tlv(_OCTET_STRING, content_digest))),
        ]
        if self._profile is Profile.CADES_B_B:
            if signing_time is None:
                raise ValueError("CAdES B-B has a signing-time")
            parts.append(_signing_time(signing_time.astimezone(UTC).replace(microsecond=0)))
        return Attributes(b"".join(sorted(parts)))

    def signed_digest(self, attributes: Attributes) -> bytes:
        """What the key signs: the attributes' hash; for Ed25519 the attributes themselves."""
        if self._signature_algorithm == _ED25519:
            return attributes.der
        return hashlib.new(self.digest.value, attributes.der).digest()

    def detached(self, attributes: Attributes, signature: bytes) -> bytes:
        """The CMS without its content, DER."""
        head, tail = self._frame(attributes, signature, tlv(_SEQUENCE, _OID_DATA), 0)
        return head + tail

    def enveloping(self, attributes: Attributes, signature: bytes, content_bytes: int) -> tuple[bytes, bytes]:
        """What stands before and behind `content_bytes` bytes of content, so that the whole is one DER CMS."""
        octets = header(_OCTET_STRING, content_bytes)
        explicit = header(_CONTEXT_0, len(octets) + content_bytes) + octets
        info = header(_SEQUENCE, len(_OID_DATA) + len(explicit) + content_bytes) + _OID_DATA + explicit
        return self._frame(attributes, signature, info, content_bytes)

    def _frame(self, attributes: Attributes, signature: bytes, info: bytes, content_bytes: int) -> tuple[bytes, bytes]:
        signer_info = tlv(
            _SEQUENCE,
            self._signer_head,
            tlv(_CONTEXT_0, attributes.body),
            self._signature_algorithm,
            tlv(_OCTET_STRING, signature),
        )
        tail = self._certificates + tlv(_SET, signer_info)
        length = len(self._data_head) + len(info) + content_bytes + len(tail)
        data_header = header(_SEQUENCE, length)
        explicit = header(_CONTEXT_0, len(data_header) + length)
        outer = header(_SEQUENCE, len(_OID_SIGNED_DATA) + len(explicit) + len(data_header) + length)
        return outer + _OID_SIGNED_DATA + explicit + data_header + self._data_head + info, tail


# What is the same for many templates is encoded once: asn1crypto takes milliseconds for it, and thousands of credentials may
# be listed after a start.


@lru_cache(maxsize=16)  # the templates of one credential are made one after the other
def _signer(certificate: bytes) -> tuple[bytes, int]:
    """Its identifier, and the longest signature that its key makes."""
    signer = x509.Certificate.load(certificate)
    identifier = cms.IssuerAndSerialNumber({"issuer": signer.issuer, "serial_number": signer.serial_number})
    return identifier.dump(), _signature_bytes_max(signer)


@cache
def _digest_algorithm(digest: Hash) -> bytes:
    encoded: bytes = algos.DigestAlgorithmId(digest.value.lower()).dump()
    return encoded


@cache
def _content_type() -> bytes:
    attribute: bytes = cms.CMSAttribute({"type": "content_type", "values": ["data"]}).dump()
    return attribute


def _signing_certificate_v2(certificate: bytes) -> bytes:
    """RFC 5035, 4: SHA-256 is the default hash and is therefore left out in DER. The certificate's hash stands at the end."""
    return _before_certificate_hash() + hashlib.sha256(certificate).digest()


@cache
def _before_certificate_hash() -> bytes:
    identifier = tsp.ESSCertIDv2({"cert_hash": bytes(hashlib.sha256().digest_size)})
    value = tsp.SigningCertificateV2({"certs": [identifier]})
    attribute: bytes = cms.CMSAttribute({"type": "signing_certificate_v2", "values": [value]}).dump()
    return attribute[: -hashlib.sha256().digest_size]


@lru_cache(maxsize=256)  # issuers: of many credentials they are the same
def _is_root(der: bytes) -> bool:
    certificate = x509.Certificate.load(der)
    return bool(certificate.issuer == certificate.subject)


@lru_cache(maxsize=64)  # requests in work: all digests of one have the same time
def _signing_time(moment: datetime) -> bytes:
    """The attribute; `moment` is in UTC and has whole seconds, so that equal ones are written alike."""
    kind = core.UTCTime if moment.year in _UTC_TIME_YEARS else core.GeneralizedTime
    return tlv(_SEQUENCE, _OID_SIGNING_TIME, tlv(_SET, kind(moment).dump()))


@cache
def _signature_algorithm(algorithm: Algorithm) -> bytes:
    encoded: bytes = _signed_digest_algorithm(algorithm).dump()
    return encoded


def _signed_digest_algorithm(algorithm: Algorithm) -> algos.SignedDigestAlgorithm:
    if algorithm.scheme is Scheme.ED25519:
        return algos.SignedDigestAlgorithm({"algorithm": "ed25519"})
    assert algorithm.hash is not None
    name = algorithm.hash.value.lower()
    if algorithm.scheme is Scheme.ECDSA:
        return algos.SignedDigestAlgorithm({"algorithm": f"{name}_ecdsa"})
    if algorithm.scheme is Scheme.RSA_PKCS1_V15:
        return algos.SignedDigestAlgorithm({"algorithm": f"{name}_rsa", "parameters": core.Null()})
    hash_algorithm = algos.DigestAlgorithm({"algorithm": name})
    parameters = algos.RSASSAPSSParams(
        {
            "hash_algorithm": hash_algorithm,
            "mask_gen_algorithm": algos.MaskGenAlgorithm({"algorithm": "mgf1", "parameters": hash_algorithm}),
            "salt_length": hashlib.new(name).digest_size,
        }
    )
    return algos.SignedDigestAlgorithm({"algorithm": "rsassa_pss", "parameters": parameters})


_ED25519 = algos.SignedDigestAlgorithm({"algorithm": "ed25519"}).dump()


def _signature_bytes_max(certificate: x509.Certificate) -> int:
    """The longest signature that the certificate's key makes."""
    key = certificate.public_key
    if key.algorithm == "rsa":
        return int(key.byte_size)
    if key.algorithm == "ec":
        return 2 * (int(key.byte_size) + 3) + 3  # two INTEGERs with a leading zero each, in a SEQUENCE
    return 64
