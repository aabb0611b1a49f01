"""
The short way of signer/increment.py: the bytes that pyHanko writes, or none at all.

Whatever it takes is compared with what pyHanko makes of the same document; whatever it leaves is untouched, and gets
from `prepare` what pyHanko gives it.
"""

import errno
import io
import re
import statistics
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.rig import pdf as bench_pdf
from signer import canonical, gap, increment, pades, plain
from signer.increment import Unusual
from tests.hostile import HOSTILE, minimal_pdf, sized_pdf
from tests.signer.outputs.certificates import chain
from tests.signer.outputs.drafts import (
    CATALOG,
    INFO,
    NONE,
    PAGE,
    PAGES,
    STREAM,
    TABLE,
    TRAILER,
    UP,
    draft,
)
from tests.signer.outputs.driver import CORPUS

FILES = sorted(CORPUS.glob("*.pdf"))
IDENTIFIED = TRAILER + b" /ID [<0123456789abcdef> <00>]"
PACKET = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:format>application/pdf</dc:format></rdf:Description></rdf:RDF>'
    b'</x:xmpmeta><?xpacket end="w"?>'
)


def wishes(kind: str = "RSA-2048", **more: Any) -> pades.Wishes:
    moment = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    made = pades.Wishes(chain(kind, 1).ders[0], "sha256", 2000, moment, gap.file_id("test"), "Agreed", "Łódź 水")
    return replace(made, **more)


Result = tuple[gap.Prepared, bytes] | str


def result(prepare: Callable[..., gap.Prepared], document: bytes, wanted: pades.Wishes) -> Result:
    """What was prepared and the document then; for one that is refused, the word for it."""
    stream = io.BytesIO(document)
    try:
        return prepare(stream, wanted), stream.getvalue()
    except pades.PdfProblem as problem:
        return problem.kind


def by_pyhanko(document: bytes, wanted: pades.Wishes) -> Result:
    def stand_aside(*_: Any) -> gap.Prepared:
        raise Unusual

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pades, "append", stand_aside)
        return result(pades.prepare, document, wanted)


def short(stream: Any, wanted: pades.Wishes) -> gap.Prepared:
    return increment.append(stream, pades._change(wanted))


def taken(document: bytes, wanted: pades.Wishes | None = None) -> bool:
    """Whether the short way takes it; if so it must be as pyHanko does it, if not nothing must have been written."""
    stream = io.BytesIO(document)
    wanted = wanted or wishes()
    try:
        prepared = short(stream, wanted)
    except Unusual:
        assert stream.getvalue() == document
        return False
    assert (prepared, stream.getvalue()) == by_pyhanko(document, wanted)
    return True


# --- what is taken -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["RSA-2048", "P-256", "Ed25519"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_corpus(path: Path, kind: str) -> None:
    """Every real document is taken, with each kind of key: the extensions and the metadata depend on it."""
    assert taken(path.read_bytes(), wishes(kind))


@pytest.mark.parametrize("path", [FILES[0], *FILES[-6:]], ids=lambda path: path.stem)
def test_again_and_again(path: Path) -> None:
    """A document that was signed is taken again: its form, its extensions, its metadata and its name are there."""
    document = path.read_bytes()
    for kind in ("RSA-2048", "P-256", "RSA-2048", "Ed25519"):
        assert taken(document, wishes(kind))
        _, document = result(short, document, wishes(kind))
    assert b"(Signature4)" in document


@pytest.mark.parametrize(
    "document",
    [bench_pdf.minimal_pdf(), minimal_pdf(), minimal_pdf(40), sized_pdf(plain.HEAD_BYTES + 500_000), draft()],
    ids=["bench", "minimal", "forty pages", "large", "draft"],
)
def test_made_documents(document: bytes, tmp_path: Path) -> None:
    """Documents that are made here, in memory and in a file; the large one is more than what is kept of it."""
    assert taken(document)
    path = tmp_path / "document.pdf"
    path.write_bytes(document)
    with path.open("r+b") as stream:
        prepared = short(stream, wishes())
        assert (prepared, path.read_bytes()) == by_pyhanko(document, wishes())
        assert prepared.content_digest == gap.content_digest(stream, prepared, "sha256")


