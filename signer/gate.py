"""
What must be proved before a key is used, and whether what was allowed is what is asked: tables and pure rules.

    gate             what a person gives               when the key may be used
    caller           nothing: a seal                   whenever its caller asks
    token-pin        the token's own PIN               while the lease of the token lives
    code+totp        secret code, code of an app       for what was authorised, once
    code+hotp        secret code, code of a device     for what was authorised, once
    code+sent-otp    secret code, code from a message  for what was authorised, once

An authorisation is for one caller, credential, key, output, algorithm and one exact ordered list; each occurrence of a
digest counts (EN 419 241-1, SRA_SAP.2: what SAD is bound to; nothing here claims conformity with it).
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from signer.chain import items_hash
from signer.errors import Refusal


class Factor(StrEnum):
    PIN = "pin"
    CODE = "code"
    TOTP = "totp"
    HOTP = "hotp"
    SENT = "sent"


class Gate(StrEnum):
    CALLER = "caller"
    TOKEN_PIN = "token-pin"  # noqa: S105 -- a gate's name
    CODE_TOTP = "code+totp"
    CODE_HOTP = "code+hotp"
    CODE_SENT = "code+sent-otp"


FACTORS: Mapping[Gate, tuple[Factor, ...]] = {
    Gate.CALLER: (),
    Gate.TOKEN_PIN: (Factor.PIN,),
    Gate.CODE_TOTP: (Factor.CODE, Factor.TOTP),
    Gate.CODE_HOTP: (Factor.CODE, Factor.HOTP),
    Gate.CODE_SENT: (Factor.CODE, Factor.SENT),
}

LIFETIME_S = 120  # of an authorisation, where the credential says nothing else
LIFETIME_S_MAX = 300  # ... and whatever it says
SKEW_S = 5  # that daemons with one database may differ by: one redeems what another has just issued
LOGIN = "LOGIN"  # stands for the output of what is authorised to log in


@dataclass(frozen=True, slots=True)
class Terms:
    """
    What is to be allowed, or asked for. For each item `inputs` has the SHA-256 of its document, and `digests` the digest
    that a request for it names; empty where the other one says it.
    """

    caller: str  # who may redeem it
    credential: str
    key: str  # SHA-256 of its SPKI
    output: str
    algorithm: str
    inputs: tuple[bytes, ...]
    digests: tuple[bytes, ...]

    @property
    def count(self) -> int:
        return len(self.digests)

    def digest(self) -> bytes:
        """SHA-256 of all of it: what a message names in 8 characters, and what a code that is sent is bound to."""
        whole = hashlib.sha256(b"paraph-terms-v1")
        words = (self.caller, self.credential, self.key, self.output, self.algorithm)
        for part in (*(word.encode() for word in words), b"%d" % self.count, *self.inputs, *self.digests):
            whole.update(len(part).to_bytes(4, "big") + part)
        return whole.digest()


@dataclass(frozen=True, slots=True)
class Authorised:
    """
    What somebody has allowed, as it is stored: of lists their hashes (`chain.items_hash`), empty where no item has one.
    Times in seconds since the epoch.
    """

    subject: str
    caller: str
    credential: str
    key: str
    output: str
    algorithm: str
    count: int
    inputs: str
    digests: str
    document: bytes  # the SHA-256 of the document in the place that is asked for; empty where there is none
    issued: float
    expires: float
    request: bytes | None  # the request id that has redeemed it


@dataclass(frozen=True, slots=True)
class Redemption:
    """
    What asks to be let through: a request for all items, or one for a single document, whose `item` and SHA-256
    (`document`) count instead of digests.
    """

    request: bytes
    caller: str
    credential: str
    key: str
    output: str
    algorithm: str
    digests: Sequence[bytes]
    item: int = -1
    document: bytes = b""
    inputs: Sequence[bytes] = ()  # of all items; empty: the request does not say


Rule = tuple[str, Callable[[Authorised, Redemption, float], bool]]


def _has_count(row: Authorised, asked: Redemption, _now: float) -> bool:
    return len(asked.digests) == row.count if asked.item < 0 else asked.item < row.count


def _has_content(row: Authorised, asked: Redemption, _now: float) -> bool:
    if asked.item >= 0:
        return bool(asked.document) and row.document == asked.document
    is_same = bool(row.digests) and items_hash(asked.digests) == row.digests
    return is_same and (not asked.inputs or items_hash(asked.inputs) == row.inputs)


# The first that does not hold is the reason; later ones may count upon earlier ones.
RULES: tuple[Rule, ...] = (
    ("AUTHZ_CALLER", lambda row, asked, _: row.caller == asked.caller),
    ("AUTHZ_KEY", lambda row, asked, _: (row.credential, row.key) == (asked.credential, asked.key)),
    ("AUTHZ_OUTPUT", lambda row, asked, _: (row.output, row.algorithm) == (asked.output, asked.algorithm)),
    ("AUTHZ_COUNT", _has_count),
    ("AUTHZ_DIGEST", _has_content),
    ("AUTHZ_USED", lambda row, asked, _: row.request in {None, asked.request}),
    ("AUTHZ_EXPIRED", lambda row, _, now: row.issued - SKEW_S <= now < row.expires),
)


def check(row: Authorised, asked: Redemption, now: float) -> None:
    """Raise `Refusal` with the first rule that does not hold."""
    for reason, holds in RULES:
        if not holds(row, asked, now):
            raise Refusal(reason)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a credential's policy allows in one authorisation."""

    digests_max: int = 0  # 0: as many as a call
    lifetime_s: int = LIFETIME_S
    hours: str = ""  # 'HH-HH', UTC, the second one not included; empty: always
    claimed: bool = False  # also digests of documents that the daemon does not see

    def check(self, count: int, hour: int) -> None:
        """Raise `Refusal` unless so many items may be authorised in this hour of the day (UTC)."""
        if self.digests_max and count > self.digests_max:
            raise Refusal("AUTHZ_COUNT", f"{count} items, the credential allows {self.digests_max} at a time")
        if self.hours and hour not in set(_hours(self.hours)):
            raise Refusal("OUT_OF_HOURS", f"it is used from {self.hours.replace('-', ' to ')} h UTC")


def _hours(text: str) -> Iterator[int]:
    first, last = map(int, text.split("-"))
    while first != last:
        yield first
        first = (first + 1) % 24
