"""
What every call passes before its method and after it: identity, policy, limits, deadline, admission, and the one place
where an error is sent as a status (which, says `errors.py`).

The gRPC handlers are built from the service descriptors: an RPC without a method, or a method without an RPC, ends the
start.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

import grpc

from signer import randomness
from signer.clock import Clock
from signer.config import Caller
from signer.errors import Refusal, details, refusal_from
from signer.limits import (
    BATCH_CALL_S,
    CALL_S,
    CALLER_CALLS_MAX,
    CALLER_CALLS_SURE,
    CALLS_MAX,
    DEADLINE_MARGIN_S,
    DEADLINE_MARGIN_SHARE,
    DOCUMENT_LIFE_S,
    METADATA_BYTES_MAX,
    STREAM_LIFE_S,
)
from signer.metrics import Metrics
from signer.peer import Peers
from signer.policy import Policy
from signer.promises import Promises
from signer.refused import Refused
from signer.turns import Starts
from signer.unparsed import Unparsed

log = logging.getLogger("signer.call")

_KEEP_TIME = frozenset(
    {"SignDigests"}
)  # the pool answers it at its deadline, for certain: no second clock for each call
_LATE_S = 0.1  # methods keep to the deadline by themselves; so much later one that does not is ended
READ_OUT_S = 0.04  # a refusal is promised within 50 ms
_BUSY_RETRY_S = 0.1  # calls in work end within a frame or two
# The longest life of a call, and what it gets when the caller names no deadline; other RPCs: BATCH_CALL_S and CALL_S.
_LIVES: dict[str, tuple[float, float]] = {
    "SignDocuments": (DOCUMENT_LIFE_S, BATCH_CALL_S),
    "VerifyDocument": (BATCH_CALL_S, BATCH_CALL_S),
    "StreamDigests": (STREAM_LIFE_S, STREAM_LIFE_S),
    "WatchTokens": (STREAM_LIFE_S, STREAM_LIFE_S),
}


class Answers:
    """
    The context of a call with a stream; its messages are `Unparsed`. A task that writes may be cancelled; its message is
    still written to its end, because gRPC sends no status while a message is under way: the caller would wait for one until
    its deadline.
    """

    def __init__(self, context: Any) -> None:
        self.read = context.read
        self._context = context
        self._writing: asyncio.Future[None] | None = None

    async def write(self, message: Any) -> None:
        writing = self._writing = asyncio.ensure_future(self._context.write(message))
        writing.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(writing)

    async def settled(self) -> None:
        """Returns when nothing is under way."""
        if self._writing is not None:
            await asyncio.wait([self._writing])


class Admission:
    """How many calls are in work: of all callers, and of each. A call is in work until its answer has been taken."""

    def __init__(self) -> None:
        self._callers: Counter[str] = Counter()
        self._at_drain: set[Callable[[], object]] = set()
        self._empty = asyncio.Event()
        self.starts = Starts()
        self.promises = Promises()
        self.draining = False
        self.calls = 0

    def is_full_for(self, caller: Caller) -> bool:
        """An operator's call is never one too many: it may be the one that mends what fills the others."""
        own = self._callers[caller.name]
        full = self.calls >= CALLS_MAX and own >= CALLER_CALLS_SURE and caller.role != "operator"
        return full or own >= CALLER_CALLS_MAX

    async def admit(self, caller: Caller, context: Any, place: "Place", request: Unparsed | None) -> None:
        """
        Returns when it is the turn of the call, and of its request if it has one; raises `Refusal` instead of letting a queue
        grow.
        """
        if self.draining:
            raise draining()
        size = 0 if request is None else request.size
        has_room = self.starts.has_room(caller.name, size)
        if not has_room or self.is_full_for(caller):
            if request is not None:
                request.drop()
            if not self.starts.is_full(caller.name):
                await self.starts.turn(caller.name)  # who does not heed refusals is refused at his turn
            raise Refusal("TOO_MANY_CALLS", retry_s=_BUSY_RETRY_S) if has_room else too_much_waits()
        self._callers[caller.name] += 1
        self.calls += 1
        # Not when the method returns: an answer that nobody reads is in work, too.
        context.add_done_callback(lambda done: self._leave(caller, place, answered=not done.cancelled()))
        await self.starts.turn(caller.name, size)

    def _leave(self, caller: Caller, place: "Place", *, answered: bool) -> None:
        place.end(delivered=answered)
        if place.promised:
            self.promises.keep(caller.name, place.promised)
        self._callers[caller.name] -= 1
        if not self._callers[caller.name]:
            del self._callers[caller.name]
        self.calls -= 1
        if self.draining and not self.calls:
            self._empty.set()

    async def drain(self) -> None:
        """Admit no call any more; returns when none is in work."""
        self.draining = True
        for callback in list(self._at_drain):
            callback()
        if self.calls:
            await self._empty.wait()

    @contextlib.contextmanager
    def when_draining(self, callback: Callable[[], object]) -> Iterator[None]:
        """What a call that may be open for long, with nothing in work, does when the service stops."""
        self._at_drain.add(callback)
        if self.draining:  # it began while the call waited for its turn
            callback()
        try:
            yield
        finally:
            self._at_drain.discard(callback)


