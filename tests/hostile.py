"""Inputs that want to break a signing service, each built in code.

Every function in `HOSTILE` takes nothing and returns the bytes of one document that is malicious, broken, or
valid and still not to be signed as it stands. Their docstrings say what is attacked. All come out the same
every time, except the encrypted ones (random salts) and the certified one (a random nonce, the signing time).
`minimal_pdf` and `sized_pdf` are the well-behaved counterparts.
"""

from __future__ import annotations

import io
import random
import zlib
from collections.abc import Callable, Mapping
from functools import cache

MIB = 1024 * 1024
BOMB = 200 * MIB
DEPTH = 40_000

_HEAD = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"
_IDENT = b"/ID [<706172617068> <706172617068>]"
_CATALOG = b"<< /Type /Catalog /Pages 2 0 R >>"
_PAGES = b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>"
_PAGE = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << >> >>"


# --- building blocks ---------------------------------------------------------------------------------------


def _stream(entries: bytes, data: bytes, length: bytes | None = None) -> bytes:
    """A stream object's body; `length` replaces the true value of /Length."""
    size = b"%d" % len(data) if length is None else length
    return b"<< " + entries + b" /Length " + size + b" >>\nstream\n" + data + b"\nendstream"


def _bodies(objects: Mapping[int, bytes]) -> tuple[bytearray, dict[int, int]]:
    """The head of a file followed by the objects, and the offset of each."""
    out = bytearray(_HEAD)
    offsets: dict[int, int] = {}
    for number, body in objects.items():
        offsets[number] = len(out)
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    return out, offsets


def _classic(objects: Mapping[int, bytes], *, size: int | None = None, trailer: bytes = b"") -> bytes:
    """A file with a classic cross-reference table; `size` replaces the true value of /Size."""
    out, offsets = _bodies(objects)
    start = len(out)
    last = max(offsets)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (last + 1)
    out += b"".join(
        b"%010d 00000 n \n" % offsets[number] if number in offsets else b"0000000000 00000 f \n"
        for number in range(1, last + 1)
    )
    out += b"trailer\n<< /Size %d /Root 1 0 R " % (last + 1 if size is None else size)
    out += _IDENT + trailer + b" >>\nstartxref\n%d\n%%%%EOF\n" % start
    return bytes(out)


def _xref_row(kind: int, where: int, index: int = 0) -> bytes:
    return bytes([kind]) + where.to_bytes(4, "big") + index.to_bytes(2, "big")


def _with_xref_stream(
    objects: Mapping[int, bytes],
    inside: Mapping[int, tuple[int, int]] | None = None,
    *,
    index: bytes = b"",
    tail: int = 0,
) -> bytes:
    """A file with a cross-reference stream.

    `inside` says which objects lie in which object stream at which index. `index` is written into the
    stream's dictionary, `tail` is the number of null bytes that follow the honest rows once they are decoded.
    """
    out, offsets = _bodies(objects)
    inside = inside or {}
    own = max([*objects, *inside]) + 1
    offsets[own] = start = len(out)
    rows = [_xref_row(0, 0, 65535)]
    for number in range(1, own + 1):
        if number in inside:
            rows.append(_xref_row(2, *inside[number]))
        else:
            rows.append(_xref_row(1, offsets[number]) if number in offsets else _xref_row(0, 0))
    entries = b"/Type /XRef /Size %d /W [1 4 2] /Root 1 0 R " % (own + 1)
    entries += _IDENT + b" /Filter /FlateDecode " + index
    out += b"%d 0 obj\n" % own + _stream(entries, _deflate(b"".join(rows), b"\0", tail)) + b"\nendobj\n"
    out += b"startxref\n%d\n%%%%EOF\n" % start
    return bytes(out)


def _pack(members: Mapping[int, bytes]) -> tuple[bytes, int]:
    """The content of an object stream and the value of its /First."""
    pairs, content = b"", b""
    for number, body in members.items():
        pairs += b"%d %d " % (number, len(content))
        content += body + b" "
    return pairs + content, len(pairs)


