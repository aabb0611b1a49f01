"""A QR code for a terminal: what is drawn is what was meant, in two colours that no theme turns round."""

import re

import pytest
import segno

from signer import otp
from signer.qr import BYTES_MAX, qr, size_of

ADDRESS = otp.uri(otp.Kind.TOTP, b"12345678901234567890", "erika.mustermann@example.org", "Paraph")
LINE = re.compile("\x1b\\[38;5;16;48;5;231m([ ▀▄█]+)\x1b\\[0m")  # black (16) on white (231)
HALVES = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}


def modules(text: str) -> list[tuple[int, ...]]:
    """What a camera sees: rows of modules, 1 for dark. Every line has both colours, and gives them back."""
    rows: list[tuple[int, ...]] = []
    for line in text.splitlines():
        drawn = LINE.fullmatch(line)
        assert drawn is not None
        halves = [HALVES[character] for character in drawn[1]]
        rows += [tuple(upper for upper, _ in halves), tuple(lower for _, lower in halves)]
    return rows


@pytest.mark.parametrize("text", [ADDRESS, "x", "x" * BYTES_MAX, ADDRESS.upper()])
def test_what_is_drawn(text: str) -> None:
    """The modules are those of the code, with four light ones round it; at most 31 lines of 61 columns."""
    rows = modules(qr(text))
    code = segno.make(text, error="l", mode="byte", micro=False)
    size = len(code.matrix)
    assert [row[4 : 4 + size] for row in rows[4 : 4 + size]] == [tuple(row) for row in code.matrix]
    assert sum(map(sum, rows)) == sum(map(sum, code.matrix)), "the border is light"
    assert {len(row) for row in rows} == {size + 8}
    assert len(rows) - (size + 8) in {0, 1}
    assert len(rows) <= 62
    assert len(rows[0]) <= 61
    assert qr(text).endswith("\n")
    assert size_of(qr(text)) == (len(rows[0]), len(rows) / 2)


def test_too_much() -> None:
    """What would not fit a terminal is refused; the message does not show what it was."""
    with pytest.raises(ValueError, match="at most 230 bytes, this one 231") as error:
        qr(ADDRESS.ljust(BYTES_MAX + 1, "x"))
    assert "secret" not in str(error.value)
    assert error.value.__context__ is None
    with pytest.raises(ValueError, match="at most 230"):
        qr("ä" * 116)
