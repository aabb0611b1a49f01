"""What `signer.examine` and `signer.trust` say about files signed by others, by us, and against us."""

import asyncio
import dataclasses
import datetime as dt
import functools
import hashlib
import importlib.util
import io
import json
import logging
import re
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import pytest
from asn1crypto import cms
from pyhanko.pdf_utils import generic
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.pdf_utils.writer import PageObject, PdfFileWriter
from pyhanko.sign import signers
from pyhanko.sign.fields import MDPPerm, SigFieldSpec, SigSeedSubFilter, append_signature_field
from pyhanko.sign.validation.status import SignatureCoverageLevel

from signer import examine as reading
from signer.trust import PdfProblem, SignatureReport

HERE = Path(__file__).parent
REPORT = re.compile(rb"(True|False) [^\n]+\n")  # one line, and no warning beside it


def sibling(name: str):
    """Import a file from beside this one: under importlib mode the folder of a test is not on the path."""
    spec = importlib.util.spec_from_file_location(f"beside_trust_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


pki = sibling("trust_pki")
HOSTILE = sibling("hostile").HOSTILE if (HERE / "hostile.py").exists() else {}


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def examine(data: bytes, content: bytes | None = None, roots=None, now=None) -> reading.Report:
    report = reading.examine(
        io.BytesIO(data),
        [pki.root().der] if roots is None else roots,
        now or pki.NOW,
        None if content is None else io.BytesIO(content),
    )
    assert report.input_sha256 == sha256(data)
    return report


def only(report: reading.Report) -> SignatureReport:
    assert (report.readable, report.problem) == (True, "")
    (signature,) = report.signatures
    return signature


def facts(signature: SignatureReport, *names: str) -> tuple:
    return tuple(getattr(signature, name) for name in names)


def verdict(signature: SignatureReport) -> tuple:
    return facts(signature, "valid", "reason", "covers", "changes_after")


def replace_once(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1
    return data.replace(old, new)


def new_contents(writer) -> None:
    page = writer.root["/Pages"]["/Kids"][0]
    page["/Contents"] = writer.add_object(generic.StreamObject(stream_data=b"BT (one million euros) Tj ET"))
    writer.update_container(page)


ALGORITHMS = [
    ("p256", "sha256", False, "ECDSA/SHA256"),
    ("p384", "sha384", False, "ECDSA/SHA384"),
    ("p521", "sha512", False, "ECDSA/SHA512"),
    ("rsa2048", "sha256", False, "RSA_PKCS1_V15/SHA256"),
    ("rsa2048", "sha384", False, "RSA_PKCS1_V15/SHA384"),
    ("rsa3072", "sha512", False, "RSA_PKCS1_V15/SHA512"),
    ("rsa2048", "sha256", True, "RSA_PSS/SHA256"),
    ("rsa2048", "sha384", True, "RSA_PSS/SHA384"),
    ("rsa3072", "sha512", True, "RSA_PSS/SHA512"),
    ("ed25519", "sha512", False, "ED25519"),
]


@pytest.mark.parametrize(("kind", "digest", "pss", "algorithm"), ALGORITHMS)
def test_pdf_of_each_algorithm(kind, digest, pss, algorithm):
    """Every field of the report is right for a PDF signed once, under each algorithm we sign with."""
    person = pki.person(kind)
    signed = pki.sign_pdf(pki.page(), person, digest=digest, pss=pss)
    report = examine(signed)
    signature = only(report)
    claimed = dt.datetime.strptime(signature.time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)
    assert abs(dt.datetime.now(dt.UTC) - claimed) < dt.timedelta(minutes=5)
    assert dataclasses.replace(report, signatures=[]) == reading.Report("PDF", True, "", 1, sha256(signed), [])
    assert dataclasses.replace(signature, time="") == SignatureReport(
        valid=True,
        reason="",
        certificate=person.der,
        subject=f"CN=Signer {kind},C=EE",
        trusted=True,
        trust_reason="",
        chain=[person.der, pki.middle().der, pki.root().der],
        time="",
        algorithm=algorithm,
        covers="WHOLE_FILE",
        revision_sha256=sha256(pki.page()),
        changes_after="NONE",
        profile="PAdES",
    )


def test_report_is_plain_data():
    """A report is made of dicts, lists, strings, bytes, numbers: any framing can carry it."""
    report = examine(pki.sign_pdf(pki.page(), pki.person())).to_dict()
    assert json.loads(json.dumps(report, default=bytes.hex))["signatures"][0]["valid"] is True


def test_adobe_sub_filter_is_plain_cms():
    """adbe.pkcs7.detached is verified too and is not called PAdES."""
    signed = pki.sign_pdf(pki.page(), pki.person(), sub_filter=SigSeedSubFilter.ADOBE_PKCS7_DETACHED)
    assert facts(only(examine(signed)), "valid", "reason", "profile") == (True, "", "CMS")


def test_unknown_sub_filter_is_listed_as_not_valid():
    """A signature whose kind we do not know is reported as not valid; silence would look like none at all."""
    signed = pki.sign_pdf(pki.page(), pki.person())
    odd = replace_once(signed, b"/ETSI.CAdES.detached", b"/ETSI.CAdES.detacheD")
    assert verdict(only(examine(odd))) == (False, "sub-filter", "PARTIAL", "UNKNOWN")


def test_unsigned_pdf():
    """A PDF without signatures is readable and has an empty list."""
    report = examine(pki.page())
    assert report == reading.Report("PDF", True, "", 1, sha256(pki.page()), [])


# --- later revisions


@pytest.mark.parametrize("stream_xrefs", [False, True])
def test_signed_twice(stream_xrefs):
    """The first of two signatures covers its revision, and the second is a permitted change."""
    document = pki.page(stream_xrefs=stream_xrefs)
    once = pki.sign_pdf(document, pki.person("p256"))
    twice = pki.sign_pdf(once, pki.person("ed25519"), name="Another", digest="sha512")
    first, second = examine(twice).signatures
    assert verdict(first) == (True, "", "REVISION", "PERMITTED")
    assert verdict(second) == (True, "", "WHOLE_FILE", "NONE")
    assert first.revision_sha256 == sha256(document)
    assert second.revision_sha256 == sha256(once)
    assert (first.algorithm, second.algorithm) == ("ECDSA/SHA256", "ED25519")


@pytest.mark.parametrize("tail", [b"", b"\n\n\r\n   ", b"% a comment\n"], ids=["none", "white", "comment"])
def test_previous_revision_is_what_was_handed_in(tail):
    """The hash is of the very bytes handed in, whether they end in no line end or in a few."""
    document = pki.page().rstrip() + tail
    signed = pki.sign_pdf(document, pki.person())
    assert only(examine(signed)).revision_sha256 == sha256(document)


def test_signature_in_first_revision():
    """A document that was written and signed at once has no previous revision, hence no hash of one."""
    writer = PdfFileWriter()
    contents = writer.add_object(generic.StreamObject(stream_data=b"BT ET"))
    writer.insert_page(PageObject(contents=contents, media_box=(0, 0, 9, 9)))
    metadata = signers.PdfSignatureMetadata(field_name="S", md_algorithm="sha256")
    pdf_signer = signers.PdfSigner(metadata, pki.pyhanko_signer(pki.person()))
    signed = asyncio.run(pdf_signer.async_sign_pdf(writer)).getvalue()
    signature = only(examine(signed))
    assert verdict(signature) == (True, "", "WHOLE_FILE", "NONE")
    assert signature.revision_sha256 == b""


def test_shadow_update():
    """An update that replaces what the page shows leaves the signature valid, and is not permitted."""
    signed = pki.sign_pdf(pki.page(), pki.person())
    assert verdict(only(examine(pki.update(signed, new_contents)))) == (
        True,
        "",
        "REVISION",
        "NOT_PERMITTED",
    )


def test_shadow_update_hidden_under_a_second_signature():
    """A second signature does not launder what was changed between the two."""
    signed = pki.sign_pdf(pki.page(), pki.person())
    twice = pki.sign_pdf(pki.update(signed, new_contents), pki.person("p384"), name="Two", digest="sha384")
    first, second = examine(twice).signatures
    assert verdict(first) == (True, "", "REVISION", "NOT_PERMITTED")
    assert verdict(second) == (True, "", "WHOLE_FILE", "NONE")


def test_certified_document_that_allows_signatures():
    """A certified document (DocMDP 2) may be signed further."""
    certified = pki.sign_pdf(pki.page(), pki.person(), certify=MDPPerm.FILL_FORMS)
    assert verdict(only(examine(certified))) == (True, "", "WHOLE_FILE", "NONE")
    twice = pki.sign_pdf(certified, pki.person(), name="Two")
    assert [verdict(item) for item in examine(twice).signatures] == [
        (True, "", "REVISION", "PERMITTED"),
        (True, "", "WHOLE_FILE", "NONE"),
    ]


def with_text_field(document: bytes) -> bytes:
    def change(writer):
        text_field = generic.DictionaryObject(
            {
                generic.pdf_name("/FT"): generic.pdf_name("/Tx"),
                generic.pdf_name("/T"): generic.pdf_string("Name"),
            }
        )
        fields = generic.ArrayObject([writer.add_object(text_field)])
        writer.root["/AcroForm"] = generic.DictionaryObject({generic.pdf_name("/Fields"): fields})
        writer.update_root()

    return pki.update(document, change)


def fill_in(writer) -> None:
    text_field = writer.root["/AcroForm"]["/Fields"][0]
    text_field["/V"] = generic.pdf_string("Jüri")
    writer.update_container(text_field)


@pytest.mark.parametrize(
    ("certify", "changes"),
    [(None, "PERMITTED"), (MDPPerm.FILL_FORMS, "PERMITTED"), (MDPPerm.NO_CHANGES, "NOT_PERMITTED")],
    ids=["approval", "certified-2", "certified-1"],
)
def test_filled_field(certify, changes):
    """A field filled after signing is permitted, unless the document was certified against all changes."""
    signed = pki.sign_pdf(with_text_field(pki.page()), pki.person(), certify=certify)
    assert verdict(only(examine(pki.update(signed, fill_in)))) == (True, "", "REVISION", changes)


def test_new_empty_signature_field():
    """A further field to sign in is no change of the document."""
    signed = pki.sign_pdf(pki.page(), pki.person())
    more = pki.update(signed, lambda writer: append_signature_field(writer, SigFieldSpec("Empty")))
    assert verdict(only(examine(more))) == (True, "", "REVISION", "PERMITTED")


def test_hybrid_file_signed_twice():
    """A hybrid file, as word processors write it, is signed and examined like any other."""
    document = pki.hybrid()
    once = pki.sign_pdf(document, pki.person(), strict=False)
    twice = pki.sign_pdf(once, pki.person(), name="Two", strict=False)
    first, second = examine(twice).signatures
    assert verdict(first) == (True, "", "REVISION", "PERMITTED")
    assert verdict(second) == (True, "", "WHOLE_FILE", "NONE")
    assert (first.revision_sha256, second.revision_sha256) == (sha256(document), sha256(once))


def test_hybrid_update_is_not_judged():
    """What readers of different age see behind a hybrid update may differ, so it is called unknown."""
    signed = pki.sign_pdf(pki.page(), pki.person())
    more = pki.update(signed, lambda writer: append_signature_field(writer, SigFieldSpec("Empty")))
    old_table = int(more.rsplit(b"startxref", 1)[1].split()[0])
    stream_at = len(more)
    row = b"\1" + stream_at.to_bytes(4, "big") + b"\0"
    number = int(more[old_table:].split(b"/Size ")[1].split()[0])
    hidden = b"%d 0 obj\n<</Type/XRef/Size %d/Index[%d 1]/W[1 4 1]/Length 6>>stream\n%s\nendstream\nendobj\n" % (
        number,
        number + 1,
        number,
        row,
    )
    trailer = more[old_table:].split(b"trailer")[1].split(b"startxref")[0]
    prev = trailer.index(b"/Prev ") + len(b"/Prev ")
    rest = trailer[prev:].split(None, 1)[1] if b" " in trailer[prev:] or b"\n" in trailer[prev:] else b""
    trailer = trailer[:prev] + b"%d /XRefStm %d\n" % (old_table, stream_at) + rest
    table = stream_at + len(hidden)
    hybrid = more + hidden + b"xref\n0 0\ntrailer" + trailer + b"startxref\n%d\n%%%%EOF\n" % table
    assert facts(only(examine(hybrid)), "valid", "covers", "changes_after") == (True, "REVISION", "UNKNOWN")


def test_document_timestamp():
    """A document time-stamp is verified against the file and dated by its authority."""
    signed = pki.sign_pdf(pki.page(), pki.person())
    stamped = pki.document_timestamp(signed, pki.person("rsa2048"))
    first, second = examine(stamped).signatures
    assert verdict(first) == (True, "", "REVISION", "PERMITTED")
    assert verdict(second) == (True, "", "WHOLE_FILE", "NONE")
    assert (second.time, second.profile, second.revision_sha256) == (
        "2030-06-01T12:00:00Z",
        "PAdES",
        sha256(signed),
    )
    changed = examine(replace_once(stamped, b"one hundred", b"two hundred"))
    assert [item.reason for item in changed.signatures] == ["message-digest", "message-digest"]


@pytest.mark.parametrize(("tail", "changes"), [(b"\n\r\n", "PERMITTED"), (b"PK\x03\x04", "NOT_PERMITTED")])
@pytest.mark.parametrize("far", [False, True])
def test_bytes_after_the_end(tail, changes, far):
    """Line ends after a signed file are harmless; other bytes, which no reader of PDF asked for, are not."""
    signed = pki.sign_pdf(pki.page(), pki.person())
    if far:  # behind a void, and with an end of its own that leads back to the signed revision
        tail = b" " * 3000 + tail + b"\n" + signed[signed.rindex(b"startxref") :]
        changes = "NOT_PERMITTED"
    assert verdict(only(examine(signed + tail))) == (True, "", "REVISION", changes)


# --- tampering


def test_flipped_byte_in_the_content():
    """A byte changed in what was signed breaks messageDigest, and nothing else."""
    signed = replace_once(pki.sign_pdf(pki.page(), pki.person()), b"one hundred", b"two hundred")
    signature = only(examine(signed))
    assert verdict(signature) == (False, "message-digest", "WHOLE_FILE", "NONE")
    assert signature.trusted


def contents_of(signed: bytes) -> tuple[int, int]:
    """Start and end of the hexadecimal digits in /Contents."""
    start = signed.index(b"/Contents <") + len(b"/Contents <")
    return start, signed.index(b">", start)


def with_cms(signed: bytes, change) -> bytes:
    """Let `change` edit the SignedData in a PDF signed once."""
    start, end = contents_of(signed)
    info = cms.ContentInfo.load(bytes.fromhex(signed[start:end].decode()))
    data = cms.SignedData.load(info["content"].untag().dump())
    change(data)
    der = cms.ContentInfo({"content_type": "signed_data", "content": data}).dump()
    return signed[:start] + der.hex().encode().ljust(end - start, b"0") + signed[end:]


def test_flipped_byte_in_the_signature():
    """A signature value that is not the key's own is called just that."""

    def flip(data):
        value = bytearray(data["signer_infos"][0]["signature"].native)
        value[-1] ^= 1
        data["signer_infos"][0]["signature"] = bytes(value)

    signed = with_cms(pki.sign_pdf(pki.page(), pki.person()), flip)
    assert verdict(only(examine(signed))) == (False, "signature", "WHOLE_FILE", "NONE")


def test_every_byte_of_the_cms_matters_or_does_no_harm():
    """Flip bytes all over the CMS: no report raises, and none of those that stay valid names another key."""
    person = pki.person()
    signed = pki.sign_pdf(pki.page(), person)
    start, end = contents_of(signed)
    length = len(cms.ContentInfo.load(bytes.fromhex(signed[start:end].decode())).dump())
    reasons = set()
    for offset in range(start, start + 2 * length, 26):
        digit = b"0" if signed[offset : offset + 1] != b"0" else b"8"
        signature = only(examine(signed[:offset] + digit + signed[offset + 1 :]))
        reasons.add(signature.reason)
        assert not signature.valid or signature.certificate == person.der
    assert {"signature", "message-digest"} <= reasons


def test_swapped_certificate():
    """A certificate with the same key, issuer and serial number, yet not the one signed for, is refused."""
    person = pki.person()
    signed = pki.sign_pdf(pki.page(), person)
    double = (
        pki.x509.CertificateBuilder()
        .subject_name(pki.x509.Name([pki.x509.NameAttribute(pki.NameOID.COMMON_NAME, "Somebody Else")]))
        .issuer_name(person.certificate.issuer)
        .public_key(person.key.public_key())
        .serial_number(person.certificate.serial_number)
        .not_valid_before(pki.NOW - pki.DAY)
        .not_valid_after(pki.NOW + pki.DAY)
        .sign(pki.middle().key, pki.hashes.SHA256())
    )

    def swap(data):
        data["certificates"] = cms.CertificateSet(
            [
                cms.CertificateChoices(
                    name="certificate", value=pki.asn1_x509.Certificate.load(pki.Identity(person.key, one).der)
                )
                for one in (double, pki.middle().certificate)
            ]
        )

    signature = only(examine(with_cms(signed, swap)))
    assert facts(signature, "valid", "reason", "subject", "trusted") == (
        False,
        "signing-certificate",
        "CN=Somebody Else",
        True,
    )


def test_no_certificate():
    """Without the signer's certificate there is nothing to verify with."""

    def strip(data):
        data["certificates"] = cms.CertificateSet([])

    signed = with_cms(pki.sign_pdf(pki.page(), pki.person()), strip)
    assert facts(only(examine(signed)), "valid", "reason", "trusted", "trust_reason") == (
        False,
        "no-signer-certificate",
        False,
        "no-signer-certificate",
    )


def byte_range_of(signed: bytes) -> list[int]:
    return [int(n) for n in PdfFileReader(io.BytesIO(signed)).embedded_signatures[-1].byte_range]


@pytest.mark.parametrize(
    "edit",
    [
        lambda r: [r[0] + 1, r[1] - 1, r[2], r[3]],
        lambda r: [0, r[1] - 10, r[2], r[3]],
        lambda r: [0, r[1], r[2] + 10, r[3] - 10],
        lambda r: [0, r[1], r[2] - 2, r[3] + 2],
        lambda r: [0, r[1], r[2], r[3] + 500],
        lambda r: [0, r[1] - 2, r[2] - 2, r[3] + 2],
    ],
    ids=["late-start", "gap-before", "gap-after", "overlap", "past-the-end", "shifted"],
)
def test_byte_range_that_is_not_sane(edit):
    """A ByteRange is nothing but the file around /Contents; each other shape is refused by its own name."""
    signed = pki.sign_pdf(pki.page(), pki.person())
    start = signed.index(b"/ByteRange [") + len(b"/ByteRange [")
    end = signed.index(b"]", start)
    numbers = b" ".join(b"%d" % n for n in edit(byte_range_of(signed))).ljust(end - start)
    assert len(numbers) == end - start
    signature = only(examine(signed[:start] + numbers + signed[end:]))
    assert verdict(signature) == (False, "byte-range", "PARTIAL", "UNKNOWN")
    assert signature.revision_sha256 == b""


def test_contents_stretched_over_an_update():
    """/Contents replaced by a string as long as the update that hides in its gap proves nothing."""
    signed = pki.sign_pdf(pki.page(), pki.person())
    start, end = contents_of(signed)
    _, length, _, rest = byte_range_of(signed)
    der = bytes.fromhex(signed[start:end].decode())

    def forge(size: int, spaces: int) -> bytes:
        def change(writer):
            new_contents(writer)
            value = writer.root["/AcroForm"]["/Fields"][0].raw_get("/V")
            old = value.get_object()
            forged = generic.DictionaryObject({key: old.raw_get(key) for key in old})
            forged["/Contents"] = Literal(der.ljust(size, b"\0"), spaces)
            writer.objects[(0, value.idnum)] = forged

        return pki.update(signed, change)

    def missing(size: int, spaces: int) -> int:
        return len(forge(size, spaces)) - (length + rest + 2 * size + 2)

    # One byte more makes the file longer by one, and what the lengths explain by two; spaces do the rest.
    size, spaces = len(der) + missing(len(der), 0) + 50, 0
    for _ in range(8):  # the digits of startxref may grow on the way
        spaces -= missing(size, spaces)
    assert missing(size, spaces) == 0
    forged = forge(size, spaces)
    fooled = PdfFileReader(io.BytesIO(forged)).embedded_signatures[0]
    assert fooled.evaluate_signature_coverage() is SignatureCoverageLevel.ENTIRE_FILE
    assert verdict(only(examine(forged))) == (False, "byte-range", "PARTIAL", "UNKNOWN")


class Literal(generic.ByteStringObject):
    """A string written as ( ) and not as hexadecimal digits, with a few spaces behind."""

    def __new__(cls, value: bytes, _spaces: int):
        return super().__new__(cls, value)

    def __init__(self, _value: bytes, spaces: int):
        self.spaces = spaces

    def write_to_stream(self, stream, handler=None, container_ref=None):
        escaped = bytes(self).replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")
        stream.write(b"(" + escaped.replace(b"\r", b"\\r") + b")" + b" " * self.spaces)


# --- trust


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: pki.issue("Late", pki.key_of("p256"), pki.middle(), end=pki.NOW - pki.DAY), "expired"),
        (lambda: pki.issue("Early", pki.key_of("p256"), pki.middle(), start=pki.NOW + pki.DAY), "not-yet-valid"),
        (lambda: pki.issue("Agrees", pki.key_of("p256"), pki.middle(), usage=False), "key-usage"),
        (lambda: pki.issue("Alone", pki.key_of("p256")), "no-path"),
        (lambda: pki.issue("Any", pki.key_of("p256"), pki.middle(), usage=None), ""),
    ],
    ids=["expired", "not-yet-valid", "key-usage", "self-signed", "no-key-usage"],
)
def test_trust_in_the_certificate(build, reason):
    """Trust is about the certificate: the signature stays valid, and the reason is one word."""
    signature = only(examine(pki.sign_pdf(pki.page(), build())))
    assert facts(signature, "valid", "trusted", "trust_reason") == (True, not reason, reason)
    assert len(signature.chain) == (0 if reason else 3)


