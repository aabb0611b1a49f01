"""
The gap that a PDF was prepared with: plain data, and a splice of bytes that any process can do.

What parses is in signer/pades.py; this file knows offsets only, so that the daemon need not load a PDF library.
"""

import hashlib
import hmac
import os
from dataclasses import dataclass
from typing import BinaryIO

_COPY_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Prepared:
    """
    A PDF that is whole but for its CMS: `gap_start` to `gap_end` is the hexadecimal string of /Contents, its angle
    brackets included; `content_digest` is that of everything else.
    """

    content_digest: bytes
    gap_start: int
    gap_end: int


def finish(prepared: Prepared, cms: bytes, document: BinaryIO) -> None:
    """Write the CMS into its gap; the rest of the gap stays filled with zeros, which readers ignore."""
    room = (prepared.gap_end - prepared.gap_start - 2) // 2
    if len(cms) > room:
        raise ValueError(f"the CMS has {len(cms)} bytes and its gap {room}")
    os.pwrite(document.fileno(), cms.hex().encode(), prepared.gap_start + 1)


def content_digest(document: BinaryIO, prepared: Prepared, algorithm: str) -> bytes:
    """The digest of the file but for its gap, computed anew."""
    size = document.seek(0, os.SEEK_END)
    digest = hashlib.new(algorithm)
    for start, end in ((0, prepared.gap_start), (prepared.gap_end, size)):
        document.seek(start)
        left = end - start
        while left and (piece := document.read(min(left, _COPY_BYTES))):
            digest.update(piece)
            left -= len(piece)
    return digest.digest()


def file_id(*parts: str) -> bytes:
    """The `file_id` for a document that these words name: any that are the same each time it is prepared."""
    return hmac.digest(b"paraph file identifier 1", "\x1f".join(parts).encode(), "sha256")
