"""`paraph-portal` as an operator runs it, in the test's own process."""

import contextlib
import io
import sys
from dataclasses import dataclass
from unittest import mock

from portal_adapter.__main__ import main
from tests.portal.place import Place


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def command(place: Place, *words: str) -> Done:
    """`command(place, "mail", "list", "--json")`, with the place's configuration."""
    argv = ["paraph-portal", words[0], "--config", str(place.config), *words[1:]]
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    return Done(code if isinstance(code, int) else 1, out.getvalue(), err.getvalue())