def test_root_is_not_among_ours():
    """A chain to a root which we do not have is none, even when that root came with the file."""
    stranger = pki.issue("Stranger", pki.key_of("p384"), ca=True)
    signed = pki.sign_pdf(pki.page(), pki.person())
    for roots in ([], [stranger.der]):
        signature = only(examine(signed, roots=roots))
        assert facts(signature, "valid", "trusted", "trust_reason", "chain") == (True, False, "no-path", [])


def test_signer_is_itself_a_root():
    """A self-signed certificate may be configured as a root; its dates count all the same."""
    alone = pki.issue("Alone", pki.key_of("p256"))
    signed = pki.sign_pdf(pki.page(), alone)
    signature = only(examine(signed, roots=[alone.der]))
    assert facts(signature, "trusted", "chain") == (True, [alone.der])
    signature = only(examine(signed, roots=[alone.der], now=pki.NOW + 300 * pki.DAY))
    assert facts(signature, "trusted", "trust_reason", "chain") == (False, "expired", [])


def test_expired_root():
    """A root ends with its certificate, although RFC 5280 would let an anchor live on."""
    old = pki.issue("Old Root", pki.key_of("p384"), ca=True, end=pki.NOW - pki.DAY)
    signed = pki.sign_pdf(pki.page(), pki.issue("Young", pki.key_of("p256"), old))
    assert facts(only(examine(signed, roots=[old.der])), "valid", "trusted", "trust_reason") == (
        True,
        False,
        "expired",
    )


