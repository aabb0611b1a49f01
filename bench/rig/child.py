"""
Processes of the bench: each ends with it, whatever happens.

A child that takes orders reads one line and answers one line. It gets no terminal signals (the bench ends it itself),
is killed when the bench dies, and ends by itself at the end of its standard input.
"""

import ctypes
import json
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class ChildError(RuntimeError):
    """A child ended, or answered with an error."""


def die_with_parent() -> None:
    """Run in the child before it becomes its program."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def start(command: Sequence[Any], *, environment: Mapping[str, str], **more: Any) -> subprocess.Popen[bytes]:
    """A process in a session of its own that is killed when this one dies."""
    words = [str(word) for word in command]
    return subprocess.Popen(
        words,
        env=dict(environment),
        start_new_session=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509 -- the bench has one thread
        **more,
    )


class Child:
    """A child that takes orders; `ask` is one order and its answer, `tell` and `answer` are the two halves."""

    def __init__(self, command: Sequence[Any], *, environment: Mapping[str, str], cwd: Path | None = None) -> None:
        self._name = " ".join(Path(str(word)).name for word in command[:3])
        pipe = subprocess.PIPE
        self.process = start(command, environment=environment, stdin=pipe, stdout=pipe, cwd=cwd)
        try:
            ready = self._line()
            if ready != "ready":
                raise ChildError(f"{self._name}: said {ready!r} instead of 'ready'")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def tell(self, order: str | dict[str, Any]) -> None:
        assert self.process.stdin is not None
        text = order if isinstance(order, str) else json.dumps(order)
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        return self._line()

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """An order and its answer, both JSON; an answer with `error` is raised."""
        self.tell(order)
        return self.told()

    def told(self) -> dict[str, Any]:
        """The answer to an order that was told as JSON."""
        answer: dict[str, Any] = json.loads(self._line())
        if "error" in answer:
            raise ChildError(f"{self._name}: {answer['error']}")
        return answer

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise ChildError(f"{self._name}: ended with {self.process.wait()}")
        return line.decode().strip()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                continue


class Client(Child):
    """A process of `bench.load`. A sample of what an order got is to be verified before the next: no clock runs then."""

    def verify(self) -> None:
        self.ask({"do": "verify"})

    def got(self, order: dict[str, Any]) -> dict[str, Any]:
        """An order and its answer, what it got verified."""
        answer = self.ask(order)
        self.verify()
        return answer
