"""
A client process: `python -m bench.load TARGET CA CERTIFICATE KEY`, then one JSON order a line.

An order has `do`, the name of a function of `LOADS`, and its arguments; the answer is the function's, or an `error`.
It uses gRPC and the stubs alone, so that it is any client and not the product's own, but for `coalesce` and `files`; request
ids are made as the protocol advises. Of what an order got a sample is kept; `verify` verifies it, and until then no other
order is taken, so that no question leaves it out.
"""

import asyncio
import ctypes
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import uvloop

from bench.load import coalesce, digests, documents, files, flood, interactive, verdict
from bench.load.target import Target

LOADS: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
    "batches": digests.batches,
    "single": digests.single,
    "empty": digests.empty,
    "plain": digests.plain,
    "coalesce": coalesce.coalesce,
    "documents": documents.documents,
    "files": files.files,
    "verify": verdict.verify,
    "examine": verdict.examine,
    "latency": interactive.latency,
    "flood": flood.flood,
    "offer": flood.offer,
}


async def main() -> None:
    address, *files = sys.argv[1:]
    target = Target(address, *(Path(file) for file in files))
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        name = order.pop("do")
        try:
            if target.seen and name != "verify":
                raise RuntimeError(f"{name}: what the order before got was not verified")
            answer = await LOADS[name](target, **order)
        except Exception as error:  # noqa: BLE001 -- the boundary: the bench raises it again
            answer = {"error": _first(error)}
        print(json.dumps(answer), flush=True)
    await target.close()


def _first(error: BaseException) -> str:
    """The first of a group's errors, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    detail = error.details() if isinstance(error, grpc.aio.AioRpcError) else error
    return f"{type(error).__name__}: {detail}"


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG: the bench is gone
    uvloop.run(main())
