"""
The revision that holds a signature, appended to a plain PDF: an incremental update (ISO 32000-1, 7.5.6).

It is, byte for byte, what pyHanko would append, in a fraction of its time: of most documents no more is needed than the
catalog, the first page and the information dictionary (signer/plain.py). Any document that is not plain, or about which
there is something to judge, raises `Unusual` before anything is written: pyHanko then does it, and has the last word on
what is refused (signer/pades.py).

What the revision holds: the catalog with its form and the extensions of ETSI EN 319 142-1 and ISO/TS 32002 (7.12.2), the
form with the signature field (12.7.2, 12.7.4.5), the page that has its invisible widget (12.5.6.19), the date of the
change in the information dictionary or the metadata (14.3), and the signature dictionary with its gap (12.8.1).
"""

import os
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import BinaryIO

from signer.canonical import Entries, Unusual, entries, hexadecimal, items, literal, natural, referred, text_of, written
from signer.gap import Prepared
from signer.plain import PlainFile

__all__ = ["Change", "Unusual", "append"]

PAGE_LEVELS_MAX = 16  # of the page tree above the first page: real ones have five at most
PAGES_END = 2**31  # what a document says of its pages beyond that is refused
FIELDS_MAX = 64  # of a form, each of them read: more take longer than they are worth
DIGESTS = {"sha256", "sha384", "sha512"}

_PDF_1_7, _PDF_2_0 = (1, 7), (2, 0)
_VERSION = re.compile(rb"/([0-9])\.([0-9])")
_FIRST = re.compile(rb"\[ ([1-9][0-9]*) 0 R ")
_STRING = re.compile(rb"<[0-9a-f]*>")
_IDENTIFIERS = re.compile(rb"\[ (<[0-9a-f]*>) <[0-9a-f]*> \]")
_BYTE_RANGE_BYTES = 62  # four numbers of up to thirteen digits
_ESIC = written({b"/Type": b"/DeveloperExtensions", b"/BaseVersion": b"/1.7", b"/ExtensionLevel": b"1"})
_ISO_32002 = written(
    {
        b"/Type": b"/DeveloperExtensions",
        b"/BaseVersion": b"/2.0",
        b"/ExtensionLevel": b"32002",
        b"/URL": literal("https://www.iso.org/standard/45875.html"),
        b"/ExtensionRevision": literal(":2022"),
    }
)


@dataclass(frozen=True, slots=True)
class Change:
    """What a revision says. `packet` makes new XMP metadata from old, or from none."""

    digest: str
    gap_bytes: int  # of the CMS at most
    time: datetime  # of the signature
    file_id: bytes
    reason: str
    location: str
    iso_32002: bool  # the key is on a curve of ISO/TS 32002
    now: datetime  # the date of the change
    producer: str
    packet: Callable[[bytes | None], bytes]


def append(document: BinaryIO, change: Change) -> Prepared:
    """
    Append the revision to `document`, which is open for reading and writing.

    Raises `Unusual` when nothing was written.
    """
    try:
        file = PlainFile(document)
        revision, gap_start, gap_end = _Revision(file, change).assembled()
        digest = file.digest(change.digest)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever a strange file makes of this, pyHanko judges it
        raise Unusual(str(error)) from error
    with memoryview(revision) as view:
        digest.update(view[:gap_start])
        digest.update(view[gap_end:])
    document.seek(0, os.SEEK_END)
    document.write(revision)
    document.flush()
    return Prepared(digest.digest(), file.size + gap_start, file.size + gap_end)


