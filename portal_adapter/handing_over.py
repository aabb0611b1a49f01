"""
The task that gives what was sent to the administration's back end, one after the other (domain/handover.py).

    async with HandingOver(engine, clock, blobs, settings.back_end):
        ...                                     does so meanwhile

The command gets JSON on its standard input, with the paths of the files that it may read; its exit code says whether it has
taken it.
"""

import json
import logging
import subprocess

from sqlalchemy import Engine

from portal_adapter.clock import Clock
from portal_adapter.domain import handover
from portal_adapter.files.blobs import Blobs
from portal_adapter.recurring import Recurring
from portal_adapter.settings import BackEnd
from portal_adapter.store.database import reading, writing

log = logging.getLogger("portal")

COMMAND_S = 120.0  # for one; a form and its pieces are some 50 MB at most
SAID_CHARACTERS_MAX = 200


class HandingOver(Recurring):
    what = "handing over to the back end"
    every_s = 5.0

    def __init__(self, engine: Engine, clock: Clock, blobs: Blobs, settings: BackEnd) -> None:
        self._engine, self._clock, self._blobs, self._settings = engine, clock, blobs, settings

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
        try:
            done = subprocess.run(
                self._settings.command,
                input=content, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False, timeout=COMMAND_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"the command has not ended within {COMMAND_S:.0f} s"
        except OSError as error:
            return f"the command cannot be run: {error.strerror}"
        if done.returncode == 0:
            return ""
        said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        shown = "".join(c if c.isprintable() else " " for c in said)[:SAID_CHARACTERS_MAX]
        return f"the command ended with {done.returncode}{': ' if shown else ''}{shown}"
