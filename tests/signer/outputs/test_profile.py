"""
The lines of the CMS profiles (DESIGN.md section 3, "CMS"), each in a test of its own that fails without it.

A real batch and a real PDF, but the key is in memory: what the tests read was put together by the daemon's own code.
"""

import hashlib
import io
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from asn1crypto import cms, parser
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, utils
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.fields import enumerate_sig_fields

from pool import Algorithm, Hash, Key, Outcomes, Scheme, Status
from pool.public import KeyRefused, algorithms, load_public_key
from signer import credential as rows
from signer import gap, pades
from signer import requests as read
from signer.batch import Ask, Batches
from signer.clock import Clock
from signer.cms import Profile, Template
from signer.config import Caller
from signer.credential import Credential, Output, Purpose, algorithm_of
from signer.errors import Refusal
from signer.people import nobody_is_served
from signer.pieces import PIECE_ITEMS
from signer.record import Asked, Record
from signer.revocation import Revocations
from signer.steady import Steady
from signer.store import open_store
from signer.v1 import signing_pb2 as pb
from tests.hostile import minimal_pdf
from tests.others import others
from tests.signer.outputs.certificates import Chain, chain, key_of, spki_of
from tests.signer.outputs.driver import sha256, signed_parts

ACCEPTED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
CONTENT = b"the content"
FILE_ID = gap.file_id("test")
HASHES = {Hash.SHA256: hashes.SHA256(), Hash.SHA384: hashes.SHA384(), Hash.SHA512: hashes.SHA512()}
V15 = Algorithm(Scheme.RSA_PKCS1_V15, Hash.SHA256)
ECDSA = Algorithm(Scheme.ECDSA, Hash.SHA256)
EDDSA = Algorithm(Scheme.ED25519, None)
KIND = {Scheme.RSA_PKCS1_V15: "RSA-2048", Scheme.RSA_PSS: "RSA-2048", Scheme.ECDSA: "P-256", Scheme.ED25519: "Ed25519"}
EVERY = [EDDSA, *(Algorithm(scheme, digest) for scheme in list(Scheme)[:3] for digest in Hash)]
BOTH = [Output.CADES_B_B, Output.PADES_B_B]


@dataclass
class MemoryPool:
    """Signs with keys in memory, as a token would, and keeps what it was given."""

    key: Any
    given: list[bytes] = field(default_factory=list)

    async def sign(self, _ref: str, algorithm: Algorithm, items: Sequence[bytes], **_: Any) -> Outcomes:
        self.given += items
        outcomes = Outcomes(len(items))
        outcomes.signed(0, [self._sign(algorithm, item) for item in items], "memory")
        return outcomes

    def _sign(self, algorithm: Algorithm, item: bytes) -> bytes:
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(item)
        hashed = utils.Prehashed(HASHES[algorithm.hash])
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            return self.key.sign(item, ec.ECDSA(hashed))
        if algorithm.scheme is Scheme.RSA_PSS:
            hash_ = HASHES[algorithm.hash]
            return self.key.sign(item, padding.PSS(padding.MGF1(hash_), hash_.digest_size), hashed)
        return self.key.sign(item, padding.PKCS1v15(), hashed)


class Unwritten:
    """A ledger that knows nothing, and in which nothing is written: the pool here tells no record."""

    async def enter(self, asked: Asked, _deadline: float) -> Record:
        return Record(self, asked, ACCEPTED, 1)  # type: ignore[arg-type]

    def over(self, record: Record) -> None:
        pass


def _goes_on(_ask: Ask) -> None:
    """Nothing is taken away here."""


@dataclass
class Made:
    """A signature that was put together as the daemon does it, and the steps in between."""

    cms: bytes
    content_digest: bytes
    signed_digest: bytes
    pdf: bytes = b""

    @property
    def data(self) -> cms.SignedData:
        return cms.ContentInfo.load(self.cms, strict=True)["content"]

    @property
    def signer(self) -> cms.SignerInfo:
        (signer,) = self.data["signer_infos"]
        return signer

    @property
    def attributes(self) -> dict[str, Any]:
        """By type, each with its one value."""
        found = {}
        for attribute in self.signer["signed_attrs"]:
            (found[attribute["type"].native],) = attribute["values"]
        return found

    @property
    def dictionary(self) -> Any:
        """The signature dictionary of the PDF."""
        return PdfFileReader(io.BytesIO(self.pdf)).embedded_signatures[-1].sig_object


