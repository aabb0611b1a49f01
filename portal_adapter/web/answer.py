"""What a view answers: a page, the way to one, or a file. The frame makes HTML or JSON of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from portal_adapter.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Page:
    """
    `data` is what the template shows, and what JSON has: texts, numbers, lists and mappings of such. `is_framing`: it shows
    something else of ours in a frame.
    """

    template: str
    data: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    is_framing: bool = False


@dataclass(frozen=True, slots=True)
class Redirect:
    """303 to a page of ours, or (`outside`) of the window or the cards' origin. `cookies`: name -> value, None ends it."""

    location: str
    cookies: Mapping[str, str | None] = field(default_factory=dict)
    outside: bool = False
    notice: str = ""  # of NOTICES: shown once on the next page


@dataclass(frozen=True, slots=True)
class Download:
    """
    A file's bytes, as an attachment or to be looked at; `is_framed`: in a frame of a page of ours, too. `audited`: an event
    of the audit and what it is about, which are written down before the file is given out (UI-08).
    """

    path: Path
    media_type: str
    name: str
    inline: bool = False
    is_framed: bool = False
    audited: tuple[str, Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """
    What could be done is done and stays, and this is said all the same: the one refusal that does not take its
    transaction back (PROC-11).
    """

    refusal: Refusal


Answer = Page | Redirect | Download | Refused
