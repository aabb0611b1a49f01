"""When to stop serving."""

import asyncio
import signal


def stopped() -> asyncio.Event:
    """Set by SIGINT or SIGTERM to this process, from now on."""
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    return over
