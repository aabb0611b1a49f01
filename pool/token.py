"""
A token: what is configured of it, and the table of the states it can be in.

Rules of this file: the table is the whole life of a token; an absent entry is the error; who may use the token follows
from its state alone. The diagram in DESIGN.md is drawn from the table.

A *person* is the only way out of LOCKED (a PIN was refused: an automatic second try could burn the last one) and of
QUARANTINED (a wrong signature: nobody knows yet what the token did). TRIPPED is the breaker, which closes by itself
after a look at the token that sends no PIN.

A *personal* token never becomes READY: it is OPEN until a person comes with its PIN, LEASED to that person alone, and
OPEN again when the lease's process is gone and the card was reset.

UNREACHABLE is not ABSENT: what is wrong is not the token but the host's PC/SC service, and nobody knows what the reader
holds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from pool.pin import Pin


class State(StrEnum):
    ABSENT = "ABSENT"  # no token answers to the configured label and serial
    UNREACHABLE = "UNREACHABLE"  # the PC/SC service that its reader belongs to does not answer, or refuses us
    CHANGED = "CHANGED"  # one answers, and it is not ours: another serial, or other public keys
    OPEN = "OPEN"  # present, the right one, nobody logged in
    READY = "READY"  # at least one lane is logged in and signs
    LEASED = "LEASED"  # a person's: from before the PIN is sent until nothing of the login is left
    WAITING = "WAITING"  # the same, and it goes on when the person has done something at the token itself
    LOCKED = "LOCKED"
    QUARANTINED = "QUARANTINED"
    TRIPPED = "TRIPPED"
    DRAINED = "DRAINED"  # by an operator


class Presence(StrEnum):
    """What a person does at her token itself."""

    PAD = "pad"  # types its PIN at the reader (PKCS#11 v3.1, 5.6.8: CKF_PROTECTED_AUTHENTICATION_PATH)
    TOUCH = "touch"  # touches it before each signature


class Event(StrEnum):
    FOUND = "FOUND"
    GONE = "GONE"
    NO_SERVICE = "NO_SERVICE"
    OTHER = "OTHER"
    LOGGED_IN = "LOGGED_IN"
    LANES_LOST = "LANES_LOST"
    LEASE = "LEASE"
    AWAIT = "AWAIT"
    ANSWERED = "ANSWERED"
    RELEASED = "RELEASED"
    PIN_REFUSED = "PIN_REFUSED"
    WRONG_SIGNATURE = "WRONG_SIGNATURE"
    BREAKER = "BREAKER"
    UNLOCK = "UNLOCK"
    DRAIN = "DRAIN"
    RESUME = "RESUME"


# Why a child could not open the token, by its word; any other is the lane's loss alone.
EVENTS: Mapping[str, Event] = {
    "absent": Event.GONE,
    "changed": Event.OTHER,
    "down": Event.NO_SERVICE,
    "denied": Event.NO_SERVICE,
    "refused": Event.BREAKER,  # a module that must not be loaded: nothing of it was run, and it is looked at again by itself
}

S, E = State, Event
TRANSITIONS: dict[State, dict[Event, State]] = {
    S.ABSENT: {
        E.FOUND: S.OPEN,
        E.OTHER: S.CHANGED,
        E.NO_SERVICE: S.UNREACHABLE,
        E.BREAKER: S.TRIPPED,
        E.DRAIN: S.DRAINED,
    },
    S.UNREACHABLE: {
        E.FOUND: S.OPEN,
        E.GONE: S.ABSENT,
        E.OTHER: S.CHANGED,
        E.BREAKER: S.TRIPPED,
        E.DRAIN: S.DRAINED,
    },
    S.CHANGED: {
        E.FOUND: S.OPEN,
        E.GONE: S.ABSENT,
        E.NO_SERVICE: S.UNREACHABLE,
        E.BREAKER: S.TRIPPED,
        E.DRAIN: S.DRAINED,
    },
    S.OPEN: {
        E.LOGGED_IN: S.READY,
        E.LEASE: S.LEASED,
        E.PIN_REFUSED: S.LOCKED,
        E.WRONG_SIGNATURE: S.QUARANTINED,  # remembered from before a restart
        E.GONE: S.ABSENT,
        E.NO_SERVICE: S.UNREACHABLE,
        E.OTHER: S.CHANGED,
        E.BREAKER: S.TRIPPED,
        E.DRAIN: S.DRAINED,
    },
    S.READY: {
        E.LANES_LOST: S.OPEN,
        E.PIN_REFUSED: S.LOCKED,
        E.WRONG_SIGNATURE: S.QUARANTINED,
        E.GONE: S.ABSENT,
        E.NO_SERVICE: S.UNREACHABLE,
        E.OTHER: S.CHANGED,
        E.BREAKER: S.TRIPPED,
        E.DRAIN: S.DRAINED,
    },
    S.LEASED: {E.AWAIT: S.WAITING, E.RELEASED: S.OPEN, E.WRONG_SIGNATURE: S.QUARANTINED, E.DRAIN: S.DRAINED},
    S.WAITING: {E.ANSWERED: S.LEASED, E.RELEASED: S.OPEN, E.WRONG_SIGNATURE: S.QUARANTINED, E.DRAIN: S.DRAINED},
    S.LOCKED: {E.UNLOCK: S.OPEN, E.DRAIN: S.DRAINED},
    S.QUARANTINED: {E.UNLOCK: S.OPEN},  # no DRAIN: a RESUME would then be a second way out
    S.TRIPPED: {
        E.FOUND: S.OPEN,
        E.GONE: S.ABSENT,
        E.NO_SERVICE: S.UNREACHABLE,
        E.OTHER: S.CHANGED,
        E.UNLOCK: S.OPEN,
        E.DRAIN: S.DRAINED,
    },
    S.DRAINED: {E.RESUME: S.OPEN},
}

# What a request is told that needs a token in this state, and whether waiting may help (see errors.REASONS).
REFUSAL: dict[State, str] = {
    S.ABSENT: "TOKEN_ABSENT",
    S.UNREACHABLE: "PCSC_DOWN",
    S.CHANGED: "TOKEN_CHANGED",
    S.OPEN: "TOKEN_STARTING",
    S.LEASED: "TOKEN_BUSY",
    S.WAITING: "TOKEN_BUSY",
    S.LOCKED: "PIN_LOCKED",
    S.QUARANTINED: "TOKEN_QUARANTINED",
    S.TRIPPED: "TOKEN_FAULT",
    S.DRAINED: "TOKEN_DRAINED",
}
# What an operator does about a token in this state; `detail` says before it what happened. Other states ask for nothing.
ADVICE: dict[State, str] = {
    S.ABSENT: "insert it or start its reader; it comes back by itself",
    S.UNREACHABLE: "start pcscd, or let this user use it; it comes back by itself",
    S.CHANGED: "put the configured token back, or register the keys of this one; it was sent no PIN",
    S.LOCKED: "no PIN is sent to it until it is unlocked",  # what to do depends, and stands in the detail
    S.QUARANTINED: "examine it, then unlock it; nothing is signed with it until it is unlocked",
    S.TRIPPED: "it is looked at again every 30 s; where that does not help, see to its driver or reader",
    S.DRAINED: "resume it when it may sign again",
}
# Why a token is CHANGED before the first credential is there: nothing is wrong with it, and nobody can tell whether it is ours.
NO_KEY = "no credential names a key yet: add one, then it is opened by itself; it was sent no PIN"


def advice(state: State, detail: str) -> str:
    """What an operator does about it behind `detail`; '' where nothing is asked for, or `detail` has said it."""
    return "" if detail == NO_KEY else ADVICE.get(state, "")


IN_USE = frozenset({S.LEASED, S.WAITING})  # by a person


class WrongEvent(Exception):
    """The event means nothing in this state; nothing was changed."""


def after(state: State, event: Event) -> State:
    """The state that follows, by the table; raises `WrongEvent` where it has no entry."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise WrongEvent(f"{event} means nothing to a token that is {state}") from None