def test_mistakes_of_the_caller_raise():
    """A root that is no certificate and a time without zone are mistakes of ours, not findings."""
    with pytest.raises(ValueError, match=r"parsing|ASN"):
        examine(pki.page(), roots=[b"not a certificate"])
    with pytest.raises(ValueError, match="time zone"):
        examine(pki.page(), now=pki.NOW.replace(tzinfo=None))


# --- CMS

CONTENT = b"The contract.\r\n" * 100
OPENSSL = [
    ("p256", "ECDSA/SHA256", ["-md", "sha256"]),
    ("p384", "ECDSA/SHA384", ["-md", "sha384"]),
    ("p521", "ECDSA/SHA512", ["-md", "sha512"]),
    ("rsa2048", "RSA_PKCS1_V15/SHA256", ["-md", "sha256"]),
    ("rsa2048", "RSA_PSS/SHA384", ["-md", "sha384", "-keyopt", "rsa_padding_mode:pss"]),
    ("rsa2048", "RSA_PSS/SHA256", ["-keyid", "-md", "sha256", "-keyopt", "rsa_padding_mode:pss"]),
]


@pytest.mark.parametrize("enveloping", [False, True], ids=["detached", "enveloping"])
@pytest.mark.parametrize(("kind", "algorithm", "options"), OPENSSL)
def test_cms_of_openssl(tmp_path, kind, algorithm, options, enveloping):
    """Detached and enveloping CMS made by openssl, with signed attributes, are verified."""
    person = pki.person(kind)
    data = pki.openssl_cms(tmp_path, CONTENT, person, *options, *["-nodetach"] * enveloping)
    report = examine(data, None if enveloping else CONTENT)
    assert (report.kind, report.pages) == ("CMS", 0)
    signature = only(report)
    assert verdict(signature) == (True, "", "WHOLE_FILE", "NONE")
    assert facts(signature, "algorithm", "profile", "certificate", "trusted", "revision_sha256") == (
        algorithm,
        "CMS",
        person.der,
        True,
        b"",
    )
    assert signature.chain == [person.der, pki.middle().der, pki.root().der]


def pyhanko_cms(identity, content: bytes, *, detached: bool, digest: str) -> bytes:
    signer = pki.pyhanko_signer(identity)
    return asyncio.run(signer.async_sign_general_data(content, digest, detached=detached, use_cades=True)).dump()


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize(("kind", "digest"), [("ed25519", "sha512"), ("p256", "sha256")])
def test_cades(kind, digest, detached):
    """signing-certificate-v2 makes it CAdES; Ed25519 goes by RFC 8419."""
    data = pyhanko_cms(pki.person(kind), CONTENT, detached=detached, digest=digest)
    signature = only(examine(data, CONTENT if detached else None))
    assert facts(signature, "valid", "reason", "profile", "trusted") == (True, "", "CAdES", True)


def test_ed25519_with_another_hash_is_refused():
    """RFC 8419, 3.1: with Ed25519 the messageDigest is by SHA-512."""
    signer_info_digest = pyhanko_cms(pki.person("ed25519"), CONTENT, detached=True, digest="sha512")
    info = cms.ContentInfo.load(signer_info_digest)
    info["content"]["signer_infos"][0]["digest_algorithm"] = {"algorithm": "sha256"}
    assert facts(only(examine(info.dump(force=True), CONTENT)), "valid", "reason") == (False, "algorithm")


def test_pem(tmp_path):
    """The same CMS is read under PEM armour."""
    der = pki.openssl_cms(tmp_path, CONTENT, pki.person())
    armoured = subprocess.run(
        ["openssl", "cms", "-cmsout", "-inform", "DER", "-outform", "PEM"],
        input=der,
        capture_output=True,
        check=True,
    ).stdout
    assert armoured.startswith(b"-----BEGIN CMS-----")
    assert verdict(only(examine(armoured, CONTENT))) == (True, "", "WHOLE_FILE", "NONE")


def test_streamed_ber(tmp_path):
    """openssl cms -stream writes lengths it does not know yet (BER); the content is in pieces."""
    content = CONTENT * 50
    data = pki.openssl_cms(tmp_path, content, pki.person(), "-nodetach", "-stream", "-indef")
    assert data[:2] == b"\x30\x80"
    assert verdict(only(examine(data))) == (True, "", "WHOLE_FILE", "NONE")
    assert verdict(only(examine(data, content))) == (True, "", "WHOLE_FILE", "NONE")


def test_enveloped_pdf(tmp_path):
    """A CMS around a PDF is a CMS, although the header of the PDF is near its beginning."""
    data = pki.openssl_cms(tmp_path, pki.page(), pki.person(), "-nodetach")
    assert b"%PDF-" in data[:1024]
    report = examine(data)
    assert (report.kind, verdict(only(report))) == ("CMS", (True, "", "WHOLE_FILE", "NONE"))


def test_wrong_content(tmp_path):
    """A detached CMS over another content fails in its messageDigest; over none it says so."""
    data = pki.openssl_cms(tmp_path, CONTENT, pki.person())
    assert facts(only(examine(data, CONTENT + b"!")), "valid", "reason") == (False, "message-digest")
    assert facts(only(examine(data)), "valid", "reason") == (False, "content-missing")
    assert facts(only(examine(data, b"")), "valid", "reason") == (False, "message-digest")


def test_content_inside_is_not_the_content_at_hand(tmp_path):
    """A CMS that brings a content of its own does not vouch for the one it is shown with."""
    data = pki.openssl_cms(tmp_path, CONTENT, pki.person(), "-nodetach")
    assert facts(only(examine(data, CONTENT)), "valid", "reason") == (True, "")
    assert facts(only(examine(data, b"another")), "valid", "reason") == (False, "content-mismatch")


def test_no_signed_attributes(tmp_path):
    """A bare signature over the content is refused: its attributes could be somebody's content."""
    data = pki.openssl_cms(tmp_path, CONTENT, pki.person("rsa2048"), "-noattr")
    assert facts(only(examine(data, CONTENT)), "valid", "reason") == (False, "no-signed-attributes")


@pytest.mark.parametrize(("kind", "options"), [("rsa2048", ["-md", "sha1"]), ("rsa1024", ["-md", "sha256"])])
def test_weak_algorithms(tmp_path, kind, options):
    """SHA-1 and short RSA keys prove nothing any more."""
    data = pki.openssl_cms(tmp_path, CONTENT, pki.person(kind), *options)
    assert facts(only(examine(data, CONTENT)), "valid", "reason") == (False, "algorithm")


