"""
What a file is, by its bytes alone: PDF, JPEG or PNG, and nothing else as well (ATT-09).

A polyglot is a file that two programs take for two things: to whoever looks it is a picture, to an unpacker an archive.
What magic bytes and the end of a file can tell is refused: a PDF's header within a picture's beginning, an archive's
directory at the end, and bytes behind the end of the document. What hides in the middle is not found here.
"""

import mmap
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from portal_adapter.refusal import FieldError, Refusal

PDF, JPEG, PNG = "application/pdf", "image/jpeg", "image/png"
ACCEPTED = (PDF, JPEG, PNG)
FIELD = "file"  # of a form
_MAGIC: Mapping[str, bytes] = {PDF: b"%PDF-", JPEG: b"\xff\xd8\xff", PNG: b"\x89PNG\r\n\x1a\n"}
_PDF_HEADER_WITHIN = 1024  # readers look for a PDF's header so far into a file (ISO 32000-1, annex H, note 13)
_ARCHIVE_END = (
    b"PK\x05\x06"  # the record that every ZIP ends with, and at most 65 535 bytes of a comment (APPNOTE 4.3.16)
)
_ARCHIVE_END_WITHIN = 22 + 65535
_MARKER = re.compile(rb"\xff(?=[^\x00\xff\xd0-\xd7])")  # of a JPEG, but for those that stand within a scan
_PADDING = b"\0\t\n\f\r "


def media_type(path: Path) -> str:
    """One of `ACCEPTED`; raises `Refusal` `bad-type` for other bytes, `rejected-content` for a file that is two things."""
    if not path.stat().st_size:
        raise Refusal("validation", errors=[FieldError(FIELD, "empty", "This file is empty.")], reason="empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = next((kind for kind, magic in _MAGIC.items() if data[: len(magic)] == magic), None)
        if found is None:
            raise _bad_type()
        if data.rfind(_ARCHIVE_END, max(0, len(data) - _ARCHIVE_END_WITHIN)) >= 0:
            raise rejected("two-kinds", "This file is an archive as well. Send the document by itself.")
        if found != PDF and data.find(_MAGIC[PDF], 0, _PDF_HEADER_WITHIN) >= 0:
            raise rejected("two-kinds", "This file is a PDF as well. Send the picture by itself.")
        end = _END[found](data)
        if end is None:
            raise rejected("unreadable", "This file cannot be read: it is damaged or not complete.")
        if data[end:].strip(_PADDING):
            raise rejected("two-kinds", "Something else stands behind the document in this file. Save it anew.")
    return found


def rejected(reason: str, message: str) -> Refusal:
    """What is wrong with a file's content, beside its field."""
    return Refusal("rejected-content", message, reason=reason, errors=[FieldError(FIELD, reason, message)])


def _bad_type() -> Refusal:
    message = "Only PDF, JPEG and PNG files are accepted. This is none by its content."
    return Refusal("bad-type", message, errors=[FieldError(FIELD, "bad-type", message)], accepted=list(ACCEPTED))


def _pdf_end(data: mmap.mmap) -> int | None:
    at = data.rfind(b"%%EOF")
    return None if at < 0 else at + 5


def _png_end(data: mmap.mmap) -> int | None:
    """Behind the chunk IEND: each has a length, a name, that many bytes and a checksum (ISO/IEC 15948, 5.3)."""
    at = len(_MAGIC[PNG])
    while at + 12 <= len(data):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        at += 12 + length
        if name == b"IEND":
            return at if at <= len(data) else None
    return None


def _jpeg_end(data: mmap.mmap) -> int | None:
    """Behind the last picture: cameras put smaller ones behind it (CIPA DC-007), and one maker a list that ends so."""
    at: int | None = 0
    while at is not None:
        at = _one_jpeg_end(data, at)
        if at is None:
            return None
        following = re.compile(rb"\0*\xff\xd8\xff").match(data, at)
        if following is None:
            return len(data) if data[-4:] == b"SEFT" else at
        at = following.end() - 3
    return None


def _one_jpeg_end(data: mmap.mmap, start: int) -> int | None:
    """Segments with their lengths up to the first scan; then FF is data where 00 or a restart marker follows (T.81, B.1)."""
    at = start + 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xD9:
            return at + 2
        if marker in {0xFF, 0x01} or 0xD0 <= marker <= 0xD7:
            at += 1 if marker == 0xFF else 2
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:
            at = _scan_end(data, at)
    return at + 2 if data[at : at + 2] == b"\xff\xd9" else None


def _scan_end(data: mmap.mmap, at: int) -> int:
    """Where the next marker stands."""
    found = _MARKER.search(data, at)
    return len(data) if found is None else found.start()


_END: Mapping[str, Callable[[mmap.mmap], int | None]] = {PDF: _pdf_end, JPEG: _jpeg_end, PNG: _png_end}