@pytest.mark.parametrize("form", [TABLE, STREAM, UP])
@pytest.mark.parametrize("eol", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("trailer", [TRAILER, IDENTIFIED, b"/Root 1 0 R", b"/Custom [ /A << /B 3 >> ] " + TRAILER])
def test_forms(form: str, eol: bytes, trailer: bytes) -> None:
    """Tables and streams, with each line end, with and without identifiers and information."""
    for packed in [()] if form == TABLE else [(), (1, 2, 3, 5), (3,), (1, 5)]:
        assert taken(draft(form=form, eol=eol, trailer=trailer, packed=packed))
        more = draft(form=form, eol=eol, trailer=trailer, packed=packed, version=b"2.0")
        assert taken(more, wishes("P-256"))


def test_revisions() -> None:
    """Of each object the newest mention counts, of the trailer's entries the newest that are there."""
    first = draft(trailer=IDENTIFIED + b" /Old true /Both 1")
    turned = PAGE.replace(b">>", b"/Rotate 90 >>")
    for form in (TABLE, STREAM, UP):
        second = draft({3: turned}, form, before=first, trailer=TRAILER + b" /Both 2")
        assert taken(second)
        assert b"/Rotate 90" in result(short, second, wishes())[1][len(second) :]
        assert taken(draft({7: b"null"}, form, before=second))
        # An older section says otherwise of the page, but it is free now.
        assert not taken(draft(form=form, before=first, free=(3,)))
    mixed = draft({3: turned}, before=draft(form=STREAM))
    assert taken(mixed)
    assert b"/XRef" in result(short, mixed, wishes())[1][len(mixed) :]


@pytest.mark.parametrize("form", [TABLE, STREAM])
@pytest.mark.parametrize(
    "end", [b"", b" ", b"\n\n", b"\r\n\r\n", b"\r\r\n", b" \t\n  \n", b"\0\0\0", b"\n\x0c", b"\n" * 900]
)
def test_white_space_at_the_end(form: str, end: bytes) -> None:
    """7.5.5: behind %%EOF some writers leave blanks, empty lines or zeros. The revision follows them."""
    document = draft(form=form).removesuffix(b"\n") + end
    assert taken(document)
    again = result(short, document, wishes())[1]
    assert again.startswith(document)
    assert taken(again + end)


@pytest.mark.parametrize("blank", [b" ", b"\n", b"\0"])
def test_much_white_space_at_the_end(blank: bytes) -> None:
    """pyHanko finds no end before some kilobyte of white space; what is taken of what it finds is what it does."""
    end = len(draft()) - draft().rindex(b"\nstartxref")
    for count in range(plain.TAIL_BYTES - 40, plain.TAIL_BYTES + 5):
        assert taken(draft() + blank * count) == (count + end <= plain.TAIL_BYTES)
    document = draft() + blank * 2 * plain.TAIL_BYTES
    assert not taken(document)
    assert isinstance(result(pades.prepare, document, wishes()), str)


def test_many_objects_and_revisions() -> None:
    """Reports have a hundred thousand objects, and what goes round has a revision for each who signed it."""
    many = draft(dict.fromkeys(range(6, 70_000), b"null"))
    assert taken(many)
    revised = draft()
    for _ in range(60):
        revised = draft({7: b"null"}, before=revised)
    assert taken(revised)


ESIC = b"/ESIC << /Type /DeveloperExtensions /BaseVersion /1.7 /ExtensionLevel 1 >>"
PACKED = zlib.compress(PACKET)
# Objects 6 and up, for those who refer to them.
MORE = {
    6: b"<< /FT /Sig /T (Signature1) /Rect [0 0 0 0] >>",
    7: b"<< /FT /Tx /T <feff00530069> /V (text) >>",
    8: b"<< /Fields [7 0 R] >>",
    9: b"[ 6 0 R 7 0 R ]",
    10: b"<< /Type /Metadata /Subtype /XML /Length %d >>\nstream\n%b\nendstream" % (len(PACKET), PACKET),
    11: b"<< /Filter [/FlateDecode] /Type /Metadata /Length %d >>\nstream\n%b\nendstream" % (len(PACKED), PACKED),
    12: b"<< /Font << /F1 4 0 R >> >>",
    13: b"<< /Type /Pages /Parent 2 0 R /Kids [3 0 R 4 0 R] /Count 2 >>",
    14: b"[ ]",
}


@pytest.mark.parametrize(
    ("objects", "more"),
    [
        ({1: CATALOG}, b"/Version /1.3"),
        ({1: CATALOG}, b"/Version /2.0"),
        ({1: CATALOG}, b"/Version /1.9 /Lang (en)"),
        ({1: CATALOG}, b"/Extensions << /ADBE << /BaseVersion /1.7 /ExtensionLevel 8 >> >>"),
        ({1: CATALOG}, b"/Extensions << %b >>" % ESIC),
        ({1: CATALOG}, b"/AcroForm 8 0 R"),
        ({1: CATALOG}, b"/AcroForm << /Fields [6 0 R] /NeedAppearances true /DA (/F 0 Tf) /Q -0.0 >>"),
        ({1: CATALOG}, b"/AcroForm << /Fields [] /SigFlags 3.0 >>"),
        ({1: CATALOG}, b"/AcroForm << /SigFlags 1 /Fields 9 0 R >>"),
        ({1: CATALOG}, b"/AcroForm << /SigFlags 3 /Fields 9 0 R >> /Extensions << %b >>" % ESIC),
        ({1: CATALOG}, b"/Metadata 10 0 R"),
        ({1: CATALOG}, b"/Metadata 11 0 R /Version /1.4"),
        ({2: PAGES}, b"/Resources << /ProcSet [/PDF] >>"),
        ({2: PAGES}, b"/Resources 12 0 R"),
        ({2: PAGES.replace(b"3 0 R", b"13 0 R")}, b""),
        ({3: PAGE}, b"/Annots []"),
        ({3: PAGE}, b"/Annots [ << /Type /Annot >> 6 0 R]"),
        ({3: PAGE}, b"/Annots 9 0 R"),
        ({3: PAGE}, b"/Annots 14 0 R"),
        ({5: INFO}, b"/ModDate (D:20200101)"),
        ({5: b"<< /Producer (pyHanko 0.1) >>"}, b""),
        ({5: b"<< /Producer <feff006e00f6> >>"}, b""),
        ({5: b"<< /Producer (two\nlines) >>"}, b""),
        ({5: b"<< /Producer (Somebody; %b) >>" % pades.VENDOR.encode()}, b""),
        ({5: b"<< >>"}, b""),
    ],
)
def test_what_documents_have(objects: dict[int, bytes], more: bytes) -> None:
    """The catalog, the pages and the information as producers write them, in tables and in object streams."""
    ((number, body),) = objects.items()
    changed = MORE | {number: body[:-2] + more + b" >>"}
    loose = {10, 11, 4}
    for kind in ("RSA-2048", "P-256"):
        for trailer in (IDENTIFIED, b"/Root 1 0 R"):
            assert taken(draft(changed, trailer=trailer), wishes(kind))
            assert taken(draft(changed, UP, trailer=trailer, packed={1, 2, 3, 5, *MORE} - loose), wishes(kind))
            assert taken(draft(changed, trailer=trailer, version=b"1.4"), wishes(kind))


SPELLED = [
    *(b"0", b"-17", b"+7", b"007", b"-0", b"1.0", b"-0.0", b"-.5", b"5.", b"+.25", b"7.50", b"595.276", b"0.000001"),
    *(b"12 0 R", b"12 7 R", b"true", b"false", b"null", b"/A", b"/", b"/A#20B", b"/#41", b"/a#c3#a9", b"/p#2F#23q"),
    *(b"()", b"<>", b"(plain)", b"(a(b)c)", rb"(\n\r\t\b\f\(\)\\)", rb"(\101\7\08)".replace(b"8", b"x"), b"(a\r\nb)"),
    *(b"<4>", b"<48 >".replace(b" ", b""), b"(caf\xe9)", b"(\x18\x80\x92\xa0)", b"(\x9f)", b"(\xad)", b"(\x7f)"),
    *(b"(\xfe\xff\0H\0i)", b"(\xfe\xff\x4f\x60)", b"(\xff\xfeH\0i\0)", b"(\xef\xbb\xbf\xc3\xa9)", b"(\xfe\xff\xd8\0)"),
    *(b"[]", b"[ [ ] << >> ]", b"[1 0 R/A(b)<41>2]", b"<</A<</B[1]>>>>", b"[ %note\n 1 %\r]", b"[1\0\t\x0c2]"),
]
ODD = [
    *(
        b"12345678901",
        b"0.0000001",
        b"1e5",
        b"--1",
        b"1-2",
        b"1,5",
        b"0 0 R",
        b"04 0 R",
        b"4 00 R",
        b"4  0 R",
        b"4 0 r",
    ),
    *(b"/A#", b"/A#4", b"/A#4g", b"/a#e9", b"/a#09", b"/a\xe9", b"/a{b", b"nul", b"truest", b"TRUE", b"{}", b"[ 1 } ]"),
    *(
        rb"(\q)",
        rb"(\400)",
        rb"(\18)",
        b"(\\\n)",
        b"(a(b(c)d)e)",
        b"(open",
        b"(a))",
        b"<4 8>",
        b"<4g>",
        b"(\xfe\xff\0\0)",
    ),
    *(b"(\xfe\xff\0\xfe\0\xff)", b"[ 1", b"[ 1 >>", b"<< /A 1 ]", b"<< /A >>", b"<< (A) 1 >>", b"<< /A 1 /A 2 >>"),
    *(b"<< /A 1 /#41 2 >>", b"1 stream", b"\x0b1", b"\x80", b"% 1", b""),
]


@pytest.mark.parametrize("value", SPELLED)
def test_spelling(value: bytes) -> None:
    """Names, numbers, strings and containers, in the page and in the information, become what pyHanko writes."""
    objects = {3: PAGE[:-2] + b"/X " + value + b">>", 5: INFO[:-2] + b"/X" + b" " + value + b"\n>>"}
    assert taken(draft(objects))
    assert taken(draft(objects, STREAM, packed=(3, 5)))


@pytest.mark.parametrize("value", ODD)
def test_odd_spelling(value: bytes) -> None:
    """What is wrong, what pyHanko does not take, and what it changes is not taken."""
    assert not taken(draft({3: PAGE[:-2] + b"/X " + value + b" >>"}))


def test_every_character() -> None:
    """Strings of each byte: in PDFDocEncoding, in hexadecimal, and in UTF-16 each character up to U+0300."""
    bytes_ = b" ".join(rb"(a\%03o) <61%02x>" % (code, code) for code in range(256))
    characters = b" ".join(b"<feff0061%04x>" % code for code in range(1, 0x300))
    assert taken(draft({5: INFO[:-2] + b"/B [%b] /C [%b] >>" % (bytes_, characters)}))


@pytest.mark.parametrize("text", ["", "plain", "(a) \\ /b\n", "Łódź", "水", "€ž", "\U0001f58b", "a" * 255])
def test_reason_and_location(text: str) -> None:
    assert taken(draft(), wishes(reason=text, location=text))
    assert taken(draft(), wishes(reason=text, location=""))


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/St_Johns"])
def test_time_zones(zone: str) -> None:
    """A time is written with the offset that it has, one after the other."""
    moments = [wishes().time, wishes().time.astimezone(ZoneInfo(zone)), datetime(2026, 1, 2, 3, 4, 5)]  # noqa: DTZ001
    assert all(taken(draft(), wishes(kind, time=moment)) for moment in moments for kind in ("RSA-2048", "P-256"))


@pytest.mark.parametrize("digest", ["sha384", "sha512"])
def test_digests(digest: str) -> None:
    assert taken(draft(), wishes(digest=digest))
    assert not taken(draft(), wishes(digest="sha1"))
    assert not taken(draft(), wishes(cms_bytes_max=0))


def certificate(curve: ec.EllipticCurve, *names: x509.ObjectIdentifier) -> bytes:
    key = ec.generate_private_key(curve)
    subject = x509.Name([x509.NameAttribute(name, "Somebody") for name in names])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(datetime(2024, 1, 1)).not_valid_after(datetime(2054, 1, 1))  # noqa: DTZ001
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def test_certificates() -> None:
    """The curves of ISO/TS 32002 and others; without a name that pyHanko can show, and without sense, it has the word."""
    common, organization = NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME
    for curve in (ec.SECP521R1(), ec.BrainpoolP384R1(), ec.SECP256K1()):
        assert taken(draft(), wishes(certificate=certificate(curve, common)))
    assert taken(draft(), wishes(certificate=certificate(ec.SECP256R1(), organization)))
    for der in (certificate(ec.SECP256R1(), NameOID.SURNAME), b"", b"\x30\x00"):
        assert not taken(draft(), wishes(certificate=der))


# --- any document ------------------------------------------------------------------------------------------

WORDS = st.sampled_from([*SPELLED, *SPELLED, *ODD])
SPACES = st.sampled_from([b" ", b"\n", b"\r\n", b"\t", b"\0", b"\x0c", b"", b" %c\n", b"%\r", b" "])
RAW = st.binary(max_size=12).map(
    lambda raw: b"(" + raw.replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)") + b")"
)
HEX = st.binary(max_size=12).map(lambda raw: b"<" + raw.hex().encode() + b">")
VALUES = st.recursive(
    WORDS | RAW | HEX,
    lambda inner: (
        st.lists(st.tuples(SPACES, inner), max_size=4).map(
            lambda pairs: b"[" + b"".join(space + value for space, value in pairs) + b"]"
        )
        | st.lists(st.tuples(SPACES, inner), max_size=3).map(
            lambda pairs: (
                b"<<" + b"".join(b"/K%d" % n + space + value for n, (space, value) in enumerate(pairs)) + b">>"
            )
        )
    ),
    max_leaves=6,
)
EXTRAS = st.sampled_from(
    [
        *[
            (1, b"/Lang (en)"),
            (1, b"/Version /1.6"),
            (1, b"/Version /2.0"),
            (1, b"/AcroForm 8 0 R"),
            (1, b"/AcroForm null"),
        ],
        *[(1, b"/AcroForm << /Fields 9 0 R >>"), (1, b"/Metadata 10 0 R"), (1, b"/Metadata null"), (1, b"/Perms null")],
        *[(2, b"/Resources 12 0 R"), (2, b"/Resources 99 0 R"), (2, b"/Count 1"), (2, b"/Rotate 0")],
        *[(3, b"/Annots 9 0 R"), (3, b"/Annots [ ]"), (3, b"/Annots null"), (3, b"/Type /Page"), (3, b"/Rotate 90")],
        *[(5, b"/ModDate (D:2020)"), (5, b"/Producer (x)"), (5, b"/Trapped /False")],
    ]
)


