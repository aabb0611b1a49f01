"""PDFs put together from their parts, in each of the forms that their cross-references may have."""

import itertools
import zlib
from collections.abc import Collection, Mapping

CATALOG = b"<< /Type /Catalog /Pages 2 0 R >>"
PAGES = b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>"
PAGE = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R >>"
CONTENT = b"<< /Length 3 >>\nstream\nq Q\nendstream"
INFO = b"<< /Title (A draft) /Producer (Nobody) >>"
OBJECTS = {1: CATALOG, 2: PAGES, 3: PAGE, 4: CONTENT, 5: INFO}
TRAILER = b"/Root 1 0 R /Info 5 0 R"
TABLE, STREAM, UP, NONE = "table", "stream", "stream with a predictor", "stream with a predictor that does nothing"


def draft(
    objects: Mapping[int, bytes] | None = None,
    form: str = TABLE,
    *,
    packed: Collection[int] = (),
    eol: bytes = b"\n",
    version: bytes = b"1.7",
    trailer: bytes = TRAILER,
    size: int | None = None,
    before: bytes = b"",
    free: Collection[int] = (),
    members: Mapping[int, tuple[int, int]] | None = None,
    generation: int = 0,
) -> bytes:
    """
    A PDF of these objects, by default one page; those `packed` lie in an object stream. `before` is a document that this
    one is a revision of. `members` are said to lie in an object stream, at an index; they are not written.
    `generation` is that of all objects, as far as the cross-references are asked.
    """
    objects = OBJECTS | dict(objects or {})
    if before:
        objects = {number: objects[number] for number in objects if objects[number] != OBJECTS.get(number)}
        last = int(before.rsplit(b"startxref", 1)[1].split()[0])
        trailer += b" /Prev %d" % last
    out = bytearray(before or b"%%PDF-%b%b%%\xe2\xe3\xcf\xd3%b" % (version, eol, eol))
    places: dict[int, tuple[int, int, int]] = dict.fromkeys(free, (0, 0, 1))
    highest = max([*objects, *free, *OBJECTS])
    if packed:
        highest += 1
        inside = {number: objects.pop(number) for number in sorted(packed)}
        objects[highest] = _packed(inside)
        places |= {number: (2, highest, index) for index, number in enumerate(inside)}
    for number, (stream, index) in (members or {}).items():
        places[number] = 2, stream, index
        del objects[number]
    for number, body in objects.items():
        places[number] = 1, len(out), generation
        out += b"%d 0 obj%b%b%bendobj%b" % (number, eol, body, eol, eol)
    start = len(out)
    if form == TABLE:
        out += b"xref" + eol + _table({0: (0, 0, 65535), **places}, eol)
        out += b"trailer%b<< /Size %d %b >>" % (eol, size or highest + 1, trailer)
    else:
        highest += 1
        places[highest] = 1, start, 0
        entries = b"/Type /XRef /Size %d %b" % (size or highest + 1, trailer)
        out += b"%d 0 obj%b%b%bendobj" % (highest, eol, _stream(places, entries, form), eol)
    return bytes(out + b"%bstartxref%b%d%b%%%%EOF%b" % (eol, eol, start, eol, eol))


def growing() -> bytes:
    """A short PDF whose catalog, which is written anew when it is signed, is 3 MB long."""
    return draft({1: b"<< /Type /Catalog /Pages 2 0 R /Lang (%b) >>" % (b"x" * 3 * 1024 * 1024)}, STREAM, packed=[1])


def _packed(inside: Mapping[int, bytes]) -> bytes:
    pairs, content = b"", b""
    for number, body in inside.items():
        pairs += b"%d %d " % (number, len(content))
        content += body + b"\n"
    data = zlib.compress(pairs + content)
    about = b"/Type /ObjStm /N %d /First %d /Filter /FlateDecode /Length %d" % (len(inside), len(pairs), len(data))
    return b"<< %b >>\nstream\n%b\nendstream" % (about, data)


def _runs(places: Mapping[int, tuple[int, int, int]]) -> list[list[int]]:
    grouped = itertools.groupby(enumerate(sorted(places)), lambda pair: pair[1] - pair[0])
    return [[number for _, number in group] for _, group in grouped]


def _table(places: Mapping[int, tuple[int, int, int]], eol: bytes) -> bytes:
    end = eol if len(eol) == 2 else b" " + eol
    text = b""
    for run in _runs(places):
        text += b"%d %d%b" % (run[0], len(run), eol)
        for kind, place, generation in (places[number] for number in run):
            text += b"%010d %05d %b%b" % (place, generation, b"n" if kind else b"f", end)
    return text


def _stream(places: Mapping[int, tuple[int, int, int]], entries: bytes, form: str) -> bytes:
    runs = _runs(places)
    rows = [bytes((a,)) + b.to_bytes(3) + bytes((c,)) for a, b, c in (places[number] for run in runs for number in run)]
    index = b" ".join(b"%d %d" % (run[0], len(run)) for run in runs)
    if form == NONE:
        rows = [b"\0" + row for row in rows]
    if form == UP:
        above = [bytes(5), *rows]
        pairs = zip(rows, above, strict=False)
        rows = [b"\2" + bytes((x - y) % 256 for x, y in zip(row, last, strict=True)) for row, last in pairs]
    if form in {UP, NONE}:
        entries += b" /DecodeParms << /Columns 5 /Predictor 12 >>"
    data = zlib.compress(b"".join(rows))
    about = b"/W [1 3 1] /Index [%b] /Filter /FlateDecode /Length %d" % (index, len(data))
    return b"<< %b %b >>\nstream\n%b\nendstream" % (entries, about, data)
