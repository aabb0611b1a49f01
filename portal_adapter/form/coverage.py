"""
Which characters the document can show, by the character maps of its fonts: whatever else somebody types is refused before
it is confirmed, so that nothing is signed that cannot be seen.

Of each font file only the map is read, into ranges (OpenType 1.9, `cmap`, formats 4 and 12): a portal needs no font
library for that.
"""

import struct
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SANS, BOLD = "DejaVuSans.ttf", "DejaVuSans-Bold.ttf"
EVERY, EVERY_UPPER = "unifont.otf", "unifont_upper.otf"  # one of the basic plane, one of those above it
PACKAGES = {
    SANS: "fonts-dejavu-core", BOLD: "fonts-dejavu-core", EVERY: "fonts-unifont", EVERY_UPPER: "fonts-unifont",
}  # fmt: skip
PLACES = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"))  # and whatever directories are below

Ranges = tuple[tuple[int, int], ...]  # first and last code points, in order
# What turns a line round (UAX #9, explicit formatting), and what no character map to Unicode may have (ISO 19005-2).
_NEVER = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


class NoFont(Exception):
    """A font is not installed; the message names its package."""


@cache
def font(name: str) -> Path:
    """Where a font is; raises `NoFont`."""
    for found in (path for place in PLACES for path in sorted(place.rglob(name))):
        return found
    raise NoFont(f"the font {name} is missing: install Debian's package {PACKAGES[name]}")


def missing() -> list[str]:
    """What is to be installed, in words."""
    found = []
    for name in PACKAGES:
        try:
            font(name)
        except NoFont as error:
            found.append(str(error))
    return found


def undrawable(text: str) -> str:
    """
    The characters of a text that the document cannot show, each once, in their order; line ends and tabs are laid out. A
    mark that follows itself would be drawn over itself.
    """
    pairs = zip(text, "\n" + text, strict=False)
    found = (c for c, before in pairs if c not in "\n\t" and not (drawable(c) and _apart(c, before)))
    return "".join(dict.fromkeys(found))


def _apart(character: str, before: str) -> bool:
    return character != before or not unicodedata.combining(character)


def drawable(character: str) -> bool:
    if character in _NEVER or unicodedata.category(character) == "Cc":
        return False
    return in_sans(character) or any(_within(ord(character), _ranges(name)) for name in (EVERY, EVERY_UPPER))


def in_sans(character: str) -> bool:
    """Whether the text font draws it. What it draws as nothing is left to the one that draws a box with its name."""
    return not _unseen(character) and _within(ord(character), _ranges(SANS))


def _unseen(character: str) -> bool:
    """Format characters, variation selectors, fillers: without a shape of their own (Unicode, Default_Ignorable)."""
    code = ord(character)
    return (
        unicodedata.category(character) == "Cf"
        or 0xFE00 <= code <= 0xFE0F
        or 0xE0100 <= code <= 0xE01EF
        or code in {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x3164, 0xFFA0}
    )


def _within(code: int, ranges: Ranges) -> bool:
    at = bisect_right(ranges, (code, 0x110000)) - 1
    return at >= 0 and code <= ranges[at][1]


@cache
def _ranges(name: str) -> Ranges:
    return ranges(font(name).read_bytes())


def ranges(file: bytes) -> Ranges:
    """Of a font's best character map; raises ValueError for a file without one of a format that we know."""
    (tables,) = struct.unpack_from(">H", file, 4)
    found = {file[at : at + 4]: struct.unpack_from(">I", file, at + 8)[0] for at in range(12, 12 + 16 * tables, 16)}
    begin = found[b"cmap"]
    (many,) = struct.unpack_from(">H", file, begin + 2)
    maps = [begin + struct.unpack_from(">I", file, begin + 4 + 8 * i + 4)[0] for i in range(many)]
    formats = {struct.unpack_from(">H", file, at)[0]: at for at in maps}
    if 12 in formats:
        return _joined(_format_12(file, formats[12]))
    if 4 in formats:
        return _joined(_format_4(file, formats[4]))
    raise ValueError("has no character map that is known")


def _format_12(file: bytes, at: int) -> Iterator[tuple[int, int]]:
    (groups,) = struct.unpack_from(">I", file, at + 12)
    for i in range(groups):
        first, last, glyph = struct.unpack_from(">III", file, at + 16 + 12 * i)
        if glyph or first != last:
            yield first, last


def _format_4(file: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Segments; in one with an array of glyphs, a glyph of 0 is none."""
    twice = struct.unpack_from(">H", file, at + 6)[0]
    for i in range(0, twice, 2):
        ends = at + 14 + i
        last, first, delta = (struct.unpack_from(">H", file, ends + more)[0] for more in (0, twice + 2, 2 * twice + 2))
        where = ends + 3 * twice + 2
        (offset,) = struct.unpack_from(">H", file, where)
        for code in range(first, last + 1):
            if offset:
                (glyph,) = struct.unpack_from(">H", file, where + offset + 2 * (code - first))
            else:
                glyph = (code + delta) % 0x10000
            if glyph:
                yield code, code


def _joined(pairs: Iterator[tuple[int, int]]) -> Ranges:
    made: list[tuple[int, int]] = []
    for first, last in sorted(pairs):
        if made and first <= made[-1][1] + 1:
            made[-1] = made[-1][0], max(last, made[-1][1])
        else:
            made.append((first, last))
    return tuple(made)
