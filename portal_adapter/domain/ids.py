"""
Ids: UUIDs for what is ours, a short identifier for a space that people type, secrets for links and cookies.

A space's identifier has 10 characters of Crockford's base 32 (50 bits of chance) and a check character over his whole
alphabet of 37 (crockford.com/base32.html): one mistyped or two exchanged characters are found. I, L and O are read as
1, 1 and 0; hyphens are for the eye.
"""

import hashlib
import secrets
import uuid

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CHECKS = _ALPHABET + "*~$=U"
SECRET_BYTES = 32


def new_id() -> str:
    return uuid.uuid4().hex


def is_id(text: str) -> bool:
    return len(text) == 32 and all(c in "0123456789abcdef" for c in text)


def new_secret() -> str:
    """For a link or cookie; what is stored is its `hashed`."""
    return secrets.token_urlsafe(SECRET_BYTES)


def hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def new_identifier() -> str:
    """11 characters, as they are stored."""
    number = secrets.randbits(50)
    digits = "".join(_ALPHABET[(number >> shift) & 31] for shift in range(45, -1, -5))
    return digits + _CHECKS[number % 37]


def new_reference() -> str:
    """A procedure's, as people see and type it: P-12345-67890."""
    number = secrets.randbits(50)
    digits = "".join(_ALPHABET[(number >> shift) & 31] for shift in range(45, -1, -5))
    return f"P-{digits[:5]}-{digits[5:]}"


def read_identifier(text: str) -> str | None:
    """As it is stored; None for what is no identifier, a wrong check character included."""
    text = text.strip().upper().replace("-", "").replace(" ", "")
    body = text[:-1].translate(str.maketrans("ILO", "110"))
    if len(text) != 11 or any(c not in _ALPHABET for c in body):
        return None
    number = 0
    for c in body:
        number = number * 32 + _ALPHABET.index(c)
    check = text[-1].translate(str.maketrans("ILO", "110"))
    return body + check if check == _CHECKS[number % 37] else None


def shown(identifier: str) -> str:
    """For the eye: 12345-67890-C."""
    return f"{identifier[:5]}-{identifier[5:10]}-{identifier[10:]}"
