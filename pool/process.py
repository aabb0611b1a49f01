"""
The parent's end of a child process: start it by exec, speak with it in packets, and end it for certain.

Rules of this file: a child has its own process group, so that whatever it forks dies with it; it is spawned from the
event loop's thread, because the kernel's parent-death signal follows the spawning thread; it inherits a few variables
of the environment and no descriptor but its own. It is started by `subprocess`, which makes it by vfork(2) and runs no
Python between that and exec(2); uvloop's own way forks, and runs the interpreter in a copy of a process with gRPC's threads.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from mmap import mmap
from typing import Any

from pool import wire

_SOCKET_BYTES = 2 * wire.PACKET_BYTES_MAX
# What a module may need to find its files and speak a language. Anything else is given in the token's configuration.
_INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "SOFTHSM2_CONF")

_REAP_S = 1.0  # the loop ends, and a killed process is still on its way out

_INBOX = wire.Inbox()  # one for all: a packet is read and done with in one turn of the loop


class ChildLost(Exception):
    """The process ended or broke the protocol; `how` says which, for the operator."""

    def __init__(self, how: str) -> None:
        self.how = how
        super().__init__(how)


class NotSent(ChildLost):
    """... before the message went to it: it has seen nothing of that."""


class Child:
    """
    A process that answers packets. `ask` is for one question at a time; frames, of which two may be out, go by `send`
    and their 'done' comes back through `on_done`.
    """

    def __init__(self, process: subprocess.Popen[bytes], exits: int, sock: socket.socket) -> None:
        """`exits` is a pidfd of the process, which this takes over."""
        self._process = process
        self._exits = exits
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[dict[str, Any]] | None = None
        self._is_killed = False
        self.on_done: Callable[[dict[str, Any]], None] | None = None
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self._listen()
        self._waiter = self._loop.create_task(self._wait())

    @classmethod
    async def start(cls, module: str, *args: str, environment: Mapping[str, str], fds: tuple[int, ...] = ()) -> "Child":
        """Run `python -I -m MODULE SOCKET ARGS... PARENT`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            for sock in (ours, theirs):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
            ours.setblocking(False)
            inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
            process = subprocess.Popen(  # noqa: ASYNC220 -- from this thread, for a millisecond
                [sys.executable, "-I", "-m", module, str(theirs.fileno()), *args, str(os.getpid())],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=None,
                env=inherited | dict(environment), pass_fds=(theirs.fileno(), *fds), start_new_session=True,
            )  # fmt: skip
            try:
                exits = os.pidfd_open(process.pid)
            except BaseException:
                process.kill()
                process.wait()
                raise
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(process, exits, ours)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Put one packet on its way, with open files; raises `NotSent` where the process takes no more."""
        try:
            if fds:
                socket.send_fds(self._sock, [wire.pack(message)], fds)
            else:
                self._sock.send(wire.pack(message))
        except OSError as error:
            raise NotSent(f"it takes no more messages ({error.strerror})") from None

    async def ask(self, message: dict[str, Any] | None, timeout_s: float, fds: Sequence[int] = ()) -> dict[str, Any]:
        """
        The answer to one message (None: to what it was started for); raises `ChildLost`, which is a `NotSent` where the
        message did not go out, and TimeoutError.
        """
        self.put(message, fds)
        return await self.answer(timeout_s)

    def put(self, message: dict[str, Any] | None, fds: Sequence[int] = ()) -> None:
        """The first half of `ask`; raises `NotSent`."""
        self._answer = self._loop.create_future()
        if self.ended.done():
            raise NotSent(self.ended.result())
        if message is not None:
            self.send(message, fds)

    async def answer(self, timeout_s: float) -> dict[str, Any]:
        """The other half: who was cancelled while he waited here may come back and wait again. Raises like `ask`."""
        assert self._answer is not None
        async with asyncio.timeout(timeout_s):
            waiting: set[asyncio.Future[Any]] = {self._answer, self.ended}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if self._answer.done():
            return self._answer.result()
        raise ChildLost(self.ended.result())

    def kill(self) -> None:
        """SIGKILL to the whole process group; idempotent."""
        if self._process.returncode is None:
            self._is_killed = True
            self._kill_group()

    async def close(self) -> None:
        """End it for certain and wait until the kernel has taken it back."""
        self.kill()
        await asyncio.shield(self._waiter)  # who is cancelled here must not cancel the wait for the process

    async def stop(self, within_s: float) -> None:
        """Let it log out and finalise, then end it."""
        with contextlib.suppress(ChildLost):
            self.send({"t": "stop"})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await asyncio.shield(self.ended)
        await self.close()

    async def _wait(self) -> None:
        try:
            code = await self._exit()
            # What a dying child had already said still stands in the socket.
            while self._readable():
                pass
        finally:  # also where the loop ends before the child, which ends when its socket does
            self._deaf()
            self._sock.close()
        self._kill_group()  # what it may have forked
        if not self.ended.done():
            self.ended.set_result(_how(code))

    # What a child that is no process does in another way (fake.py).

    async def _exit(self) -> int:
        """Its exit code, once it has ended."""
        exited = asyncio.Event()
        self._loop.add_reader(self._exits, exited.set)
        try:
            await exited.wait()
        except asyncio.CancelledError:  # the loop ends: nobody else takes back what was killed just now
            if self._is_killed:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_REAP_S)
            raise
        finally:
            self._loop.remove_reader(self._exits)
            os.close(self._exits)
        return self._process.wait()

    def _listen(self) -> None:
        self._loop.add_reader(self._sock, self._readable)

    def _deaf(self) -> None:
        self._loop.remove_reader(self._sock)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _readable(self) -> bool:
        try:
            message = _INBOX.receive(self._sock)
        except (BlockingIOError, ConnectionError):
            return False
        except ValueError:
            self.kill()
            return False
        if message is None:
            self._deaf()
            return False
        if message["t"] == "done":
            if self.on_done is not None:
                self.on_done(message)
        elif self._answer is not None and not self._answer.done():
            self._answer.set_result(message)
        return True


def _how(code: int) -> str:
    if code == wire.EX_LIMIT:
        return wire.WORKER_LIMIT
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


# How a child is started: `Child.start`, or what stands for it where no process is wanted.
Start = Callable[..., Awaitable[Child]]


class Pages:
    """The result pages of one lane process, and the descriptor its child inherits."""

    def __init__(self) -> None:
        self.fd = wire.make_pages()
        self._memory = mmap(self.fd, wire.PAGE_BYTES * wire.FRAMES_IN_FLIGHT)
        self.pages = [wire.Page(self._memory, number) for number in range(wire.FRAMES_IN_FLIGHT)]

    def __getitem__(self, number: int) -> wire.Page:
        return self.pages[number]

    def close(self) -> None:
        for page in self.pages:
            page.release()
        self._memory.close()
        os.close(self.fd)