def credential_of(made: Chain) -> Credential:
    key = Key(made.spki, None, "key")
    return Credential("any", Purpose.SIGNATURE, made.ders, key, frozenset(Output))


async def make(
    algorithm: Algorithm, output: Output = Output.CADES_B_B, made: Chain | None = None, **texts: str
) -> Made:
    """Sign `CONTENT`, or a small PDF, as the daemon does: prepare, batch, finish."""
    made = made or chain(KIND[algorithm.scheme])
    credential = credential_of(made)
    template = credential.template(algorithm, Profile(output.value))
    caller = Caller(name="portal", role="submit", rpcs=frozenset())
    pool = MemoryPool(made.key)
    clock = Clock()
    with tempfile.TemporaryFile() as file:
        file.write(minimal_pdf() if output is Output.PADES_B_B else CONTENT)
        digest = hashlib.new(template.digest.value, CONTENT).digest()
        prepared = None
        if output is Output.PADES_B_B:
            wishes = pades.Wishes(made.ders[0], template.digest.lower(), template.bytes_max, ACCEPTED, FILE_ID, **texts)
            prepared = pades.prepare(file, wishes)
            digest = prepared.content_digest
            assert digest == gap.content_digest(file, prepared, template.digest.value)
        name = "00000000-0000-4000-8000-000000000000"
        ask = Ask(caller, name, credential, output, algorithm, [digest], clock.monotonic() + 60, ACCEPTED)
        batches = Batches(pool, Unwritten(), clock, nobody_is_served, Revocations(()), tuple, _goes_on, Steady(clock))
        item, _, attributes = await batches.sign_document(ask, await batches.enter(ask))
        signature = template.detached(attributes, item.signature)
        if prepared is not None:
            gap.finish(prepared, signature, file)
        (signed_digest,) = pool.given
        # The same through the call for digests.
        pool.given.clear()
        [again], _ = await batches.sign(ask)
        assert again.status is Status.SIGNED
        assert pool.given == [signed_digest]
        file.seek(0)
        return Made(signature, digest, signed_digest, file.read() if prepared else b"")


def parameters(der: bytes) -> list[bytes]:
    """The members of a SEQUENCE, as they stand there."""
    _, _, _, header, body, _ = parser.parse(der, strict=True)
    assert header[0] == 0x30
    members = []
    while body:
        length = parser.peek(body)
        members.append(body[:length])
        body = body[length:]
    return members


@pytest.mark.parametrize("output", BOTH)
@pytest.mark.parametrize("algorithm", EVERY, ids=str)
async def test_content_type_and_message_digest(algorithm: Algorithm, output: Output) -> None:
    """content-type says id-data; message-digest is the content's, by the algorithm's hash (RFC 5652, 11.1, 11.2)."""
    made = await make(algorithm, output)
    assert made.attributes["content_type"].native == "data"
    name = (algorithm.hash or Hash.SHA512).value.lower()
    assert made.signer["digest_algorithm"]["algorithm"].native == name
    content = signed_parts(made.pdf)[1] if output is Output.PADES_B_B else CONTENT
    assert made.attributes["message_digest"].native == hashlib.new(name, content).digest() == made.content_digest
    assert [each["algorithm"].native for each in made.data["digest_algorithms"]] == [name]


