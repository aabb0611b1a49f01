"""
A route: what may be asked, by whom, and for which requirement. All of them stand in `app.ROUTES`; the frame refuses one
without a level or a requirement at the start, and a test refuses a requirement that the table does not know.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from portal_adapter.web.answer import Answer
from portal_adapter.web.ask import Ahead, Ask, Uploaded

if TYPE_CHECKING:
    from portal_adapter.app import Services

# (services, the form's fields, its files) -> the files with what was found in them; raises `Refusal`.
Look = Callable[["Services", Mapping[str, str], Mapping[str, Uploaded]], Mapping[str, Uploaded]]

# What it found out, for the view; raises `Refusal`.
Before = Callable[[Ahead], Any]


class Level(Enum):
    """Who may come this far; each includes the ones before it."""

    OPEN = "open"  # anybody
    SESSION = "session"  # a person with a session
    TERMS = "terms"  # who has accepted the present terms, too
    AGENT = "agent"  # who works for an administration, too


@dataclass(frozen=True, slots=True)
class Route:
    """
    `path` has Starlette's form; `right` is what the caller's role in the space of `{space}` must allow, empty without one.
    `upload` takes a file, and looks into it before the transaction: that may take seconds, and a transaction that writes
    holds the others up; `admit` says before it is read whether it may come at all, by raising `Refusal`: it is given no form.
    `before` asks somebody else something, for the same reason as `upload`; for a page only where it shows nothing without
    that, and to a person. `fresh` wants a login of the last minutes. A GET changes nothing.
    """

    method: str
    path: str
    name: str
    view: Callable[[Ask], Answer]
    level: Level
    requirements: tuple[str, ...]
    right: str = ""
    upload: Look | None = None
    admit: Callable[[Ask], None] | None = None
    before: Before | None = None
    fresh: bool = False

    def __post_init__(self) -> None:
        if self.method not in {"GET", "POST"}:
            raise ValueError(f"{self.path}: {self.method} is not used here")
        if not self.requirements:
            raise ValueError(f"{self.path}: for which requirement is it?")
        if ("{space}" in self.path) is not bool(self.right):
            raise ValueError(f"{self.path}: a route of a space names the right that it wants, and no other route does")
        if self.upload is not None and (self.method != "POST" or self.level is Level.OPEN):
            raise ValueError(f"{self.path}: files come by POST, from a person")
        if self.admit is not None and self.upload is None:
            raise ValueError(f"{self.path}: only a file is waited for")
        if self.fresh and self.level is Level.OPEN:
            raise ValueError(f"{self.path}: nobody has logged in for a page that everybody may open")
        if self.before is not None and self.method == "GET" and self.level is Level.OPEN:
            raise ValueError(f"{self.path}: nobody is asked for a page that everybody may open")
