"""
A person at a terminal: `paraph` with a pseudo-terminal of its own, read and typed at like one.

What is typed as a secret is looked for in everything that the terminal shows, and in the command lines and environments
of the process and its children while it has it.
"""

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from tests.daemon import REPOSITORY

SOON_S = 20.0  # a command starts in half a second; the machine may be busy
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ENVIRONMENT = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TERM": "xterm-256color", "HOME": "/nonexistent"}


class Terminal:
    """`with Terminal("sign", ...) as terminal:`; `stdout` may go elsewhere, to be read with `out()`."""

    def __init__(self, *words: Any, columns: int = 100, lines: int = 50, piped: bool = False) -> None:
        self.shown = ""  # all of it, without the codes for colours and movements
        self._raw = b""
        self._from = 0  # what is behind this was not expected yet
        self._secrets: list[str] = []
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        # setsid(1) makes the terminal the controlling one, as a login does: Ctrl-C and /dev/tty go by that.
        command = ["setsid", "--ctty", sys.executable, "-m", "signer", *map(str, words)]
        self.process = subprocess.Popen(
            command, cwd=REPOSITORY, env=ENVIRONMENT, stdin=slave, stderr=slave,
            stdout=subprocess.PIPE if piped else slave,
        )  # fmt: skip
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        os.close(self._master)

    def expect(self, text: str) -> str:
        """What is shown up to this text, and with it, behind what was expected before."""
        end = time.monotonic() + SOON_S
        while (place := self.shown.find(text, self._from)) < 0:
            assert time.monotonic() < end and self._read(end), f"no {text!r} in: {self.shown[self._from :]}"
        found = self.shown[self._from : place + len(text)]
        self._from = place + len(text)
        return found

    def before(self, text: str) -> str:
        """What is shown before this text, which is still to be expected."""
        found = self.expect(text).removesuffix(text)
        self._from -= len(text)
        return found

    def type(self, text: str) -> None:
        os.write(self._master, text.encode() + b"\n")

    def hide(self, question: str, secret: str) -> None:
        """Type a secret as the answer to a question."""
        self.expect(question)
        assert not self.echoes, f"what is typed after {question!r} would be seen"
        self._secrets.append(secret)
        self.type(secret)
        self._look_round()

    def press(self, key: bytes) -> None:
        """Without an end of line."""
        os.write(self._master, key)

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self._master)[3] & termios.ECHO)

    def end(self) -> int:
        """The exit code, once it has ended by itself; nothing that was hidden was shown."""
        end = time.monotonic() + SOON_S
        while self._read(end):
            pass
        code = self.process.wait(SOON_S)
        for secret in self._secrets:
            assert secret not in self.shown
        return code

    def out(self) -> str:
        """Of a piped standard output, all of it."""
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()

    def _read(self, end: float) -> bool:
        """Whether there was more to read before the end of the program, or of the time."""
        if not select.select([self._master], [], [], max(0.0, end - time.monotonic()))[0]:
            return False
        try:
            chunk = os.read(self._master, 65536)
        except OSError:  # EIO: nobody has the other side any more
            return False
        self._raw += chunk
        self.shown = _ESCAPES.sub("", self._raw.decode(errors="replace"))
        return bool(chunk)

    def _look_round(self) -> None:
        """As `ps` shows it to everybody, and /proc to its user."""
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            me = psutil.Process(self.process.pid)
            for each in (me, *me.children(recursive=True)):
                for name in ("cmdline", "environ"):
                    seen = Path(f"/proc/{each.pid}/{name}").read_bytes().decode(errors="replace")
                    assert not any(secret in seen for secret in self._secrets)


def profile(directory: Path, rig: Any, caller: str) -> Path:
    """A client's profile of a caller."""
    certificate, key = rig.files(caller)
    path = directory / f"{caller}.toml"
    path.write_text(
        f'server = "127.0.0.1:{rig.port}"\nca = "{rig.pki.ca_file}"\ncertificate = "{certificate}"\nkey = "{key}"\n'
    )
    return path
