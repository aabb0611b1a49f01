"""
What is done by the clock and not by a request: invitations whose time is over are written down as expired.

    async with Upkeep(engine, clock):
        ...                                     looks meanwhile

Nothing depends on when that happens: an invitation counts as expired from its last second on.
"""

import asyncio
import contextlib
import logging
from types import TracebackType
from typing import Self

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from portal_adapter.clock import Clock
from portal_adapter.domain import invitation
from portal_adapter.store.database import writing

log = logging.getLogger("portal")

LOOK_EVERY_S = 600.0  # for the audit and the operators' lists


class Upkeep:
    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine, self._clock = engine, clock

    def once(self) -> None:
        with writing(self._engine) as connection:
            invitation.expire(connection, self._clock.now())

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="upkeep")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.once)
            except OperationalError as error:  # locked, full, away: at the next look
                log.error("upkeep: %s", error.orig)  # noqa: TRY400 -- no fault of ours
            await asyncio.sleep(LOOK_EVERY_S)
