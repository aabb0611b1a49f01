"""
Text as it is written: Arabic letters joined to their neighbours, and a line's characters in their order from left to right.

A letter's form is a character of the font that stands for another one: `form` gives it a private code point, and `letter`
leads back to what was typed, so that the document's text is the typed one.
"""

import unicodedata
from collections.abc import Iterator

from fpdf.bidi import BidiParagraph, auto_detect_base_direction
from fpdf.enums import TextDirection

from portal_adapter.form.coverage import in_sans

_PRIVATE = 0xF0000  # plane 15: nobody's answer has it (coverage.py)
_MIRRORED = dict(zip("()[]{}<>«»‹›", ")(][}{><»«›‹", strict=True))
_LEFTWARDS = {"R", "AL", "AN"}
_TATWEEL = "\u0640"
_FORMS = ("isolated", "final", "initial", "medial")


def _arabic() -> dict[str, dict[str, str]]:
    """Letter -> position -> the presentation form that the text font has (Unicode, Arabic Presentation Forms A and B)."""
    found: dict[str, dict[str, str]] = {}
    for code in (*range(0xFB50, 0xFE00), *range(0xFE70, 0xFEFD)):
        kind, *of = unicodedata.decomposition(chr(code)).split() or [""]
        if kind[1:-1] in _FORMS and len(of) == 1 and in_sans(chr(code)):
            found.setdefault(chr(int(of[0], 16)), {})[kind[1:-1]] = chr(code)
    return found


ARABIC = _arabic()
FORMS: dict[str, tuple[str, str]] = {}  # private code point -> the font's character, the letter that was typed
for _typed, _forms in ARABIC.items():
    for _drawn in _forms.values():
        FORMS[chr(_PRIVATE + ord(_drawn))] = _drawn, _typed
for _typed, _drawn in _MIRRORED.items():
    FORMS[chr(_PRIVATE + ord(_drawn))] = _drawn, _typed


def letter(character: str) -> str:
    return FORMS[character][1] if character in FORMS else character


def right_to_left(text: str) -> bool:
    """Whether its first letter with a direction is one of Hebrew, Arabic and their like."""
    return auto_detect_base_direction(text) is TextDirection.RTL


def joined(text: str) -> str:
    """With its Arabic letters in the forms that their neighbours ask for; every character stays at its place."""
    if not any(c in ARABIC for c in text):
        return text
    return "".join(_form(c, before, after) for c, before, after in _neighbours(text))


def _neighbours(text: str) -> Iterator[tuple[str, str, str]]:
    """Each character between those that it could join: marks above and below letters do not stand between."""
    seen = [c for c in text if not unicodedata.combining(c)]
    at = 0
    for c in text:
        if unicodedata.combining(c):
            yield c, "", ""
            continue
        yield c, seen[at - 1] if at else "", seen[at + 1] if at + 1 < len(seen) else ""
        at += 1


def _form(character: str, before: str, after: str) -> str:
    forms = ARABIC.get(character)
    if forms is None:
        return character
    behind = _joins_next(before) and "final" in forms
    ahead = "initial" in forms and (after == _TATWEEL or "final" in ARABIC.get(after, {}))
    place = ("medial" if ahead else "final") if behind else ("initial" if ahead else "isolated")
    return chr(_PRIVATE + ord(forms[place])) if place in forms else character


def _joins_next(character: str) -> bool:
    return character == _TATWEEL or "initial" in ARABIC.get(character, {})


def ordered(line: str, *, from_right: bool) -> str:
    """A line's characters from left to right (UAX #9); brackets in what runs to the left look the other way."""
    text = "".join(map(letter, line))
    if not any(unicodedata.bidirectional(c) in _LEFTWARDS for c in text):
        return line
    base = TextDirection.RTL if from_right else TextDirection.LTR
    found = BidiParagraph(text=text, base_direction=base, preserve_bn_chars=True).get_reordered_characters()
    placed = [(line[one.character_index], one.embedding_level % 2 == 1) for one in found]
    return "".join(_marks_after([_mirrored(c) if back else c for c, back in placed], [back for _, back in placed]))


def _mirrored(character: str) -> str:
    return chr(_PRIVATE + ord(_MIRRORED[character])) if character in _MIRRORED else character


def _marks_after(line: list[str], back: list[bool]) -> Iterator[str]:
    """Marks are drawn over the character before them: in what was turned round they follow their letter again (L3)."""
    marks: list[str] = []
    for c, turned in zip(line, back, strict=True):
        if turned and unicodedata.combining(letter(c)):
            marks.append(c)
            continue
        yield c
        yield from marks
        marks.clear()
    yield from marks
