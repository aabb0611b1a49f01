"""
Calls that are reset: who makes them without end keeps them for a while.

A stream that is opened and reset at once (CVE-2023-44487) costs its sender two short frames, and the loop gRPC's part of
a call. `max_concurrent_streams` bounds how many are there at one time, not how many follow. But a call whose handler has
not ended still counts as one of its connection's streams, reset or not. So a caller has an allowance of resets, and one
past it ends when the allowance covers it: until then gRPC refuses what would come in its place, which costs next to
nothing. What reaches no method, for there is none of that name, or no message, counts as a reset: nothing else bounds it.
A call whose message does not come is not waited for for ever: the oldest of them ends when there are too many.
"""

import asyncio
import contextlib
import functools
import inspect
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from signer.errors import Refusal, details
from signer.handlers import Admission
from signer.others import Others
from signer.peer import Peers
from signer.unparsed import Unparsed

log = logging.getLogger("signer.call")

# Who gives up on all he has in work, at a deadline or at his own end, resets that many: four full connections. Who does
# so every two seconds, for ever, stays within the allowance, which is less than a tenth of the loop's time.
RESETS_AT_ONCE = 512
RESETS_A_SECOND = 256
HELD_MAX = 2_048  # calls of all callers, of 20 KB each, on sixteen connections; what comes on more ends at once
# Calls of all callers that wait for their message, of 20 KB each. An honest one waits for as long as 1 MiB takes, with others
# behind it, on a line of half a megabit: so long none is ended but for want of room.
READING_MAX = 2_048
READING_S = 30.0

TOLD_S = 60.0  # between two lines of the log about one caller


@dataclass(slots=True)
class Allowance:
    """How many resets one caller has left; less than none where some wait."""

    clock: Callable[[], float] = time.monotonic
    _left: float = RESETS_AT_ONCE
    _since: float = 0.0
    _told: float = -math.inf

    def take(self) -> float:
        """One more; in how many seconds the allowance covers it."""
        now = self.clock()
        left = min(RESETS_AT_ONCE, self._left + (now - self._since) * RESETS_A_SECOND)
        self._left, self._since = max(-HELD_MAX, left - 1), now
        return max(0.0, -self._left / RESETS_A_SECOND)

    def is_news(self) -> bool:
        """Whether nobody was told for a while."""
        if self._since < self._told + TOLD_S:
            return False
        self._told = self._since
        return True


@dataclass(slots=True)
class Resets:
    """The allowances of all callers, on whichever listener they call."""

    admission: Admission
    count: Callable[[str], object]  # of a caller: one more that is past the allowance
    _allowances: dict[str, Allowance] = field(default_factory=dict)  # '' for those that are not known
    _held: int = 0
    _reading: dict[asyncio.Task[Any], float] = field(default_factory=dict)  # whose message has not come, and since when
    _late: set[asyncio.Task[Any]] = field(default_factory=set)  # of them: those that are not waited for any more

    async def message(self, context: Any) -> Any:
        """
        A call's message; EOF where none comes, None where it is not waited for any more. Looked at by whoever comes next: a
        clock for each call would cost more.
        """
        task = asyncio.current_task()
        assert task is not None
        now = time.monotonic()
        if self._reading:
            oldest, since = next(iter(self._reading.items()))
            if len(self._reading) >= READING_MAX or since < now - READING_S:
                del self._reading[oldest]
                self._late.add(oldest)
                oldest.cancel()
        self._reading[task] = now
        try:
            return await context.read()
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            task.uncancel()
            return None
        finally:
            self._reading.pop(task, None)
            self._late.discard(task)

    async def hold(self, caller: str) -> None:
        """A call of this caller was reset: returns when it may end. The end of the service waits for none."""
        allowance = self._allowances.setdefault(caller, Allowance())
        hold_s = allowance.take()
        if not hold_s:
            return
        self.count(caller)
        if allowance.is_news():
            log.warning("caller=%s resets more than %d calls a second: some are held", caller, RESETS_A_SECOND)
        if self._held >= HELD_MAX:
            return
        over = asyncio.Event()
        self._held += 1
        timer = asyncio.get_running_loop().call_later(hold_s, over.set)
        try:
            with self.admission.when_draining(over.set):
                await over.wait()
        finally:
            timer.cancel()
            self._held -= 1