@pytest.mark.parametrize("output", BOTH)
@pytest.mark.parametrize("algorithm", EVERY, ids=str)
async def test_signing_certificate_v2(algorithm: Algorithm, output: Output) -> None:
    """signing-certificate-v2 has the SHA-256 of the signer's certificate, and leaves that default out (RFC 5035, 4)."""
    made = await make(algorithm, output)
    (identifier,) = made.attributes["signing_certificate_v2"]["certs"]
    assert identifier["cert_hash"].native == sha256(chain(KIND[algorithm.scheme]).ders[0])
    # SEQUENCE { OCTET STRING }: the hash alone; X.690, 11.5: a default is left out.
    assert identifier.dump() == b"\x30\x22\x04\x20" + identifier["cert_hash"].native


@pytest.mark.parametrize("algorithm", EVERY, ids=str)
async def test_cades_has_signing_time(algorithm: Algorithm) -> None:
    """CAdES: signing-time is there and is the time at which the request was accepted (EN 319 122-1, 5.2.1)."""
    made = await make(algorithm, Output.CADES_B_B)
    assert made.attributes["signing_time"].native == ACCEPTED


def test_cades_without_a_time_cannot_be_made() -> None:
    """A CAdES whose time was forgotten is not made without it: that would not be level B-B."""
    template = Template(chain("P-256").ders, ECDSA, Profile.CADES_B_B)
    with pytest.raises(ValueError, match="signing-time"):
        template.attributes(bytes(32), None)


@pytest.mark.parametrize("algorithm", EVERY, ids=str)
async def test_pades_has_m_and_no_signing_time(algorithm: Algorithm) -> None:
    """PAdES: the accepted time is /M in the dictionary, and the attribute is not there (EN 319 142-1, 6.3)."""
    made = await make(algorithm, Output.PADES_B_B)
    assert "signing_time" not in made.attributes
    assert str(made.dictionary["/M"]) in {"D:20260304050607Z", "D:20260304050607+00'00'"}


async def test_signed_attributes_are_those_and_no_more() -> None:
    """Each profile has its attributes and nothing else, each once."""
    names = {"content_type", "message_digest", "signing_certificate_v2"}
    assert (await make(ECDSA, Output.PADES_B_B)).attributes.keys() == names
    assert (await make(ECDSA, Output.CADES_B_B)).attributes.keys() == names | {"signing_time"}
    assert (await make(ECDSA)).signer["unsigned_attrs"].native is None


async def test_signature_dictionary() -> None:
    """SubFilter ETSI.CAdES.detached; no /Cert (EN 319 142-1, 6.3); texts as asked, none as empty strings."""
    dictionary = (await make(ECDSA, Output.PADES_B_B)).dictionary
    assert dictionary["/Type"] == "/Sig"
    assert dictionary["/Filter"] == "/Adobe.PPKLite"
    assert dictionary["/SubFilter"] == "/ETSI.CAdES.detached"
    assert not {"/Cert", "/Reason", "/Location", "/ContactInfo", "/Name"} & set(dictionary)
    texts = (await make(ECDSA, Output.PADES_B_B, reason="für alle", location="Zürich")).dictionary
    assert (texts["/Reason"], texts["/Location"]) == ("für alle", "Zürich")


async def test_byte_range_covers_all_but_the_gap() -> None:
    """The signed bytes are all of the file but the string of /Contents (EN 319 142-1, 5.4; ISO 32000-2, 12.8.1)."""
    made = await make(ECDSA, Output.PADES_B_B)
    start, length, resume, rest = (int(number) for number in made.dictionary["/ByteRange"])
    assert (start, resume + rest) == (0, len(made.pdf))
    gap = made.pdf[length:resume]
    assert gap[:1] + gap[-1:] == b"<>"
    assert bytes.fromhex(gap[1:-1].decode()).rstrip(b"\0") == made.cms.rstrip(b"\0")


@pytest.mark.parametrize("output", BOTH)
@pytest.mark.parametrize("length", [2, 3, 4])
async def test_chain_without_root(length: int, output: Output) -> None:
    """The CMS holds the signer's certificate and all its issuers but the root (EN 319 122-1, 6.3)."""
    for rooted in (True, False):
        made = chain("P-256", length, rooted=rooted)
        inside = {bytes(each.chosen.dump()) for each in (await make(ECDSA, output, made)).data["certificates"]}
        assert inside == set(made.ders[: length - rooted])


