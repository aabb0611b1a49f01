"""
All texts of the portal that people read, as Babel finds them in code and templates, and their French.

In code a text is marked by `msgid(...)`, or stands where a refusal has its message.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import jinja2.ext
from babel.messages.extract import extract, extract_python
from babel.messages.pofile import read_po

import portal_adapter

PORTAL = Path(portal_adapter.__file__).parent
FRENCH = PORTAL / "locale" / "fr"
# The function, and which of its arguments are texts; a pair are the two forms of a count.
KEYWORDS: Mapping[str, Any] = {
    "_": None,
    "msgid": None,
    "count": (1, 2),
    "Refusal": (2,),
    "guard": (2,),
    "invalid": (3,),
    "FieldError": (3,),
    "refuse": (3,),
    "ticked": (2,),
    "Unmet": (2,),
}
# What the operators' commands say is English, and so is what is said of a configuration.
NOT_READ = ("cli/", "settings.py", "window/settings.py", "store/", "mail/templates/")


@dataclass(frozen=True)
class Message:
    """`id` is the English, `many` its form for several, '' without one."""

    id: str
    many: str
    place: str


def used() -> Iterator[Message]:
    """Of every source and template of the portal."""
    for path in sorted([*PORTAL.rglob("*.py"), *PORTAL.rglob("*.html")]):
        name = str(path.relative_to(PORTAL))
        if name.startswith(NOT_READ):
            continue
        method = extract_python if path.suffix == ".py" else jinja2.ext.babel_extract
        options = {} if path.suffix == ".py" else {"trimmed": "false"}
        found = extract(method, BytesIO(path.read_bytes()), KEYWORDS, options=options)
        for line, message, _, _ in found:
            one, many = (message[0], message[1]) if isinstance(message, tuple) else (message, "")
            if one:
                yield Message(one, many, f"{name}:{line}")


@dataclass(frozen=True)
class Translation:
    id: str
    many: str
    forms: tuple[str, ...]
    file: str


def translated() -> Iterator[Translation]:
    """Of every file of French."""
    for path in sorted(FRENCH.glob("*.po")):
        with path.open("rb") as file:
            for message in read_po(file, locale="fr"):
                if not message.id:
                    continue
                ids = (message.id, "") if isinstance(message.id, str) else tuple(message.id)
                forms = (message.string,) if isinstance(message.string, str) else tuple(message.string)
                yield Translation(ids[0], ids[1], forms, path.name)
