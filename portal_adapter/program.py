"""
An operator's program that is run for one thing: a scanner for a file, a back end's command for a transmission.

    ended = Program(words, within_s).run(stdin)

It has a time, and of what it says little is kept, however much that is. What it has started is ended with it where its time
is over or it fails; what one that ends well leaves running is its own affair, and is not waited for.
"""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

KEPT_BYTES = 4096  # of the beginning of what it says, and of the end
_READ_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Ended:
    """`code` is None where its time was over. `first` and `last` are of what it said on both its outputs."""

    code: int | None
    first: bytes
    last: bytes


class Program:
    """One run; raises OSError where it cannot be begun."""

    def __init__(self, words: Sequence[str], within_s: float) -> None:
        self._words, self._within_s = words, within_s
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, stdin: BinaryIO) -> Ended:
        """Of a file that is open at its beginning; blocks until it has ended."""
        with subprocess.Popen(
            self._words, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        ) as process:
            self._process = process
            assert process.stdout is not None
            said = _Said(process.stdout.fileno())
            try:
                code = _ended(process, said, time.monotonic() + self._within_s)
            except BaseException:
                self.end()
                raise
            if code != 0:
                self.end()
        self._process = None
        return Ended(code, bytes(said.first), bytes(said.last))

    def end(self) -> None:
        """Now, with what it has started; from any thread."""
        if (process := self._process) is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody of it is left
                os.killpg(process.pid, signal.SIGKILL)


class _Said:
    """What comes out of it, of which the beginning and the end are kept."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.first, self.last = bytearray(), bytearray()
        os.set_blocking(descriptor, False)

    def read(self) -> bool:
        """One piece; whether there may be more."""
        try:
            piece = os.read(self.descriptor, _READ_BYTES)
        except BlockingIOError:
            return False
        self.first += piece[: KEPT_BYTES - len(self.first)]
        self.last += piece
        del self.last[:-KEPT_BYTES]
        return bool(piece)


def _ended(process: subprocess.Popen[bytes], said: _Said, until: float) -> int | None:
    """Its exit code, None at `until`. It is not the end of its outputs that is waited for: others may hold them open."""
    watched = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(watched, select.POLLIN)
        poll.register(said.descriptor, select.POLLIN)
        while (left_s := until - time.monotonic()) > 0:
            ready = {descriptor for descriptor, _ in poll.poll(left_s * 1e3)}
            if said.descriptor in ready and not said.read():
                poll.unregister(said.descriptor)  # it has closed its outputs
            if watched in ready:
                said.read()  # what it said last; of a pipe that holds 64 KiB this is all
                return process.wait()
        return None
    finally:
        os.close(watched)