@settings(max_examples=400, deadline=None)
@given(
    extras=st.lists(EXTRAS, max_size=2),
    values=st.lists(st.tuples(st.sampled_from([1, 2, 3, 5]), VALUES), max_size=3),
    form=st.sampled_from([TABLE, STREAM, UP]),
    packed=st.sets(st.sampled_from([1, 2, 3, 5])),
    eol=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    version=st.sampled_from([b"1.4", b"1.7", b"2.0", b"1.x"]),
    trailer=st.sampled_from([TRAILER, IDENTIFIED, b"/Root 1 0 R", TRAILER + b" /ID [(a) (b)]", TRAILER + b" /X (a)"]),
    kind=st.sampled_from(["RSA-2048", "P-256"]),
    reason=st.text(max_size=8),
)
def test_any_document(
    extras: list[tuple[int, bytes]],
    values: list[tuple[int, bytes]],
    form: str,
    packed: set[int],
    kind: str,
    reason: str,
    **more: Any,
) -> None:
    """Whatever stands in a document: it is taken as pyHanko takes it, or left to it."""
    objects = {1: CATALOG, 2: PAGES, 3: PAGE, 5: INFO, **MORE}
    for count, (number, text) in enumerate([*extras, *((number, b"/X%d " + value) for number, value in values)]):
        objects[number] = objects[number][:-2] + text.replace(b"%d", b"%d" % count, 1) + b" >>"
    document = draft(objects, form, packed=packed if form != TABLE else (), **more)
    if not taken(document, wishes(kind, reason=reason)):
        assert result(pades.prepare, document, wishes(kind)) == by_pyhanko(document, wishes(kind))


