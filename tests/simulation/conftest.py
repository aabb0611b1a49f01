"""Tests with a loop run here on the simulated one: what takes seconds elsewhere takes none."""

import asyncio
from collections.abc import Callable, Mapping

from tests.simulation.loop import Loop
from tests.simulation.shim import CLOCK


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"simulated": lambda: Loop(CLOCK)}
