"""Documents up and down, several on several streams."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import google_crc32c

from bench.load import verdict
from bench.load.target import Target, algorithm
from signer.request_id import new_request_id
from signer.v1 import signing_pb2 as pb

CHUNK_BYTES = 256 * 1024
TIMEOUT_S = 300.0


async def documents(
    target: Target, credential: str, files: list[str], seconds: float, streams: int, in_flight: int, *, chunks: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """
    The files one after the other, again and again: `streams` streams with `in_flight` unanswered documents each. Short
    ones go whole, in one message, as the client library sends them; or all in `chunks`.

    Counted are documents that came back whole within the time.
    """
    contents = [Path(file).read_bytes() for file in files]
    checksums = [google_crc32c.value(content) for content in contents]
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    count = number = 0

    async def one_stream(stub: Any) -> None:
        nonlocal count
        room = asyncio.Semaphore(in_flight)
        sent: list[bytes] = []  # of the stream under way, by their indexes

        async def upload() -> AsyncIterator[pb.SignDocumentsRequest]:
            nonlocal number
            yield pb.SignDocumentsRequest(
                open=pb.OpenDocuments(
                    request_id=new_request_id(), credential=credential, output="PADES_B_B",
                    digest_algorithm="SHA256", signature_algorithm=algorithm(credential),
                )
            )  # fmt: skip
            sent.clear()
            while len(sent) < 1000:  # the most that a stream may have
                await room.acquire()
                if loop.time() >= end:
                    return
                which = number % len(contents)
                number += 1
                content, checksum = contents[which], checksums[which]
                begin = pb.BeginDocument(index=len(sent), name="d.pdf", size=len(content))
                sent.append(content)
                if len(content) <= CHUNK_BYTES and not chunks:
                    whole = pb.WholeDocument(begin=begin, content=content, crc32c=checksum)
                    yield pb.SignDocumentsRequest(whole=whole)
                else:
                    yield pb.SignDocumentsRequest(begin=begin)
                    for offset in range(0, len(content), CHUNK_BYTES):
                        yield pb.SignDocumentsRequest(chunk=content[offset : offset + CHUNK_BYTES])
                    yield pb.SignDocumentsRequest(end=pb.EndDocument(crc32c=checksum))

        while loop.time() < end:
            result, received = None, bytearray()
            async for message in stub.SignDocuments(upload(), timeout=TIMEOUT_S):
                if message.WhichOneof("message") == "result":
                    result = message.result
                    received = bytearray(result.content)  # another one for each: it may be kept
                    if result.status != pb.SIGNED:
                        raise RuntimeError(f"not signed: {result.reason} {result.message}")
                else:
                    received += message.chunk
                if result is not None and len(received) == result.size:
                    if hashlib.sha256(received).digest() != result.sha256:
                        raise RuntimeError("a document did not come back whole")
                    count += loop.time() < end
                    target.seen.add(verdict.document, (credential, sent[result.index]), received)
                    room.release()

    async with asyncio.TaskGroup() as tasks:
        for stub in target.stubs(streams):
            tasks.create_task(one_stream(stub))
    return {"count": count, "seconds": seconds}