async def test_a_self_signed_signer_stays() -> None:
    """The signer's certificate is in the CMS even where it is its own issuer."""
    made = chain("P-256", 1)
    (inside,) = (await make(ECDSA, made=made)).data["certificates"]
    assert inside.chosen.dump() == made.ders[0]


@pytest.mark.parametrize("digest", list(Hash))
async def test_pss_parameters(digest: Hash) -> None:
    """RSASSA-PSS: parameters explicit, one hash for both uses, the salt as long as the hash (RFC 4056, 3)."""
    made = await make(Algorithm(Scheme.RSA_PSS, digest))
    algorithm = made.signer["signature_algorithm"]
    assert algorithm["algorithm"].native == "rsassa_pss"
    name = digest.value.lower()
    assert algorithm["parameters"].native == {
        "hash_algorithm": {"algorithm": name, "parameters": None},
        "mask_gen_algorithm": {"algorithm": "mgf1", "parameters": {"algorithm": name, "parameters": None}},
        "salt_length": hashlib.new(name).digest_size,
        "trailer_field": "trailer_field_bc",
    }
    # The defaults are SHA-1 and 20: what is not that has to stand there.
    tags = [member[0] for member in parameters(algorithm["parameters"].dump())]
    assert tags == [0xA0, 0xA1, 0xA2]


@pytest.mark.parametrize("algorithm", EVERY, ids=str)
async def test_algorithm_identifiers(algorithm: Algorithm) -> None:
    """
    digestAlgorithm has no parameters (RFC 5754, 2); neither have ECDSA's (3.3) and Ed25519's (RFC 8419, 3.1);
    PKCS#1 v1.5 names its hash and has NULL (RFC 5754, 3.2).
    """
    made = await make(algorithm)
    for each in (made.signer["digest_algorithm"], *made.data["digest_algorithms"]):
        assert len(parameters(each.dump())) == 1
    members = parameters(made.signer["signature_algorithm"].dump())
    if algorithm.scheme is Scheme.RSA_PKCS1_V15:
        assert members[1:] == [b"\x05\x00"]
        assert made.signer["signature_algorithm"].hash_algo == algorithm.hash.value.lower()
    elif algorithm.scheme is not Scheme.RSA_PSS:
        assert members[1:] == []


@pytest.mark.parametrize("ballast", [0, 100, 300, 66_000])
async def test_sets_are_in_der_order(ballast: int) -> None:
    """
    Attributes and certificates are sorted by their encoding, whatever their lengths (X.690, 11.6).

    A longer certificate moves behind its issuer's; of the attributes the shortest is not always the same.
    """
    made = await make(ECDSA, made=chain("P-256", 4, ballast=ballast))
    attributes = [bytes(each.dump()) for each in made.signer["signed_attrs"]]
    certificates = [bytes(each.dump()) for each in made.data["certificates"]]
    assert attributes == sorted(attributes)
    assert len(attributes) == 4
    assert certificates == sorted(certificates)
    assert len(certificates) == 3


@pytest.mark.parametrize("digest", list(Hash))
@pytest.mark.parametrize("order", range(4))
def test_attributes_in_der_order_whatever_the_chain_is(order: int, digest: Hash) -> None:
    """Certificates in any order given, of any algorithm: the SETs come out sorted, and the signer is the first given."""
    made = chain("P-384", 4, rooted=False)
    ders = (made.ders[0], *made.ders[1:][order % 3 :], *made.ders[1:][: order % 3])
    template = Template(ders, Algorithm(Scheme.ECDSA, digest), Profile.CADES_B_B)
    attributes = template.attributes(bytes(template.digest_bytes), ACCEPTED)
    data = cms.ContentInfo.load(template.detached(attributes, bytes(100)))["content"]
    inside = [bytes(each.dump()) for each in data["certificates"]]
    assert inside == sorted(ders)
    found = [bytes(each.dump()) for each in data["signer_infos"][0]["signed_attrs"]]
    assert found == sorted(found)


