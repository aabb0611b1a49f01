"""
The pool: requests wait, lanes sign, one decision (`assign`) matches them.

    async with Pool([TokenConfig("card", module, "my-token", pin=PinFile(path))], state=Path("var/pool")) as pool:
        await pool.ready()
        outcomes = await pool.sign(pool.key("my-key"), Algorithm(Scheme.ECDSA, Hash.SHA256), [digest])

A person's token signs only in a lease, with the token's own PIN:

    async with pool.lease("signing-stick", caller="window", pin=Pin(typed), timeout_s=60) as lease:
        outcomes = await lease.sign(Algorithm(Scheme.ECDSA, Hash.SHA256), [digest])

The mutable state is the line, the leases and the keepers; everything else is derived. All of it belongs to one event
loop.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pool import token as tokens
from pool.attendant import Attendant
from pool.backlog import BACKLOG_ITEMS_MAX, CALLER_ITEMS_MAX, Backlog
from pool.errors import BadRequest, Unavailable
from pool.keeper import ABLE, COMES_BACK_S, TokenKeeper
from pool.key import Key
from pool.lane import Lane
from pool.lane import State as LaneState
from pool.lease import Lease
from pool.line import Line, check
from pool.mechanism import Algorithm
from pool.module import Module
from pool.personal import PersonalAttendant
from pool.pin import Pin
from pool.process import Child, Start
from pool.reader import Reset, reset_card
from pool.record import Record
from pool.token import Presence, TokenConfig
from pool.tries import Tries, check_person
from pool.work import Outcomes, Work

log = logging.getLogger("pool")

TIMEOUT_S = 30.0  # a request that names no time


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
    personal: bool
    pin_tries_used: int  # may be spent
    pin_tries: int

    @property
    def advice(self) -> str:
        """What an operator does about it; '' where nothing is asked for."""
        return tokens.advice(self.state, self.detail)

    @property
    def is_starting(self) -> bool:
        """Whether it is being opened: neither a service nor a person could use it yet, and nothing forbids it."""
        waits = self.personal and any(lane.state is LaneState.OPEN for lane, _ in self.lanes)
        return self.state is tokens.State.OPEN and not waits


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
        reset: Reset = reset_card,
        start: Start | None = None,
    ) -> None:
        names = [config.name for config in configs]
        if len(set(names)) != len(names):
            raise ValueError("two tokens have the same name")
        self._service_lanes: list[Attendant] = []
        self._personal_lanes: list[PersonalAttendant] = []
        self._line = Line(Backlog(backlog_items_max, caller_items_max), self._service_lanes, self._refusal)
        self._reset = reset
        self._start = start or Child.start
        self._keys = None if keys is None else {key.ref: key for key in keys}
        self._state_dir = state
        self._configs = list(configs)
        self._keepers: dict[str, TokenKeeper] = {}
        self._tries: Tries | None = None
        self._tasks: list[asyncio.Task[None]] = []  # asyncio itself holds tasks weakly
        self._watchers: set[asyncio.Event] = set()
        self._closed = False
        self._kept: str | None = None  # since the service stops: the key that is still signed with
        self._at_work: Counter[str] = Counter()  # requests, by caller

    async def __aenter__(self) -> Self:
        self._tries = await asyncio.to_thread(Tries, self._state_dir / "tries.sqlite")
        modules: dict[Any, Module] = {}
        for config in self._configs:
            # A module that is kept to one reader has nothing in common with its like for another.
            what = (config.module_sha256, config.reader)
            store = (str(config.module), tuple(sorted(config.environment.items())), *what)
            module = modules.setdefault(store, Module(config.module, config.environment, self._start, *what))
            keeper = TokenKeeper(config, module, self._tries, self._wanted, self._token_moved)
            self._keepers[config.name] = keeper
            if config.personal:
                self._personal_lanes.append(PersonalAttendant(keeper, self._changed, self._reset))
                continue
            for index in range(config.lanes):
                self._service_lanes.append(Attendant(keeper, index, self._line.lost, self._changed, self._reset))
        self._tasks = [asyncio.create_task(lane.run(), name=lane.lane.name) for lane in self._lanes()]
        self._tasks += [asyncio.create_task(k.look_for(), name=k.config.name) for k in self._keepers.values()]
        for task in self._tasks:
            task.add_done_callback(_say_why)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop: what no lane has is NOT_ATTEMPTED, leases end, lanes log out, and no process is left."""
        self._closed = True
        self._line.turn_away()
        await asyncio.gather(*(lane.end() for lane in self._lanes()))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tries is not None:
            self._tries.close()

    def turn_away(self, but: str = "") -> None:
        """
        The service stops: what waits is NOT_ATTEMPTED, and nothing more is taken, except for the key `but` (a `Key.ref`).
        What lanes have comes to its end.
        """
        self._kept = but
        self._line.turn_away()
        for personal in self._personal_lanes:
            personal.turn_away()

    def revoke(self) -> None:
        """Requests whose record says that they are revoked: what no lane has begun of them is NOT_ATTEMPTED."""
        self._line.revoke()
        for personal in self._personal_lanes:
            personal.revoke()

    def answer_all(self) -> None:
        """Behind `turn_away`: who still waits for a lane is answered what is known now."""
        self._line.withdraw_all("POOL_CLOSED", but=self._kept or "")
        for personal in self._personal_lanes:
            personal.answer_all()

    async def ready(self, timeout_s: float = 30.0) -> None:
        """Wait until no token is being opened any more (each is READY, or waits for its person, or says why not)."""
        async with asyncio.timeout(timeout_s):
            async for views in self.watch():
                if not any(view.is_starting for view in views):
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
        for lane in self._service_lanes:
            lane.ask_to_stop()
        for personal in self._personal_lanes:
            personal.reopen()

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
        spki = self._spki(key)
        check(spki, algorithm, items)
        done: asyncio.Future[Outcomes] = asyncio.get_running_loop().create_future()
        self._at_work[caller] += 1
        try:
            return await self._line.sign(
                Work(caller, key, spki, algorithm, items, time.monotonic() + timeout_s, done, record)
            )
        finally:
            self._at_work[caller] -= 1
            if not self._at_work[caller]:
                del self._at_work[caller]

    def is_too_busy(self, key: str, algorithm: Algorithm, count: int, caller: str, timeout_s: float) -> bool:
        """Whether `sign` would raise `Busy` for so many items now, because what waits before them leaves them no time."""
        return self._line.is_too_busy(key, algorithm, count, caller, timeout_s)

    def is_at_work(self, caller: str) -> bool:
        """Whether something of this caller waits for service tokens' lanes, or is with them."""
        return caller in self._at_work

    @contextlib.asynccontextmanager
    async def lease(
        self, token_or_key: str, *, caller: str, pin: Pin | None, timeout_s: float, override: bool = False
    ) -> AsyncIterator[Lease]:
        """
        A person's token for one caller, by the token's own PIN, for the time of the block and at most `timeout_s`, in
        which the wait for one's turn counts, too.

        `token_or_key` is a personal token's name, or the `Key.ref` of a key on one. `pin` is None for a token whose PIN is
        typed at its reader. `override` spends a try that may be
        the last: it is written down. Raises `PinRefused` (PIN_INCORRECT, PIN_FINAL_TRY_GUARD, PIN_UNCLEAR),
        `Unavailable` (PIN_LOCKED, TOKEN_BUSY, what the token's state says, how its lane was lost), and `BadRequest`.
        When it is raised before the PIN was sent, the `Pin` may be used again; once sent it is forgotten.
        """
        deadline = time.monotonic() + timeout_s
        personal, key = self._personal(token_or_key)
        personal.check_pin(pin)
        lease = await personal.lease(key, caller, pin, deadline, override=override)
        try:
            yield lease
        finally:
            lease.end("LOGIN_REQUIRED")

    def _personal(self, token_or_key: str) -> tuple[PersonalAttendant, str]:
        """The personal token that is meant, and the key, '' for its only one."""
        if self._closed or self._kept is not None:
            raise Unavailable("POOL_CLOSED")
        for lane in self._personal_lanes:
            if lane.token.config.name == token_or_key:
                return lane, ""
        unseen = [lane for lane in self._personal_lanes if lane.token.keys is None]
        holders = self._personal_holders(token_or_key) or unseen
        if not holders:
            raise BadRequest("KEY_UNKNOWN", "no person's token has it, by name or key")
        return min(holders, key=lambda lane: lane.token.state is not tokens.State.OPEN), token_or_key

    def _personal_holders(self, key: str) -> list[PersonalAttendant]:
        return [lane for lane in self._personal_lanes if key in (lane.token.keys or {})]

    def _spki(self, ref: str) -> bytes:
        if self._keys is not None:
            if ref in self._keys:
                return self._keys[ref].spki
        else:
            for keeper in self._keepers.values():
                if keeper.keys and ref in keeper.keys:
                    return keeper.keys[ref].spki
        raise BadRequest("KEY_UNKNOWN")

    def _refusal(self, key: str) -> Unavailable | None:
        """Why no token with a service PIN signs with this key; None if one does or is just being opened."""
        if self._closed or self._kept not in {None, key}:
            return Unavailable("POOL_CLOSED")
        keepers = [k for k in self._keepers.values() if not k.config.personal]
        if self._personal_holders(key) and not any(key in (k.keys or {}) for k in keepers):
            return Unavailable("LOGIN_REQUIRED")
        holders = [k for k in keepers if k.keys is None or key in k.keys]
        if any(keeper.state in ABLE for keeper in holders):
            return None
        if not holders:
            return Unavailable("KEY_UNKNOWN", "no token that was seen has it")
        return min(holders, key=lambda k: COMES_BACK_S.get(k.state, 1e9)).refusal()

    def problem(self, key: str) -> str:
        """Why nobody can sign with this key now, as a reason; empty if somebody can, in a lease if it is a person's."""
        refusal = self._refusal(key)
        if refusal is None:
            ready = any(key in lane.lane.keys for lane in self._service_lanes)
            return "" if ready else "TOKEN_STARTING"
        if refusal.reason != "LOGIN_REQUIRED":
            return refusal.reason
        holders = self._personal_holders(key)
        if any(lane.lane.state is LaneState.OPEN for lane in holders):
            return ""
        return holders[0].token.refusal().reason

    def presence(self, key: str) -> Presence | None:
        """What a person does at the token that has this key."""
        return next((lane.token.config.presence for lane in self._personal_holders(key)), None)

    def done_in_s(self, key: str, algorithm: Algorithm, count: int, caller: str) -> float | None:
        """When so many items of this caller would be done, seconds from now; None where nobody can sign with the key now."""
        return None if self.problem(key) else self._line.done_in_s(key, algorithm, count, caller)

    def _wanted(self) -> Sequence[Key] | None:
        return None if self._keys is None else list(self._keys.values())

    def _token_moved(self, keeper: TokenKeeper) -> None:
        """A token that is not able any more takes no more work, from this moment on."""
        if keeper.state not in ABLE:
            for lane in self._lanes():
                if lane.token is keeper:
                    lane.ask_to_stop()
        for personal in self._personal_lanes:
            personal.turns.tell()
        self._changed()
        self._line.turn_away()

    def _changed(self) -> None:
        """Something moved: give out work, tell who watches."""
        self._line.assign_soon()
        for event in self._watchers:
            event.set()

    def _lanes(self) -> list[Attendant]:
        return [*self._service_lanes, *self._personal_lanes]

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
            lanes=tuple((lane.lane, lane.pid) for lane in self._lanes() if lane.token is keeper),
            waiting=self._line.waiting_for(keys),
            personal=config.personal,
            pin_tries_used=0 if keeper.identity is None else keeper.tries.known(keeper.identity).spent,
            pin_tries=config.pin_tries,
        )

    async def watch(self, every_s: float | None = None) -> AsyncIterator[list[TokenView]]:
        """
        A snapshot now, and one after each change; changes faster than the reader are seen as one. `every_s`: one after
        this time, too, because what waits grows without one.
        """
        async with contextlib.aclosing(self.changes(every_s)) as changes:
            async for _ in changes:
                yield self.snapshot()

    async def changes(self, every_s: float | None = None) -> AsyncGenerator[bool, None]:
        """Whether a token can sign, for a service or a person: now, and after each change of anything."""
        event = asyncio.Event()
        self._watchers.add(event)
        try:
            while True:
                event.clear()
                in_use = {tokens.State.READY} | tokens.IN_USE
                yield any(keeper.state in in_use for keeper in self._keepers.values()) or any(
                    lane.lane.state is LaneState.OPEN for lane in self._personal_lanes
                )
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(every_s):
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
            if override:
                self._tries.override(keeper.identity, "an operator")
            self._tries.grant(keeper.identity, anew=override and not keeper.gives_back)
        if keeper.state is tokens.State.QUARANTINED and keeper.identity is not None:
            assert self._tries is not None
            self._tries.release(keeper.identity)
        keeper.on(tokens.Event.UNLOCK)

    def _keeper(self, name: str) -> TokenKeeper:
        if name not in self._keepers:
            raise BadRequest("TOKEN_UNKNOWN")
        return self._keepers[name]


def _say_why(task: asyncio.Task[None]) -> None:
    """A keeper that ends by an error is a fault of ours: the log says which, and the token shows no sign of life."""
    if not task.cancelled() and task.exception() is not None:
        log.critical(
            "the task of %s ended by a fault of ours: restart the service, and report it",
            task.get_name(),
            exc_info=task.exception(),
        )
