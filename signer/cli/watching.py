"""
The tokens on a terminal, live, until Ctrl-C: a picture that stands still and changes in place.

The picture is written in one piece over the last one, line by line, on the terminal's other screen, which is left as it
was found. A daemon that goes away, to be started again for example, is waited for: the picture stays, and says that it
is not live. What is not a terminal gets a line for each change of a token's state instead.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from google.protobuf.json_format import MessageToDict
from rich.console import Console
from rich.text import Text

from signer.cli.board import Rates, advice, board, state_of, stopped, summary
from signer.cli.printable import printable
from signer.cli.session import say
from signer.client import Client, ServiceError

PICTURE_S = 0.2  # at most so often: an eye sees no more, and a slow line takes no more
TICK_S = 1.0  # times and rates move on without news
RETRY_S = 1.0  # while the daemon is away
SILENT_S = 12.0  # the daemon says something every 5 s: then nobody knows how things are, and it is called anew
# The daemon is not there, or is going: it may come back. Any other refusal is about who asks, and stays.
_COMES_BACK = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED"})
# DEC private mode 2026: a terminal that knows it shows nothing of what is between the two before it has all.
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


@dataclass(slots=True)
class Feed:
    """What was heard of the tokens last, and what is wrong since; `news` is set by each change of either."""

    tokens: list[Any] = field(default_factory=list)
    ledger: str = ""  # the reason why it is stopped
    is_heard: bool = False  # at least once
    problem: str = ""  # why what is known may be over; empty while it holds
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self, connect: Callable[[], Client]) -> None:
        """For ever. Raises `ServiceError` where waiting does not help, or nobody was there in the first place."""
        while True:
            # A channel of its own each time: one that found nobody waits longer and longer before it looks again.
            async with connect() as client:
                try:
                    await self._listen(client)
                    self.problem = "the daemon has ended the connection"
                except ServiceError as error:
                    if error.code not in _COMES_BACK or not self.is_heard:
                        raise
                    self.problem = say(error) if error.reason else "the daemon cannot be reached"
                except TimeoutError:
                    self.problem = f"the daemon has said nothing for {SILENT_S:.0f} s"
                    if not self.is_heard:
                        raise ServiceError("", self.problem, "UNAVAILABLE") from None
            self.news.set()
            await asyncio.sleep(RETRY_S)

    async def _listen(self, client: Client) -> None:
        """Until the daemon ends it. Raises `ServiceError`, and TimeoutError where it has fallen silent."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(SILENT_S) as patience, contextlib.aclosing(client.watch_tokens()) as told:
            async for answer in told:
                self.tokens, self.ledger, self.is_heard, self.problem = list(answer.tokens), answer.ledger, True, ""
                self.news.set()
                patience.reschedule(loop.time() + SILENT_S)


async def watch(connect: Callable[[], Client], *, as_json: bool) -> None:
    """Until it is cancelled. Raises `ServiceError`."""
    feed = Feed()
    console = Console()
    if as_json:
        shown = _print_lines(feed, _Lines().json)
    elif sys.stdout.isatty() and not console.is_dumb_terminal:
        shown = _show(feed, console)
    else:
        shown = _print_lines(feed, _Lines().changes)
    tasks = [asyncio.create_task(feed.follow(connect)), asyncio.create_task(shown)]
    ended_by: list[int] = []
    for number in (signal.SIGTERM, signal.SIGHUP):  # else the terminal would stay on its other screen
        asyncio.get_running_loop().add_signal_handler(number, _end, tasks, ended_by, number)
    try:
        for done in asyncio.as_completed(tasks):
            await done
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if ended_by:
            signal.signal(ended_by[0], signal.SIG_DFL)
            os.kill(os.getpid(), ended_by[0])


def _end(tasks: list[asyncio.Task[None]], ended_by: list[int], number: int) -> None:
    ended_by.append(number)
    for task in tasks:
        task.cancel()


