"""
Signing that is under way, or has just ended. The same form with the same codes that is sent twice is acted on once, and
answered twice: a double click costs no try of a PIN. In memory, by fingerprints; codes are not kept.
"""

import asyncio
import hmac
import math
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

KEPT_S = 10.0  # of what has ended; a click that comes later was meant

T = TypeVar("T")


@dataclass(slots=True)
class _Act(Generic[T]):
    batch: str
    task: asyncio.Task[T]
    waits: bool  # for its person, at her token
    until: float = math.inf  # monotonic


class Acts(Generic[T]):
    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._acts: dict[bytes, _Act[T]] = {}

    async def once(
        self, batch: str, sent: tuple[str, ...], act: Callable[[], Coroutine[Any, Any, T]], *, waits: bool
    ) -> T:
        """What `act` answers, which raises nothing; `sent` is the form's id and whatever was typed into it."""
        now = time.monotonic()
        self._acts = {key: one for key, one in self._acts.items() if one.until > now}
        words = b"".join(len(one).to_bytes(4, "big") + one for one in (word.encode() for word in (batch, *sent)))
        name = hmac.digest(self._key, words, "sha256")
        if name not in self._acts:
            made = _Act(batch, asyncio.create_task(act()), waits)
            made.task.add_done_callback(lambda _: setattr(made, "until", time.monotonic() + KEPT_S))
            self._acts[name] = made
        # A browser that goes away ends nothing: its second click waits for the same.
        return await asyncio.shield(self._acts[name].task)

    def give_up(self, batch: str) -> None:
        """What waits for the person of this batch ends: she has left."""
        for one in self._acts.values():
            if one.batch == batch and one.waits:
                one.task.cancel()
