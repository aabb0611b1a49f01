"""
The lives of one token and its lanes: start, log in, serve, watch, rest, start again.

Rules of this file: what may happen is said by the tables in `token.py` and `lane.py`; which PIN may be sent by
`tries.py`. One start at a time per module (eight at once made a good PIN fail), so everything between exec and login
happens under the module's lock.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pool import lane as lanes
from pool import token as tokens
from pool.assign import Frame, Run
from pool.key import Key
from pool.lane import Lane
from pool.mechanism import verify
from pool.pin import PinError
from pool.process import Child, ChildLost, Pages
from pool.token import TokenConfig, WrongEvent
from pool.tries import Flags, TokenIdentity, Tries, TryRefused, check_machine
from pool.wire import FRAMES_IN_FLIGHT, MARK_EXPIRED, MARK_INVALID, MARK_REFUSED, MARK_SKIPPED
from pool.work import Outcome, Status, Work

log = logging.getLogger("pool")

LOOK_TIMEOUT_S = 10.0  # a probe: a busy card makes a listing wait for seconds (measured: 4.3)
SECOND_LOOK_S = 0.3  # absent is what two looks so far apart do not see
LOOK_EVERY_S = 1.0  # while a token is away; a re-plugged card signs again within 3 s
TRIPPED_S = 30.0  # the breaker's pause before it looks again
PING_EVERY_S = 2.0  # an idle lane's token is known to be there, not older than this
WATCH_EVERY_S = 0.1
LATE_S = 0.5  # an item under C_Sign this long after its deadline ends its lane
LOGOUT_S = 1.0  # C_Logout and C_Finalize, before SIGKILL
VERIFY_BELOW_PER_S = 200  # the parent verifies again what slower lanes sign, ...
VERIFY_EACH = 64  # ... and one in so many of the others

# Return codes after which the token may have made the signature it did not hand over.
_MAYBE_SIGNED = frozenset(
    "CKR_DEVICE_ERROR CKR_DEVICE_MEMORY CKR_DEVICE_REMOVED CKR_FUNCTION_FAILED CKR_GENERAL_ERROR CKR_HOST_MEMORY "
    "CKR_TOKEN_NOT_PRESENT".split()
)
_REMOVED = frozenset({"CKR_DEVICE_REMOVED", "CKR_TOKEN_NOT_PRESENT"})


class Module:
    """A PKCS#11 module with its environment: one start at a time, and one look at it for all who ask at once."""

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self.path = path
        self.environment = environment
        self.lock = asyncio.Lock()

    async def look(self) -> list[dict[str, Any]]:
        """The module's tokens, by a probe process; empty where it cannot say."""
        async with self.lock:
            child = await Child.start("pool.probe", str(self.path), environment=self.environment)
            try:
                answer = await child.ask(None, LOOK_TIMEOUT_S)
            except (ChildLost, TimeoutError) as error:
                answer = {"t": "failed", "detail": str(error) or "no answer in time"}
            finally:
                await child.close()
        if answer["t"] != "tokens":
            log.warning("module %s cannot list its tokens: %s", self.path, answer["detail"])
            return []
        found: list[dict[str, Any]] = answer["tokens"]
        return found


class StartFailed(Exception):
    """A lane did not come up; `event` is what that means for its token, None where it is only the lane's loss."""

    def __init__(self, detail: str, event: tokens.Event | None = None) -> None:
        self.detail = detail
        self.event = event
        super().__init__(detail)


