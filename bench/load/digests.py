"""Digests by the batch and by the piece, as fast as they are answered."""

import asyncio
import os
import time
import uuid
from collections import Counter
from typing import Any

import grpc

from bench.load import verdict
from bench.load.target import Target, request
from signer.v1 import signing_pb2 as pb

TIMEOUT_S = 120.0


def fresh(count: int) -> list[bytes]:
    """Digests that nobody has signed before."""
    block = os.urandom(32 * count)
    return [block[32 * i : 32 * i + 32] for i in range(count)]


async def batches(
    target: Target, credential: str, batch: int, total: int, in_flight: int, output: str = "RAW"
) -> dict[str, Any]:
    """`total` digests in batches, `in_flight` of them unanswered: from the first request to the last answer."""
    stub = target.stubs(1)[0]
    left = max(1, round(total / batch))
    count = left * batch
    requests = iter([request(credential, fresh(batch), output) for _ in range(left)])
    began = time.monotonic()

    async def sender() -> None:
        for each in requests:
            answer = await stub.SignDigests(each, timeout=TIMEOUT_S)
            if not all(item.status == pb.SIGNED for item in answer.items):
                bad = next(item for item in answer.items if item.status != pb.SIGNED)
                raise RuntimeError(f"not signed: {bad.reason}")
            target.seen.add(verdict.digests, each, answer)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(in_flight, left)):
            tasks.create_task(sender())
    return {"count": count, "seconds": time.monotonic() - began}


async def single(
    target: Target, credential: str, seconds: float, in_flight: int, channels: int = 1, warm: float = 0.0,
    tolerant: bool = False, random_ids: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """
    One digest a call, `in_flight` calls unanswered; those answered within the time count.

    `tolerant` counts calls that fail, too, instead of ending with the first. `random_ids`: UUIDs of version 4, as a client
    has them that does not know better.
    """
    stubs = target.stubs(channels)
    loop = asyncio.get_running_loop()
    start = loop.time() + warm
    end = start + seconds
    count = 0
    failed: Counter[str] = Counter()

    async def caller(stub: Any) -> None:
        nonlocal count
        while loop.time() < end:
            try:
                asked = request(credential, [os.urandom(32)])
                if random_ids:
                    asked.request_id = str(uuid.uuid4())
                answer = await stub.SignDigests(asked, timeout=TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                if not tolerant:
                    raise
                failed[str(error.details())] += 1
                await asyncio.sleep(0.01)
                continue
            if answer.items[0].status != pb.SIGNED:
                raise RuntimeError(f"not signed: {answer.items[0].reason}")
            target.seen.add(verdict.digests, asked, answer)
            count += start <= loop.time() < end

    async with asyncio.TaskGroup() as tasks:
        for number in range(in_flight):
            tasks.create_task(caller(stubs[number % channels]))
    return {"count": count, "seconds": seconds, "failed": dict(failed)}


async def empty(target: Target, seconds: float, in_flight: int, channels: int = 1) -> dict[str, Any]:
    """What `single` does, to a handler that does nothing: the same request is made, an empty answer is read."""
    calls = [
        channel.unary_unary(
            "/bench.Empty/Call",
            request_serializer=pb.SignDigestsRequest.SerializeToString,
            response_deserializer=pb.SignDigestsResponse.FromString,
        )
        for channel in target.channels(channels)
    ]
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    count = 0

    async def caller(call: Any) -> None:
        nonlocal count
        while loop.time() < end:
            await call(request("nobody.p-256", [os.urandom(32)]), timeout=TIMEOUT_S)
            count += loop.time() < end

    async with asyncio.TaskGroup() as tasks:
        for number in range(in_flight):
            tasks.create_task(caller(calls[number % channels]))
    return {"count": count, "seconds": seconds}


async def plain(target: Target, kind: str, seconds: float, in_flight: int) -> dict[str, Any]:
    """The peer's call: a digest in, a signature out, bytes both."""
    call = target.bytes_call(target.channels(1)[0], f"/bench.Plain/{kind}")
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    count = 0

    async def caller() -> None:
        nonlocal count
        while loop.time() < end:
            if len(await call(os.urandom(32), timeout=TIMEOUT_S)) < 64:
                raise RuntimeError("that is no signature")
            count += loop.time() < end

    async with asyncio.TaskGroup() as tasks:
        for _ in range(in_flight):
            tasks.create_task(caller())
    return {"count": count, "seconds": seconds}
