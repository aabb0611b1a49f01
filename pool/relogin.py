"""
Keys that want a login for each signature (CKA_ALWAYS_AUTHENTICATE), and what these logins may cost.

The worker sends the lease's PIN again before each signature. It was right a moment ago; but a card may have been given
another PIN meanwhile, or lie. So a try is on disk while such signatures are under way, as before any login.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable

from pool.errors import Unavailable
from pool.keeper import TokenKeeper


class Relogins:
    """Of one lease. `is_idle` says whether the lane is in order and has nothing under way."""

    def __init__(self, token: TokenKeeper, keys: frozenset[str], is_idle: Callable[[], bool]) -> None:
        self._token = token
        self._keys = keys
        self._is_idle = is_idle
        self._writing = asyncio.Lock()
        self._requests = 0
        self.is_open = False  # a try is on disk, and no answer yet

    @contextlib.asynccontextmanager
    async def written(self, key: str) -> AsyncIterator[None]:
        """Round a request to sign: the try is written before, and taken off again when all of it was answered."""
        if key not in self._keys:
            yield
            return
        async with self._writing:
            if not self.is_open:
                await self._begin()
            self._requests += 1
        try:
            yield
        finally:
            async with self._writing:
                self._requests -= 1
                if not self._requests and self._is_idle():
                    await self._accepted()

    async def _begin(self) -> None:
        assert self._token.identity is not None
        try:
            await asyncio.to_thread(self._token.tries.begin, self._token.identity)
        except sqlite3.Error as error:
            raise Unavailable("TOKEN_FAULT", f"the PIN's tries cannot be written ({error})", 1.0) from None
        self.is_open = True

    async def over(self) -> None:
        """The lane ended in order: every login was answered."""
        async with self._writing:
            await self._accepted()

    async def _accepted(self) -> None:
        if not self.is_open:
            return
        assert self._token.identity is not None
        with contextlib.suppress(sqlite3.Error):  # what was signed is signed; the next login takes the try off
            tries, identity = self._token.tries, self._token.identity
            await asyncio.to_thread(tries.accepted, identity, gives_back=self._token.gives_back)
            self.is_open = False
