"""
All texts of the portal that people read, as they are found in code, tables and templates, and their French.

Both are read by their syntax trees, since Babel's readers do not see a call within a call, or of an object's method. In
code a text is marked by `msgid(...)`, stands where a refusal has its message, or is called `message` before it does. What
stands in a table without a mark is taken from the table itself.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from babel.messages.pofile import read_po
from jinja2 import Environment, nodes

import portal_adapter
from portal_adapter.domain import archive, information
from portal_adapter.domain.kinds import KINDS
from portal_adapter.web.notices import NOTICES
from portal_adapter.window import reasons

PORTAL = Path(portal_adapter.__file__).parent
FRENCH = PORTAL / "locale" / "fr"
# The function, and which of its arguments are texts; of `count` they are the two forms of one.
CALLS: Mapping[str, tuple[int, ...]] = {
    "msgid": (0,),
    "count": (0, 1),
    "Refusal": (1,),
    "guard": (1,),
    "invalid": (2,),
    "rejected": (1,),
    "FieldError": (2,),
    "refuse": (2,),
    "ticked": (1,),
    "Unmet": (1,),
    "text": (0,),
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
    """Of every source, table and template of the portal."""
    for path in sorted([*PORTAL.rglob("*.py"), *PORTAL.rglob("*.html")]):
        name = str(path.relative_to(PORTAL))
        if not name.startswith(NOT_READ):
            yield from (of_template if path.suffix == ".html" else of_code)(path.read_text(), name)
    for name, texts in _tables().items():
        yield from (Message(text, "", name) for text in texts)


def _tables() -> Mapping[str, list[str]]:
    items = information.ITEMS
    alone = (reasons._FINAL, reasons._LATER, reasons._PINS, reasons._TOKEN_FINAL)
    told = [*reasons._CODES.values(), *reasons._AT_TOKEN.values()]
    told += [("", said) for table in alone for said in table.values()]
    return {
        "web/notices.py": list(NOTICES.values()),
        "domain/archive.py": list(archive.TYPES.values()),
        "domain/information.py": [*information.GROUPS.values(), *(item.label for item in items)],
        "domain/kinds.py": [kind.message for kind in KINDS.values() if kind.message],
        "window/reasons.py": [said for _, said in told],
    }


def of_template(source: str, name: str) -> Iterator[Message]:
    for node in Environment().parse(source).find_all(nodes.Call):
        called = node.node.attr if isinstance(node.node, nodes.Getattr) else getattr(node.node, "name", "")
        given = [arg.value if isinstance(arg, nodes.Const) else "" for arg in node.args]
        if called == "_" and given[0]:
            yield Message(given[0], "", f"{name}:{node.lineno}")
        elif called == "count" and given[0]:
            yield Message(given[0], given[1], f"{name}:{node.lineno}")


def of_code(source: str, name: str) -> Iterator[Message]:
    for node in ast.walk(ast.parse(source)):
        place = f"{name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = [text for at in CALLS.get(called, ()) if at < len(node.args) for text in _constants(node.args[at])]
            if called == "count":
                if len(given) == 2:
                    yield Message(given[0], given[1], place)
            elif called != "text" or _is_language(node.func):
                yield from (Message(text, "", place) for text in given)
        elif isinstance(node, ast.Assign) and [getattr(one, "id", "") for one in node.targets] == ["message"]:
            yield from (Message(text, "", place) for text in _constants(node.value))


def _is_language(function: ast.expr) -> bool:
    """`language.text("...")`, or `text("...")` where that is what it was called; of a form, `text` takes a field's name."""
    return isinstance(function, ast.Name) or (
        isinstance(function, ast.Attribute) and "language" in ast.dump(function.value)
    )


def _constants(node: ast.expr) -> list[str]:
    """A text; either of two, where a condition chooses."""
    if isinstance(node, ast.IfExp):
        return [*_constants(node.body), *_constants(node.orelse)]
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value else []


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
            yield from of_french(file, path.name)


def of_french(file: object, name: str) -> Iterator[Translation]:
    for message in read_po(file, locale="fr"):  # type: ignore[arg-type]
        if message.id:
            one, many = (message.id, "") if isinstance(message.id, str) else (message.id[0], message.id[1])
            forms = (message.string,) if isinstance(message.string, str) else tuple(message.string)
            yield Translation(one, many, forms, name)
