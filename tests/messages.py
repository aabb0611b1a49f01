"""
The words that an operator reads of tokens and lanes, found in the source of the pool: what stands in pool/MESSAGES.md.

What is put in at run time is '…' here.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from pool.login import Cost
from pool.token import ADVICE, NO_KEY

POOL = Path(__file__).parent.parent / "pool"
LIST = POOL / "MESSAGES.md"
LOGGED = {"warning": 0, "error": 0, "critical": 0, "exception": 0, "log": 1}  # and which argument is the message
# Whose argument says why a token is not used or somebody is refused, and which argument it is.
SAYING = {"StartFailed": 0, "TryRefused": 0, "TriesSpent": 0, "Unavailable": 1, "PinRefused": 1}
ROW = re.compile(r"\| ([^|]+) \| ([^|]+) \| ([^|]+) \|")


def listed() -> dict[str, tuple[str, str]]:
    """message -> (what has happened, what to do), as MESSAGES.md has them."""
    found = {}
    for line in LIST.read_text().splitlines():
        match = ROW.fullmatch(line)
        if match and not set(match[1]) <= {"-"} and match[1] != "message":
            assert match[1] not in found, f"twice: {match[1]}"
            found[match[1]] = (match[2], match[3])
    return found


def spoken() -> dict[str, str]:
    """message -> the file that says it."""
    found = dict.fromkeys([*ADVICE.values(), NO_KEY], "token.py") | dict.fromkeys(map(str, Cost), "login.py")
    for path in sorted(POOL.glob("*.py")):
        for message in _messages(ast.parse(path.read_text())):
            found[message] = path.name
    return found


def log_lines() -> set[str]:
    trees = [ast.parse(path.read_text()) for path in POOL.glob("*.py")]
    return {text for tree in trees for node in ast.walk(tree) for text in _logged(node)}


def locking() -> set[str]:
    """What a token is LOCKED for, or its PIN not sent."""
    found = set()
    for path in POOL.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                locks = any(isinstance(each, ast.Attribute) and each.attr == "PIN_REFUSED" for each in node.args)
                if locks or node.func.id in {"TryRefused", "TriesSpent"}:
                    found |= set(_texts(node.args[0]))
    return found


def _messages(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            yield from _logged(node)
            if name in SAYING and len(node.args) > SAYING[name]:
                yield from _texts(node.args[SAYING[name]])
            elif isinstance(node.func, ast.Attribute) and node.func.attr == "on" and len(node.args) > 1:
                yield from _texts(node.args[1])
        elif isinstance(node, ast.Assign) and _names(node) & {"detail", "none"}:
            yield from _texts(node.value)
        elif (
            isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and node.value.elts
        ):  # what a look has found
            yield from _texts(node.value.elts[-1])
        elif isinstance(node, ast.FunctionDef) and node.name in {"how_many", "other_serial"}:
            yield from (t for each in ast.walk(node) if isinstance(each, ast.Return) for t in _texts(each.value))


def _logged(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOGGED:
        by = node.func.value
        if isinstance(by, ast.Name) and by.id == "log":
            yield from _texts(node.args[LOGGED[node.func.attr]])


def _names(node: ast.Assign) -> set[str]:
    return {target.id for target in node.targets if isinstance(target, ast.Name)}


def _texts(node: ast.AST | None) -> Iterator[str]:
    """Every text that stands here, if it has two words of its own."""
    if isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)
        return
    text = ""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
    elif isinstance(node, ast.JoinedStr):
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    text = re.sub(r"%[sdg]", "…", text)
    if " " in text and len(re.findall(r"[A-Za-z]{2,}", text)) > 1:
        yield text
