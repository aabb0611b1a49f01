"""
The task that gives what was sent to the administration's back end, one after the other (domain/handover.py).

    async with HandingOver(engine, clock, blobs, settings.back_end):
        ...                                     does so meanwhile

The command gets JSON on its standard input, with the paths of the files that it may read; its exit code says whether it has
taken it. Transmissions of one procedure are given in their order.
"""

import asyncio
import json
import logging
import tempfile
from types import TracebackType

from sqlalchemy import Engine

from portal_adapter.clock import Clock
from portal_adapter.domain import handover
from portal_adapter.files.blobs import Blobs
from portal_adapter.program import Program
from portal_adapter.recurring import Recurring
from portal_adapter.settings import BackEnd
from portal_adapter.store.database import reading, writing

log = logging.getLogger("portal")

COMMAND_S = 120.0  # for one; a form and its pieces are some 50 MB at most
STOP_S = 10.0  # for one that is under way when the portal stops: well within the unit's TimeoutStopSec
SAID_CHARACTERS_MAX = 200


class HandingOver(Recurring):
    what = "handing over to the back end"
    every_s = 5.0

    def __init__(self, engine: Engine, clock: Clock, blobs: Blobs, settings: BackEnd) -> None:
        self._engine, self._clock, self._blobs, self._settings = engine, clock, blobs, settings
        self._program: Program | None = None

    def once(self) -> bool:
        """False where none is due. An error of one is written down with it, and does not come out."""
        one = handover.claim(self._engine, self._clock.now())
        if one is None:
            return False
        with reading(self._engine) as connection:
            content = handover.content(connection, one)
        for file in (content["form"], *content["pieces"]):
            file["file"] = str(self._blobs.path(file["file"]))
        error = self._give(json.dumps(content, ensure_ascii=False).encode())
        if error:
            said = (content["reference"], one.number, one.tries, error)
            log.warning("transmission %s/%d is not handed over, try %d: %s", *said)
        with writing(self._engine) as connection:
            handover.settle(connection, self._clock.now(), one, error)
        return True

    def _give(self, content: bytes) -> str:
        """Why it was not taken; empty where it was."""
        self._program = Program(self._settings.command, COMMAND_S)
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.seek(0)
            try:
                ended = self._program.run(file)
            except OSError as error:
                return f"the command cannot be run: {error.strerror}"
        if ended.code == 0:
            return ""
        if ended.code is None:
            return f"the command has not ended within {COMMAND_S:.0f} s"
        said = ended.last.decode("utf-8", "replace").strip().rpartition("\n")[2][:SAID_CHARACTERS_MAX]
        shown = "".join(c if c.isprintable() else " " for c in said)
        return f"the command ended with {ended.code}{': ' if shown else ''}{shown}"

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """A command that does not end soon is ended, and given the same again after the next start."""
        timer = asyncio.get_running_loop().call_later(STOP_S, self._end)
        await super().__aexit__(kind, error, traceback)
        timer.cancel()

    def _end(self) -> None:
        if self._program is not None:
            self._program.end()
