"""Examples that documents and docstrings show, run as they stand there."""

import ast
import asyncio
import inspect
import textwrap
from itertools import groupby
from typing import Any


def shown_in(docstring: str | None) -> list[str]:
    """The indented blocks of a module's docstring, each whole."""
    lines = inspect.cleandoc(docstring or "").splitlines()
    blocks = ["\n".join(block) for is_code, block in groupby(lines, lambda line: line.startswith("    ")) if is_code]
    return [textwrap.dedent(block) for block in blocks]


async def run(text: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run a block as `python -m asyncio` would; answers the names that it left."""
    code = compile(text, "an example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    async with asyncio.timeout(30):
        result = eval(code, names)
        if inspect.isawaitable(result):
            await result
    return names
