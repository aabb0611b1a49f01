"""
The daemon's own time: what is to expire does so whatever somebody does to the system's clock, over a restart, too.

It is the wall time at the start, and what has passed since by the monotonic clock. A file in the state directory has what
it was last, and by how much the system's clock had been set until then without an operator's word: so a restart forgets no
step, and a clock that was put back while the daemon was off is noticed. One that was put forward meanwhile is not: how
long the daemon was off, nothing else here knows. Where the file is gone, the ledger's last row says what the time was at
least; otherwise it does not count, because a clock that was wrong and is confirmed leaves rows of a time to come.

Certificates are judged by the later of this time and the system's: what has ended stays so.
"""

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from signer.clock import Clock
from signer.database import StoreError
from signer.durable import put

log = logging.getLogger("signer.steady")

CLOCK_JUMP_S = 5.0  # of the system's clock, before a person is to look at it
FILE = "clock"  # in the state directory
KEEP_S = 30.0  # between two writings: what a crash forgets
ADVICE = "so nothing new is authorised; see that it is right, then `paraph clock confirm`"


class Steady:
    """For any thread. `file`: where it is kept over a restart; None: it is not."""

    def __init__(self, clock: Clock, file: Path | None = None) -> None:
        """Raises `StoreError` where the file is not as it was written."""
        self._clock = clock
        self._file = file
        self._writing = threading.Lock()
        now = self._clock.epoch()
        known = _read(file) if file is not None else None
        self._is_known = known is not None
        if known is not None:
            last, step_s = known
            now = max(last, now - step_s)
        self._base = now - self._clock.monotonic()

    def know(self, time: float) -> None:
        """It was so late already (seconds since the epoch) before this start, in case that the file does not say it."""
        if not self._is_known:
            self._base = max(self._base, time - self._clock.monotonic())

    def confirm(self) -> float:
        """The system's clock is right as it is now; answers by how much it had been set. Raises `OSError`, and it is not."""
        with self._writing:
            epoch, step_s = self._clock.epoch(), self.jump_s
            self._write(epoch, 0.0)
            self._base = epoch - self._clock.monotonic()
        return step_s

    def keep(self) -> None:
        """Write down how it stands now. A step that is small enough to be none is not kept. Raises `OSError`."""
        with self._writing:
            self._write(self.now(), 0.0 if self.is_safe else self.jump_s)

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._base + self._clock.monotonic()

    def latest(self) -> datetime:
        """The later of this time and the system's, UTC, in whole seconds."""
        return datetime.fromtimestamp(int(max(self._clock.epoch(), self.now())), UTC)

    def why_later(self) -> str:
        """What to do where a certificate may have ended by this time alone; empty where it cannot."""
        return f"the system's clock was set by {self.jump_s:+.0f} s, {ADVICE}" if self.jump_s < -CLOCK_JUMP_S else ""

    @property
    def jump_s(self) -> float:
        """How far the system's clock was set since an operator has confirmed it."""
        return self._clock.epoch() - self.now()

    @property
    def is_safe(self) -> bool:
        return abs(self.jump_s) <= CLOCK_JUMP_S

    def _write(self, time: float, step_s: float) -> None:
        if self._file is not None:
            put(self._file, json.dumps({"time": time, "step_s": step_s}).encode() + b"\n")


@contextlib.asynccontextmanager
async def kept(steady: Steady) -> AsyncIterator[None]:
    """It is written down meanwhile, and at the end."""
    keeping = asyncio.create_task(_keep(steady), name="the time")
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await _written(steady)


async def _keep(steady: Steady) -> None:
    """Write down what the time is, and say once of each step of the system's clock what is to be done."""
    was_safe = True
    while True:
        if was_safe and not steady.is_safe:
            log.error("the system's clock was set by %+.0f s, %s", steady.jump_s, ADVICE)
        was_safe = steady.is_safe
        await _written(steady)
        await asyncio.sleep(KEEP_S)


async def _written(steady: Steady) -> None:
    try:
        await asyncio.to_thread(steady.keep)
    except OSError as error:
        log.error("what the time is cannot be written down, and a restart would forget it: %s", error)  # noqa: TRY400


def _read(file: Path) -> tuple[float, float] | None:
    """What `keep` has written; None where nothing was yet."""
    try:
        found = json.loads(file.read_bytes())
        return float(found["time"]), float(found["step_s"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{file}: what the time was is not to be read in it ({error!r}); see that the system's clock is right, then "
            "remove this file"
        ) from None
