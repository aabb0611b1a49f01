"""Who else is on the event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass
class Others:
    turns: int = 0  # that they have had


@contextlib.asynccontextmanager
async def others() -> AsyncIterator[Others]:
    """In the block they take every turn that the loop gives them."""
    counted = Others()

    async def run() -> None:
        while True:
            counted.turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(run())
    try:
        yield counted
    finally:
        task.cancel()
