"""
The sending task: one mail after the other out of the outbox, for so long as the portal runs.

    async with Delivery(engine, clock, settings.mail, portal):
        ...                                     sends meanwhile
"""

import logging

from sqlalchemy import Engine

from portal_adapter.clock import Clock
from portal_adapter.language import Language
from portal_adapter.mail import outbox
from portal_adapter.mail.letter import letter
from portal_adapter.mail.sender import Sender, SendError, sender
from portal_adapter.recurring import Recurring
from portal_adapter.settings import Mail, Portal
from portal_adapter.store.database import writing

log = logging.getLogger("portal.mail")


class Delivery(Recurring):
    """`once` by hand, or in a task of its own within the block. `way` is how mails leave, by default the settings'."""

    what = "the outbox"
    every_s = 2.0  # a person who waits for an invitation does not notice

    def __init__(
        self, engine: Engine, clock: Clock, settings: Mail, portal: Portal, *, way: Sender | None = None
    ) -> None:
        self._engine, self._clock, self._settings, self._portal = engine, clock, settings, portal
        self._way = way or sender(settings)

    def once(self) -> bool:
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