class _Revision:
    """Objects by number, as they are collected; those of the file are taken at most once, whatever the file says."""

    def __init__(self, file: PlainFile, change: Change) -> None:
        self._file = file
        self._change = change
        self._objects: dict[int, bytes] = {}
        self._size = natural(file.trailer[b"/Size"])
        self._last = self._size
        self._taken: set[int] = set()
        if change.digest not in DIGESTS or change.gap_bytes <= 0:
            raise Unusual("a digest or a gap")
        self._info: int | None = None

    def _take(self, number: int) -> int:
        if number in self._taken or number >= self._size:
            raise Unusual("an object in two places, or one that must not be")
        self._taken.add(number)
        return number

    def _new(self) -> int:
        self._last += 1
        return self._last

    def _collect(self) -> None:
        """The catalog, and all that hangs on it; new objects get their numbers in this order."""
        number = self._take(referred(self._file.trailer[b"/Root"]))
        catalog = self._file.dictionary(number)
        before = dict(catalog)
        if b"/Perms" in catalog:
            raise Unusual("permissions")
        version = self._version(catalog)
        if version < _PDF_1_7:
            catalog[b"/Version"] = b"/1.7"
        self._sign(catalog)
        if version < _PDF_2_0:
            _extend(catalog, b"/ESIC", _ESIC)
        if self._change.iso_32002:
            if version < _PDF_2_0:
                version, catalog[b"/Version"] = _PDF_2_0, b"/2.0"
            _extend(catalog, b"/ISO_", written([_ISO_32002]))
        self._describe(catalog, metadata=version >= _PDF_2_0 or b"/Metadata" in catalog)
        if catalog != before or b"/Metadata" in catalog:
            self._objects[number] = written(catalog)

    def _version(self, catalog: Entries) -> tuple[int, int]:
        if b"/Version" not in catalog:
            return self._file.version
        if not (found := _VERSION.fullmatch(catalog[b"/Version"])):
            raise Unusual("a version")
        return int(found[1]), int(found[2])

    # The field and its signature.

    def _sign(self, catalog: Entries) -> None:
        new_form = self._new() if b"/AcroForm" not in catalog else 0
        self._field = self._new()
        reference = b"%d 0 R" % self._field
        if new_form:
            catalog[b"/AcroForm"] = b"%d 0 R" % new_form
            self._objects[new_form] = written({b"/Fields": b"[ %b ]" % reference, b"/SigFlags": b"3"})
            name = "Signature1"
        else:
            name = self._join(catalog, reference)
        page = self._annotate(catalog, reference)
        self._signature = self._new()
        self._objects[self._field] = written(
            {
                b"/FT": b"/Sig",
                b"/T": literal(name),
                b"/Type": b"/Annot",
                b"/Subtype": b"/Widget",
                b"/F": b"132",  # printed and locked, as PDF/A wants it: table 165
                b"/Rect": b"[ 0 0 0 0 ]",
                b"/P": b"%d 0 R" % page,
                b"/V": b"%d 0 R" % self._signature,
            }
        )
        change = self._change
        signature = {
            b"/Contents": b"<%b>" % (b"00" * change.gap_bytes),
            b"/ByteRange": bytes(_BYTE_RANGE_BYTES),
            b"/Type": b"/Sig",
            b"/Filter": b"/Adobe.PPKLite",
            b"/SubFilter": b"/ETSI.CAdES.detached",
            b"/M": _date(change.time),
        }
        if change.location:
            signature[b"/Location"] = literal(change.location)
        if change.reason:
            signature[b"/Reason"] = literal(change.reason)
        self._objects[self._signature] = written(signature)

    def _join(self, catalog: Entries, reference: bytes) -> str:
        """Put the field into the form that is there, and say the name that is free."""
        place = catalog[b"/AcroForm"]
        number = self._take(referred(place)) if place[:1] != b"<" else 0
        form = self._file.dictionary(number) if number else entries(place)
        before = dict(form)
        direct = form[b"/Fields"][:1] == b"["
        array = 0 if direct else self._take(referred(form[b"/Fields"]))
        fields = items(form[b"/Fields"]) if direct else self._file.array(array)
        if len(fields) > FIELDS_MAX:
            raise Unusual("many fields")
        signatures: set[str] = set()
        others: set[str] = set()
        for each in fields:
            field = self._file.dictionary(self._take(referred(each)))
            kind, title = field[b"/FT"], text_of(field[b"/T"])
            if kind[:1] != b"/" or title is None or not field.keys().isdisjoint({b"/Kids", b"/Parent"}):
                raise Unusual("a field in a tree, or without a name")
            (signatures if kind == b"/Sig" else others).add(title)
        count = 1
        while (name := f"Signature{count}") in signatures:
            count += 1
        if name in others:
            raise Unusual("a name in use")
        form.pop(b"/NeedAppearances", None)
        form[b"/SigFlags"] = b"3"  # there are signatures, and the file is only appended to: table 219
        if direct:
            form[b"/Fields"] = written([*fields, reference])
        else:
            self._objects[array] = written([*fields, reference])
        if form != before:
            if number:
                self._objects[number] = written(form)
            else:
                catalog[b"/AcroForm"] = written(form)
        return name

    def _annotate(self, catalog: Entries, reference: bytes) -> int:
        """Put the widget on the first page, whose number is the answer."""
        number, page = self._first_page(referred(catalog[b"/Pages"]))
        annotations = page.get(b"/Annots", b"[ ]")
        if annotations[:1] == b"[":
            page[b"/Annots"] = annotations[:-1] + reference + b" ]"
            self._objects[number] = written(page)
        else:
            array = self._take(referred(annotations))
            self._objects[array] = written([*self._file.array(array), reference])
        return number

    def _first_page(self, root: int) -> tuple[int, Entries]:
        """Down the page tree (7.7.3), always the first kid."""
        number = self._take(root)
        node = self._file.dictionary(number, exact=True)
        if (resources := node.get(b"/Resources", b"<<"))[:2] != b"<<":
            self._file.dictionary(referred(resources))  # is read by others
        for _ in range(PAGE_LEVELS_MAX):
            if not (first := _FIRST.match(node[b"/Kids"])) or not 0 < natural(node[b"/Count"]) < PAGES_END:
                break
            number = self._take(int(first[1]))
            node = self._file.dictionary(number)
            if node[b"/Type"] == b"/Page":
                return number, node
            if node[b"/Type"] != b"/Pages":
                break
        raise Unusual("not a plain page tree")

    # What the document says about itself.

    def _describe(self, catalog: Entries, *, metadata: bool) -> None:
        """The date and the producer of the change; where there are XMP metadata, no new entries elsewhere."""
        date, producer = _date(self._change.now), self._change.producer
        if b"/Info" in self._file.trailer:
            self._info = self._take(referred(self._file.trailer[b"/Info"]))
            info = self._file.dictionary(self._info)
            before = dict(info)
            dated = not metadata or b"/ModDate" in info
            if dated:
                info[b"/ModDate"] = date
            former = text_of(info[b"/Producer"]) if b"/Producer" in info else None
            if former is None or producer not in former:
                info[b"/Producer"] = literal(producer if former is None else f"{former}; {producer}")
            if dated or info != before:
                self._objects[self._info] = written(info)
        elif not metadata:
            self._info = self._new()
            self._objects[self._info] = written({b"/ModDate": date, b"/Producer": literal(producer)})
        if not metadata:
            return
        about: Entries = {b"/Type": b"/Metadata"}
        old: bytes | None = None
        if b"/Metadata" in catalog:
            number = self._take(referred(catalog[b"/Metadata"]))
            about, old = self._file.stream(number, b"/Metadata")
        else:
            number = self._new()
            catalog[b"/Metadata"] = b"%d 0 R" % number
        if b"/DecodeParms" in about:
            raise Unusual("parameters of a filter")
        about[b"/Subtype"] = b"/XML"
        packet = self._change.packet(old)
        if b"/Filter" in about:
            packet = zlib.compress(packet)
        about[b"/Length"] = b"%d" % len(packet)
        self._objects[number] = b"%b\nstream\n%b\nendstream" % (written(about), packet)

    # The revision itself.

    def assembled(self) -> tuple[bytearray, int, int]:
        """Its bytes, and where its gap begins and ends in them."""
        self._collect()
        revision = bytearray()
        places: dict[int, int] = {}
        for number in sorted(self._objects):
            places[number] = self._file.size + len(revision)
            revision += b"%d 0 obj\n%b\nendobj\n" % (number, self._objects[number])
        self._cross_references(revision, places)
        gap_start = revision.index(b"<", revision.index(b"/Contents ", places[self._signature] - self._file.size))
        gap_end = gap_start + 2 * self._change.gap_bytes + 2
        end = self._file.size + gap_end
        numbers = b"[0 %d %d %d]" % (self._file.size + gap_start, end, len(revision) - gap_end)
        start = revision.index(bytes(_BYTE_RANGE_BYTES), gap_end)
        revision[start : start + _BYTE_RANGE_BYTES] = numbers.ljust(_BYTE_RANGE_BYTES)
        return revision, gap_start, gap_end

    def _cross_references(self, revision: bytearray, places: dict[int, int]) -> None:
        """A table or a stream, as the file has them (7.5.8.4), and the trailer."""
        start = self._file.size + len(revision)
        trailer = dict(self._file.trailer)
        if self._info is not None:
            trailer[b"/Info"] = b"%d 0 R" % self._info
        trailer[b"/ID"] = self._identifiers(trailer)
        trailer[b"/Prev"] = b"%d" % self._file.startxref
        if self._file.has_streams:
            number = self._new()
            places[number] = start
            trailer[b"/Size"] = b"%d" % (number + 1)
            revision += b"%d 0 obj\n%b\nendobj\n" % (number, _stream(trailer, places))
        else:
            trailer[b"/Size"] = b"%d" % (self._last + 1)
            revision += b"%btrailer\n%b" % (_table(places), written(trailer))
        revision += b"\nstartxref\n%d\n%%%%EOF\n" % start

    def _identifiers(self, trailer: Entries) -> bytes:
        """14.4: the first stays, the second is of this revision."""
        fresh = self._change.file_id
        first = hexadecimal(fresh[16:])
        if b"/ID" in trailer:
            if not (found := _IDENTIFIERS.fullmatch(trailer[b"/ID"])):
                raise Unusual("other identifiers")
            first = found[1]
        if any(_STRING.search(value) for name, value in trailer.items() if name != b"/ID"):
            raise Unusual("a trailer with strings, which may be texts")
        return b"[ %b %b ]" % (first, hexadecimal(fresh[:16]))


