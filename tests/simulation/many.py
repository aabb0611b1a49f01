"""Many seeds, on all processors: what they came to together, and which of them broke an invariant."""

import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.world import play

STRETCH = 50  # seeds that a process is given at a time


def stretch(first: int, count: int) -> tuple[Counter[str], dict[int, str]]:
    """What was counted in these runs, and what each bad seed broke."""
    logging.lastResort = None  # what a run says is in its story
    counts: Counter[str] = Counter()
    bad = {}
    for seed in range(first, first + count):
        try:
            world = play(seed)
        except Exception as error:  # noqa: BLE001 -- told
            bad[seed] = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            counts += world.judge.counts
            counts["turns of the loop"] += world.steps
    return counts, bad


def spread(first: int, count: int) -> Iterator[tuple[Counter[str], dict[int, str]]]:
    """The same of many, stretch by stretch."""
    starts = range(first, first + count, STRETCH)
    sizes = [min(STRETCH, first + count - start) for start in starts]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn, max_tasks_per_child=10) as processes:
        yield from processes.map(stretch, starts, sizes)
