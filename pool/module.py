"""A PKCS#11 module as several tokens share it: one start at a time, and one look for all who ask."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pool.key import Key
from pool.process import ChildLost, Start
from pool.token import EVENTS
from pool.wire import MARK_BYTES

log = logging.getLogger("pool")

LOOK_TIMEOUT_S = 10.0  # a probe: a busy card makes a listing wait for seconds (measured: 4.3)


class Listing(NamedTuple):
    """What a probe has seen of a module."""

    tokens: list[tuple[str, str]]  # label, serial
    publics: list[tuple[bytes, str, bytes]]  # of the token that was asked for


class NoCard(Exception):
    """There is no card that the module could be asked about; `why` is a key of `token.EVENTS`."""

    def __init__(self, why: str, detail: str) -> None:
        self.why = why
        self.detail = detail
        super().__init__(detail)


class Module:
    """
    A PKCS#11 module with its environment, for one reader or for all it finds: one start at a time, and one look at it for
    all who ask at once.
    """

    def __init__(
        self,
        path: Path,
        environment: Mapping[str, str],
        start: Start,
        sha256: bytes | None = None,
        reader: str | None = None,
    ) -> None:
        self.path = path
        self.sha256 = sha256
        self.environment = environment
        self.start = start  # a child process that loads it
        self.reader = reader
        self.lock = asyncio.Lock()
        self._pads = 0  # that somebody is waited for at
        self.quiet = asyncio.Event()  # set while there is none
        self.quiet.set()

    @contextlib.contextmanager
    def at_pad(self) -> Iterator[None]:
        """While a person types at a reader's pad: the one login that does not keep the lock, because it takes minutes."""
        self._pads += 1
        self.quiet.clear()
        try:
            yield
        finally:
            self._pads -= 1
            if not self._pads:
                self.quiet.set()

    async def look(
        self,
        label: str,
        serial: str | None,
        keys: Sequence[Key] | None,
        still: Callable[[], bool] = lambda: True,
    ) -> Listing | None:
        """
        The module's tokens, by a probe process, and what the one of this label and serial shows: the first of the keys that
        is on it, or some where they are None. None where it cannot say, and where this look is not wanted `still` when its
        turn comes. Raises `NoCard`.
        """
        question = {
            "t": "look",
            "module": str(self.path),
            "sha256": self.sha256,
            "reader": self.reader,
            "label": label,
            "serial": serial,
            "keys": None if keys is None else [(k.cka_id, k.label, bytes.fromhex(k.ref)[:MARK_BYTES]) for k in keys],
        }
        async with self.lock:
            if not still():
                return None
            try:
                answer = await self._ask(question)
            # TimeoutError is an OSError, or no process can be started now; ValueError: a name is longer than a question.
            except (ChildLost, OSError, ValueError) as error:
                answer = {"t": "failed", "why": "error", "detail": str(error) or "no answer in time"}
        if answer["t"] != "tokens" and answer["why"] in EVENTS:  # any other leaves the card where it was
            raise NoCard(answer["why"], answer["detail"])
        if answer["t"] != "tokens":
            log.warning(
                "module %s cannot list its tokens: %s; they stay as they are, see to its driver, readers and configuration",
                self.path,
                answer["detail"],
            )
            return None
        return Listing(answer["tokens"], answer["publics"])

    async def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        child = await self.start("pool.probe", environment=self.environment)
        try:
            return await child.ask(question, LOOK_TIMEOUT_S)
        finally:
            await child.close()
