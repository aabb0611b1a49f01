"""
Places that take checkpoints: once one is there, whoever has this host cannot change what it covers unnoticed.

    file      a file that is only appended to, best on another mount; it is a file of notes, as signer/note.py says
    syslog    RFC 5424, one message a note, over a Unix datagram socket or UDP
    webhook   HTTP POST of the note

Each may hang (a mount, a resolver, a server that says nothing), so each works in a thread that nobody waits for longer
than its limit. A note that was put may be put again, where nobody knows whether it arrived.
"""

import contextlib
import logging
import os
import re
import socket
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from signer import webhook
from signer.appearing import sync_directory
from signer.clock import Clock, rfc3339
from signer.config import ConfigError, Ledger, LedgerAnchor
from signer.note import MAGIC, NoteError, on_one_line, parse
from signer.thread import apart
from signer.webhook import WebhookError

log = logging.getLogger("signer.anchor")

FILE_S = 30.0  # a disk that is busy takes seconds for an fsync; a mount whose server is gone takes for ever
SYSLOG_S = 10.0  # a Unix socket whose reader is behind; a name to be resolved
WEBHOOK_S = 10.0  # from the name's resolution to the answer's first line
UDP_REFUSAL_S = 0.2  # until "port unreachable" would have come back from afar; when nothing comes, nobody knows
FILE_MODE = 0o640  # a verifier in the daemon's group may read
LAST_NOTE_BYTES_MAX = 1024 * 1024  # looked at for a file's last note: 8 000 chains
SYSLOG_BYTES_MAX = 8 * 1024  # of a message: what rsyslog takes by default (60 chains); RFC 5424, 6.1, asks for 2 048
_FACILITY, _SEVERITY = 13, 5  # "log audit" and "notice": RFC 5424, 6.2.1
_BEGIN = f"{MAGIC}\n".encode()


class AnchorError(Exception):
    """The anchor has not taken the note, as far as is known; the message names it and says what to do."""


class AnchorChanged(AnchorError):
    """What the anchor holds is not what was put there: somebody changed it. A person must look."""


class Anchor(Protocol):
    @property
    def name(self) -> str:
        """What logs and metrics call it: no secret of its address."""

    async def put(self, note_text: str) -> None:
        """Returns when the anchor has it; raises `AnchorError`."""


def of(ledger: Ledger) -> list[Anchor]:
    """The anchors of the configuration, each with a name of its own."""
    names: Counter[str] = Counter()
    found: list[Anchor] = []
    for section in ledger.anchor:
        anchor = _of(section)
        names[anchor.name] += 1
        if names[anchor.name] > 1:
            anchor.name = f"{anchor.name} ({names[anchor.name]})"
        found.append(anchor)
    return found


def _of(section: LedgerAnchor) -> "FileAnchor | SyslogAnchor | WebhookAnchor":
    if section.file is not None:
        return FileAnchor(section.file)
    if section.syslog is not None:
        return SyslogAnchor(section.syslog)
    assert section.webhook is not None
    return WebhookAnchor(section.webhook)


def check(ledger: Ledger) -> None:
    """
    Whether each file could be written to by who asks; raises `ConfigError`.

    For `paraph serve --check` only: at a start, a place that is away is no reason not to sign.
    """
    mistakes = []
    for number, section in enumerate(ledger.anchor, 1):
        problem = "" if section.file is None else _unwritable(section.file)
        if problem:
            mistakes.append(f"anchor {number}: file: {problem}")
    if mistakes:
        raise ConfigError(Path("ledger"), mistakes)


def _unwritable(path: Path) -> str:
    directory = path.parent
    if not directory.is_dir():
        return f"there is no directory {directory}; make it, and let the daemon's user write there"
    if path.exists():
        return "" if os.access(path, os.R_OK | os.W_OK) else f"{path} cannot be read and written by this user"
    return "" if os.access(directory, os.W_OK | os.X_OK) else f"this user cannot make a file in {directory}"


