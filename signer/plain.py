"""
Just enough of a PDF (ISO 32000-1, 7.5) to update it: its cross-references, and single objects by number.

Of each object only one mention counts, the newest; it must be in use, with generation 0. What a file says of its own
sizes and places is limited before anything is made of it. All else is `Unusual`, or a ValueError, LookupError,
ArithmeticError or zlib.error.
"""

import hashlib
import os
import re
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

from signer.canonical import (
    BINARY,
    EXACT,
    PLAIN,
    SPACE,
    Container,
    Entries,
    Spelling,
    Unusual,
    entries,
    items,
    natural,
    parse,
)

MIB = 1024 * 1024
HEAD_BYTES = 1 * MIB  # of the file, read once and kept: most documents are no longer
TAIL_BYTES = 1024  # in which startxref, its number and %%EOF stand, with white space behind: pyHanko looks no further
SIZE_MAX = 1_000_000  # of a trailer: readers count to 8 388 607 objects (annex C), and some are added
SECTIONS_MAX = 256  # of cross-references: each signature adds one, and takes 20 to 40 us
PARTS_MAX = 1_024  # of all sections: a revision has one for each object that it changes
ENTRIES_MAX = 1_000_000  # of all sections: 20 MB of table, which are looked through in 40 ms
OBJECT_BYTES_MAX = 64 * 1024  # of a dictionary or an array: catalogs and pages have some hundred
PARSED_BYTES_MAX = 512 * 1024  # of all objects: a quarter of a second's work at worst
STREAM_BYTES_MAX = 1 * MIB  # of a stream that is decoded, before and after: where pyHanko's own limits begin
DECODED_BYTES_MAX = 4 * MIB  # of all streams: catalog, page and information in different ones, and a form's fields
_WINDOW_BYTES = 2 * 1024  # in which most objects end

_EOL = rb"(?:\r\n|\n|\r)"
_HEADER = re.compile(rb"%%PDF-([0-9])\.([0-9])%b" % _EOL)
_TAIL = re.compile(rb"[\r\n]startxref%b([0-9]{1,10})%b%%%%EOF[\0\t\n\f\r ]*+\Z" % (_EOL, _EOL))
_TABLE = re.compile(rb"xref ?%b" % _EOL)
_PART = re.compile(rb"([0-9]{1,8}) ([0-9]{1,8}) ?%b" % _EOL)
_OBJECT = re.compile(rb"[1-9][0-9]{0,6} 0 obj")
_END_OF_TRAILER = re.compile(rb"%bstartxref" % SPACE)
_END_OF_OBJECT = re.compile(rb"%bendobj" % SPACE)
_STREAM = re.compile(rb"%bstream\r?\n" % SPACE)
_END_OF_STREAM = re.compile(rb"%bendstream" % SPACE)
_GOES_ON = re.compile(rb"%bs" % SPACE)
_PAIRS = re.compile(rb"[0-9 \n\r]*+")
_ROW_BYTES = 20  # of a table: 7.5.4
_ROW = b"0000000000 00000 n"
_TO_ROW = bytes.maketrans(b"123456789f", b"000000000n")
_NOT_TRAILER = {b"/Length", b"/Filter", b"/DecodeParms", b"/W", b"/Type", b"/Index"}  # but about the stream: table 17
_FREE, _IN_FILE, _IN_STREAM = 0, 1, 2  # table 18


@dataclass(frozen=True, slots=True)
class _Section:
    """A table or a cross-reference stream; `parts` are (first object, how many, where in `rows`)."""

    parts: list[tuple[int, int, int]]
    rows: bytes
    widths: tuple[int, ...]  # of the fields of a stream; a table has none

    def find(self, number: int) -> tuple[int, int, int] | None:
        """The fields of table 18; None for an object that is not mentioned."""
        for first, count, place in self.parts:
            if first <= number < first + count:
                return self._row(place, number - first)
        return None

    def _row(self, place: int, index: int) -> tuple[int, int, int]:
        if not self.widths:
            row = self.rows[(start := place + _ROW_BYTES * index) : start + _ROW_BYTES]
            return (_IN_FILE if row[17:18] == b"n" else _FREE), int(row[:10]), int(row[11:16])
        first, second, third = self.widths
        two = place + index * (first + second + third) + first
        three = two + second
        fields = self.rows[two - first : two], self.rows[two:three], self.rows[three : three + third]
        return int.from_bytes(fields[0]), int.from_bytes(fields[1]), int.from_bytes(fields[2])


