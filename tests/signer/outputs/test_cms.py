"""
The CMS that is spliced from a template, against the same CMS encoded by asn1crypto from plain values.

The reference below says what a CMS holds in the words of RFC 5652 and leaves every byte to asn1crypto.
"""

import hashlib
from datetime import UTC, datetime, timedelta, timezone
from random import Random
from typing import Any, ClassVar

import pytest
from asn1crypto import algos, cms, core, tsp, x509
from cryptography.hazmat.primitives.asymmetric import utils
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pool import Algorithm, Hash, Scheme
from signer.cms import Profile, Template, header
from tests.signer.outputs.certificates import BALLAST_BYTES, Chain, chain

HASHES = {Hash.SHA256: "sha256", Hash.SHA384: "sha384", Hash.SHA512: "sha512"}
KEYS = {
    Scheme.RSA_PKCS1_V15: ("RSA-2048",),
    Scheme.RSA_PSS: ("RSA-2048",),
    Scheme.ECDSA: ("P-256", "P-384", "P-521"),
    Scheme.ED25519: ("Ed25519",),
}
# A length's own length changes here: X.690, 8.1.3.
EDGES = (0, 1, 126, 127, 128, 129, 254, 255, 256, 257, 65_534, 65_535, 65_536)
ALGORITHMS = st.one_of(
    st.just(Algorithm(Scheme.ED25519, None)),
    st.builds(
        Algorithm, st.sampled_from([Scheme.RSA_PKCS1_V15, Scheme.RSA_PSS, Scheme.ECDSA]), st.sampled_from(list(Hash))
    ),
)
# UTCTime ends with 2049: RFC 5652, 11.3.
TIMES = st.one_of(
    st.datetimes(datetime(1950, 1, 1), datetime(2049, 12, 31, 23, 59, 59), timezones=st.just(UTC)),  # noqa: DTZ001
    st.datetimes(datetime(2050, 1, 1), datetime(9998, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.sampled_from([datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)]),
)
# Without shrinking: a smaller failing length tells nothing, and the long ones take their time.
PHASES = (Phase.explicit, Phase.generate)
LENGTHS = st.one_of(st.sampled_from(EDGES), st.integers(0, 600))


@st.composite
def chains(draw: Any, algorithm: Algorithm) -> Chain:
    return chain(
        draw(st.sampled_from(KEYS[algorithm.scheme])),
        draw(st.integers(1, 4)),
        rooted=draw(st.booleans()),
        ballast=draw(st.sampled_from(BALLAST_BYTES)),
        serial=draw(st.sampled_from([1, 127, 128, 2**159 - 1])),
    )


def sizes(data: Any, length: int) -> bytes:
    """So many bytes that are not all the same."""
    start = data.draw(st.integers(0, 255))
    return bytes((start + place) % 256 for place in range(length))


def encoded(value: Any) -> Any:
    """The value as asn1crypto reads back what it has written: it encodes one level at a time, or takes seconds."""
    return type(value).load(value.dump())


class _Bare(core.Sequence):
    """An AlgorithmIdentifier without parameters; asn1crypto's own class for digests always writes NULL."""

    _fields: ClassVar = [("algorithm", algos.DigestAlgorithmId)]


def signature_algorithm(algorithm: Algorithm) -> algos.SignedDigestAlgorithm:
    if algorithm.scheme is Scheme.ED25519:
        return algos.SignedDigestAlgorithm({"algorithm": "ed25519"})
    name = HASHES[algorithm.hash]
    if algorithm.scheme is Scheme.ECDSA:
        return algos.SignedDigestAlgorithm({"algorithm": f"{name}_ecdsa"})
    if algorithm.scheme is Scheme.RSA_PKCS1_V15:
        return algos.SignedDigestAlgorithm({"algorithm": f"{name}_rsa"})
    parameters = {
        "hash_algorithm": {"algorithm": name},
        "mask_gen_algorithm": {"algorithm": "mgf1", "parameters": {"algorithm": name}},
        "salt_length": hashlib.new(name).digest_size,
    }
    return algos.SignedDigestAlgorithm(
        {"algorithm": "rsassa_pss", "parameters": encoded(algos.RSASSAPSSParams(parameters))}
    )


def attributes_of(certificate: bytes, digest: bytes, time: datetime | None) -> cms.CMSAttributes:
    identifier = encoded(tsp.ESSCertIDv2({"cert_hash": hashlib.sha256(certificate).digest()}))
    attributes = [
        {
            "type": "signing_certificate_v2",
            "values": [encoded(tsp.SigningCertificateV2({"certs": [identifier]}))],
        },
        {"type": "message_digest", "values": [digest]},
        {"type": "content_type", "values": ["data"]},
    ]
    if time is not None:
        kind = "utc_time" if time.year < 2050 else "generalized_time"
        attributes.append({"type": "signing_time", "values": [cms.Time({kind: time})]})
    return encoded(cms.CMSAttributes([encoded(cms.CMSAttribute(each)) for each in attributes]))


def reference(
    made: Chain, algorithm: Algorithm, digest: bytes, time: datetime | None, signature: bytes, content: bytes | None
) -> cms.ContentInfo:
    """The whole CMS from native values; asn1crypto puts its SETs in order."""
    bare = _Bare({"algorithm": HASHES[algorithm.hash or Hash.SHA512]})
    digest_algorithm = algos.DigestAlgorithm.load(bare.dump())
    inside = [x509.Certificate.load(der) for der in made.ders]
    if made.rooted and len(inside) > 1:
        inside.pop()
    signer = inside[0]
    name = cms.IssuerAndSerialNumber({"issuer": signer.issuer, "serial_number": signer.serial_number})
    signer_info = cms.SignerInfo(
        {
            "version": "v1",
            "sid": cms.SignerIdentifier("issuer_and_serial_number", encoded(name)),
            "digest_algorithm": digest_algorithm,
            "signed_attrs": attributes_of(made.ders[0], digest, time),
            "signature_algorithm": encoded(signature_algorithm(algorithm)),
            "signature": signature,
        }
    )
    info: dict[str, Any] = {"content_type": "data"}
    if content is not None:
        info["content"] = content
    data = cms.SignedData(
        {
            "version": "v1",
            "digest_algorithms": [digest_algorithm],
            "encap_content_info": encoded(cms.ContentInfo(info)),
            "certificates": [cms.CertificateChoices("certificate", each) for each in inside],
            "signer_infos": [encoded(signer_info)],
        }
    )
    return cms.ContentInfo({"content_type": "signed_data", "content": encoded(data)})


def parsed(der: bytes) -> cms.SignedData:
    """Strictly: nothing may follow, and every value must be of its type."""
    info = cms.ContentInfo.load(der, strict=True)
    assert info["content_type"].native == "signed_data"
    return info["content"]


@given(st.data())
@settings(max_examples=150, deadline=None, derandomize=True, phases=PHASES)
def test_byte_for_byte_what_asn1crypto_encodes(data: Any) -> None:
    """Every CMS, detached or enveloping, is byte for byte what asn1crypto encodes from the same values (RFC 5652)."""
    algorithm = data.draw(ALGORITHMS)
    made = data.draw(chains(algorithm))
    profile = data.draw(st.sampled_from(Profile))
    time = data.draw(TIMES).replace(microsecond=0)
    template = Template(made.ders, algorithm, profile)
    digest = sizes(data, data.draw(st.sampled_from([template.digest_bytes, 20, 28, *EDGES])))
    signature = sizes(data, data.draw(LENGTHS))
    attributes = template.attributes(digest, time)
    shown = time if profile is Profile.CADES_B_B else None

    detached = template.detached(attributes, signature)
    assert detached == reference(made, algorithm, digest, shown, signature, None).dump()

    content = sizes(data, data.draw(LENGTHS))
    head, tail = template.enveloping(attributes, signature, len(content))
    whole = head + content + tail
    assert whole == reference(made, algorithm, digest, shown, signature, content).dump()

    (signer,) = parsed(detached)["signer_infos"]
    assert signer["signature"].native == signature
    assert {each["type"].native: each["values"].native[0] for each in signer["signed_attrs"]}[
        "message_digest"
    ] == digest
    assert parsed(detached)["encap_content_info"]["content"].native is None
    assert parsed(whole)["encap_content_info"]["content"].native == content
    # RFC 5652, 5.4: what is signed is the SET OF, a tag apart from what stands in the CMS.
    assert signer["signed_attrs"].untag().dump() == attributes.der


@pytest.mark.parametrize(
    "algorithm",
    [
        Algorithm(Scheme.ED25519, None),
        *(Algorithm(scheme, digest) for scheme in list(Scheme)[:3] for digest in Hash),
    ],
    ids=str,
)
def test_byte_for_byte_when_all_is_encoded_anew(algorithm: Algorithm) -> None:
    """
    The same with asn1crypto forced to encode every value anew, the certificates' too: they are DER as they came.

    It takes long, so each algorithm has one turn.
    """
    made = chain(KEYS[algorithm.scheme][-1], 3, rooted=False)
    template = Template(made.ders, algorithm, Profile.CADES_B_B)
    time = datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)
    hashed, signature, content = bytes(template.digest_bytes), bytes(range(200)), bytes(65_536)
    head, tail = template.enveloping(template.attributes(hashed, time), signature, len(content))
    expected = reference(made, algorithm, hashed, time, signature, content).dump(force=True)
    assert head + content + tail == expected


@given(st.data())
@settings(max_examples=60, deadline=None, derandomize=True, phases=PHASES)
def test_bytes_max_is_a_tight_bound(data: Any) -> None:
    """`bytes_max` is never below a CMS that the key can make, and at most a few bytes above the longest."""
    algorithm = data.draw(ALGORITHMS)
    made = data.draw(chains(algorithm))
    profile = data.draw(st.sampled_from(Profile))
    template = Template(made.ders, algorithm, profile)
    longest = 0
    for time in (data.draw(TIMES), datetime(2050, 1, 1, tzinfo=UTC)):
        attributes = template.attributes(bytes(template.digest_bytes), time)
        for signature in signatures_of(made):
            longest = max(longest, len(template.detached(attributes, signature)))
    assert longest <= template.bytes_max <= longest + 8


def signatures_of(made: Chain) -> list[bytes]:
    """Of the least and of the greatest length that a key can make."""
    key = made.key
    if made.kind.startswith("RSA"):
        return [bytes(key.key_size // 8)]
    if made.kind == "Ed25519":
        return [bytes(64)]
    greatest = (1 << key.curve.key_size) - 1
    return [utils.encode_dss_signature(1, 1), utils.encode_dss_signature(greatest, greatest)]


@pytest.mark.parametrize("length", EDGES)
def test_header_is_der(length: int) -> None:
    """A length takes the fewest bytes that hold it: X.690, 10.1."""
    assert header(0x04, length) + bytes(length) == core.OctetString(bytes(length)).dump()


def test_greatest_content_needs_no_memory() -> None:
    """A header of the longest document is written from its length alone, and is right: 128 MiB inside a CMS."""
    template = Template(chain("P-256").ders, Algorithm(Scheme.ECDSA, Hash.SHA256), Profile.CADES_B_B)
    size = 128 * 1024 * 1024
    attributes = template.attributes(bytes(32), datetime(2026, 1, 1, tzinfo=UTC))
    head, tail = template.enveloping(attributes, bytes(70), size)
    assert len(head) < 100
    outer = int.from_bytes(head[2:6])
    assert head[:2] == b"\x30\x84"
    assert outer + 6 == len(head) + size + len(tail)


def test_a_template_is_not_used_up() -> None:
    """One template makes any number of signatures, and one leaves no trace in the next."""
    template = Template(chain("P-256").ders, Algorithm(Scheme.ECDSA, Hash.SHA256), Profile.CADES_B_B)
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def make(number: int) -> bytes:
        attributes = template.attributes(bytes([number]) * 32, now + timedelta(seconds=number))
        return template.detached(attributes, bytes([number]) * 70)

    assert make(1) != make(2)
    assert make(1) == make(1)


def test_time_is_written_in_utc_and_whole_seconds() -> None:
    """A time of another zone is the same moment in UTC, without fractions: X.690, 11.7 and 11.8."""
    template = Template(chain("P-256").ders, Algorithm(Scheme.ECDSA, Hash.SHA256), Profile.CADES_B_B)
    local = datetime(2026, 7, 1, 14, 30, 15, 999_999, tzinfo=timezone(timedelta(hours=5)))
    utc = datetime(2026, 7, 1, 9, 30, 15, tzinfo=UTC)
    assert template.attributes(bytes(32), local) == template.attributes(bytes(32), utc)


ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5)), timezone(timedelta(hours=-11, minutes=-30))])