def _extend(catalog: Entries, name: bytes, extension: bytes) -> None:
    """Declare a developer extension (7.12.2) unless it is declared already."""
    declared = entries(catalog.get(b"/Extensions", b"<<>>"))
    if declared.setdefault(name, extension) != extension:
        raise Unusual("another level of an extension")
    catalog[b"/Extensions"] = written(declared)


def _date(moment: datetime) -> bytes:
    """A date (7.9.4) with the offset of its time zone, if it has one."""
    offset = moment.utcoffset()
    zone = "" if offset is None else "Z"
    if offset:
        hours, minutes = divmod(int(abs(offset).total_seconds()) // 60, 60)
        zone = f"{'-' if offset < timedelta(0) else '+'}{hours:02d}'{minutes:02d}'"
    return literal(moment.strftime("D:%Y%m%d%H%M%S") + zone)


def _table(places: dict[int, int]) -> bytes:
    """7.5.4; object 0 is free, and must be there."""
    text = b"xref\n"
    for run in _runs([0, *places]):
        text += b"%d %d\n" % (run[0], len(run))
        text += b"".join([b"%010d 00000 n \n" % places[each] if each else b"0000000000 65535 f \n" for each in run])
    return text


def _stream(trailer: Entries, places: dict[int, int]) -> bytes:
    """7.5.8; a row is a type, eight bytes for the place and two for the generation."""
    index = [0, 1]
    rows = bytes(9) + b"\xff\xff"
    for run in _runs(places):
        index += run[0], len(run)
        rows += b"".join([b"\1" + places[each].to_bytes(8) + b"\0\0" for each in run])
    data = zlib.compress(rows)
    about = {
        b"/W": b"[ 1 8 2 ]",
        b"/Type": b"/XRef",
        b"/Filter": b"/FlateDecode",
        **trailer,
        b"/Index": written([b"%d" % each for each in index]),
        b"/Length": b"%d" % len(data),
    }
    return b"%b\nstream\n%b\nendstream" % (written(about), data)


def _runs(numbers: Iterable[int]) -> list[list[int]]:
    """The numbers in order, each run of consecutive ones by itself."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs
