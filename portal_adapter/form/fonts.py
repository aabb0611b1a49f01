"""
The document's fonts as fpdf2 takes them: DejaVu Sans for text, and of Unifont, which draws nearly everything that Unicode
has, a small TrueType font with the characters that a paper needs beside it.

Loaded as it is, Unifont would take 57 000 characters' names and widths for each document. Its outlines have straight lines
only, so that TrueType has the same ones.
"""

import os
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from io import BytesIO
from typing import Any

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont
from fpdf import FPDF
from fpdf.fonts import Glyph, SubsetMap, TTFFont

from portal_adapter.form.coverage import BOLD, EVERY, EVERY_UPPER, SANS, font
from portal_adapter.form.writing import FORMS

FAMILY, OTHERS = "text", "others"
_NOTDEF = ".notdef"


class _Letters(SubsetMap):
    """A form of a letter says that it is the letter: what is copied out of the document, or searched in it, is what was typed."""

    @cache  # noqa: B019 -- the library clears it after the document
    def get_glyph(self, *args: Any, unicode: Any = None, **more: Any) -> Glyph | None:
        found = super().get_glyph(*args, unicode=unicode, **more)
        form = FORMS.get(chr(unicode)) if isinstance(unicode, int) and unicode > 0xFFFF else None
        return found if found is None or form is None else replace(found, unicode=(ord(form[1]),))


def add_text(pdf: FPDF) -> None:
    """Takes a while: 12 000 characters and their widths."""
    for style, name in (("", SANS), ("B", BOLD)):
        pdf.add_font(FAMILY, style, font(name))
        made = pdf.fonts[FAMILY + style]
        assert isinstance(made, TTFFont)
        made.subset = _Letters(made)
        for private, (drawn, _) in FORMS.items():
            if ord(drawn) in made.cmap:
                made.cmap[ord(private)] = made.cmap[ord(drawn)]
                made.glyph_ids[ord(private)] = made.glyph_ids[ord(drawn)]
                made.cw[ord(private)] = made.cw[ord(drawn)]


def add_others(pdf: FPDF, characters: Iterable[str]) -> None:
    """From memory: the process that draws can write no file."""
    handle = os.memfd_create(OTHERS)
    try:
        with open(handle, "wb", closefd=False) as file:
            file.write(_small(sorted(set(characters))))
        pdf.fonts[OTHERS] = TTFFont(pdf, f"/proc/self/fd/{handle}", OTHERS, "")  # type: ignore[arg-type]
    finally:
        os.close(handle)


def _small(characters: list[str]) -> bytes:
    glyphs = {_NOTDEF: TTGlyphPen(None).glyph()}
    widths = {_NOTDEF: (0, 0)}
    names = {}
    with TTFont(font(EVERY), lazy=True) as basic, TTFont(font(EVERY_UPPER), lazy=True) as upper:
        maps = [(source.getBestCmap(), source["CFF "].cff.topDictIndex[0].CharStrings) for source in (basic, upper)]
        for character in characters:
            outline = next(outlines[known[ord(character)]] for known, outlines in maps if ord(character) in known)
            name = names[ord(character)] = f"u{ord(character):X}"
            pen = TTGlyphPen(None)
            outline.draw(pen)
            glyphs[name] = pen.glyph()
            glyphs[name].recalcBounds(None)
            widths[name] = outline.width, getattr(glyphs[name], "xMin", 0)
        return _built(basic, glyphs, widths, names)


def _built(like: TTFont, glyphs: dict[str, Any], widths: dict[str, tuple[int, int]], names: dict[int, str]) -> bytes:
    head, heights = like["head"], like["hhea"]
    builder = FontBuilder(head.unitsPerEm, isTTF=True)
    builder.setupHead(unitsPerEm=head.unitsPerEm, created=head.created, modified=head.modified)
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap(names)
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(widths)
    builder.setupHorizontalHeader(ascent=heights.ascent, descent=heights.descent)
    builder.setupNameTable(
        {"familyName": "Unifont", "styleName": "Regular", "fullName": "Unifont", "psName": "Unifont"}
    )
    builder.setupOS2()
    builder.setupPost()
    builder.font.recalcTimestamp = False
    made = BytesIO()
    builder.save(made)
    return made.getvalue()
