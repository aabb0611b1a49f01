"""
The pool: requests wait, lanes sign, one decision (`assign`) matches them.

    async with Pool([TokenConfig("card", module, "my-token", pin=PinFile(path))], state=Path("var/pool")) as pool:
        outcomes = await pool.sign(pool.key("my-key"), Algorithm(Scheme.ECDSA, Hash.SHA256), [digest])

The mutable state is `self._backlog` and the keepers; everything else is derived. All of it belongs to one event loop.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pool import forecast
from pool import token as tokens
from pool.assign import CUT_PAUSE_S, Run, assign, to_cut
from pool.attendant import Attendant
from pool.backlog import BACKLOG_ITEMS_MAX, CALLER_ITEMS_MAX, Backlog, BacklogFull, TooMuch
from pool.errors import BadRequest, Busy, Unavailable
from pool.keeper import ABLE, TokenKeeper
from pool.key import Key
from pool.lane import Lane
from pool.mechanism import EDDSA_MESSAGE_BYTES_MAX, Algorithm
from pool.module import Module
from pool.pressure import Pressure
from pool.public import algorithms
from pool.record import Record
from pool.token import TokenConfig
from pool.tries import Tries, check_person
from pool.work import Outcome, Outcomes, Status, Work

log = logging.getLogger("pool")

TIMEOUT_S = 30.0  # a request that names no time
HOLD_WORTH_S, HOLD_S = 0.0005, 0.003  # on a busy loop what is worth so little waits for company, so long at most
_COMES_BACK_S = {tokens.State.ABSENT: 3.0, tokens.State.TRIPPED: 30.0, tokens.State.OPEN: 1.0}


@dataclass(frozen=True, slots=True)
class TokenView:
    """A token as it is now: for operators, metrics and tests. `lanes` are live; look, do not touch."""

    name: str
    kind: str
    state: tokens.State
    since: float  # seconds since the epoch
    detail: str
    serial: str
    model: str
    label: str
    module: str
    keys: tuple[str, ...]
    lanes: tuple[tuple[Lane, int], ...]  # with the process id, 0 for none
    waiting: int  # digests in the line for keys of this token


class Pool:
    """Tokens, their lanes, and the line before them. `keys` None: every key pair found on the tokens."""

    def __init__(
        self,
        configs: Sequence[TokenConfig],
        *,
        state: Path,
        keys: Sequence[Key] | None = None,
        backlog_items_max: int = BACKLOG_ITEMS_MAX,
        caller_items_max: int = CALLER_ITEMS_MAX,
    ) -> None:
        names = [config.name for config in configs]
        if len(set(names)) != len(names):
            raise ValueError("two tokens have the same name")
        self._backlog = Backlog(backlog_items_max, caller_items_max)
        self._keys = None if keys is None else {key.ref: key for key in keys}
        self._state_dir = state
        self._configs = list(configs)
        self._keepers: dict[str, TokenKeeper] = {}
        self._tries: Tries | None = None
        self._lanes: list[Attendant] = []
        self._tasks: list[asyncio.Task[None]] = []  # asyncio itself holds tasks weakly
        self._watchers: set[asyncio.Event] = set()
        self._closed = False
        self._assigning = False
        self._pressure = Pressure()
        self._held: asyncio.TimerHandle | None = None
        self._next_look: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._tries = await asyncio.to_thread(Tries, self._state_dir / "tries.sqlite")
        modules: dict[tuple[str, tuple[tuple[str, str], ...]], Module] = {}
        for config in self._configs:
            store = (str(config.module), tuple(sorted(config.environment.items())))
            module = modules.setdefault(store, Module(config.module, config.environment))
            keeper = TokenKeeper(config, module, self._tries, self._wanted, self._token_moved)
            self._keepers[config.name] = keeper
            for index in range(config.lanes):
                self._lanes.append(Attendant(keeper, index, self._lost, self._changed))
        self._tasks = [asyncio.create_task(lane.run(), name=lane.lane.name) for lane in self._lanes]
        self._tasks += [asyncio.create_task(k.look_for(), name=k.config.name) for k in self._keepers.values()]
        for task in self._tasks:
            task.add_done_callback(_say_why)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop: what no lane has is NOT_ATTEMPTED, lanes log out, and no process is left."""
        self._closed = True
        for work in list(self._backlog):
            self._give_up(work, "POOL_CLOSED")
        await asyncio.gather(*(lane.end() for lane in self._lanes))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tries is not None:
            self._tries.close()

    async def ready(self, timeout_s: float = 30.0) -> None:
        """Wait until no token is being opened any more (each is READY, or says why not)."""
        async with asyncio.timeout(timeout_s):
            async for views in self.watch():
                if all(view.state is not tokens.State.OPEN for view in views):
                    return

    def key(self, label: str) -> str:
        """The reference of the only key with this label on the tokens; raises `BadRequest` for none or several."""
        refs = {
            ref for keeper in self._keepers.values() for ref, key in (keeper.keys or {}).items() if key.label == label
        }
        if len(refs) != 1:
            raise BadRequest("KEY_UNKNOWN", f"{len(refs)} keys are labelled {label!r}")
        return refs.pop()

    def set_keys(self, keys: Sequence[Key]) -> None:
        """Other keys are wanted from now on: lanes are opened anew one by one when what they hold differs."""
        self._keys = {key.ref: key for key in keys}
        for lane in self._lanes:
            lane.ask_to_stop()

    async def sign(
        self,
        key: str,
        algorithm: Algorithm,
        items: Sequence[bytes],
        *,
        caller: str = "",
        timeout_s: float = TIMEOUT_S,
        record: Record | None = None,
    ) -> Outcomes:
        """
        One outcome for each item (a digest; for Ed25519 a message), in order. `record` has in writing what a lane gets
        before the lane does.

        `key` is a `Key.ref`. Raises `BadRequest`, `Busy` or `Unavailable` when nothing was attempted. On cancellation
        at most one more item is signed, and its signature goes nowhere.
        """
        self._check(key, algorithm, items)
        self._check_able(key)
        kind, now = (key, algorithm), time.monotonic()
        forecast.check(kind, len(items), caller, timeout_s, self._backlog, self._bare_lanes(), now)
        loop = asyncio.get_running_loop()
        work = Work(caller, key, self._spki(key), algorithm, items, now + timeout_s, loop.create_future(), record)
        try:
            self._backlog.add(work)
        except BacklogFull as full:
            wait_s = forecast.wait_s(kind, caller, self._backlog, self._bare_lanes(), now)
            raise Busy("BACKLOG_FULL", wait_s or 1.0, str(full)) from None
        except TooMuch as much:
            raise BadRequest("BATCH_TOO_LARGE", str(much)) from None
        if work.is_short and not any(key in lane.lane.keys and not lane.lane.in_flight for lane in self._lanes):
            self._make_way()
        self._assign_soon()
        timer = loop.call_at(loop.time() + timeout_s, self._expire, work)
        try:
            return await work.done
        except asyncio.CancelledError:
            self._withdraw(work, "CANCELLED")
            raise
        finally:
            timer.cancel()

    def _bare_lanes(self) -> list[Lane]:
        return [lane.lane for lane in self._lanes]

    def _check(self, key: str, algorithm: Algorithm, items: Sequence[bytes]) -> None:
        if algorithm not in algorithms(self._spki(key)):
            raise BadRequest("ALGORITHM_NOT_ALLOWED", f"the key makes no {algorithm}")
        if not items:
            raise BadRequest("BATCH_EMPTY")
        exact = algorithm.item_bytes
        if exact is not None and set(map(len, items)) == {exact}:
            return
        for index, item in enumerate(items):
            if len(item) != exact and (exact is not None or not 0 < len(item) <= EDDSA_MESSAGE_BYTES_MAX):
                wanted = f"{exact} bytes" if exact else f"1 to {EDDSA_MESSAGE_BYTES_MAX} bytes"
                raise BadRequest(
                    "DIGEST_LENGTH", f"item {index} has {len(item)} bytes, {algorithm} takes {wanted}", index
                )

    def _spki(self, ref: str) -> bytes:
        if self._keys is not None:
            if ref in self._keys:
                return self._keys[ref].spki
        else:
            for keeper in self._keepers.values():
                if keeper.keys and ref in keeper.keys:
                    return keeper.keys[ref].spki
        raise BadRequest("KEY_UNKNOWN")

    def _check_able(self, key: str) -> None:
        """Raise `Unavailable` when no token can be expected to sign with the key soon."""
        if self._closed:
            raise Unavailable("POOL_CLOSED")
        refusal = self._refusal(key)
        if refusal is not None:
            raise refusal

    def _refusal(self, key: str) -> Unavailable | None:
        """Why no token signs with this key; None if one does or is just being opened."""
        holders = [k for k in self._keepers.values() if k.keys is None or key in k.keys]
        if any(keeper.state in ABLE for keeper in holders):
            return None
        if not holders:
            return Unavailable("KEY_UNKNOWN", "no token that was seen has it")
        keeper = min(holders, key=lambda k: _COMES_BACK_S.get(k.state, 1e9))
        reason = tokens.REFUSAL[keeper.state]
        return Unavailable(reason, f"token {keeper.config.name}: {keeper.detail}", _COMES_BACK_S.get(keeper.state))

    def problem(self, key: str) -> str:
        """Why no token signs with this key now, as a reason; empty if one does."""
        refusal = self._refusal(key)
        if refusal is not None:
            return refusal.reason
        ready = any(key in lane.lane.keys for lane in self._lanes)
        return "" if ready else "TOKEN_STARTING"

    def _wanted(self) -> Sequence[Key] | None:
        return None if self._keys is None else list(self._keys.values())

    def _token_moved(self, keeper: TokenKeeper) -> None:
        """A token that is not able any more takes no more work, from this moment on."""
        if keeper.state not in ABLE:
            for lane in self._lanes:
                if lane.token is keeper:
                    lane.ask_to_stop()
        self._changed()
        self._turn_away()

    def _changed(self) -> None:
        """Something moved: give out work, tell who watches."""
        self._assign_soon()
        for event in self._watchers:
            event.set()

    def _turn_away(self) -> None:
        """Work that no token can take any more is told so."""
        refusals: dict[str, Unavailable | None] = {}
        for work in list(self._backlog):
            refusal = refusals.setdefault(work.key, self._refusal(work.key))
            if refusal is not None:
                self._give_up(work, refusal.reason, refusal.detail)

    def _make_way(self) -> None:
        """A short request does not wait behind the bulk that lanes have: seen to when it comes, and while it waits."""
        work = self._backlog.oldest_short()
        if work is None or self._closed:
            return
        pairs = [(lane.lane, lane.frames) for lane in self._lanes]
        chosen = to_cut(work, pairs, self._backlog.clocks(), time.monotonic())
        for lane in self._lanes:
            if lane.lane is chosen:
                lane.cut()
        if self._next_look is None:
            self._next_look = asyncio.get_running_loop().call_later(CUT_PAUSE_S, self._look_again)

    def _look_again(self) -> None:
        self._next_look = None
        self._make_way()

    def _assign_soon(self) -> None:
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

    def _lost(self, run: Run, seconds: float) -> None:
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
        if refusal is not None:
            self._give_up(work, refusal.reason, refusal.detail)
        elif self._closed:
            self._give_up(work, "POOL_CLOSED")

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
            detail = ""
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

    def snapshot(self) -> list[TokenView]:
        """Every token as it is now."""
        return [self._view(keeper) for keeper in self._keepers.values()]

    def _view(self, keeper: TokenKeeper) -> TokenView:
        config, keys = keeper.config, keeper.keys or {}
        return TokenView(
            name=config.name,
            kind=config.kind,
            state=keeper.state,
            since=keeper.since,
            detail=keeper.detail,
            serial=keeper.serial,
            model=keeper.model,
            label=config.label,
            module=str(config.module),
            keys=tuple(keys),
            lanes=tuple((lane.lane, lane.pid) for lane in self._lanes if lane.token is keeper),
            waiting=self._backlog.waiting_for(keys),
        )

    async def watch(self) -> AsyncIterator[list[TokenView]]:
        """A snapshot now, and one after each change; changes faster than the reader are seen as one."""
        async with contextlib.aclosing(self.changes()) as changes:
            async for _ in changes:
                yield self.snapshot()

    async def changes(self) -> AsyncGenerator[bool, None]:
        """Whether a token can sign: now, and after each change of anything."""
        event = asyncio.Event()
        self._watchers.add(event)
        try:
            while True:
                event.clear()
                yield any(keeper.state is tokens.State.READY for keeper in self._keepers.values())
                await event.wait()
        finally:
            self._watchers.discard(event)

    def drain(self, name: str) -> None:
        """Take a token out of service: frames in its lanes are finished, then it logs out. Raises `WrongEvent`."""
        self._keeper(name).on(tokens.Event.DRAIN, "by an operator")

    def resume(self, name: str) -> None:
        """Put a drained token back into service. Raises `WrongEvent`."""
        self._keeper(name).on(tokens.Event.RESUME)

    def unlock(self, name: str, *, override: bool = False) -> None:
        """
        A person has seen to a LOCKED, QUARANTINED or TRIPPED token and allows one try.

        Raises `TryRefused` where the next refusal could lock the token for good, unless `override`; `WrongEvent` where
        there is nothing to unlock.
        """
        keeper = self._keeper(name)
        tokens.after(keeper.state, tokens.Event.UNLOCK)
        if keeper.state is tokens.State.LOCKED and keeper.identity is not None:
            assert self._tries is not None
            check_person(self._tries.count(keeper.identity), keeper.config.pin_tries, override=override)
            self._tries.grant(keeper.identity)
        if keeper.state is tokens.State.QUARANTINED and keeper.identity is not None:
            assert self._tries is not None
            self._tries.release(keeper.identity)
        keeper.on(tokens.Event.UNLOCK)

    def _keeper(self, name: str) -> TokenKeeper:
        if name not in self._keepers:
            raise BadRequest("TOKEN_UNKNOWN", f"no token is configured with the name {name!r}")
        return self._keepers[name]


def _say_why(task: asyncio.Task[None]) -> None:
    """A keeper that ends by an error is a fault of ours: the log says which, and the token shows no sign of life."""
    if not task.cancelled() and task.exception() is not None:
        log.critical("the task of %s ended", task.get_name(), exc_info=task.exception())
