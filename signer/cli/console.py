"""Where tables are printed: as wide as the terminal, and wide enough for whole names where there is none."""

import sys
from typing import Any

from rich.console import Console

_PIPED_COLUMNS = 200


def for_tables(**more: Any) -> Console:
    return Console(width=None if sys.stdout.isatty() else _PIPED_COLUMNS, **more)