@settings(max_examples=600, deadline=None)
@given(
    data=st.data(),
    document=st.sampled_from([draft(MORE, before=draft(trailer=IDENTIFIED)), draft(MORE, UP, packed=(1, 3, 5))]),
)
def test_any_damage(data: st.DataObject, document: bytes) -> None:
    """Bytes changed, left out or put in anywhere: what is still taken is what pyHanko takes."""
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(document) - 1))
        cut = data.draw(st.integers(0, 4))
        document = document[:place] + data.draw(st.binary(max_size=4) | WORDS) + document[place + cut :]
    taken(document)


# --- what is left to pyHanko -------------------------------------------------------------------------------


def with_entry(number: int, entry: bytes, body: bytes = b"") -> bytes:
    body = body or {1: CATALOG, 2: PAGES, 3: PAGE, 5: INFO}[number]
    return draft(MORE | {number: body[:-2] + entry + b" >>"})


def changed(old: bytes, new: bytes, document: bytes = b"") -> bytes:
    document = document or draft(trailer=IDENTIFIED)
    assert document.count(old) == 1, old
    return document.replace(old, new)


ASIDE = {
    "permissions": lambda: with_entry(1, b"/Perms << >>"),
    "a version that is none": lambda: with_entry(1, b"/Version /1.70"),
    "an extension of another level": lambda: with_entry(1, b"/Extensions << /ESIC << /ExtensionLevel 5 >> >>"),
    "extensions elsewhere": lambda: with_entry(1, b"/Extensions 12 0 R"),
    "extensions that are an array": lambda: with_entry(1, b"/Extensions []"),
    "a form without fields": lambda: with_entry(1, b"/AcroForm << >>"),
    "a field with kids": lambda: draft(
        MORE | {1: CATALOG[:-2] + b"/AcroForm 8 0 R >>", 7: MORE[7][:-2] + b"/Kids [] >>"}
    ),
    "a field with a parent": lambda: draft(
        MORE | {1: CATALOG[:-2] + b"/AcroForm 8 0 R >>", 7: MORE[7][:-2] + b"/Parent 6 0 R >>"}
    ),
    "a field without a type": lambda: draft(MORE | {1: CATALOG[:-2] + b"/AcroForm 8 0 R >>", 7: b"<< /T (a) >>"}),
    "a field with a type elsewhere": lambda: draft(
        MORE | {1: CATALOG[:-2] + b"/AcroForm 8 0 R >>", 7: b"<< /FT 15 0 R /T (Signature1) >>", 15: b"/Sig"}
    ),
    "a field whose name is no text": lambda: draft(
        MORE | {1: CATALOG[:-2] + b"/AcroForm 8 0 R >>", 7: b"<< /FT /Tx /T <00> >>"}
    ),
    "the name is in use": lambda: draft(
        MORE | {1: CATALOG[:-2] + b"/AcroForm 8 0 R >>", 7: b"<< /FT /Tx /T (Signature1) >>"}
    ),
    "a field twice": lambda: with_entry(1, b"/AcroForm << /Fields [6 0 R 6 0 R] >>"),
    "metadata that are no stream": lambda: with_entry(1, b"/Metadata 12 0 R"),
    "metadata in the catalog": lambda: with_entry(1, b"/Metadata << >>"),
    "metadata with parameters": lambda: draft({1: CATALOG[:-2] + b"/Metadata 6 0 R >>", 6: predicted(PACKET)}),
    "metadata that are no XML": lambda: draft(
        MORE | {1: CATALOG[:-2] + b"/Metadata 10 0 R >>", 10: MORE[10].replace(b"<x:", b"<y:")}
    ),
    "no pages": lambda: with_entry(2, b"", PAGES.replace(b"/Count 1", b"/Count 0")),
    "too many pages": lambda: with_entry(2, b"", PAGES.replace(b"/Count 1", b"/Count 2147483648")),
    "pages that are no number": lambda: with_entry(2, b"", PAGES.replace(b"/Count 1", b"/Count 1.0")),
    "kids elsewhere": lambda: with_entry(2, b"", PAGES.replace(b"[3 0 R]", b"14 0 R")),
    "a kid that is no page": lambda: with_entry(3, b"", PAGE.replace(b"/Type /Page", b"/Type /Leaf")),
    "a node that is no pages": lambda: draft(
        MORE | {2: PAGES.replace(b"3 0 R", b"13 0 R 3 0 R"), 13: MORE[13].replace(b"/Pages", b"/Leaves")}
    ),
    "a page that is its parent": lambda: with_entry(2, b"", PAGES.replace(b"3 0 R", b"2 0 R")),
    "resources that are not there": lambda: with_entry(2, b"/Resources 77 0 R"),
    "annotations that are none": lambda: with_entry(3, b"/Annots null"),
    "annotations that are a dictionary": lambda: with_entry(3, b"/Annots 12 0 R"),
    "a producer that is a name": lambda: draft({5: b"<< /Producer /A >>"}),
    "a producer that is a dictionary": lambda: draft({5: b"<< /Producer << >> >>"}),
    "a number before the page": lambda: draft({3: b"42 " + PAGE}),
    "one object for two things": lambda: draft(trailer=b"/Root 1 0 R /Info 3 0 R"),
    "an object of a later generation": lambda: changed(b"/Info 5 0 R", b"/Info 5 1 R"),
    "information in the trailer": lambda: draft(trailer=b"/Root 1 0 R /Info << >>"),
    "information that is an array": lambda: draft({5: b"[]"}),
    "an encrypted document": lambda: draft(trailer=TRAILER + b" /Encrypt << >>"),
    "references of two kinds": lambda: draft(trailer=TRAILER + b" /XRefStm 20"),
    "identifiers elsewhere": lambda: draft(trailer=TRAILER + b" /ID 14 0 R"),
    "three identifiers": lambda: draft(trailer=TRAILER + b" /ID [<00> <01> <02>]"),
    "an identifier that is a number": lambda: draft(trailer=TRAILER + b" /ID [1 2]"),
    "strings in the trailer": lambda: draft(trailer=TRAILER + b" /X [ (text) ]"),
    "a size that is too small": lambda: draft(size=5),
    "a size that is no whole number": lambda: changed(b"/Size 6", b"/Size 6.0"),
    "no size": lambda: changed(b"/Size 6", b""),
    "no size before": lambda: draft({3: PAGE + b" "}, before=changed(b"/Size 6", b"")),
    "a trailer that is an array": lambda: re.sub(rb"trailer\n<<(.*)>>", rb"trailer\n[\1]", draft()),
    "garbage before the header": lambda: b"\n" + draft(),
    "another header": lambda: changed(b"%PDF-1.7", b"%PDF-1.x"),
    "garbage at the end": lambda: draft() + b"%",
    "a number on the line of startxref": lambda: changed(b"startxref\n", b"startxref "),
    "a loop of tables": lambda: changed(b"/Info", b"/Prev %d /Info" % draft().index(b"xref")),
    "a table that is shifted": lambda: changed(b"xref\n0", b"xref\n\n0"),
    "rows that end otherwise": lambda: re.sub(rb"( [nf]) \n", rb"\1\n\n", draft()),
    "rows that are none": lambda: changed(b" 65535 f", b" 6553x f"),
    "rows of unknown kind": lambda: changed(b" 65535 f", b" 65535 m"),
    "rows that are missing": lambda: changed(b"xref\n0 6", b"xref\n0 7"),
    "rows for an object twice": lambda: changed(b"trailer", b"3 1\n0000000015 00000 n \ntrailer"),
    "no rows": lambda: changed(b"trailer", b"9 0\ntrailer"),
    "a place that is wrong": lambda: changed(b"0000000015 00000 n", b"0000000016 00000 n"),
    "a place behind the end": lambda: changed(b"0000000015 00000 n", b"9999999999 00000 n"),
    "a generation": lambda: changed(b"0000000015 00000 n", b"0000000015 00001 n"),
    "a free object": lambda: changed(b"0000000015 00000 n", b"0000000015 00000 f"),
    "an object of another number": lambda: changed(b"\n3 0 obj", b"\n7 0 obj"),
    "an object that does not end": lambda: changed(b">>\nendobj\n4 0", b">>\nend\n4 0"),
    "a stream for the page": lambda: draft({3: PAGE + b"\nstream\n\nendstream"}),
    "a type that is an unknown row": lambda: draft({1: CATALOG}, STREAM, packed=(1,)).replace(
        b"/W [1 3 1]", b"/W [0 4 1]"
    ),
    "a filter": lambda: changed(b"/FlateDecode", b"/FlateEncode", draft(form=STREAM)),
    "a predictor": lambda: changed(b"/Predictor 12", b"/Predictor 15", draft(form=UP)),
    "rows without a predictor": lambda: draft(form=NONE),
    "rows of another length": lambda: changed(b"/Columns 5", b"/Columns 8", draft(form=UP)),
    "another parameter": lambda: changed(b"/Predictor 12", b"/Predictor 12 /Colors 1", draft(form=UP)),
    "an index that falls": lambda: changed(b"/Index [1 6]", b"/Index [3 4 1 2]", draft(form=STREAM)),
    "an index that is odd": lambda: changed(b"/Index [1 6]", b"/Index [1 6 9]", draft(form=STREAM)),
    "more rows than announced": lambda: changed(b"/Index [1 6]", b"/Index [1 5]", draft(form=STREAM)),
    "a type of stream": lambda: changed(b"/XRef", b"/XReg", draft(form=STREAM)),
    "cross-references that are an array": lambda: re.sub(
        rb"<<( /Type /XRef.*)>>\nstream", rb"[\1]\nstream", draft(form=STREAM)
    ),
    "an object stream of a generation": lambda: draft(form=STREAM, packed=(1, 2, 3, 4, 5), generation=1),
    "a length elsewhere": lambda: re.sub(rb"(/XRef.*/Length) \d+", rb"\1 4 0 R", draft(form=STREAM)),
    "parameters of an object stream": lambda: packed_badly(b"1 0 3 %d ", about=b"/DecodeParms << /Predictor 2 >>"),
    "a member at another index": lambda: packed_badly(b"3 0 1 %d "),
    "a member twice": lambda: packed_badly(b"1 0 1 %d "),
    "a member of no number": lambda: packed_badly(b"1 0 x %d "),
    "a member behind an odd blank": lambda: packed_badly(b"1 0 3\x0b%d "),
    "a member that goes on": lambda: packed_badly(b"1 0 3 %d ", between=b" stream\n"),
    "fewer members than there are": lambda: packed_badly(b"1 0 3 %d ", count=1),
    "an object stream that is too long": lambda: packed_badly(b"1 0 3 %d ", longer=11),
    "a member behind a blank": lambda: packed_badly(b"1 0 3 %d ", before=b" "),
}


