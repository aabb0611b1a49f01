"""
The life of one token: what state it is in, what is known of it, and how it comes back.

Rules of this file: what may happen is said by the table in `token.py`; no PIN passes here.
"""

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from pool import reader
from pool.errors import Unavailable
from pool.key import Key
from pool.module import Module, NoCard
from pool.pcsc import Seen, no_token, other_card
from pool.token import (
    EVENTS,
    IN_USE,
    NO_KEY,
    REFUSAL,
    Event,
    State,
    TokenConfig,
    WrongEvent,
    advice,
    after,
    unblocking,
)
from pool.tries import TokenIdentity, Tries
from pool.wire import name_bytes, parts_of

log = logging.getLogger("pool")

ABLE = frozenset({State.OPEN, State.READY, State.LEASED, State.WAITING})  # lanes may run
AWAY = frozenset({State.ABSENT, State.UNREACHABLE, State.CHANGED, State.TRIPPED})  # looked for
LOOK_EVERY_S = 1.0  # while a token is away; a re-plugged card signs again within 3 s
LABELS_MAX = 8  # of other tokens, in a message
TRIPPED_S = 30.0  # the breaker's pause before it looks again
# When to come back to a token in this state; a person must act on one in any other.
COMES_BACK_S = {State.ABSENT: 3.0, State.UNREACHABLE: 5.0, State.TRIPPED: 30.0, State.OPEN: 1.0} | dict.fromkeys(
    IN_USE, 1.0
)


class StartFailed(Exception):
    """A lane did not come up; `event` is what that means for its token, None where it is only the lane's loss."""

    def __init__(self, detail: str, event: Event | None = None) -> None:
        self.detail = detail
        self.event = event
        super().__init__(detail)


