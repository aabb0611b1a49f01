"""
Documents are drawn in a process of their own, with little memory and time: one is kept ready, since it starts in half a
second, and draws one document after the other (press.py).

    printer = Printer()
    printer.start()                                    # need not be: the first document would start it
    data = printer.render(definition, answers, language, head)
    printer.close()

For views, in threads.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from portal_adapter.definitions.answers import Answers
from portal_adapter.definitions.definition import Definition
from portal_adapter.form.declaration import Head, declaration
from portal_adapter.form.frames import receive, send
from portal_adapter.form.paper import Paper
from portal_adapter.language import Language
from portal_adapter.refusal import Refusal

WAIT_S = 15.0  # for a document, and for those before it
RETRY_S = 30
_ENDS_S = 0.2  # by itself, when its socket closes

log = logging.getLogger("portal.form")


class Printer:
    def __init__(self, wait_s: float = WAIT_S) -> None:
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def render(self, definition: Definition, answers: Answers, language: Language, head: Head) -> bytes:
        """The same arguments make the same bytes. Raises `Refusal` where none can be made."""
        return self.draw(declaration(definition, answers, language, head))

    def draw(self, paper: Paper) -> bytes:
        until = time.monotonic() + self._wait_s
        if not self._lock.acquire(timeout=self._wait_s):
            log.error("no document was made: those before it took too long")
            raise _away()
        try:
            return self._asked(paper.encoded(), until)
        except (OSError, ValueError) as error:
            ended = self._end()
            log.exception("no document was made; the process ended with %s", ended)
            raise _away() from error
        finally:
            self._lock.release()

    def start(self) -> None:
        with self._lock:
            self._started()

    def close(self) -> None:
        with self._lock:
            self._end()

    def _asked(self, data: bytes, until: float) -> bytes:
        asked = self._started()
        asked.settimeout(max(until - time.monotonic(), 0.001))
        send(asked, data)
        asked.settimeout(max(until - time.monotonic(), 0.001))
        answer = receive(asked)
        if answer is None:
            raise ConnectionError("it closed the socket")
        return answer

    def _started(self) -> socket.socket:
        if self._socket is not None and self._process is not None and self._process.poll() is None:
            return self._socket
        self._end()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-m", "portal_adapter.form.press"],
                stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env={}, cwd="/",
                start_new_session=True,
            )  # fmt: skip
        self._socket = ours
        return ours

    def _end(self) -> int | None:
        """Its exit status. Both it and its child see the socket close; who does not is killed, with the other."""
        process, self._process = self._process, None
        connected, self._socket = self._socket, None
        if connected is not None:
            connected.close()
        if process is None:
            return None
        try:
            return process.wait(_ENDS_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait()


def _away() -> Refusal:
    message = "The document cannot be made just now. Nothing was changed; please try again in a minute."
    return Refusal("signer-unavailable", message, retry_after_s=RETRY_S)
