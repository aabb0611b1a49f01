"""
Health and reflection: gRPC's own services, behind the same doors as ours.

They have no allow-list, for a load balancer asks after the health whoever it is; but a certificate that is denied or has
expired gets nothing here either, calls take turns with those of the other callers, and streams are few. Whose certificate
names no caller is one caller with all such.
"""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

from signer.errors import Refusal
from signer.limits import OTHERS_MESSAGE_BYTES_MAX, OTHERS_STREAMS_MAX
from signer.peer import Peers
from signer.turns import Starts
from signer.unparsed import Unparsed

_PLACES = ("/grpc.health.", "/grpc.reflection.")
_RETRY_S = 1.0


class Others:
    """What the calls of these services share, on whichever listener they come."""

    def __init__(self, starts: Starts) -> None:
        self._starts = starts
        self._streams: Counter[str] = Counter()

    @staticmethod
    def has(method: str) -> bool:
        """Whether a method, by its whole name, is of one of these services."""
        return method.startswith(_PLACES)

    async def turn(self, peers: Peers, context: Any, size: int) -> str:
        """
        Who calls, when it is the turn of this message of `size` bytes; raises `Refusal`. His other calls that wait do not
        count: else who is busy would be taken for ill.
        """
        try:
            caller = peers.identify(context).name
        except Refusal as refusal:
            if refusal.reason != "CALLER_UNKNOWN":
                raise
            caller = ""
        if size > OTHERS_MESSAGE_BYTES_MAX:
            raise Refusal(
                "MESSAGE_TOO_LARGE", f"one about health or reflection has at most {OTHERS_MESSAGE_BYTES_MAX} bytes"
            )
        line = f"{caller} (others)"
        if self._starts.is_full(line):
            raise Refusal("TOO_MANY_CALLS", retry_s=_RETRY_S)
        await self._starts.turn(line, size)
        return caller

    async def messages(self, peers: Peers, context: Any, messages: AsyncIterator[Unparsed]) -> AsyncIterator[Any]:
        """Those of a stream, each parsed when it is its turn; raises `Refusal`."""
        async for message in messages:
            await self.turn(peers, context, message.size)
            yield message.parse()

    @contextlib.contextmanager
    def stream(self, caller: str) -> Iterator[None]:
        """One of the caller's that is open; raises `Refusal` TOO_MANY_CALLS."""
        if self._streams[caller] >= OTHERS_STREAMS_MAX:
            raise Refusal("TOO_MANY_CALLS", "64 streams of health and reflection are open; end one", retry_s=_RETRY_S)
        self._streams[caller] += 1
        try:
            yield
        finally:
            self._streams[caller] -= 1
            if not self._streams[caller]:
                del self._streams[caller]
