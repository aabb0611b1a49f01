"""
The Signing service: proto to our words and back. What is decided, is decided elsewhere.

Unary methods take (request, call); methods with a stream take (context, call) and read and write it.
"""

import asyncio
import functools
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pool import Algorithm, Hash, Outcomes, Pool, Scheme
from signer import found, group
from signer import requests as read
from signer.answer import encoded
from signer.arrival import next_message, next_unparsed
from signer.assembly import Assembly
from signer.batch import Ask, Batches, whole_call
from signer.clock import Clock
from signer.credential import Credential, Output, Purpose, State, certificates_of
from signer.documents import DocumentStream, Order, next_to_begin
from signer.errors import Refusal, problem_of, refusal_from
from signer.handlers import Call, draining
from signer.holder import Holders
from signer.ledger import Ledger
from signer.limits import (
    BATCH_CALL_S,
    CALL_S,
    DIGESTS_MAX,
    DOCUMENT_STREAMS_MAX,
    STREAM_UNANSWERED_DIGESTS_MAX,
)
from signer.metrics import Metrics
from signer.page import page
from signer.policy import Policy
from signer.promises import Promises
from signer.record import Record
from signer.spool import Spool
from signer.v1 import signing_pb2 as pb

_PROBLEM_BYTES = 1_024  # of an answer that says why not
HOLD_BACK_S = 0.05  # between two looks whether a stream's next request has time: a frame of a fast lane or two


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
        self._holders = Holders({})

    async def list_credentials(self, request: Any, call: Call) -> Any:
        if len(request.of_person) > DIGESTS_MAX:
            raise Refusal("CERTIFICATE_INVALID", f"of_person has at most {DIGESTS_MAX}")
        hers = await asyncio.to_thread(self._hers, request.of_person) if request.of_person else None
        groups, mine = self._policy().groups.keys(), call.caller.subject
        known = sorted(call.caller.credentials & (self._credentials().keys() | (set() if mine else groups)))
        if hers is not None:
            known = [name for name in known if name in hers and name not in groups]
        names = [name for name in known if name in groups or self._is_for(call, name)]
        show = functools.partial(self._shown, call=call)
        shown, following = page(names, call.caller.name, request.page_size, request.page_token, show)
        answer = pb.ListCredentialsResponse(credentials=shown, next_page_token=following)
        call.promise(answer.ByteSize())
        return answer

    def _hers(self, certificates: Sequence[bytes]) -> set[str]:
        """On a thread of its own: after a change the index is made anew, some 30 us for each credential."""
        credentials, holders = self._credentials(), self._holders
        if holders.credentials is not credentials:
            holders = self._holders = Holders(credentials)
        return holders.of(certificates)

    def _is_for(self, call: Call, name: str) -> bool:
        return call.caller.subject in {None, self._credentials()[name].subject}

    async def get_credential(self, request: Any, call: Call) -> Any:
        return self._shown(request.credential, call)

    def _shown(self, name: str, call: Call) -> Any:
        members = self._members(name, call)
        if name not in self._policy().groups:
            return self._describe(members[0])
        return _as_group(name, [self._describe(member) for member in sorted(members, key=lambda one: one.name)])

    async def sign_digests(self, request: Any, call: Call) -> Any:
        ask = self._ask(request, call, call.deadline, call.accepted)
        members = (ask.credential, *ask.others)
        call.promise(max(one.answer_bytes_max(ask.output, len(ask.digests)) for one in members))
        outcomes, record = await self._batches.sign(ask)
        call.place.at_end(record.release)
        self._count(ask, outcomes)
        whole_call(outcomes)
        return encoded(ask.request_id, outcomes, _certificate(ask, record))

    async def get_result(self, request: Any, call: Call) -> Any:
        call.request_id = read.request_id(request.request_id)
        id_ = uuid.UUID(call.request_id).bytes
        answer = await found.result(
            self._ledger, id_, call.request_id, call.caller.name, request.first, certificates_of
        )
        call.promise(answer.ByteSize())
        return answer

    async def stream_digests(self, context: Any, call: Call) -> None:
        """Requests are signed side by side and answered in order; what is unanswered is bounded by digests."""
        answers: asyncio.Queue[tuple[asyncio.Task[tuple[Any, Record | None]], int, int] | Refusal | None] = (
            asyncio.Queue()
        )
        room = _Room(call.caller.name, call.admission.promises)

        async def read_all(tasks: asyncio.TaskGroup) -> None:
            while (message := await self._next_of_stream(context, call, answers)) is not None:
                count = max(1, len(message.digests) + len(message.messages))
                if count > DIGESTS_MAX:  # refused now, without being held until there is room
                    task = tasks.create_task(self._one_of_stream(message, call))
                    message, count, size = None, 1, _PROBLEM_BYTES
                    await room.take(count, size)
                else:
                    size = self._answer_bytes_max(message, count)
                    await self._hold_back(message, count, call, room)
                    await room.take(count, size)
                    call.check_again()
                    task = tasks.create_task(self._one_of_stream(message, call))
                answers.put_nowait((task, count, size))

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

    async def _next_of_stream(self, context: Any, call: Call, answers: asyncio.Queue[Any]) -> Any:
        """The next request, when it is its turn; None at the end, which `answers` are told."""
        end = None
        try:
            unparsed = await next_unparsed(context, call.deadline - self._clock.monotonic())
            if unparsed is not None:
                call.check_again()
                await call.turn(unparsed.size)
                return unparsed.parse()
        except Refusal as refusal:  # nothing more is read; what came before is still answered
            call.check_again()  # but not to who may not call any more
            end = refusal
        answers.put_nowait(end)
        return None

    async def _hold_back(self, message: Any, count: int, call: Call, room: "_Room") -> None:
        """
        Returns when a stream's request would be done in its time, or nothing else of the stream is unanswered: told to come
        back, who sent it would only send it again. Its time begins with its turn.
        """
        if not room.digests:
            return
        try:
            algorithm = read.algorithm(
                message.signature_algorithm, message.digest_algorithm, message=not message.digest_algorithm
            )
        except Refusal:
            return  # it will be told
        names = self._policy().groups.get(message.credential, (message.credential,))
        timeout_s = _stream_timeout_s(message)
        keys = [one.key.ref for name in names if (one := self._credentials().get(name)) is not None]
        caller = call.caller.name
        while room.digests and keys:
            if not all(self._pool.is_too_busy(key, algorithm, count, caller, timeout_s) for key in keys):
                return
            await asyncio.sleep(HOLD_BACK_S)

    def _answer_bytes_max(self, message: Any, count: int) -> int:
        """For a request of a stream that was not looked into yet; little, where it will be refused."""
        names = self._policy().groups.get(message.credential, (message.credential,))
        found = [one for name in names if (one := self._credentials().get(name)) is not None]
        if message.output not in read.OUTPUTS:
            return _PROBLEM_BYTES
        output = read.output(message.output)
        sizes = [one.answer_bytes_max(output, count) for one in found if one.purpose is Purpose.SIGNATURE]
        return max(sizes, default=_PROBLEM_BYTES)

    async def _one_of_stream(self, message: Any, call: Call) -> tuple[Any, Record | None]:
        """The answer to one request of a stream, its refusal included, and the ledger's record of it."""
        try:
            deadline = min(call.deadline, self._clock.monotonic() + _stream_timeout_s(message))
            ask = self._ask(message, call, deadline, self._clock.wall())
            outcomes, record = await self._batches.sign(ask)
        except Exception as error:
            refusal = refusal_from(error)
            if refusal is None:
                raise
            return pb.SignDigestsResponse(request_id=message.request_id, error=pb.Problem(**problem_of(refusal))), None
        self._count(ask, outcomes)
        return encoded(ask.request_id, outcomes, _certificate(ask, record)), record

    async def sign_documents(self, context: Any, call: Call) -> None:
        caller = call.caller.name
        if self._document_streams[caller] >= DOCUMENT_STREAMS_MAX:
            raise Refusal("TOO_MANY_STREAMS", retry_s=1.0)
        self._document_streams[caller] += 1
        try:
            message = await next_to_begin(context, call)
            if message is None or message.WhichOneof("message") != "open":
                raise Refusal("STREAM_ORDER", "the first message is open")
            call.request_id = read.request_id(message.open.request_id)
            async with self._ledger.opened(uuid.UUID(call.request_id).bytes, caller):
                stream = DocumentStream(
                    context,
                    call,
                    self._order(message.open, call),
                    self._spool,
                    self._assembly,
                    self._batches,
                    self._clock,
                    lambda output, status: self._metrics.count_items(caller, output, status, 1),
                )
                await stream.run()
        finally:
            self._document_streams[caller] -= 1

    def _order(self, message: Any, call: Call) -> Order:
        name = message.credential
        members = self._members(name, call)
        output = read.output(message.output)
        if output is Output.RAW:
            raise Refusal("OUTPUT_NOT_ALLOWED", "documents are signed as CADES_B_B or PADES_B_B")
        algorithm = read.algorithm(message.signature_algorithm, message.digest_algorithm)
        _check_one(members, output, algorithm, call.accepted)
        current = functools.partial(self._members, name, call, algorithm)
        return Order(
            call.request_id, current, output, algorithm, message.enveloping, message.authorisation,
            group=name if name in self._policy().groups else "",
        )  # fmt: skip

    async def verify_document(self, context: Any, call: Call) -> Any:
        message = await next_message(context, call)
        if message is None or message.WhichOneof("message") != "open":
            raise Refusal("STREAM_ORDER", "the first message is open")
        read.text(message.open.name, "name")
        document = self._spool.open(call.caller.name)
        content = None
        try:
            while (message := await next_message(context, call)) is not None:
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
            report = await self._assembly.verify(call.caller.name, document.file.fileno(), fd, roots, now, call.promise)
            return _report(report)
        finally:
            document.close()
            if content is not None:
                content.close()

    def _members(
        self, name: str, call: Call, algorithm: Algorithm | None = None, count: int = 1
    ) -> tuple[Credential, ...]:
        """Who may sign for a name: the credential itself, or a group's members, the soonest for so many items first."""

        def done_in_s(member: Credential) -> float | None:
            one = algorithm or member.algorithms()[0]
            return self._pool.done_in_s(member.key.ref, one, count, call.caller.name)

        return group.candidates(name, call.caller, self._policy(), self._credentials(), done_in_s)

    def _ask(self, request: Any, call: Call, deadline: float, accepted: datetime) -> Ask:
        call.request_id = read.request_id(request.request_id)
        name = request.credential
        members, in_group = self._members(name, call), name in self._policy().groups
        output = read.output(request.output)
        algorithm, items = read.items(request, output)
        if in_group:
            members = self._members(name, call, algorithm, len(items))
        return Ask(
            call.caller, call.request_id, members[0], output, algorithm, items, deadline, accepted,
            authorisation=request.authorisation, group=name if in_group else "", others=members[1:],
            identify=call.check_again,
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


def _certificate(ask: Ask, record: Record) -> bytes:
    """Of who has signed: of a group it is known only now."""
    return certificates_of(record.asked.certificates)[0] if ask.group else ask.credential.certificates[0]


def _check_one(members: Sequence[Credential], output: Output, algorithm: Algorithm, now: datetime) -> None:
    """Raise the first one's refusal where none of them may make this: before a document is sent."""
    problem: Refusal | None = None
    for member in members:
        try:
            member.check(now)
            member.check_request(output, algorithm)
        except Refusal as refusal:
            problem = problem or refusal
        else:
            return
    assert problem is not None
    raise problem


def _as_group(name: str, members: Sequence[Any]) -> Any:
    """A group as a credential: what each of its members makes; it can sign while one can."""
    able = [member for member in members if member.available and member.state == State.ACTIVE]
    shown = pb.Credential(
        name=name,
        purpose=members[0].purpose,
        key_type=members[0].key_type,
        outputs=sorted(set.intersection(*(set(member.outputs) for member in members))),
        signature_algorithms=members[0].signature_algorithms,
        digest_algorithms=members[0].digest_algorithms,
        cms_digests_max=min(member.cms_digests_max for member in members),
        available=bool(able),
        unavailable_reason="" if able else members[0].unavailable_reason or "CREDENTIAL_SUSPENDED",
        cms_bytes_max=max(member.cms_bytes_max for member in members),
        gate=members[0].gate,
        state=State.ACTIVE if any(member.state == State.ACTIVE for member in members) else members[0].state,
    )
    shown.members.extend(members)
    return shown


def _stream_timeout_s(message: Any) -> float:
    return min(message.timeout_s, BATCH_CALL_S) if message.timeout_s > 0 else CALL_S


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
        self.digests = self._bytes = 0
        self._less = asyncio.Event()

    async def take(self, digests: int, size: int) -> None:
        while self.digests and self.digests + digests > STREAM_UNANSWERED_DIGESTS_MAX:
            self._less.clear()
            await self._less.wait()
        await self._promises.make_when_it_fits(self._caller, size)
        self.digests += digests
        self._bytes += size

    def give_back(self, digests: int, size: int) -> None:
        self.digests -= digests
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
