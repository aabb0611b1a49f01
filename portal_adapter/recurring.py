"""
What goes on by the clock beside the requests, in a thread at a time: `async with` runs it in the block.

No mistake ends it: a database that is locked, full or away is tried again at the next look, and so is whatever else.
"""

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

log = logging.getLogger("portal")


class Recurring(ABC):
    """`what` names it in the log; it looks every `every_s` seconds."""

    what: str
    every_s: float

    @abstractmethod
    def once(self) -> bool:
        """One step; whether there may be more at once."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=self.what)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """A step that is under way is waited for: an abandoned mail might be sent twice."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            step = asyncio.ensure_future(asyncio.to_thread(self.once))
            more = False
            try:
                more = await asyncio.shield(step)
            except asyncio.CancelledError:
                await asyncio.wait([step])
                raise
            except SQLAlchemyError as error:
                log.error("%s: %s", self.what, getattr(error, "orig", error))  # noqa: TRY400 -- no fault of ours
            except Exception:  # whatever it is, it is tried again
                log.exception("%s", self.what)
            if not more:
                await asyncio.sleep(self.every_s)
