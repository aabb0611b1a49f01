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
        if not self.knows(batch, sent):
            made = _Act(batch, asyncio.create_task(act()), waits)
            made.task.add_done_callback(lambda _: setattr(made, "until", time.monotonic() + KEPT_S))
            self._acts[self._name(batch, sent)] = made
        # A browser that goes away ends nothing: its second click waits for the same.
        return await asyncio.shield(self._acts[self._name(batch, sent)].task)

    def knows(self, batch: str, sent: tuple[str, ...]) -> bool:
        """Whether this was sent before: it is under way, or has just ended."""
        now = time.monotonic()
        self._acts = {key: one for key, one in self._acts.items() if one.until > now}
        return self._name(batch, sent) in self._acts

    def _name(self, batch: str, sent: tuple[str, ...]) -> bytes:
        words = b"".join(len(one).to_bytes(4, "big") + one for one in (word.encode() for word in (batch, *sent)))
        return hmac.digest(self._key, words, "sha256")

    def give_up(self, batch: str) -> None:
        """What waits for the person of this batch ends: she has left."""
        for one in self._acts.values():
            if one.batch == batch and one.waits:
                one.task.cancel()
