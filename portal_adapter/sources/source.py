"""
Authentic sources: what administrations hold about a person, for her to read (ESP-37).

A plug-in is a `Source`. It is asked at every page that shows it, with the names and the serial that a CA has certified for
whoever is logged in: nobody reads another person's, in whatever space.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a certificate names; `serial` is the subject's (serialNumber), else the certificate's own in hexadecimal."""

    serial: str
    family: str
    given: str


@dataclass(frozen=True, slots=True)
class SourceItem:
    key: str  # stable, for programs
    label_fr: str
    label_en: str
    value: str


class Source(Protocol):
    def fetch(self, subject: Subject) -> Sequence[SourceItem]:
        """Nothing for a subject that it does not know. Whatever it raises means that the source is not available."""
        ...
