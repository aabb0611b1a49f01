"""
An event loop whose time is a number, and whose every decision that asyncio leaves open comes from the seed.

Time stands while callbacks run, but for a little that each turn of the loop costs; when nothing is ready it jumps to the
next timer. What asyncio promises is kept: callbacks run in the order of `call_soon`, no timer comes before its time.
What it does not promise is drawn: how late a timer comes, and so which of two goes first; when a thread's function runs
and when its answer is seen; that the loop is held up for a while, and then finds many things to do at once.
"""

import asyncio
import contextlib
import os
import random
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn
from unittest import mock

from pool import wire

TURN_S = 0.0001  # at most, that a turn of the loop takes
FENCE_S = 0.0005  # at most, that a lane stands between two steps that its parent may see
LATE_S = (0.0, 1e-6, 1e-4, 0.002)  # at most, that a timer comes late: one of these for a whole run
THREAD_S = 0.004  # at most, until a thread's function runs, and again until its answer is seen
STALL_S = 0.25  # at most, that the loop is held up for
STALLS = 0.0005  # in one turn of so many
EPOCH = 1_900_000_000.0  # what the wall's clock says when the monotonic clock says 0
START_S = 1_000.0


class Crashed(SystemExit):
    """The daemon's process is gone: nothing of it runs on. asyncio lets it through wherever it is raised."""


class Deadlock(AssertionError):
    """Nobody waits for a time, and nothing is ready: nothing will ever happen."""


class Clock:
    """The machine's: it goes on over the daemon's restarts."""

    def __init__(self, chance: random.Random) -> None:
        self.now = START_S
        self.used = 0.0  # of the processor, by the loop's thread
        self.stalled = 0.0  # so long was the loop held up, in all
        self.chance = chance
        self.busy = 0.1  # the share of time that the loop's thread is on its processor
        self.late_s = chance.choice(LATE_S)
        self.lane: Callable[[], Any] = lambda: None  # the process whose thread has its turn

    def go_on(self, seconds: float) -> None:
        self.now += seconds
        self.used += seconds * self.busy

    def monotonic_ns(self) -> int:
        """A lane looks at the clock between two things that its parent may see: between them others have their turn."""
        process = self.lane()
        if process is not None:
            process.sleep(self.chance.random() * TURN_S)
        return int(self.now * 1e9)


class _Fence:
    """wire.FENCE in a lane: between its counter and its look at what the parent wants others have their turn."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __enter__(self) -> None:
        process = self._clock.lane()
        if process is not None and self._clock.chance.random() < 0.5:
            process.sleep(self._clock.chance.random() * FENCE_S)

    def __exit__(self, *_: object) -> None:
        pass


def _exit(code: int) -> NoReturn:
    raise Crashed(code)


@contextlib.contextmanager
def simulated(clock: Clock) -> Iterator[None]:
    """
    For everybody in this process the time is this clock's. All code of pool and signer asks the module `time`, so that
    this one place is enough (a test holds that).
    """
    with (
        mock.patch.object(time, "monotonic", lambda: clock.now),
        mock.patch.object(time, "monotonic_ns", clock.monotonic_ns),
        mock.patch.object(time, "time", lambda: EPOCH + clock.now),
        mock.patch.object(time, "thread_time", lambda: clock.used),
        mock.patch.object(time, "sleep", clock.go_on),
        mock.patch.object(wire, "FENCE", _Fence(clock)),
        mock.patch.object(os, "_exit", _exit),
    ):
        yield


class _Selector:
    """Where a loop waits. Nothing comes from outside: what a stream brings is brought by a timer."""

    def __init__(self, loop: "Loop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        self._loop.turn(timeout)
        return []

    def close(self) -> None:
        pass


class Loop(asyncio.BaseEventLoop):
    """One life of the daemon. `look` is called at each turn."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock_resolution = 1e-9
        self._selector = _Selector(self)
        self.clock = clock
        self.look: Callable[[], None] = lambda: None
        self.turns = 0

    def time(self) -> float:
        return self.clock.now

    def turn(self, timeout: float | None) -> None:
        if timeout is None:
            raise Deadlock
        clock = self.clock
        self.turns += 1
        clock.go_on(max(0.0, timeout) + clock.chance.random() * TURN_S)
        if clock.chance.random() < STALLS:
            stall_s = clock.chance.random() * STALL_S
            clock.stalled += stall_s
            clock.busy = clock.chance.choice((0.05, 0.2, 0.7))
            clock.go_on(stall_s)
        self.look()

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        late_s = self.clock.chance.random() * self.clock.late_s
        return super().call_at(when + late_s, callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Threads' functions run at any moment, and one at a time."""
        del executor
        future, chance = self.create_future(), self.clock.chance

        def run() -> None:
            try:
                answer, error = func(*args), None
            except Exception as raised:  # noqa: BLE001 -- handed on
                answer, error = None, raised
            self.call_later(chance.random() * THREAD_S, seen, answer, error)

        def seen(answer: Any, error: Exception | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(answer)

        self.call_later(chance.random() * THREAD_S, run)
        return future

    def add_reader(self, stream: Any, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        stream.on_readable = lambda: callback(*args)

    def remove_reader(self, stream: Any) -> bool:  # type: ignore[override]
        stream.on_readable = lambda: None
        return True

    def _process_events(self, _events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


def bury(loop: Loop, tasks: Sequence[asyncio.Task[Any]]) -> None:
    """
    What a crashed daemon leaves in this process is taken apart, when the run is over: its coroutines run their `finally`,
    and nothing of that may be part of it.
    """
    loop.set_exception_handler(lambda *_: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what such a `finally` would have awaited
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine = task.get_coro()
            for _ in range(10):  # one that waits for something on its way out is asked again
                try:
                    coroutine.close()
                    break
                except BaseException:  # noqa: BLE001 -- whatever it says, it is a dead process's
                    continue
    loop._ready.clear()  # type: ignore[attr-defined]
    loop._scheduled.clear()  # type: ignore[attr-defined]
    loop.close()
