"""
The document that a person signs: what it shows, whatever was typed, and that it is PDF/A-2U. Judged by poppler and qpdf, and
by a reading of its objects; veraPDF's verdict is in test_form_conforms.py.
"""

import re
import subprocess
import sys
import unicodedata
from collections import Counter
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from fontTools.ttLib import TTFont
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyhanko.pdf_utils.generic import ArrayObject, DictionaryObject, StreamObject
from pyhanko.pdf_utils.reader import PdfFileReader

from portal_adapter.definitions import answers as rules
from portal_adapter.definitions.catalogue import SHIPPED
from portal_adapter.definitions.definition import DefinitionError, load
from portal_adapter.definitions.sheet import sheet
from portal_adapter.form import coverage
from portal_adapter.form.coverage import drawable, undrawable
from portal_adapter.form.declaration import Head, declaration
from portal_adapter.form.drawing import Undrawable, draw
from portal_adapter.form.layout import BOTTOM_MM, LEFT_MM, RIGHT_MM, TEXT, TOP_MM, broken, pages, rows
from portal_adapter.form.paper import Paper, Part, decoded
from portal_adapter.form.writing import joined, letter, ordered
from portal_adapter.language import Language
from tests.portal.test_sheet import ENGLISH, FRENCH, GOOD

ADDRESS = load(SHIPPED / "change-of-address-1.toml")
PERMIT = load(SHIPPED / "operating-permit-1.toml")
LEASE = load(SHIPPED / "transfer-of-lease-1.toml")
HEAD = Head("Millbrook Online", "MB-2026-000123", "Kiln and Clay", "Ada Lovelace", 1_795_766_400)
PERMITTED = {
    "company": "Kiln & Clay <sàrl>", "contact": "ada@example.org", "place": "1, Potter’s Row", "people": "12",
    "activity": "Pots are fired.\nClay is stored:\n\n\t3 tonnes.", "waste": "yes", "waste_kind": "glaze " * 160,
}  # fmt: skip
LEASED = {"premises": "2 Mill Lane", "landlord": "The Mill", "on": "2026-12-31", "deposit": "no", "account": "LU28"}
EVERY = [(ADDRESS, GOOD), (PERMIT, PERMITTED), (LEASE, LEASED)]
MIXED = (
    "Ünïcödé ŒUVRE œ — “quotes” 12 € ½ Łódź Ελλάδα Москва\n"
    "中文 かな カナ 한국어 繁體 ไทย नमस्ते አማርኛ ქართული\n"
    "😀 ❤️ 👨‍👩‍👧 🇱🇺 👍🏽 soft\u00adhyphen\u200b.\n"
    "a{nb} **b** __c__ \\ ( ) <e> & %PDF endstream\n"
    "e\u0301\u0302 " + "W" * 400 + "\n\n   three blanks\tand a tab"
)


def paper(*texts: str) -> Paper:
    lines = tuple((f"Label {i}", text) for i, text in enumerate(texts))
    return Paper("en", "Portal", "Title", "Title · 1", 0, (("Reference", "1"),), (Part("Part", lines),), "foot")


def extracted(pdf: bytes, *options: str) -> str:
    return subprocess.run(
        ["pdftotext", *options, "-", "-"], input=pdf, stdout=subprocess.PIPE, check=True
    ).stdout.decode()


def plain(text: str) -> str:
    """Without blanks, and without what pdftotext adds to tell directions."""
    return re.sub("[\\s\u202a-\u202e\u2066-\u2069]", "", text)


# --- what it shows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", [FRENCH, ENGLISH], ids=["fr", "en"])
@pytest.mark.parametrize(("definition", "given"), EVERY, ids=[definition.name for definition, _ in EVERY])
def test_everything_that_is_signed_can_be_read(definition, given, language: Language) -> None:
    """
    PROC-13, SIG-02: portal, procedure, reference, space, person, every step's labels and answers, the documents that the answers call
    for, the definition's version and the number of each page.
    """
    data = draw(declaration(definition, given, language, HEAD))
    text = plain(extracted(data))
    shown = sheet(definition, given, language)
    expected = [HEAD.portal, HEAD.reference, HEAD.space, HEAD.person, shown.title, *shown.pieces]
    expected += [language.moment(HEAD.moment), f"{definition.name}, version 1"]
    for step in shown.steps:
        expected += [step.title, *(line.label for line in step.lines)]
        expected += [row for line in step.lines for row in line.value.split("\n")]
    assert [one for one in expected if plain(one) not in text] == []
    count = len(PdfFileReader(BytesIO(data)).root["/Pages"]["/Kids"])
    assert [f"{n}/{count}" in text for n in range(1, count + 1)] == [True] * count


