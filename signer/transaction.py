"""One transaction in the store, off the event loop; what may be wrong with the store is told as it is elsewhere."""

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from signer.errors import Refusal

T = TypeVar("T")


class Transact(Protocol):
    async def __call__(self, act: Callable[[Connection], T]) -> T:
        """What `act` answers, once it is committed. What it raises takes everything back."""


def transactions(engine: Engine) -> Transact:
    async def transact(act: Callable[[Connection], T]) -> T:
        def run() -> T:
            with engine.begin() as connection:
                return act(connection)

        try:
            return await asyncio.to_thread(run)
        except OperationalError:  # locked, full or gone; its text may repeat what was written
            raise Refusal("STORE_BUSY", "the store does not answer") from None

    return transact
