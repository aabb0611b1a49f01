"""
What every child process does first: tie its life to its parent's, and let nobody dump it (dump.py).

Linux only. The parent's death is told by the kernel (PR_SET_PDEATHSIG follows the *thread* that spawned us, which is
the parent's event loop), and once more by the socket: it closes.
"""

import ctypes
import os
import signal
import socket
import sys

from pool import dump

_PR_SET_PDEATHSIG = 1


def harden() -> None:
    """SIGKILL when the parent dies; no core dump; no ptrace by others of the same uid (prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    dump.forbid()
    if os.getppid() != int(sys.argv[-1]):
        raise SystemExit("the parent is gone")  # it died before PDEATHSIG was set


def open_socket(fd: int) -> socket.socket:
    """The inherited end of the parent's socket pair, which is this process's only way to speak."""
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    return sock