def test_texts_of_every_kind_are_kept_whole() -> None:
    """PROC-13: Latin, Greek, ideographs, emoji and their joiners, signs that mean something to PDF: as typed, in their order."""
    text = plain(extracted(draw(paper(MIXED, "x" * 4000, "中" * 4000, "\n" * 300))))
    assert [line for line in MIXED.split("\n") if plain(line) not in text] == []
    assert text.count("x" * 80) >= 40
    assert text.count("中") == 4000 + MIXED.count("中")


@pytest.mark.parametrize("line", ["السلام عليكم ورحمة الله", "שלום עולם", "محمد بن سلمان"], ids=range(3))
def test_what_is_written_from_the_right_can_be_read_and_copied(line: str) -> None:
    """PROC-13: Arabic letters are joined, and are still the letters that were typed."""
    assert plain(line) in plain(extracted(draw(paper(line))))


def test_arabic_letters_take_the_form_that_their_neighbours_ask_for() -> None:
    """PROC-13: beginning, middle, end, alone; marks do not part letters; a line runs from right to left, numbers do not."""
    forms = [f"{ord(c) & 0xFFFF:04X}" for c in joined("بببدب بَب")]
    assert forms == ["FE91", "FE92", "FE92", "FEAA", "FE8F", "0020", "FE91", "064E", "FE90"]
    assert "".join(map(letter, ordered("אב (12)", from_right=True))) == ")12( בא"
    assert ordered("abc (12)", from_right=False) == "abc (12)"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=300), min_size=1, max_size=8))
def test_no_character_is_lost(texts) -> None:
    """PROC-13: of whatever people type, what can be drawn stands in the document as often as it was typed, and the rest is named."""
    kept = [
        "".join(c for c, before in zip(text, "a" + text, strict=False) if drawable(c) and c != before) for text in texts
    ]
    assert [undrawable(text) for text in kept] == [""] * len(kept)
    made = paper(*kept)
    found = Counter(plain(extracted(draw(made))))
    wanted = Counter(plain("".join(made.texts()[3:])))
    del wanted["-"]  # at the end of a line pdftotext takes it for the break of a word
    assert {c: n for c, n in wanted.items() if found[c] < n} == {}


@pytest.mark.parametrize("name", coverage.PACKAGES)
def test_what_can_be_drawn_is_what_the_fonts_have(name: str) -> None:
    """PROC-13: a font's character map is read as the font library reads it."""
    found = coverage.ranges(coverage.font(name).read_bytes())
    assert {code for a, b in found for code in range(a, b + 1)} == set(TTFont(coverage.font(name)).getBestCmap())


def test_fonts_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PROC-13: with the packages that bring them, before the portal is served."""
    monkeypatch.setattr(coverage, "PLACES", (tmp_path,))
    coverage.font.cache_clear()
    missing = coverage.missing()
    coverage.font.cache_clear()
    assert len(missing) == 4
    assert "the font unifont.otf is missing: install Debian's package fonts-unifont" in missing


def test_nearly_everything_can_be_drawn() -> None:
    """PROC-13: whatever is assigned in the basic plane, but controls, what turns a line round, and private characters; emoji."""
    basic = "".join(map(chr, range(0x10000)))
    missing = {c for c in undrawable(basic) if unicodedata.category(c) not in {"Cc", "Cs", "Co", "Cn"}}
    assert missing == set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
    assert undrawable("e\u0301\u0302 e\u0301\u0301") == "\u0301"  # the second one would be drawn over the first
    assert undrawable("😀🧑🏽\u200d🚒🇱🇺 \U00020000x\U00020000\ue000\x07\n\t") == "\U00020000\ue000\x07"


def test_what_has_no_shape_is_drawn_as_a_box() -> None:
    """PROC-13: what the text font would draw as nothing could be signed unseen: a joiner, a soft hyphen, a filler, a tag."""
    unseen = "\u200b\u200d\u00ad\ufe0f\u3164\u2060\U000e0041"
    assert not any(map(coverage.in_sans, unseen))
    (font,) = (one for one in fonts(draw(paper(unseen))) if b"Unifont" in one["/BaseFont"].encode())
    program = font["/DescendantFonts"][0].get_object()["/FontDescriptor"]["/FontFile2"].data
    glyphs = TTFont(BytesIO(program))["glyf"]
    assert sum(glyphs[name].numberOfContours > 0 for name in glyphs.keys()) == len(unseen)  # noqa: SIM118


# --- what it does not show -----------------------------------------------------------------------------------


def test_what_cannot_be_drawn_is_refused_beside_its_field() -> None:
    """PROC-13: before it is confirmed, by name; so nothing is signed that cannot be seen."""
    given = {**GOOD, "street": "12 \U00020000\ue000 Lane"}
    (error,) = rules.check_whole(ADDRESS, given)
    assert (error.field, error.code, error.values) == ("street", "undrawable", {"characters": "\U00020000 \ue000"})
    with pytest.raises(Undrawable, match=r"^U\+20000, U\+E000$"):
        draw(declaration(ADDRESS, given, FRENCH, HEAD))


def test_a_name_that_cannot_be_drawn_is_spelt() -> None:
    """PROC-13: what no form can refuse, a person's or a space's name, is shown by its characters' numbers."""
    text = extracted(draw(declaration(ADDRESS, GOOD, FRENCH, replace(HEAD, person="\U00020000 Li", space="a\x07"))))
    assert "[U+20000] Li" in text
    assert "a[U+0007]" in text


