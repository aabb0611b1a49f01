"""
Documents on a stream: up in chunks, signed, down in chunks, each for itself.

One task reads; each document that arrived whole is signed in a task of its own; one document at a time is written
back. A document's failure is its own result, and the stream goes on.
"""

import asyncio
import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from pool import Algorithm, Hash, Status
from signer import cades, gap
from signer.arrival import Arrival, next_message
from signer.assembly import Assembly
from signer.batch import Ask, Batches
from signer.clock import Clock, rfc3339
from signer.cms import Profile
from signer.credential import Credential, Output
from signer.errors import Refusal, refusal_from
from signer.handlers import READ_OUT_S, Call, draining
from signer.limits import (
    BATCH_CALL_S,
    CHUNK_BYTES_MAX,
    DISK_DOCUMENT_COUNTS,
    DOCUMENT_S,
    DOCUMENTS_IN_WORK_MAX,
    DOCUMENTS_MAX,
    NO_ROOM,
)
from signer.record import Record
from signer.spool import Spool, Upload, is_short
from signer.v1 import signing_pb2 as pb

# Read and hashed in 0.2 ms; a thread costs as much, and for more the loop would stand still.
HERE_BYTES_MAX = CHUNK_BYTES_MAX


async def next_to_begin(context: Any, call: Call) -> Any:
    """The message that begins something new, None at the stream's end; raises `Refusal` DRAINING when the service stops."""
    message = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None) as waiting:
            loop = asyncio.get_running_loop()
            # Not at once: the end of what was sent may be on its way behind the last document.
            with call.admission.when_draining(lambda: waiting.reschedule(loop.time() + READ_OUT_S)):
                message = await next_message(context, call)
                if message is None:
                    return None
    if call.admission.draining:
        raise draining()
    return message


@dataclass(frozen=True, slots=True)
class Order:
    """What a stream was opened for."""

    request_id: str
    # As they are now, the soonest first: one may be suspended or removed while the stream is open.
    current: Callable[[], tuple[Credential, ...]]
    output: Output
    algorithm: Algorithm
    enveloping: bool
    authorisation: bytes = field(default=b"", repr=False)
    group: str = ""  # whose members they are