class TokenKeeper:
    """One configured token. `changed` is called after each step, before anything else can happen."""

    def __init__(
        self,
        config: TokenConfig,
        module: Module,
        tries: Tries,
        wanted: Callable[[], Sequence[Key] | None],
        changed: Callable[["TokenKeeper"], None],
    ) -> None:
        self.config = config
        self.module = module
        self.tries = tries
        self.wanted = wanted
        self._changed = changed
        self.state = State.OPEN
        self.since = time.time()
        self.detail = ""
        self.reason = ""  # for being in this state, where it is not the one that `token.REFUSAL` has
        self.serial = ""
        self.model = ""
        self.identity: TokenIdentity | None = None
        self.gives_back = True  # its tries, after a right PIN (tries.gives_back)
        self.keys: dict[str, Key] | None = None  # public halves seen on it; None while it was never opened
        self._lanes_up = 0
        self._seen: Seen | None = None  # in the reader, when it was last looked at
        self._moved = asyncio.Event()

    def on(self, event: Event, detail: str = "", reason: str = "") -> None:
        """Take the step that the table gives; raises `WrongEvent` where it gives none."""
        before = self.state
        self.state = after(before, event)
        if self.state is State.LOCKED and self.config.reader is not None:
            detail = f"{detail}. {unblocking(self.config)}"
        if self.state is not before:
            self.since = time.time()
            self.detail, self.reason = detail, reason
            level = logging.INFO if self.state in ABLE else logging.WARNING
            said = "; ".join(filter(None, (detail, advice(self.state, detail))))
            log.log(level, "token %s is %s%s", self.config.name, self.state, f": {said}" if said else "")
        self.moved()

    def moved(self) -> None:
        """Tell the pool, and wake whoever waits for a state."""
        self._changed(self)
        self._moved.set()
        self._moved = asyncio.Event()

    def refusal(self) -> Unavailable:
        """What somebody is told who cannot have the token in its state."""
        # Who has the token is the operator's to know.
        detail = "" if self.state in IN_USE else f": {self.detail}"
        reason = self.reason or REFUSAL[self.state]
        return Unavailable(reason, f"token {self.config.name}{detail}", COMES_BACK_S.get(self.state))

    async def wait_for(self, states: frozenset[State]) -> None:
        while self.state not in states:
            await self._moved.wait()

    def lane_came_up(self) -> None:
        self._lanes_up += 1
        if self.state is State.OPEN:
            self.on(Event.LOGGED_IN)

    def lane_went_down(self) -> None:
        self._lanes_up -= 1
        if self.state is State.READY and not self._lanes_up:
            self.on(Event.LANES_LOST)

    def recognise(
        self, serial: str, publics: Sequence[tuple[bytes, str, bytes]], hashes: Collection[bytes] | None = None
    ) -> None:
        """
        Whether the token that answers is ours, before any PIN is sent to it; raises `StartFailed` if it is not.

        Ours is the one with the configured serial, or the serial seen first, and with at least one of the wanted keys. It
        shows public halves, or with `hashes` the SHA-256 of those that were asked for.
        """
        found = self._ours(serial, publics, hashes)
        self.serial = serial
        self.keys = {}
        for key in found:
            self.keys.setdefault(key.ref, key)  # a certificate's key comes after the key object, which has the label
        self.identity = TokenIdentity.of(str(self.config.module), self.config.label, serial, publics)

    def _ours(
        self, serial: str, publics: Sequence[tuple[bytes, str, bytes]], hashes: Collection[bytes] | None = None
    ) -> list[Key]:
        """The wanted keys that it shows: at least one; raises `StartFailed`."""
        if self.config.serial is None and self.serial and serial != self.serial:
            raise StartFailed(f"its serial is {serial}, and was {self.serial}", Event.OTHER)
        wanted = self.wanted()
        if wanted is None:
            found = list(_usable(publics))
        else:
            present = set(hashes) if hashes is not None else {hashlib.sha256(spki).digest() for _, _, spki in publics}
            found = [key for key in wanted if bytes.fromhex(key.ref) in present]
        if not found:
            none = NO_KEY if wanted == [] else "none of the configured keys is on it"
            raise StartFailed(none, Event.OTHER)
        return found

    async def look_for(self) -> None:
        """For ever: bring a token that is away back when a look without a PIN finds it in order."""
        while True:
            await self.wait_for(AWAY)
            seen = await self._news()
            if self.state in AWAY and seen is not None:
                with contextlib.suppress(WrongEvent):  # still absent, still changed: nothing new
                    self.on(*seen)

    async def _news(self) -> tuple[Event, str] | None:
        """
        What becomes of a token that is away, as soon as something may have. A reader tells when: the lane then finds out
        whose card was inserted. Whatever else is away is looked for from time to time.
        """
        if self.state is State.TRIPPED:
            await asyncio.sleep(TRIPPED_S)
        elif self.config.reader is None:
            await asyncio.sleep(LOOK_EVERY_S)
        else:
            last, self._seen = self._seen, None
            try:
                self._seen = await reader.change(self.config, last)
            except (reader.ReaderError, OSError):  # the look says why
                await asyncio.sleep(LOOK_EVERY_S)
            if last is not None and self._seen not in {None, last}:
                assert self._seen is not None
                return (Event.FOUND, "") if self._seen.has_card else (Event.GONE, "its card was taken out")
        seen = await self.look(self._is_away)
        if self.config.reader is not None and seen == (Event.GONE, no_token(self.config.reader)):
            # A card that went and came back between two looks of pcscd has no power, and answers nobody before a reset.
            async with self.module.lock:
                if self._is_away():
                    with contextlib.suppress(reader.ReaderError):
                        await reader.reset_card(self.config)
            seen = await self.look(self._is_away)
        return seen

    def _is_away(self) -> bool:
        """An operator may have drained and resumed it meanwhile: then it may be somebody's, whose card nobody else asks."""
        return self.state in AWAY

    async def look(self, still: Callable[[], bool] = lambda: True) -> tuple[Event, str] | None:
        """What a probe says of this token; None where it cannot say, or the look is not wanted `still`."""
        wanted, known = self.wanted(), self.keys or {}
        if wanted is not None:
            wanted = sorted(wanted, key=lambda key: key.ref not in known)  # what was on it is sooner found
        try:
            for part in [None] if wanted is None else parts_of(wanted, lambda key: name_bytes((key.cka_id, key.label))):
                listed = await self.module.look(self.config.label, self.config.serial, part, still)
                if listed is None:
                    return None
                if listed.publics:
                    break
        except NoCard as none:
            return EVENTS[none.why], none.detail
        assert listed is not None  # there is one part at least
        found = [serial for label, serial in listed.tokens if label == self.config.label]
        if self.config.serial is not None:
            named = [serial for serial in found if serial == self.config.serial]
            if found and not named:
                return Event.OTHER, other_serial(found[0])
            found = named
        if self.config.reader is not None and not found:
            if listed.tokens:
                return Event.OTHER, other_card(self.config.reader, listed.tokens[0][0])
            return Event.GONE, no_token(self.config.reader)
        if len(found) != 1:
            return Event.GONE, how_many(len(found), self.config.label, [label for label, _ in listed.tokens])
        try:
            self._ours(found[0], listed.publics)  # which of its keys it has is seen by its lane
        except StartFailed as failure:
            return Event.OTHER, failure.detail
        return Event.FOUND, ""


def how_many(tokens: int, label: str, shown: Sequence[str]) -> str:
    """Why a token is not known among those that are there; `shown` are the labels of all that its module has."""
    if tokens:
        return f"{tokens} tokens answer to its label: name the serial of the right one in its configuration"
    others = ", ".join(map(repr, shown[:LABELS_MAX])) + (", ..." if len(shown) > LABELS_MAX else "")
    return f"no token answers to its label {label!r}; its module shows {others or 'none'}"


def other_serial(serial: str) -> str:
    return f"its serial is {serial}, not the configured one"


def _usable(publics: Sequence[tuple[bytes, str, bytes]]) -> Iterator[Key]:
    """The keys that can be signed with; a token may hold others, and they are none of our business."""
    for cka_id, label, spki in publics:
        with contextlib.suppress(ValueError):
            yield Key(spki, cka_id or None, label or None)