class PlainFile:
    """A PDF that is open for reading. `trailer` has of each name what the newest trailer says that has it."""

    def __init__(self, document: BinaryIO) -> None:
        self._document = document
        self.size = document.seek(0, os.SEEK_END)
        document.seek(0)
        self._head = document.read(HEAD_BYTES)
        header = _HEADER.match(self._head)
        tail = _TAIL.search(self._at(max(0, self.size - TAIL_BYTES), TAIL_BYTES))
        if not header or not tail:
            raise Unusual("not a plain header or end")
        self.version = int(header[1]), int(header[2])
        self.startxref = int(tail[1])
        self.has_streams = False  # of cross-references
        self.trailer: Entries = {}
        self._sections: list[_Section] = []
        self._counts = [0, 0]  # parts and entries of them all
        self._parsed_bytes = self._decoded_bytes = 0
        self._object_streams: dict[int, tuple[list[int], list[int], bytes]] = {}
        self._read_sections()

    def digest(self, algorithm: str) -> Any:
        """A hash of the whole file, to go on with."""
        digest = hashlib.new(algorithm, self._head)
        self._document.seek(len(self._head))
        while piece := self._document.read(MIB):
            digest.update(piece)
        return digest

    def _at(self, start: int, length: int) -> bytes:
        if start >= self.size:
            raise Unusual("a place behind the end")
        if start + length <= len(self._head) or len(self._head) == self.size:
            return self._head[start : start + length]
        self._document.seek(start)
        return self._document.read(length)

    # Cross-references: 7.5.4 to 7.5.8.

    def _read_sections(self) -> None:
        start: int | None = self.startxref
        trailers: list[Entries] = []
        while start is not None:
            if len(trailers) == SECTIONS_MAX:
                raise Unusual("many revisions, or a loop")
            found = _TABLE.match(self._at(start, _WINDOW_BYTES))
            section, trailer = self._table(start + found.end()) if found else self._cross_reference_stream(start)
            if natural(trailer[b"/Size"]) > SIZE_MAX or not trailer.keys().isdisjoint({b"/Encrypt", b"/XRefStm"}):
                raise Unusual("very large, encrypted, or with cross-references of two kinds")
            self._sections.append(section)
            trailers.append(trailer)
            start = natural(trailer[b"/Prev"]) if b"/Prev" in trailer else None
        for trailer in reversed(trailers):
            self.trailer.update((name, trailer[name]) for name in trailer if name not in _NOT_TRAILER)

    def _table(self, start: int) -> tuple[_Section, Entries]:
        parts: list[tuple[int, int, int]] = []
        rows: list[bytes] = []
        while not (source := self._at(start, _WINDOW_BYTES)).startswith(b"trailer"):
            if not (found := _PART.match(source)):
                raise Unusual("not a plain table")
            self._add_part(parts, int(found[1]), int(found[2]), _ROW_BYTES)
            start += found.end()
            part = self._at(start, _ROW_BYTES * int(found[2]))
            end = part[len(_ROW) : _ROW_BYTES]
            if end not in {b" \n", b" \r", b"\r\n"} or part.translate(_TO_ROW) != (_ROW + end) * int(found[2]):
                raise Unusual("not a plain table")
            rows.append(part)
            start += len(part)
        trailer, _ = self._begin(start, b"trailer", _END_OF_TRAILER, BINARY)
        if not isinstance(trailer, dict):
            raise Unusual("not a plain trailer")
        return _Section(parts, b"".join(rows), ()), trailer

    def _cross_reference_stream(self, start: int) -> tuple[_Section, Entries]:
        self.has_streams = True
        if not (head := _OBJECT.match(self._at(start, TAIL_BYTES))):
            raise Unusual("not plain cross-references")
        trailer, data = self._stream(start, head[0], b"/XRef", BINARY)
        widths = tuple(map(natural, items(trailer[b"/W"])))
        index = items(trailer.get(b"/Index", b"[ 0 %b ]" % trailer[b"/Size"]))
        parts: list[tuple[int, int, int]] = []
        for part in zip(index[::2], index[1::2], strict=True):
            self._add_part(parts, natural(part[0]), natural(part[1]), sum(widths))
        if len(data) != sum(widths) * sum(count for _, count, _ in parts):
            raise Unusual("more or fewer cross-references than announced")
        return _Section(parts, data, widths), trailer

    def _add_part(self, parts: list[tuple[int, int, int]], first: int, count: int, row_bytes: int) -> None:
        """Objects are mentioned in order, and none twice: so it does not matter which mention a reader takes."""
        last = parts[-1] if parts else (0, 0, 0)
        self._counts = [self._counts[0] + 1, self._counts[1] + count]
        if first < last[0] + last[1] or self._counts[0] > PARTS_MAX or self._counts[1] > ENTRIES_MAX:
            raise Unusual("not a plain table")
        parts.append((first, count, last[2] + row_bytes * last[1]))

    def _find(self, number: int) -> tuple[int, int, int]:
        """What the newest section says that mentions the object."""
        for section in self._sections:
            if found := section.find(number):
                return found
        raise Unusual("an object that is not there")

    # Objects: 7.3.8, 7.3.10 and 7.5.7.

    def dictionary(self, number: int, *, exact: bool = False) -> Entries:
        """The dictionary that is this object; `exact` is for one whose numbers count something."""
        if not isinstance(found := self._object(number, EXACT if exact else PLAIN), dict):
            raise Unusual("not a dictionary")
        return found

    def array(self, number: int) -> list[bytes]:
        """The array that is this object."""
        if not isinstance(found := self._object(number, PLAIN), list):
            raise Unusual("not an array")
        return found

    def stream(self, number: int, kind: bytes) -> tuple[Entries, bytes]:
        """The dictionary and the decoded content of a stream of this /Type."""
        where, start, generation = self._find(number)
        if where != _IN_FILE or generation:
            raise Unusual("not a plain entry for a stream")
        return self._stream(start, b"%d 0 obj" % number, kind, EXACT)

    def _object(self, number: int, spelling: Spelling) -> Container:
        where, place, third = self._find(number)
        if where == _IN_FILE and not third:
            found, _ = self._begin(place, b"%d 0 obj" % number, _END_OF_OBJECT, spelling)
            return found
        if where == _IN_STREAM:
            return self._member(number, place, third, spelling)
        raise Unusual("not a plain entry for an object")

    def _begin(self, start: int, head: bytes, tail: re.Pattern[bytes], spelling: Spelling) -> tuple[Container, int]:
        """The container between `head` and `tail`, and where the tail ends in the file."""
        for length in (_WINDOW_BYTES, OBJECT_BYTES_MAX):
            source = self._at(start, length)
            if not source.startswith(head):
                break
            try:
                found, end = self._parse(source, len(head), spelling)
            except Unusual:
                continue
            if ended := tail.match(source, end):
                return found, start + ended.end()
        raise Unusual("not a plain object")

    def _parse(self, source: bytes, start: int, spelling: Spelling) -> tuple[Container, int]:
        found, end = parse(source, start, spelling)
        self._parsed_bytes += end
        if self._parsed_bytes > PARSED_BYTES_MAX:
            raise Unusual("much to read")
        return found, end

    def _member(self, number: int, stream: int, index: int, spelling: Spelling) -> Container:
        """An object out of an object stream."""
        if stream not in self._object_streams:
            about, data = self.stream(stream, b"/ObjStm")
            first = natural(about[b"/First"])
            pairs = list(map(int, data[:first].split()))
            if len(pairs) != 2 * natural(about[b"/N"]) or not _PAIRS.fullmatch(data, 0, first):
                raise Unusual("not a plain object stream")
            self._object_streams[stream] = pairs[::2], [first + offset for offset in pairs[1::2]], data
        numbers, places, data = self._object_streams[stream]
        source = data[places[index] : places[index] + OBJECT_BYTES_MAX]
        found, end = self._parse(source, 0, spelling)
        if numbers.index(number) != index or source[:1] not in b"<[" or _GOES_ON.match(source, end):
            raise Unusual("not a plain object stream")
        return found

    def _stream(self, start: int, head: bytes, kind: bytes, spelling: Spelling) -> tuple[Entries, bytes]:
        about, begin = self._begin(start, head, _STREAM, spelling)
        if not isinstance(about, dict) or about[b"/Type"] != kind:
            raise Unusual("not the stream that is looked for")
        length = natural(about[b"/Length"])
        if length > STREAM_BYTES_MAX:
            raise Unusual("a long stream")
        data = self._at(begin, length + len(b"\r\nendstream"))
        if not _END_OF_STREAM.match(data, length):
            raise Unusual("not a plain stream")
        return about, self._decoded(about, data[:length])

    def _decoded(self, about: Entries, data: bytes) -> bytes:
        """Flate if anything (7.4.4), with the predictor Up or none."""
        if b"/Filter" in about:
            if about[b"/Filter"] not in {b"/FlateDecode", b"[ /FlateDecode ]"}:
                raise Unusual("a filter")
            decoder = zlib.decompressobj()
            data = decoder.decompress(data, STREAM_BYTES_MAX)
            if not decoder.eof:
                raise Unusual("a long or broken stream")
        self._decoded_bytes += len(data)
        if self._decoded_bytes > DECODED_BYTES_MAX:
            raise Unusual("much to decode")
        if b"/DecodeParms" not in about:
            return data
        parameters = entries(about[b"/DecodeParms"])
        columns = natural(parameters.pop(b"/Columns"))
        if parameters != {b"/Predictor": b"12"} or b"/Filter" not in about:
            raise Unusual("parameters of a filter")
        return _summed(data, 1 + columns)


def _summed(data: bytes, row_bytes: int) -> bytes:
    """
    Undo the predictor Up (7.4.4.4): each byte of a row was written as its difference to the one above.

    All columns are summed at once, in one number that has a byte for each: every row is added to the next one, then to
    the one two, four, eight rows below. The highest bits are added apart, so that no byte carries into its neighbour.
    """
    rows, rest = divmod(len(data), row_bytes)
    if rest or data[::row_bytes] != b"\x02" * rows:
        raise Unusual("not the predictor Up alone")
    whole = (1 << 8 * len(data)) - 1
    low = whole // 0xFF * 0x7F
    total, shift = int.from_bytes(data, "little"), 8 * row_bytes
    while shift < 8 * len(data):
        above = (total << shift) & whole
        total = ((total & low) + (above & low)) ^ ((total ^ above) & ~low & whole)
        shift *= 2
    summed = bytearray(total.to_bytes(len(data), "little"))
    del summed[::row_bytes]
    return bytes(summed)