def test_two_signers(tmp_path):
    """Each SignerInfo gets its own verdict, in the order of the file."""
    first = pki.openssl_cms(tmp_path, CONTENT, pki.person("p256"), "-nodetach")
    other = pki.person("rsa2048")
    (tmp_path / "first").write_bytes(first)
    (tmp_path / "key").write_bytes(other.key_pem)
    (tmp_path / "cert").write_bytes(other.pem)
    subprocess.run(
        [
            "openssl",
            "cms",
            "-resign",
            "-inform",
            "DER",
            "-outform",
            "DER",
            "-in",
            "first",
            "-out",
            "both",
            "-signer",
            "cert",
            "-inkey",
            "key",
            "-nodetach",
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    report = examine((tmp_path / "both").read_bytes())
    assert sorted(facts(item, "algorithm", "valid", "trusted") for item in report.signatures) == [
        ("ECDSA/SHA256", True, True),
        ("RSA_PKCS1_V15/SHA256", True, True),
    ]


def test_encrypted_cms_is_no_signature(tmp_path):
    """A CMS which is not SignedData cannot be judged."""
    (tmp_path / "cert").write_bytes(pki.person("rsa2048").pem)
    data = subprocess.run(
        ["openssl", "cms", "-encrypt", "-binary", "-outform", "DER", "-aes128", "cert"],
        cwd=tmp_path,
        input=CONTENT,
        check=True,
        capture_output=True,
    ).stdout
    assert facts(examine(data), "kind", "readable", "problem") == ("CMS", False, "not-signed")


# --- unreadable files


def encrypted() -> bytes:
    writer = PdfFileWriter()
    contents = writer.add_object(generic.StreamObject(stream_data=b"BT ET"))
    writer.insert_page(PageObject(contents=contents, media_box=(0, 0, 9, 9)))
    writer.encrypt("owner", "user")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


@functools.cache
def bomb() -> bytes:
    """An object stream of a few hundred kilobytes that holds 256 MiB of spaces."""
    packed = zlib.compress(zlib.compress(b" " * (256 << 20), 9), 9)
    body = b"%PDF-1.7\n"
    at_bomb = len(body)
    body += b"1 0 obj\n<</Type/ObjStm/N 1/First 5/Filter[/FlateDecode/FlateDecode]/Length %d>>stream\n" % len(packed)
    body += packed + b"\nendstream\nendobj\n"
    at_xref = len(body)
    rows = (
        b"\0" + bytes(4) + b"\xff\xff",
        b"\1" + at_bomb.to_bytes(4, "big") + b"\0\0",
        b"\2" + (1).to_bytes(4, "big") + b"\0\0",
        b"\1" + at_xref.to_bytes(4, "big") + b"\0\0",
    )
    table = b"".join(rows)
    body += b"3 0 obj\n<</Type/XRef/Size 4/W[1 4 2]/Root 2 0 R/Length %d>>stream\n" % len(table)
    return body + table + b"\nendstream\nendobj\nstartxref\n%d\n%%%%EOF\n" % at_xref


def nested() -> bytes:
    def change(writer):
        writer.root["/Deep"] = Deep()
        writer.update_root()

    return pki.update(pki.page(), change)


class Deep(generic.NullObject):
    def write_to_stream(self, stream, handler=None, container_ref=None):
        stream.write(b"[" * 20_000 + b"]" * 20_000)


@pytest.mark.parametrize(
    ("build", "kind", "problem"),
    [
        (lambda: b"", "", "not-pdf-or-cms"),
        (lambda: b"garbage" * 1000, "", "not-pdf-or-cms"),
        (lambda: b"\0" * 5000, "", "not-pdf-or-cms"),
        (lambda: b"%PDF-1.7\n" + b"garbage" * 1000, "PDF", "truncated"),
        (lambda: b"%PDF-1.7\ngarbage\nstartxref\n5\n%%EOF\n", "PDF", "damaged"),
        (lambda: pki.page()[:-100], "PDF", "truncated"),
        (lambda: pki.page()[50:], "", "not-pdf-or-cms"),
        (lambda: b"\x30\x05\x02\x01\x01\x05\x00", "CMS", "damaged"),
        (lambda: pyhanko_cms(pki.person(), CONTENT, detached=True, digest="sha256")[:-100], "CMS", "truncated"),
        (lambda: b"-----BEGIN CMS-----\nnot base64\n-----END CMS-----\n", "CMS", "damaged"),
        (encrypted, "PDF", "encrypted"),
        (bomb, "PDF", "too-large-when-decompressed"),
        (nested, "PDF", "nested-too-deep"),
    ],
    ids=[
        "empty",
        "garbage",
        "zeros",
        "pdf-garbage",
        "pdf-short",
        "pdf-cut",
        "pdf-headless",
        "cms-garbage",
        "cms-cut",
        "pem-garbage",
        "encrypted",
        "bomb",
        "nested",
    ],
)
def test_unreadable(build, kind, problem):
    """Whatever cannot be read is reported with one stable word, never raised."""
    data = build()
    assert examine(data) == reading.Report(kind, False, problem, 0, sha256(data), [])


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (encrypted, "encrypted"),
        (bomb, "too-large-when-decompressed"),
        (nested, "nested-too-deep"),
        (lambda: b"x", "not-pdf-or-cms"),
    ],
)
def test_open_pdf_raises_the_same_words(build, kind):
    """The signing side gets the same words, as an exception."""
    with pytest.raises(PdfProblem) as caught:
        reading.open_pdf(io.BytesIO(build()))
    assert caught.value.kind == kind


