"""What the demo is doing, shown on stderr; and the scripts that do some of it, each in a process of its own."""

import asyncio
import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = REPOSITORY / "deploy" / "demo"

Advance = Callable[[str], None]


class DemoFailed(Exception):
    """The demo cannot go on; the message says why, and what to do where something can be done."""


class Steps:
    """What is being done, on stderr: bars on a terminal, elsewhere a line for each step."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description:26}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = sys.stderr.isatty()
        self._progress = Progress(
            *columns, TextColumn("[dim]{task.fields[now]}"), console=Console(stderr=True), disable=not self._bars
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @contextlib.contextmanager
    def __call__(self, what: str, total: int = 1) -> Iterator[Advance]:
        """`advance(text)` counts one up; a text '3/10 ...' says itself how far it is."""
        task = self._progress.add_task(what, total=total, now="")
        began = time.perf_counter()

        def advance(text: str) -> None:
            place = re.match(r"(\d+)/\d+ ", text)
            if place:
                self._progress.update(task, completed=int(place[1]) - 1, now=text[place.end() :])
            else:
                self._progress.update(task, advance=1, now=text)

        try:
            yield advance
        except BaseException:
            if not self._bars:
                print(f"{what:26} failed", file=sys.stderr, flush=True)
            raise
        self._progress.update(task, completed=total, now="")
        if not self._bars:
            print(f"{what:26} {time.perf_counter() - began:5.1f} s", file=sys.stderr, flush=True)


async def script(name: str, *arguments: Path, text: str = "", advance: Advance) -> str:
    """The output of a script of deploy/demo; its stderr has a line for each thing it begins, and at the end why not."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, SCRIPTS / name, *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[str] = []
    try:
        output = asyncio.create_task(process.stdout.read())
        process.stdin.write(text.encode())
        process.stdin.close()
        async for line in process.stderr:
            said.append(line.decode(errors="replace").rstrip())
            advance(said[-1])
        if await process.wait():
            raise DemoFailed("\n".join([f"deploy/demo/{name} failed:", *said[-10:]]))
        return (await output).decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
