"""
A person's own batch: her program sends the documents, signs them with her token's PIN, and fetches what was signed.

    async with opened(
        client, credential, files, output="PADES_B_B", digest_algorithm="SHA256", signature_algorithm="ECDSA"
    ) as batch:
        outcomes = await batch.sign(pin)
        if batch.is_signed:
            await batch.fetch(0, target)

For the gate token-pin, and for a certificate that is bound to its person (role `self`): nobody else may do all three.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from signer.client import CANCEL_S, Client, Progress, ServiceError
from signer.person import Shown
from signer.v1 import signing_pb2 as pb


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
        answer = await self._client.sign_batch(self.batch.request_id, pin=pin, override_final_try=override_final_try)
        self.batch = answer.batch
        return list(answer.outcomes)

    async def fetch(self, index: int, target: Path, progress: Progress | None = None) -> int:
        """The signed document (CADES_B_B: its CMS) into `target`, whole or not at all; answers its length in bytes."""
        if not self.is_signed:  # the service would give the document as it came
            raise ServiceError("BATCH_STATE", "it is handed out when all of its batch is signed", "FAILED_PRECONDITION")
        return await self._client.fetch_document(self.batch.request_id, index, target, progress=progress)

    async def cancel(self) -> None:
        """Nothing of it is signed any more. The person has left already, and waits no longer than `CANCEL_S` for each try."""
        await self._client.cancel_batch(self.batch.request_id, timeout_s=CANCEL_S)


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
    answer = await client.open_batch(
        credential,
        [(shown.name[:255], path) for path, shown in files],
        output=output,
        digest_algorithm=digest_algorithm,
        signature_algorithm=signature_algorithm,
        reason=reason,
        location=location,
        progress=progress,
    )
    batch = OwnBatch(client, answer.batch)
    try:
        if [item.input_sha256 for item in answer.batch.items] != [shown.sha256 for _, shown in files]:
            raise ServiceError("", "a file was changed after it was shown; start again", "DATA_LOSS")
        yield batch
    finally:
        if not batch.is_signed:
            with contextlib.suppress(ServiceError):
                await batch.cancel()
