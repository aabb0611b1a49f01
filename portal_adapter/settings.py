"""
The portal's configuration: one TOML file. deploy/portal.toml is the commented example, and a test loads it.

Every mistake is named with its path, all at once; an unknown key is a mistake. Secrets are never in it: they are paths of
files that only the portal can read. The window has a file of its own (window/settings.py).
"""

import contextlib
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from portal_adapter.auth.strength import RSA_BITS_LEAST, RSA_BITS_MIN
from portal_adapter.domain.fields import is_email

KEY_BYTES = 32
T = TypeVar("T", bound="Section")


def _from_its_place(path: Path, info: ValidationInfo) -> Path:
    return Path(info.context["base"] if info.context else "") / path


def _check_secret(path: Path) -> Path:
    """What is not there is told by whoever reads it; systemd's credentials have an ACL, which shows as the group's bit."""
    with contextlib.suppress(OSError):
        if path.stat().st_mode & (stat.S_IWGRP | stat.S_IRWXO):
            raise ValueError(f"others can read or change {path}: give it to the program's own user, mode 0400 or 0640")
    return path


File = Annotated[Path, AfterValidator(_from_its_place)]  # relative to the configuration file
Secret = Annotated[Path, AfterValidator(_from_its_place), AfterValidator(_check_secret)]


class SettingsError(Exception):
    """The file at `path` cannot be used, or several that it names (None); `mistakes` has a line for each."""

    def __init__(self, path: Path | None, mistakes: list[str]) -> None:
        self.mistakes = mistakes
        super().__init__("\n".join(f"{path}: {one}" if path is not None else one for one in mistakes))


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def check_origin(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme != "https" or not parts.hostname or value != f"https://{parts.netloc}":
        raise ValueError("is an https origin without a path, such as https://portal.example.org")
    return value


def check_apart(window: str, *others: str) -> None:
    """Cookies are a host's, whatever its port (RFC 6265, 8.5): the portal would be sent the window's, and so see what it shows."""
    if urlsplit(window).hostname in {urlsplit(one).hostname for one in others}:
        raise ValueError("the window has a host name of its own: another port is not enough, for cookies go to both")


def _check_database(url: str) -> str:
    """By libpq's own words: what it does without `sslmode` is to go on in the clear where a server offers no TLS."""
    try:
        parts = urlsplit(url)
        asked = parse_qs(parts.query)
    except ValueError:
        raise ValueError("is no URL; write it as postgresql://user@host/name") from None
    if parts.scheme != "postgresql":
        raise ValueError("is a URL as postgresql://user@host/name; without the key it is SQLite in the state")
    hosts = ",".join([parts.hostname or "", *asked.get("host", []), *asked.get("hostaddr", [])]).split(",")
    is_here = all(one.startswith("/") or one in {"", "127.0.0.1", "::1", "localhost"} for one in hosts)
    if not is_here and asked.get("sslmode") != ["verify-full"]:
        raise ValueError(
            "a database on another host is reached by TLS: add ?sslmode=verify-full&sslrootcert=... to the URL"
        )
    return url


def _check_port(value: str) -> str:
    if int(value.rpartition(":")[2]) > 65535:
        raise ValueError("a port is a number up to 65535")
    return value


def _check_email(value: str) -> str:
    if not is_email(value):
        raise ValueError("is an e-mail address such as portal@example.org")
    return value


Origin = Annotated[str, StringConstraints(max_length=255)]
Address = Annotated[
    str,
    StringConstraints(pattern=r"^(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-f:]+\]|localhost):\d{1,5}$"),
    AfterValidator(_check_port),
]


class Listener(Section):
    """An HTTPS listener. Behind a front that ends TLS, give it a loopback address and its own certificate all the same."""

    address: Address
    certificate: File
    key: Secret


class Cards(Listener):
    """Where people log in with a card or stick: TLS asks for the certificate, on an origin of its own."""

    origin: Origin
    client_ca: File

    _origin = field_validator("origin")(check_origin)


class Front(Section):
    """
    A TLS front that passes the verified client certificate on: it comes through a Unix socket that it alone can open, in
    one header (PEM, URL-encoded), and takes that header out of whatever comes from outside.
    """

    socket: File
    header: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$")]
    origin: Origin

    _origin = field_validator("origin")(check_origin)


class Window(Section):
    """The signing window, where codes are typed: its origin, and its name as a caller of the daemon."""

    origin: Origin
    caller: str

    _origin = field_validator("origin")(check_origin)


class Mail(Section):
    """By SMTP (`server` 'host:port'), or into files (`directory`), one of both."""

    sender: Annotated[str, AfterValidator(_check_email)]
    server: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9.-]{1,253}|\[[0-9a-f:]+\]):\d{1,5}$")] | None = None
    starttls: bool = True  # without it, to a loopback address only
    login_file: Secret | None = None  # two lines: user, password
    directory: File | None = None
    # What is announced to a space beside what is to be corrected.
    announce: tuple[Literal["received", "message", "accepted", "closed"], ...] = ("received", "message")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.server is None) is (self.directory is None):
            raise ValueError("give server or directory, one of both")
        if not self.starttls and (self.server or "localhost:").rpartition(":")[0] not in {
            "127.0.0.1",
            "[::1]",
            "localhost",
        }:
            raise ValueError("without starttls mail goes only to a loopback address, as 127.0.0.1")
        return self


