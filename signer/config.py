"""
The daemon's configuration: one TOML file. deploy/paraph.toml is the commented example, and a test loads it.

Every mistake is named with its path, all at once; an unknown key is a mistake. Secrets are never in it: they are paths
of files that only the daemon can read, or names of systemd credentials.
"""

import hashlib
import ipaddress
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from pool import LibraryRefused, PinError, PinFile, Presence, TokenConfig
from pool.library import Library, check_environment
from pool.secret_file import SecretFileError, read_secret
from signer.fetch import check_url as check_fetched
from signer.message import check_tell
from signer.webhook import check_url

NAME = r"[a-z0-9][a-z0-9._-]{0,62}"
Name = Annotated[str, StringConstraints(pattern=f"^{NAME}$")]
Credential = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$")]  # a name in LoadCredential=
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-fA-F]{64}$")]
KeyId = Annotated[str, StringConstraints(pattern=r"^([0-9a-fA-F]{2}){1,128}$")]  # a CKA_ID
Role = Literal["submit", "consent", "self", "operator"]

PEM_BYTES_MAX = 64 * 1024  # a file with one private key: RSA-16384 has 13 kB
LOGIN_BYTES_MAX = 512  # of the file with user and password
DATA_KEY_BYTES = 32  # AES-256
_SOCKET_BYTES_MAX = 107  # of a Unix socket's path: unix(7)
_YEAR_H = 366 * 24.0  # a CRL of an older age than this is no CRL
_MAKE_KEYS = "`paraph audit keys DIRECTORY` makes both keys"
# What is missing, and what to do about it; other keys explain themselves.
_ADVICE: dict[tuple[int | str, ...], str] = {
    (
        "ledger",
    ): f"is missing: the daemon signs nothing without a ledger. {_MAKE_KEYS}, deploy/paraph.toml shows the rest",
    (
        "ledger",
        "anchor",
    ): "is missing: give at least one [[ledger.anchor]] (file, syslog or webhook), best outside this "
    "host, else whoever has the host can rewrite the ledger and nobody sees it",
}

# What a role may be allowed at all; the caller's own list says which of these it has.
_SUBMIT = frozenset(
    {
        *("ListCredentials", "GetCredential", "SignDigests", "StreamDigests", "SignDocuments", "VerifyDocument"),
        *("GetResult", "OpenBatch", "GetBatch", "ListBatches", "CancelBatch"),
    }
)
_CONSENT = frozenset(
    {
        *("ListCredentials", "GetCredential", "RequestOtp", "Authorize", "Authenticate", "CompleteEnrolment"),
        "ChangeCode",
        *("GetBatch", "ListBatches", "SignBatch", "CancelBatch"),
    }
)
ROLES: dict[str, frozenset[str]] = {
    "submit": _SUBMIT,
    "consent": _CONSENT,  # brings what people type; never in one certificate with 'submit'
    "self": _SUBMIT | _CONSENT,  # one person's own certificate, for that person alone
    "operator": frozenset(
        {
            "GetServerInfo",
            "ReloadConfig",
            "ListTokens",
            "WatchTokens",
            "UnlockToken",
            "DrainToken",
            "ResumeToken",
            *("RegisterCredential", "SetCredentialState", "EnrolSubject", "SuspendSubject", "UnlockSubject"),
            *("ListSubjects", "ConfirmClock"),
        }
    ),
}


class ConfigError(Exception):
    """The file cannot be used; `mistakes` has one line each, with the path of what is wrong."""

    def __init__(self, path: Path, mistakes: list[str]) -> None:
        self.path = path
        self.mistakes = mistakes
        super().__init__(f"{path}: " + "; ".join(mistakes))