async def test_short_rsa_is_refused(tmp_path: Any) -> None:
    """An RSA key below 2048 bits is no key of the pool and no credential of the daemon (TS 119 312)."""
    short = chain("RSA-1024", 2)
    with pytest.raises(KeyRefused):
        load_public_key(short.spki)
    with pytest.raises(KeyRefused):
        algorithms(short.spki)
    with pytest.raises(KeyRefused):
        credential_of(short)
    engine = open_store(tmp_path / "paraph.db")
    try:
        with pytest.raises(rows.CredentialError, match="2048"):
            rows.add(engine, "short", short.pem, cka_id=None, key_label="k", outputs=[Output.RAW], clock=Clock())
        assert rows.read(engine) == {}
        long = chain("RSA-2048", 2)
        rows.add(engine, "long", long.pem, cka_id=None, key_label="k", outputs=[Output.RAW], clock=Clock())
        assert list(rows.read(engine)) == ["long"]
    finally:
        engine.dispose()


def test_sha1_cannot_be_said() -> None:
    """No field, enum or word of the service names SHA-1: neither the contract, nor what reads it, nor the pool."""
    assert pb.DigestAlgorithm.keys() == ["DIGEST_ALGORITHM_UNSPECIFIED", "SHA256", "SHA384", "SHA512"]
    assert set(read.HASHES.values()) == set(Hash) == {"SHA256", "SHA384", "SHA512"}
    with pytest.raises(Refusal, match="ALGORITHM_MISSING"):
        read.algorithm(pb.RSA_PKCS1_V15, 4)
    with pytest.raises(ValueError, match="SHA1"):
        Hash("SHA1")


@pytest.mark.parametrize("output", BOTH)
async def test_ed25519_goes_with_sha512(output: Output) -> None:
    """Ed25519 in CMS: SHA-512 for message-digest, the attributes themselves are signed (RFC 8419, 3.1)."""
    made = await make(EDDSA, output)
    assert made.signer["digest_algorithm"]["algorithm"].native == "sha512"
    assert made.signer["signature_algorithm"]["algorithm"].native == "ed25519"
    signed = bytes(made.signer["signed_attrs"].untag().dump())
    assert made.signed_digest == signed
    key_of("Ed25519").public_key().verify(made.signer["signature"].native, signed)
    for digest in (Hash.SHA256, Hash.SHA384):
        with pytest.raises(Refusal, match="ALGORITHM_NOT_ALLOWED"):
            algorithm_of(Scheme.ED25519, digest)


async def test_ed25519_declares_its_extension() -> None:
    """A PDF signed with Ed25519 declares ISO/TS 32002 in its catalogue; one signed with RSA has no need to."""

    def extensions(pdf: bytes) -> dict[str, Any]:
        return PdfFileReader(io.BytesIO(pdf)).root.get("/Extensions", {})

    declared = extensions((await make(EDDSA, Output.PADES_B_B)).pdf)["/ISO_"]
    declared = declared if isinstance(declared, list) else [declared]
    assert 32002 in [int(each.get_object()["/ExtensionLevel"]) for each in declared]
    assert "/ISO_" not in extensions((await make(V15, Output.PADES_B_B)).pdf)


@pytest.mark.parametrize("output", BOTH)
@pytest.mark.parametrize("algorithm", EVERY, ids=str)
async def test_signed_digest_is_not_the_content_digest(algorithm: Algorithm, output: Output) -> None:
    """What the key signs is over the signed attributes, never the document's digest itself (RFC 5652, 5.4)."""
    made = await make(algorithm, output)
    attributes = bytes(made.signer["signed_attrs"].untag().dump())
    expected = attributes if algorithm.hash is None else hashlib.new(algorithm.hash.value, attributes).digest()
    assert made.signed_digest == expected != made.content_digest


async def test_versions_and_identifier() -> None:
    """Version 1 in both places; the signer is named by issuer and serial number (RFC 5652, 5.1 and 5.3)."""
    made = await make(ECDSA)
    assert (made.data["version"].native, made.signer["version"].native) == ("v1", "v1")
    assert made.signer["sid"].name == "issuer_and_serial_number"
    assert made.signer["sid"].chosen["serial_number"].native == 2**159 - 1
    assert made.data["encap_content_info"].native == {"content_type": "data", "content": None}


