"""
The portal's requirements, portal_adapter/REQUIREMENTS.md: made from requirements.toml, the routes, the code and the
docstrings of the tests. `python -m tests.portal.requirement_list` writes it anew.

A test of a requirement begins its docstring with the id, or several: 'ESP-23: ...', 'TOK-06, TOK-15: ...'. A rule that
waits for another part of the portal has that part's name.
"""

import ast
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from portal_adapter.refusal import CODES
from portal_adapter.web.routes import ROUTES
from portal_adapter.web.views.cards import CARDS_ROUTES

TESTS = Path(__file__).parent
PORTAL = TESTS.parent.parent / "portal_adapter"
SOURCE = PORTAL / "requirements.toml"
LIST = PORTAL / "REQUIREMENTS.md"
PARTS = ("procedures", "deposits", "orders", "devices")

_KINDS = "TOK|ESP|PROC|SIG|ATT|SUB|TRK|COR|MSG|MAIL|UI"
_ID = re.compile(rf"(?:{_KINDS})-\d\d\b")
_RANGE = re.compile(rf"((?:{_KINDS})-)(\d\d) to \1(\d\d)")
_SECTIONS = {
    "0.1": "Refusals",
    "TOK": "Products, accounts, login",
    "ESP": "Spaces and teams",
    "PROC": "Procedures",
    "SIG": "Signing",
    "ATT": "Attachments and files",
    "SUB": "Sending",
    "TRK": "Following",
    "COR": "Correcting",
    "MSG": "Messages",
    "MAIL": "Mail",
    "UI": "Pages",
}
_HEAD = """\
# Requirements

What the portal has to do, where that is done, and the tests that hold it. Made from `requirements.toml`, the routes and the
docstrings of `tests/portal`: `python -m tests.portal.requirement_list` writes it anew, and a test fails where it was not done.
A rule without a test names the part of the portal that it waits for.
"""


@dataclass(frozen=True)
class Row:
    id: str
    text: str
    part: str
    code: tuple[str, ...]
    tests: tuple[str, ...]

    def __str__(self) -> str:
        code, tests = ("<br>".join(f"`{one}`" for one in each) for each in (self.code, self.tests))
        waits = f"waits for: {self.part}" if self.part else ""
        return f"| {self.id} | {self.text} | {code} | {'<br>'.join(one for one in (tests, waits) if one)} |"


def sentences() -> Mapping[str, Mapping[str, str]]:
    """id -> text, and part where it has one."""
    return {id_: one for id_, one in tomllib.loads(SOURCE.read_text()).items() if id_ != "refusals"}


def refusals() -> Mapping[str, str]:
    """Code -> when it is given."""
    found: Mapping[str, str] = tomllib.loads(SOURCE.read_text())["refusals"]
    return found


def rows() -> list[Row]:
    code, tests = by_code(), by_test()
    return [
        Row(id_, one["text"], one.get("part", ""), tuple(code.get(id_, ())), tuple(tests.get(id_, ())))
        for id_, one in sentences().items()
    ]


def waiting() -> str:
    """How many rules there are, and how many of them wait for a part that is not built yet."""
    every = sentences().values()
    parts = Counter(one["part"] for one in every if one.get("part"))
    return "; ".join([f"{len(every)} rules", *(f"{count} wait for {part}" for part, count in sorted(parts.items()))])


def by_code() -> Mapping[str, list[str]]:
    """id -> files of the portal: the views of its routes, and what else names it."""
    found: dict[str, set[str]] = defaultdict(set)
    for route in (*ROUTES, *CARDS_ROUTES):
        for id_ in route.requirements:
            found[id_].add(str(Path(*route.view.__module__.split(".")[1:]).with_suffix(".py")))
    for path in sorted([*PORTAL.rglob("*.py"), *PORTAL.rglob("*.html")]):
        for id_ in ids_of(path.read_text()):
            found[id_].add(str(path.relative_to(PORTAL)))
    return {id_: sorted(paths) for id_, paths in found.items()}


def by_test() -> Mapping[str, list[str]]:
    """id -> 'file::name' of whatever test's docstring begins with it."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for name, docstring in _tests(path):
            for id_ in ids_at_the_beginning(docstring):
                found[id_].append(f"{path.relative_to(TESTS)}::{name}")
    return found


def ids_of(text: str) -> Iterable[str]:
    """All ids that a source names; 'ESP-01 to ESP-03' are three."""
    for match in _RANGE.finditer(text):
        yield from (f"{match[1]}{number:02}" for number in range(int(match[2]), int(match[3]) + 1))
    yield from _ID.findall(text)


def ids_at_the_beginning(docstring: str) -> list[str]:
    head, colon, _ = " ".join(docstring.split()).partition(":")
    found: list[str] = []
    for one in head.split(", ") if colon else ():
        if one == "0.1":
            found.append(one)
        elif _ID.fullmatch(one) or _RANGE.fullmatch(one):
            found += dict.fromkeys(ids_of(one))
    return found


def written() -> str:
    lines, section = [_HEAD], ""
    for row in rows():
        title = next(title for prefix, title in _SECTIONS.items() if row.id.startswith(prefix))
        if title != section:
            section = title
            lines += [f"\n## {title}\n\n| | rule | code | tests |\n|---|---|---|---|\n"]
        lines.append(f"{row}\n")
        if row.id == "0.1":
            lines += ["\n| code | HTTP | when |\n|---|---|---|\n"]
            lines += [f"| `{code}` | {CODES[code]} | {when} |\n" for code, when in refusals().items()]
    return "".join(lines)


def _tests(path: Path) -> Iterator[tuple[str, str]]:
    """Functions, and the state machines, that pytest collects."""
    for node in ast.walk(ast.parse(path.read_text())):
        is_test = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        if is_test or isinstance(node, ast.ClassDef):
            yield node.name, ast.get_docstring(node) or ""


if __name__ == "__main__":
    LIST.write_text(written())
