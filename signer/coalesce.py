"""
Many single calls at one time become few messages: what waits while a message is away goes out with the next one.

Nothing waits by the clock. A lone call leaves at once; under load the batches are as long as the service is slow, which
is when they pay. Callers who ask again as soon as they are answered would all share one message, with the token idle
while it travels: what waits is shared out among the messages that may leave.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial

BATCH_MAX = 1_000  # digests in a message: about 0.7 s of one RSA-2048 lane, a fifth of the service's limit
AWAY_MAX = 2  # messages of a kind under way: one with the token, one on its way there
PART_LEAST = 32  # digests: a message costs the service as much as about ten P-256 signatures

Send = Callable[[Hashable, Sequence[bytes]], Awaitable[Sequence["bytes | Exception"]]]


class TooMany(Exception):
    """A message had more digests than the service takes of this kind, and nothing of it was attempted."""


class Coalescer:
    """
    `send` takes a kind, which says what may share a message, and the digests of one; it answers each, or raises `TooMany`,
    and is given half as many.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._lines: dict[Hashable, _Line] = {}

    def ask(self, kind: Hashable, digest: bytes) -> "asyncio.Future[bytes]":
        """The answer for one digest, or the error it was answered with, or what its whole message failed with."""
        line = self._lines.get(kind)
        if line is None:
            line = self._lines[kind] = _Line(partial(self._send, kind), partial(self._forget, kind))
        return line.ask(digest)

    def _forget(self, kind: Hashable, line: "_Line") -> None:
        if self._lines.get(kind) is line:
            del self._lines[kind]


class _Line:
    """What waits of one kind; `over` is told when nothing does and nothing is away."""

    def __init__(
        self,
        send: Callable[[Sequence[bytes]], Awaitable[Sequence["bytes | Exception"]]],
        over: "Callable[[_Line], None]",
    ) -> None:
        self._send = send
        self._over = over
        self._most = BATCH_MAX
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[bytes, asyncio.Future[bytes]]] = []
        self._away: set[asyncio.Task[None]] = set()

    def ask(self, digest: bytes) -> "asyncio.Future[bytes]":
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._waiting.append((digest, future))
        if len(self._waiting) == 1:
            # After what else is ready in this turn of the loop: calls made together leave together.
            self._loop.call_soon(self._leave)
        return future

    def _leave(self) -> None:
        while self._waiting and len(self._away) < AWAY_MAX:
            share = math.ceil(len(self._waiting) / (AWAY_MAX - len(self._away)))
            count = min(self._most, max(PART_LEAST, share))
            batch = [entry for entry in self._waiting[:count] if not entry[1].done()]  # a cancelled call stays home
            del self._waiting[:count]
            if batch:
                task = self._loop.create_task(self._carry(batch))
                self._away.add(task)
                task.add_done_callback(self._back)
        if not self._waiting and not self._away:
            self._over(self)

    def _back(self, task: "asyncio.Task[None]") -> None:
        self._away.discard(task)
        self._leave()

    async def _carry(self, batch: list[tuple[bytes, "asyncio.Future[bytes]"]]) -> None:
        try:
            answers = await self._send([digest for digest, _ in batch])
            if len(answers) != len(batch):
                raise ValueError(f"{len(batch)} digests were sent, and {len(answers)} answers came")
        except TooMany as error:
            if len(batch) > 1:
                self._most = min(self._most, len(batch) // 2)
                self._waiting[:0] = batch
                return
            cause = error.__cause__
            answers = [cause if isinstance(cause, Exception) else error]
        except Exception as error:  # noqa: BLE001 -- it is handed to every caller of the message
            answers = [error] * len(batch)
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