class TokenKeeper:
    """One configured token: its state, what is known of it, and its lanes."""

    def __init__(
        self,
        config: TokenConfig,
        module: Module,
        tries: Tries,
        wanted: Callable[[], Sequence[Key] | None],
        changed: Callable[[], None],
        lost: Callable[[Run], None],
    ) -> None:
        self.config = config
        self.module = module
        self.tries = tries
        self.wanted = wanted
        self.changed = changed
        self.lost = lost
        self.state = tokens.State.OPEN
        self.since = time.time()
        self.detail = ""
        self.serial = ""
        self.model = ""
        self.identity: TokenIdentity | None = None
        self.keys: dict[str, Key] | None = None  # public halves seen on it; None while it was never opened
        self.lanes = [LaneKeeper(self, index) for index in range(config.lanes)]
        self._moved = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(lane.run(), name=f"lane {lane.lane.name}") for lane in self.lanes]
        self._tasks.append(asyncio.create_task(self._look_for(), name=f"token {self.config.name}"))

    async def close(self) -> None:
        """End every lane: it logs out if it can."""
        await asyncio.gather(*(lane.end() for lane in self.lanes))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def on(self, event: tokens.Event, detail: str = "") -> None:
        """Take the step that the table gives; raises `WrongEvent` where it gives none."""
        before = self.state
        self.state = tokens.after(before, event)
        if self.state is not before:
            self.since = time.time()
            self.detail = detail
            level = logging.INFO if self.state in {tokens.State.OPEN, tokens.State.READY} else logging.WARNING
            log.log(level, "token %s is %s%s", self.config.name, self.state, f": {detail}" if detail else "")
        if self.state not in {tokens.State.OPEN, tokens.State.READY}:
            for lane in self.lanes:
                lane.ask_to_stop()
        self.moved()

    def moved(self) -> None:
        """Wake whoever waits for a change of state, here and in the pool."""
        self._moved.set()
        self._moved = asyncio.Event()
        self.changed()

    async def wait_for(self, *states: tokens.State) -> None:
        while self.state not in states:
            await self._moved.wait()

    def lane_came_up(self) -> None:
        if self.state is tokens.State.OPEN:
            self.on(tokens.Event.LOGGED_IN)
        self.moved()

    def lane_went_down(self) -> None:
        if self.state is tokens.State.READY and not any(lane.is_up for lane in self.lanes):
            self.on(tokens.Event.LANES_LOST)
        self.moved()

    def recognise(self, serial: str, publics: Sequence[tuple[bytes, str, bytes]]) -> None:
        """
        Whether the token that answers is ours, before any PIN is sent to it; raises `StartFailed` if it is not.

        Ours is the one with the configured serial, or the serial seen first, and with at least one of the wanted keys.
        """
        if self.config.serial is None and self.serial and serial != self.serial:
            raise StartFailed(f"serial {serial} instead of {self.serial}", tokens.Event.OTHER)
        wanted = self.wanted()
        if wanted is None:
            seen = {}
            for cka_id, label, spki in publics:
                key = Key(spki, cka_id or None, label or None) if cka_id or label else None
                if key is not None:
                    seen.setdefault(key.ref, key)
        else:
            present = {spki for _, _, spki in publics}
            seen = {key.ref: key for key in wanted if key.spki in present}
        if not seen and (wanted or wanted is None):
            raise StartFailed("none of the configured keys is on it", tokens.Event.OTHER)
        self.serial = serial
        self.keys = seen
        first = min(seen, default="")
        self.identity = TokenIdentity(str(self.config.module), self.config.label, serial, first)

    def wanted_changed(self) -> None:
        """Other keys are wanted: look at the token anew. Lanes finish what they have first."""
        for lane in self.lanes:
            lane.ask_to_stop()

    async def _look_for(self) -> None:
        """Bring an absent, changed or tripped token back when a look without a PIN finds it in order."""
        away = (tokens.State.ABSENT, tokens.State.CHANGED, tokens.State.TRIPPED)
        while True:
            await self.wait_for(*away)
            await asyncio.sleep(TRIPPED_S if self.state is tokens.State.TRIPPED else LOOK_EVERY_S)
            if self.state in away:
                event, detail = await self.look()
                if self.state in away:
                    with contextlib.suppress(WrongEvent):  # still absent, still changed: nothing new
                        self.on(event, detail)

    async def look(self) -> tuple[tokens.Event, str]:
        """What a probe says of this token."""
        found = [t for t in await self.module.look() if t["label"] == self.config.label]
        if self.config.serial is not None:
            named = [t for t in found if t["serial"] == self.config.serial]
            if found and not named:
                return tokens.Event.OTHER, f"serial {found[0]['serial']}"
            found = named
        if len(found) != 1:
            return tokens.Event.GONE, f"{len(found)} tokens answer to its label"
        try:
            self.recognise(found[0]["serial"], found[0]["publics"])
        except StartFailed as failure:
            return tokens.Event.OTHER, failure.detail
        return tokens.Event.FOUND, ""