def packed_badly(
    pairs: bytes, about: bytes = b"", before: bytes = b"", between: bytes = b"\n", count: int = 2, longer: int = 0
) -> bytes:
    """Catalog and page in an object stream with this list of members."""
    pairs = pairs % (len(CATALOG) + len(between)) if b"%d" in pairs else pairs
    data = pairs + before + CATALOG + between + PAGE
    about += b" /Type /ObjStm /N %d /First %d /Length %d" % (count, len(pairs), len(data) + longer)
    return draft({6: b"<< %b >>\nstream\n%b\nendstream" % (about, data)}, STREAM, members={1: (6, 0), 3: (6, 1)})


def predicted(data: bytes) -> bytes:
    """Metadata in one row that is written with a predictor."""
    packed = zlib.compress(b"\2" + data)
    about = b"/Type /Metadata /Filter /FlateDecode /DecodeParms << /Predictor 12 /Columns %d >>" % len(data)
    return b"<< %b /Length %d >>\nstream\n%b\nendstream" % (about, len(packed), packed)


@pytest.mark.parametrize("name", ASIDE)
def test_aside(name: str) -> None:
    """What asks for judgement, or is done otherwise by pyHanko, or refused by it, is left to it."""
    document = ASIDE[name]()
    assert not taken(document)
    assert result(pades.prepare, document, wishes()) == by_pyhanko(document, wishes())


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str) -> None:
    """Malicious documents: left alone, or taken as pyHanko takes them, and that in no time."""
    document = HOSTILE[name]()
    began = time.process_time()
    stream = io.BytesIO(document)
    try:
        short(stream, wishes())
    except Unusual:
        assert stream.getvalue() == document
        assert name not in {"flate_bomb_page_content", "page_parent_loop"}
    else:
        assert stream.getvalue() == by_pyhanko(document, wishes())[1]
    assert time.process_time() - began < 1.0