async def _pictures(feed: Feed) -> AsyncIterator[None]:
    """The moments to show something: soon after news, and with the clock."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TICK_S):
                await feed.news.wait()
        feed.news.clear()
        yield
        await asyncio.sleep(PICTURE_S)


async def _show(feed: Feed, console: Console) -> None:
    rates = Rates()
    await feed.news.wait()  # nothing is drawn before there is something to show
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, feed.news.set)
    loop.add_signal_handler(signal.SIGTSTP, _stop, console)
    loop.add_signal_handler(signal.SIGCONT, _on_screen, console)
    _on_screen(console)
    try:
        async for _ in _pictures(feed):
            known = {} if feed.problem else rates.look(feed.tokens, time.monotonic())
            lines = picture(feed.tokens, known, time.time(), feed.problem, console, feed.ledger)
            _write(_BEGIN + _HOME + f"{_REST_OF_LINE}\r\n".join(lines) + _REST_OF_LINE + _REST_OF_SCREEN + _END)
    finally:
        _off_screen(console)


def _on_screen(console: Console) -> None:
    console.set_alt_screen(True)
    console.show_cursor(False)


def _off_screen(console: Console) -> None:
    console.show_cursor(True)
    console.set_alt_screen(False)


def _stop(console: Console) -> None:
    """Ctrl-Z: the shell gets its terminal as it was, until it lets us go on."""
    _off_screen(console)
    os.kill(os.getpid(), signal.SIGSTOP)


def picture(
    tokens: Sequence[Any], rates: dict[str, float], now_s: float, silence: str, console: Console, ledger: str = ""
) -> list[str]:
    """
    The lines of a screen. The last column stays free, because a terminal that has filled it has not moved on yet; what
    has no room at the bottom is counted.
    """
    columns, rows = console.size.width - 1, console.size.height
    moment = f"{datetime.fromtimestamp(now_s, UTC):%Y-%m-%d %H:%M:%S}Z"
    head = (
        Text(f"{moment} live  ")
        if not silence
        else Text(f"{moment} NOT LIVE: {printable(silence)}  ", style="bold red")
    )
    head += summary(tokens, None if silence else rates, ledger)
    lines: list[str] = []
    for brief in (False, True):
        with console.capture() as captured:
            console.print(head, width=columns)
            console.print(board(tokens, rates, now_s, columns, brief=brief), width=columns)
        lines = captured.get().splitlines()
        if len(lines) <= rows:
            return lines
    return [*lines[: rows - 1], f"... {len(lines) - rows + 1} lines more"]


async def _print_lines(feed: Feed, make: Callable[[Feed], list[str]]) -> None:
    async for _ in _pictures(feed):
        if feed.is_heard:
            for line in make(feed):
                _write(line + "\n")


@dataclass(slots=True)
class _Lines:
    """What was said last, so that only news are said."""

    _last: str = ""
    _known: dict[str, tuple[str, str]] = field(default_factory=dict)
    _silence: str = ""
    _ledger: str = ""

    def json(self, feed: Feed) -> list[str]:
        """One object, where anything is another than before."""
        told = {"live": not feed.problem, "problem": feed.problem, "ledger": feed.ledger}
        told["tokens"] = [as_dict(token) for token in feed.tokens]
        before, self._last = self._last, json.dumps(told)
        return [] if self._last == before else [self._last]

    def changes(self, feed: Feed) -> list[str]:
        """A line for each token whose state, or the reason for it, is another one than before; so for the ledger."""
        moment = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        silence, found = feed.problem, []
        if bool(silence) != bool(self._silence):
            found.append(f"{moment} NOT LIVE: {printable(silence)}" if silence else f"{moment} live again")
        self._silence = silence
        if feed.ledger != self._ledger:
            found.append(f"{moment} {stopped(feed.ledger) or 'the ledger goes on'}")
        self._ledger = feed.ledger
        for token in feed.tokens:
            now = state_of(token), token.detail
            if self._known.get(token.name) != now:
                self._known[token.name] = now
                why, to_do = printable(token.detail), advice(token)
                said = f"{f': {why}' if why else ''}{f'; next: {to_do}' if to_do else ''}"
                found.append(f"{moment} {token.name} {now[0]}{said}")
        return found


def as_dict(token: Any) -> dict[str, Any]:
    found: dict[str, Any] = MessageToDict(
        token, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found


def _write(text: str) -> None:
    """In one piece. Raises BrokenPipeError where nobody reads any more."""
    sys.stdout.write(text)
    sys.stdout.flush()
