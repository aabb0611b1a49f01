"""
One-time codes: those of a device (TOTP, HOTP) and those that are sent; and how a device's seed is kept. Pure.

pyotp computes (RFC 4226, RFC 6238: SHA-1, 30 s, 6 digits); which code counts, and when, is said here:

    TOTP    the present step, or the one before while that ended less than 5 s ago; no step twice, and none before
    HOTP    the counter, or the next one where a code was made and not used; no counter twice
    sent    the one code, for what it was sent for

A seed lets its holder make every code, so it is encrypted under a key that is not in the database. A sent code is
stored as its HMAC under another such key: of a million codes each can be tried, and a plain hash would tell it.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pyotp import HOTP, TOTP

SEED_BYTES = 20  # as long as SHA-1's result (RFC 4226, 4, R6)
DIGITS = 6
STEP_S = 30
GRACE_S = 5  # after a step's end: so long does a person type, and a call travel
LOOK_AHEAD = 1  # of the counter: a button pressed in vain; more would double what a guess may hit (RFC 4226, 7.4)
KEY_BYTES = 32
SHORT_BYTES = 5  # of a digest, 40 bits: to be compared by a person, not to be safe against who can choose documents

_CODE = re.compile(f"[0-9]{{{DIGITS}}}")
_EPOCH, _STEP, _GRACE = datetime(1970, 1, 1, tzinfo=UTC), timedelta(seconds=STEP_S), timedelta(seconds=GRACE_S)
_NONCE_BYTES = 12
_SENT = b"paraph-sent-code-v1"  # no other use of the key makes the same HMAC


class Kind(StrEnum):
    """What a seed is for."""

    TOTP = "TOTP"
    HOTP = "HOTP"


class SeedError(Exception):
    """A sealed seed does not open; the message names its place and what to do."""


# --- Codes of a device -----------------------------------------------------------------------------------------------


def new_seed() -> bytes:
    return secrets.token_bytes(SEED_BYTES)


def totp_step(seed: bytes, code: str, now: datetime, last_step: int) -> int | None:
    """
    The step (of 30 s, since 1970) whose code this is: to be stored as the next `last_step`, in the transaction that
    lets the person pass. None: it is none, or one that was used (RFC 6238, 5.2) or is older than that.

    now         aware of its time zone
    last_step   the last one that was accepted; 0 before the first
    """
    step, since = divmod(now - _EPOCH, _STEP)
    first = step - 1 if since < _GRACE else step
    return _counter_of(seed, code, range(max(first, last_step + 1), step + 1))


def hotp_counter(seed: bytes, code: str, counter: int) -> int | None:
    """The next `counter`, to be stored like a step, if this is the code of `counter` or of the one behind it."""
    found = _counter_of(seed, code, range(counter, counter + LOOK_AHEAD + 1))
    return None if found is None else found + 1


def uri(kind: Kind, seed: bytes, subject: str, issuer: str, counter: int = 0) -> str:
    """
    The `otpauth:` address that an authenticator reads from a QR code. It holds the seed. What is not said in it (SHA-1,
    6 digits, 30 s) is what all of them take for granted, and a shorter address makes a smaller picture.

    Raises `ValueError` for an issuer with a colon, which divides it from the subject.
    """
    if not subject or not issuer or ":" in issuer:
        raise ValueError("an authenticator shows a subject, and an issuer without a colon")
    match kind:
        case Kind.TOTP:
            return TOTP(_base32(seed)).provisioning_uri(name=subject, issuer_name=issuer)
        case Kind.HOTP:
            return HOTP(_base32(seed)).provisioning_uri(name=subject, issuer_name=issuer, initial_count=counter)


def _counter_of(seed: bytes, code: str, counters: range) -> int | None:
    """
    Which of these counters' codes it is. All are compared, so that the time does not tell; of two with the same code it
    is the last, or the same code would be good once more.
    """
    codes = HOTP(_base32(seed))
    if not _CODE.fullmatch(code):
        return None
    found = None
    for counter in counters:
        if hmac.compare_digest(codes.at(counter), code):
            found = counter
    return found


def _base32(seed: bytes) -> str:
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed has {SEED_BYTES} bytes")
    return base64.b32encode(seed).decode()


# --- Codes that are sent ---------------------------------------------------------------------------------------------


def new_code() -> str:
    return f"{secrets.randbelow(10**DIGITS):0{DIGITS}}"


def binding(purpose: str, subject: str, digest: bytes) -> bytes:
    """What a code is sent for: a purpose's word, whom, and the digest of all that it lets be done."""
    return _joined(purpose.encode(), subject.encode(), digest)


