"""
The life of one lane: start, serve, watch, rest, start again.

Rules of this file: what may happen is said by the table in `lane.py`. One start at a time per module (eight at once
made a good PIN fail), so everything between exec and login happens under the module's lock.
"""

import asyncio
import contextlib
import logging
import math
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pool.assign import Frame, Run
from pool.codes import CARD_GONE, PCSC_DOWN, shortage
from pool.keeper import ABLE, StartFailed, TokenKeeper
from pool.lane import BREAKER_LOSSES, REST_FIRST_S, Event, Lane, State
from pool.process import Child, ChildLost, Pages
from pool.reader import ANSWER_S, Reset, ResetFailed
from pool.record import Intent, Unrecorded
from pool.settle import Reading, reason_for
from pool.start import find_keys, log_in, open_token
from pool.token import EVENTS, WrongEvent
from pool.token import Event as TokenEvent
from pool.token import State as TokenState
from pool.wire import FENCE, FRAMES_IN_FLIGHT
from pool.work import Outcome, Status, Work

log = logging.getLogger("pool")

SECOND_LOOK_S = 0.3  # absent is what two looks so far apart do not see
PING_EVERY_S = 2.0  # an idle lane's token is known to be there, not older than this
PING_S = 5.0  # a card that another process holds answers after 4.3 s (measured)
WATCH_EVERY_S = 0.1
LATE_S = 0.5  # an item under C_Sign this long after its deadline ends its lane
PATIENCE = 5  # ... and after so many times what it takes as a rule: a short deadline must not cost a slow card its lane
UNMEASURED_S = 0.25  # what it is taken to take before it was measured
INTENT_SHARE = 0.25  # of the time that a lane is busy for: an intent is written well before the lane wants its frame
LOGOUT_S = 1.0  # C_Logout and C_Finalize, before SIGKILL
# The parent verifies again what slower tokens sign, with all their lanes: of a P-521 key that is 0.4 ms for each, ...
VERIFY_BELOW_PER_S = 200
# ... and of the others one when so many have gone by: it costs 110 us between all else that the parent does, which at one
# in 64 was more than everything else that the parent does for a P-256 signature.
VERIFY_EACH = 256


