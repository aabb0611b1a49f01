"""
The life of a personal token's lane: open, wait for a person, log in for one lease, end, reset the card, open anew.

The lane is started and the token recognised before anybody comes, so that a lease costs only the login. It is the one
lane of its token and takes no work but its lease's: the pool's `assign` never sees it, its frames come from the lease's
own line.

Rules of this file: one lease at a time, and the next one's turn comes when the card is clean: the process that was
logged in is gone, and the card was reset after that. No process is started on it before.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from pool.assign import Run
from pool.attendant import LOGOUT_S, PING_EVERY_S, Attendant
from pool.codes import PIN_REFUSED
from pool.errors import BadRequest, PinRefused, PoolError, Unavailable
from pool.keeper import ABLE, StartFailed, TokenKeeper
from pool.lane import Event, State
from pool.lease import Lease, reason_of
from pool.login import Claim, log_in, not_accepted
from pool.pin import Pin, PinError
from pool.process import Child, ChildLost
from pool.reader import ANSWER_S, Reset
from pool.relogin import Relogins
from pool.start import open_token
from pool.token import Event as TokenEvent
from pool.token import Presence, WrongEvent
from pool.token import State as TokenState
from pool.tries import Flags, TriesSpent, check_spent
from pool.turns import Turns

log = logging.getLogger("pool")

TOUCH_S = 0.5  # a stick that needs no touch has signed by then

# What a failed login means for the token; anything else that is not about the PIN is the lane's loss.
_EVENTS = {
    "PIN_LOCKED": TokenEvent.PIN_REFUSED,
    "TOKEN_CHANGED": TokenEvent.OTHER,
    "TOKEN_ABSENT": TokenEvent.GONE,
    "PCSC_DOWN": TokenEvent.NO_SERVICE,
}


class PersonalAttendant(Attendant):
    def __init__(self, token: TokenKeeper, changed: Callable[[], None], reset: Reset) -> None:
        super().__init__(token, 0, self._returned, self._moved, reset)
        self.turns = Turns(token, lambda: self._lease is None and self.lane.state is State.OPEN)
        self._tell_pool = changed
        self._opened: dict[str, Any] = {}
        self._lease: Lease | None = None
        self._claim: Claim | None = None
        self._released = asyncio.Event()  # set while nobody has the token
        self._released.set()
        self._login_limit: asyncio.Timeout | None = None

    async def lease(self, key: str, caller: str, pin: Pin | None, deadline: float, *, override: bool) -> Lease:
        """A lease of this token, logged in to (`Pool.lease`). `key` '' means its only one."""
        await self.turns.take(deadline)
        ref = self._key(key)
        lease = self._lease = Lease(self, caller, ref, (self.token.keys or {})[ref].spki, deadline)
        self._claim = Claim(lease.id, caller, pin, override)
        self._released.clear()
        self.token.on(TokenEvent.LEASE, f"for {caller}")
        self._wake.set()
        try:
            await lease.begun
        except asyncio.CancelledError:
            lease.end("CANCELLED")
            raise
        return lease

    def check_pin(self, pin: Pin | None) -> None:
        """A PIN where one is wanted; and none where it is typed at the reader: it would have been shown for nothing."""
        has_pad = self.token.config.presence is Presence.PAD
        if has_pad and pin is not None:
            raise BadRequest("PIN_AT_PAD", f"token {self.token.config.name}")
        if not has_pad and pin is None:
            raise PinRefused("PIN_INCORRECT", f"token {self.token.config.name}: no PIN was given")

    def _key(self, key: str) -> str:
        keys = self.token.keys or {}
        if key in keys:
            return key
        if key or len(keys) != 1:
            raise BadRequest("KEY_UNKNOWN", f"token {self.token.config.name} has {len(keys)} keys; name one of them")
        return next(iter(keys))

    # ---- the lane's life

    async def _prepare(self, child: Child) -> None:
        """Open the token; the PIN comes with a person."""
        token = self.token
        self._opened = await open_token(child, token)
        if not self._opened["login"]:
            raise StartFailed(
                "it asks for no PIN, so that anybody could sign as its person: give it one, then unlock it",
                TokenEvent.PIN_REFUSED,
            )
        if token.config.presence is Presence.PAD and not self._opened["pad"]:
            raise StartFailed(
                "its reader has no pad for a PIN, as its driver says: leave out presence, then unlock it",
                TokenEvent.PIN_REFUSED,
            )
        assert token.identity is not None
        try:
            check_spent(token.tries.count(token.identity), Flags(*self._opened["flags"]), token.config.pin_tries)
        except TriesSpent as spent:
            raise StartFailed(str(spent), TokenEvent.PIN_REFUSED) from None

    async def _work(self, child: Child) -> None:
        self.lane.on(Event.OPENED)
        child.ended.add_done_callback(lambda _: self._wake.set())
        self._moved()
        await self._wait(child)
        lease, claim, self._claim = self._lease, self._claim, None
        if lease is None or claim is None:
            if self.lane.state is State.STOPPING:
                await child.stop(LOGOUT_S)
            else:
                self.lane.problem = self._killed_for or self.lane.problem or child.ended.result()
            return
        try:
            await self._let_in(child, lease, claim)
        except StartFailed:
            await self._stop(child)
            raise
        if self.lane.state is State.STOPPING:  # refused, or over meanwhile
            await self._stop(child)
            return
        self.lane.on(Event.UP)
        self._moved()
        if not lease.begun.done():
            lease.begun.set_result(None)
        await self._serve(child)
        if lease.relogins.is_open and self.lane.problem in PIN_REFUSED:
            await self._refused_while_signing(lease)

    async def _wait(self, child: Child) -> None:
        """Until a person comes, or the token goes, or the lane is told to stop."""
        while self._claim is None and self.lane.state is State.OPEN and not child.ended.done():
            try:
                async with asyncio.timeout(PING_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                await self._ping(child)
            self._wake.clear()

    async def _let_in(self, child: Child, lease: Lease, claim: Claim) -> None:
        """
        Log in for a lease. What goes wrong is told to its person; raises `StartFailed` where that is the lane's loss or
        the token's.
        """
        try:
            await self._log_in(child, lease, claim)
        except PoolError as error:
            self._turn_away(lease, error)
        except ChildLost as lost:
            self._turn_away(lease, Unavailable(reason_of(lost.how), f"{lost.how}; {claim.cost}"))
        except TimeoutError:
            self._kill(child, "TOKEN_TIMEOUT")
            detail = f"the login had no answer in time; {claim.cost}"
            self._turn_away(lease, Unavailable("TOKEN_TIMEOUT", detail))
        except (sqlite3.Error, PinError) as error:
            self._turn_away(lease, Unavailable("TOKEN_FAULT", f"{type(error).__name__}: {error}; {claim.cost}"))

    async def _log_in(self, child: Child, lease: Lease, claim: Claim) -> None:
        """
        The caller may go, or its time be over, while the PIN is under way: the answer is awaited for a second all the
        same, because it says what the try has cost.
        """
        token = self.token
        limit_s = min(token.config.start_timeout_s, lease.deadline - time.monotonic()) + LOGOUT_S
        self._start_is_over.clear()
        try:
            async with asyncio.timeout(limit_s) as self._login_limit, contextlib.AsyncExitStack() as held:
                await held.enter_async_context(token.module.lock)
                if lease.over:
                    return
                self._is_clean = False
                self.lane.direct = await log_in(child, token, self._opened, claim, limit_s, held.aclose)
                each = await self._find_keys(child)
        finally:
            self._login_limit = None
            self._start_is_over.set()
        if lease.key not in self.lane.keys:
            raise Unavailable("KEY_UNKNOWN", f"token {token.config.name} has no private half of it")
        lease.relogins = Relogins(token, each, lambda: self.lane.state is State.IDLE and not self.lane.problem)

    def _turn_away(self, lease: Lease, error: PoolError) -> None:
        """A refused PIN is no fault of the lane, which only ends."""
        lease.fail(error)
        if error.reason in _EVENTS or not error.reason.startswith("PIN_"):
            raise StartFailed(f"{error.reason}: {error.detail}", _EVENTS.get(error.reason)) from None

    async def _refused_while_signing(self, lease: Lease) -> None:
        """A PIN that was right at the login was refused before a signature."""
        lease.relogins.is_open = False
        try:
            await not_accepted(None, self.token, self.lane.problem, is_refused=True)
        except PoolError as error:
            detail = f"the token refused the PIN while it signed ({self.lane.problem}): its person makes sure of it, then unlock it"
            raise StartFailed(detail, _EVENTS.get(error.reason)) from None

    # ---- what she does at the token

    def _watch(self, child: Child) -> None:
        """A signature that takes so long waits for her touch."""
        super()._watch(child)
        if self.token.config.presence is Presence.TOUCH:
            is_under = self._under is not None and self._under[1] is not None
            self._shows_touch(is_under and time.monotonic() - self._under_since >= TOUCH_S)

    def _shows_touch(self, waits: bool) -> None:
        lease = self._lease
        if lease is None or waits is (self.token.state is TokenState.WAITING):
            return
        with contextlib.suppress(WrongEvent):  # an operator has taken it out of service meanwhile
            if waits:
                self.token.on(TokenEvent.AWAIT, "it waits for a touch")
            else:
                self.token.on(TokenEvent.ANSWERED, f"for {lease.caller}")

    # ---- the end of a lease

    def release(self, lease: Lease, *, at_once: bool) -> None:
        """The lease is over: the lane ends, within a second if at once, and the card is reset."""
        if lease is not self._lease:
            return
        if at_once:
            self._end_by = time.monotonic() + LOGOUT_S
        if self._login_limit is not None and not self._login_limit.expired():  # else it ends by itself
            self._login_limit.reschedule(asyncio.get_running_loop().time() + LOGOUT_S)
        super().ask_to_stop()

    def ask_to_stop(self) -> None:
        """Its frames are finished, no more are given; a lease is over."""
        if self._lease is not None:
            self._lease.end(self._why_over(), withdraw=False)
        super().ask_to_stop()

    def turn_away(self) -> None:
        """The service stops: nobody's turn comes any more, and who has the token keeps it for what the lane has."""
        self.turns.close()
        if self._lease is not None:
            self._lease.end("POOL_CLOSED", withdraw=False)

    def revoke(self) -> None:
        """Of the requests of who has the token, those that are revoked."""
        if self._lease is not None:
            self._lease.line.revoke()

    def answer_all(self) -> None:
        """Who still waits for the lane is answered what is known now."""
        if self._lease is not None:
            self._lease.line.withdraw_all("POOL_CLOSED")

    def reopen(self) -> None:
        """Other keys are wanted: seen to when nobody has the token."""
        if self._lease is None:
            super().ask_to_stop()

    async def end(self) -> None:
        """The pool closes; the last lease's card is reset before."""
        self.turns.close()
        await super().end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOGOUT_S + ANSWER_S):
                await self._released.wait()

    def _why_over(self) -> str:
        if self._closing:
            return "POOL_CLOSED"
        if self.token.state not in ABLE:
            return self.token.refusal().reason
        return reason_of(self._killed_for or self.lane.problem)

    async def _clear_up(self) -> None:
        lease = self._lease
        if lease is None:
            await super()._clear_up()
            return
        in_order = lease.over and not (self._killed_for or self.lane.problem)
        lease.end(self._why_over(), withdraw=False)
        await super()._clear_up()
        if in_order:
            await lease.relogins.over()
        self._lease = self._claim = None
        self._released.set()
        with contextlib.suppress(WrongEvent):  # an operator, or a wrong signature, has moved it on meanwhile
            self.token.on(TokenEvent.RELEASED)
        self._moved()

    # ---- what it is told

    def _returned(self, run: Run, seconds: float) -> None:
        if self._lease is not None:
            self._lease.line.lost(run, seconds)

    def _moved(self) -> None:
        if self._lease is not None:
            if not self._out and self.token.config.presence is Presence.TOUCH:
                self._shows_touch(False)
            self._lease.line.assign_soon()
        self.turns.tell()
        self._tell_pool()