def prepare(document: bytes, digest: str = "sha256") -> tuple[gap.Prepared, bytes]:
    with tempfile.TemporaryFile() as file:
        file.write(document)
        template = Template(chain("P-256").ders, ECDSA, Profile.PADES_B_B)
        wishes = pades.Wishes(chain("P-256").ders[0], digest, template.bytes_max, ACCEPTED, FILE_ID)
        prepared = pades.prepare(file, wishes)
        file.seek(0)
        return prepared, file.read()


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_prepared_is_plain_data(digest: str) -> None:
    """`Prepared` holds the digest of everything but the gap, and where the gap is; the input is not touched."""
    document = minimal_pdf(3)
    prepared, made = prepare(document, digest)
    rest = made[: prepared.gap_start] + made[prepared.gap_end :]
    assert prepared.content_digest == hashlib.new(digest, rest).digest()
    assert made.startswith(document)
    assert set(made[prepared.gap_start + 1 : prepared.gap_end - 1]) == {ord("0")}


def test_finish_refuses_what_does_not_fit() -> None:
    """A CMS longer than its gap is an error, and not a byte of the file changes; one that fits exactly is written."""
    prepared, made = prepare(minimal_pdf())
    room = (prepared.gap_end - prepared.gap_start - 2) // 2
    with tempfile.TemporaryFile() as file:
        file.write(made)
        file.flush()
        with pytest.raises(ValueError, match="gap"):
            gap.finish(prepared, bytes([1]) * (room + 1), file)
        assert os.pread(file.fileno(), len(made) + 1, 0) == made
        gap.finish(prepared, b"\xab" * room, file)
        written = os.pread(file.fileno(), len(made) + 1, 0)
        assert written[prepared.gap_start : prepared.gap_end] == b"<" + b"ab" * room + b">"


async def test_a_second_field_gets_a_free_name() -> None:
    """A document that was signed already gets a field of another name beside the first."""
    first = await make(ECDSA, Output.PADES_B_B)
    prepared, _ = prepare(first.pdf)
    _, again = prepare(first.pdf)
    assert prepared.gap_start > len(first.pdf)
    names = [name for name, _, _ in enumerate_sig_fields(PdfFileReader(io.BytesIO(again)))]
    assert names == ["Signature1", "Signature2"]


def test_public_halves_only() -> None:
    """A credential's identity is the SubjectPublicKeyInfo of its certificate's key."""
    assert credential_of(chain("P-256")).key.spki == spki_of(key_of("P-256").public_key())


async def test_others_have_turns_while_many_cms_are_made() -> None:
    """Of a long request no more than a piece is made without letting the event loop run, before its keys sign and after it."""
    made = chain(KIND[ECDSA.scheme])
    digests = [sha256(number.to_bytes(2)) for number in range(4 * PIECE_ITEMS)]
    caller = Caller(name="portal", role="submit", rpcs=frozenset())
    clock = Clock()
    name = "00000000-0000-4000-8000-000000000000"
    ask = Ask(caller, name, credential_of(made), Output.CADES_B_B, ECDSA, digests, clock.monotonic() + 60, ACCEPTED)
    batches = Batches(
        MemoryPool(made.key), Unwritten(), clock, nobody_is_served, Revocations(()), tuple, _goes_on, Steady(clock)
    )
    async with others() as counted:
        outcomes, _ = await batches.sign(ask)
    assert counted.turns >= 3 * 3  # attributes, what is signed of them, and the CMS
    template = Template(made.ders, ECDSA, Profile.CADES_B_B)
    for digest, signed in zip(digests, outcomes.signatures, strict=True):
        attributes = template.attributes(digest, ACCEPTED)
        parts = cms.ContentInfo.load(signed, strict=True)["content"]["signer_infos"][0]
        assert template.detached(attributes, parts["signature"].native) == signed
