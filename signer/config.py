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

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from pool import PinFile, TokenConfig

NAME = r"[a-z0-9][a-z0-9._-]{0,62}"
Name = Annotated[str, StringConstraints(pattern=f"^{NAME}$")]
Role = Literal["submit", "operator"]

# What a role may be allowed at all; the caller's own list says which of these it has.
ROLES: dict[str, frozenset[str]] = {
    "submit": frozenset(
        {"ListCredentials", "GetCredential", "SignDigests", "StreamDigests", "SignDocuments", "VerifyDocument"}
    ),
    "operator": frozenset(
        {
            "GetServerInfo",
            "ReloadConfig",
            "ListTokens",
            "WatchTokens",
            "UnlockToken",
            "DrainToken",
            "ResumeToken",
        }
    ),
}


class ConfigError(Exception):
    """The file cannot be used; `mistakes` has one line each, with the path of what is wrong."""

    def __init__(self, path: Path, mistakes: list[str]) -> None:
        self.path = path
        self.mistakes = mistakes
        super().__init__(f"{path}: " + "; ".join(mistakes))


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
    label: Annotated[str, StringConstraints(min_length=1, max_length=32)]
    serial: str | None = None
    pin_file: Path | None = None
    pin_credential: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$")] | None = None
    lanes: Annotated[int, Field(ge=1, le=64)] = 1
    verify: bool = True
    pin_tries: Annotated[int, Field(ge=1, le=15)] = 3
    start_timeout_s: Annotated[float, Field(gt=0, le=300)] = 30.0
    sign_timeout_s: Annotated[float, Field(gt=0, le=300)] = 20.0
    environment: dict[str, str] = Field(default_factory=dict)

    @field_validator("module")
    @classmethod
    def _module(cls, path: Path) -> Path:
        _absolute(path)
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        return path

    @model_validator(mode="after")
    def _one_pin(self) -> Self:
        if self.pin_file is not None and self.pin_credential is not None:
            raise ValueError("give pin_file or pin_credential, not both")
        return self

    def for_pool(self) -> TokenConfig:
        """For the daemon itself: commands beside it have no credentials directory. Raises `ConfigError`."""
        pin = PinFile(self.pin_file) if self.pin_file is not None else None
        if self.pin_credential is not None:
            directory = os.environ.get("CREDENTIALS_DIRECTORY")
            if directory is None:
                said = "needs systemd's LoadCredential=, and $CREDENTIALS_DIRECTORY is not set"
                raise ConfigError(Path(self.name), [f"token {self.name}: pin_credential {said}"])
            pin = PinFile(Path(directory) / self.pin_credential, group_may_read=True)
        return TokenConfig(
            name=self.name,
            module=self.module,
            label=self.label,
            serial=self.serial,
            pin=pin,
            kind=self.kind,
            lanes=self.lanes,
            verify=self.verify,
            pin_tries=self.pin_tries,
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

    @model_validator(mode="after")
    def _known_rpcs(self) -> Self:
        unknown = sorted(self.rpcs - ROLES[self.role])
        if unknown:
            raise ValueError(
                f"the role {self.role} has no {', '.join(unknown)}; it has {', '.join(sorted(ROLES[self.role]))}"
            )
        return self


class Trust(_Section):
    """`roots`: PEM files of the anchors that VerifyDocument trusts."""

    roots: tuple[Path, ...] = ()
    denied_certificates: Path | None = None


class Config(_Section):
    server: Server
    listener: tuple[Listener, ...] = Field(min_length=1)
    token: tuple[Token, ...] = Field(min_length=1)
    caller: tuple[Caller, ...] = ()
    trust: Trust = Trust()
    sha256: bytes = b""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for what, names in (
            ("token", [token.name for token in self.token]),
            ("caller", [caller.name for caller in self.caller]),
            ("caller uri", [caller.uri for caller in self.caller if caller.uri is not None]),
            ("listener socket", [str(listener.socket) for listener in self.listener if listener.socket is not None]),
            ("listener address", [a for listener in self.listener if (a := listener.address) and a[-2:] != ":0"]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{what} {', '.join(twice)} is given twice")
        callers = {caller.name for caller in self.caller}
        for index, listener in enumerate(self.listener):
            if listener.caller is not None and listener.caller not in callers:
                raise ValueError(f"listener[{index}].caller: there is no caller {listener.caller!r}")
        reached = {listener.caller for listener in self.listener}
        for index, caller in enumerate(self.caller):
            if caller.uri is None and caller.name not in reached:
                raise ValueError(f"caller[{index}]: has no uri and no socket, so that nobody can be it")
        return self


def load(path: Path) -> Config:
    """The configuration in a file; raises `ConfigError` with everything that is wrong with it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(path, [str(error.strerror)]) from None
    try:
        tables = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(path, [f"not TOML: {error}"]) from None
    if "sha256" in tables:
        raise ConfigError(path, ["sha256: unknown key"])
    try:
        return Config.model_validate({**tables, "sha256": hashlib.sha256(content).digest()})
    except ValidationError as error:
        raise ConfigError(
            path, [_mistake(dict(detail)) for detail in error.errors() if not _follows(detail, error)]
        ) from None


def _follows(detail: Any, error: ValidationError) -> bool:
    """Whether a list is too short only because what is in it has mistakes of its own."""
    place = detail["loc"]
    return detail["type"] == "too_short" and any(other["loc"][:-1][: len(place)] == place for other in error.errors())


def _mistake(detail: dict[str, object]) -> str:
    """'token[0].lanes: ...' of pydantic's location and message."""
    location = ""
    for part in detail["loc"] if isinstance(detail["loc"], tuple) else ():
        location += f"[{part}]" if isinstance(part, int) else f".{part}"
    said = "unknown key" if detail["type"] == "extra_forbidden" else str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "missing":
        said = "is missing"
    return f"{location.lstrip('.') or 'file'}: {said}"


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
