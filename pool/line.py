"""
The line before some lanes: requests wait in a backlog, `assign` matches them with lanes, and each is answered by its
deadline, whatever becomes of the lanes.

The pool has one for all tokens with a service PIN; each person's lease has one of its own, before its one lane.
"""

import asyncio
import time
from collections.abc import Callable, Container, Sequence

from pool import forecast
from pool.assign import CUT_PAUSE_S, Run, assign, may_cut, to_cut
from pool.attendant import Attendant
from pool.backlog import Backlog, BacklogFull, TooMuch
from pool.errors import BadRequest, Busy, Unavailable
from pool.lane import Lane, connected
from pool.mechanism import EDDSA_MESSAGE_BYTES_MAX, Algorithm
from pool.pressure import Pressure
from pool.public import algorithms
from pool.work import Outcome, Outcomes, Status, Work

HOLD_WORTH_S, HOLD_S = 0.0005, 0.003  # on a busy loop what is worth so little waits for company, so long at most


def check(spki: bytes, algorithm: Algorithm, items: Sequence[bytes]) -> None:
    """Raise `BadRequest` for what the key can never sign as it stands."""
    if algorithm not in algorithms(spki):
        raise BadRequest("ALGORITHM_NOT_ALLOWED", f"the key makes no {algorithm}")
    if not items:
        raise BadRequest("BATCH_EMPTY")
    exact = algorithm.item_bytes
    if exact is not None and set(map(len, items)) == {exact}:
        return
    for index, item in enumerate(items):
        if len(item) != exact and (exact is not None or not 0 < len(item) <= EDDSA_MESSAGE_BYTES_MAX):
            wanted = f"{exact} bytes" if exact else f"1 to {EDDSA_MESSAGE_BYTES_MAX} bytes"
            raise BadRequest("DIGEST_LENGTH", f"item {index} has {len(item)} bytes, {algorithm} takes {wanted}", index)