class LaneKeeper:
    """One lane: its process, the frames it has, and their pages."""

    def __init__(self, token: TokenKeeper, index: int) -> None:
        self._closing = False
        self._flags = Flags()
        self._login_required = True
        self._under_last: tuple[int, int] | None = None
        self._under_since = 0.0
        self.token = token
        self.lane = Lane(token.config.name, index)
        self._child: Child | None = None
        self._pages: Pages | None = None
        self._out: dict[int, tuple[Frame, int]] = {}  # frame number -> frame and its page
        self._number = 0
        self._killed_for = ""
        self._since_verified = 0
        self._wake = asyncio.Event()

    @property
    def is_up(self) -> bool:
        return self.lane.state in {lanes.State.IDLE, lanes.State.SIGNING}

    @property
    def pid(self) -> int:
        """The lane's process, 0 while there is none."""
        return self._child.pid if self._child is not None else 0

    async def run(self) -> None:
        """The lane's whole life, again and again, until the pool closes."""
        while not self._closing:
            await self._turn_to_start()
            self.lane.on(lanes.Event.RESTED)
            self.lane.tally.starts += 1
            try:
                await self._live()
                meaning = None
            except StartFailed as failure:
                self.lane.problem, meaning = failure.detail, failure.event
            finally:
                stopped = self.lane.state is lanes.State.STOPPING
                await self._clear_up()
            await self._after_life(stopped, meaning)

    async def _turn_to_start(self) -> None:
        """The first lane opens the token; the others follow when that went well."""
        if self.lane.index:
            await self.token.wait_for(tokens.State.READY)
        else:
            await self.token.wait_for(tokens.State.OPEN, tokens.State.READY)

    async def _after_life(self, stopped: bool, meaning: tokens.Event | None) -> None:
        if meaning is tokens.Event.GONE:
            await asyncio.sleep(SECOND_LOOK_S)
            meaning, self.lane.problem = await self.token.look()
            if meaning is tokens.Event.FOUND:
                meaning = None
        now = time.monotonic()
        if meaning is not None:
            with contextlib.suppress(WrongEvent):  # the token has moved on meanwhile
                self.token.on(meaning, self.lane.problem)
        elif not stopped:
            log.warning("lane %s is lost: %s", self.lane.name, self.lane.problem)
            if self.lane.lost(now):
                self.lane.losses.clear()
                with contextlib.suppress(WrongEvent):
                    self.token.on(tokens.Event.BREAKER, f"{lanes.BREAKER_LOSSES} losses a minute: {self.lane.problem}")
        self.token.lane_went_down()
        if not stopped:
            await asyncio.sleep(self.lane.rest_s(now))

    async def _live(self) -> None:
        """From exec to the end of the process; returns when it ended, raises `StartFailed` if it never came up."""
        config, module = self.token.config, self.token.module
        self._killed_for = ""
        self._pages = Pages()
        async with module.lock:
            if self.token.state not in {tokens.State.OPEN, tokens.State.READY}:
                self.lane.on(lanes.Event.STOP)
                return
            try:
                self._child = await Child.start(
                    "pool.worker", str(self._pages.fd), environment=module.environment, fds=(self._pages.fd,)
                )
                async with asyncio.timeout(config.start_timeout_s):
                    await self._open(self._child)
                    await self._log_in(self._child)
                    await self.find_keys()
            except ChildLost as lost:
                raise StartFailed(f"it ended while it started ({lost.how})") from None
            except TimeoutError:
                raise StartFailed(f"it did not start within {config.start_timeout_s:g} s") from None
            except OSError as error:
                raise StartFailed(f"it cannot be started ({error})") from None
        self._child.on_done = self._frame_done
        if self.lane.state is lanes.State.STARTING:  # and was not told to stop meanwhile
            self.lane.on(lanes.Event.UP)
            self.token.lane_came_up()
        await self._serve(self._child)

    async def _open(self, child: Child) -> None:
        config = self.token.config
        wanted = self.token.wanted()
        answer = await child.ask(
            {
                "t": "open",
                "module": str(config.module),
                "label": config.label,
                "serial": config.serial,
                "verify": config.verify,
                "keys": None if wanted is None else [(key.cka_id, key.label) for key in wanted],
            },
            config.start_timeout_s,
        )
        if answer["t"] == "failed":
            meanings = {"absent": tokens.Event.GONE, "changed": tokens.Event.OTHER}
            raise StartFailed(answer["detail"], meanings.get(answer["why"]))
        self.token.recognise(answer["serial"], answer["publics"])
        self.token.model = answer["model"]
        self._flags = Flags(*answer["flags"])
        self._login_required = bool(answer["login"])

    async def _log_in(self, child: Child) -> None:
        """Send the PIN if the rules of `tries.py` allow it; the try is on disk before the PIN is on its way."""
        config, tries, identity = self.token.config, self.token.tries, self.token.identity
        assert identity is not None
        if config.pin is None:
            if self._login_required:
                raise StartFailed("it asks for a PIN and none is configured", tokens.Event.PIN_REFUSED)
            await child.ask({"t": "login", "pin": None}, config.start_timeout_s)
            return
        try:
            check_machine(tries.count(identity), self._flags, config.pin_tries)
            pin = config.pin()
        except (TryRefused, PinError) as error:
            raise StartFailed(str(error), tokens.Event.PIN_REFUSED) from None
        await asyncio.to_thread(tries.begin, identity)
        answer = await child.ask({"t": "login", "pin": pin.reveal()}, config.start_timeout_s)
        if answer["t"] == "logged-in":
            await asyncio.to_thread(tries.accepted, identity)
        elif answer["t"] == "refused":
            await asyncio.to_thread(tries.refused, identity)
            raise StartFailed(f"the token refused the PIN ({answer['detail']})", tokens.Event.PIN_REFUSED)
        else:
            raise StartFailed(f"login failed ({answer['detail']})")  # the try stays open: it may have been spent

    async def find_keys(self) -> None:
        """Have the lane find the private halves of the keys whose public halves were seen on the token."""
        assert self._child is not None
        wanted = [(key.ref, key.cka_id, key.label, key.spki) for key in (self.token.keys or {}).values()]
        answer = await self._child.ask({"t": "keys", "keys": wanted}, self.token.config.start_timeout_s)
        self.lane.keys = frozenset(answer["found"])
        for ref, problem in answer["problems"].items():
            log.warning("lane %s has no private key for %s: %s", self.lane.name, ref[:16], problem)

    async def _serve(self, child: Child) -> None:
        """Ping while idle, watch while signing, until the process ends or was told to."""
        pinged = time.monotonic()
        while not child.ended.done():
            if self.lane.state is lanes.State.STOPPING and not self._out:
                await child.stop(LOGOUT_S)
                break
            wake = self._wake.wait()
            task = asyncio.ensure_future(wake)
            await asyncio.wait({child.ended, task}, timeout=WATCH_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            task.cancel()
            self._wake.clear()
            if self._out:
                self._watch(child)
            elif self.lane.state is lanes.State.IDLE and time.monotonic() - pinged >= PING_EVERY_S:
                await self._ping(child)
                pinged = time.monotonic()
        if child.ended.done():
            self.lane.problem = self._killed_for or self.lane.problem or child.ended.result()

    async def _ping(self, child: Child) -> None:
        try:
            answer = await child.ask({"t": "ping"}, self.token.config.sign_timeout_s)
        except ChildLost:
            return
        except TimeoutError:
            self._kill(child, "it did not answer a ping")
            return
        self.lane.problem = answer["lost"]

    def _watch(self, child: Child) -> None:
        """Kill the lane when an item has been under C_Sign too long, or past its deadline."""
        assert self._pages is not None
        now = time.monotonic()
        frame, page = next(iter(self._out.values()))
        under = self._pages[page].under
        if under is None:
            self._under_since = now
            self._under_last = None
            return
        number = next(iter(self._out))
        if (number, under) != self._under_last:
            self._under_last, self._under_since = (number, under), now
        deadline = _work_at(frame, under).work.deadline
        if now - self._under_since >= self.token.config.sign_timeout_s or now >= deadline + LATE_S:
            self._kill(child, "TOKEN_TIMEOUT")

    def _kill(self, child: Child, why: str) -> None:
        self._killed_for = why
        child.kill()

    def ask_to_stop(self) -> None:
        """Take no more work; end when the frames that are out have come back."""
        if self.lane.state not in {lanes.State.RESTING, lanes.State.STOPPING}:
            self.lane.on(lanes.Event.STOP)
            self._wake.set()

    async def end(self) -> None:
        """The pool closes: no patience with a lane that hangs."""
        self._closing = True
        self.ask_to_stop()
        child = self._child
        if child is not None:
            await child.stop(LOGOUT_S)

    def send(self, frame: Frame) -> None:
        """Give the lane a frame; one that cannot be sent comes back as lost when the process's end is seen."""
        assert self._pages is not None
        assert self._child is not None
        used = {page for _, page in self._out.values()}
        page = next(number for number in range(FRAMES_IN_FLIGHT) if number not in used)
        self._pages[page].clear(frame.count)
        self._number += 1
        self._out[self._number] = (frame, page)
        self.lane.in_flight += 1
        self.lane.on(lanes.Event.SENT)
        items: list[bytes] = []
        for run in frame.runs:
            items += run.work.items[run.start : run.stop]
        with contextlib.suppress(ChildLost):
            self._child.send(
                {
                    "t": "frame",
                    "n": self._number,
                    "page": page,
                    "key": frame.key,
                    "scheme": frame.algorithm.scheme.value,
                    "hash": frame.algorithm.hash.value if frame.algorithm.hash else "",
                    "runs": [(run.stop - run.start, int(run.work.deadline * 1e9)) for run in frame.runs],
                    "items": items,
                }
            )

    def _frame_done(self, message: dict[str, Any]) -> None:
        """The lane has answered a frame: settle its items, and note why if the session is lost."""
        entry = self._out.pop(message["n"], None)
        if entry is None:
            return
        frame, page = entry
        self.lane.in_flight -= 1
        if message["signed"]:
            self.lane.measured(frame.key, frame.algorithm, message["ns"] / 1e9, message["signed"])
        self.lane.problem = message["lost"]
        if message["lost"] and self.is_up:
            self.lane.on(lanes.Event.STOP)
        elif not self._out:
            self.lane.on(lanes.Event.EMPTY)
        self._settle(frame, page, ended="")
        self._wake.set()
        self.token.changed()

    def _settle(self, frame: Frame, page_number: int, ended: str) -> None:
        """Read a frame's page. `ended` names how the process ended, empty while it lives."""
        assert self._pages is not None
        page = self._pages[page_number]
        slot = 0
        for run in frame.runs:
            untouched: list[int] = []
            for index in range(run.start, run.stop):
                outcome = self._outcome(frame, run, index, page, slot, ended)
                if outcome is None:
                    untouched.append(index)
                else:
                    run.work.settle(index, outcome)
                slot += 1
            for start, stop in _ranges(untouched):
                run.work.last_problem = (_reason(ended or self.lane.problem), ended or self.lane.problem)
                self.token.lost(Run(run.work, start, stop))
            run.work.answer()

    def _outcome(self, frame: Frame, run: Run, index: int, page: Any, slot: int, ended: str) -> Outcome | None:
        """What became of the item in a slot; None where no token saw it."""
        name, tally = self.token.config.name, self.lane.tally
        result = page.get(slot)
        if isinstance(result, bytes):
            if self._doubt() and not _verifies(frame, run.work.items[index], result):
                result = MARK_INVALID
            else:
                tally.signed += 1
                return Outcome(Status.SIGNED, result, token=name)
        if result == MARK_INVALID:
            tally.failed["SIGNATURE_INVALID"] += 1
            self._quarantine()
            return Outcome(Status.FAILED, reason="SIGNATURE_INVALID", token=name)
        if result == MARK_REFUSED:
            code = page.code(slot)
            tally.failed[code] += 1
            if code in _MAYBE_SIGNED:
                return Outcome(Status.INDETERMINATE, reason=_reason(code), token=name, detail=code)
            if self.lane.problem == code:  # a session fault: nothing was signed, another session can do it
                return None
            return Outcome(Status.FAILED, reason="ALGORITHM_NOT_ALLOWED", token=name, detail=code)
        if result == MARK_EXPIRED:
            return Outcome(Status.NOT_ATTEMPTED, reason="DEADLINE_EXCEEDED", token=name)
        if result == MARK_SKIPPED:
            return Outcome(Status.NOT_ATTEMPTED, reason="CANCELLED", token=name)
        if ended and page.under == slot:
            tally.failed[_reason(ended)] += 1
            return Outcome(Status.INDETERMINATE, reason=_reason(ended), token=name, detail=ended)
        return None

    def _doubt(self) -> bool:
        """Whether the parent verifies this one again: all of a slow lane, some of a fast one."""
        self._since_verified += 1
        slow = min(self.lane.item_s.values(), default=1.0) > 1 / VERIFY_BELOW_PER_S
        if slow or self._since_verified >= VERIFY_EACH:
            self._since_verified = 0
            return True
        return False

    def _quarantine(self) -> None:
        with contextlib.suppress(WrongEvent):
            self.token.on(tokens.Event.WRONG_SIGNATURE, f"lane {self.lane.name} made a signature that does not verify")

    def withdraw(self, work: Work) -> list[tuple[int, Outcome]]:
        """
        Start no more items of this request; at most one is late.

        Answers what is known of those in this lane: signed, or under C_Sign (INDETERMINATE). The others were not
        attempted and will not be.
        """
        known: list[tuple[int, Outcome]] = []
        for frame, number in self._out.values():
            assert self._pages is not None
            page, slot = self._pages[number], 0
            for run in frame.runs:
                count = run.stop - run.start
                if run.work is work:
                    for offset in range(count):
                        page.skip(slot + offset)
                    under = page.under
                    for offset in range(count):
                        index = run.start + offset
                        outcome = self._outcome(frame, run, index, page, slot + offset, "")
                        if outcome is None and under == slot + offset:
                            outcome = Outcome(Status.INDETERMINATE, reason="TOKEN_TIMEOUT", token=self.token.config.name)
                        if outcome is not None:
                            known.append((index, outcome))
                slot += count
        return known

    async def _clear_up(self) -> None:
        """The process is over, or must be: settle what it had, free what it held."""
        child, self._child = self._child, None
        if child is not None:
            await child.close()
            ended = self._killed_for or child.ended.result()
            for frame, page in self._out.values():
                self._settle(frame, page, ended)
        self._out.clear()
        if self._pages is not None:
            self._pages.close()
            self._pages = None
        self.lane.in_flight = 0
        self.lane.keys = frozenset()
        self.lane.on(lanes.Event.LOST)
        self.token.changed()


def _work_at(frame: Frame, slot: int) -> Run:
    for run in frame.runs:
        slot -= run.stop - run.start
        if slot < 0:
            return run
    raise IndexError(slot)


def _verifies(frame: Frame, item: bytes, signature: bytes) -> bool:
    work = frame.runs[0].work
    try:
        verify(work.algorithm, work.spki, item, signature)
    except Exception:  # noqa: BLE001 -- whatever is wrong with it, it is not released
        return False
    return True


def _ranges(indexes: list[int]) -> list[tuple[int, int]]:
    """Consecutive indexes as ranges, last first: each goes back to the front of its request."""
    ranges: list[tuple[int, int]] = []
    for index in indexes:
        if ranges and ranges[-1][1] == index:
            ranges[-1] = (ranges[-1][0], index + 1)
        else:
            ranges.append((index, index + 1))
    return ranges[::-1]


def _reason(problem: str) -> str:
    """The reason (errors.REASONS) for how a lane or a call ended."""
    if problem in _REMOVED:
        return "TOKEN_REMOVED"
    if problem == "TOKEN_TIMEOUT":
        return "TOKEN_TIMEOUT"
    if problem.startswith(("signal", "exit")):
        return "MODULE_CRASH"
    return "TOKEN_FAULT"


__all__ = ["LaneKeeper", "Module", "StartFailed", "TokenKeeper"]
