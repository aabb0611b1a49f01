"""
The Signing service: proto to our words and back. What is decided, is decided elsewhere.

Unary methods take (request, call); methods with a stream take (context, call) and read and write it.
"""

import asyncio
import functools
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from pool import Hash, Outcomes, Pool, Scheme
from signer import found
from signer import requests as read
from signer.answer import encoded
from signer.arrival import next_message
from signer.assembly import Assembly
from signer.batch import Ask, Batches, whole_call
from signer.clock import Clock
from signer.credential import Credential, Output, Purpose, certificates_of
from signer.documents import DocumentStream, Order
from signer.errors import Refusal, problem_of, refusal_from
from signer.handlers import Call, draining
from signer.ledger import Ledger
from signer.limits import (
    BATCH_CALL_S,
    CALL_S,
    DOCUMENT_STREAMS_MAX,
    STREAM_UNANSWERED_DIGESTS_MAX,
)
from signer.metrics import Metrics
from signer.policy import Policy
from signer.promises import Promises
from signer.record import Record
from signer.spool import Spool
from signer.v1 import signing_pb2 as pb

_PROBLEM_BYTES = 1_024  # of an answer that says why not


class SigningService:
    def __init__(
        self,
        pool: Pool,
        batches: Batches,
        ledger: Ledger,
        assembly: Assembly,
        spool: Spool,
        policy: Callable[[], Policy],
        credentials: Callable[[], Mapping[str, Credential]],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._pool = pool
        self._batches = batches
        self._ledger = ledger
        self._assembly = assembly
        self._spool = spool
        self._policy = policy
        self._credentials = credentials
        self._clock = clock
        self._metrics = metrics
        self._document_streams: Counter[str] = Counter()

    async def list_credentials(self, _request: Any, call: Call) -> Any:
        found = [self._credentials()[name] for name in sorted(call.caller.credentials & self._credentials().keys())]
        mine = call.caller.subject
        shown = [self._describe(one) for one in found if mine is None or one.subject == mine]
        return pb.ListCredentialsResponse(credentials=shown)

    async def get_credential(self, request: Any, call: Call) -> Any:
        return self._describe(self._credential(request.credential, call))

    async def sign_digests(self, request: Any, call: Call) -> Any:
        ask = self._ask(request, call, call.deadline, call.accepted)
        call.promise(ask.credential.answer_bytes_max(ask.output, len(ask.digests)))
        outcomes, record = await self._batches.sign(ask)
        call.place.at_end(record.release)
        self._count(ask, outcomes)
        whole_call(outcomes)
        return encoded(ask.request_id, outcomes, ask.credential.certificates[0])

    async def get_result(self, request: Any, call: Call) -> Any:
        call.request_id = read.request_id(request.request_id)
        id_ = uuid.UUID(call.request_id).bytes
        return await found.result(self._ledger, id_, call.request_id, call.caller.name, request.first, certificates_of)

    async def stream_digests(self, context: Any, call: Call) -> None:
        """Requests are signed side by side and answered in order; what is unanswered is bounded by digests."""
        answers: asyncio.Queue[tuple[asyncio.Task[tuple[Any, Record | None]], int, int] | Refusal | None] = (
            asyncio.Queue()
        )
        room = _Room(call.caller.name, call.admission.promises)

        async def read_all(tasks: asyncio.TaskGroup) -> None:
            while True:
                try:
                    message = await next_message(context, call.deadline - self._clock.monotonic())
                except Refusal as refusal:  # nothing more is read; what came before is still answered
                    answers.put_nowait(refusal)
                    return
                if message is None:
                    answers.put_nowait(None)
                    return
                call.check_again()
                count = max(1, len(message.digests) + len(message.messages))
                size = self._answer_bytes_max(message, count)
                await room.take(count, size)
                await call.turn()
                answers.put_nowait((tasks.create_task(self._one_of_stream(message, call)), count, size))

        async def write_all() -> None:
            while isinstance(entry := await answers.get(), tuple):
                task, count, size = entry
                answer, record = await task
                written = False
                try:
                    await context.write(answer)
                    written = True
                finally:
                    if record is not None:
                        record.release(delivered=written)
                room.give_back(count, size)
            if entry is not None:
                raise entry

        def stop_reading() -> None:
            reader.cancel()
            answers.put_nowait(draining())

        try:
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(read_all(tasks))
                with call.admission.when_draining(stop_reading):
                    await tasks.create_task(write_all())
        finally:
            room.close()
            while not answers.empty():
                entry = answers.get_nowait()
                if isinstance(entry, tuple):
                    _not_delivered(entry[0])

    def _answer_bytes_max(self, message: Any, count: int) -> int:
        """For a request of a stream that was not looked into yet; little, where it will be refused."""
        credential = self._credentials().get(message.credential)
        if credential is None or message.output not in read.OUTPUTS or credential.purpose is not Purpose.SIGNATURE:
            return _PROBLEM_BYTES
        return credential.answer_bytes_max(read.output(message.output), count)

    async def _one_of_stream(self, message: Any, call: Call) -> tuple[Any, Record | None]:
        """The answer to one request of a stream, its refusal included, and the ledger's record of it."""
        timeout_s = min(message.timeout_s, BATCH_CALL_S) if message.timeout_s > 0 else CALL_S
        try:
            deadline = min(call.deadline, self._clock.monotonic() + timeout_s)
            ask = self._ask(message, call, deadline, self._clock.wall())
            outcomes, record = await self._batches.sign(ask)
        except Exception as error:
            refusal = refusal_from(error)
            if refusal is None:
                raise
            return pb.SignDigestsResponse(request_id=message.request_id, error=pb.Problem(**problem_of(refusal))), None
        self._count(ask, outcomes)
        return encoded(ask.request_id, outcomes, ask.credential.certificates[0]), record

    async def sign_documents(self, context: Any, call: Call) -> None:
        caller = call.caller.name
        if self._document_streams[caller] >= DOCUMENT_STREAMS_MAX:
            raise Refusal("TOO_MANY_STREAMS", retry_s=1.0)
        self._document_streams[caller] += 1
        try:
            message = await next_message(context)
            if message is None or message.WhichOneof("message") != "open":
                raise Refusal("STREAM_ORDER", "the first message is open")
            order = await self._order(message.open, call)
            stream = DocumentStream(
                context,
                call,
                order,
                self._spool,
                self._assembly,
                self._batches,
                self._clock,
                lambda output, status: self._metrics.count_items(caller, output, status, 1),
            )
            await stream.run()
        finally:
            self._document_streams[caller] -= 1

    async def _order(self, message: Any, call: Call) -> Order:
        call.request_id = read.request_id(message.request_id)
        await self._ledger.check_owner(uuid.UUID(call.request_id).bytes, call.caller.name)
        credential = self._credential(message.credential, call)
        output = read.output(message.output)
        if output is Output.RAW:
            raise Refusal("OUTPUT_NOT_ALLOWED", "documents are signed as CADES_B_B or PADES_B_B")
        algorithm = read.algorithm(message.signature_algorithm, message.digest_algorithm)
        credential.check(call.accepted)
        credential.check_request(output, algorithm)
        name = message.credential
        current = functools.partial(self._credential, name, call)
        return Order(call.request_id, current, output, algorithm, message.enveloping, message.authorisation)

    async def verify_document(self, context: Any, call: Call) -> Any:
        message = await next_message(context)
        if message is None or message.WhichOneof("message") != "open":
            raise Refusal("STREAM_ORDER", "the first message is open")
        read.text(message.open.name, "name")
        document = self._spool.open(call.caller.name)
        content = None
        try:
            while (message := await next_message(context)) is not None:
                kind = message.WhichOneof("message")
                if kind == "chunk" and content is None:
                    document.write(message.chunk)
                elif kind == "content":
                    content = content or self._spool.open(call.caller.name)
                    content.write(message.content)
                else:
                    raise Refusal("STREAM_ORDER", "after open come chunks, then content")
            fd = None if content is None else content.file.fileno()
            roots, now = self._policy().roots, self._clock.wall()
            report = await self._assembly.verify(call.caller.name, document.file.fileno(), fd, roots, now)
            return _report(report)
        finally:
            document.close()
            if content is not None:
                content.close()

    def _credential(self, name: str, call: Call) -> Credential:
        return read.credential_of(name, call.caller, self._policy(), self._credentials())

    def _ask(self, request: Any, call: Call, deadline: float, accepted: datetime) -> Ask:
        call.request_id = read.request_id(request.request_id)
        credential = self._credential(request.credential, call)
        output = read.output(request.output)
        algorithm, items = read.items(request, output)
        return Ask(
            call.caller, call.request_id, credential, output, algorithm, items, deadline, accepted,
            authorisation=request.authorisation,
        )  # fmt: skip

    def _count(self, ask: Ask, outcomes: Outcomes) -> None:
        for status, count in outcomes.statuses().items():
            self._metrics.count_items(ask.caller.name, ask.output, status, count)

    def _describe(self, credential: Credential) -> Any:
        schemes = dict.fromkeys(a.scheme for a in credential.algorithms())
        digests = [Hash.SHA512] if Scheme.ED25519 in schemes else list(Hash)
        problem = self._pool.problem(credential.key.ref)
        return pb.Credential(
            name=credential.name,
            purpose=credential.purpose.value,
            certificates=credential.certificates,
            key_type=credential.key_type,
            outputs=sorted(credential.outputs),
            signature_algorithms=list(schemes),
            digest_algorithms=digests,
            cms_digests_max=credential.cms_digests_max() if credential.purpose is Purpose.SIGNATURE else 0,
            available=not problem,
            unavailable_reason=problem,
            key_id=bytes.fromhex(credential.key.ref),
            cms_bytes_max=credential.cms_bytes_max if credential.purpose is Purpose.SIGNATURE else 0,
            gate=credential.gate.value,
            subject=credential.subject,
            state=credential.state.value,
            presence=self._pool.presence(credential.key.ref) or "",
        )


def _not_delivered(task: asyncio.Task[tuple[Any, Record | None]]) -> None:
    """An answer of a stream that has ended before it."""
    if task.done() and not task.cancelled() and task.exception() is None and (record := task.result()[1]) is not None:
        record.release(delivered=False)


class _Room:
    """
    Room for what is unanswered on a stream: for so many digests of it, and for so many bytes of its caller's answers.
    One request always fits, so that none waits for itself.
    """

    def __init__(self, caller: str, promises: Promises) -> None:
        self._caller = caller
        self._promises = promises
        self._digests = self._bytes = 0
        self._less = asyncio.Event()

    async def take(self, digests: int, size: int) -> None:
        while self._digests and self._digests + digests > STREAM_UNANSWERED_DIGESTS_MAX:
            self._less.clear()
            await self._less.wait()
        await self._promises.make_when_it_fits(self._caller, size)
        self._digests += digests
        self._bytes += size

    def give_back(self, digests: int, size: int) -> None:
        self._digests -= digests
        self._bytes -= size
        self._promises.keep(self._caller, size)
        self._less.set()

    def close(self) -> None:
        """The stream is over, whatever it still held."""
        self._promises.keep(self._caller, self._bytes)
        self._bytes = 0


def _report(report: dict[str, Any]) -> Any:
    answer = pb.VerifyDocumentResponse(
        readable=report["readable"],
        problem=report["problem"],
        kind=report["kind"] or "KIND_UNSPECIFIED",
        pages=report["pages"],
        input_sha256=report["input_sha256"],
    )
    for each in report["signatures"]:
        if each["changes_after"] == "NONE":
            each["changes_after"] = "NO_CHANGES"  # protobuf's names are the whole package's
        answer.signatures.append(pb.SignatureReport(**each))
    return answer