@dataclass(frozen=True, slots=True)
class TokenConfig:
    """
    One token and how to use it.

    `label`, and `serial` where labels repeat, say which token of the module it is; a slot number would not survive a
    re-plug. `pin` gives the PIN at each login, and is None for a token that asks for none. `lanes` is how many
    processes use it at once: 1 for a card, for an HSM as many as it has cores to answer with.

    A `personal` token is a person's own: it has no PIN here, one lane, and signs only in a lease (`Pool.lease`).
    `presence` is what she does at the token itself; while that is awaited the token is WAITING.

    `reader` is the PC/SC name of the reader that a card sits in; None for what is no card. With it the card is reset
    when a lane or a lease has ended, is watched (`pcsc.py`), and OpenSC is kept from all others (`opensc.py`).
    """

    name: str
    module: Path
    label: str
    serial: str | None = None
    pin: Callable[[], Pin] | None = None
    kind: str = "token"
    lanes: int = 1
    verify: bool = True
    pin_tries: int = 3  # what the token allows before it locks; cards usually have 3
    start_timeout_s: float = 30.0  # a card with a slow driver needs 10 s to open (FIELD: ePass2003)
    sign_timeout_s: float = 20.0  # one C_Sign; the slowest card known signs RSA-4096 in 1.1 s
    environment: Mapping[str, str] = field(default_factory=dict)
    module_sha256: bytes | None = None  # of its file; None: whatever root has put there
    personal: bool = False
    reader: str | None = None
    presence: Presence | None = None

    def __post_init__(self) -> None:
        if not self.module.is_absolute():
            raise ValueError(f"token {self.name}: the module's path must be absolute")
        if not 1 <= self.lanes <= 64:
            raise ValueError(f"token {self.name}: lanes must be 1 to 64")
        if self.personal and (self.pin is not None or self.lanes != 1):
            raise ValueError(f"token {self.name}: a person's token has one lane and no PIN in the configuration")
        if self.presence is not None and not self.personal:
            raise ValueError(f"token {self.name}: only a person's token has somebody at it")
        if self.reader is not None and self.lanes != 1:
            raise ValueError(f"token {self.name}: a card has one lane, because it signs one thing at a time")


def unblocking(config: TokenConfig) -> str:
    """
    What brings a card back whose PIN is locked. It is the card's own command (RESET RETRY COUNTER), with a secret that
    is not ours to hold, and PKCS#11 has no word for it: C_InitPIN wants a security officer's login, which OpenSC does
    not have for PIV cards. So it is OpenSC's program, which asks for PUK and PIN itself.
    """
    return (
        f"If the card's PIN is locked: `pkcs15-tool --reader '{config.reader}' --unblock-pin` asks for its PUK and a new "
        f"PIN; then unlock token {config.name} here"
    )