class Line:
    """`refusal` says why no lane of this line can be expected to sign with a key; None where one can."""

    def __init__(
        self, backlog: Backlog, lanes: Sequence[Attendant], refusal: Callable[[str], Unavailable | None]
    ) -> None:
        self._backlog = backlog
        self._lanes = lanes
        self._refusal = refusal
        self._assigning = False
        self._pressure = Pressure()
        self._held: asyncio.TimerHandle | None = None
        self._next_look: asyncio.TimerHandle | None = None
        # Of each lane the last that it had: one that starts anew is no other.
        self._keys: dict[str, frozenset[str]] = {}
        self._sets: dict[str, str] = {}  # by key
        backlog.lanes_of = lambda key: self._sets.get(key, "")

    async def sign(self, work: Work) -> Outcomes:
        """
        Wait for the outcomes of a request that was checked. Raises `BadRequest`, `Busy` or `Unavailable` when nothing of
        it was attempted. On cancellation at most one more item is signed, and its signature goes nowhere.
        """
        refusal = self._refusal(work.key)
        if refusal is not None:
            raise refusal
        if work.revoked:  # while it was on its way here
            work.settle_rest(Outcome(Status.NOT_ATTEMPTED, reason=work.revoked))
            return work.outcomes
        self._look_at_keys()
        now, key = time.monotonic(), work.key
        timeout_s = work.deadline - now
        forecast.check(work.kind, len(work.items), work.caller, timeout_s, self._backlog, self._bare_lanes(), now)
        try:
            self._backlog.add(work)
        except BacklogFull as full:
            wait_s = forecast.wait_s(
                work.kind, work.caller, self._backlog, self._bare_lanes(), now, short=work.is_short
            )
            retry_s = min(forecast.RETRY_MOST_S, max(forecast.RETRY_LEAST_S, wait_s or 1.0))
            raise Busy("BACKLOG_FULL", retry_s, str(full)) from None
        except TooMuch as much:
            raise BadRequest("BATCH_TOO_LARGE", str(much)) from None
        if work.is_short and not any(key in lane.lane.keys and not lane.lane.in_flight for lane in self._lanes):
            self._make_way()
        self.assign_soon()
        loop = asyncio.get_running_loop()
        timer = loop.call_at(loop.time() + timeout_s, self._expire, work)
        try:
            return await work.done
        except asyncio.CancelledError:
            self._withdraw(work, "CANCELLED")
            raise
        finally:
            timer.cancel()

    def done_in_s(self, key: str, algorithm: Algorithm, count: int, caller: str) -> float:
        """When so many items would be done, seconds from now, as things stand."""
        return forecast.done_in_s((key, algorithm), count, caller, self._backlog, self._bare_lanes(), time.monotonic())

    def is_too_busy(self, key: str, algorithm: Algorithm, count: int, caller: str, timeout_s: float) -> bool:
        """Whether so many items would be refused now, because others are before them."""
        try:
            forecast.check(
                (key, algorithm), count, caller, timeout_s, self._backlog, self._bare_lanes(), time.monotonic()
            )
        except Busy:
            return True
        return False

    def waiting_for(self, keys: Container[str]) -> int:
        """How many items wait for these keys."""
        return self._backlog.waiting_for(keys)

    def turn_away(self) -> None:
        """Work that no lane can take any more is told so; what lanes have of it is still awaited."""
        refusals: dict[str, Unavailable | None] = {}
        for work in list(self._backlog):
            refusal = refusals.setdefault(work.key, self._refusal(work.key))
            if refusal is not None:
                self._give_up(work, refusal.reason, refusal.detail)

    def revoke(self) -> None:
        """
        Nothing more is started of requests that are revoked; what lanes have begun of them comes to its end, and they are
        answered then.
        """
        for work in self._all():
            if work.revoked:
                for lane in self._lanes:
                    lane.skip(work)
                self._give_up(work, work.revoked)

    def withdraw_all(self, reason: str, *, but: str = "") -> None:
        """Every request is answered now, and nothing more of any is started, except for those for one key."""
        for work in self._all():
            if work.key != but:
                self._withdraw(work, reason)

    def _all(self) -> list[Work]:
        """What waits and what lanes have, each once, in an order."""
        given = (run.work for lane in self._lanes for frame in lane.frames for run in frame.runs)
        return list(dict.fromkeys((*self._backlog, *given)))

    def lost(self, run: Run, seconds: float) -> None:
        """
        A lane ended or was cut short before it came to these items: they go back to the front, unless nobody waits for
        them, and with them the token time (`seconds` each) that was counted for them.
        """
        work = run.work
        if work.done.done() or not work.left:
            return
        work.give_back(run.start, run.stop)
        self._backlog.put_back(work, run.stop - run.start, seconds)
        refusal = self._refusal(work.key)
        if work.revoked:
            self._give_up(work, work.revoked)
        elif refusal is not None:
            self._give_up(work, refusal.reason, refusal.detail)

    def assign_soon(self) -> None:
        """After what else is ready in this turn of the loop; under pressure a little later, unless much waits."""
        if not self._backlog.items or self._assigning:
            return
        loop = asyncio.get_running_loop()
        if self._pressure.is_high and self._little_waits():
            if self._held is None:
                self._held = loop.call_later(HOLD_S, self._assign)
            return
        self._assigning = True
        loop.call_soon(self._assign)

    def _look_at_keys(self) -> None:
        """Which lanes are shared by whom: those that have keys in common, by way of others, too."""
        new = {
            lane.lane.name: lane.lane.keys
            for lane in self._lanes
            if lane.lane.keys and lane.lane.keys is not self._keys.get(lane.lane.name)
        }
        if new:
            self._keys |= new
            self._sets = connected(self._keys)
            self._backlog.regroup()

    def _bare_lanes(self) -> list[Lane]:
        return [lane.lane for lane in self._lanes]

    def _make_way(self) -> None:
        """A short request does not wait behind the bulk that lanes have: seen to when it comes, and while it waits."""
        if not self._backlog.has_shorts:
            return
        pairs, now = [(lane.lane, lane.frames) for lane in self._lanes], time.monotonic()
        cuttable = [lane for lane, frames in pairs if may_cut(lane, frames, now)]
        # One that waits for a card does not stand before those that wait for an HSM.
        for work in self._backlog.oldest_shorts() if cuttable else ():
            if not any(work.key in lane.keys for lane in cuttable):
                continue
            chosen = to_cut(work, pairs, self._backlog.share(work.kind).clocks(), now)
            if chosen is not None:
                next(lane for lane in self._lanes if lane.lane is chosen).cut()
                break
        if self._next_look is None:
            self._next_look = asyncio.get_running_loop().call_later(CUT_PAUSE_S, self._look_again)

    def _look_again(self) -> None:
        self._next_look = None
        self._make_way()

    def _little_waits(self) -> bool:
        """Whether all that waits is worth less than `HOLD_WORTH_S` of lane time; what was never measured may be much."""
        worth_s = 0.0
        for key, algorithm in self._backlog.kinds():
            rate = forecast.per_second((key, algorithm), self._bare_lanes())
            worth_s += self._backlog.waiting((key, algorithm)) / rate if rate else HOLD_WORTH_S
        return worth_s < HOLD_WORTH_S

    def _assign(self) -> None:
        self._assigning = False
        if self._held is not None:
            self._held.cancel()
            self._held = None
        if not self._backlog.items:
            return
        self._look_at_keys()
        lanes = {lane.lane.name: lane for lane in self._lanes}
        frames, expired = assign(self._backlog, self._bare_lanes(), time.monotonic())
        for frame in frames:
            for run in frame.runs:
                taken = run.work.take(run.stop - run.start)
                assert taken == (run.start, run.stop)
                self._backlog.taken(run.work, run.stop - run.start, (run.stop - run.start) * frame.seconds)
            lanes[frame.lane.name].send(frame)
        for work in expired:
            self._expire(work)

    def _expire(self, work: Work) -> None:
        self._withdraw(work, "DEADLINE_EXCEEDED")

    def _withdraw(self, work: Work, reason: str) -> None:
        """Answer the request now: finished items are delivered, nothing more of it is started."""
        if work.done.done() and not work.done.cancelled():
            return
        self._backlog.remove(work)
        for lane in self._lanes:
            for index, outcome in lane.withdraw(work):
                work.settle(index, outcome)
        if work.last_problem[0] and reason == "DEADLINE_EXCEEDED":
            reason, detail = work.last_problem
        else:
            reason, detail = work.revoked or reason, ""
        work.settle_rest(Outcome(Status.NOT_ATTEMPTED, reason=reason, detail=detail))
        work.answer()

    def _give_up(self, work: Work, reason: str, detail: str = "") -> None:
        """What waits of it was not attempted, for this reason; what lanes have of it is still awaited."""
        ranges = list(work.waiting)
        self._backlog.remove(work)
        outcome = Outcome(Status.NOT_ATTEMPTED, reason=reason, detail=detail)
        for start, stop in ranges:
            for index in range(start, stop):
                work.settle(index, outcome)
        work.answer()
