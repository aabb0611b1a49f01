"""Names of files, for people: what a browser sends is a text that somebody chose, and never a path (ASVS 5.3.2, 5.4.1)."""

import re
import unicodedata
from collections.abc import Mapping

from portal_adapter.files.sniff import JPEG, PDF, PNG

ENDINGS: Mapping[str, tuple[str, ...]] = {PDF: (".pdf",), JPEG: (".jpg", ".jpeg"), PNG: (".png",)}
_SEPARATORS = re.compile(r"[/\\]")
_NOT_IN_NAMES = re.compile(r'[<>:"/\\|?*]')  # of some system or other


def cleaned(name: str, *, most: int) -> str:
    """
    A document's name out of a browser's file name: its last part without its ending, at most `most` characters, nothing
    that cannot be seen. Empty where nothing remains.
    """
    last = _SEPARATORS.split(name)[-1]
    stem = next(
        (
            last[: -len(ending)]
            for endings in ENDINGS.values()
            for ending in endings
            if last.lower().endswith(ending) and len(last) > len(ending)
        ),
        last,
    )
    return " ".join(_seen(stem).split()).strip(" .")[:most].strip()


def for_download(name: str, media_type: str) -> str:
    """With the ending of what it is."""
    plain = _NOT_IN_NAMES.sub("_", _seen(name)).strip(" .") or "document"
    endings = ENDINGS[media_type]
    return plain if plain.lower().endswith(endings) else plain + endings[0]


def _seen(text: str) -> str:
    """NFC, without control, format, surrogate and unassigned characters."""
    return "".join(c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c)[0] != "C" or c in "\t\n")
