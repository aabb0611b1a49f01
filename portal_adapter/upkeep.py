"""
What is done by the clock and not by a request, at the start and now and then: invitations whose time is over are written
down as expired, files that no row names are removed, and what sessions, logins and given-up mails leave behind is forgotten.

    async with Upkeep(engine, clock, blobs, limits):
        ...                                     looks meanwhile

Nothing depends on when that happens: an invitation counts as expired from its last second on, and nobody can have a file
without a row.
"""

import logging

from sqlalchemy import Engine

from portal_adapter.auth import session as sessions
from portal_adapter.clock import Clock
from portal_adapter.domain import invitation, kept, login, signing
from portal_adapter.files.blobs import Blobs
from portal_adapter.mail import outbox
from portal_adapter.recurring import Recurring
from portal_adapter.settings import Limits
from portal_adapter.store.database import reading, writing

log = logging.getLogger("portal")


class Upkeep(Recurring):
    what = "upkeep"
    every_s = 600.0  # for the audit and the operators' lists

    def __init__(self, engine: Engine, clock: Clock, blobs: Blobs, limits: Limits) -> None:
        self._engine, self._clock, self._blobs, self._limits = engine, clock, blobs, limits

    def once(self) -> bool:
        with writing(self._engine) as connection:
            now = self._clock.now()
            invitation.expire(connection, now)
            sessions.forget(connection, now, self._limits)
            login.forget_old(connection, now)
            signing.forget(connection, now)
            outbox.forget(connection, now)
        with reading(self._engine) as connection:
            if swept := kept.sweep(connection, self._blobs, self._clock.now()):
                log.info("removed %d files that nothing names", swept)
        return False