def _deflate(head: bytes, filler: bytes = b" ", tail: int = 0) -> bytes:
    """Compress `head` and `tail` filler bytes after it, without ever holding the filler.

    A block that ends in a full flush depends on nothing before it, so one compressed mebibyte serves for all.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, 15)
    out = [packer.compress(head), packer.flush(zlib.Z_FULL_FLUSH)]
    checksum = zlib.adler32(head)
    chunk = filler * MIB
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = raw.compress(chunk) + raw.flush(zlib.Z_FULL_FLUSH)
    for _ in range(tail // MIB):
        out.append(block)
        checksum = zlib.adler32(chunk, checksum)
    out.append(b"\x03\x00" + checksum.to_bytes(4, "big"))  # an empty last block
    return b"".join(out)


def _bomb_in_object_stream(layers: int, size: int) -> bytes:
    content, first = _pack({1: _CATALOG, 2: _PAGES, 3: _PAGE})
    data = _deflate(content, b" ", size)
    for _ in range(layers - 1):
        data = zlib.compress(data, 9)
    entries = b"/Type /ObjStm /N 3 /First %d /Filter [%s]" % (first, b" /FlateDecode" * layers)
    return _with_xref_stream({4: _stream(entries, data)}, {1: (4, 0), 2: (4, 1), 3: (4, 2)})


# --- well-behaved documents --------------------------------------------------------------------------------


def minimal_pdf(pages: int = 1, text: str = "Nothing to see here.") -> bytes:
    """A valid document with a classic cross-reference table and `text` on every page."""
    escaped = text.encode("cp1252", "replace")
    for special in (b"\\", b"(", b")"):
        escaped = escaped.replace(special, b"\\" + special)
    kids = b" ".join(b"%d 0 R" % number for number in range(5, 5 + pages))
    objects = {
        1: _CATALOG,
        2: b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, pages),
        3: b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        4: _stream(b"", b"BT /F1 12 Tf 72 760 Td (%s) Tj ET" % escaped),
    }
    leaf = (
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R "
        b"/Resources << /Font << /F1 3 0 R >> >> >>"
    )
    return _classic(objects | dict.fromkeys(range(5, 5 + pages), leaf))


def sized_pdf(size: int, catalog: bytes = b"") -> bytes:
    """
    A valid document of `size` bytes, most of them an incompressible stream (never less than about 800); `catalog` are
    entries more in its catalog.
    """
    private = b"/PieceInfo << /Paraph << /LastModified (D:20260101000000Z) /Private 4 0 R >> >>"
    plain = {
        1: _CATALOG.replace(b"/Type", catalog + b"/Type", 1),
        2: _PAGES,
        3: _PAGE.replace(b"/Resources", private + b" /Resources"),
    }
    spare = size - len(_classic(plain | {4: _stream(b"", b"")}))
    noise = random.Random(4711).randbytes(max(0, spare))
    for _ in range(3):  # the digits of /Length and startxref take space of their own
        document = _classic(plain | {4: _stream(b"", noise)})
        if len(document) <= size or not noise:
            break
        noise = noise[: max(0, len(noise) - (len(document) - size))]
    return document


# --- not a document, or only a part of one -----------------------------------------------------------------


def png_image() -> bytes:
    """Not a PDF: a complete PNG image of one pixel. Attacks a service that trusts the caller's media type."""

    def part(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (1).to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
    pixel = zlib.compress(b"\x00\x80", 9)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", pixel) + part(b"IEND", b"")


def empty_file() -> bytes:
    """No bytes at all. Attacks whatever reads the first or the last line unseen."""
    return b""


def truncated() -> bytes:
    """The first half of a valid document. Attacks the search for startxref."""
    whole = minimal_pdf(pages=3)
    return whole[: len(whole) // 2]


def header_only() -> bytes:
    """A header and nothing else. Attacks a check that stops at the magic bytes."""
    return b"%PDF-1.7\n"


def garbage_after_header() -> bytes:
    """A header, then 64 KiB of noise. Attacks the tokenizer and the search for startxref."""
    return _HEAD + random.Random(13).randbytes(65536)


def garbage_before_eof() -> bytes:
    """A header, 64 KiB of noise, then a startxref that points into the noise."""
    return _HEAD + random.Random(14).randbytes(65536) + b"\nstartxref\n4096\n%%EOF\n"


# --- encrypted ---------------------------------------------------------------------------------------------


def _encrypted(user_password: str) -> bytes:
    from pyhanko.pdf_utils.reader import PdfFileReader  # late: most callers need no pyHanko
    from pyhanko.pdf_utils.writer import copy_into_new_writer

    writer = copy_into_new_writer(PdfFileReader(io.BytesIO(minimal_pdf(text="A sealed page."))))
    writer.encrypt("the owner's password", user_password)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def encrypted() -> bytes:
    """AES-256 with the user password `secret`. The service has no password and must say so."""
    return _encrypted("secret")


def encrypted_empty_password() -> bytes:
    """AES-256 with an empty user password: readers open it unasked, a writer has to authenticate first."""
    return _encrypted("")


def encrypted_unknown_handler() -> bytes:
    """The trailer names a security handler that nobody knows."""
    handler = b"<< /Filter /Paraph.Unknown /V 99 /R 99 /Length 128 >>"
    return _classic({1: _CATALOG, 2: _PAGES, 3: _PAGE, 4: handler}, trailer=b" /Encrypt 4 0 R")


# --- decompression bombs -----------------------------------------------------------------------------------


def flate_bomb_object_stream() -> bytes:
    """200 MiB of blanks in the object stream which holds the catalog: no reader gets around decoding it."""
    return _bomb_in_object_stream(1, BOMB)


def flate_bomb_stacked_filters() -> bytes:
    """The same object stream behind three stacked Flate filters: under one kilobyte becomes 200 MiB."""
    return _bomb_in_object_stream(3, BOMB)


def flate_bomb_xref_stream() -> bytes:
    """The cross-reference stream is the bomb: 200 MiB of rows follow the five which /Size announces."""
    return _with_xref_stream({1: _CATALOG, 2: _PAGES, 3: _PAGE}, tail=BOMB)


def flate_bomb_xref_stream_declared() -> bytes:
    """The same bomb, but /Index announces its thirty million free entries.

    Defeats a limit derived from the announcement; the entries take gigabytes once they are objects.
    """
    rows = BOMB // 7
    index = b"/Index [0 5 1000 %d]" % rows
    return _with_xref_stream({1: _CATALOG, 2: _PAGES, 3: _PAGE}, index=index, tail=BOMB).replace(
        b"/Size 5", b"/Size %d" % (1000 + rows), 1
    )


def flate_bomb_page_content() -> bytes:
    """The page's content is the bomb. Harmless as long as nothing renders or copies decoded content."""
    page = _PAGE.replace(b"/Resources", b"/Contents 4 0 R /Resources")
    content = _stream(b"/Filter /FlateDecode", _deflate(b"q Q ", b" ", BOMB))
    return _classic({1: _CATALOG, 2: _PAGES, 3: page, 4: content})


def flate_bomb_metadata() -> bytes:
    """The XMP metadata are the bomb, and a writer that updates the modification date has to read them."""
    catalog = _CATALOG.replace(b"/Pages", b"/Metadata 4 0 R /Pages")
    head = b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    content = _stream(b"/Type /Metadata /Subtype /XML /Filter /FlateDecode", _deflate(head, b" ", BOMB))
    return _classic({1: catalog, 2: _PAGES, 3: _PAGE, 4: content})


def xml_entity_bomb_metadata() -> bytes:
    """XMP metadata with ten levels of ten-fold entities: a kilobyte of XML that expands to ten gigabytes."""
    catalog = _CATALOG.replace(b"/Pages", b"/Metadata 4 0 R /Pages")
    entities = b'<!ENTITY e0 "0123456789">' + b"".join(
        b'<!ENTITY e%d "%s">' % (level, b"&e%d;" % (level - 1) * 10) for level in range(1, 10)
    )
    text = b'<?xml version="1.0"?><!DOCTYPE x [' + entities + b"]><x>&e9;</x>"
    return _classic({1: catalog, 2: _PAGES, 3: _PAGE, 4: _stream(b"/Type /Metadata /Subtype /XML", text)})


# --- depth and number --------------------------------------------------------------------------------------


def nested_arrays() -> bytes:
    """An array nested 40 000 deep in the catalog. Attacks a recursive parser's stack."""
    deep = b"/Deep " + b"[" * DEPTH + b"]" * DEPTH
    return _classic({1: _CATALOG.replace(b"/Pages", deep + b" /Pages"), 2: _PAGES, 3: _PAGE})


def nested_dictionaries() -> bytes:
    """A dictionary nested 40 000 deep in the catalog. Attacks a recursive parser's stack."""
    deep = b"/D <<" * DEPTH + b">>" * DEPTH
    return _classic({1: _CATALOG.replace(b"/Pages", deep + b" /Pages"), 2: _PAGES, 3: _PAGE})


def nested_page_tree() -> bytes:
    """A page tree 5 000 indirect nodes deep, valid and with one page. Attacks a recursive descent."""
    depth = 5_000
    objects = {1: _CATALOG}
    for node in range(2, 2 + depth):
        parent = b" /Parent %d 0 R" % (node - 1) if node > 2 else b""
        objects[node] = b"<< /Type /Pages /Kids [%d 0 R] /Count 1%s >>" % (node + 1, parent)
    objects[2 + depth] = _PAGE.replace(b"/Parent 2 ", b"/Parent %d " % (1 + depth))
    return _classic(objects)


def many_objects() -> bytes:
    """100 000 small objects, all valid. Attacks a writer that takes each of them into its hands."""
    objects = {1: _CATALOG, 2: _PAGES, 3: _PAGE}
    objects.update((number, b"<< /N %d >>" % number) for number in range(4, 100_001))
    return _classic(objects)


def huge_size() -> bytes:
    """A /Size of 2**31 - 1: numbers for new objects begin there and overflow what readers allow."""
    return _classic({1: _CATALOG, 2: _PAGES, 3: _PAGE}, size=2**31 - 1)


def absurd_size() -> bytes:
    """A /Size of sixty digits. Attacks a range, an allocation or a fixed-width field sized by it."""
    return _classic({1: _CATALOG, 2: _PAGES, 3: _PAGE}, size=10**60)


def huge_xref_count() -> bytes:
    """A table that announces a billion entries and holds four. Attacks a loop sized by the announcement."""
    return _classic({1: _CATALOG, 2: _PAGES, 3: _PAGE}).replace(b"xref\n0 4\n", b"xref\n0 1000000000\n", 1)


def page_count_lie() -> bytes:
    """A page tree of one page that claims 2**40. Attacks arithmetic on the number of the last page."""
    return _classic({1: _CATALOG, 2: _PAGES.replace(b"/Count 1", b"/Count %d" % 2**40), 3: _PAGE})


# --- loops -------------------------------------------------------------------------------------------------


def xref_loop() -> bytes:
    """A table whose /Prev points to itself. Attacks a reader that keeps no list of where it has been."""
    objects = {1: _CATALOG, 2: _PAGES, 3: _PAGE}
    start = len(_bodies(objects)[0])
    return _classic(objects, trailer=b" /Prev %d" % start)


def page_tree_loop() -> bytes:
    """In the only page's place stands its own parent. Attacks the search for the page to put the field on."""
    return _classic({1: _CATALOG, 2: _PAGES.replace(b"3 0 R", b"2 0 R"), 3: _PAGE})


def page_parent_loop() -> bytes:
    """The page tree's root is its own /Parent and inherits the page's box from there. Attacks inheritance."""
    root = _PAGES.replace(b"/Kids", b"/Parent 2 0 R /Kids")
    return _classic({1: _CATALOG, 2: root, 3: b"<< /Type /Page /Parent 2 0 R >>"})


def field_tree_loop() -> bytes:
    """A form field that is its own kid. Attacks the search for a field's name."""
    catalog = _CATALOG.replace(b"/Pages", b"/AcroForm << /Fields [4 0 R] >> /Pages")
    field = b"<< /T (loop) /Parent 4 0 R /Kids [4 0 R] >>"
    return _classic({1: catalog, 2: _PAGES, 3: _PAGE, 4: field})


def self_reference() -> bytes:
    """The object behind the catalog's /AcroForm is a reference to itself. Attacks dereferencing."""
    catalog = _CATALOG.replace(b"/Pages", b"/AcroForm 4 0 R /Pages")
    return _classic({1: catalog, 2: _PAGES, 3: _PAGE, 4: b"4 0 R"})


def length_loop() -> bytes:
    """An object stream whose indirect /Length lies in the stream itself: one is needed to read the other."""
    content, first = _pack({1: _CATALOG, 2: _PAGES, 3: _PAGE, 4: b"200"})
    body = _stream(b"/Type /ObjStm /N 4 /First %d" % first, content, length=b"4 0 R")
    return _with_xref_stream({5: body}, {1: (5, 0), 2: (5, 1), 3: (5, 2), 4: (5, 3)})


def length_loop_between_streams() -> bytes:
    """Two streams, each the other's /Length; the first is the page's content, the second its metadata."""
    page = _PAGE.replace(b"/Resources", b"/Contents 4 0 R /Metadata 5 0 R /Resources")
    catalog = _CATALOG.replace(b"/Pages", b"/Metadata 5 0 R /Pages")
    streams = {4: _stream(b"", b"q Q", b"5 0 R"), 5: _stream(b"/Type /Metadata", b"<x/>", b"4 0 R")}
    return _classic({1: catalog, 2: _PAGES, 3: page} | streams)


def object_stream_in_itself() -> bytes:
    """The cross-reference stream says that object stream 4 is stored inside object stream 4."""
    content, first = _pack({1: _CATALOG, 2: _PAGES, 3: _PAGE, 4: b"null"})
    body = _stream(b"/Type /ObjStm /N 4 /First %d" % first, content)
    return _with_xref_stream({4: body}, {1: (4, 0), 2: (4, 1), 3: (4, 2), 4: (4, 3)})


# --- lies --------------------------------------------------------------------------------------------------


def negative_offset() -> bytes:
    """The catalog's offset is -15. Attacks a seek, or an index that Python counts from the end."""
    document = _classic({1: _CATALOG, 2: _PAGES, 3: _PAGE})
    return document.replace(b"%010d 00000 n" % len(_HEAD), b"-000000015 00000 n", 1)


def negative_startxref() -> bytes:
    """The last cross-reference table is said to begin before the file."""
    head, _, _ = _classic({1: _CATALOG, 2: _PAGES, 3: _PAGE}).rpartition(b"startxref")
    return head + b"startxref\n-200\n%%EOF\n"


def offset_past_end() -> bytes:
    """The catalog's offset lies far behind the end of the file."""
    document = _classic({1: _CATALOG, 2: _PAGES, 3: _PAGE})
    return document.replace(b"%010d 00000 n" % len(_HEAD), b"9999999999 00000 n", 1)


def length_lie() -> bytes:
    """An object stream of some two hundred bytes with a /Length of 4 GiB. Attacks an unchecked read."""
    content, first = _pack({1: _CATALOG, 2: _PAGES, 3: _PAGE})
    body = _stream(b"/Type /ObjStm /N 3 /First %d" % first, content, length=b"4294967296")
    return _with_xref_stream({4: body}, {1: (4, 0), 2: (4, 1), 3: (4, 2)})


def length_lie_negative() -> bytes:
    """An object stream with a /Length of -1, which many read functions take for `everything`."""
    content, first = _pack({1: _CATALOG, 2: _PAGES, 3: _PAGE})
    body = _stream(b"/Type /ObjStm /N 3 /First %d" % first, content, length=b"-1")
    return _with_xref_stream({4: body}, {1: (4, 0), 2: (4, 1), 3: (4, 2)})


def catalog_is_a_number() -> bytes:
    """The trailer's /Root is the number 42. Attacks code that takes the types of things for granted."""
    return _classic({1: b"42", 2: _PAGES, 3: _PAGE})


def no_pages() -> bytes:
    """A catalog whose page tree is empty: no page can carry the field."""
    return _classic({1: _CATALOG, 2: b"<< /Type /Pages /Kids [] /Count 0 >>"})


# --- documents that must not be signed just like that ------------------------------------------------------


def hybrid_reference() -> bytes:
    """A valid hybrid-reference file: old readers see one AcroForm, newer ones another.

    The table calls object 4 free, the cross-reference stream at /XRefStm puts it into an object stream.
    """
    content, first = _pack({4: b"<< /Fields [] /NeedAppearances false >>"})
    catalog = _CATALOG.replace(b"/Pages", b"/AcroForm 4 0 R /Pages")
    holder = _stream(b"/Type /ObjStm /N 1 /First %d" % first, content)
    objects = {1: catalog, 2: _PAGES, 3: _PAGE, 5: holder}
    place = len(_bodies(objects)[0])
    rows = _xref_row(2, 5, 0)
    entries = b"/Type /XRef /Size 7 /W [1 4 2] /Index [4 1] /Root 1 0 R"
    return _classic(objects | {6: _stream(entries, rows)}, trailer=b" /XRefStm %d" % place).replace(
        b"0000000000 65535 f \n", b"0000000004 65535 f \n", 1
    )


@cache
def certified() -> bytes:
    """A document certified with DocMDP level 1, no changes allowed: a further signature breaks the first."""
    import datetime as dt  # late, like the rest: only this function needs a signer

    from asn1crypto import keys
    from asn1crypto import x509 as asn1_x509
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
    from pyhanko.sign import fields, signers
    from pyhanko_certvalidator.registry import SimpleCertificateStore

    key = ec.derive_private_key(0x5061726170682074657374, ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Paraph test certifier")])
    usage = dict.fromkeys(
        (
            "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign",
            "encipher_only", "decipher_only",
        ),
        False,
    )  # fmt: skip
    der = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(4711)
        .not_valid_before(dt.datetime(2024, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2054, 1, 1, tzinfo=dt.UTC))
        .add_extension(x509.KeyUsage(digital_signature=True, content_commitment=True, **usage), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    secret = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    certificate = asn1_x509.Certificate.load(der)
    signer = signers.SimpleSigner(
        signing_cert=certificate,
        signing_key=keys.PrivateKeyInfo.load(secret),
        cert_registry=SimpleCertificateStore.from_certs([certificate]),
    )
    metadata = signers.PdfSignatureMetadata(
        field_name="Certification",
        md_algorithm="sha256",
        subfilter=fields.SigSeedSubFilter.PADES,
        certify=True,
        docmdp_permissions=fields.MDPPerm.NO_CHANGES,
    )
    out = io.BytesIO()
    writer = IncrementalPdfFileWriter(io.BytesIO(minimal_pdf(text="A certified page.")))
    signers.sign_pdf(writer, metadata, signer=signer, output=out)
    return out.getvalue()


HOSTILE: dict[str, Callable[[], bytes]] = {
    function.__name__: function
    for function in (
        png_image,
        empty_file,
        truncated,
        header_only,
        garbage_after_header,
        garbage_before_eof,
        encrypted,
        encrypted_empty_password,
        encrypted_unknown_handler,
        flate_bomb_object_stream,
        flate_bomb_stacked_filters,
        flate_bomb_xref_stream,
        flate_bomb_xref_stream_declared,
        flate_bomb_page_content,
        flate_bomb_metadata,
        xml_entity_bomb_metadata,
        nested_arrays,
        nested_dictionaries,
        nested_page_tree,
        many_objects,
        huge_size,
        absurd_size,
        huge_xref_count,
        page_count_lie,
        xref_loop,
        page_tree_loop,
        page_parent_loop,
        field_tree_loop,
        self_reference,
        length_loop,
        length_loop_between_streams,
        object_stream_in_itself,
        negative_offset,
        negative_startxref,
        offset_past_end,
        length_lie,
        length_lie_negative,
        catalog_is_a_number,
        no_pages,
        hybrid_reference,
        certified,
    )
}
