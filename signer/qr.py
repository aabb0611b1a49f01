"""
A QR code for a terminal (ISO/IEC 18004). In a file of its own: a person's command draws it, and has few libraries.

A terminal's two colours may be either way round, and many cameras read no code that is light on dark. So both colours
are named, by numbers of the fixed part of the 256 that no theme changes; a character holds two modules, one over the
other.
"""

import segno

# Of version 9 at the lowest level of correction, as a screen has no stains: 53 modules and the border are 31 lines of 61
# columns, which a terminal of 80 by 40 still shows whole.
BYTES_MAX = 230
BORDER_MODULES = 4  # as the standard wants

_BLACK_ON_WHITE, _RESET = "\x1b[38;5;16;48;5;231m", "\x1b[0m"
_HALVES = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}  # (upper is dark, lower is dark)


def qr(uri: str) -> str:
    """The lines to print, each ended. It shows a secret if `uri` holds one. Raises `ValueError` for one too long."""
    size = len(uri.encode())
    if size > BYTES_MAX:
        raise ValueError(f"a QR code for a terminal has at most {BYTES_MAX} bytes, this one {size}; shorten the names")
    code = segno.make_qr(uri, error="l", mode="byte")
    rows = [tuple(row) for row in code.matrix_iter(border=BORDER_MODULES)]
    if len(rows) % 2:
        rows.append((0,) * len(rows[0]))
    pairs = zip(rows[::2], rows[1::2], strict=True)
    lines = ("".join(_HALVES[halves] for halves in zip(*pair, strict=True)) for pair in pairs)
    return "".join(f"{_BLACK_ON_WHITE}{line}{_RESET}\n" for line in lines)


def size_of(picture: str) -> tuple[int, int]:
    """(columns, lines) that a terminal must have to show it whole."""
    lines = picture.splitlines()
    return len(lines[0].removeprefix(_BLACK_ON_WHITE).removesuffix(_RESET)), len(lines)
