"""
The child end of the assembly: parses other people's files, with little memory and a little time for each.

Started as `python -I -m signer.assembler SOCKET PARENT`. A file comes as a descriptor and goes back as one; this
process opens nothing by name. What a file can do to it, it can do to nobody else: it is killed and replaced.
"""

import os
import resource
import socket
import sys
from pathlib import Path

from pool import wire
from pool.child import harden, open_socket
from signer.limits import ASSEMBLY_CPU_S, ASSEMBLY_MEMORY_BYTES_MAX, ASSEMBLY_WORN_BYTES, DOCUMENT_BYTES_MAX

_NOFILE = 32
_OUTPUT_BYTES_MAX = 2 * DOCUMENT_BYTES_MAX


def limit() -> None:
    """Memory, open files and file size for the whole life of the process (setrlimit(2))."""
    resource.setrlimit(resource.RLIMIT_AS, (ASSEMBLY_MEMORY_BYTES_MAX, ASSEMBLY_MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_NOFILE, _NOFILE))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_OUTPUT_BYTES_MAX, _OUTPUT_BYTES_MAX))


def limit_cpu() -> None:
    """CPU time for the next document: what was used so far and ten seconds; past it the kernel sends SIGXCPU."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + ASSEMBLY_CPU_S + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def held_bytes() -> int:
    """
    The most memory that this process has held. What getrusage(2) tells is the parent's, where that was more: until exec(2)
    this one was in it. So the kernel's longer account is read where the short one says too much.
    """
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if most > ASSEMBLY_WORN_BYTES:
        status = Path("/proc/self/status").read_text("ascii")
        most = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    return most


def main() -> None:
    sock = open_socket(int(sys.argv[1]))
    harden()
    limit()
    # Late: it takes half a second, in which the parent may die, and what has not said so yet would outlive it.
    from signer.parsing import ACTIONS, FDS_MAX

    sock.send(wire.pack({"t": "ready"}))
    while True:
        packet, fds, _, _ = socket.recv_fds(sock, wire.PACKET_BYTES_MAX, FDS_MAX)
        if not packet:
            return
        message = wire.unpack(packet)
        limit_cpu()
        try:
            answer = ACTIONS[message["t"]](message, fds)
        except MemoryError:
            answer = {"t": "rejected", "kind": "needs-too-much-memory", "worn": True}
        finally:
            for fd in fds:
                os.close(fd)
        sock.send(wire.pack(answer | {"held": held_bytes()}))


if __name__ == "__main__":
    main()
