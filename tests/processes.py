"""The processes under one of ours, looked at while any of them may end."""

import contextlib
from collections.abc import Callable, Iterable

import psutil


def children(pid: int, *modules: str) -> list[psutil.Process]:
    """The processes under `pid`, at any depth, that run one of these modules; zombies do not run."""
    return living(psutil.Process(pid).children(recursive=True), lambda child: bool(set(modules) & set(child.cmdline())))


def living(
    processes: Iterable[psutil.Process], wanted: Callable[[psutil.Process], bool] = lambda _: True
) -> list[psutil.Process]:
    """Those of `processes` that still run and are wanted. One that ends while it is asked is left out."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE and wanted(process):
                found.append(process)
    return found


def gone(process: psutil.Process) -> bool:
    """It runs no more; one that only waits to be reaped does not count."""
    return not living([process], psutil.Process.is_running)
