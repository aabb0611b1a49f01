"""What was found in an uploaded file."""

from dataclasses import dataclass

CLEAN, PENDING, INFECTED, ERROR = "clean", "pending", "infected", "error"
NOT_SCANNED = "not scanned"


@dataclass(frozen=True, slots=True)
class Examined:
    """`scan` is `clean`, or `error` where the scanner could not say; `scan_note` what it said."""

    media_type: str
    scan: str
    scan_note: str
