"""
What was begun to be signed and never saved is destroyed at the daemon: by whoever cancels it, at once, and by the clock
where that failed, where an attempt's time or session is over, and where it ended with something else (SIG-09, SIG-14).

    async with Unsaved(engine, clock, daemon, limits):
        ...                                     looks meanwhile

A cancelled attempt names its batch until the daemon has let go of it.
"""

import logging

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from portal_adapter.auth.daemon import Daemon
from portal_adapter.clock import Clock
from portal_adapter.domain import signing
from portal_adapter.recurring import Recurring
from portal_adapter.refusal import Refusal
from portal_adapter.settings import Limits
from portal_adapter.store.database import reading, writing

log = logging.getLogger("portal")


class Unsaved(Recurring):
    what = "signings that are over"
    every_s = 15.0

    def __init__(self, engine: Engine, clock: Clock, daemon: Daemon, limits: Limits) -> None:
        self._engine, self._clock, self._daemon, self._limits = engine, clock, daemon, limits

    def once(self) -> bool:
        with reading(self._engine) as connection:
            over = signing.over(connection, self._clock.now(), self._limits)
        if over:
            with writing(self._engine) as connection:
                signing.end_over(connection, self._clock.now(), self._limits)
        with reading(self._engine) as connection:
            batches = signing.unsaved(connection)
        for batch in batches:
            if not destroy(self._engine, self._daemon, batch):
                break  # the daemon is away for the others, too
        return False


def destroy_now(engine: Engine, daemon: Daemon, batch: str) -> None:
    """By whoever has cancelled it; where that fails, the clock does."""
    destroy(engine, daemon, batch)


def destroy(engine: Engine, daemon: Daemon, batch: str) -> bool:
    """False where it is to be tried again."""
    try:
        if not daemon.cancel(batch):
            return False
        with writing(engine) as connection:
            signing.destroyed(connection, batch)
    except (Refusal, OperationalError) as error:
        log.warning("the batch %s of a signing that is over is not destroyed yet: %s", batch, error)
        return False
    return True
