"""
The web part's checklist of OWASP ASVS 5.0, portal_adapter/ASVS.md: made from asvs.toml, which names the tests of each item.
`python -m tests.portal.asvs_list` writes it anew.
"""

import ast
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent.parent
SOURCE = ROOT / "portal_adapter" / "asvs.toml"
LIST = ROOT / "portal_adapter" / "ASVS.md"

CHAPTERS: Mapping[int, str] = {
    1: "Encoding and sanitisation",
    2: "Validation and business logic",
    3: "Browsers",
    4: "HTTP",
    5: "Files",
    6: "Authentication",
    7: "Sessions",
    8: "Authorisation",
    9: "Tokens that speak for themselves",
    10: "OAuth and OpenID Connect",
    11: "Cryptography",
    12: "Connections",
    13: "Configuration",
    14: "Data",
    15: "Code and architecture",
    16: "Logs and mistakes",
    17: "WebRTC",
}
_HEAD = """\
# Checklist of OWASP ASVS 5.0

Each item of levels 1 and 2 of OWASP's Application Security Verification Standard 5.0.0, and of level 3 the items 8.3.3,
7.5.3, 5.2.4 and 15.4.2: the tests that hold it, or why it does not apply, or what is missing. It speaks of the web part alone
(portal, cards' origin, signing window), is ours, and claims no certification and no verification by anybody else. The words are
ours and short; what an item asks is what the standard says under its number.

Made from `asvs.toml`: `python -m tests.portal.asvs_list` writes it anew, and a test fails where it was not done. A test without
a path is one of `tests/portal`.
"""


@dataclass(frozen=True)
class Item:
    id: str
    level: int
    text: str
    tests: tuple[str, ...] = ()  # 'file::name' in tests/portal, or 'tests/.../file::name'
    note: str = ""  # how the tests hold it, where that does not go without saying
    not_applicable: str = ""
    missing: str = ""

    @property
    def chapter(self) -> int:
        return int(self.id.partition(".")[0])

    def __str__(self) -> str:
        if self.missing:
            held = f"**Missing:** {self.missing}"
        elif self.not_applicable:
            held = f"Does not apply: {self.not_applicable}"
        else:
            held = "<br>".join([f"`{one}`" for one in self.tests] + ([self.note] if self.note else []))
        return f"| {self.id} | {self.level} | {self.text} | {held} |"


def items() -> list[Item]:
    """Raises TypeError for a key that there is not."""
    found = tomllib.loads(SOURCE.read_text())
    return [Item(id_, **{**one, "tests": tuple(one.get("tests", ()))}) for id_, one in found.items()]


def exists(test: str) -> bool:
    """Whether a file has a function of that name, which pytest collects."""
    file, _, name = test.partition("::")
    path = ROOT / file if file.startswith("tests/") else TESTS / file
    return name.startswith("test_") and path.name.startswith("test_") and name in _functions(path)


@cache
def _functions(path: Path) -> frozenset[str]:
    if not path.exists():
        return frozenset()
    nodes = ast.walk(ast.parse(path.read_text()))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def summary(found: list[Item]) -> str:
    kinds = Counter("missing" if one.missing else "not" if one.not_applicable else "tests" for one in found)
    return (
        f"{len(found)} items: {kinds['tests']} have tests, {kinds['not']} do not apply, {kinds['missing']} are missing."
    )


def written() -> str:
    found = items()
    lines, chapter = [_HEAD, f"\n{summary(found)}\n"], 0
    for one in found:
        if one.chapter != chapter:
            chapter = one.chapter
            lines.append(
                f"\n## {chapter} {CHAPTERS[chapter]}\n\n| | level | what it asks, in short | held by |\n|---|---|---|---|\n"
            )
        lines.append(f"{one}\n")
    return "".join(lines)


if __name__ == "__main__":
    LIST.write_text(written())
