"""
The parent end of the processes that hash people's secret codes, and of those that judge one that is chosen.

`Codes` has two hashers and asks each one thing at a time; who comes meanwhile waits, but no more than a second's worth.
A hasher that dies is replaced and asked once more. A question once begun is finished even if nobody waits for it any
more: its answer must never be taken for that of the next one, and to replace a process costs more than to let it finish.
A judge looks at one code and ends, because Python's copies of it end with it; people choose codes seldom.
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from pool.process import Child, ChildLost
from signer.phc import OURS, setting_of, written
from signer.secret import Code

log = logging.getLogger("signer.code")

HASHERS = 2  # at a time, on a small machine's two cores
WAITING_MAX = 64  # 1 s of both, as long as a person waits without a word
UNJUDGED_MAX = 16  # 1 s of the one judge; who signs meanwhile waits for none of them
ANSWER_S = 10.0  # a question takes 25 ms and a start 50 on a machine that is not busy
TRIES = 2

# reason -> what it means and what to do
REASONS = {
    "CODES_BUSY": "As many secret codes wait to be verified as may; try again in a second.",
    "CODES_FAILED": "The process that verifies secret codes was lost twice or cannot be asked now, or the service ends; "
    "try again.",
}
_LOST = (ChildLost, TimeoutError, OSError)  # what a process that dies, hangs or does not start is noticed by
_ABSENT = written(OURS, bytes(OURS.salt_bytes), bytes(OURS.hash_bytes))  # nobody's: no code is known to have this hash


class CodesError(Exception):
    """Nothing was found out about the code. `reason` is a key of `REASONS`."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{reason}: {REASONS[reason]}")


class Codes:
    """`async with Codes() as codes:` the hashers are up; raises `CodesError` CODES_FAILED where they do not start."""

    def __init__(self) -> None:
        self._hashers = [_Hasher() for _ in range(HASHERS)]
        self._idle = list(self._hashers)
        self._turns = asyncio.Semaphore(HASHERS)  # first come, first served
        self._waiting = 0
        self._asked: set[asyncio.Task[dict[str, Any]]] = set()
        self._closed = False
        self._judging = asyncio.Semaphore(1)
        self._unjudged = 0

    async def __aenter__(self) -> Self:
        try:
            for hasher in self._hashers:
                await hasher.start()
        except _LOST as error:
            log.error("a process that hashes codes does not start: %r", error)  # noqa: TRY400 -- no fault of ours
            await self._close()
            raise CodesError("CODES_FAILED") from None
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def hash(self, code: Code) -> str:
        """The PHC string to be stored of it, with a new salt; raises `CodesError`."""
        answer = await self._ask({"t": "hash"}, code)
        return str(answer["phc"])

    async def is_weak(self, code: Code, words: Sequence[str]) -> bool:
        """Whether it is easy to guess by whoever knows these words of the person and the service; raises `CodesError`."""
        if self._judging.locked() and self._unjudged >= UNJUDGED_MAX:
            raise CodesError("CODES_BUSY")
        self._unjudged += 1
        try:
            async with self._judging:
                return await self._judged(code, words)
        finally:
            self._unjudged -= 1

    async def matches(self, code: Code, phc: str) -> bool:
        """Whether `phc` was made of this code; raises `CodesError`, and `PhcError` for what is not verified."""
        setting_of(phc)
        answer = await self._ask({"t": "verify", "phc": phc}, code)
        return answer["same"] is True

    async def renewed(self, code: Code, phc: str) -> str:
        """
        The PHC string to be stored in the place of one that was made with another setting than ours; empty where it was made
        with that. Raises `CodesError`, and `PhcError`.
        """
        return "" if setting_of(phc) == OURS else await self.hash(code)

    async def spend(self) -> None:
        """
        What `matches` does for nobody, and with no answer: the time does not tell who exists. (Of a code that was hashed
        with another setting it does, until it is right for the first time.) Raises `CodesError`.
        """
        await self.matches(Code("nobody's"), _ABSENT)

    async def _ask(self, message: dict[str, Any], code: Code) -> dict[str, Any]:
        if self._turns.locked() and self._waiting >= WAITING_MAX:
            raise CodesError("CODES_BUSY")
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        task = asyncio.create_task(self._answer(message, code), name="secret code")
        self._asked.add(task)
        task.add_done_callback(self._answered)
        return await asyncio.shield(task)

    def _answered(self, task: asyncio.Task[dict[str, Any]]) -> None:
        self._asked.discard(task)
        self._turns.release()

    async def _answer(self, message: dict[str, Any], code: Code) -> dict[str, Any]:
        try:
            file = _file_with(code)
        except OSError as error:  # no descriptor or no memory left
            log.warning("a secret code cannot be passed on: %r", error)
            raise CodesError("CODES_FAILED") from None
        hasher = self._idle.pop()
        try:
            for _ in range(TRIES):
                if self._closed:
                    break
                try:
                    return await hasher.ask(message, file)
                except _LOST as error:
                    log.warning("a process that hashes codes was lost: %r", error)
            raise CodesError("CODES_FAILED")
        finally:
            os.close(file)
            self._idle.append(hasher)

    async def _judged(self, code: Code, words: Sequence[str]) -> bool:
        for _ in range(TRIES):
            if self._closed:
                break
            try:
                file = _file_with(code)
                try:
                    return await _asked_of_a_judge(file, words)
                finally:
                    os.close(file)
            except _LOST as error:
                log.warning("a process that judges codes was lost: %r", error)
        raise CodesError("CODES_FAILED")

    async def _close(self) -> None:
        """Who waits for an answer is told CODES_FAILED, but for one whose hasher was just being replaced."""
        self._closed = True
        await self._end_hashers()
        if self._asked:
            await asyncio.wait(self._asked)
            await self._end_hashers()  # one that was just being replaced

    async def _end_hashers(self) -> None:
        await asyncio.gather(*(hasher.close() for hasher in self._hashers))


def _file_with(code: Code) -> int:
    """
    A file in memory, for the caller of this to close. In a message the code would stay in the buffer that messages are
    made in; a file's memory goes back to the system, which shows it to nobody.
    """
    file = os.memfd_create("code", os.MFD_CLOEXEC)
    try:
        os.write(file, code.reveal().encode())
    except BaseException:
        os.close(file)
        raise
    return file


async def _asked_of_a_judge(file: int, words: Sequence[str]) -> bool:
    """Raises `ChildLost`, TimeoutError and OSError."""
    child = await Child.start("signer.judge", environment={})
    try:
        await child.ask(None, ANSWER_S)
        answer = await child.ask({"t": "judge", "words": list(words)}, ANSWER_S, (file,))
    finally:
        await child.close()
    return answer["weak"] is True


class _Hasher:
    """A process that is there when it is asked: one that has died is replaced then."""

    def __init__(self) -> None:
        self._child: Child | None = None

    async def start(self) -> Child:
        """Raises `ChildLost`, TimeoutError and OSError, as `ask` does."""
        await self.close()
        self._child = await Child.start("signer.hasher", environment={})
        await self._told(self._child, None)
        return self._child

    async def ask(self, message: dict[str, Any], file: int) -> dict[str, Any]:
        child = self._child
        if child is None or child.ended.done():
            child = await self.start()
        return await self._told(child, message, file)

    async def _told(self, child: Child, message: dict[str, Any] | None, *files: int) -> dict[str, Any]:
        try:
            return await child.ask(message, ANSWER_S, files)
        except BaseException:
            await self.close()  # whatever it may still answer, nobody asks it again
            raise

    async def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.close()