class Terms(Section):
    """The general terms: a new version asks everybody again. Plain text, paragraphs apart by an empty line."""

    version: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,32}$")]
    fr: File
    en: File


class Business(Section):
    require_pro_certificate: bool = False
    pro_policy_oids: tuple[str, ...] = ()
    single_space: bool = False
    admin_nomination_required: bool = False
    spaces_max: int = Field(default=200, ge=1)  # that one person administers

    @model_validator(mode="after")
    def _policies(self) -> Self:
        if self.require_pro_certificate and not self.pro_policy_oids:
            raise ValueError("require_pro_certificate needs pro_policy_oids: which policies are professional?")
        return self


class Source(Section):
    """An authentic source: `kind` names the plug-in."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")]
    kind: Literal["file"]
    file: File
    label_fr: str
    label_en: str


class Scan(Section):
    """What looks at uploads for malware: a command that gets the file on its standard input, or clamd's socket."""

    command: tuple[str, ...] = ()
    clamd: File | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.command) is (self.clamd is not None):
            raise ValueError("give command or clamd, one of both")
        return self


class BackEnd(Section):
    """
    What was sent is given to this command, too: as JSON on its standard input. It ends with 0 when the administration's
    own system has it; else it is run again later.
    """

    command: tuple[str, ...] = Field(min_length=1)


class Attachments(Section):
    """Supporting documents of procedures."""

    before_signature: bool = False  # whether they may be added before the form is signed


