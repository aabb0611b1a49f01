"""
The child end of the assembly: parses other people's files, with little memory and a little time for each.

Started as `python -I -m signer.assembler SOCKET PARENT`. A file comes as a descriptor and goes back as one; this
process opens nothing by name. What a file can do to it, it can do to nobody else: it is killed and replaced.
"""

import os
import resource
import socket
import sys
from datetime import UTC, datetime
from typing import Any

import msgpack

from pool import wire
from pool.child import harden, open_socket
from signer import pades
from signer.examine import examine
from signer.limits import ASSEMBLY_CPU_S, ASSEMBLY_MEMORY_BYTES_MAX, DOCUMENT_BYTES_MAX, NO_ROOM
from signer.trust import PdfProblem

_FDS_MAX = 3
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


def prepare(message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    wishes = pades.Wishes(
        certificate=message["certificate"],
        digest=message["digest"],
        cms_bytes_max=message["cms_bytes_max"],
        time=datetime.fromtimestamp(message["time"], UTC),
        file_id=message["file_id"],
        reason=message["reason"],
        location=message["location"],
    )
    with os.fdopen(fds[0], "r+b", closefd=False) as document:
        try:
            prepared = pades.prepare(document, wishes)
        except PdfProblem as problem:
            if isinstance(problem.__cause__, OSError) and problem.__cause__.errno in NO_ROOM:
                return {"t": "no-room"}
            return {"t": "rejected", "kind": problem.kind}
    return {
        "t": "prepared",
        "digest": prepared.content_digest,
        "start": prepared.gap_start,
        "end": prepared.gap_end,
    }


def verify(message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """The report goes into the last descriptor: with all its certificates it may be longer than a packet."""
    with os.fdopen(fds[0], "rb", closefd=False) as document, os.fdopen(fds[-1], "wb", closefd=False) as output:
        now = datetime.fromtimestamp(message["time"], UTC)
        content = os.fdopen(fds[1], "rb", closefd=False) if len(fds) == _FDS_MAX else None
        report = examine(document, message["roots"], now, content)
        output.write(msgpack.packb(report.to_dict()))
    return {"t": "report"}


def main() -> None:
    sock = open_socket(int(sys.argv[1]))
    harden()
    limit()
    actions = {"prepare": prepare, "verify": verify}
    sock.send(wire.pack({"t": "ready"}))
    while True:
        packet, fds, _, _ = socket.recv_fds(sock, wire.PACKET_BYTES_MAX, _FDS_MAX)
        if not packet:
            return
        message = wire.unpack(packet)
        limit_cpu()
        try:
            answer = actions[message["t"]](message, fds)
        except MemoryError:
            answer = {"t": "rejected", "kind": "needs-too-much-memory", "worn": True}
        finally:
            for fd in fds:
                os.close(fd)
        held_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        sock.send(wire.pack(answer | {"held": held_bytes}))


if __name__ == "__main__":
    main()