def deep() -> bytes:
    """As many and as large objects as are read, and all of them hard to read: fields of a form, each in brackets."""
    field = b"<< /FT /Tx /T (a) /X [%b] >>" % (b"[][][]<<>>" * 6_000)
    fields = {20 + count: field.replace(b"(a)", b"(a%d)" % count) for count in range(increment.FIELDS_MAX)}
    refs = b" ".join(b"%d 0 R" % number for number in fields)
    return draft({1: CATALOG[:-2] + b"/AcroForm << /Fields [%b] >> >>" % refs, **fields})


def many_sections() -> bytes:
    document = draft()
    for _ in range(plain.SECTIONS_MAX):
        document = draft({7: b"null"}, before=document)
    return document


def many_parts() -> bytes:
    return draft({7 + 2 * count: b"null" for count in range(plain.PARTS_MAX)})


def bomb() -> bytes:
    """Object streams that are large when they are decoded: each of the fields of a form in another one."""
    objects, members = {}, {}
    fields = range(100, 100 + increment.FIELDS_MAX)
    for number in fields:
        content = b"%d 0 << /FT /Tx /T (a%d) >>" % (number, number)
        data = zlib.compress(content + bytes(plain.STREAM_BYTES_MAX - 100))
        about = b"/Type /ObjStm /N 1 /First 6 /Filter /FlateDecode /Length %d" % len(data)
        objects |= {number: b"", number + 100: b"<< %b >>\nstream\n%b\nendstream" % (about, data)}
        members[number] = number + 100, 0
    refs = b" ".join(b"%d 0 R" % number for number in fields)
    objects[1] = CATALOG[:-2] + b"/AcroForm << /Fields [%b] >> >>" % refs
    return draft(objects, STREAM, members=members)