class NoCredentials(ConfigError):
    """A systemd credential is to be read where systemd gives none: in a command beside the daemon."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Server(_Section):
    state: Path
    metrics: str | None = None
    assembly_processes: Annotated[int, Field(ge=1, le=64)] = 2

    @field_validator("state")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return _absolute(path)

    @field_validator("metrics")
    @classmethod
    def _address(cls, address: str | None) -> str | None:
        return None if address is None else _host_and_port(address)


class Listener(_Section):
    """Either an address with TLS, or a Unix socket that stands for one caller."""

    address: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    socket: Path | None = None
    mode: str = "0600"
    caller: Name | None = None

    @field_validator("mode")
    @classmethod
    def _mode(cls, mode: str) -> str:
        if not re.fullmatch(r"0[0-7]{3}", mode) or int(mode, 8) & 0o007:
            raise ValueError("a socket's mode is octal, as 0600 or 0660, and gives nothing to others")
        return mode

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.address is None) == (self.socket is None):
            raise ValueError("give either address or socket")
        tls = (self.certificate, self.key, self.client_ca)
        if self.address is not None:
            _host_and_port(self.address)
            if None in tls:
                raise ValueError("an address needs certificate, key and client_ca: there is no listening without TLS")
            if self.caller is not None:
                raise ValueError("caller belongs to a socket; on an address the client certificate names the caller")
        elif self.caller is None:
            raise ValueError("a socket needs the caller that it stands for")
        elif any(tls):
            raise ValueError("a socket takes no certificate, key or client_ca")
        return self


class Token(_Section):
    name: Name
    kind: Literal["smartcard", "signing-stick", "signing-server"]
    module: Path
    module_sha256: Sha256 | None = None
    label: Annotated[str, StringConstraints(min_length=1, max_length=32)]
    serial: str | None = None
    pin_file: Path | None = None
    pin_credential: Credential | None = None
    lanes: Annotated[int, Field(ge=1, le=64)] = 1
    verify: bool = True
    pin_tries: Annotated[int, Field(ge=1, le=15)] = 3
    personal: bool = False
    reader: str | None = None
    presence: Presence | None = None
    start_timeout_s: Annotated[float, Field(gt=0, le=300)] = 30.0
    sign_timeout_s: Annotated[float, Field(gt=0, le=300)] = 20.0
    environment: dict[str, str] = Field(default_factory=dict)

    @field_validator("module")
    @classmethod
    def _module(cls, path: Path) -> Path:
        try:
            Library.find(path)
        except LibraryRefused as refused:
            raise ValueError(str(refused)) from None
        return path

    @field_validator("environment")
    @classmethod
    def _environment(cls, environment: dict[str, str]) -> dict[str, str]:
        try:
            check_environment(environment)
        except LibraryRefused as refused:
            raise ValueError(str(refused)) from None
        return environment

    @property
    def pinned(self) -> bytes | None:
        """The SHA-256 of the module's file, None for whatever root has put there."""
        return None if self.module_sha256 is None else bytes.fromhex(self.module_sha256)

    @model_validator(mode="after")
    def _as_pinned(self) -> Self:
        try:
            Library.find(self.module, self.pinned)
        except LibraryRefused as refused:
            raise ValueError(f"module_sha256: {refused}") from None
        return self

    @model_validator(mode="after")
    def _one_pin(self) -> Self:
        if self.pin_file is not None and self.pin_credential is not None:
            raise ValueError("give pin_file or pin_credential, not both")
        if self.personal and (self.pin_file or self.pin_credential or self.lanes != 1):
            raise ValueError("a personal token has no PIN here, and one lane: its person gives the PIN each time")
        if self.personal and self.kind == "smartcard" and self.reader is None:
            raise ValueError("a personal smartcard names its reader, so that the card is reset after each use")
        if self.presence is not None and not self.personal:
            raise ValueError("presence belongs to a personal token: it says what its person does at it")
        if self.reader is not None and self.lanes != 1:
            raise ValueError("a token with a reader is a card, which signs one thing at a time: lanes = 1")
        return self

    def check_pin(self) -> None:
        """Whether its PIN can be read: a daemon finds out when it logs in. Raises `ConfigError`."""
        pin = self._pin()
        try:
            if pin is not None:
                pin()
        except PinError as error:
            raise ConfigError(Path("token"), [f"{self.name}: {error}"]) from None

    def _pin(self) -> PinFile | None:
        if self.pin_credential is None:
            return None if self.pin_file is None else PinFile(self.pin_file)
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if directory is None:
            said = "needs systemd's LoadCredential=, and $CREDENTIALS_DIRECTORY is not set"
            raise NoCredentials(Path(self.name), [f"token {self.name}: pin_credential {said}"])
        return PinFile(Path(directory) / self.pin_credential, group_may_read=True)

    def for_pool(self) -> TokenConfig:
        """For the daemon itself: commands beside it have no credentials directory. Raises `ConfigError`."""
        return TokenConfig(
            name=self.name,
            module=self.module,
            module_sha256=self.pinned,
            label=self.label,
            serial=self.serial,
            pin=self._pin(),
            kind=self.kind,
            lanes=self.lanes,
            verify=self.verify,
            pin_tries=self.pin_tries,
            personal=self.personal,
            reader=self.reader,
            presence=self.presence,
            start_timeout_s=self.start_timeout_s,
            sign_timeout_s=self.sign_timeout_s,
            environment=self.environment,
        )


