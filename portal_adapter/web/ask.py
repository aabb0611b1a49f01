"""What a view is given: one request, with everything it may use, in one transaction."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from portal_adapter.auth.session import Session
from portal_adapter.files.examined import Examined
from portal_adapter.language import Language
from portal_adapter.refusal import Refusal
from portal_adapter.settings import Settings

if TYPE_CHECKING:
    from portal_adapter.app import Services
    from portal_adapter.domain.actor import Actor


@dataclass(frozen=True, slots=True)
class Uploaded:
    """
    A file that came whole: its bytes are on the disk in `path`, which the frame removes afterwards. `Blobs.keep` keeps
    them. `found` is what the route's `upload` has found in it.
    """

    path: Path
    name: str  # as the browser said it: never a path
    size: int
    sha256: str
    found: Examined | None = None


@dataclass(frozen=True, slots=True)
class Ahead:
    """
    What a route's `before` is given: a request that may be made, without a connection. What it reads it reads in a
    transaction of its own, which is over before it asks somebody else.
    """

    services: "Services"
    now: int
    language: Language
    session: Session | None
    visitor: str
    parts: Mapping[str, str]
    form: Mapping[str, str]
    space: Mapping[str, Any] | None = None

    @property
    def actor(self) -> "Actor":
        if self.session is None:
            raise Refusal("unauthenticated")
        return self.session.actor


@dataclass(frozen=True, slots=True)
class Ask:
    """`form` has a posted form's fields, `query` the URL's; `parts` those of the path. `language` is the reader's."""

    connection: Connection
    services: "Services"
    now: int
    language: Language
    session: Session | None
    visitor: str  # the browser's cookie, '' where it has none and has a session
    address: str
    parts: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, str]
    files: Mapping[str, Uploaded] = field(default_factory=dict)
    space: Mapping[str, Any] | None = None  # of {space}, with the caller's `role` in it
    peer_certificate: bytes | None = None  # of the TLS connection, or of the front
    after: list[Callable[[], None]] = field(default_factory=list)  # done once the transaction is
    undo: list[Callable[[], None]] = field(default_factory=list)  # done where it is taken back
    found: Any = None  # what the route's `before` has found out
    administration: str = ""  # that she works for

    @property
    def settings(self) -> Settings:
        return self.services.settings

    @property
    def actor(self) -> "Actor":
        if self.session is None:
            raise Refusal("unauthenticated")
        return self.session.actor