class Limits(Section):
    """All inclusive. Characters are code points after NFC, trimmed, CRLF as one."""

    space_title: int = Field(default=100, ge=1)
    company_name: int = Field(default=200, ge=1)
    person_name: int = Field(default=100, ge=1)
    email: int = Field(default=254, ge=6)  # RFC 5321, 4.5.3.1.3
    document_bytes: int = Field(default=10 * 1024 * 1024, ge=1)
    document_name: int = Field(default=80, ge=1)
    archive_documents: int = Field(default=1000, ge=1)  # of a space
    attachments: int = Field(default=20, ge=1)  # of a procedure
    # Of a space, in what it has not sent or was given back: who only prepares may not fill the disk.
    unsent_bytes: int = Field(default=1024 * 1024 * 1024, ge=1)
    # Of one person, in archives and procedures of all her spaces, what was sent too: nobody fills the disk alone.
    person_bytes: int = Field(default=20 * 1024 * 1024 * 1024, ge=1)
    person_files: int = Field(default=20_000, ge=1)
    image_pixels: int = Field(default=40_000_000, ge=1)
    idle_s: int = Field(default=15 * 60, ge=60)
    session_s: int = Field(default=8 * 3600, ge=60)
    challenge_s: int = Field(default=120, ge=30)  # from the login's beginning to its statement
    invitation_s: int = Field(default=14 * 86400, ge=60)
    form_bytes: int = Field(default=256 * 1024, ge=1024)  # of a form without a file
    login_a_minute: int = Field(default=10, ge=1)  # begun by one address
    uploads_a_minute: int = Field(default=30, ge=1)
    message_subject: int = Field(default=120, ge=1)
    message_body: int = Field(default=4000, ge=1)
    messages_an_hour: int = Field(default=20, ge=1)  # about one procedure, from each side
    comment: int = Field(default=1000, ge=1)  # on what is to be corrected, or why a procedure is closed
    signings_a_minute: int = Field(default=20, ge=1)  # begun by one person


class Portal(Section):
    """`name` is what the portal calls itself; `state` holds its files and, without `database`, its SQLite file."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=60)]
    origin: Origin
    state: File
    key_file: Secret  # 32 random bytes, mode 0400: form tokens are made with it
    database: Annotated[str, AfterValidator(_check_database)] | None = None  # postgresql://...
    definitions: File | None = None  # of procedures, instead of the examples that come with the program
    time_zone: str = "Europe/Luxembourg"
    language: Literal["fr", "en"] = "en"  # for whoever has said nothing
    help_email: Annotated[str, AfterValidator(lambda value: value and _check_email(value))] = ""

    _origin = field_validator("origin")(check_origin)

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"there is no time zone {value!r}") from None
        return value


class Daemon(Section):
    """How the portal calls the daemon: the client's profile (signer/client.py), of a caller with the role submit."""

    profile: File


class Trust(Section):
    """Who issues the certificates that people log in with: CA certificates in PEM; what they have revoked; how long keys are."""

    issuers: tuple[File, ...] = Field(min_length=1)
    crls: tuple[File, ...] = ()  # one for each of the issuers, or none at all
    rsa_bits_min: int = Field(default=RSA_BITS_MIN, ge=RSA_BITS_LEAST)  # of people's keys and their issuers'


class Settings(Section):
    portal: Portal
    listener: Listener
    cards: Cards | None = None
    front: Front | None = None
    window: Window
    daemon: Daemon
    trust: Trust
    mail: Mail
    terms: Terms
    business: Business = Business()
    source: tuple[Source, ...] = ()
    scan: Scan | None = None
    back_end: BackEnd | None = None
    attachments: Attachments = Attachments()
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _origins(self) -> Self:
        where = self.cards or self.front
        origins = [self.portal.origin, self.window.origin, *([where.origin] if where else [])]
        if len(set(origins)) < len(origins):
            raise ValueError("portal, window and cards each have an origin of their own: use another name or port")
        check_apart(self.window.origin, *(one for one in origins if one != self.window.origin))
        if self.cards and self.front:
            raise ValueError("certificates come by [cards] or by [front], not both ways")
        return self


def load(path: Path) -> Settings:
    """Raises `SettingsError` with every mistake. Paths in the file are relative to it."""
    return parse(path, Settings)


def parse(path: Path, kind: type[T]) -> T:
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(path, [error.strerror or str(error)]) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(path, [f"not TOML: {error}"]) from None
    try:
        return kind.model_validate(table, context={"base": path.resolve().parent})
    except ValidationError as error:
        raise SettingsError(path, [_mistake(one) for one in error.errors()]) from None


def _mistake(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"]) or "the file"
    said = {"extra_forbidden": "is unknown: take it out, or see the example in deploy/", "missing": "is missing"}
    message: str = said.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    return f"{place}: {message}"