class _Thread:
    """Blocking work in threads that do not hold up the process's end, one at a time, each with a limit."""

    def __init__(self, name: str, limit_s: float) -> None:
        self._name = name
        self._limit_s = limit_s
        self._busy = False

    async def do(self, work: Callable[[], None]) -> None:
        """Raises what it raises, an `OSError` as `AnchorError`; past the limit it is left to itself."""
        if self._busy:
            raise AnchorError(f"{self._name}: the last attempt has not come back; look at the mount or the host")
        self._busy = True

        def run() -> None:
            try:
                work()
            except AnchorError:
                raise
            except Exception as raised:
                why = raised.strerror if isinstance(raised, OSError) else None
                raise AnchorError(f"{self._name}: {why or repr(raised)}") from raised
            finally:
                self._busy = False

        try:
            await apart(run, f"anchor {self._name}", self._limit_s)
        except TimeoutError:
            raise AnchorError(f"{self._name}: no answer within {self._limit_s:g} s") from None


class FileAnchor:
    """
    A file of notes that is only appended to.

    Before each note it must end with the one that was put before: else somebody shortened, changed or replaced it, and
    it is left as it is. What the start of a daemon finds there must end with an earlier note, or with this one. A note
    of which only a part was written (a full disk, a power cut) is completed.
    """

    def __init__(self, path: Path) -> None:
        self.name = f"file:{path}"
        self._path = path
        self._thread = _Thread(self.name, FILE_S)
        self._last: bytes | None = None  # the note that stands last; None until one was put
        self._size = 0  # of the file up to its end

    async def put(self, note_text: str) -> None:
        await self._thread.do(lambda: self._append(note_text.encode()))

    def _append(self, note: bytes) -> None:
        fd = self._open()
        try:
            missing = self._missing_at_first(fd, note) if self._last is None else self._missing(fd, self._last, note)
            self._write(fd, missing)
            os.fsync(fd)
            self._last, self._size = note, os.fstat(fd).st_size
        finally:
            os.close(fd)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK  # not to block on a pipe
        try:
            fd = os.open(self._path, flags)
        except FileNotFoundError:
            if self._last is not None:
                # A mount that is away looks the same, so it is tried again; but a new file would hide what is lost.
                raise AnchorChanged(
                    f"{self.name}: the file is gone; put it back, or find out who took it and restart the daemon, "
                    "which begins another"
                ) from None
            fd = os.open(self._path, flags | os.O_CREAT | os.O_EXCL, FILE_MODE)
            os.fchmod(fd, FILE_MODE)  # whatever the umask says
            sync_directory(self._path.parent)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise AnchorError(f"{self.name}: is not a regular file; give a path where the daemon can make one")
        return fd

    def _missing(self, fd: int, last: bytes, note: bytes) -> bytes:
        """What of the note is not in the file yet; raises `AnchorChanged` when it does not end as we left it."""
        begin = self._size - len(last)
        # One byte more than could be ours: what is longer is another's. (Put again, the note itself is there already.)
        end = os.pread(fd, len(last) + len(note) + 1, begin)
        there = end[len(last) :]
        if not end.startswith(last) or not note.startswith(there):
            raise AnchorChanged(
                f"{self.name}: does not end with the checkpoint that was put there last ({self._size} bytes then, "
                f"{os.fstat(fd).st_size} now): somebody changed it. Keep it as evidence, put back what was there, or "
                "move it away and restart the daemon"
            )
        return b"" if note == last else note[len(there) :]

    def _missing_at_first(self, fd: int, note: bytes) -> bytes:
        """The same after a start, which knows only the note that it puts."""
        size = os.fstat(fd).st_size
        begin = max(0, size - LAST_NOTE_BYTES_MAX)
        end = os.pread(fd, size - begin, begin)
        # Where a note of which only a part is there may begin: at the file's start, or behind one of the last empty
        # lines, of which a note has two.
        cuts = [0, *(found.end() for found in re.finditer(b"\n\n", end))][-4:]
        cut = next((cut for cut in cuts if note.startswith(end[cut:])), None)
        if cut is None:
            raise self._not_whole()
        there = end[cut:]
        if there != note:
            self._check_before(end[:cut], note)
        return note[len(there) :]

    def _check_before(self, end: bytes, note: bytes) -> None:
        """Whether the last note of a file that ends so may stand before this one."""
        (ours,) = (each.checkpoint for each in parse(note.decode()))
        if not end:
            if ours.number > 1:
                log.warning("%s begins with checkpoint %d: if it is not new, it was emptied", self.name, ours.number)
            return
        at = end.rfind(b"\n\n" + _BEGIN)
        try:
            (theirs,) = (each.checkpoint for each in parse(end[at + 2 if at >= 0 else 0 :].decode()))
        except (NoteError, ValueError):
            raise self._not_whole() from None
        if theirs.number >= ours.number or (theirs.number == ours.number - 1 and theirs.hash != ours.previous):
            raise AnchorChanged(
                f"{self.name}: its last checkpoint, {theirs.number}, is none that this ledger has, whose next is "
                f"{ours.number}. Either another daemon writes there: give each its own file. Or the ledger is older "
                "than the file: keep the file as evidence of what was lost, and move it away"
            )
        if theirs.number < ours.number - 1:
            log.warning("%s lacks the checkpoints %d to %d", self.name, theirs.number + 1, ours.number - 1)

    def _not_whole(self) -> AnchorChanged:
        return AnchorChanged(
            f"{self.name}: does not end with a whole checkpoint; keep it, move it away, and the daemon begins another"
        )

    def _write(self, fd: int, missing: bytes) -> None:
        size = os.fstat(fd).st_size
        try:
            while missing:
                missing = missing[os.write(fd, missing) :]
        except OSError:
            # Half a note is completed later, so it does not matter where this is forbidden (chattr +a).
            with contextlib.suppress(OSError):
                os.ftruncate(fd, size)
            raise


