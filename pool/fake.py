"""
Children without processes: the real worker and the real probe, each in a greenlet of its own, over a module that is
made of Python objects. For tests and simulations, which install greenlet; `Pool(..., start=Fakes(load).start)`.

A child runs from where it is woken to where it waits: for a message, or within a call of its module (`Process.sleep`).
Everything else stands still meanwhile. So what happens depends on who is woken when, which the event loop decides, and
on nothing else. Threads could be made to take such turns, too; that costs hundreds of times as much.

Rules of this file: what a real child does, its own code does here as well; here is only what the kernel does for it:
messages, time, and death.
"""

import asyncio
import errno
import signal
from collections import deque
from collections.abc import Callable, Mapping
from mmap import mmap
from typing import Any, NoReturn

from greenlet import getcurrent, greenlet

from pool import probe, wire
from pool.process import Child
from pool.worker import Loaded, Worker

# A module for one process: what python-pkcs11's `lib` would answer, and with `cryptoki` what stands for `cryptoki.loaded`.
Load = Callable[[str, "Process"], Any]
# How long something takes, in seconds: 'exec', 'message' (down), 'answer' (up), 'exit' (until the parent sees it).
Delay = Callable[[str], float]

FIRST_PID = 1 << 22  # no process of the kernel has this id or a higher one (PID_MAX_LIMIT)


class _Over(BaseException):
    """The process has ended: nothing of its code goes on."""


class Process:
    """
    What looks like asyncio's process to its parent, and like the kernel to its own code.

    `sleep`, `hang` and `die` are for the module's code.
    """

    def __init__(self, fakes: "Fakes", pid: int, main: Callable[["Process"], None]) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._fakes = fakes
        self._main = main
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._code = 0
        self._is_over = False  # for itself; the parent sees it later
        self._is_waiting = False  # for a message
        self._coming: deque[bytes] = deque()  # on their way down
        self._come: deque[bytes] = deque()
        self.said: deque[bytes] = deque()  # what the parent has not read yet
        self.on_said: Callable[[], Any] = lambda: None
        self._greenlet = greenlet(self._run)
        self._loop.call_later(fakes.delay("exec"), self._begin)

    # ---- the parent's side

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    def send(self, packet: bytes) -> int:
        if self._is_over:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        self._coming.append(packet)
        self._loop.call_later(self._fakes.delay("message"), self._deliver)
        return len(packet)

    def recv_into(self, room: memoryview) -> int:
        if self.said:
            return _put(room, self.said.popleft())
        if self._is_over:
            return 0
        raise BlockingIOError

    def setblocking(self, _value: bool) -> None:
        pass

    def close(self) -> None:
        """The parent's end of the socket; a process that is not over yet finds nothing to read any more."""

    def kill(self) -> None:
        """SIGKILL: it stands in a wait, and never comes back from it."""
        if self._is_over:
            return
        self._code = -signal.SIGKILL
        self._is_over = True
        if self._greenlet:  # begun, and not at its end
            self._step()
        self._bury()

    def _begin(self) -> None:
        if not self._is_over:
            self._step()

    def _deliver(self) -> None:
        if self._is_over:
            return
        self._come.append(self._coming.popleft())
        if self._is_waiting:
            self._is_waiting = False
            self._step()

    def _step(self) -> None:
        """Let it run until it waits or ends."""
        before, self._fakes.running = self._fakes.running, self
        self._greenlet.parent = getcurrent()
        self._greenlet.switch()
        self._fakes.running = before
        if self._is_over:
            self._bury()

    def _bury(self) -> None:
        if self in self._fakes.living:
            self._fakes.living.remove(self)
            if not self._loop.is_closed():
                self._loop.call_later(self._fakes.delay("answer"), self.on_said)
                self._loop.call_later(self._fakes.delay("exit"), self._is_seen)

    def _is_seen(self) -> None:
        self.returncode = self._code
        if not self._ended.done():
            self._ended.set_result(self._code)

    # ---- its own side

    def _run(self) -> None:
        try:
            self._main(self)
        except _Over:
            pass
        except BaseException as error:  # noqa: BLE001 -- as the interpreter does: a traceback, and exit code 1
            self._fakes.errors.append(error)
            self._code = 1
        self._is_over = True

    def _wait(self) -> None:
        if not self._is_over:
            parent = self._greenlet.parent
            assert parent is not None
            parent.switch()
        self.live()

    def read(self) -> bytes:
        while not self._come:
            self._is_waiting = True
            self._wait()
        return self._come.popleft()

    def say(self, packet: bytes) -> None:
        self.said.append(packet)
        self._loop.call_later(self._fakes.delay("answer"), self.on_said)

    def live(self) -> None:
        """Returns while it lives: nothing may happen by what only clears up behind its end."""
        if self._is_over:
            raise _Over

    def sleep(self, seconds: float) -> None:
        """So long in the middle of a call; everybody else goes on."""
        if not self._is_over:
            self._loop.call_later(seconds, self._wake)
        self._wait()

    def _wake(self) -> None:
        if not self._is_over:
            self._step()

    def hang(self) -> NoReturn:
        """Until it is killed."""
        while True:
            self._wait()

    def die(self, code: int) -> NoReturn:
        """Now, by a signal (below zero) or with this exit code."""
        self._code = code
        self._is_over = True
        raise _Over