class Caller(_Section):
    """Who may call: `uri` for callers with a certificate, none for one that a socket stands for."""

    name: Name
    uri: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9+.-]*:[!-~]+$", max_length=1024)] | None = None
    role: Role
    rpcs: frozenset[str]
    credentials: frozenset[Name] = frozenset()
    subject: Name | None = None

    @model_validator(mode="after")
    def _one_subject(self) -> Self:
        if (self.role == "self") != (self.subject is not None):
            raise ValueError("the role self, and no other, has a subject: the person whose certificate it is")
        return self

    @model_validator(mode="after")
    def _known_rpcs(self) -> Self:
        unknown = sorted(self.rpcs - ROLES[self.role])
        if unknown:
            raise ValueError(
                f"the role {self.role} has no {', '.join(unknown)}; it has {', '.join(sorted(ROLES[self.role]))}"
            )
        return self


class Group(_Section):
    """Seals behind one name: a request that names it is signed by the member that will have done it soonest (group.py)."""

    name: Name
    members: Annotated[tuple[Name, ...], Field(min_length=1, max_length=64)]

    @field_validator("members")
    @classmethod
    def _each_once(cls, members: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(members)) < len(members):
            raise ValueError("each member is named once")
        return members


class Mail(_Section):
    """The mail server that messages to people go through; `login_*` has the user on one line and the password on the next."""

    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    tls: Literal["starttls", "implicit", "none"] = "starttls"
    sender: str
    login_file: Path | None = None
    login_credential: Credential | None = None

    @property
    def has_login(self) -> bool:
        return self.login_file is not None or self.login_credential is not None

    def login(self) -> bytes:
        """Raises `ConfigError`."""
        return _secret("people.mail", "login", self.login_file, self.login_credential, LOGIN_BYTES_MAX, "two lines")


class People(_Section):
    """
    What people need who sign with codes: the key of their seeds, and how messages reach them.

    `name` is what their apps call the service; `tell` is whom a person tells that something is wrong: a name, a place, a
    telephone number. `enrol_at` is the page where they type their enrolment code; without one they are told the command.
    """

    tell: str
    enrol_at: Annotated[str, StringConstraints(pattern=r"^https://[!-~]{1,120}$")] | None = None
    mail: Mail | None = None

    seed_key_file: Path | None = None
    seed_key_credential: Credential | None = None
    name: Annotated[str, StringConstraints(pattern=r"^[^:\x00-\x1f]{1,40}$")] = "Paraph"
    wait_h: Annotated[int, Field(ge=0, le=720)] = 24

    @field_validator("tell")
    @classmethod
    def _tell(cls, text: str) -> str:
        return check_tell(text)

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if (self.seed_key_file is None) == (self.seed_key_credential is None):
            raise ValueError("give either seed_key_file or seed_key_credential; `paraph otp key FILE` makes one")
        return self

    def seed_key(self) -> bytes:
        """The key (AES-256-GCM) of seeds: 32 bytes. Raises as `Ledger.checkpoint_pem` does."""
        return _key_of_32_bytes(
            "people", "seed_key", self.seed_key_file, self.seed_key_credential, "`paraph otp key FILE`"
        )