class Place:
    """What a call holds until its answer was taken; apart from the call, which would keep its connection alive."""

    __slots__ = ("_at_end", "_is_over", "promised")

    def __init__(self) -> None:
        self.promised = 0  # bytes of answers
        self._at_end: list[Callable[..., None]] = []
        self._is_over = False

    def at_end(self, callback: Callable[..., None]) -> None:
        """To be told whether the answer was `delivered`."""
        if self._is_over:  # the caller has gone while its answer was made
            callback(delivered=False)
        else:
            self._at_end.append(callback)

    def end(self, *, delivered: bool) -> None:
        self._is_over = True
        for callback in self._at_end:
            callback(delivered=delivered)
        self._at_end.clear()


@dataclass(slots=True)
class Call:
    """One call as its method sees it. `deadline` is of the monotonic clock; `accepted` the wall time it came at."""

    rpc: str
    caller: Caller
    deadline: float
    accepted: datetime
    identify: Callable[[], Caller] = field(repr=False)
    admission: Admission = field(repr=False)
    place: "Place" = field(default_factory=Place, repr=False)
    request_id: str = ""

    def check_again(self) -> None:
        """For each message of a stream: the certificate may have ended, or been denied, or lost this RPC."""
        self.caller = self.identify()

    async def turn(self, size: int) -> None:
        """For each message of a stream that is work, of `size` bytes: as for the first one. Raises `Refusal` TOO_MANY_CALLS."""
        if not self.admission.starts.has_room(self.caller.name, size):
            raise too_much_waits()
        await self.admission.starts.turn(self.caller.name, size)

    def promise(self, size: int) -> None:
        """The answer will have so many bytes, until it has been taken; raises `Refusal` ANSWERS_UNREAD."""
        self.admission.promises.make(self.caller.name, size)
        self.place.promised += size


def draining() -> Refusal:
    return Refusal("DRAINING", retry_s=1.0)


def too_much_waits() -> Refusal:
    return Refusal("TOO_MANY_CALLS", "64 MiB of the caller's requests wait for their turn", retry_s=_BUSY_RETRY_S)