@pytest.mark.parametrize("document", [deep, bomb, many_sections, many_parts], ids=lambda make: make.__name__)
def test_much_to_read(document: Callable[[], bytes]) -> None:
    """What would take long is left to pyHanko soon."""
    made = io.BytesIO(document())
    began = time.process_time()
    with pytest.raises(Unusual):
        short(made, wishes())
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize(
    ("module", "name", "below", "document"),
    [
        (plain, "SIZE_MAX", 5, draft),
        (plain, "SECTIONS_MAX", 1, lambda: draft({3: PAGE + b" "}, before=draft())),
        (plain, "PARTS_MAX", 1, lambda: draft({3: PAGE + b" "}, before=draft())),
        (plain, "ENTRIES_MAX", 5, draft),
        (plain, "OBJECT_BYTES_MAX", 3_000, lambda: draft({3: PAGE[:-2] + b"/X [" + b"1 " * 2_000 + b"] >>"})),
        (plain, "PARSED_BYTES_MAX", 200, draft),
        (plain, "STREAM_BYTES_MAX", 100, lambda: packed_badly(b"1 0 3 %d ")),  # which is not bad
        (plain, "STREAM_BYTES_MAX", 900, lambda: draft({3: PAGE + b" " * 900}, STREAM, packed=(1, 3))),
        (plain, "DECODED_BYTES_MAX", 60, lambda: draft(form=STREAM, packed=(1, 3))),
        (canonical, "DEPTH_MAX", 2, lambda: draft({3: PAGE[:-2] + b"/X [[]] >>"})),
        (increment, "PAGE_LEVELS_MAX", 1, lambda: draft(MORE | {2: PAGES.replace(b"3 0 R", b"13 0 R")})),
        (increment, "FIELDS_MAX", 1, lambda: draft(MORE | {1: CATALOG[:-2] + b"/AcroForm << /Fields 9 0 R >> >>"})),
    ],
)
def test_limits(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, below: int, document: Callable[[], bytes]
) -> None:
    """Each limit counts what it says: at one less than the document has, it is left."""
    made = document()
    assert taken(made)
    assert below < getattr(module, name)
    monkeypatch.setattr(module, name, below)
    assert not taken(made)


