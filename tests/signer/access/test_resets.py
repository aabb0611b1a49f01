"""Calls that are reset: an allowance, and what is past it keeps its place among its connection's streams."""

import asyncio
import contextlib
import gc
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from signer import resets
from signer.errors import Refusal
from signer.handlers import Admission
from signer.others import Others
from signer.resets import HELD_MAX, RESETS_A_SECOND, RESETS_AT_ONCE, Allowance, Interceptor, Resets
from tests import abuse
from tests.abuse import CHECK, SIGN, Abuser
from tests.daemon import Rig, running, until
from tests.pool.rig import until as soon
from tests.signer.access.calls import Caller, answer_of, ask, digests, metric, signed, statuses


@pytest.fixture
def rig() -> Iterator[Rig]:
    with running(abuse.rig_with_abuser()) as made:
        yield made


def test_the_allowance() -> None:
    """All at once, then so many a second; what is asked past it waits for its own time, and nobody longer than all held."""
    now = 100.0
    allowance = Allowance(lambda: now)
    assert [allowance.take() for _ in range(RESETS_AT_ONCE)] == [0.0] * RESETS_AT_ONCE
    assert [allowance.take() * RESETS_A_SECOND for _ in range(3)] == [1, 2, 3]
    now += 3 / RESETS_A_SECOND
    assert allowance.take() * RESETS_A_SECOND == 1
    now += 1 + 1 / RESETS_A_SECOND
    assert [allowance.take() for _ in range(RESETS_A_SECOND)] == [0.0] * RESETS_A_SECOND
    for _ in range(2 * HELD_MAX):
        longest = allowance.take()
    assert longest == HELD_MAX / RESETS_A_SECOND
    now += 3600
    assert [allowance.take() for _ in range(RESETS_AT_ONCE)] == [0.0] * RESETS_AT_ONCE
    assert allowance.take() > 0, "what was not used for an hour is not saved up"