class Attendant:
    """
    One lane: its process, the frames it has, and their pages.

    `give_back` takes the items that a lost lane never came to; `changed` is called when there is room or news. A card is
    `reset` before the first start and after each end: nobody is to find it logged in.
    """

    def __init__(
        self,
        token: TokenKeeper,
        index: int,
        give_back: Callable[[Run, float], None],
        changed: Callable[[], None],
        reset: Reset,
    ) -> None:
        self.token = token
        self.lane = Lane(token.config.name, index)
        self._give_back = give_back
        self._changed = changed
        self._child: Child | None = None
        self._pages: Pages | None = None
        self._out: dict[int, _Out] = {}  # what the lane has, by number, oldest first
        self._number = 0
        self._killed_for = ""
        self._end_by = math.inf  # when a lane whose session is lost, or whose lease is over, is killed
        self._under: tuple[int, int] | None = None  # (frame number, slot) seen under C_Sign ...
        self._under_since = 0.0  # ... since then
        self._since_verified = 0
        self._pinging = False
        self._ping_ended = 0.0
        self._wake = asyncio.Event()
        self._start_is_over = asyncio.Event()
        self._start_is_over.set()
        self._closing = False
        self._reset = reset
        self._left = asyncio.Event()  # set while there is no process, and what one has left is seen to
        self._left.set()
        self._is_clean = False  # nobody can be logged in to the card: not known of what another daemon left behind

    @property
    def pid(self) -> int:
        """The lane's process, 0 while there is none."""
        return self._child.pid if self._child is not None else 0

    async def run(self) -> None:
        """The lane's whole life, again and again, until the pool closes."""
        while not self._closing:
            # The first lane opens the token; the others follow when that went well.
            await self.token.wait_for(frozenset({TokenState.READY}) if self.lane.index else ABLE)
            self.lane.on(Event.RESTED)
            self.lane.tally.starts += 1
            meaning = None
            try:
                await self._live()
            except StartFailed as failure:
                self.lane.problem, meaning = failure.detail, failure.event
            except Exception as error:  # no descriptors, a full disk: the lane rests and tries again
                log.exception("lane %s failed; it is started again by itself: see to what stands below", self.lane.name)
                self.lane.problem = f"{type(error).__name__}: {error}"
            finally:
                stopped = self.lane.state is State.STOPPING and not self.lane.problem
                await self._clear_up()
            await self._after_life(stopped, meaning)

    async def _live(self) -> None:
        """From exec to the end of the process; returns when it ended, raises `StartFailed` if it never came up."""
        self._killed_for = self.lane.problem = ""
        self._end_by = math.inf
        try:
            await self._clean()
        except ResetFailed as failure:
            event = EVENTS.get(failure.why)
            detail = f"its card may be logged in, and cannot be reset: {failure}"
            raise StartFailed(str(failure) if event else detail, event) from None
        self._pages = Pages()
        async with self.token.module.lock:
            if self.token.state not in ABLE or self._closing:  # it changed while this lane waited for its turn
                self.lane.on(Event.STOP)
                return
            self._start_is_over.clear()
            try:
                child = await self._start(self._pages)
            finally:
                self._start_is_over.set()
        if self.lane.state is State.STOPPING:  # told so meanwhile
            await child.stop(LOGOUT_S)
        else:
            await self._work(child)

    async def _work(self, child: Child) -> None:
        """What a lane is started for."""
        self.lane.on(Event.UP)
        self.token.lane_came_up()
        self._changed()
        try:
            await self._serve(child)
        finally:
            self.token.lane_went_down()

    async def _start(self, pages: Pages) -> Child:
        timeout_s = self.token.config.start_timeout_s
        self._left.clear()
        try:
            module = self.token.module
            child = self._child = await module.start(
                "pool.worker", str(pages.fd), environment=module.environment, fds=(pages.fd,)
            )
            async with asyncio.timeout(timeout_s):
                await self._prepare(child)
        except ChildLost as lost:
            raise StartFailed(f"it ended while it started ({lost.how})") from None
        except TimeoutError:
            raise StartFailed(f"it did not start within {timeout_s:g} s (start_timeout_s)") from None
        except OSError as error:
            raise StartFailed(f"it cannot be started ({error}): see to the host's memory and open files") from None
        child.on_done = self._frame_done
        return child

    async def _clean(self) -> None:
        """Raises `ResetFailed`."""
        config = self.token.config
        if not self._is_clean and (config.personal or config.reader is not None):
            await self._reset(config)
            self._is_clean = True

    async def _prepare(self, child: Child) -> None:
        """All that a process does before it signs."""
        opened = await open_token(child, self.token)
        self._is_clean = False
        self.lane.direct = await log_in(child, self.token, opened)
        await self._find_keys(child)

    async def _find_keys(self, child: Child) -> frozenset[str]:
        """Answers the keys that want a PIN at each signature."""
        self.lane.keys, problems, each = await find_keys(child, self.token)
        for ref, problem in problems.items():
            log.warning(
                "lane %s has no private key for %s: %s; it signs with the others: put it on the token, or take its credential"
                " away",
                self.lane.name,
                ref[:16],
                problem,
            )
        return each

    async def _serve(self, child: Child) -> None:
        """Ping while idle, watch while signing, until the process ends or was told to."""
        pinged, ping = time.monotonic(), None
        while not child.ended.done():
            if self.lane.state is State.STOPPING and not self._out:
                await self._stop(child)
                return
            if time.monotonic() >= self._end_by:  # it hangs on its way out, with work in hand
                self._kill(child, self.lane.problem or "TOKEN_TIMEOUT")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_EVERY_S):
                    await self._wake.wait()
            self._wake.clear()
            if self._out:
                self._watch(child)
            elif (ping is None or ping.done()) and time.monotonic() - pinged >= PING_EVERY_S:
                ping = asyncio.create_task(self._ping(child), name=f"ping {self.lane.name}")
                pinged = time.monotonic()
        self.lane.problem = self._killed_for or self.lane.problem or child.ended.result()

    async def _stop(self, child: Child) -> None:
        """Log out and finalise, within what is left of the lane's time."""
        await child.stop(min(LOGOUT_S, max(0.0, self._end_by - time.monotonic())))

    async def _ping(self, child: Child) -> None:
        """Whether the token is still there; frames may go out while the answer is awaited."""
        self._pinging = True
        try:
            answer = await child.ask({"t": "ping"}, PING_S)
            self.lane.problem = self.lane.problem or answer["lost"]
        except ChildLost:
            pass  # the loop sees it
        except TimeoutError:
            self._kill(child, "TOKEN_TIMEOUT")
        finally:
            self._pinging, self._ping_ended = False, time.monotonic()

    def _watch(self, child: Child) -> None:
        """Kill the lane when an item has been under C_Sign too long, or past its deadline."""
        assert self._pages is not None
        now = time.monotonic()
        number, out = next(((number, out) for number, out in self._out.items() if out.is_sent), (0, None))
        if out is None:
            return
        frame = out.frame
        slot = self._pages[out.page].under
        under = None if slot is None else (number, slot)
        if under != self._under:
            self._under, self._under_since = under, now
        patience_s = PATIENCE * self.lane.item_s.get((frame.key, frame.algorithm), UNMEASURED_S)
        if slot is None:
            # It may hang elsewhere: an expired item it would have passed over at once. But it may be in a ping, whose limit is
            # its own, or just come from one.
            in_vain = not self._pinging and now - self._ping_ended >= LATE_S
        else:
            in_vain = now - self._under_since >= max(LATE_S, patience_s)
        late = in_vain and now >= frame.item_at(slot or 0)[0].deadline + LATE_S
        if late or (slot is not None and now - self._under_since >= self.token.config.sign_timeout_s):
            self._kill(child, "TOKEN_TIMEOUT")

    def _kill(self, child: Child, why: str) -> None:
        self._killed_for = why
        child.kill()

    def ask_to_stop(self) -> None:
        """Take no more work; end when the frames that are out have come back."""
        if self.lane.state not in {State.RESTING, State.STOPPING}:
            self.lane.on(Event.STOP)
            self._wake.set()

    async def end(self) -> None:
        """The pool closes: no patience with a lane that hangs."""
        self._closing = True
        self.ask_to_stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOGOUT_S):  # a PIN may be on its way: what became of it must be counted
                await self._start_is_over.wait()
        child = self._child
        if child is not None:
            await child.stop(LOGOUT_S)
        if self.token.config.reader is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_S):
                    await self._left.wait()

    def send(self, frame: Frame) -> None:
        """
        Give the lane a frame, as soon as that is in writing where somebody wants it so. The lane has it from now on:
        it can be cut, withdrawn from and lost; one that cannot be sent comes back when the process's end is seen.
        """
        assert self._pages is not None
        used = {out.page for out in self._out.values()}
        page = next(number for number in range(FRAMES_IN_FLIGHT) if number not in used)
        self._pages[page].clear(frame.count)
        self._number += 1
        token = self.token.config.name
        now = time.monotonic()
        within_s = max(0.0, self.lane.busy_until - now) * INTENT_SHARE if self.lane.in_flight else 0.0
        intents = [
            None if (r := run.work.record) is None else r.intend(run.start, run.stop, token, within_s=within_s)
            for run in frame.runs
        ]
        out = self._out[self._number] = _Out(frame, page, intents)
        self.lane.in_flight += 1
        self.lane.busy_until = max(self.lane.busy_until, now) + frame.count * frame.seconds
        self.lane.on(Event.SENT)
        waiting = {intent.durable for intent in intents if intent is not None and not intent.durable.done()}
        out.waits = len(waiting)
        for future in waiting:
            future.add_done_callback(partial(self._durable, self._number, out))
        if not waiting:
            self._transmit(self._number, out)

    def _durable(self, number: int, out: "_Out", _: asyncio.Future[None]) -> None:
        out.waits -= 1
        # Otherwise its process has ended meanwhile, or is just being cleared up.
        if not out.waits and self._out.get(number) is out and self._child is not None:
            self._transmit(number, out)

    def _transmit(self, number: int, out: "_Out") -> None:
        """Send a frame whose intents are all decided; where one could not be written nothing of the frame is signed."""
        assert self._child is not None
        for intent in out.intents:
            error = None if intent is None else intent.durable.exception()
            if error is not None:
                self._abandon(number, out, error)
                return
        frame = out.frame
        if all(
            run.work.done.done() for run in frame.runs
        ):  # nobody waits any more, and the lane would look as if it hung
            self._take_back(number)
            self._now_empty()
            out.tell([None] * frame.count, {})
            self._changed()
            return
        out.is_sent = True
        items: list[bytes] = []
        for run in frame.runs:
            items += run.work.items[run.start : run.stop]
        message = {
            "t": "frame",
            "n": number,
            "page": out.page,
            "lease": frame.lease,
            "key": frame.key,
            "scheme": frame.algorithm.scheme.value,
            "hash": frame.algorithm.hash.value if frame.algorithm.hash else "",
            "runs": [(run.stop - run.start, int(run.work.deadline * 1e9)) for run in frame.runs],
            # Digests, all of one length, travel as one piece.
            "items": items if frame.algorithm.hash is None else b"".join(items),
        }
        try:
            self._child.send(message)
        except ChildLost as lost:  # the frame comes back as untouched when the process's end is seen, which says more
            log.warning("lane %s: %s; it is started again by itself", self.lane.name, lost.how)
            self._child.kill()

    def _abandon(self, number: int, out: "_Out", error: BaseException) -> None:
        """Take back a frame that was not sent: its requests are answered why."""
        self._take_back(number)
        self._now_empty()
        if isinstance(error, Unrecorded):
            outcome = Outcome(Status.NOT_ATTEMPTED, reason=error.reason, detail=error.detail)
        else:
            log.error("an intent could not be written, so nothing of it was signed: report it", exc_info=error)
            outcome = Outcome(Status.NOT_ATTEMPTED, reason="INTERNAL")
        for run, intent in zip(out.frame.runs, out.intents, strict=True):
            if intent is not None and intent.durable.exception() is None:
                intent.settled([None] * (run.stop - run.start), {})
            for index in range(run.start, run.stop):
                run.work.settle(index, outcome)
            run.work.answer()
        self._changed()

    def _take_back(self, number: int) -> "_Out":
        """The lane has this frame no more."""
        out = self._out.pop(number)
        self.lane.in_flight -= 1
        return out

    def _now_empty(self) -> None:
        if not self._out:
            self.lane.on(Event.EMPTY)
            self.lane.busy_until, self.lane.is_cut = 0.0, False

    @property
    def frames(self) -> list[Frame]:
        """What the lane has, oldest first."""
        return [out.frame for out in self._out.values()]

    def cut(self) -> None:
        """Have what was not started back at once: somebody is more urgent."""
        assert self._pages is not None
        now = self.lane.cut_at = time.monotonic()
        self.lane.is_cut = True
        oldest = next(iter(self._out.values())).frame
        self.lane.busy_until = now + oldest.seconds  # the item under C_Sign
        for out in self._out.values():
            if out.is_sent:
                self._pages[out.page].cut(out.frame.count)
        # Of the others the intent is still being written: the lane is not kept waiting for that.
        for number in [number for number, out in self._out.items() if not out.is_sent]:
            out = self._take_back(number)
            out.tell([None] * out.frame.count, {})
            for run in out.frame.runs:
                self._give_back(run, out.frame.seconds)
        self._now_empty()
        self._changed()

    def _frame_done(self, message: dict[str, Any]) -> None:
        """The lane has answered a frame: settle its items, and note why if its session is lost."""
        if message["n"] not in self._out:
            return
        out = self._take_back(message["n"])
        frame = out.frame
        if message["signed"] and not message["lost"]:  # else what failed, or hung before it did, would count as theirs
            seconds, now = message["ns"] / 1e9, time.monotonic()
            self.lane.measured(frame.key, frame.algorithm, seconds, message["signed"], now)
        self.lane.problem = message["lost"]
        if message["lost"]:
            self.ask_to_stop()
            self._end_by = time.monotonic() + LOGOUT_S
        else:
            self._now_empty()
        self._settle(out, lost=message["lost"])
        if self.lane.state is State.STOPPING:
            self._wake.set()
        self._changed()

    def _settle(self, out: "_Out", *, lost: str = "", ended: str = "") -> None:
        """Every item of the frame gets its outcome, or goes back to the line if no token saw it."""
        assert self._pages is not None
        frame = out.frame
        reading = Reading(frame, self._pages[out.page], self.token.config.name, ended)
        untouched: dict[Run, list[int]] = {}
        signatures, others = reading.settle_signed(lambda slots: self._doubted(frame, slots, ended))
        self.lane.tally.signed += len(signatures) - len(others)
        problems: dict[Run, dict[int, Outcome]] = {}
        for run, index, slot in others:
            outcome = reading.outcome(run, index, slot)
            if outcome is None:
                untouched.setdefault(run, []).append(index)
            else:
                self._count(outcome)
                run.work.settle(index, outcome)
                problems.setdefault(run, {})[index] = outcome
        out.tell(signatures, problems)
        for run, indexes in untouched.items():
            if ended or lost:  # otherwise the frame was cut short
                run.work.last_problem = (reason_for(ended or lost), ended or lost)
            for start, stop in _ranges(indexes):
                self._give_back(Run(run.work, start, stop), frame.seconds)
        for run in frame.runs:
            run.work.answer()

    def _count(self, outcome: Outcome) -> None:
        tally = self.lane.tally
        if outcome.status is Status.SIGNED:
            tally.signed += 1
        elif outcome.status is not Status.NOT_ATTEMPTED:
            tally.failed[outcome.detail or outcome.reason] += 1
        if outcome.reason == "SIGNATURE_INVALID":
            self._quarantine()

    def _quarantine(self) -> None:
        with contextlib.suppress(WrongEvent):  # out of service already; the next start sees what is written
            detail = f"lane {self.lane.name} made a signature that does not verify"
            self.token.on(TokenEvent.WRONG_SIGNATURE, detail)
        if self.token.identity is not None:
            try:
                self.token.tries.quarantine(self.token.identity)
            except sqlite3.Error:
                log.critical(
                    "the quarantine of token %s cannot be written down: drain it, because a restart would use it again",
                    self.token.config.name,
                    exc_info=True,
                )

    def _doubted(self, frame: Frame, signed: Sequence[int], ended: str) -> Sequence[int]:
        """
        Of the slots with a signature those that the parent verifies again: all of a slow token, one of the others when
        its turn comes, and all that a process left behind: what brought it down may have written there.
        """
        item_s = self.lane.item_s.get((frame.key, frame.algorithm), 1.0)
        if ended or item_s > self.token.config.lanes / VERIFY_BELOW_PER_S:
            return signed
        place = VERIFY_EACH - 1 - self._since_verified
        if place >= len(signed):
            self._since_verified += len(signed)
            return ()
        self._since_verified = (len(signed) - 1 - place) % VERIFY_EACH
        return signed[place::VERIFY_EACH]

    def withdraw(self, work: Work) -> list[tuple[int, Outcome]]:
        """
        Start no more items of this request; at most one is late.

        Answers what is known of those in this lane: signed, or under C_Sign (INDETERMINATE). The others were not
        attempted and will not be.
        """
        known: list[tuple[int, Outcome]] = []
        nobody_waits = work.done.cancelled()  # then nothing is looked at: it would be verified for nobody
        for out in self._out.values():
            assert self._pages is not None
            page = self._pages[out.page]
            reading = Reading(out.frame, page, self.token.config.name, first_look=True)
            mine = [entry for entry in reading.items() if entry[0].work is work]
            for _, _, slot in mine:
                page.skip(slot)
            if nobody_waits:
                continue
            with FENCE:
                pass
            under = page.under  # read after the skips were written: see wire.py
            seen: dict[int, Outcome] = {}
            for run, index, slot in mine:
                outcome = reading.outcome(run, index, slot)
                if outcome is None and slot == under:
                    outcome = Outcome(Status.INDETERMINATE, reason="TOKEN_TIMEOUT", token=self.token.config.name)
                if outcome is not None:
                    seen[index] = outcome
            out.tell_early(work, seen)
            known += seen.items()
        if any(outcome.reason == "SIGNATURE_INVALID" for _, outcome in known):
            self._quarantine()
        return known

    def skip(self, work: Work) -> None:
        """Start no more items of this request, at most one is late; what was started comes to its end, and is awaited."""
        for out in self._out.values():
            assert self._pages is not None
            page = self._pages[out.page]
            for run, _, slot in Reading(out.frame, page, self.token.config.name).items():
                if run.work is work:
                    page.skip(slot)

    async def _clear_up(self) -> None:
        """The process is over, or must be: settle what it had, free what it held."""
        child, self._child = self._child, None
        if child is not None:
            await child.close()
            ended = self._killed_for or self.lane.problem or child.ended.result()
            out, self._out = self._out, {}
            for each in out.values():
                self._settle(each, ended=ended)
        if self._pages is not None:
            self._pages.close()
            self._pages = None
        self.lane.in_flight = 0
        self.lane.busy_until, self.lane.is_cut = 0.0, False
        self.lane.keys = frozenset()
        self.lane.on(Event.LOST)
        self._changed()
        if child is not None:
            try:
                await self._clean()
            except ResetFailed as failure:  # tried again before the lane starts
                log.warning(
                    "the card of token %s is not reset: %s; nobody gets it before it is, see to its reader",
                    self.token.config.name,
                    failure,
                )
        self._left.set()

    async def _after_life(self, stopped: bool, meaning: TokenEvent | None) -> None:
        """What the end means for the token; then rest, longer after each loss."""
        if meaning is TokenEvent.GONE and self.token.config.reader is None:  # PC/SC does not err about a card
            await asyncio.sleep(SECOND_LOOK_S)
            seen = await self.token.look()
            if seen is not None:
                meaning, self.lane.problem = seen
            if meaning is TokenEvent.FOUND:
                meaning = None
        with contextlib.suppress(WrongEvent):  # the token has moved on meanwhile
            if meaning is not None:
                self.token.on(meaning, self.lane.problem)
            elif self.lane.problem in {CARD_GONE, PCSC_DOWN}:
                # No failure of the lane; its next start says what is there.
                log.info("lane %s is lost: %s", self.lane.name, self.lane.problem)
                await asyncio.sleep(REST_FIRST_S)  # a bad contact must not have it logged in to without a pause
            elif not stopped:
                log.warning("lane %s is lost: %s; it is started again by itself", self.lane.name, self.lane.problem)
                if self.lane.lost(time.monotonic()):
                    self.lane.losses.clear()
                    detail = f"{BREAKER_LOSSES} losses within a minute, the last: {self.lane.problem}"
                    self.token.on(TokenEvent.BREAKER, detail, shortage(self.lane.problem))
        if not stopped:
            await asyncio.sleep(self.lane.rest_s(time.monotonic()))