class DocumentStream:
    """One SignDocuments call."""

    def __init__(
        self,
        context: Any,
        call: Call,
        order: Order,
        spool: Spool,
        assembly: Assembly,
        batches: Batches,
        clock: Clock,
        count: Callable[[Output, Status], None],
    ) -> None:
        self._clock = clock
        self._context = context
        self._call = call
        self._order = order
        self._spool = spool
        self._assembly = assembly
        self._batches = batches
        self._count = count
        self._ended = asyncio.Event()  # one that was in work
        self._writing = asyncio.Lock()
        self._seen: set[int] = set()
        self._jobs: dict[_Job, float] = {}  # in work, the oldest first, each with the loop's time by which it is over
        self._oldest = asyncio.timeout(None)
        self._over: Refusal | None = None  # why no further document is begun

    async def run(self) -> None:
        """
        Until the caller has sent everything and has every answer; a broken order of messages ends it all. When the service
        stops, what was begun is answered; raises `Refusal` DRAINING then, unless that was everything. Raises `Refusal`
        STREAM_OVER where a document is here for too long: answers come one after the other, so that the next would be, too.
        """
        try:
            async with asyncio.timeout(None) as self._oldest:
                await self._run()
        except TimeoutError:
            if not self._oldest.expired():
                raise
            detail = f"a document has {DOCUMENT_S:g} s from its first byte until its answer is taken"
            raise Refusal("STREAM_OVER", detail) from None

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                while (message := await self._next()) is not None:
                    kind = message.WhichOneof("message")
                    if kind not in ("begin", "whole"):
                        raise Refusal("STREAM_ORDER", "a document starts with begin, or comes whole")
                    whole = message.whole if kind == "whole" else None
                    job = _Job(message.begin) if whole is None else _Job(whole.begin, len(whole.content))
                    over = asyncio.get_running_loop().time() + DOCUMENT_S
                    await self._room_for(job)
                    if self._call.admission.draining:
                        self._over = draining()
                        break
                    self._begin(job, over)
                    if whole is not None:
                        job.take(whole)
                    else:
                        # Also one that is refused already: its neighbours come after it.
                        await job.receive(self._context, self._call)
                    tasks.create_task(self._answer(job))
        except* Refusal as group:
            raise _first(group) from None
        finally:
            for job in self._jobs:  # whose tasks were cancelled before they began, or that never had one
                job.close()
        if self._over is not None:
            raise self._over

    async def _next(self) -> Any:
        """What begins the next document; None at the end, and when the service stops."""
        try:
            return await next_to_begin(self._context, self._call)
        except Refusal as refusal:
            if refusal.reason != "DRAINING":
                raise
            self._over = refusal
            return None

    async def _room_for(self, job: "_Job") -> None:
        """
        Returns when it may be begun. One of unknown size is begun as a short one and counts as one on the disk from then on
        that it is there, so that there may be more in work than there is room for: the next one waits the longer. It does not
        wait itself, in the middle of its upload: what is in work has arrived whole, waits for no room, and ends without those
        behind it; and where nothing is in work any one has room. So nothing waits for itself. Four at most are on the disk as
        they arrive, because beside four there is no room for a short one either.
        """
        while sum(each.counts for each in self._jobs) + job.counts > DOCUMENTS_IN_WORK_MAX:
            self._ended.clear()
            await self._ended.wait()

    def _begin(self, job: "_Job", over: float) -> None:
        if job.index in self._seen:
            raise Refusal("STREAM_ORDER", f"index {job.index} was used before")
        self._seen.add(job.index)
        self._jobs[job] = over
        self._watch_oldest()
        try:
            if len(self._seen) > DOCUMENTS_MAX:
                raise Refusal("TOO_MANY_DOCUMENTS")
            job.open(self._spool, self._call.caller.name)
        except Refusal as refusal:
            job.refusal = refusal

    async def _answer(self, job: "_Job") -> None:
        delivered = False
        try:
            result, output = await self._sign(job)
            self._count(self._order.output, Status(pb.ItemStatus.Name(result.status)))
            async with self._writing:
                for message in _messages(job, result, output):
                    await self._context.write(message)
            delivered = True
        finally:
            if job.record is not None:
                job.record.release(delivered=delivered)
            job.close()
            self._jobs.pop(job, None)
            self._watch_oldest()
            self._ended.set()

    def _watch_oldest(self) -> None:
        if not self._oldest.expired():
            self._oldest.reschedule(next(iter(self._jobs.values()), None))

    async def _sign(self, job: "_Job") -> tuple[Any, BinaryIO | None]:
        """The result and the file that goes with it; every failure of this document becomes its result."""
        result = pb.DocumentResult(index=job.index)
        if job.upload is not None:
            result.input_sha256 = job.upload.sha256
        try:
            if job.refusal is not None:
                raise job.refusal
            assert job.upload is not None
            return await self._sign_upload(job, job.upload, result)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                error = Refusal("SPOOL_FULL", retry_s=1.0)
            refusal = refusal_from(error)
            if refusal is None:
                raise
            result.status = pb.ItemStatus.Value(job.attempted or Status.FAILED)  # type: ignore[assignment]
            result.reason, result.message = refusal.reason, refusal.message
            result.code = refusal.code.value[0]
            if job.attempted in {None, Status.NOT_ATTEMPTED}:
                result.retry_after_s = refusal.retry_s or 0.0
            job.close()  # and with it what it may have grown by: its answer may wait for long
            return result, None

    async def _sign_upload(self, job: "_Job", upload: Upload, result: Any) -> tuple[Any, BinaryIO]:
        order, now = self._order, self._clock.wall()
        credential, *others = order.current()
        if not order.group:
            credential.check(now)
        job.check_text(credential.gate, self._call.caller)
        deadline = min(self._call.deadline, asyncio.get_running_loop().time() + BATCH_CALL_S)
        ask = Ask(
            self._call.caller,
            order.request_id,
            credential,
            order.output,
            order.algorithm,
            (),
            deadline,
            now,
            job.index,
            upload.sha256,
            ("enveloping" if order.enveloping else "", job.reason, job.location),
            order.authorisation,
            group=order.group,
            others=tuple(others),
            identify=self._call.check_again,
        )
        return await self._batches.by_who_can(ask, functools.partial(self._sign_by, job, upload, result))

    async def _sign_by(self, job: "_Job", upload: Upload, result: Any, ask: Ask) -> tuple[Any, BinaryIO]:
        if ask.group:
            self._batches.check_credential(ask)
        record = await self._batches.enter(ask)
        if job.record is not None:  # of a member that could not, and what was prepared for it
            job.record.release(delivered=False)
            os.truncate(upload.file.fileno(), upload.size)
            if job.output is not None:
                job.output.close()
        job.record = record
        try:
            return await self._sign_recorded(job, upload, result, ask, record)
        finally:
            record.leave()

    async def _sign_recorded(
        self, job: "_Job", upload: Upload, result: Any, ask: Ask, record: Record
    ) -> tuple[Any, BinaryIO]:
        order, credential = self._order, ask.credential
        template = credential.template(order.algorithm, Profile(order.output.value))
        prepared = None
        if order.output is Output.PADES_B_B:
            fields = {
                "certificate": credential.certificates[0],
                "digest": template.digest.value.lower(),
                "cms_bytes_max": template.bytes_max,
                "time": int(record.accepted.timestamp()),
                "file_id": gap.file_id(self._call.caller.name, order.request_id, str(job.index)),
                "reason": job.reason,
                "location": job.location,
            }
            prepared = gap.Prepared(*await self._assembly.prepare(self._call.caller.name, upload.file.fileno(), fields))
            size = os.fstat(upload.file.fileno()).st_size
            if upload.is_to_move(size):
                await asyncio.to_thread(upload.move_to_disk)
            upload.holds(size)
            content_digest = prepared.content_digest
        else:
            content_digest = await _content_digest(upload, template.digest)
            size = upload.size + template.bytes_max if order.enveloping else template.bytes_max
            job.output = self._spool.open(self._call.caller.name, size)  # now: where there is no room nothing is signed
            job.output.reserve(size)
        ask = replace(ask, digests=[content_digest])
        try:
            outcome, template, attributes = await self._batches.sign_document(ask, record)
        except Refusal as refusal:
            if record.may_have_signed:
                job.attempted = Status.INDETERMINATE  # and not in writing yet
            elif refusal.reason == "AUTHZ_EXPIRED":
                job.attempted = Status.NOT_ATTEMPTED  # who allows it again may have it signed
            raise
        if outcome.status is not Status.SIGNED:
            job.attempted = outcome.status
            raise Refusal(outcome.reason)
        job.attempted = Status.INDETERMINATE  # until its answer is put together: who asks again gets it
        output = upload.file
        if prepared is not None:
            gap.finish(prepared, template.detached(attributes, outcome.signature), output)
        else:
            assert job.output is not None
            output = job.output.file
            finish = (template, attributes, outcome.signature, upload.file, output)
            await asyncio.to_thread(cades.finish, *finish, enveloping=order.enveloping)
        result.status = pb.SIGNED
        result.size = output.seek(0, os.SEEK_END)
        if not _is_read_here(job, result):
            result.sha256 = await _digest(output, "SHA256")
        result.certificate = credential.certificates[0]
        result.token = outcome.token
        result.signing_time = rfc3339(record.accepted)
        return result, output