def test_a_definition_with_such_a_text_is_refused(tmp_path: Path) -> None:
    """PROC-10: at the start, not when somebody confirms."""
    text = (SHIPPED / "change-of-address-1.toml").read_text().replace("Numéro et rue", "Num\U00020000ro")
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(DefinitionError, match=r"U\+20000"):
        load(tmp_path / "bad.toml")


# --- pages ---------------------------------------------------------------------------------------------------


def narrow(style, character: str) -> float:
    return style.size_pt / 5


@given(st.text(st.sampled_from("ab- \u0301中ا"), max_size=200), st.integers(1, 30))
def test_a_line_is_broken_without_losing_anything(text: str, most: int) -> None:
    """PROC-13: only blanks at a line's end are left out; a line that is too long has one character and its marks."""
    found = broken(text, lambda _: 1.0, float(most))
    assert "".join(found).replace(" ", "") == text.replace(" ", "")
    assert all(len(line) <= most for line in found)
    assert broken("one two-three", lambda _: 1.0, 8.0) == ["one two-", "three"]


@given(st.lists(st.tuples(st.sampled_from(["short", "a longer label " * 9]), st.integers(0, 90)), max_size=12))
def test_rows_stand_on_pages_and_labels_with_their_answers(many) -> None:
    """PROC-13: nothing leaves its page, and no page ends with a label or a title."""
    lines = tuple((label, "\n".join(["line"] * count)) for label, count in many)
    made = pages(Paper("en", "P", "T", "S", 0, (), (Part("Part", lines),), "f"), narrow)
    for page in made:
        body = page[:-2]
        assert all(TOP_MM <= one.y_mm <= BOTTOM_MM - one.style.row_mm + 1e-6 for one in body)
        assert all(LEFT_MM <= one.x_mm <= RIGHT_MM for one in page)
        assert page is made[-1] or body[-1].style is TEXT
    assert sum(one.text == "line" for page in made for one in page) == sum(count for _, count in many)
    assert [page[-1].text for page in made] == [f"{n} / {len(made)}" for n in range(1, len(made) + 1)]


def test_a_text_from_the_right_stands_at_the_right() -> None:
    """PROC-13: each of its lines ends at the right margin, the others begin at the left one."""
    first, second = rows(TEXT, "שלום\nabc", narrow)
    assert first.x_mm == pytest.approx(RIGHT_MM - 4 * TEXT.size_pt / 5)
    assert second.x_mm == LEFT_MM


# --- the same bytes ------------------------------------------------------------------------------------------


_ELSEWHEN = """
import datetime, sys, time, fpdf.fpdf, fpdf.output
class Later(datetime.datetime):
    @classmethod
    def now(cls, tz=None): return super().now(tz) + datetime.timedelta(days=400)
time.time = lambda now=time.time(): now + 400 * 86400
fpdf.fpdf.datetime = fpdf.output.datetime = Later
from portal_adapter.form import drawing
from portal_adapter.form.paper import decoded
drawing.datetime = Later
sys.stdout.buffer.write(drawing.draw(decoded(sys.stdin.buffer.read())))
"""


def test_the_same_answers_are_the_same_bytes() -> None:
    """PROC-13: twice, in another process whose hashes fall otherwise, and on another day; another moment is another document."""
    made = declaration(ADDRESS, {**GOOD, "street": MIXED[:80] + "السلام"}, FRENCH, HEAD)
    assert decoded(made.encoded()) == made
    first = draw(made)
    assert draw(made) == first
    words = [sys.executable, "-c", _ELSEWHEN]
    environment = {"PYTHONHASHSEED": "7", "TZ": "Pacific/Kiritimati", "PYTHONPATH": str(Path(__file__).parents[2])}
    other = subprocess.run(words, input=made.encoded(), stdout=subprocess.PIPE, env=environment, check=True)
    assert other.stdout == first
    assert draw(replace(made, moment=made.moment + 1)) != first