@dataclass(frozen=True, slots=True)
class Gatekeeper:
    """What the calls of one listener share."""

    peers: Peers
    policy: Callable[[], Policy]
    clock: Clock
    admission: Admission
    metrics: Metrics
    refused: Refused

    async def admit(self, call: Call, context: Any, request: Unparsed | None) -> None:
        """Returns when it is the call's turn; raises `Refusal`, also for what was taken away while it waited for that."""
        policy = self.policy()
        await self.admission.admit(call.caller, context, call.place, request)
        if self.policy() is not policy:
            call.check_again()

    def begin(self, rpc: str, context: Any, outcome: "_Outcome") -> Call:
        """Who calls, and whether they may; raises `Refusal`."""
        metadata = sum(len(key) + len(value) for key, value in context.invocation_metadata() or ())
        if metadata > METADATA_BYTES_MAX:
            raise Refusal("METADATA_TOO_LARGE", f"{metadata} bytes")

        def identify() -> Caller:
            caller = outcome.caller = self.peers.identify(context)
            self.policy().check_rpc(caller, rpc)
            return caller

        caller = identify()
        life_s, default_s = _LIVES.get(rpc, (BATCH_CALL_S, CALL_S))
        asked_s = context.time_remaining()
        left_s = default_s if asked_s is None else min(asked_s, life_s)
        margin_s = max(DEADLINE_MARGIN_S, left_s * DEADLINE_MARGIN_SHARE)
        deadline = self.clock.monotonic() + left_s - margin_s
        return Call(rpc, caller, deadline, self.clock.wall(), identify, self.admission)

    async def unary(
        self, rpc: str, method: Callable[[Any, Call], Awaitable[Any]], request: Unparsed | None, context: Any
    ) -> Any:
        """A call with one answer, and with one `request`; None: its method reads them from the context."""
        with _Outcome(rpc, context, self.metrics, self.refused) as outcome:
            try:
                call = outcome.call = self.begin(rpc, context, outcome)
                await self.admit(call, context, request)
                asked = context if request is None else request.parse()
                if rpc in _KEEP_TIME:
                    return await method(asked, call)
                async with asyncio.timeout(self._left(call) + _LATE_S):
                    return await method(asked, call)
            except Exception as error:  # noqa: BLE001 -- the boundary: whatever it is becomes a status here
                refusal = outcome.refusal = self._refusal(error, outcome)
        # Not `abort`: gRPC keeps what that raises, with our frames and the codes in the request, for the collector.
        context.set_trailing_metadata(details(refusal))
        context.set_details(refusal.message)
        context.set_code(refusal.code)
        return None

    async def stream(
        self, rpc: str, method: Callable[..., Awaitable[None]], request: Unparsed | None, context: Any
    ) -> None:
        """A call whose method writes messages itself, and reads them too where the call has not one `request`."""
        answers = Answers(context)
        with _Outcome(rpc, context, self.metrics, self.refused) as outcome:
            try:
                call = outcome.call = self.begin(rpc, context, outcome)
                await self.admit(call, context, request)
                asked = () if request is None else (request.parse(),)
                async with asyncio.timeout(self._left(call) + _LATE_S):
                    await method(*asked, answers, call)
            except Exception as error:  # noqa: BLE001 -- the boundary, as above
                outcome.refusal = self._refusal(error, outcome)
        if outcome.refusal is not None:
            await answers.settled()
            if request is None:
                await _read_out(context)
            await context.abort(outcome.refusal.code, outcome.refusal.message, details(outcome.refusal))

    def _left(self, call: Call) -> float:
        return max(0.0, call.deadline - self.clock.monotonic())

    def _refusal(self, error: Exception, outcome: "_Outcome") -> Refusal:
        while isinstance(error, ExceptionGroup):  # of a stream's tasks; a refusal says best why it ended
            error = (error.subgroup(Refusal) or error).exceptions[0]
        if isinstance(error, TimeoutError):
            return Refusal("DEADLINE_EXCEEDED")
        refusal = refusal_from(error)
        if refusal is None:
            if isinstance(error, OSError):  # as os.urandom raises it
                try:
                    randomness.check_again()
                except randomness.NoRandomness as none:
                    log.error("%s failed: %s", outcome, none)  # noqa: TRY400 -- no fault of ours
                    return Refusal("NO_RANDOMNESS")
            log.error("%s failed", outcome, exc_info=error)
            return Refusal("INTERNAL")
        return refusal.bare()


