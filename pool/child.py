"""
What every child process does first: tie its life to its parent's, let nobody dump it (dump.py), and bound what a module
may use up.

Linux only. The parent's death is told by the kernel (PR_SET_PDEATHSIG follows the *thread* that spawned us, which is
the parent's event loop), and once more by the socket: it closes.
"""

import ctypes
import os
import resource
import signal
import socket
import sys
from mmap import mmap

from pool import dump

_PR_SET_PDEATHSIG = 1
# What a process with a module may have before it is the module that leaks. A lane has 30 MB in memory and maps 250; a
# driver with threads maps 72 MB for each (its stack, and malloc's arena), so there is room for twenty.
MEMORY_BYTES_MAX = 2 * 1024**3
FILES_MAX = 256  # a lane has 10 open; a driver adds its readers, its database, its connections
_SPARE_BYTES = 16 * 1024**2


def harden() -> None:
    """SIGKILL when the parent dies; no core dump; no ptrace by others of the same uid (prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    dump.forbid()
    if os.getppid() != int(sys.argv[-1]):
        raise SystemExit("the parent is gone")  # it died before PDEATHSIG was set


def limit() -> None:
    """Address space and open files for the whole life of the process (setrlimit(2)): a leak ends here, and not the host."""
    for what, most in ((resource.RLIMIT_AS, MEMORY_BYTES_MAX), (resource.RLIMIT_NOFILE, FILES_MAX)):
        _, hard = resource.getrlimit(what)
        may = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (may, may))


def is_at_limit() -> bool:
    """Whether this process has come to one of its limits, so that what fails in it fails for that."""
    try:
        for end in os.pipe():
            os.close(end)
        mmap(-1, _SPARE_BYTES).close()
    except (OSError, MemoryError):
        return True
    return False


def open_socket(fd: int) -> socket.socket:
    """The inherited end of the parent's socket pair, which is this process's only way to speak."""
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    return sock