def fingerprint(key: bytes, code: str, binding: bytes) -> bytes:
    """32 bytes to be stored of a sent code: they fit it with this `binding` only, and tell nothing without the key."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"the key of sent codes has {KEY_BYTES} bytes")
    return hmac.digest(key, _joined(_SENT, code.encode(), binding), hashlib.sha256)


def matches(key: bytes, code: str, binding: bytes, stored: bytes) -> bool:
    """Whether `stored` is the fingerprint of this code with this `binding`. That it counts once is the caller's."""
    return _CODE.fullmatch(code) is not None and hmac.compare_digest(fingerprint(key, code, binding), stored)


def short_digest(digest: bytes) -> str:
    """The 8 characters by which a message names a batch: base32 (RFC 4648, 6) of its digest's first 5 bytes."""
    if len(digest) < SHORT_BYTES:
        raise ValueError(f"a digest has at least {SHORT_BYTES} bytes")
    return base64.b32encode(digest[:SHORT_BYTES]).decode()


def _joined(*parts: bytes) -> bytes:
    """Each part after its length: no two lists of parts make the same bytes."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


# --- Seeds at rest ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sealed:
    """A seed as it is stored."""

    subject: str
    kind: Kind
    seed_id: str
    data: bytes


class Seeds:
    """
    AES-256-GCM with a random nonce (NIST SP 800-38D, 8.2.2; 8.3: good for 2^32 seeds under a key). The associated data
    is whose seed it is, its kind and its id: nobody's row can be put in another's place.
    """

    __slots__ = ("_aes",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"the key of seeds has {KEY_BYTES} bytes")
        self._aes = AESGCM(key)

    def __reduce__(self) -> NoReturn:
        raise TypeError("the keeper of seeds is not pickled")

    def seal(self, subject: str, kind: Kind, seed_id: str, seed: bytes) -> bytes:
        """The seed as it may stand in the database: nonce, ciphertext and tag, 48 bytes."""
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a seed has {SEED_BYTES} bytes")
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._aes.encrypt(nonce, seed, _place(subject, kind, seed_id))

    def open(self, subject: str, kind: Kind, seed_id: str, data: bytes) -> bytes:
        """The seed; raises `SeedError` where it was sealed under another key or for another place, or was changed."""
        try:
            return self._aes.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _place(subject, kind, seed_id))
        except (InvalidTag, ValueError):
            raise SeedError(
                f"the {kind} seed {seed_id!r} of {subject!r} was not sealed with this key in this place; "
                "give the key that it was sealed with, or enrol the person again"
            ) from None


def rekey(old: Seeds, new: Seeds, rows: Iterable[Sealed]) -> Iterator[Sealed]:
    """
    The same seeds under another key, one row after the other. Raises `SeedError` at the first that does not open: write
    them in one transaction, or some open with one key and some with the other.
    """
    for row in rows:
        seed = old.open(row.subject, row.kind, row.seed_id, row.data)
        yield replace(row, data=new.seal(row.subject, row.kind, row.seed_id, seed))


def _place(subject: str, kind: Kind, seed_id: str) -> bytes:
    return _joined(subject.encode(), kind.encode(), seed_id.encode())