# --- PDF/A-2U ------------------------------------------------------------------------------------------------


def objects(pdf: bytes):
    """Every object of a document, with those within it."""
    reader = PdfFileReader(BytesIO(pdf))
    waiting = [reader.get_object(ref) for ref in reader.xrefs.explicit_refs_in_revision(0)] + [reader.trailer_view]
    while waiting:
        one = waiting.pop()
        yield one
        if isinstance(one, DictionaryObject):
            waiting += [one.raw_get(key) for key in one if key != "/Parent"]
        elif isinstance(one, ArrayObject):
            waiting += [one.raw_get(i) for i in range(len(one))]


def fonts(pdf: bytes) -> list[DictionaryObject]:
    return [one for one in objects(pdf) if isinstance(one, DictionaryObject) and one.get("/Subtype") == "/Type0"]


@pytest.fixture(scope="module")
def document() -> bytes:
    return draw(declaration(ADDRESS, {**GOOD, "street": MIXED + "السلام"}, FRENCH, HEAD))


def test_it_is_what_pdf_a_wants(document: bytes) -> None:
    """PROC-13: ISO 19005-2, level U: metadata that say so, colours that are defined, an identifier; nothing that is not allowed."""
    reader = PdfFileReader(BytesIO(document))
    root, trailer = reader.root, reader.trailer_view
    assert document.startswith(b"%PDF-1.7\n%")
    assert "/Encrypt" not in trailer
    assert isinstance(root["/OpenAction"], ArrayObject)  # a place in the document, nothing that is done
    assert len(trailer["/ID"]) == 2
    assert root["/Lang"] == "fr"
    assert root["/ViewerPreferences"]["/DisplayDocTitle"]
    metadata = root["/Metadata"]
    assert "/Filter" not in metadata
    for said in ("<pdfaid:part>2<", "<pdfaid:conformance>U<", "changement d’adresse · MB-2026-000123<"):
        assert said in metadata.data.decode()
    assert "<xmp:CreateDate>2026-11-27T08:00:00+00:00<" in metadata.data.decode()
    assert "/Info" not in trailer  # it would have to say the same
    (intent,) = root["/OutputIntents"]
    assert (intent["/S"], intent["/DestOutputProfile"]["/N"]) == ("/GTS_PDFA1", 3)
    assert intent["/DestOutputProfile"].data[36:40] == b"acsp"
    forbidden = {
        "/AA",
        "/JavaScript",
        "/EmbeddedFiles",
        "/SMask",
        "/CA",
        "/ca",
        "/BM",
        "/AcroForm",
        "/OCProperties",
    }
    for one in objects(document):
        if isinstance(one, DictionaryObject):
            assert not forbidden & set(one)
            assert one.get("/Group", {"/CS": "/DeviceRGB"})["/CS"] == "/DeviceRGB"  # which the output intent defines
        if isinstance(one, StreamObject):
            assert one.get("/Filter") in {None, "/FlateDecode"}
            assert "/F" not in one


def test_its_fonts_are_whole(document: bytes) -> None:
    """PROC-13: every font is embedded, a part of itself, with widths of its own and a map to Unicode of each code; poppler finds so, too."""
    found = fonts(document)
    assert len(found) == 3
    for font in found:
        assert re.fullmatch(r"/[A-Z]{6}\+\w+", font["/BaseFont"])
        inner = font["/DescendantFonts"][0]
        assert len(inner["/FontDescriptor"]["/FontFile2"].data) < 80_000
        codes = re.findall(r"<([0-9A-F]{4})> <([0-9A-F]+)>\n", font["/ToUnicode"].data.decode())
        assert len(inner["/CIDToGIDMap"].data) == 2 * 65536
        assert {code for code, _ in codes} >= {f"{i // 2:04X}" for i, b in enumerate(inner["/CIDToGIDMap"].data) if b}
        assert not {text for code, text in codes if code != "0000"} & {"0000", "FEFF", "FFFE"}
    listed = subprocess.run(["pdffonts", "-"], input=document, stdout=subprocess.PIPE, check=True).stdout.decode()
    rows_ = [row.split() for row in listed.splitlines()[2:]]
    assert [row[-5:-2] for row in rows_] == [["yes", "yes", "yes"]] * 3


def test_qpdf_finds_no_fault(document: bytes, tmp_path: Path) -> None:
    """PROC-13: its cross references, streams and strings are sound."""
    (tmp_path / "form.pdf").write_bytes(document)
    done = subprocess.run(["qpdf", "--check", tmp_path / "form.pdf"], stdout=subprocess.PIPE, check=True)
    assert b"No syntax or stream encoding errors found" in done.stdout
