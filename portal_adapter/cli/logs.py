"""The log of both programs: standard error, a line for each event with its time in UTC, for journald or whoever collects it."""

import logging
import sys
import time

FORM = "%(asctime)s %(levelname)s %(name)s: %(message)s"
TIME = "%Y-%m-%dT%H:%M:%SZ"


class _Lines(logging.Formatter):
    """
    What follows the first line, as of a traceback, is indented: nothing that somebody has sent can look like an event of
    its own, whatever line ends or control characters are in it.
    """

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        return "\n    ".join(_printable(line) for line in super().format(record).splitlines())


def _printable(line: str) -> str:
    """Without what moves a terminal's cursor or turns a line round."""
    return "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in line)


def write_logs() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(FORM, TIME))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
