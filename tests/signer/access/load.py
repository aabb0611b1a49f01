"""
Load from a process of its own, so that neither the measuring nor the flooding client lends the other its time:

    python -m tests.signer.access.load ADDRESS CA CERTIFICATE KEY

It says "ready" when it is connected, and then answers orders, JSON on a line each: what to do, with which numbers. It
ends with its standard input.
"""

import asyncio
import json
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from google.rpc import error_details_pb2, status_pb2

from signer.v1 import signing_pb2 as pb
from signer.v1 import signing_pb2_grpc
from tests.daemon import REPOSITORY, Rig
from tests.signer.access.calls import ask, digests

PAUSE_S = 0.02  # of who heeds no refusal, and does not spin either: its processor is the service's, too
LATE_S = 3.0  # so much longer than the load its calls have time; with less its last ones would be refused early


class Load:
    """The parent's end."""

    def __init__(self, rig: Rig, caller: str) -> None:
        words = [f"127.0.0.1:{rig.port}", rig.pki.ca_file, *rig.files(caller)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.signer.access.load", *map(str, words)],
            cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._is_ready = False  # it is waited for at the first order: two of them start side by side

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()

    def tell(self, do: str, **order: Any) -> None:
        if not self._is_ready:
            assert self._answer() == "ready"
            self._is_ready = True
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **order}) + "\n")
        self._process.stdin.flush()

    def told(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._answer())
        return answer

    def ask(self, do: str, **order: Any) -> dict[str, Any]:
        self.tell(do, **order)
        return self.told()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the load has ended"
        return line.strip()


class Client:
    """The child's end: so many connections of one caller."""

    def __init__(self, address: str, ca: str, certificate: str, key: str) -> None:
        self._address = address
        files = (Path(file).read_bytes() for file in (ca, key, certificate))
        self._credentials = grpc.ssl_channel_credentials(*files)
        self._channels: list[grpc.aio.Channel] = []

    def stubs(self, count: int) -> list[Any]:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 16 << 20)]
        while len(self._channels) < count:
            self._channels.append(grpc.aio.secure_channel(self._address, self._credentials, options))
        return [signing_pb2_grpc.SigningStub(channel) for channel in self._channels[:count]]

    async def closed(
        self, seconds: float, in_flight: int, channels: int, batch: int = 1, output: str = "RAW",
        credential: str = "p-256", stream: bool = False, warm: float = 0.0,
    ) -> dict[str, Any]:  # fmt: skip
        """
        Closed loop: `in_flight` calls unanswered at all times, each a request (or a stream with one request). Counts
        what was signed after `warm` seconds and within the time, and how calls ended. Those that are unanswered at the
        end are cancelled: nobody counts them.
        """
        stubs = self.stubs(channels)
        messages = forever(ask(digests=digests(batch), output=output, credential=credential))
        begin = time.monotonic() + warm
        end = begin + seconds
        count, ends = 0, Counter()  # type: ignore[var-annotated]

        async def caller(stub: Any) -> None:
            nonlocal count
            while (left := end - time.monotonic()) > 0:
                try:
                    message = next(messages)
                    if stream:
                        answers = [each async for each in stub.StreamDigests(iter([message]), timeout=left + LATE_S)]
                    else:
                        answers = [await stub.SignDigests(message, timeout=left + LATE_S)]
                except grpc.aio.AioRpcError as error:
                    if time.monotonic() < end:
                        ends[reason_of(error)] += 1
                    await asyncio.sleep(PAUSE_S)
                    continue
                ends["OK"] += 1
                if begin <= time.monotonic() < end:
                    count += sum(item.status == pb.SIGNED for answer in answers for item in answer.items)

        callers = [asyncio.create_task(caller(stubs[number % channels])) for number in range(in_flight)]
        _, unanswered = await asyncio.wait(callers, timeout=end - time.monotonic())
        for task in unanswered:
            task.cancel()
        for ended in await asyncio.gather(*callers, return_exceptions=True):
            if ended is not None and not isinstance(ended, asyncio.CancelledError):
                raise ended
        return {"count": count, "seconds": seconds, "ends": dict(ends)}

    async def spin(self, seconds: float) -> dict[str, Any]:
        """Use a processor and ask for nothing: what a flood's own process takes from a machine that all share."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sum(range(1000))
        return {}

    async def offer(self, seconds: float, rate: float, channels: int, batch: int, patience: float) -> dict[str, Any]:
        """
        Open loop: `rate` digests a second in batches, on time whatever is answered, with `patience` seconds for each call;
        how calls ended, and how fast those that were refused.
        """
        stubs = self.stubs(channels)
        messages = forever(ask(digests=digests(batch)))
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()
        ends: Counter[str] = Counter()
        shed: list[float] = []
        pushed, began = 0, loop.time()

        async def one(stub: Any, due: float) -> None:
            nonlocal pushed
            try:
                await stub.SignDigests(next(messages), timeout=patience)
            except grpc.aio.AioRpcError as error:
                ends[f"{error.code().name} {reason_of(error)}"] += 1
                if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    shed.append(loop.time() - due)
                    pushed += told_to_wait(error)
                return
            ends["OK"] += 1

        number = 0
        while (due := began + number * batch / rate) < began + seconds:
            await asyncio.sleep(max(0.0, due - loop.time()))
            task = asyncio.create_task(one(stubs[number % channels], loop.time()))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        while tasks:
            await asyncio.wait(tasks)
        return {"ends": dict(ends), "pushed": pushed, "shed": shed}

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


def forever(message: Any) -> Iterator[Any]:
    """The same request again and again, each with an id of its own."""
    while True:
        another = pb.SignDigestsRequest()
        another.CopyFrom(message)
        another.request_id = str(uuid.uuid4())
        yield another


def reason_of(error: grpc.aio.AioRpcError) -> str:
    status = status_pb2.Status.FromString(
        bytes(dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b""))
    )
    info = error_details_pb2.ErrorInfo()
    return next((info.reason for detail in status.details if detail.Unpack(info)), error.code().name)


def told_to_wait(error: grpc.aio.AioRpcError) -> bool:
    """Whether a refusal says when to come back: to people in RetryInfo, to gRPC's own retries as its pushback."""
    metadata = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(bytes(metadata.get("grpc-status-details-bin", b"")))
    info = error_details_pb2.RetryInfo()
    delays = [info.retry_delay.ToMilliseconds() for detail in status.details if detail.Unpack(info)]
    return bool(delays) and int(metadata.get("grpc-retry-pushback-ms", -1)) == delays[0] > 0


async def main() -> None:
    client = Client(*sys.argv[1:])
    await asyncio.gather(*(channel.channel_ready() for channel in client._channels))
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        print(json.dumps(await getattr(client, order.pop("do"))(**order)), flush=True)
    await client.close()


if __name__ == "__main__":
    asyncio.run(main())
