"""
What was begun to be signed and never saved is destroyed at the daemon: by whoever cancels it, at once, and by the clock
where that failed, where an attempt's time or session is over, and where it ended with something else (SIG-09, SIG-14,
PROC-17).

    async with Unsaved(engine, clock, daemon, limits):
        ...                                     looks meanwhile

A cancelled attempt names its batch until the daemon has let go of it. What no attempt names any more, since its procedure
was deleted or another certificate was chosen, stands in a table of its own from that very transaction on.
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
        try:
            for batch in batches:
                destroy(self._engine, self._daemon, batch)
        except Refusal as error:  # for the others it is away, too
            log.warning("%d signings that are over are not destroyed yet: %s", len(batches), error)
        return False


def destroy(engine: Engine, daemon: Daemon, batch: str) -> None:
    """Nothing is done while it is just being signed. Raises `signer-unavailable`."""
    if daemon.cancel(batch):
        with writing(engine) as connection:
            signing.destroyed(connection, batch)


def destroy_now(engine: Engine, daemon: Daemon, batch: str) -> None:
    """By whoever has cancelled it; where that fails, the clock does it."""
    try:
        destroy(engine, daemon, batch)
    except (Refusal, OperationalError) as error:
        log.warning("the batch %s of a signing that is over is not destroyed yet: %s", batch, error)
