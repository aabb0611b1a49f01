"""
The process that draws documents: run by `process.py`, never imported.

    python -I -m portal_adapter.form.press      on its standard input, a socket: papers come in, documents go out

It holds the fonts and nothing of anybody: a child that it has forked receives the paper, draws it, sends the document and
ends with all that it knew. A child that fails takes this process with it: whoever asked sees the socket close, and starts
another. Limits are set before a library is loaded; there is no environment, and no file is written.
"""

import gc
import logging
import os
import resource
import socket
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from portal_adapter.form.frames import receive, send

MEMORY_BYTES = 320 * 1024 * 1024  # of addresses; 120 MB of memory are used
PROCESSOR_S = 10  # for one document; eighty pages take 1
FILE_BYTES = 8 * 1024 * 1024  # of a font that is made in memory, which counts as a file
_OVER = 3  # how a child ends that is asked for nothing more


def main() -> int:
    for what, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    return _serve(socket.socket(fileno=0))


def _serve(asking: socket.socket) -> int:
    from portal_adapter.form.drawing import canvas, draw  # late: under the limits
    from portal_adapter.form.paper import Paper, Part, decoded

    logging.disable()  # the font library's: an odd date in a font
    draw(Paper("en", "", "", "", 0, (), (Part("", (("", "A中"),)),), ""))  # loads what is loaded at the first use
    prepared = canvas()
    gc.freeze()  # a child that collects would copy every page that it shares

    def one() -> None:
        paper = receive(asking)
        if paper is None:
            os._exit(_OVER)
        send(asking, draw(decoded(paper), prepared))

    while True:
        if not (child := os.fork()):
            resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_S, PROCESSOR_S))
            _last(one)
        if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            return 0 if status == _OVER else 1


def _last(act: Callable[[], None]) -> NoReturn:
    """Ends the child, and says where it failed, but not over what."""
    try:
        act()
    except BaseException as error:  # noqa: BLE001 -- whatever it is, the child goes no further
        where = traceback.extract_tb(error.__traceback__)[-1]
        print(f"{type(error).__name__} in {where.filename}, line {where.lineno}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    raise SystemExit(main())
