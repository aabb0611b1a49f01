"""Who holds a token against whom, by what the configurations say of it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from signer.config import Token
from signer.exclusive import AlreadyRunning, hold_tokens
from tests.softhsm import MODULE

HOLD = """
import sys
from signer.config import Token
from signer.exclusive import hold_tokens
let_go = hold_tokens([Token.model_validate_json(line) for line in sys.argv[1:]])
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def label(tmp_path: Path) -> str:
    """Nobody else's on this host."""
    return f"t {hash(tmp_path) % 10**9}"


def token(label: str, reader: str | None = None, name: str = "card", serial: str | None = None) -> Token:
    return Token(name=name, kind="smartcard", module=MODULE, label=label, reader=reader, serial=serial)


@contextmanager
def another_daemon(*tokens: Token) -> Iterator[int]:
    words = [each.model_dump_json() for each in tokens]
    process = subprocess.Popen([sys.executable, "-c", HOLD, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout.readline() == b"\n"
        yield process.pid
        process.stdin.close()


@pytest.mark.parametrize(("first", "second"), [("desk", None), (None, "desk"), ("desk", "desk"), (None, None)])
def test_one_token_with_and_without_its_reader(label: str, first: str | None, second: str | None) -> None:
    """F52: whichever of two daemons names the reader, the second refuses, and names the first; then the token is free."""
    with another_daemon(token(label, first)) as pid, pytest.raises(AlreadyRunning, match=f"process id {pid}$"):
        hold_tokens([token(label, second)])
    hold_tokens([token(label, second)])()


@pytest.mark.parametrize(("first", "second"), [("12ab", None), (None, "12ab"), ("12ab", "12ab")])
@pytest.mark.parametrize("readers", [(None, None), ("desk", None), (None, "desk"), ("desk", "desk")])
def test_one_token_with_and_without_its_serial(
    label: str, first: str | None, second: str | None, readers: tuple[str | None, str | None]
) -> None:
    """F52: the same of its serial, whichever of the two names the reader: who names none means any."""
    one, two = (token(label, reader, serial=each) for reader, each in zip(readers, (first, second), strict=True))
    with another_daemon(one) as pid, pytest.raises(AlreadyRunning, match=f"process id {pid}$"):
        hold_tokens([two])
    hold_tokens([two])()


def test_two_serials_are_two_tokens(label: str) -> None:
    """Of one label, in one reader or in none, for one daemon and for two."""
    for reader in ("desk", None):
        one, two = token(label, reader, "one", "12ab"), token(label, reader, "two", "34cd")
        hold_tokens([one, two])()
        with another_daemon(one):
            hold_tokens([two])()


def test_two_cards_that_are_alike(label: str) -> None:
    """Cards of one label, without a serial, in two readers: two tokens, for one daemon and for two."""
    desk, rack = token(label, "desk", "one"), token(label, "rack", "two")
    hold_tokens([desk, rack])()
    with another_daemon(desk):
        hold_tokens([rack])()


def test_one_daemon_has_a_token_in_a_reader_and_one_in_any(label: str) -> None:
    """Which is which its own pool says; nobody else is there to be kept away."""
    hold_tokens([token(label, "desk", "one"), token(label, None, "two")])()