# --- where it is used --------------------------------------------------------------------------------------


def test_prepare_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyHanko is asked for what is not plain, and for nothing else."""

    def refuse(_: Any) -> Any:
        raise pades.PdfProblem("asked")

    monkeypatch.setattr(pades, "open_pdf", refuse)
    for path in FILES:
        prepared, document = result(pades.prepare, path.read_bytes(), wishes())
        assert isinstance(prepared, gap.Prepared)
        assert document.startswith(path.read_bytes())
    assert result(pades.prepare, draft() + b"%", wishes()) == "asked"


def test_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full is no reason to try it another way: the problem says what the system said."""
    monkeypatch.setattr(pades, "open_pdf", lambda _: pytest.fail("tried again"))

    class Full(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(pades.PdfProblem) as caught:
        pades.prepare(Full(draft()), wishes())
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC


def test_speed() -> None:
    """
    At least twice as fast as pyHanko with every document of the corpus: one after the other in turns, so that whatever
    else the machine does slows both.
    """

    def took(prepare: Callable[..., Result], document: bytes) -> float:
        began = time.perf_counter()
        assert not isinstance(prepare(document), str)
        return time.perf_counter() - began

    for path in FILES:
        document = path.read_bytes()
        ways = [lambda d: result(pades.prepare, d, wishes()), lambda d: by_pyhanko(d, wishes())]
        times = [[took(way, document) for way in ways] for _ in range(9)]
        ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
        assert theirs > 2 * ours, f"{path.name}: {theirs * 1e6:.0f} and {ours * 1e6:.0f} us"