@dataclass(slots=True, eq=False)
class _Out:
    """A frame that the lane has, or will have as soon as its intents are in writing."""

    frame: Frame
    page: int
    intents: list[Intent | None]  # one for each run
    waits: int = 0  # for so many writes
    is_sent: bool = False

    def tell(self, signatures: list[bytes | None], problems: Mapping[Run, Mapping[int, Outcome]]) -> None:
        """Tell those who wanted it in writing what became of everything."""
        slot = 0
        for run, intent in zip(self.frame.runs, self.intents, strict=True):
            count = run.stop - run.start
            if intent is not None:
                part = signatures if count == len(signatures) else signatures[slot : slot + count]
                found = dict(problems.get(run, {}))
                signed = {index: each.signature for index, each in found.items() if each.signature}
                if signed:  # seen at a second look only
                    part = [signed.get(run.start + place, one) for place, one in enumerate(part)]
                intent.settled(part, {index: each for index, each in found.items() if index not in signed})
            slot += count

    def tell_early(self, work: Work, seen: Mapping[int, Outcome]) -> None:
        """A request is answered while the lane has still some of it: what it is answered is told first."""
        for run, intent in zip(self.frame.runs, self.intents, strict=True):
            if run.work is work and intent is not None:
                places = range(run.start, run.stop)
                part = [seen[index].signature or None if index in seen else None for index in places]
                problems = {index: seen[index] for index in places if index in seen and not seen[index].signature}
                intent.settled(part, problems, is_last=False)


def _ranges(indexes: list[int]) -> list[tuple[int, int]]:
    """Consecutive indexes as ranges, last first: each goes back to the front of its request."""
    ranges: list[tuple[int, int]] = []
    for index in indexes:
        if ranges and ranges[-1][1] == index:
            ranges[-1] = (ranges[-1][0], index + 1)
        else:
            ranges.append((index, index + 1))
    return ranges[::-1]
