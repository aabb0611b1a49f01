"""
The sending task: one mail after the other out of the outbox, for so long as the portal runs.

    async with Delivery(engine, clock, settings.mail, portal):
        ...                                     sends meanwhile
"""

import asyncio
import contextlib
import logging
from types import TracebackType
from typing import Self

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from portal_adapter.clock import Clock
from portal_adapter.language import Language
from portal_adapter.mail import outbox
from portal_adapter.mail.letter import letter
from portal_adapter.mail.sender import Sender, SendError, sender
from portal_adapter.settings import Mail, Portal
from portal_adapter.store.database import writing

log = logging.getLogger("portal.mail")

LOOK_EVERY_S = 2.0  # a person who waits for an invitation does not notice


class Delivery:
    """`send_one` by hand, or in a task of its own within the block. `way` is how mails leave, by default the settings'."""

    def __init__(
        self, engine: Engine, clock: Clock, settings: Mail, portal: Portal, *, way: Sender | None = None
    ) -> None:
        self._engine, self._clock, self._settings, self._portal = engine, clock, settings, portal
        self._way = way or sender(settings)

    def send_one(self) -> bool:
        """False where none is due. An error of one mail is written down with it, and does not come out."""
        one = outbox.claim(self._engine, self._clock.now())
        if one is None:
            return False
        try:
            language = Language(one.language, self._portal.time_zone)
            made = letter(
                one.id, one.created, self._settings.sender, one.recipient, language, one.template, one.data,
                portal_name=self._portal.name,
            )  # fmt: skip
            self._way.send(one.id, one.recipient, made)
            said, is_final = "", False
        except SendError as error:
            said, is_final = str(error), error.is_final
        except (ValueError, KeyError):  # of another version of the portal
            said, is_final = "this mail cannot be made", True
        if said:
            log.warning("mail %s, try %d: %s", one.id, one.tries, said)
        with writing(self._engine) as connection:
            outbox.settle(connection, self._clock.now(), one, error=said, is_final=is_final)
        return True

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="mail")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """A mail that is under way is waited for: an abandoned one might be sent twice."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            try:
                sending = asyncio.ensure_future(asyncio.to_thread(self.send_one))
                try:
                    sent = await asyncio.shield(sending)
                except asyncio.CancelledError:
                    await asyncio.wait([sending])
                    raise
            except SQLAlchemyError as error:  # locked, full, away: later
                log.error("the outbox: %s", getattr(error, "orig", error))  # noqa: TRY400 -- no fault of ours
                sent = False
            except Exception:  # whatever it is, it is tried again
                log.exception("the outbox")
                sent = False
            if not sent:
                await asyncio.sleep(LOOK_EVERY_S)
