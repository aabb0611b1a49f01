"""
Answers promised and not yet taken: how many bytes each caller may make us hold.

A caller who asks and does not read would otherwise fill the memory with signatures: 256 calls of 5 000 digests are
330 MB of RSA-2048. What a call will answer is counted before it is signed, and until gRPC has handed it to the
connection, beyond its flow control.
"""

import asyncio
from collections import Counter

from signer.errors import Refusal
from signer.limits import CALLER_ANSWER_BYTES_MAX

_RETRY_S = 0.5


class Promises:
    def __init__(self) -> None:
        self._callers: Counter[str] = Counter()
        self._less = asyncio.Event()

    def make(self, caller: str, size: int) -> None:
        """Raises `Refusal` ANSWERS_UNREAD; one answer is always allowed."""
        if not self._fits(caller, size):
            raise Refusal("ANSWERS_UNREAD", retry_s=_RETRY_S)
        self._callers[caller] += size

    async def make_when_it_fits(self, caller: str, size: int) -> None:
        """For a stream, which is not read meanwhile: its sender is held back."""
        while not self._fits(caller, size):
            self._less.clear()
            await self._less.wait()
        self._callers[caller] += size

    def _fits(self, caller: str, size: int) -> bool:
        held = self._callers[caller]
        return not held or held + size <= CALLER_ANSWER_BYTES_MAX

    def keep(self, caller: str, size: int) -> None:
        """It was taken, or nobody waits for it any more."""
        self._callers[caller] -= size
        if not self._callers[caller]:
            del self._callers[caller]
        self._less.set()
