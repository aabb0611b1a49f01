"""
The help: text files, one a topic and language, and which page leads to which topic (UI-05).

    Title                              the first line
    changed 2026-11-27                 the second: when it was last changed
                                       then blocks, apart by an empty line:
    == Heading
    1. first                           steps, a line each
    - first                            points, a line each
    Anything else is a paragraph.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

DIRECTORY = Path(__file__).parent / "help"
# name of a page's route -> the topic that concerns it
TOPICS: Mapping[str, str] = {
    "login": "log-in",
    "returned": "log-in",
    "registration": "register",
    "renewal": "register",
    "account": "register",
    "new-product": "register",
    "terms": "spaces",
    "spaces": "spaces",
    "space": "spaces",
    "space-data": "spaces",
    "new-private-space": "spaces",
    "new-business-space": "spaces",
    "team": "team",
    "member": "team",
    "leaving": "team",
    "new-invitation": "team",
    "invitation": "team",
    "procedures": "procedures",
    "catalogue": "procedures",
    "definition": "procedures",
    "start": "procedures",
    "procedure": "procedures",
    "procedure-history": "procedures",
    "step": "procedures",
    "check": "procedures",
    "procedure-copy": "procedures",
    "procedure-deletion": "procedures",
    "sending": "sending",
    "transmission": "sending",
    "messages": "sending",
    "new-message": "sending",
    "desk": "desk",
    "desk-procedure": "desk",
    "desk-transmission": "desk",
    "desk-correction": "desk",
    "desk-closing": "desk",
    "desk-history": "desk",
    "desk-messages": "desk",
    "desk-new-message": "desk",
    "attachments": "procedures",
    "new-attachment": "procedures",
    "slot": "procedures",
    "attachment-removal": "procedures",
    "sign-step": "procedures",
    "sign-elsewhere": "procedures",
    "second-sign-step": "procedures",
    "second-sign-elsewhere": "procedures",
    "signing-returned": "procedures",
    "transferred-list": "procedures",
    "transferred": "procedures",
    "information": "information",
    "information-group": "information",
    "files": "files",
    "document-deletion": "files",
}
_STEP = re.compile(r"\d+\. ")


@dataclass(frozen=True, slots=True)
class Topic:
    """`blocks`: (kind, lines), kind one of heading, steps, points, paragraph."""

    name: str
    language: str
    title: str
    changed: date
    blocks: tuple[tuple[str, tuple[str, ...]], ...]


@cache
def topics() -> Mapping[str, Mapping[str, Topic]]:
    """By name and language, in the order of their names. Raises `ValueError` for a file without its first two lines."""
    found: dict[str, dict[str, Topic]] = {}
    for path in sorted(DIRECTORY.glob("*/*.txt"), key=lambda path: (path.stem, path.parent.name)):
        found.setdefault(path.stem, {})[path.parent.name] = read(path)
    return found


def read(path: Path) -> Topic:
    title, changed, *rest = path.read_text().split("\n", 2)
    if not title or not changed.startswith("changed "):
        raise ValueError(f"{path}: begins with a title and 'changed' with a date")
    parts = "\n".join(rest).split("\n\n")
    blocks = tuple(_block(part.strip().split("\n")) for part in parts if part.strip())
    return Topic(path.stem, path.parent.name, title, date.fromisoformat(changed.removeprefix("changed ")), blocks)


def _block(lines: list[str]) -> tuple[str, tuple[str, ...]]:
    if lines[0].startswith("== "):
        return "heading", (lines[0].removeprefix("== "),)
    if all(_STEP.match(line) for line in lines):
        return "steps", tuple(_STEP.sub("", line, count=1) for line in lines)
    if all(line.startswith("- ") for line in lines):
        return "points", tuple(line.removeprefix("- ") for line in lines)
    return "paragraph", (" ".join(lines),)
