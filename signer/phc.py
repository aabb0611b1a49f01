"""
What is stored of a person's secret code: a PHC string of argon2id (RFC 9106), in the form of its reference program.

    $argon2id$v=19$m=19456,t=2,p=1$SALT$HASH        m in KiB; SALT and HASH in base64 without '='

Strings of an older or a stronger setting are verified as well, within limits: what stands in a database must not make a
process work for minutes.
"""

import base64
import re
from dataclasses import dataclass
from types import MappingProxyType

MEMORY_KIB_MAX = 64 * 1024  # RFC 9106, 4: its setting for little memory (t = 3, p = 4), the most that is verified
# Of what is verified. The least are those of RFC 9106, 3.1, and its program's; of hashes, what cannot be guessed.
LIMITS = MappingProxyType(
    {
        "memory_kib": range(8, MEMORY_KIB_MAX + 1),
        "passes": range(1, 10 + 1),  # with all the memory 0.6 s
        "lanes": range(1, 4 + 1),
        "salt_bytes": range(8, 64 + 1),
        "hash_bytes": range(16, 64 + 1),
    }
)
_NUMBER = "([1-9][0-9]{0,6})"
_BASE64 = "([A-Za-z0-9+/]{1,128})"
_FORM = re.compile(rf"\$argon2id\$v=19\$m={_NUMBER},t={_NUMBER},p={_NUMBER}\${_BASE64}\${_BASE64}")


class PhcError(ValueError):
    """What is stored is no hash that is verified; the message says why and what to do, and shows nothing of it."""


@dataclass(frozen=True, slots=True)
class Setting:
    memory_kib: int
    passes: int
    lanes: int
    salt_bytes: int
    hash_bytes: int


# What OWASP's Password Storage Cheat Sheet names first: 19 MiB, two passes, one lane. The salt is as RFC 9106 has it.
OURS = Setting(memory_kib=19 * 1024, passes=2, lanes=1, salt_bytes=16, hash_bytes=32)


def setting_of(phc: str) -> Setting:
    """How it was made; raises `PhcError`."""
    found = _FORM.fullmatch(phc)
    if found is None:
        raise PhcError("the stored hash is no PHC string of argon2id, version 19; enrol the person again")
    memory_kib, passes, lanes = map(int, found.groups()[:3])
    salt, hash_ = (_length(text) for text in found.groups()[3:])
    setting = Setting(memory_kib, passes, lanes, salt, hash_)
    for name, limits in LIMITS.items():
        if getattr(setting, name) not in limits:
            said = f"{name} = {getattr(setting, name)}, which is not from {limits[0]} to {limits[-1]}"
            raise PhcError(f"the stored hash was made with {said}; enrol the person again")
    if memory_kib < 8 * lanes:
        raise PhcError("the stored hash was made with less than 8 KiB a lane; enrol the person again")
    return setting


def written(setting: Setting, salt: bytes, hash_: bytes) -> str:
    return (
        f"$argon2id$v=19$m={setting.memory_kib},t={setting.passes},p={setting.lanes}${_base64(salt)}${_base64(hash_)}"
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def _length(text: str) -> int:
    """Of what is encoded; raises `PhcError` for what no encoder writes."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        data = b""
    if _base64(data) != text:
        raise PhcError("the stored hash is not in base64; enrol the person again")
    return len(data)
