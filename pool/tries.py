"""
The durable count of PIN tries: what keeps this service from locking anybody's token. (And, beside it, whether a token
is quarantined: both outlive a restart, and both wait for a person.)

Tokens lie about their counters or have none (OpenSC #871, #2647; SoftHSM never locks), so the count is ours. A try is
written down *before* it is sent (`open`) and moved when its answer is seen: to nothing if the PIN was right, to
`refused` if it was wrong. A crash in between leaves it open, which counts as possibly spent.

The machine's rule: it tries by itself only while no answer was a refusal, at most one try is open, and the token is not
known to be near its end. After a refusal a person must `UnlockToken`, and that allows one try.

A right PIN gives a card its tries back. A TPM keeps its count: there what was refused before stays in ours (`kept`),
until an operator who has cleared the TPM's says so by an override.

The holder's rule, for the person whose token it is: while two tries are left. Beyond that only with an override, which
is written down here; and when all may be spent not at all, before an operator has unlocked the token.
"""

import hashlib
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

OPEN_MAX = 1  # one crash between a login and its answer is bad luck; two may be a restart loop
TRIES_MIN = 3  # a token with fewer is never tried by a machine
# What stands in the library's description (CK_INFO) of a module whose token keeps its count although a right PIN came. A
# TPM forgets wrong ones with time, or by its owner's hand (TPM 2.0 Library, part 1, "Dictionary Attack Protection").
_KEEPS_COUNT = ("TPM",)
_CLEAR = "no right PIN gives them back: clear the token's count (of a TPM: tpm2_dictionarylockout --clear-lockout)"


@dataclass(frozen=True, slots=True)
class TokenIdentity:
    """
    What a counter belongs to. `public_key` is empty where the serial says enough: with it, naming another of the
    token's keys in the configuration would look like a token that was never tried.
    """

    module: str
    label: str
    serial: str
    public_key: str

    @classmethod
    def of(cls, module: str, label: str, serial: str, publics: Sequence[tuple[bytes, str, bytes]]) -> "TokenIdentity":
        """A serial of zeros (TPM, NSS) is none: the first of *all* the token's public keys, by hash, stands in."""
        if serial.strip("0"):
            return cls(module, label, serial, "")
        return cls(module, label, serial, min((hashlib.sha256(spki).hexdigest() for _, _, spki in publics), default=""))

    def __str__(self) -> str:
        return f"{self.module}\x1f{self.label}\x1f{self.serial}\x1f{self.public_key}"


@dataclass(frozen=True, slots=True)
class Count:
    refused: int = 0
    open: int = 0
    granted: bool = False  # a person allowed one try and it was not used yet
    quarantined: bool = False  # it made a wrong signature, and no person has seen to it since
    kept: int = 0  # of a token that keeps its count: what it may have lost before the last right PIN

    @property
    def spent(self) -> int:
        """How many tries the token may have lost."""
        return self.refused + self.open + self.kept


@dataclass(frozen=True, slots=True)
class Flags:
    """The token's own words about its PIN (PKCS#11 CKF_USER_PIN_*); true only in one direction."""

    count_low: bool = False
    final_try: bool = False
    locked: bool = False


def gives_back(library: str) -> bool:
    """Whether a right PIN gives a token its tries back, by the description of its module's library."""
    return not any(word in library for word in _KEEPS_COUNT)


class TryRefused(Exception):
    """The PIN must not be sent now; the message says which rule forbids it and what a person can do."""


class TriesSpent(TryRefused):
    """No override helps: an operator must see to the token, and unlock it."""


def check_machine(count: Count, flags: Flags, tries: int) -> None:
    """Raise `TryRefused` unless the machine may send the PIN by itself, or a person has granted this try."""
    if flags.locked:
        raise TryRefused("the token says that its PIN is locked; unblock it with its PUK, then unlock it here")
    if count.granted:
        return
    if count.refused:
        raise TryRefused(f"the PIN was refused {count.refused} time(s); check it, then unlock the token")
    if count.open > OPEN_MAX:
        raise TryRefused(f"{count.open} logins ended without an answer; check the token, then unlock it")
    if count.kept and count.kept + count.open > tries - 2:
        raise TryRefused(f"{count.spent} of {tries} tries may be spent; {_CLEAR}, then unlock it with the override")
    if tries < TRIES_MIN or flags.count_low or flags.final_try:
        raise TryRefused("the token has fewer than 3 PIN tries left; check the PIN, then unlock the token")


def check_person(count: Count, tries: int, *, override: bool) -> None:
    """Raise `TryRefused` unless a person may grant a try: the last one only by an explicit override."""
    if not override and count.spent > tries - 2:
        raise TryRefused(
            f"{count.spent} of {tries} tries may be spent; the next could be the last: "
            f"{_CLEAR if count.kept else 'make sure of the PIN'}, then use the override"
        )


def check_spent(count: Count, flags: Flags, tries: int) -> None:
    """Raise `TriesSpent` where the token's PIN is locked, by its word or by our count."""
    if flags.locked:
        raise TriesSpent("the token says that its PIN is locked; unblock it with its PUK, then unlock it here")
    if count.spent >= tries and not count.granted:
        raise TriesSpent(f"all of {tries} tries may be spent; see to the token, then unlock it")