def test_open_pdf():
    """A good PDF is opened by its first byte to its last, wherever the stream stood."""
    stream = io.BytesIO(pki.page())
    stream.seek(17)
    assert reading.page_count(reading.open_pdf(stream)) == 1


def test_too_many_signatures(monkeypatch):
    """A file with more signatures than we are willing to check is not half checked."""
    monkeypatch.setattr(reading, "SIGNATURES_MAX", 1)
    twice = pki.sign_pdf(pki.sign_pdf(pki.page(), pki.person()), pki.person(), name="Two")
    assert facts(examine(twice), "readable", "problem", "signatures") == (False, "too-many", [])


def test_memory_error_is_not_swallowed(monkeypatch):
    """Out of memory is the business of whoever set the limit."""

    def exhausted(*_args, **_options):
        raise MemoryError

    monkeypatch.setattr(reading, "PdfFileReader", exhausted)
    with pytest.raises(MemoryError):
        examine(pki.page())


def test_quiet(caplog, capsys):
    """Nothing is logged or printed about a file, and the loggers are left as they were."""
    changed = pki.update(pki.sign_pdf(pki.page(), pki.person()), new_contents)
    before = logging.getLogger("pyhanko").level
    caplog.set_level(logging.DEBUG)
    examine(changed)
    assert (caplog.records, capsys.readouterr()) == ([], ("", ""))
    assert logging.getLogger("pyhanko").level == before


# --- the hostile collection, under the limits of the real child

# It imports what is needed once, and forks for each file: the limits are the file's own, and so is the end.
CHILDREN = textwrap.dedent("""
    import io, os, resource, sys
    from datetime import UTC, datetime
    from signer.examine import examine

    def child(data, out):
        os.dup2(out, 1)
        os.dup2(out, 2)
        resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))
        resource.setrlimit(resource.RLIMIT_CPU, (10, 12))
        try:
            report = examine(io.BytesIO(data), [], datetime.now(UTC))
        except MemoryError:
            return 77
        print(report.readable, report.problem or "-", *[s.reason or "valid" for s in report.signatures], flush=True)
        return 0

    while size := sys.stdin.buffer.read(8):
        data = sys.stdin.buffer.read(int.from_bytes(size))
        out = os.memfd_create("said")
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = child(data, out)
            except BaseException as error:
                os.write(2, repr(error).encode())
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said = os.pread(out, 1 << 20, 0)
        os.close(out)
        sys.stdout.buffer.write(b"%d %d\\n%b" % (code, len(said), said))
        sys.stdout.buffer.flush()
""")


@pytest.fixture(scope="module")
def children():
    command = [sys.executable, "-c", CHILDREN]
    with subprocess.Popen(command, cwd=HERE.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.stdin.close()
        assert process.wait(10) == 0


def in_child(children: subprocess.Popen, data: bytes) -> tuple[int, bytes]:
    """(exit code, what was written to either output)"""
    children.stdin.write(len(data).to_bytes(8) + data)
    children.stdin.flush()
    code, size = map(int, children.stdout.readline().split())
    return code, children.stdout.read(size)


@pytest.mark.parametrize("build", [bomb, nested, encrypted, pki.page], ids=lambda build: build.__name__)
def test_child_survives(children, build):
    """Under 512 MiB and 10 s the child reports on what would otherwise take the machine."""
    code, said = in_child(children, build())
    assert (code, REPORT.fullmatch(said) is not None) == (0, True), said


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile(children, name):
    """Each file of the collection ends in a report, in MemoryError, or in the kernel's CPU signal."""
    code, said = in_child(children, HOSTILE[name]())
    assert code in {0, 77, -24, -9}, said.decode()[-2000:]
    assert REPORT.fullmatch(said) is not None if code == 0 else said == b"", said.decode()[-2000:]