async def test_who_is_held(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Past the allowance a call waits; not another caller's; not one more than may be held; and none once it drains. Told once."""
    monkeypatch.setattr(resets, "HELD_MAX", 3)
    admission, counted = Admission(), Counter[str]()
    kept = Resets(admission, lambda caller: counted.update([caller]))
    began = time.monotonic()
    for _ in range(RESETS_AT_ONCE):
        await kept.hold("hasty")
    while True:  # what the allowance has won meanwhile
        first = asyncio.ensure_future(kept.hold("hasty"))
        await asyncio.sleep(0)
        if not first.done():
            break
    assert time.monotonic() - began < 1
    held = [asyncio.ensure_future(kept.hold("hasty")) for _ in range(50)]
    await asyncio.sleep(0)
    assert sum(not call.done() for call in [first, *held]) == 3
    assert counted == {"hasty": 51}, "those that are not held, too"
    assert caplog.text.count("caller=hasty resets more than 256 calls a second") == 1
    await kept.hold("other")
    await asyncio.wait([first])  # its time comes by itself
    held = [asyncio.ensure_future(kept.hold("hasty")) for _ in range(50)]
    await asyncio.sleep(0)
    assert not all(call.done() for call in held)
    draining = asyncio.ensure_future(admission.drain())
    await asyncio.wait([*held, draining], timeout=0.005)
    assert all(call.done() for call in held)


async def test_one_that_is_cancelled_gives_its_room_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A held call that the server itself ends is held no longer, and another may be."""
    monkeypatch.setattr(resets, "RESETS_AT_ONCE", 0)
    monkeypatch.setattr(resets, "HELD_MAX", 1)
    kept = Resets(Admission(), lambda _: None)
    kept._allowances["hasty"] = Allowance(lambda: 0.0, 0.0)
    held = asyncio.ensure_future(kept.hold("hasty"))
    await asyncio.sleep(0)
    assert not held.done()
    held.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await held
    again = asyncio.ensure_future(kept.hold("hasty"))
    await asyncio.sleep(0)
    assert not again.done()
    again.cancel()


class Nobody:
    def identify(self, context: Any) -> Any:
        raise Refusal("CALLER_UNKNOWN")


class Watched(Resets):
    """Counts instead of holding."""

    def __init__(self) -> None:
        super().__init__(Admission(), lambda _: None)
        self.told: asyncio.Queue[str] = asyncio.Queue()

    async def hold(self, caller: str) -> None:
        self.told.put_nowait(caller)


@contextlib.asynccontextmanager
async def serving(kept: Resets) -> AsyncIterator[str]:
    """A server of the four kinds of method, two of each with a stream of answers; its address."""

    async def one(message: bytes, context: Any) -> bytes:
        if message == b"wait":
            await asyncio.Event().wait()
        return message * 2

    async def write(message: bytes, context: Any) -> None:
        await context.write(await one(message, context))

    async def generate(message: bytes, context: Any) -> AsyncIterator[bytes]:
        yield await one(message, context)

    async def first(messages: Any, context: Any) -> bytes:
        return await one(await context.read(), context)

    async def write_first(messages: Any, context: Any) -> None:
        await write(await context.read(), context)

    async def generate_all(messages: Any, context: Any) -> AsyncIterator[bytes]:
        async for message in messages:
            yield await one(message, context)

    async def wait(message: Parsed, context: Any) -> bytes:
        await asyncio.Event().wait()
        return message.data

    handlers = {
        "parsed": grpc.unary_unary_rpc_method_handler(wait, Parsed),
        "uu": grpc.unary_unary_rpc_method_handler(one),
        "us": grpc.unary_stream_rpc_method_handler(write),
        "su": grpc.stream_unary_rpc_method_handler(first),
        "ss": grpc.stream_stream_rpc_method_handler(write_first),
        "ssg": grpc.stream_stream_rpc_method_handler(generate_all),
    }
    server = grpc.aio.server(interceptors=[Interceptor(kept, Nobody(), Others(kept.admission.starts))])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def call(channel: Any, method: str, message: bytes) -> Any:
    """The only answer of a method of `serving`."""
    if method == "uu":
        return await channel.unary_unary(f"/t/{method}")(message)
    if method == "us":
        return await channel.unary_stream(f"/t/{method}")(message).read()
    if method == "su":
        return await channel.stream_unary(f"/t/{method}")(iter([message]))
    return await channel.stream_stream(f"/t/{method}")(iter([message])).read()


@pytest.mark.parametrize("method", ["uu", "us", "su", "ss", "ssg"])
async def test_each_kind_of_method_answers_and_is_watched(method: str) -> None:
    """A call of each kind is answered as without the watch; one that is given up is told, once, as nobody's."""
    kept = Watched()
    async with serving(kept) as address, grpc.aio.insecure_channel(address) as channel:
        assert await call(channel, method, b"ab") == b"abab"
        assert kept.told.empty()
        given_up = asyncio.ensure_future(call(channel, method, b"wait"))
        await asyncio.sleep(0.1)
        given_up.cancel()
        async with asyncio.timeout(5):
            assert await kept.told.get() == ""
        await asyncio.sleep(0)
        assert kept.told.empty()


async def test_no_such_method_and_no_message() -> None:
    """
    What there is no method for is UNIMPLEMENTED, and a call that ends without its message is told so; both count as resets,
    because no method, and nothing that bounds calls, ever sees them.
    """
    kept = Watched()
    async with serving(kept) as address, grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as none:
            await channel.unary_unary("/t/other")(b"")
        assert none.value.code() == grpc.StatusCode.UNIMPLEMENTED
        with pytest.raises(grpc.aio.AioRpcError) as empty:
            await channel.stream_unary("/t/uu")(iter([]))
        assert answer_of(empty.value).brief == ("INVALID_ARGUMENT", "MESSAGE_MALFORMED")
    assert kept.told.qsize() == 2


@pytest.mark.parametrize(("limit", "value"), [("READING_MAX", 3), ("READING_S", -1.0)])
async def test_a_message_that_never_comes(monkeypatch: pytest.MonkeyPatch, limit: str, value: float) -> None:
    """
    The oldest call that waits for its message ends when there are too many, or when it has waited for too long and another one
    comes; it counts as a reset, and the next caller is answered.
    """
    kept = Watched()
    monkeypatch.setattr(resets, limit, value)
    first_left = 3 if limit == "READING_MAX" else 1
    never = asyncio.Event()

    async def nothing() -> AsyncIterator[bytes]:
        await never.wait()
        yield b""

    async with serving(kept) as address, grpc.aio.insecure_channel(address) as channel:
        silent = []
        for number in range(5):
            silent.append(channel.stream_unary("/t/uu")(nothing()))
            left = min(number + 1, first_left)
            seen = (left, number + 1 - left)
            await soon(lambda seen=seen: (len(kept._reading), kept.told.qsize()) == seen, 5)
        assert await channel.unary_unary("/t/uu")(b"x") == b"xx"
        assert kept.told.qsize() == 6 - first_left
        for call in silent[: 6 - first_left]:
            with pytest.raises(grpc.aio.AioRpcError) as late:
                await call
            assert answer_of(late.value).brief == ("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS")
        assert not any(call.done() for call in silent[6 - first_left :])
        never.set()
    assert not kept._reading


async def test_a_held_call_keeps_no_request() -> None:
    """While a call is held its request is not: it may have secrets, and be large."""
    kept = Resets(Admission(), lambda _: None)
    kept._allowances[""] = Allowance(lambda: 0.0, -1_000.0)
    marker = f"unmistakable {time.monotonic_ns()}".encode()
    async with serving(kept) as address, grpc.aio.insecure_channel(address) as channel:
        given_up = asyncio.ensure_future(channel.unary_unary("/t/parsed")(marker))
        await soon(lambda: bool(PARSED), 5)
        given_up.cancel()
        await soon(lambda: kept._held == 1, 5)
        gc.collect()
        assert len(PARSED) == 0


class Parsed:
    """A message that is an object, whose life can be seen."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        PARSED.add(self)


PARSED: weakref.WeakSet[Parsed] = weakref.WeakSet()


@pytest.mark.parametrize(
    ("path", "message"), [(SIGN, None), (SIGN, abuse.request(1)), (CHECK, ""), ("/signer.v1.Signing/Nope", None)]
)
def test_few_of_many_resets_are_let_in(rig: Rig, path: str, message: str | None) -> None:
    """
    CVE-2023-44487: of ten thousand calls that are reset at once, whatever they call, gRPC refuses all but the allowance and
    a connection's streams; others are served meanwhile, and whoever came too often is served again afterwards.
    """
    wishes = {"path": path, "streams": 10_000} | ({} if message is None else {"message": message})
    with Abuser(rig, "resets", **wishes) as abuser, Caller(rig) as portal:
        seen = abuser.said(60)
        assert statuses(portal.sign()) == ["SIGNED"]
        seen = abuser.end()
    let_in = seen["streams"] - seen.get("RST_STREAM REFUSED_STREAM", 0) - seen.get("RST_STREAM ENHANCE_YOUR_CALM", 0)
    assert let_in <= RESETS_AT_ONCE + 128 + RESETS_A_SECOND * seen["ms"] / 1e3 + 128
    with Caller(rig, abuse.ABUSER) as again:
        assert statuses(again.sign()) == ["SIGNED"]


def test_who_gives_up_on_all_is_not_held(rig: Rig) -> None:
    """Calls in work that are given up, as many as a client may have, end at once: it can call again on that connection."""
    with Caller(rig) as portal:
        for _ in range(3):
            before = signed(rig)
            calls = [portal.signing.SignDigests.future(ask(digests=digests(20)), timeout=60) for _ in range(100)]
            until(lambda: signed(rig) > before, 10, "the first of the calls in work")  # noqa: B023 -- called at once
            for each in calls:
                each.cancel()
            until(lambda: metric(rig, "paraph_calls_in_work") == 0, 1, "the end of the calls")
        assert statuses(portal.sign()) == ["SIGNED"]


def test_health_is_as_ever(rig: Rig) -> None:
    """Health and reflection are watched like the rest, and answer."""
    with Caller(rig) as portal:
        stub = health_pb2_grpc.HealthStub(portal.channel)
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status == health_pb2.HealthCheckResponse.SERVING
        assert next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=5)).status
        with pytest.raises(grpc.RpcError) as unknown:
            stub.Check(health_pb2.HealthCheckRequest(service="none"), timeout=5)
        assert answer_of(unknown.value).code == "NOT_FOUND"