class _Job(Arrival):
    """One document on its way through; `whole_bytes` where all of it came in one message."""

    def __init__(self, begin: Any, whole_bytes: int | None = None) -> None:
        super().__init__(begin)
        self.is_whole = whole_bytes is not None
        self.announced = self.announced or whole_bytes or 0
        self.output: Upload | None = None
        self.attempted: Status | None = None
        self.record: Record | None = None

    @property
    def counts(self) -> int:
        """Of the room that its stream has."""
        if self.upload is not None:
            return 1 if self.upload.in_memory else DISK_DOCUMENT_COUNTS
        return 1 if is_short(self.announced) or not self.announced else DISK_DOCUMENT_COUNTS

    def close(self) -> None:
        super().close()
        if self.output is not None:
            self.output.close()


def _is_read_here(job: _Job, result: Any) -> bool:
    """Whether a signed document is read and hashed in the loop, when it is its turn to be sent."""
    return job.is_whole or result.size <= HERE_BYTES_MAX


def _messages(job: _Job, result: Any, output: BinaryIO | None) -> Iterator[Any]:
    """What is sent of a document. A short one is read only now: those that wait for their turn are in memory once."""
    chunks: Iterator[bytes] = iter(())
    if output is not None and _is_read_here(job, result):
        output.seek(0)
        content = output.read()
        result.sha256 = hashlib.sha256(content).digest()
        if job.is_whole:
            result.content = content
        else:
            chunks = iter((content,))
    elif output is not None:
        chunks = _chunks(output)
    yield pb.SignDocumentsResponse(result=result)
    for chunk in chunks:
        yield pb.SignDocumentsResponse(chunk=chunk)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    while chunk := file.read(CHUNK_BYTES_MAX):
        yield chunk


async def _content_digest(upload: Upload, algorithm: Hash) -> bytes:
    """Of a document as it came; its SHA-256 is known since it did."""
    if algorithm is Hash.SHA256:
        return upload.sha256
    return await _digest(upload.file, algorithm.value)


async def _digest(file: BinaryIO, algorithm: str) -> bytes:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size <= HERE_BYTES_MAX:
        return hashlib.new(algorithm, file.read()).digest()
    return (await asyncio.to_thread(hashlib.file_digest, file, algorithm.lower())).digest()  # type: ignore[arg-type]


def _first(group: BaseExceptionGroup[Refusal]) -> Refusal:
    """The refusal that ended the stream."""
    with contextlib.suppress(StopIteration):
        return next(error for error in group.exceptions if isinstance(error, Refusal))
    return _first(group.exceptions[0])  # type: ignore[arg-type]
