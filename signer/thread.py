"""
Blocking work in a thread of its own, which holds up neither the event loop nor the process's end: a mount, a resolver
or a server may never come back.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable


async def apart(work: Callable[[], None], name: str, limit_s: float) -> None:
    """Raises what the work raises, and `TimeoutError` past the limit: then it is left to itself."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        error: Exception | None = None
        try:
            work()
        except Exception as raised:  # noqa: BLE001 -- it crosses to another thread
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(_settle, ended, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    async with asyncio.timeout(limit_s):
        await ended


def _settle(ended: "asyncio.Future[None]", error: Exception | None) -> None:
    if ended.done():  # nobody waits any more
        return
    if error is None:
        ended.set_result(None)
    else:
        ended.set_exception(error)
