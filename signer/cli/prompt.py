"""
What a person types, at her terminal: secrets hidden, and never out of argv, the environment, a file or a pipe.

Ctrl-C counts at once: asyncio keeps the first one until its loop runs again, and it does not while somebody types.
Ctrl-D means the same here.
"""

import contextlib
import getpass
import signal
import sys
from collections.abc import Callable, Iterator

from signer.cli.session import UsageError

TRIES = 3  # of a code or a PIN; then she is to look at what is wrong, before she is locked out


def check() -> None:
    """
    Raises `UsageError` unless somebody can read and answer: what is to be signed is shown on standard error, and must be
    seen by whoever types.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "a person's codes and PIN are typed at a terminal, and standard input or error is none; start this at one. "
            "A program has her sign in the signing window (OpenBatch), or takes a credential of the gate 'caller'"
        )


def hidden(question: str) -> str:
    """What was typed, not empty. Only its end of line is taken off."""
    return _typed(lambda: getpass.getpass(question))


def code(question: str) -> str:
    """A one-time code, hidden; many apps show it in groups."""
    return "".join(hidden(question).split())


def visible(question: str) -> str:
    """What was typed, not empty."""

    def ask() -> str:
        print(question, end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.strip()

    return _typed(ask)


def tell(text: str) -> None:
    print(text, file=sys.stderr)


def _typed(ask: Callable[[], str]) -> str:
    with _at_once():
        while True:
            try:
                if typed := ask():
                    return typed
            except UnicodeDecodeError:
                tell("That is not text as this terminal's language settings (LANG) have it; type it again.")


@contextlib.contextmanager
def _at_once() -> Iterator[None]:
    """Ctrl-C is `KeyboardInterrupt`, here and now."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except (KeyboardInterrupt, EOFError):
        tell("")  # the shell's next line is not to stand behind the question
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, before)
