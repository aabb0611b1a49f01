"""
A system without random bytes, for one process and its children: a seccomp filter between getrandom(2) and the kernel.

    python -I tests/entropy.py blocked -- COMMAND...     as early after a boot: who waits for random bytes waits for ever
    python -I tests/entropy.py 5 -- COMMAND...           it fails with this errno
"""

import ctypes
import errno
import fcntl
import os
import platform
import struct
import sys

# linux/audit.h and the system's table: (architecture, getrandom, seccomp)
MACHINES = {"x86_64": (0xC000003E, 318, 317), "aarch64": (0xC00000B7, 278, 277)}
GRND_NONBLOCK = 1
# linux/filter.h: load a word, jump if equal, jump if any bit, return
LOAD, EQUAL, ANY, RETURN = 0x20, 0x15, 0x45, 0x06
AT_NUMBER, AT_ARCHITECTURE, AT_FLAGS = 0, 4, 32  # linux/seccomp.h: struct seccomp_data; the third argument's low word
ALLOW, ERRNO, USER_NOTIF = 0x7FFF0000, 0x00050000, 0x7FC00000
PR_SET_NO_NEW_PRIVS, SET_MODE_FILTER, NEW_LISTENER = 38, 1, 8


def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def refuse(mode: str) -> int | None:
    """
    Filter this process from now on. Blocked: the kernel holds the caller until a listener answers, and nobody ever does;
    the listener must stay open as long, in this process.
    """
    architecture, getrandom, seccomp = MACHINES[platform.machine()]
    no_wait, wait = (errno.EAGAIN, None) if mode == "blocked" else (int(mode), int(mode))
    program = b"".join(
        (
            instruction(LOAD, AT_ARCHITECTURE),
            instruction(EQUAL, architecture, 0, 5),
            instruction(LOAD, AT_NUMBER),
            instruction(EQUAL, getrandom, 0, 3),
            instruction(LOAD, AT_FLAGS),
            instruction(ANY, GRND_NONBLOCK, 2, 0),
            instruction(RETURN, USER_NOTIF if wait is None else ERRNO | wait),
            instruction(RETURN, ALLOW),
            instruction(RETURN, ERRNO | no_wait),
        )
    )
    # A jump counts from the next instruction: what is not meant goes to ALLOW, the last but one.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    code = ctypes.create_string_buffer(program, len(program))
    filters = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    listener = int(libc.syscall(seccomp, SET_MODE_FILTER, NEW_LISTENER if wait is None else 0, filters))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    if wait is not None:
        return None
    fcntl.fcntl(listener, fcntl.F_SETFD, 0)  # beyond exec
    return listener


if __name__ == "__main__":
    mode, _, *command = sys.argv[1:]
    refuse(mode)
    os.execvp(command[0], command)
