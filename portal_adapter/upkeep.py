"""
What is done by the clock and not by a request, at the start and now and then: invitations whose time is over are written
down as expired, files that no row names are removed, and what sessions, logins and given-up mails leave behind is forgotten.

    async with Upkeep(engine, clock, blobs, limits):
        ...                                     looks meanwhile

Nothing depends on when that happens: an invitation counts as expired from its last second on, and nobody can have a file
without a row.
"""

import asyncio
import contextlib
import logging
from types import TracebackType
from typing import Self

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from portal_adapter.auth import session as sessions
from portal_adapter.clock import Clock
from portal_adapter.domain import archive, invitation, login
from portal_adapter.files.blobs import Blobs
from portal_adapter.mail import outbox
from portal_adapter.settings import Limits
from portal_adapter.store.database import reading, writing

log = logging.getLogger("portal")

LOOK_EVERY_S = 600.0  # for the audit and the operators' lists


class Upkeep:
    def __init__(self, engine: Engine, clock: Clock, blobs: Blobs, limits: Limits) -> None:
        self._engine, self._clock, self._blobs, self._limits = engine, clock, blobs, limits

    def once(self) -> None:
        with writing(self._engine) as connection:
            now = self._clock.now()
            invitation.expire(connection, now)
            sessions.forget(connection, now, self._limits)
            login.forget_old(connection, now)
            outbox.forget(connection, now)
        with reading(self._engine) as connection:
            if swept := archive.sweep(connection, self._blobs, self._clock.now()):
                log.info("removed %d files that nothing names", swept)

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
            except SQLAlchemyError as error:  # locked, full, away: at the next look
                log.error("upkeep: %s", getattr(error, "orig", error))  # noqa: TRY400 -- no fault of ours
            except Exception:  # whatever it is, it is tried again
                log.exception("upkeep")
            await asyncio.sleep(LOOK_EVERY_S)
