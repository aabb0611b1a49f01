"""A person's call: one digest, alone or beside somebody's batch."""

import asyncio
import os
import statistics
import time
from typing import Any

from bench.load import verdict
from bench.load.target import Target, request
from signer.v1 import signing_pb2 as pb


async def latency(
    target: Target, credential: str, count: int, pause_s: float = 0.0, seconds: float = 0
) -> dict[str, Any]:
    """
    Calls one after the other, with a pause between: their times in ms. Until `count`, or for `seconds` if given.

    What the stub does is in the time, the making of the request too. `calls` are the moments at which each began and ended,
    on the machine's own monotonic clock.
    """
    stub = target.stubs(1)[0]
    calls: list[tuple[float, float]] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end if seconds else len(calls) < count:
        began = time.monotonic()
        asked = request(credential, [os.urandom(32)])
        answer = await stub.SignDigests(asked, timeout=60)
        calls.append((began, time.monotonic()))
        if answer.items[0].status != pb.SIGNED:
            raise RuntimeError(f"not signed: {answer.items[0].reason}")
        target.seen.add(verdict.digests, asked, answer)
        if pause_s:
            await asyncio.sleep(pause_s)
    took = [(ended - began) * 1e3 for began, ended in calls]
    return {"count": len(took), "seconds": sum(took) / 1e3, "calls": calls, **quantiles(took)}


def quantiles(took: list[float]) -> dict[str, float]:
    if not took:
        raise RuntimeError("there was no call whose time could be told")
    ordered = sorted(took)
    return {
        "p50": statistics.median(ordered),
        "p99": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
        "max": ordered[-1],
    }
