"""
The fault list, FAULTS.md: its third column is made from the tests themselves, `python -m tests.fault_list` writes it anew.

A test of a fault begins its docstring with the fault's number, or several: 'F1, F5: ...', 'F11, row 2.4: ...'.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

TESTS = Path(__file__).parent
LIST = TESTS / "FAULTS.md"
LAST = 58
# Among the numbers may stand those of the portal's requirements.
HEAD = re.compile(r"((?:F\d+|row \d+\.\d+|I\d+|0\.1|[A-Z]{2,4}-\d\d)(?:, )?)+:", re.IGNORECASE)
ROW = re.compile(r"\| (F\d+) \| ([^|]+) \| ([^|]*) \| ([^|]+) \| ([^|]+) \|")
NOT_INJECTED = "not injected: "


@dataclass(frozen=True)
class Row:
    number: str
    fault: str
    tests: tuple[str, ...]
    asked: str
    given: str

    def __str__(self) -> str:
        tests = "<br>".join(f"`{test}`" for test in self.tests)
        return f"| {self.number} | {self.fault} | {tests} | {self.asked} | {self.given} |"


def rows(text: str) -> list[Row]:
    found = []
    for line in text.splitlines():
        if line.startswith("| F"):
            match = ROW.fullmatch(line)
            if match is None:
                raise ValueError(f"not a row of five cells: {line}")
            number, fault, tests, asked, given = match.groups()
            found.append(Row(number, fault, tuple(re.findall(r"`([^`]+)`", tests)), asked, given))
    return found


def faults_of(docstring: str) -> list[str]:
    """The faults that a docstring begins with."""
    words = " ".join(docstring.split())
    head = HEAD.match(words)
    named = re.findall(r"F\d+", head[0]) if head else []
    for match in HEAD.finditer(words):
        if words[: match.start()].endswith(". "):  # a later sentence begins with another one
            named += re.findall(r"F\d+", match[0])
    return list(dict.fromkeys(named))


def by_fault() -> dict[str, list[str]]:
    """By fault: 'file::name' of whatever has a docstring that begins with it, in the order of files and lines."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for name, docstring in _tests(path):
            for fault in faults_of(docstring):
                found[fault].append(f"{path.relative_to(TESTS)}::{name}")
    return found


def _tests(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, ast.get_docstring(node) or ""


def written(text: str) -> str:
    """The list with the tests that there are."""
    tests = by_fault()
    lines = text.splitlines()
    for place, line in enumerate(lines):
        if line.startswith("| F"):
            (row,) = rows(line)
            lines[place] = str(replace(row, tests=tuple(tests.get(row.number, ()))))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    LIST.write_text(written(LIST.read_text()))
