"""PDFs through the client library's `sign_file`, as a program has them signed: here, too, it is the product's own client."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from bench.load import verdict
from bench.load.target import Target, algorithm
from signer.client import Client, Profile


async def files(target: Target, credential: str, file: str, seconds: float, at_once: int) -> dict[str, Any]:
    """One PDF again and again, from a file and to a file, `at_once` at one time; those that came within the time count."""
    content = Path(file).read_bytes()
    loop = asyncio.get_running_loop()
    count = 0
    with tempfile.TemporaryDirectory() as directory:
        async with Client(Profile(target.address, target.ca, target.certificate, target.key)) as client:
            await client.credentials()  # connected
            end = loop.time() + seconds

            async def one_after_the_other(number: int) -> None:
                nonlocal count
                place = Path(directory) / f"{number}.pdf"
                while loop.time() < end:
                    await client.sign_file(
                        credential,
                        Path(file),
                        place,
                        output="PADES_B_B",
                        digest_algorithm="SHA256",
                        signature_algorithm=algorithm(credential),
                    )
                    count += loop.time() < end
                    target.seen.add(verdict.document, (credential, content), place.read_bytes())

            async with asyncio.TaskGroup() as tasks:
                for number in range(at_once):
                    tasks.create_task(one_after_the_other(number))
    return {"count": count, "seconds": seconds}
