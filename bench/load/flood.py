"""More than the service can do: closed loop (as many as it lets), and open loop (as many as we like)."""

import asyncio
import time
from collections import Counter
from typing import Any

import grpc

from bench.load import verdict
from bench.load.digests import fresh
from bench.load.interactive import quantiles
from bench.load.target import Target, again, request
from signer.v1 import signing_pb2 as pb

# How a call ends that asks for more than there is, or whose time was over before its turn.
_OF_LOAD = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)
# Before the end of a call's time the service answers what there is (20 ms or 2 %): so late an answer may lack items.
_OVER_S, _OVER_SHARE = 0.05, 0.1
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
    """
    `in_flight` batches unanswered at all times; what is refused for its load is sent again. Calls end with the flood.

    Counts the signatures it got, the calls that got none by their codes (what would not be done before the flood's end is
    refused, too), and what was left of others at the end by its reason. A flood that got nothing is an error, and so is
    whatever else goes wrong.
    """
    calls = [target.bytes_call(channel) for channel in target.channels(channels)]
    asked = request(credential, fresh(batch))
    message = asked.SerializeToString()
    end = time.monotonic() + seconds
    count = 0
    refused: Counter[str] = Counter()
    unsigned: Counter[str] = Counter()

    async def caller(call: Any) -> None:
        nonlocal count
        while (began := time.monotonic()) < end:
            allowed_s = min(timeout_s, end - began)
            try:
                answer = await call(again(message), timeout=allowed_s)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _OF_LOAD:
                    raise
                refused[error.code().name] += 1
                await asyncio.sleep(_BACK_OFF_S)
                continue
            got = pb.SignDigestsResponse.FromString(answer)
            count += _signed(target, asked, got, unsigned if _over(began, allowed_s) else None)

    async with asyncio.TaskGroup() as tasks:
        for number in range(in_flight):
            tasks.create_task(caller(calls[number % channels]))
    if not count:
        raise RuntimeError(f"nothing was signed: {dict(refused)} {dict(unsigned)}")
    return {"count": count, "seconds": seconds, "refused": dict(refused), "unsigned": dict(unsigned)}


async def offer(
    target: Target, credential: str, batch: int, rate: float, seconds: float, channels: int, timeout_s: float = 10
) -> dict[str, Any]:
    """
    `rate` digests a second in batches, on time whatever is answered (open loop).

    A call's time runs from the moment it was *due*, so that a sender who falls behind cannot hide it. What is not signed is
    counted and an error as in `flood`; `shed` is None where nothing was refused.
    """
    calls = [target.bytes_call(channel) for channel in target.channels(channels)]
    asked = request(credential, fresh(batch))
    message = asked.SerializeToString()
    loop = asyncio.get_running_loop()
    began = loop.time() + 0.1
    interval_s = batch / rate
    goods = 0
    codes: Counter[str] = Counter()
    unsigned: Counter[str] = Counter()
    shed: list[float] = []
    served: list[float] = []

    async def one(call: Any, due: float) -> None:
        nonlocal goods
        sent = time.monotonic()
        try:
            answer = await call(again(message), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() not in _OF_LOAD:
                raise
            codes[error.code().name] += 1
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                shed.append((loop.time() - due) * 1e3)
            return
        codes["OK"] += 1
        served.append((loop.time() - due) * 1e3)
        in_time = loop.time() <= began + seconds
        got = pb.SignDigestsResponse.FromString(answer)
        signed = _signed(target, asked, got, unsigned if _over(sent, timeout_s) else None)
        goods += signed if in_time else 0

    number = 0
    async with asyncio.TaskGroup() as tasks:
        while (due := began + number * interval_s) < began + seconds:
            await asyncio.sleep(max(0.0, due - loop.time()))
            tasks.create_task(one(calls[number % channels], due))
            number += 1
        late_s = loop.time() - (began + seconds)
    if not goods:
        raise RuntimeError(f"nothing was signed: {dict(codes)} {dict(unsigned)}")
    answer: dict[str, Any] = {"count": goods, "seconds": seconds, "offered": number * batch, "codes": dict(codes)}
    answer |= {"unsigned": dict(unsigned), "late_s": late_s, "served": quantiles(served)}
    return answer | {"shed": quantiles(shed) if shed else None}


def _over(began: float, allowed_s: float) -> bool:
    """Whether the time of a call that is answered now was over."""
    return time.monotonic() > began + allowed_s - max(_OVER_S, _OVER_SHARE * allowed_s)


def _signed(
    target: Target, asked: pb.SignDigestsRequest, got: pb.SignDigestsResponse, unsigned: Counter[str] | None
) -> int:
    """
    How many of an answer are signed. Of the others the reasons are counted; where the call's time was not over (None), there
    are none to be.
    """
    others = [item.reason for item in got.items if item.status != pb.SIGNED]
    if others and unsigned is None:
        raise RuntimeError(f"not signed: {others[0]}")
    if unsigned is not None:
        unsigned.update(others)
    if signed := len(got.items) - len(others):
        target.seen.add(verdict.digests, asked, got)
    return signed
