"""
Looking for malware: by a command, by clamd, or not at all (ATT-10).

A command gets the file on its standard input, and says by its exit code what it found, as clamscan does: 0 nothing, 1
malware, else that it could not say. clamd is asked through its Unix socket with INSTREAM (clamd(8)).
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from portal_adapter.files.examined import CLEAN, ERROR, INFECTED, NOT_SCANNED
from portal_adapter.program import Program
from portal_adapter.settings import Scan

SCAN_S = 30.0  # for one file; clamd needs well under a second for ten megabytes
CHUNK_BYTES = 64 * 1024
ANSWER_BYTES_MAX = 4096
NOTE_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class Verdict:
    """`state` is `clean`, `infected` or `error`; `note` what the scanner said."""

    state: str
    note: str


def scan(path: Path, settings: Scan | None) -> Verdict:
    """Never raises for a scanner that is away: that is `error`, which is tried again."""
    if settings is None:
        return Verdict(CLEAN, NOT_SCANNED)
    way: Callable[[Path, Scan], Verdict] = _by_clamd if settings.clamd is not None else _by_command
    try:
        found = way(path, settings)
    except OSError as error:
        return Verdict(ERROR, _note(str(error)))
    return Verdict(found.state, _note(found.note))


def _by_command(path: Path, settings: Scan) -> Verdict:
    with path.open("rb") as file:
        ended = Program(settings.command, SCAN_S).run(file)
    if ended.code is None:
        return Verdict(ERROR, f"the command has not ended within {SCAN_S:.0f} s")
    states = {0: CLEAN, 1: INFECTED}
    return Verdict(states.get(ended.code, ERROR), ended.first.decode("utf-8", "replace") or f"exit code {ended.code}")


def _by_clamd(path: Path, settings: Scan) -> Verdict:
    """Chunks with their length in four bytes, one of none at the end; 'stream: OK', 'stream: NAME FOUND' or '... ERROR'."""
    with socket.socket(socket.AF_UNIX) as clamd, path.open("rb") as file:
        clamd.settimeout(SCAN_S)
        clamd.connect(str(settings.clamd))
        clamd.sendall(b"zINSTREAM\0")
        while chunk := file.read(CHUNK_BYTES):
            clamd.sendall(len(chunk).to_bytes(4, "big") + chunk)
        clamd.sendall(bytes(4))
        answer = b""
        while not answer.endswith(b"\0") and len(answer) < ANSWER_BYTES_MAX and (more := clamd.recv(1024)):
            answer += more
    said = answer.rstrip(b"\0\n").decode("utf-8", "replace").removeprefix("stream: ")
    if said == "OK":
        return Verdict(CLEAN, said)
    return Verdict(INFECTED if said.endswith(" FOUND") else ERROR, said or "no answer")


def _note(text: str) -> str:
    """One line without control characters: it stands in a table and in a log."""
    return "".join(c if c.isprintable() else " " for c in text).strip()[:NOTE_CHARACTERS_MAX]