@dataclass(slots=True)
class _Outcome:
    """Counts, measures and logs a call, however it ends."""

    rpc: str
    context: Any
    metrics: Metrics
    refused: Refused
    began: float = field(default_factory=time.perf_counter)
    caller: Caller | None = None
    call: Call | None = None
    refusal: Refusal | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        took_s = time.perf_counter() - self.began
        caller = self.caller.name if self.caller else ""
        code = "OK" if kind is None else "CANCELLED"
        if self.refusal is not None:
            code = self.refusal.code.name
            self.metrics.refusals.labels(caller, self.rpc, self.refusal.reason).inc()
            peer = self.context.peer()
            if self.refused.has_line(caller, peer):
                log.info("%s refused: %s peer=%s", self, self.refusal, peer)
        elif log.isEnabledFor(logging.DEBUG):
            log.debug("%s %s in %.1f ms", self, code, took_s * 1e3)
        self.metrics.count_call(caller, self.rpc, code, took_s)
        # The call knows how to identify its caller, and with that this: the connection would wait for the garbage
        # collector.
        self.call = self.context = None

    def __str__(self) -> str:
        caller = self.caller.name if self.caller else "?"
        request = f" request={self.call.request_id}" if self.call and self.call.request_id else ""
        return f"{self.rpc} caller={caller}{request}"


def build(descriptor: Any, messages: Any, keeper: Gatekeeper, *servicers: Any) -> grpc.GenericRpcHandler:
    """
    The handlers of one service. `messages` is the module with the generated classes; one of `servicers` has a method for
    each RPC, named as it: (request, call) -> answer for unary calls, (context, call) for those with a stream.
    """
    handlers = {}
    for method in descriptor.methods:
        name = _snake(method.name)
        [function] = [getattr(servicer, name) for servicer in servicers if hasattr(servicer, name)]
        handlers[method.name] = _handler(method, function, getattr(messages, method.input_type.name), keeper)
    return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)


def _handler(method: Any, function: Any, request: Any, keeper: Gatekeeper) -> Any:
    parse = request.FromString

    def read(data: bytes) -> Unparsed:
        return Unparsed(parse, data)

    async def unary(message: Unparsed, context: Any) -> Any:
        return await keeper.unary(method.name, function, message, context)

    async def stream(_messages: Any, context: Any) -> None:
        await keeper.stream(method.name, function, None, context)

    async def unary_stream(message: Unparsed, context: Any) -> None:
        await keeper.stream(method.name, function, message, context)

    async def stream_unary(_messages: Any, context: Any) -> Any:
        return await keeper.unary(method.name, function, None, context)

    if method.client_streaming and method.server_streaming:
        return grpc.stream_stream_rpc_method_handler(stream, read, _encoded)
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(unary_stream, read, _encoded)
    if method.client_streaming:
        return grpc.stream_unary_rpc_method_handler(stream_unary, read, _encoded)
    return grpc.unary_unary_rpc_method_handler(unary, read, _encoded)


def _encoded(answer: Any) -> bytes:
    """A method answers with a message, or with its encoding where that is quicker to make."""
    encoded: bytes = answer if isinstance(answer, bytes) else answer.SerializeToString()
    return encoded


async def _read_out(context: Any) -> None:
    """
    Take what a refused caller is still sending, for a moment: to gRPC's client in Python a message that it cannot write
    any more is an "Internal error from Core", and the refusal's reason is lost.
    """
    with contextlib.suppress(Exception):  # a read of the method's own may be under way; then the caller waits for that
        async with asyncio.timeout(READ_OUT_S):
            while await context.read() is not grpc.aio.EOF:
                pass


def _snake(name: str) -> str:
    """'SignDigests' is sign_digests."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