def check_holder(count: Count, flags: Flags, tries: int) -> None:
    """Raise `TriesSpent`, or `TryRefused` where only an override allows the try, unless the holder's PIN may be sent."""
    check_spent(count, flags, tries)
    if count.granted:
        return
    check_person(count, tries, override=False)
    if flags.final_try:
        raise TryRefused("the token says that one try is left; make sure of the PIN, then use the override")


def tries_left(count: Count, flags: Flags, tries: int) -> int | None:
    """
    How many tries the token has left; None where that is not known. Its flags say 0 and 1, which is believed; more is
    only believed where the flags say just what our own count makes of it, because most tokens raise none.
    """
    if flags.locked:
        return 0
    if flags.final_try:
        return 1
    if flags.count_low and not count.open and 0 < count.refused < tries - 1:
        return tries - count.refused
    return None


class Tries:
    """
    The counts, in a small SQLite file of their own, with `synchronous = EXTRA`: a change is made when the journal is gone, and
    that is what the directory has to keep.

    Calls block for about a millisecond and happen only around logins. They may come from several threads of one
    process; two processes on one file wait for each other.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.Lock()
        self._known: dict[str, Count] = {}
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        path.chmod(0o600)
        self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.execute("PRAGMA synchronous = EXTRA")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS tries (token TEXT PRIMARY KEY, refused INTEGER NOT NULL,"
            " open INTEGER NOT NULL, granted INTEGER NOT NULL, quarantined INTEGER NOT NULL DEFAULT 0,"
            " kept INTEGER NOT NULL DEFAULT 0) STRICT"
        )
        if "kept" not in {row[1] for row in self._db.execute("PRAGMA table_info(tries)")}:  # a file of before
            self._db.execute("ALTER TABLE tries ADD COLUMN kept INTEGER NOT NULL DEFAULT 0")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS overrides (token TEXT NOT NULL, at TEXT NOT NULL, caller TEXT NOT NULL,"
            " refused INTEGER NOT NULL, open INTEGER NOT NULL) STRICT"
        )

    def close(self) -> None:
        self._db.close()

    def count(self, token: TokenIdentity) -> Count:
        with self._lock:
            return self._read(token)

    def known(self, token: TokenIdentity) -> Count:
        """The count as it was read or written last: never waits for the disk."""
        return self._known.get(str(token), Count())

    def _read(self, token: TokenIdentity) -> Count:
        row = self._db.execute(
            "SELECT refused, open, granted, quarantined, kept FROM tries WHERE token = ?", (str(token),)
        ).fetchone()
        found = Count(row[0], row[1], bool(row[2]), bool(row[3]), row[4]) if row else Count()
        self._known[str(token)] = found
        return found

    def begin(self, token: TokenIdentity) -> None:
        """Durable before it returns: a PIN is about to be sent. A grant is used up by it."""
        self._write(token, "open = open + 1, granted = 0", Count(open=1))

    def accepted(self, token: TokenIdentity, *, gives_back: bool = True) -> None:
        """The PIN was right: the token's own counter is full again, and so is ours; unless the token keeps its count."""
        kept = "" if gives_back else "kept = kept + refused + max(open - 1, 0), "
        self._write(token, f"{kept}refused = 0, open = 0, granted = 0", Count())

    def refused(self, token: TokenIdentity) -> None:
        self._write(token, "refused = refused + 1, open = max(open - 1, 0)", Count(refused=1))

    def not_sent(self, token: TokenIdentity) -> None:
        """The login ended before the token could have seen the PIN."""
        self._write(token, "open = max(open - 1, 0)", Count())

    def override(self, token: TokenIdentity, caller: str) -> None:
        """Somebody goes beyond the rule on purpose: who, when (RFC 3339), and what the count was; kept for good."""
        count, now = self.count(token), datetime.now(UTC).isoformat(timespec="seconds")
        with self._lock:
            self._db.execute(
                "INSERT INTO overrides (token, at, caller, refused, open) VALUES (?, ?, ?, ?, ?)",
                (str(token), now, caller, count.refused, count.open),
            )

    def grant(self, token: TokenIdentity, *, anew: bool = False) -> None:
        """A person allows one more try; `anew`: and has cleared the token's own count."""
        cleared = "refused = 0, open = 0, kept = 0, " if anew else ""
        self._write(token, f"{cleared}granted = 1", Count(granted=True))

    def quarantine(self, token: TokenIdentity) -> None:
        """It made a wrong signature: kept over restarts, until a person releases it."""
        self._write(token, "quarantined = 1", Count(quarantined=True))

    def release(self, token: TokenIdentity) -> None:
        """A person has seen to the quarantined token."""
        self._write(token, "quarantined = 0", Count())

    def _write(self, token: TokenIdentity, change: str, new: Count) -> None:
        with self._lock:
            self._db.execute(
                "INSERT INTO tries (token, refused, open, granted, quarantined) VALUES (?, ?, ?, ?, ?)"  # noqa: S608 -- texts of this file
                f" ON CONFLICT (token) DO UPDATE SET {change}",
                (str(token), new.refused, new.open, new.granted, new.quarantined),
            )
            self._read(token)
