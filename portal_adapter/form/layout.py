"""
Where everything of a paper stands: rows of text, one below the other, on pages of A4. It draws nothing, and asks only how
wide a character is.

Labels stay with what they belong to, titles with what follows them; whatever is too long for a line goes on in the next.
"""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from portal_adapter.form.paper import Paper, Part
from portal_adapter.form.writing import joined, ordered, right_to_left

LEFT_MM, RIGHT_MM = 22.0, 188.0
TOP_MM, BOTTOM_MM = 20.0, 275.0
FOOT_MM = 283.0
_TAB = "    "


@dataclass(frozen=True, slots=True)
class Style:
    size_pt: float
    row_mm: float
    gap_mm: float  # above the first row of a text
    bold: bool = False
    grey: bool = False


PORTAL = Style(9, 5, 0, grey=True)
TITLE = Style(17, 8, 1, bold=True)
PART = Style(12.5, 6.5, 7, bold=True)
LABEL = Style(8.5, 4.4, 2.6, grey=True)
TEXT = Style(10.5, 5.2, 0)
PIECE = Style(10.5, 5.2, 1.5)
FOOT = Style(8, 4, 0, grey=True)

Width = Callable[[Style, str], float]  # of one character, in mm


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a text, its characters from left to right. `keep`: on one page with the row after it."""

    style: Style
    text: str
    x_mm: float
    gap_mm: float
    keep: bool


@dataclass(frozen=True, slots=True)
class Placed:
    style: Style
    text: str
    x_mm: float
    y_mm: float


def pages(paper: Paper, width: Width) -> list[list[Placed]]:
    made = list(_paged(list(_rows(paper, width))))
    for number, page in enumerate(made, 1):
        count = f"{number} / {len(made)}"
        page.append(Placed(FOOT, paper.foot, LEFT_MM, FOOT_MM))
        page.append(Placed(FOOT, count, RIGHT_MM - _width(FOOT, count, width), FOOT_MM))
    return made


def _rows(paper: Paper, width: Width) -> Iterator[Row]:
    yield from rows(PORTAL, paper.portal, width, keep=True)
    yield from rows(TITLE, paper.title, width, keep=True)
    for part in (Part("", paper.head), *paper.parts):
        yield from rows(PART, part.title, width, keep=True) if part.title else ()
        for label, text in part.lines:
            yield from rows(LABEL, label, width, keep=True) if label else ()
            yield from rows(TEXT if label else PIECE, text, width)


def rows(style: Style, text: str, width: Width, *, keep: bool = False) -> Iterator[Row]:
    """Of one text, which may have lines of its own."""
    gap_mm = style.gap_mm
    for paragraph in text.split("\n"):
        from_right = right_to_left(paragraph)
        for line in broken(joined(paragraph.replace("\t", _TAB)), lambda c: width(style, c), RIGHT_MM - LEFT_MM):
            x_mm = RIGHT_MM - _width(style, line, width) if from_right else LEFT_MM
            yield Row(style, ordered(line, from_right=from_right), x_mm, gap_mm, keep)
            gap_mm = 0.0


def broken(text: str, width: Callable[[str], float], most: float) -> list[str]:
    """Into lines: after a blank or a hyphen, beside an ideograph, or, where a word is too long, anywhere but before a mark."""
    lines = []
    ends = [0.0, *accumulate(map(width, text))]
    start, may = 0, 0
    for i, c in enumerate(text):
        if c != " " and ends[i + 1] - ends[start] > most and i > start:
            end = may if may > start else _before_marks(text, start, i)
            lines.append(text[start:end].rstrip(" "))
            start = end
        if c in " -" or _wide(c) or (i + 1 < len(text) and _wide(text[i + 1])):
            may = i + 1
    lines.append(text[start:].rstrip(" "))
    return lines


def _before_marks(text: str, start: int, end: int) -> int:
    """A letter's marks go with it, unless the line has nothing else."""
    at = end
    while at > start + 1 and unicodedata.combining(text[at]):
        at -= 1
    return at if at > start + 1 or not unicodedata.combining(text[end]) else end


def _wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in {"W", "F"} and not unicodedata.combining(character)


def _width(style: Style, text: str, width: Width) -> float:
    return sum(width(style, c) for c in text)


def _paged(every: Sequence[Row]) -> Iterator[list[Placed]]:
    page: list[Placed] = []
    y_mm = TOP_MM
    for group in _groups(every):
        if page and y_mm + _height(group) > BOTTOM_MM:
            yield page
            page, y_mm = [], TOP_MM
        for row in group:
            if y_mm + row.style.row_mm > BOTTOM_MM:  # a group that is longer than a page
                yield page
                page, y_mm = [], TOP_MM
            y_mm += row.gap_mm if page else 0.0
            page.append(Placed(row.style, row.text, row.x_mm, y_mm))
            y_mm += row.style.row_mm
    yield page


def _height(group: Sequence[Row]) -> float:
    return sum(row.gap_mm + row.style.row_mm for row in group)


def _groups(every: Sequence[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    for row in every:
        group.append(row)
        if not row.keep:
            yield group
            group = []
    if group:
        yield group