class Interceptor(grpc.aio.ServerInterceptor):
    """
    Sees each call of one listener that is reset, whatever its method; and who calls `others`.

    gRPC waits for the message of a unary call before it calls the handler, so of one that was reset before nobody would
    hear. Every handler is made one that reads its message itself.
    """

    def __init__(self, resets: Resets, peers: Peers, others: Others) -> None:
        self._resets = resets
        self._others = others
        self._peers = peers
        self._handlers: dict[str, Any] = {}  # of methods that exist
        self._unknown: Any = grpc.stream_unary_rpc_method_handler(self._coroutine(self._no_such_method))

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """The method's handler, made at its first call."""
        name = handler_call_details.method
        if name not in self._handlers:
            handler = await continuation(handler_call_details)
            if handler is None:
                return self._unknown
            self._handlers[name] = self._watched(self._looked_at(handler) if self._others.has(name) else handler)
        return self._handlers[name]

    def _watched(self, handler: Any) -> Any:
        method = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        if not handler.request_streaming:
            method = self._with_its_message(method)
        watched = self._generator(method) if inspect.isasyncgenfunction(method) else self._coroutine(method)
        kind = "stream_stream" if handler.response_streaming else "stream_unary"
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(watched, handler.request_deserializer, handler.response_serializer)

    def _looked_at(self, handler: Any) -> Any:
        """Of a method that asks by itself nobody who calls: one that does, before the message is parsed."""
        read = functools.partial(Unparsed, handler.request_deserializer)
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._one_asked(handler), read, handler.response_serializer)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(self._one_asked(handler), read, handler.response_serializer)
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(self._many_asked(handler), read, handler.response_serializer)
        raise TypeError("a stream with one answer: no method of health or reflection is one")

    def _one_asked(self, handler: Any) -> Callable[[Any, Any], Awaitable[Any]]:
        method = handler.unary_unary or handler.unary_stream

        async def asked(request: Unparsed, context: Any) -> Any:
            try:
                caller = await self._others.turn(self._peers, context, request.size)
                message = request.parse()
                with self._others.stream(caller) if handler.response_streaming else contextlib.nullcontext():
                    return await method(message, context)
            except Refusal as error:
                refusal = error.bare()
            request.drop()  # it may be held, as a reset
            return await self._turn_away(context, refusal.code, refusal.message, details(refusal))

        return asked

    def _many_asked(self, handler: Any) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def asked(messages: Any, context: Any) -> AsyncIterator[Any]:
            refusal = None
            try:
                with self._others.stream(await self._others.turn(self._peers, context, 0)):
                    parsed = self._others.messages(self._peers, context, messages)
                    async for answer in handler.stream_stream(parsed, context):
                        yield answer
            except Refusal as error:
                refusal = error.bare()
            if refusal is not None:
                await self._turn_away(context, refusal.code, refusal.message, details(refusal))

        return asked

    def _coroutine(self, method: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        async def watched(messages: Any, context: Any) -> Any:
            with contextlib.suppress(asyncio.CancelledError):
                return await method(messages, context)
            # Not where it is caught: the error has the method's frames, and they the request, for as long as it is kept.
            await self._hold(context)
            raise asyncio.CancelledError

        return watched

    def _generator(self, method: Callable[[Any, Any], AsyncIterator[Any]]) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def watched(messages: Any, context: Any) -> AsyncIterator[Any]:
            with contextlib.suppress(asyncio.CancelledError):
                async for answer in method(messages, context):
                    yield answer
                return
            await self._hold(context)
            raise asyncio.CancelledError

        return watched

    def _with_its_message(self, method: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        """Of a method with one message: one that reads it."""

        async def reading(_messages: Any, context: Any) -> Any:
            message = await self._resets.message(context)
            if context.cancelled():  # before its turn: what the method would cost is saved
                raise asyncio.CancelledError
            if message is None or message is grpc.aio.EOF:
                late = Refusal("TOO_MANY_CALLS", "its message did not come", retry_s=1.0)
                none = late if message is None else Refusal("MESSAGE_MALFORMED", "none was sent")
                await self._turn_away(context, none.code, none.message, details(none))
            return await method(message, context)

        return reading

    async def _no_such_method(self, _messages: Any, context: Any) -> None:
        """As gRPC answers by itself."""
        await self._turn_away(context, grpc.StatusCode.UNIMPLEMENTED, "Method not found!", ())

    async def _turn_away(self, context: Any, code: Any, message: str, trailers: Any) -> None:
        """Of what no method sees: it costs the loop as much as a reset, and counts as one."""
        await self._hold(context)
        await context.abort(code, message, trailers)

    async def _hold(self, context: Any) -> None:
        try:
            caller = self._peers.identify(context).name
        except Refusal:
            caller = ""
        await self._resets.hold(caller)
