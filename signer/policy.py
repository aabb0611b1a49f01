"""
Who may call what with which credential: an allow-list that denies by default.

A policy is one immutable value. A reload makes a new one and puts it in place of the old in one step; a file with a
mistake makes none, and takes nothing from the old one but further certificates that are denied.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from signer.config import Caller, Config, ConfigError
from signer.errors import Refusal


@dataclass(frozen=True, slots=True)
class Policy:
    by_name: Mapping[str, Caller]
    by_uri: Mapping[str, Caller]
    denied: frozenset[bytes]  # SHA-256 of client certificates
    roots: tuple[bytes, ...]  # DER
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of credentials: name -> its members' names

    @classmethod
    def of(cls, config: Config) -> "Policy":
        """Read what the configuration names; raises `ConfigError`."""
        mistakes: list[str] = []
        roots = tuple(der for path in config.trust.roots for der in _certificates(path, mistakes))
        denied = read_denied(config.trust.denied_certificates, mistakes)
        if mistakes:
            raise ConfigError(Path("trust"), mistakes)
        return cls(
            by_name={caller.name: caller for caller in config.caller},
            by_uri={caller.uri: caller for caller in config.caller if caller.uri is not None},
            denied=denied,
            roots=roots,
            groups={group.name: group.members for group in config.group},
        )

    def check_rpc(self, caller: Caller, rpc: str) -> None:
        if rpc not in caller.rpcs:
            raise Refusal("RPC_NOT_ALLOWED", rpc)

    def check_credential(self, caller: Caller, credential: str) -> None:
        """The same answer as for a credential that does not exist."""
        if credential not in caller.credentials:
            raise Refusal("CREDENTIAL_UNKNOWN")


def _certificates(path: Path, mistakes: list[str]) -> list[bytes]:
    try:
        return [c.public_bytes(Encoding.DER) for c in x509.load_pem_x509_certificates(path.read_bytes())]
    except OSError as error:
        mistakes.append(f"trust.roots: {path}: {error.strerror}")
    except ValueError:  # whose text is an address of cryptography's
        mistakes.append(f"trust.roots: {path}: holds no certificate in PEM that can be read")
    return []


def read_denied(path: Path | None, mistakes: list[str]) -> frozenset[bytes]:
    """
    One SHA-256 of a certificate a line, in hexadecimal with or without colons; '#' begins a comment. Lines that are none
    are added to the mistakes, and the others are answered.
    """
    if path is None:
        return frozenset()
    denied = set()
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "is no text"
        mistakes.append(f"trust.denied_certificates: {path}: {said}")
        return frozenset()
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].replace(":", "").strip()
        if not text:
            continue
        try:
            digest = bytes.fromhex(text)
        except ValueError:
            digest = b""
        if len(digest) != 32:
            mistakes.append(f"trust.denied_certificates: {path}:{number}: not a SHA-256 in hexadecimal")
            continue
        denied.add(digest)
    return frozenset(denied)
