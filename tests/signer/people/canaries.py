"""
Secrets that can be found again: in whatever was written, in the ways in which things are written, and in a process's
memory.
"""

import base64
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

SHORT = (
    10  # characters: a one-time code is looked for where it stands alone, or half of all numbers would have it in them
)
NOT_READABLE = {"[vvar]", "[vvar_vclock]", "[vsyscall]", "[vdso]"}


def forms(value: bytes) -> Iterator[tuple[str, bytes]]:
    """How a secret may be written: (how, what to look for)."""
    yield "clear", value
    yield "hexadecimal", value.hex().encode()
    yield "hexadecimal", value.hex().upper().encode()
    yield "base32", base64.b32encode(value).rstrip(b"=")
    for shift in range(3):  # within something longer it may begin at any of three places
        encoded = base64.b64encode(bytes(shift) + value)
        inner = encoded[-(-shift * 8 // 6) : (shift + len(value)) * 8 // 6]  # what no neighbour has a part in
        yield "base64", inner
        yield "base64", inner.replace(b"+", b"-").replace(b"/", b"_")
    text = value.decode("latin-1")
    yield "UTF-16", text.encode("utf-16-le")
    yield "UTF-16", text.encode("utf-16-be")


def hits(secrets: Mapping[str, bytes], written: Mapping[str, bytes]) -> list[str]:
    """'the log has the code in hexadecimal', for each place that has any of these secrets in any form."""
    found = []
    for name, value in secrets.items():
        for form, what in dict.fromkeys(forms(value)):
            for place, content in written.items():
                if _has(content, what, is_alone=form == "clear" and len(value) < SHORT):
                    found.append(f"{place} has {name} in {form}")
    return found


def _has(content: bytes, what: bytes, *, is_alone: bool) -> bool:
    if what not in content:
        return False
    return not is_alone or re.search(rb"(?<![0-9A-Za-z])%b(?![0-9A-Za-z])" % re.escape(what), content) is not None


def files(*places: Path, leave_out: Iterable[Path] = ()) -> dict[str, bytes]:
    """Every file under these places as it is now, by its path; sockets are none."""
    left = set(leave_out)
    found = {}
    for place in places:
        for path in [place, *place.rglob("*")] if place.is_dir() else [place]:
            if path.is_file() and path not in left:
                found[str(path)] = path.read_bytes()
    return found


def processes() -> dict[str, bytes]:
    """Command line and environment of every process that lets us look; one that ends meanwhile is left out."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                found[f"{process.name}'s {name}"] = (process / name).read_bytes()
            except OSError:
                continue
    return found


def memory_has(pid: int, value: bytes) -> int:
    """How often a value stands in a process's memory. Root may look."""
    count = 0
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            words = line.split(maxsplit=5)
            if not words[1].startswith("r") or words[-1] in NOT_READABLE:
                continue
            start, end = (int(word, 16) for word in words[0].split("-"))
            count += _read(memory.fileno(), start, end - start).count(value)
    return count


def _read(fd: int, start: int, size: int) -> bytes:
    """What of it is there: a mapping may be longer than its file, and one may go while it is read."""
    parts: list[bytes] = []
    got = 0
    while got < size:
        try:
            part = os.pread(fd, size - got, start + got)
        except OSError:
            break
        if not part:
            break
        parts.append(part)
        got += len(part)
    return b"".join(parts)
