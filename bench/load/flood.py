"""More than the service can do: closed loop (as many as it lets), and open loop (as many as we like)."""

import asyncio
import time
from collections import Counter
from typing import Any

import grpc

from bench.load.digests import fresh
from bench.load.interactive import quantiles
from bench.load.target import Target, again, request
from signer.v1 import signing_pb2 as pb

_BACK_OFF_S = 0.05  # a flooder that does not care about RetryInfo, and does not spin either


async def flood(
    target: Target,
    credential: str,
    batch: int,
    seconds: float,
    in_flight: int,
    channels: int = 4,
    timeout_s: float = 30,
) -> dict[str, Any]:
    """`in_flight` batches unanswered at all times; what is refused is sent again. Counts the signatures it got."""
    calls = [target.bytes_call(channel) for channel in target.channels(channels)]
    message = request(credential, fresh(batch)).SerializeToString()
    end = time.monotonic() + seconds
    count = 0
    refused: Counter[str] = Counter()

    async def caller(call: Any) -> None:
        nonlocal count
        while (left_s := end - time.monotonic()) > 0:
            try:
                answer = await call(again(message), timeout=min(timeout_s, left_s))
            except grpc.aio.AioRpcError as error:
                refused[error.code().name] += 1
                await asyncio.sleep(_BACK_OFF_S)
                continue
            items = pb.SignDigestsResponse.FromString(answer).items
            count += sum(item.status == pb.SIGNED for item in items)

    async with asyncio.TaskGroup() as tasks:
        for number in range(in_flight):
            tasks.create_task(caller(calls[number % channels]))
    return {"count": count, "seconds": seconds, "refused": dict(refused)}


async def offer(
    target: Target, credential: str, batch: int, rate: float, seconds: float, channels: int, timeout_s: float = 10
) -> dict[str, Any]:
    """
    `rate` digests a second in batches, on time whatever is answered (open loop).

    A call's time runs from the moment it was *due*, so that a sender who falls behind cannot hide it.
    """
    calls = [target.bytes_call(channel) for channel in target.channels(channels)]
    message = request(credential, fresh(batch)).SerializeToString()
    loop = asyncio.get_running_loop()
    began = loop.time() + 0.1
    interval_s = batch / rate
    goods = 0
    codes: Counter[str] = Counter()
    shed: list[float] = []
    served: list[float] = []
    tasks: set[asyncio.Task[None]] = set()

    async def one(call: Any, due: float) -> None:
        nonlocal goods
        try:
            answer = await call(again(message), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            codes[error.code().name] += 1
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                shed.append((loop.time() - due) * 1e3)
            return
        codes["OK"] += 1
        served.append((loop.time() - due) * 1e3)
        if loop.time() <= began + seconds:
            goods += sum(item.status == pb.SIGNED for item in pb.SignDigestsResponse.FromString(answer).items)

    number = 0
    while (due := began + number * interval_s) < began + seconds:
        await asyncio.sleep(max(0.0, due - loop.time()))
        task = asyncio.create_task(one(calls[number % channels], due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
    late_s = loop.time() - (began + seconds)
    while tasks:
        await asyncio.wait(tasks)
    answer: dict[str, Any] = {"count": goods, "seconds": seconds, "offered": number * batch, "codes": dict(codes)}
    return answer | {"late_s": late_s, "shed": quantiles(shed), "served": quantiles(served)}