@given(st.lists(st.tuples(st.datetimes(datetime(1950, 1, 2), datetime(9998, 1, 1)), ZONES), max_size=20), st.randoms())  # noqa: DTZ001
@settings(max_examples=50, deadline=None, derandomize=True, phases=PHASES)
def test_a_time_is_its_own(drawn: list[tuple[datetime, timezone]], order: Random) -> None:
    """Whatever times came before, and whether it is new: the one that is asked for, as asn1crypto encodes it."""
    made = chain("P-256")
    template = Template(made.ders, Algorithm(Scheme.ECDSA, Hash.SHA256), Profile.CADES_B_B)
    times = [naive.replace(tzinfo=zone) for naive, zone in drawn]
    for time in order.sample(2 * times, 2 * len(times)):
        shown = time.astimezone(UTC).replace(microsecond=0)
        attributes = template.attributes(bytes(32), time)
        assert attributes.der == attributes_of(made.ders[0], bytes(32), shown).dump()


def test_the_time_of_a_request_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All digests of a request have the same time, which takes asn1crypto longer than everything else of them."""
    encoded_times: list[core.UTCTime] = []
    dump = core.UTCTime.dump

    def counted(time: core.UTCTime) -> bytes:
        encoded_times.append(time)
        return dump(time)

    monkeypatch.setattr(core.UTCTime, "dump", counted)
    template = Template(chain("P-256").ders, Algorithm(Scheme.ECDSA, Hash.SHA256), Profile.CADES_B_B)
    accepted = datetime(2031, 5, 6, 7, 8, 9, 123_456, tzinfo=UTC)
    assert len({template.attributes(bytes([number]) * 32, accepted) for number in range(100)}) == 100
    assert len(encoded_times) == 1
