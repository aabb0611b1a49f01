"""
No dump of this process: what its memory holds, PINs and codes among it, is for nobody else of the same user.

Linux only. No core is written when it crashes, neither a file nor into the pipe of a crash reporter; and it cannot be
attached to, nor its memory or environment be read in /proc, but by root (prctl(2), PR_SET_DUMPABLE; ptrace(2)). An exec
takes that back, so each program says it for itself; the limit is inherited.
"""

import ctypes
import resource

_PR_SET_DUMPABLE = 4


def forbid() -> None:
    """Raises OSError."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")
