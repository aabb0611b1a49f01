"""Many seeds, on all processors: what they came to together, and which of them broke an invariant."""

import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.world import play

STRETCH = 50  # seeds that a process is given at a time
STRETCHES = 10  # that one process is given


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
    spawn, at_once = multiprocessing.get_context("spawn"), STRETCHES * (os.cpu_count() or 1)
    # New processes now and then, for memory; not by max_tasks_per_child, after which Python 3.11 starts no others.
    for place in range(0, len(starts), at_once):
        with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as processes:
            yield from processes.map(stretch, starts[place : place + at_once], sizes[place : place + at_once])