class Crl(_Section):
    """Where the CRL of one CA is, and when it is too old: None is its nextUpdate, which always holds."""

    issuer: Path
    file: Path | None = None
    url: str | None = None
    max_age_h: Annotated[float, Field(gt=0, le=_YEAR_H)] | None = None

    @field_validator("issuer", "file")
    @classmethod
    def _file(cls, path: Path | None) -> Path | None:
        return None if path is None else _absolute(path)

    @field_validator("url")
    @classmethod
    def _url(cls, url: str | None) -> str | None:
        if url is not None:
            check_fetched(url)
        return url

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.file is None) == (self.url is None):
            raise ValueError("give one of file and url, where the CRL is")
        return self


class Trust(_Section):
    """
    `roots`: PEM files of the anchors that VerifyDocument trusts. `crl`: of CAs whose certificates are signed with only
    while they are not revoked.
    """

    roots: tuple[Path, ...] = ()
    denied_certificates: Path | None = None
    crl: tuple[Crl, ...] = ()


class LedgerAnchor(_Section):
    """A place that takes checkpoints: one of the three."""

    file: Path | None = None
    syslog: str | None = None
    webhook: str | None = None

    @field_validator("file")
    @classmethod
    def _file(cls, path: Path | None) -> Path | None:
        return None if path is None else _absolute(path)

    @field_validator("syslog")
    @classmethod
    def _syslog(cls, address: str | None) -> str | None:
        return None if address is None else _syslog_address(address)

    @field_validator("webhook")
    @classmethod
    def _webhook(cls, url: str | None) -> str | None:
        return None if url is None else check_url(url)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(place is not None for place in (self.file, self.syslog, self.webhook)) != 1:
            raise ValueError(
                "give one of file, syslog and webhook; each further place is an [[ledger.anchor]] of its own"
            )
        return self


class Ledger(_Section):
    """
    Keys of the ledger, and where its checkpoints go. `database`: None is SQLite in the state directory.

    The key of checkpoints is in a file, in a credential of systemd, or on a token. `checkpoint_pem` and `data_key` are
    for the daemon, and for the check: they read the files, which are its user's.
    """

    checkpoint_key: Path | None = None
    checkpoint_key_credential: Credential | None = None
    checkpoint_token: Name | None = None
    checkpoint_key_label: Annotated[str, StringConstraints(min_length=1)] | None = None
    checkpoint_key_id: KeyId | None = None
    checkpoint_public_key: Path | None = None
    data_key_file: Path | None = None
    data_key_credential: Credential | None = None
    database: str | None = None
    anchor: tuple[LedgerAnchor, ...] = Field(min_length=1)

    @field_validator("checkpoint_key", "checkpoint_public_key", "data_key_file")
    @classmethod
    def _key_file(cls, path: Path | None) -> Path | None:
        return None if path is None else _absolute(path)

    @field_validator("database")
    @classmethod
    def _database(cls, url: str | None) -> str | None:
        return None if url is None else _postgresql_url(url)

    @model_validator(mode="after")
    def _one_of_each_key(self) -> Self:
        mistakes = []
        for names in (
            ("checkpoint_key", "checkpoint_key_credential", "checkpoint_token"),
            ("data_key_file", "data_key_credential"),
        ):
            given = sum(getattr(self, name) is not None for name in names)
            if given > 1:
                mistakes.append(f"give {_either(names)}, and only one of them")
            elif not given:
                mistakes.append(f"give {_either(names)}; {_MAKE_KEYS}")
        if self.checkpoint_token is None:
            belonging = ("checkpoint_key_label", "checkpoint_key_id", "checkpoint_public_key")
            stray = [name for name in belonging if getattr(self, name) is not None]
            mistakes += [f"{name} belongs to checkpoint_token" for name in stray]
        else:
            if self.checkpoint_key_label is None and self.checkpoint_key_id is None:
                mistakes.append("checkpoint_token needs checkpoint_key_label or checkpoint_key_id: which of its keys")
            if self.checkpoint_public_key is None:
                mistakes.append("checkpoint_token needs checkpoint_public_key: another key is not taken for it then")
        if mistakes:
            raise ValueError("; ".join(mistakes))
        places = [(each.file, each.syslog, each.webhook) for each in self.anchor]
        for index, place in enumerate(places):
            if place in places[:index]:  # a webhook's URL may be a secret, so none is repeated here
                raise ValueError(f"anchor {index + 1}: is the same place as anchor {places.index(place) + 1}")
        return self

    @property
    def checkpoint_cka_id(self) -> bytes | None:
        return None if self.checkpoint_key_id is None else bytes.fromhex(self.checkpoint_key_id)

    def checkpoint_pem(self) -> bytes:
        """The file with the checkpoint key. Raises `ConfigError`, or `NoCredentials` where systemd gives none."""
        return _secret(
            "ledger", "checkpoint_key", self.checkpoint_key, self.checkpoint_key_credential, PEM_BYTES_MAX, _MAKE_KEYS
        )

    def data_key(self) -> bytes:
        """The key (AES-256-GCM) of results that are kept: 32 bytes. Raises as `checkpoint_pem` does."""
        return _key_of_32_bytes("ledger", "data_key", self.data_key_file, self.data_key_credential, _MAKE_KEYS)


