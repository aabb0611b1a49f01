"""Many concurrent `sign_digest` calls through the client library: here it is the product's client that is asked about."""

import asyncio
import os
from typing import Any

from bench.load import verdict
from bench.load.target import Target, algorithm
from signer.client import Client, Profile


async def coalesce(target: Target, credential: str, seconds: float, in_flight: int) -> dict[str, Any]:
    """`in_flight` tasks, each awaiting one signature after the other; those that came within the time count."""
    if not hasattr(Client, "sign_digest"):
        return {"built": False}
    loop = asyncio.get_running_loop()
    count = 0
    async with Client(Profile(target.address, target.ca, target.certificate, target.key)) as client:
        await client.credentials()  # connected
        end = loop.time() + seconds

        async def caller() -> None:
            nonlocal count
            while loop.time() < end:
                digest = os.urandom(32)
                signature = await client.sign_digest(
                    credential,
                    digest,
                    digest_algorithm="SHA256",
                    signature_algorithm=algorithm(credential),
                    output="RAW",
                )
                target.seen.add(verdict.bare, (credential, digest), signature)
                count += loop.time() < end

        async with asyncio.TaskGroup() as tasks:
            for _ in range(in_flight):
                tasks.create_task(caller())
    return {"built": True, "count": count, "seconds": seconds}
