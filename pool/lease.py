"""
A lease: one person's time with a token, after the token's own PIN.

Whatever ends it (its block is left, its deadline, an error of the lane, an operator, the pool's end), nothing is signed
in its name afterwards, and its lane logs out, is killed, and has the card reset before anybody else comes near it
(personal.py).
"""

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pool.backlog import Backlog
from pool.codes import PIN_REFUSED
from pool.errors import PoolError, Unavailable
from pool.line import Line, check
from pool.mechanism import Algorithm
from pool.record import Record
from pool.relogin import Relogins
from pool.settle import reason_for
from pool.work import Outcomes, Work

if TYPE_CHECKING:
    from pool.personal import PersonalAttendant

# How a lane was lost, where that means something else to the lease's person than to a service.
_REASONS = {
    "WRONG_SIGNATURE": "TOKEN_QUARANTINED",
    "CKR_SESSION_CLOSED": "LOGIN_REQUIRED",
    "CKR_SESSION_HANDLE_INVALID": "LOGIN_REQUIRED",
    "CKR_USER_NOT_LOGGED_IN": "LOGIN_REQUIRED",
    **dict.fromkeys(PIN_REFUSED, "PIN_INCORRECT"),
    "CKR_PIN_LOCKED": "PIN_LOCKED",
}


def reason_of(problem: str) -> str:
    """The reason (errors.REASONS) for the end of a lease whose lane was lost like this."""
    return _REASONS.get(problem) or reason_for(problem)


class Lease:
    """
    What `Pool.lease` gives. `id` goes with every frame, and the worker signs for no other. `over` is empty while it
    lasts, and then the reason of its end.
    """

    def __init__(self, lane: "PersonalAttendant", caller: str, key: str, spki: bytes, deadline: float) -> None:
        self.id = secrets.token_hex(16)
        self.caller, self.key, self.token = caller, key, lane.token.config.name
        self.deadline = deadline  # of the monotonic clock, seconds
        self.over = ""
        self._lane = lane
        self._spki = spki
        self.line = Line(Backlog(), [lane], self._refusal)
        self.relogins = Relogins(lane.token, frozenset(), lambda: False)
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()
        self._timer = loop.call_at(loop.time() + deadline - time.monotonic(), self.end, "DEADLINE_EXCEEDED")

    async def sign(
        self,
        algorithm: Algorithm,
        items: Sequence[bytes],
        *,
        timeout_s: float | None = None,
        record: Record | None = None,
    ) -> Outcomes:
        """
        One outcome for each item, as `Pool.sign` gives them. `timeout_s` None: until the lease's own deadline, which no
        request outlives. Raises `BadRequest`, `Busy`; `Unavailable` with the reason where the lease is over.
        """
        check(self._spki, algorithm, items)
        refusal = self._refusal(self.key)
        if refusal is not None:
            raise refusal
        deadline = self.deadline if timeout_s is None else min(self.deadline, time.monotonic() + timeout_s)
        done: asyncio.Future[Outcomes] = asyncio.get_running_loop().create_future()
        work = Work(self.caller, self.key, self._spki, algorithm, items, deadline, done, record, self.id)
        async with self.relogins.written(self.key):
            return await self.line.sign(work)

    def end(self, reason: str, *, withdraw: bool = True) -> None:
        """
        Over, from this moment on; idempotent. What waits is told the reason; with `withdraw` what the lane has is
        answered now and ended within a second, without it the lane's frames are awaited.
        """
        if self.over:
            return
        self.over = reason
        self._timer.cancel()
        if withdraw:
            self.line.withdraw_all(reason)
        else:
            self.line.turn_away()
        if not self.begun.done():
            self.begun.set_exception(Unavailable(reason, "the lease ended before it began"))
        self._lane.release(self, at_once=withdraw)

    def fail(self, error: PoolError) -> None:
        """It never began; the person is told why."""
        if not self.begun.done():
            self.begun.set_exception(error)
        self.end(error.reason)

    def _refusal(self, _key: str) -> Unavailable | None:
        return Unavailable(self.over, "the lease is over") if self.over else None
