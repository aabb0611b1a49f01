"""
The parent end of the assembly: a few kept processes that look into documents, and one warm spare.

A document goes to an idle process as a descriptor. A process that dies of it, or needs too long, is killed and
replaced, and the document is refused. The time that it took is its caller's, also where he is gone: what was begun goes
on to its end or its limit, since a new process for each call that is reset would cost others more.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import msgpack

from pool.process import Child, ChildLost, NotSent
from signer.errors import Refusal
from signer.limits import (
    ASSEMBLY_ANSWER_S,
    ASSEMBLY_DOCUMENTS_MAX,
    ASSEMBLY_RESTART_S,
    ASSEMBLY_START_S,
    ASSEMBLY_WORN_BYTES,
)
from signer.turns import Place, Places

log = logging.getLogger("signer.assembly")

# At one time: a start takes 0.4 s of a processor, and lanes and calls want one as well. The first is there the sooner.
STARTS_MAX = max(1, (os.cpu_count() or 1) // 2)
# The process speaks to nobody; but pyHanko brings an HTTP client, and with that the system's CAs would be read: 50 ms.
ENVIRONMENT = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}


class Assembly:
    """
    `processes` documents are looked into at one time, and by the spare one of a caller who has none there; the others wait
    their turn.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._all: set[_Assembler] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._places: Places[_Assembler] = Places(processes)
        self._starting = asyncio.Semaphore(STARTS_MAX)
        self._closed = False

    async def __aenter__(self) -> Self:
        """The processes start by themselves; a document that comes earlier waits for the first."""
        for _ in range(self._processes + 1):
            self._refill()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(assembler.child.close() for assembler in self._all))

    async def prepare(self, caller: str, fd: int, fields: dict[str, Any]) -> tuple[bytes, int, int]:
        """
        Append the signature's revision to the PDF behind `fd`; answers content digest, gap start and gap end.

        Raises `Refusal` PDF_REJECTED (the kind in the message), ASSEMBLY_FAILED, SPOOL_FULL.
        """
        answer = await self._ask(caller, {"t": "prepare", **fields}, [fd])
        return answer["digest"], answer["start"], answer["end"]

    async def verify(
        self,
        caller: str,
        fd: int,
        content_fd: int | None,
        roots: Sequence[bytes],
        now: datetime,
        promise: Callable[[int], None],
    ) -> dict[str, Any]:
        """
        What `examine` reports of the file; `promise` is told how many bytes that has, before it is read. Raises `Refusal`
        PDF_REJECTED where it ended the process, and ASSEMBLY_FAILED.
        """
        output = os.memfd_create("paraph-report", os.MFD_CLOEXEC)
        try:
            fds = [fd, *([] if content_fd is None else [content_fd]), output]
            await self._ask(caller, {"t": "verify", "roots": list(roots), "time": now.timestamp()}, fds)
            size = os.fstat(output).st_size
            promise(size)
            report: dict[str, Any] = msgpack.unpackb(os.pread(output, size, 0))
            return report
        finally:
            os.close(output)

    async def _ask(self, caller: str, message: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
        answer = await self._finish(await self._hand_over(caller, message, fds))
        if answer["t"] == "no-room":
            raise Refusal("SPOOL_FULL", retry_s=1.0)
        if answer["t"] == "rejected":
            raise Refusal("PDF_REJECTED", answer["kind"])
        if answer["t"] == "lost":
            raise Refusal("ASSEMBLY_FAILED", retry_s=ASSEMBLY_RESTART_S)
        return answer

    async def _hand_over(self, caller: str, message: dict[str, Any], fds: Sequence[int]) -> "Place[_Assembler]":
        """The place with the process that has the document now."""
        while True:
            place = await self._places.take(caller)
            try:
                place.given.result().child.put(message, fds)
            except NotSent:
                self._end(place, is_worn=True)  # it ended while it waited, which is no document's fault
            except BaseException:
                self._end(place, is_worn=False)
                raise
            else:
                return place

    async def _finish(self, place: "Place[_Assembler]") -> dict[str, Any]:
        """The answer of a process that has a document, and what that says of the process."""
        assembler = place.given.result()
        try:
            answer = await assembler.child.answer(ASSEMBLY_ANSWER_S)
        except ChildLost as lost:
            # SIGXCPU is our own limit. SIGKILL comes from outside, as where the machine has no memory left, or before the
            # process saw the document. Anything else that a file does to its parser is refused just the same.
            kind = "needs-too-much-time" if "SIGXCPU" in lost.how else "breaks-the-parser"
            answer = {"t": "lost" if "SIGKILL" in lost.how else "rejected", "kind": kind, "worn": True}
            log.warning("an assembly process ended over a document: %s", lost.how)
        except TimeoutError:
            answer = {"t": "rejected", "kind": "needs-too-much-time", "worn": True}
        except asyncio.CancelledError:
            if not self._closed:
                self._spawn(self._finish(place), "assembly of a call that is gone")
            raise
        assembler.documents += 1
        is_worn = bool(answer.get("worn")) or answer["held"] > ASSEMBLY_WORN_BYTES
        self._end(place, is_worn=is_worn, more_s=ASSEMBLY_START_S if is_worn else 0.0)
        return answer

    def _end(self, place: "Place[_Assembler]", *, is_worn: bool, more_s: float = 0.0) -> None:
        assembler = place.given.result()
        self._places.end(place, more_s)
        if is_worn or assembler.documents >= ASSEMBLY_DOCUMENTS_MAX:
            self._replace(assembler)
        else:
            self._places.add(assembler)

    def _replace(self, assembler: "_Assembler") -> None:
        assembler.child.kill()
        self._refill(assembler)

    def _refill(self, instead_of: "_Assembler | None" = None) -> None:
        self._spawn(self._add(instead_of), "assembly refill")

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _add(self, instead_of: "_Assembler | None") -> None:
        """Start a process and wait until it says that it is ready; one that does not is tried again."""
        if instead_of is not None:
            await instead_of.child.close()
            self._all.discard(instead_of)  # not before: where this task is cancelled, the assembly's end closes it
        while not self._closed:
            async with self._starting:
                if await self._start():
                    return
            await asyncio.sleep(ASSEMBLY_RESTART_S)

    async def _start(self) -> bool:
        try:
            assembler = _Assembler(await Child.start("signer.assembler", environment=ENVIRONMENT))
        except OSError as error:
            log.error("an assembly process does not start: %s", error)  # noqa: TRY400 -- no fault of ours
            return False
        self._all.add(assembler)
        try:
            await assembler.child.ask(None, ASSEMBLY_ANSWER_S)
        except (ChildLost, TimeoutError) as error:
            log.error("an assembly process does not start: %r", error)  # noqa: TRY400 -- no fault of ours
            self._all.discard(assembler)
            await assembler.child.close()
            return False
        self._places.add(assembler)
        return True


class _Assembler:
    def __init__(self, child: Child) -> None:
        self.child = child
        self.documents = 0
