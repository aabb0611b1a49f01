"""
The parent end of the assembly: a few kept processes that look into documents, and one warm spare.

A document goes to an idle process as a descriptor. A process that dies of it, or needs too long, is killed and
replaced, and the document is refused: nothing a file does is another caller's trouble.
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import msgpack

from pool.process import Child, ChildLost
from signer.errors import Refusal
from signer.limits import ASSEMBLY_ANSWER_S, ASSEMBLY_DOCUMENTS_MAX, ASSEMBLY_RESTART_S, ASSEMBLY_WORN_BYTES
from signer.turns import Places

log = logging.getLogger("signer.assembly")

# At one time: a start takes 0.4 s of a processor, and lanes and calls want one as well. The first is there the sooner.
STARTS_MAX = max(1, (os.cpu_count() or 1) // 2)
# The process speaks to nobody; but pyHanko brings an HTTP client, and with that the system's CAs would be read: 50 ms.
ENVIRONMENT = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}


class Assembly:
    """`processes` documents are looked into at one time; the others wait their turn, in which callers alternate."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._idle: asyncio.Queue[_Assembler] = asyncio.Queue()
        self._all: set[_Assembler] = set()
        self._refills: set[asyncio.Task[None]] = set()
        self._places = Places(processes)
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
        for task in self._refills:
            task.cancel()
        await asyncio.gather(*self._refills, return_exceptions=True)
        await asyncio.gather(*(assembler.child.close() for assembler in self._all))

    async def prepare(self, caller: str, fd: int, fields: dict[str, Any]) -> tuple[bytes, int, int]:
        """
        Append the signature's revision to the PDF behind `fd`; answers content digest, gap start and gap end.

        Raises `Refusal` PDF_REJECTED (the kind in the message), ASSEMBLY_FAILED.
        """
        answer = await self._ask(caller, {"t": "prepare", **fields}, [fd])
        return answer["digest"], answer["start"], answer["end"]

    async def verify(
        self, caller: str, fd: int, content_fd: int | None, roots: Sequence[bytes], now: datetime
    ) -> dict[str, Any]:
        """What `examine` reports of the file; raises `Refusal` PDF_REJECTED where it took the process down."""
        output = os.memfd_create("paraph-report", os.MFD_CLOEXEC)
        try:
            fds = [fd, *([] if content_fd is None else [content_fd]), output]
            await self._ask(caller, {"t": "verify", "roots": list(roots), "time": now.timestamp()}, fds)
            report: dict[str, Any] = msgpack.unpackb(os.pread(output, os.fstat(output).st_size, 0))
            return report
        finally:
            os.close(output)

    async def _ask(self, caller: str, message: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
        await self._places.take(caller)
        try:
            answer = await self._ask_one(message, fds)
        finally:
            self._places.give_back()
        if answer["t"] == "no-room":
            raise Refusal("SPOOL_FULL", retry_s=1.0)
        if answer["t"] == "rejected":
            raise Refusal("PDF_REJECTED", answer["kind"])
        return answer

    async def _ask_one(self, message: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
        """The answer of an idle process, and what that says of the process."""
        while (assembler := await self._idle.get()).child.ended.done():
            self._replace(assembler)  # it ended while it waited, which is no document's fault
        try:
            answer = await assembler.child.ask(message, ASSEMBLY_ANSWER_S, fds)
        except ChildLost as lost:
            # SIGXCPU is our own limit; anything else that a file does to its parser is refused just the same.
            kind = "needs-too-much-time" if "SIGXCPU" in lost.how else "breaks-the-parser"
            answer = {"t": "rejected", "kind": kind, "worn": True}
            log.warning("an assembly process ended over a document: %s", lost.how)
        except TimeoutError:
            answer = {"t": "rejected", "kind": "needs-too-much-time", "worn": True}
        except BaseException:
            self._replace(assembler)  # the call was cancelled and its answer is still to come
            raise
        assembler.documents += 1
        worn = answer.get("worn") or answer["held"] > ASSEMBLY_WORN_BYTES
        if worn or assembler.documents >= ASSEMBLY_DOCUMENTS_MAX:
            self._replace(assembler)
        else:
            self._idle.put_nowait(assembler)
        return answer

    def _replace(self, assembler: "_Assembler") -> None:
        assembler.child.kill()
        self._refill(assembler)

    def _refill(self, instead_of: "_Assembler | None" = None) -> None:
        task = asyncio.create_task(self._add(instead_of), name="assembly refill")
        self._refills.add(task)
        task.add_done_callback(self._refills.discard)

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
        self._idle.put_nowait(assembler)
        return True


class _Assembler:
    def __init__(self, child: Child) -> None:
        self.child = child
        self.documents = 0