class SyslogAnchor:
    """
    A log server. `address`: a Unix datagram socket's path, or HOST:PORT for UDP.

    A datagram that was sent is taken to have arrived, which over UDP nobody knows unless the port refuses it.
    """

    def __init__(self, address: str, clock: Clock | None = None) -> None:
        self.name = f"syslog:{address}"
        self._address = address
        self._clock = clock or Clock()
        self._thread = _Thread(self.name, SYSLOG_S)

    async def put(self, note_text: str) -> None:
        message = syslog_message(note_text, self._clock)
        if len(message) > SYSLOG_BYTES_MAX:
            raise AnchorError(
                f"{self.name}: the checkpoint is {len(message)} bytes long, and log servers take {SYSLOG_BYTES_MAX}; "
                "with so many daemons use a file or a webhook"
            )
        await self._thread.do(lambda: self._send(message))

    def _send(self, message: bytes) -> None:
        if self._address.startswith("/"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(SYSLOG_S)
                sender.connect(self._address)
                sender.send(message)
            return
        host, _, port = self._address.rpartition(":")
        family, kind, protocol, _, place = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol) as sender:
            sender.connect(place)  # so that a refusal comes back
            sender.send(message)
            sender.settimeout(UDP_REFUSAL_S)
            with contextlib.suppress(TimeoutError):
                sender.recv(1)


def syslog_message(note_text: str, clock: Clock) -> bytes:
    """RFC 5424, 6: header, no structured data, and the note on one line; `note_of` gives it back."""
    host = socket.gethostname()
    if re.fullmatch("[!-~]{1,255}", host) is None:
        host = "-"
    header = f"<{_FACILITY * 8 + _SEVERITY}>1 {rfc3339(clock.wall())} {host} paraph {os.getpid()} CHECKPOINT -"
    return f"{header} {on_one_line(note_text)}".encode()


class WebhookAnchor:
    """An HTTP server that takes a note by POST, as signer/webhook.py does it: 2xx means that it has it."""

    def __init__(self, url: str) -> None:
        self.name = f"webhook:{webhook.origin(url)}"
        self._url = url
        self._thread = _Thread(self.name, WEBHOOK_S)

    async def put(self, note_text: str) -> None:
        await self._thread.do(lambda: self._post(note_text.encode()))

    def _post(self, note: bytes) -> None:
        try:
            webhook.post(self._url, note, "text/plain; charset=utf-8", WEBHOOK_S)
        except WebhookError as error:
            raise AnchorError(f"{self.name}: {error}") from error
