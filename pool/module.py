"""A PKCS#11 module as several tokens share it: one start at a time, and one look for all who ask."""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pool.process import Child, ChildLost

log = logging.getLogger("pool")

LOOK_TIMEOUT_S = 10.0  # a probe: a busy card makes a listing wait for seconds (measured: 4.3)


class Module:
    """A PKCS#11 module with its environment: one start at a time, and one look at it for all who ask at once."""

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self.path = path
        self.environment = environment
        self.lock = asyncio.Lock()

    async def look(self) -> list[dict[str, Any]] | None:
        """The module's tokens, by a probe process; None where it cannot say."""
        async with self.lock:
            child = await Child.start("pool.probe", str(self.path), environment=self.environment)
            try:
                answer = await child.ask(None, LOOK_TIMEOUT_S)
            except (ChildLost, TimeoutError) as error:
                answer = {"t": "failed", "detail": str(error) or "no answer in time"}
            finally:
                await child.close()
        if answer["t"] != "tokens":
            log.warning(
                "module %s cannot list its tokens: %s; they stay as they are, see to its driver, readers and configuration",
                self.path,
                answer["detail"],
            )
            return None
        found: list[dict[str, Any]] = answer["tokens"]
        return found
