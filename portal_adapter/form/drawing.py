"""
A paper as PDF/A-2U (ISO 19005-2): its fonts embedded and mapped to Unicode, colours by sRGB, metadata as XMP.

    draw(paper)                  the same bytes for the same paper, whenever and wherever
    draw(paper, canvas())        the same; a canvas can be made before anybody needs it, and is used once

Dates and identifiers come from the paper; the library's own would be the day's.
"""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import groupby
from xml.sax.saxutils import escape

from fpdf import FPDF, ViewerPreferences
from fpdf.fonts import TTFFont

from portal_adapter.form.coverage import in_sans, undrawable
from portal_adapter.form.fonts import FAMILY, OTHERS, add_others, add_text
from portal_adapter.form.layout import Placed, Style, pages
from portal_adapter.form.paper import Paper
from portal_adapter.form.writing import FORMS

PRODUCER = "Paraph"
_GREY = 90  # 7:1 on white
_POINTS_A_MM = 72 / 25.4
_XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:pdf="http://ns.adobe.com/pdf/1.3/"
 xmlns:pdfaid="http://www.aiim.org/pdfa/ns/id/" xmlns:xmp="http://ns.adobe.com/xap/1.0/">
<pdfaid:part>2</pdfaid:part>
<pdfaid:conformance>U</pdfaid:conformance>
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">{title}</rdf:li></rdf:Alt></dc:title>
<dc:language><rdf:Bag><rdf:li>{language}</rdf:li></rdf:Bag></dc:language>
<pdf:Producer>{producer}</pdf:Producer>
<xmp:CreatorTool>{portal}</xmp:CreatorTool>
<xmp:CreateDate>{created}</xmp:CreateDate>
<xmp:ModifyDate>{created}</xmp:ModifyDate>
<xmp:MetadataDate>{created}</xmp:MetadataDate>
</rdf:Description>
</rdf:RDF>
</x:xmpmeta>"""


class Undrawable(Exception):
    """A paper has characters that no font has; the message names them."""


class Canvas(FPDF):
    """Of no pages, with the fonts for text."""

    identifier = ""

    def file_id(self) -> str:
        return f"<{self.identifier}><{self.identifier}>"


def canvas() -> Canvas:
    made = Canvas(unit="mm", format="A4", enforce_compliance="PDF/A-2U")
    made.set_auto_page_break(auto=False)
    made.c_margin = 0
    made.alias_nb_pages("")  # by default a "{nb}" that somebody types becomes the number of pages
    add_text(made)
    return made


def draw(paper: Paper, on: Canvas | None = None) -> bytes:
    """Raises `Undrawable`."""
    text = "\n".join(paper.texts())
    if missing := undrawable(text):
        raise Undrawable(", ".join(f"U+{ord(c):04X}" for c in missing))
    pdf = on or canvas()
    if others := {c for c in text if c not in "\n\t" and not in_sans(c)}:
        add_others(pdf, others)
    _describe(pdf, paper)
    for page in pages(paper, _widths(pdf)):
        pdf.add_page()
        for placed in page:
            _put(pdf, placed)
    return bytes(pdf.output())


def _describe(pdf: Canvas, paper: Paper) -> None:
    moment = datetime.fromtimestamp(paper.moment, UTC)
    pdf.identifier = hashlib.sha256(paper.encoded()).hexdigest()[:32].upper()
    pdf.set_creation_date(moment)
    pdf.set_lang(paper.language)
    pdf.set_title(paper.subject)
    pdf.set_creator(paper.portal)
    pdf.set_producer(PRODUCER)
    pdf.viewer_preferences = ViewerPreferences(display_doc_title=True)
    texts = {"title": paper.subject, "language": paper.language, "producer": PRODUCER, "portal": paper.portal}
    pdf.set_xmp_metadata(_XMP.format(**{k: escape(v) for k, v in texts.items()}, created=moment.isoformat()))


def _font(pdf: FPDF, style: Style, character: str) -> str:
    """Its key: a character that the bold font has not is drawn by the plain one, and by the other font in the end."""
    if character not in FORMS and not in_sans(character):
        return OTHERS
    bold = pdf.fonts[f"{FAMILY}B"]
    assert isinstance(bold, TTFFont)
    return f"{FAMILY}B" if style.bold and ord(character) in bold.cmap else FAMILY


def _widths(pdf: FPDF) -> Callable[[Style, str], float]:
    known: dict[tuple[Style, str], float] = {}

    def width(style: Style, character: str) -> float:
        if (found := known.get((style, character))) is None:
            em = pdf.fonts[_font(pdf, style, character)].cw[ord(character)] / 1000  # type: ignore[index]
            found = known[style, character] = em * style.size_pt / _POINTS_A_MM
        return found

    return width


def _put(pdf: FPDF, placed: Placed) -> None:
    style = placed.style
    pdf.set_text_color(_GREY if style.grey else 0)
    pdf.set_xy(placed.x_mm, placed.y_mm)
    for key, characters in groupby(placed.text, lambda c: _font(pdf, style, c)):
        pdf.set_font(key.removesuffix("B"), "B" if key.endswith("B") else "", style.size_pt)
        pdf.cell(h=style.row_mm, text="".join(characters))