class Config(_Section):
    server: Server
    listener: tuple[Listener, ...] = Field(min_length=1)
    token: tuple[Token, ...] = Field(min_length=1)
    caller: tuple[Caller, ...] = ()
    group: tuple[Group, ...] = ()
    trust: Trust = Trust()
    people: People | None = None
    ledger: Ledger
    sha256: bytes = b""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for what, names in (
            ("token", [token.name for token in self.token]),
            # Two lanes at one card would reset it under each other's login.
            ("token reader", [token.reader for token in self.token if token.reader is not None]),
            ("caller", [caller.name for caller in self.caller]),
            ("group", [group.name for group in self.group]),
            ("caller uri", [caller.uri for caller in self.caller if caller.uri is not None]),
            ("listener socket", [str(listener.socket) for listener in self.listener if listener.socket is not None]),
            ("listener address", [a for listener in self.listener if (a := listener.address) and a[-2:] != ":0"]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{what} {', '.join(twice)} is given twice")
        for address in [listener.address for listener in self.listener]:
            if address is not None and _meet(address, self.server.metrics):
                raise ValueError(f"server.metrics: is the port of the listener {address}; give it another")
        for each in self.token:
            if any(other.module == each.module and other.pinned != each.pinned for other in self.token):
                raise ValueError(f"module {each.module} has one module_sha256, the same in each token that names it")
        callers = {caller.name for caller in self.caller}
        for index, listener in enumerate(self.listener):
            if listener.caller is not None and listener.caller not in callers:
                raise ValueError(f"listener {index + 1}: caller: there is no caller {listener.caller!r}")
        reached = {listener.caller for listener in self.listener}
        for caller in self.caller:
            if caller.uri is None and caller.name not in reached:
                raise ValueError(f'caller "{caller.name}": has no uri and no socket, so that nobody can be it')
        token = next((token for token in self.token if token.name == self.ledger.checkpoint_token), None)
        if token is None and self.ledger.checkpoint_token is not None:
            raise ValueError(f"ledger.checkpoint_token: there is no token {self.ledger.checkpoint_token!r}")
        if token is not None and token.personal:
            raise ValueError(
                f"ledger.checkpoint_token: {token.name} is a person's, and checkpoints wait for nobody's PIN"
            )
        for index, anchor in enumerate(self.ledger.anchor):
            if anchor.file is not None and _lies_in(anchor.file, self.server.state):
                raise ValueError(
                    f"ledger.anchor {index + 1}: file: lies inside server.state: who can change the ledger could change "
                    "it, too; give a file on another mount"
                )
        return self


def load(path: Path) -> Config:
    """The configuration in a file; raises `ConfigError` with everything that is wrong with it."""
    content, tables = _read(path)
    if "sha256" in tables:
        raise ConfigError(path, ["sha256: unknown key"])
    try:
        return Config.model_validate({**tables, "sha256": hashlib.sha256(content).digest()})
    except ValidationError as error:
        raise ConfigError(
            path, [_mistake(dict(detail), tables) for detail in error.errors() if not _follows(detail, error)]
        ) from None


def good_sections(path: Path) -> Config:
    """
    Of a file with mistakes what has none of its own, for the check to look into the files that it names; nothing holds
    between these sections, and what is missing or has mistakes is not there (`model_fields_set`). Raises `ConfigError`.
    """
    _, tables = _read(path)
    found: dict[str, Any] = {}
    for name in Config.model_fields.keys() & tables.keys():
        if isinstance(tables[name], list) and name in _SEVERAL:
            good = [_good(_SEVERAL[name], table) for table in tables[name]]
            found[name] = tuple(section for section in good if section is not None)
        elif name in _ONCE and (section := _good(_ONCE[name], tables[name])) is not None:
            found[name] = section
    return Config.model_construct(**{"listener": (), "token": ()} | found)


_ONCE: dict[str, type[_Section]] = {"server": Server, "trust": Trust, "people": People, "ledger": Ledger}
_SEVERAL: dict[str, type[_Section]] = {"listener": Listener, "token": Token, "caller": Caller, "group": Group}


def _good(kind: type[_Section], table: object) -> _Section | None:
    try:
        return kind.model_validate(table)
    except ValidationError:
        return None


def _read(path: Path) -> tuple[bytes, dict[str, Any]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(path, [str(error.strerror)]) from None
    try:
        return content, tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(path, [f"not TOML: {error}"]) from None


def _follows(detail: Any, error: ValidationError) -> bool:
    """Whether a list is too short only because what is in it has mistakes of its own."""
    place = detail["loc"]
    return detail["type"] == "too_short" and any(other["loc"][:-1][: len(place)] == place for other in error.errors())


# What a value is to be, in our words, by pydantic's name of the mistake; another has its own message.
_WORDS: dict[str, str] = {
    "missing": "is missing",
    "extra_forbidden": "unknown key",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    "finite_number": "a number that is finite",
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "a text in quotes",
    "path_type": "the path of a file, in quotes",
    **dict.fromkeys(("tuple_type", "frozen_set_type"), "a list in brackets"),
    "dict_type": "a table of its own in brackets",
    **dict.fromkeys(("literal_error", "enum"), "one of {expected}"),
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "more than {gt:g}",
    "less_than_equal": "at most {le:g}",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "too_short": "at least {min_length}",
    "too_long": "at most {max_length}",
    "string_pattern_mismatch": "does not have the form {pattern}",
}
_PATTERNS = {
    f"^{NAME}$": "begins with a small letter or a digit, and has only those, '.', '_' and '-': at most 63",
    "^[0-9a-fA-F]{64}$": "a SHA-256: 64 hexadecimal digits",
}
_SEVERAL_SECTIONS = {("listener",), ("token",), ("caller",), ("group",), ("trust", "crl"), ("ledger", "anchor")}


def _mistake(detail: dict[str, Any], tables: dict[str, Any]) -> str:
    """'token "card": lanes: ...' of pydantic's location and message; a section without a name is counted, from 1."""
    place, kind, context = detail["loc"], detail["type"], detail.get("ctx", {})
    said = str(detail["msg"]).removeprefix("Value error, ")
    if kind in _WORDS:
        said = _PATTERNS.get(context.get("pattern", ""), _WORDS[kind]).format(**context)
    if kind in {"missing", "too_short"}:
        said = _ADVICE.get(place, said)
    written = ".".join(str(part) for part in place)
    if kind == "tuple_type" and place in _SEVERAL_SECTIONS:
        said = f"write [[{written}]], in two pairs of brackets"
    elif kind in {"model_type", "model_attributes_type"}:
        said = f"write [{written}], in one pair of brackets"
    return f"{_place(place, tables) or 'file'}: {said}"


def _place(place: tuple[int | str, ...], tables: Any) -> str:
    said, mark = "", ""  # what comes before the next key
    for part in place:
        try:
            tables = tables[part]
        except (KeyError, IndexError, TypeError):
            tables = None
        if isinstance(part, str):
            said, mark = f"{said}{mark}{part}", "."
        else:
            name = tables.get("name") if isinstance(tables, dict) else None
            is_named = isinstance(name, str) and name.isprintable()
            said, mark = f'{said} "{name}"' if is_named else f"{said} {part + 1}", ": "
    return said


def _either(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("the path must be absolute")
    return path


def _host_and_port(address: str) -> str:
    host, _, port = address.rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
        valid = 0 <= int(port) <= 65535
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("an address is an IP address and a port, as 127.0.0.1:7443 or [::1]:7443")
    return address


def _syslog_address(address: str) -> str:
    """A Unix socket's path, or HOST:PORT for UDP, the host as a name or an address."""
    if address.startswith("/"):
        valid = "\0" not in address and len(os.fsencode(address)) <= _SOCKET_BYTES_MAX
    else:
        host, _, port = address.rpartition(":")
        valid = re.fullmatch(r"[0-9A-Za-z.-]{1,253}|\[[0-9a-fA-F:.]+\]", host) is not None
        valid = valid and re.fullmatch("[0-9]{1,5}", port) is not None and 1 <= int(port) <= 65535
    if not valid:
        raise ValueError(
            "syslog is a Unix socket as /dev/log, or a host and UDP port as 192.0.2.1:514 or [2001:db8::1]:514"
        )
    return address


def _postgresql_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        raise ValueError("the database is no URL; write it as postgresql://user@host/name") from None
    if re.fullmatch("[!-~]+", url) is None or parts.scheme != "postgresql" or not parts.path.strip("/"):
        raise ValueError(
            "a database is a URL as postgresql://user@host/name; without the key it is SQLite in the state"
        )
    if password is not None or "password=" in parts.query:
        raise ValueError("no secret stands in this file: put the password into the daemon user's ~/.pgpass (mode 0600)")
    return url


def _meet(address: str, other: str | None) -> bool:
    """Whether two servers would want the same port: of one host, or one of them of all."""
    (host, _, port), (more, _, same) = address.rpartition(":"), (other or "").rpartition(":")
    return port == same != "0" and (host == more or bool({host, more} & {"0.0.0.0", "[::]"}))  # noqa: S104 -- compared


def _lies_in(path: Path, directory: Path) -> bool:
    """Links and '..' followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory))


def _named(key: str, path: Path | None, credential: str | None) -> str:
    return f"{key}: the file {path}" if path is not None else f"{key}: the credential {credential}"


def _key_of_32_bytes(section: str, key: str, path: Path | None, credential: str | None, advice: str) -> bytes:
    found = _secret(section, key, path, credential, DATA_KEY_BYTES, advice)
    if len(found) != DATA_KEY_BYTES:
        named = _named(key, path, credential)
        said = f"{named} does not have {DATA_KEY_BYTES} bytes, random and nothing else; {advice}"
        raise ConfigError(Path(section), [said])
    return found


def _secret(section: str, key: str, path: Path | None, credential: str | None, bytes_max: int, advice: str) -> bytes:
    """The content of a secret file, or of the credential that systemd made one of: at most one byte over the limit."""
    named = _named(key, path, credential)
    is_credential = path is None
    if path is None:
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if directory is None:
            said = "needs systemd's LoadCredential=, and $CREDENTIALS_DIRECTORY is not set"
            raise NoCredentials(Path(section), [f"{named} {said}"])
        path = Path(directory) / str(credential)
    try:
        return read_secret(path, bytes_max, group_may_read=is_credential)
    except OSError as error:
        said = f"; {advice}" if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(Path(section), [f"{named}: {error.strerror}{said}"]) from None
    except SecretFileError as error:
        raise ConfigError(Path(section), [f"{named} {error}"]) from None