class _Socket:
    """The child's end of its socket."""

    def __init__(self, process: Process) -> None:
        self.recv_into = lambda room: _put(room, process.read())
        self.send = process.say


def _put(room: memoryview, packet: bytes) -> int:
    room[: len(packet)] = packet
    return len(packet)


class FakeChild(Child):
    """The parent's end, which is the real one but for what the kernel does."""

    _process: Process  # type: ignore[assignment]

    async def _exit(self) -> int:
        return await self._process.wait()

    def _listen(self) -> None:
        self._process.on_said = self._readable

    def _deaf(self) -> None:
        self._process.on_said = lambda: None

    def _kill_group(self) -> None:
        self._process.kill()


class Fakes:
    """Starts children. `load` gives a process its module; a module's `cryptoki` takes the place of `cryptoki.loaded`."""

    def __init__(self, load: Load, delay: Delay = lambda _what: 0.0) -> None:
        self.delay = delay
        self.living: list[Process] = []
        self.started = FIRST_PID - 1
        self.errors: list[BaseException] = []  # what nobody caught: a real child says it on stderr
        self.running: Process | None = None  # who has its turn
        self._load = load

    async def start(
        self, program: str, *args: str, environment: Mapping[str, str], fds: tuple[int, ...] = ()
    ) -> FakeChild:
        """As `Child.start`."""
        mains = {"pool.worker": self._worker, "pool.probe": self._probe}
        memory = mmap(fds[0], wire.PAGE_BYTES * wire.FRAMES_IN_FLIGHT) if fds else None  # inherited with the start
        main = mains[program]
        self.started += 1
        process = Process(self, self.started, lambda process: main(process, args, memory))
        self.living.append(process)
        return FakeChild(process, -1, process)  # type: ignore[arg-type]

    def kill_all(self) -> None:
        """What the kernel does when the parent dies."""
        for process in list(self.living):
            process.kill()

    def _worker(self, process: Process, _args: tuple[str, ...], memory: mmap | None) -> None:
        assert memory is not None
        module: list[Any] = []

        def load(path: str, _sha256: bytes | None) -> tuple[Any, str]:
            module.append(self._load(path, process))
            return module[0], path

        loaded: Loaded = lambda _path: module[0].cryptoki  # noqa: E731
        Worker(_Socket(process), memory, load, loaded).serve()

    def _probe(self, process: Process, _args: tuple[str, ...], _memory: mmap | None) -> None:
        probe.serve(_Socket(process), lambda path, _sha256: (self._load(path, process), path))
