"""
A person's own batch: her program sends the documents, signs them with her token's PIN, and fetches what was signed.

    async with opened(client, credential, files, output="PADES_B_B", ...) as batch:
        outcomes = await batch.sign(pin)
        if batch.is_signed:
            await batch.fetch(0, target)

For the gate token-pin, and for a certificate that is bound to its person (role `self`): nobody else may do all three.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from signer.client import DOCUMENTS_S, Client, Progress, ServiceError, called, document
from signer.person import Shown
from signer.v1 import signing_pb2 as pb
from signer.whole import whole

CANCEL_S = 2.0  # what a person waits for who has left already; the daemon forgets the batch by itself, later
CANCEL_PAUSE_S = 0.1


class OwnBatch:
    """What `opened` gives. Calls raise `ServiceError`."""

    def __init__(self, client: Client, batch: Any) -> None:
        self.batch = batch  # a message Batch, as it is now
        self._client = client

    @property
    def is_signed(self) -> bool:
        """Every item has its outcome. Until then it may be signed again: only what came to nothing is."""
        return bool(self.batch.state == pb.Batch.SIGNED)

    async def sign(self, pin: str, *, override_final_try: bool = False) -> list[Any]:
        """An outcome for each document, in order. The PIN is sent to her token alone, and once."""
        request = pb.SignBatchRequest(request_id=self.batch.request_id, pin=pin, override_final_try=override_final_try)
        answer = await called(self._client.signing.SignBatch(request, timeout=DOCUMENTS_S))
        self.batch = answer.batch
        return list(answer.outcomes)

    async def fetch(self, index: int, target: Path, progress: Progress | None = None) -> int:
        """The signed document (CADES_B_B: its CMS) into `target`, whole or not at all; answers its length in bytes."""
        if not self.is_signed:  # the service would give the document as it came
            raise ServiceError("BATCH_STATE", "it is handed out when all of its batch is signed", "FAILED_PRECONDITION")
        request = pb.GetBatchRequest(request_id=self.batch.request_id, with_document=True, index=index)
        with whole(target) as file:
            return int(
                await called(_received(self._client.signing.GetBatch(request, timeout=DOCUMENTS_S), file, progress))
            )

    async def cancel(self) -> None:
        """Nothing of it is signed any more. While the service is just letting go of it, it is asked again."""
        request, end = pb.CancelBatchRequest(request_id=self.batch.request_id), time.monotonic() + CANCEL_S
        while True:
            try:
                await called(self._client.signing.CancelBatch(request, timeout=CANCEL_S))
            except ServiceError as error:
                if error.reason != "BATCH_STATE" or time.monotonic() >= end:
                    raise
                await asyncio.sleep(CANCEL_PAUSE_S)
            else:
                return


@contextlib.asynccontextmanager
async def opened(
    client: Client,
    credential: str,
    files: Sequence[tuple[Path, Shown]],
    *,
    output: str,
    digest_algorithm: str,
    signature_algorithm: str,
    reason: str = "",
    location: str = "",
    progress: Progress | None = None,
) -> AsyncIterator[OwnBatch]:
    """
    Send these files, each as the person was shown it; who leaves without having signed cancels. Raises `ServiceError`,
    with DATA_LOSS where the service has something else than was shown: then there is nothing to be signed.
    """
    opening = pb.BatchOpening(
        request_id=str(uuid.uuid4()),
        credential=credential,
        output=output,
        digest_algorithm=digest_algorithm,
        signature_algorithm=signature_algorithm,
    )

    async def messages() -> AsyncIterator[Any]:
        yield pb.OpenBatchRequest(open=opening)
        for index, (path, shown) in enumerate(files):
            begin = pb.BeginDocument(
                index=index, name=shown.name[:255], size=shown.size, reason=reason, location=location
            )
            async for message in document(pb.OpenBatchRequest, begin, path, progress):
                yield message

    answer = await called(client.signing.OpenBatch(messages(), timeout=DOCUMENTS_S))
    batch = OwnBatch(client, answer.batch)
    try:
        if [item.input_sha256 for item in answer.batch.items] != [shown.sha256 for _, shown in files]:
            raise ServiceError("", "a file was changed after it was shown; start again", "DATA_LOSS")
        yield batch
    finally:
        if not batch.is_signed:
            with contextlib.suppress(ServiceError):
                await batch.cancel()


async def _received(call: Any, file: BinaryIO, progress: Progress | None) -> int:
    """How many bytes were written; raises `ServiceError` for none."""
    size = 0
    async for message in call:
        if message.WhichOneof("message") == "chunk":
            size += len(message.chunk)
            file.write(message.chunk)
            if progress is not None:
                progress(len(message.chunk))
    if not size:
        raise ServiceError("", "the answer did not arrive whole", "DATA_LOSS")
    return size
