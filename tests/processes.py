"""The processes under one of ours, looked at while any of them may end."""

import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator

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


@contextlib.contextmanager
def standing_still(processes: Iterable[psutil.Process]) -> Iterator[None]:
    """They are stopped until the end of this; one that ends before it is told to go on is not missed."""
    stopped = list(processes)
    try:
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)
        yield
    finally:
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


def gone(process: psutil.Process) -> bool:
    """It runs no more; one that only waits to be reaped does not count."""
    return not living([process], psutil.Process.is_running)
