"""Who waits for a person's token: first come, first served, and nobody waits for what cannot come."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from pool.errors import Unavailable
from pool.keeper import ABLE, TokenKeeper
from pool.token import IN_USE


class Turns:
    """`is_free` says whether the token could be had now. Whoever changes what it looks at calls `tell`."""

    def __init__(self, token: TokenKeeper, is_free: Callable[[], bool]) -> None:
        self._token = token
        self._is_free = is_free
        self._line: deque[object] = deque()
        self._news = asyncio.Event()
        self._closed = False

    async def take(self, deadline: float) -> None:
        """
        Return when it is one's turn; what makes the token not free must follow without an await.

        Raises `Unavailable`: at once where the token's state forbids it, at the deadline (monotonic, seconds) with
        TOKEN_BUSY where somebody else has had it meanwhile, with TOKEN_STARTING where it was only being opened.
        """
        ticket, was_busy = object(), False
        self._line.append(ticket)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                while not (self._line[0] is ticket and self._is_free()):
                    if self._closed:
                        raise Unavailable("POOL_CLOSED")
                    if self._token.state not in ABLE:
                        raise self._token.refusal()
                    was_busy = was_busy or self._line[0] is not ticket or self._token.state in IN_USE
                    await self._news.wait()
        except TimeoutError:
            if was_busy:
                raise Unavailable("TOKEN_BUSY", f"token {self._token.config.name}", 1.0) from None
            raise self._token.refusal() from None
        finally:
            self._line.remove(ticket)
            self.tell()

    def tell(self) -> None:
        """Whoever waits looks again."""
        self._news.set()
        self._news = asyncio.Event()

    def close(self) -> None:
        """Nobody's turn comes any more."""
        self._closed = True
        self.tell()
