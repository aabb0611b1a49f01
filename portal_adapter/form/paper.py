"""
What stands on the document, in the words of its language and in order, before anybody thinks of pages: all that the process
that draws it is given (process.py). It holds plain texts, so that this process needs to know nothing of the portal.
"""

import json
from dataclasses import asdict, dataclass

from portal_adapter.form.coverage import undrawable


@dataclass(frozen=True, slots=True)
class Part:
    """A title, and lines of a label and a text; of supporting documents there are texts without a label."""

    title: str
    lines: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Paper:
    language: str  # of its texts, as PDF names it (RFC 3066)
    portal: str
    title: str
    subject: str  # what a reader's window is called
    moment: int  # in seconds; the document's only date
    head: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]
    foot: str

    def encoded(self) -> bytes:
        """The same for the same paper."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    def texts(self) -> tuple[str, ...]:
        lines = (*self.head, *(line for part in self.parts for line in part.lines))
        titles = (part.title for part in self.parts)
        return (self.portal, self.title, self.subject, self.foot, *titles, *(text for line in lines for text in line))


def decoded(data: bytes) -> Paper:
    table = json.loads(data)
    parts = tuple(Part(one["title"], _pairs(one["lines"])) for one in table.pop("parts"))
    return Paper(**{**table, "head": _pairs(table["head"])}, parts=parts)


def _pairs(lines: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((label, text) for label, text in lines)


def legible(text: str) -> str:
    """What cannot be drawn is named: a name that an authority or a card gave cannot be refused in a form."""
    for character in undrawable(text):
        text = text.replace(character, f"[U+{ord(character):04X}]")
    return text
