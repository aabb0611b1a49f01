"""Documents up and down, several on several streams."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import google_crc32c

from bench.load.target import Target, algorithm
from signer.request_id import new_request_id
from signer.v1 import signing_pb2 as pb

CHUNK_BYTES = 256 * 1024
TIMEOUT_S = 300.0


async def documents(
    target: Target, credential: str, files: list[str], seconds: float, streams: int, in_flight: int, save: str = "",
    *, chunks: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """
    The files one after the other, again and again: `streams` streams with `in_flight` unanswered documents each. Short
    ones go whole, in one message, as the client library sends them; or all in `chunks`.

    Counted are documents that came back whole within the time. The first one is written to `save`.
    """
    contents = [Path(file).read_bytes() for file in files]
    checksums = [google_crc32c.value(content) for content in contents]
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    count = number = 0
    saved = not save

    async def one_stream(stub: Any) -> None:
        nonlocal count, saved
        room = asyncio.Semaphore(in_flight)

        async def upload() -> AsyncIterator[pb.SignDocumentsRequest]:
            nonlocal number
            yield pb.SignDocumentsRequest(
                open=pb.OpenDocuments(
                    request_id=new_request_id(), credential=credential, output="PADES_B_B",
                    digest_algorithm="SHA256", signature_algorithm=algorithm(credential),
                )
            )  # fmt: skip
            index = 0
            while index < 1000:  # the most that a stream may have
                await room.acquire()
                if loop.time() >= end:
                    return
                which = number % len(contents)
                number += 1
                content, checksum = contents[which], checksums[which]
                begin = pb.BeginDocument(index=index, name="d.pdf", size=len(content))
                if len(content) <= CHUNK_BYTES and not chunks:
                    whole = pb.WholeDocument(begin=begin, content=content, crc32c=checksum)
                    yield pb.SignDocumentsRequest(whole=whole)
                else:
                    yield pb.SignDocumentsRequest(begin=begin)
                    for offset in range(0, len(content), CHUNK_BYTES):
                        yield pb.SignDocumentsRequest(chunk=content[offset : offset + CHUNK_BYTES])
                    yield pb.SignDocumentsRequest(end=pb.EndDocument(crc32c=checksum))
                index += 1

        while loop.time() < end:
            result, received = None, bytearray()
            async for message in stub.SignDocuments(upload(), timeout=TIMEOUT_S):
                if message.WhichOneof("message") == "result":
                    result = message.result
                    received[:] = result.content
                    if result.status != pb.SIGNED:
                        raise RuntimeError(f"not signed: {result.reason} {result.message}")
                else:
                    received += message.chunk
                if result is not None and len(received) == result.size:
                    if hashlib.sha256(received).digest() != result.sha256:
                        raise RuntimeError("a document did not come back whole")
                    count += loop.time() < end
                    if not saved:
                        saved = True
                        Path(save).write_bytes(received)
                    room.release()

    async with asyncio.TaskGroup() as tasks:
        for stub in target.stubs(streams):
            tasks.create_task(one_stream(stub))
    return {"count": count, "seconds": seconds}


async def verify(target: Target, file: str) -> dict[str, Any]:
    """What the service says of a signed file: whether its last signature is valid and covers it."""

    async def messages() -> AsyncIterator[pb.VerifyDocumentRequest]:
        yield pb.VerifyDocumentRequest(open=pb.OpenVerify(name="d.pdf"))
        yield pb.VerifyDocumentRequest(chunk=Path(file).read_bytes())

    report = await target.stubs(1)[0].VerifyDocument(messages(), timeout=TIMEOUT_S)
    last = report.signatures[-1] if report.signatures else None
    good = last is not None and last.valid and last.trusted
    return {"valid": good, "why": report.problem or (last.reason if last else "there is no signature")}
