"""
The process that gets a CRL and reads it: a line that hangs and a list of a million entries hold up nobody else.

Started as `python -I -m signer.crl_reader SOCKET PARENT` for one list. It is told the issuer's certificate and a URL, or
given the file as a descriptor; the list as it came and the table of what is revoked go into the last two descriptors.
What takes too long is killed by the other end, crl_watch.py.
"""

import os
import resource
import socket
import sys
from typing import Any

from cryptography.x509 import load_der_x509_certificate

from pool import wire
from pool.child import harden, open_socket
from signer import crl
from signer.fetch import FetchFailed, fetch

MEMORY_BYTES_MAX = 768 * 1024 * 1024  # of addresses: a million entries take 260 MB, the longest file 590 MB
_FDS_MAX = 3
_NOFILE = 32
_WHY_CHARACTERS_MAX = 500  # libraries quote what they could not read


def limit() -> None:
    """Memory, open files and file size (setrlimit(2))."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_NOFILE, _NOFILE))
    resource.setrlimit(resource.RLIMIT_FSIZE, (crl.FILE_BYTES_MAX, crl.FILE_BYTES_MAX))


def read(message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Raises `FetchFailed` and `CrlRefused`."""
    modified = ""
    if message["url"]:
        content, modified = fetch(message["url"], message["modified"], crl.URL_BYTES_MAX)
        if content is None:
            return {"t": "unchanged"}
    else:
        content = _content(fds[0])
    found = crl.read(content, load_der_x509_certificate(message["issuer"]))
    for fd, written in zip(fds[-2:], (content, found.table), strict=True):
        with os.fdopen(fd, "wb", closefd=False) as output:
            output.write(written)
    return {
        "t": "list",
        "number": str(found.number),  # up to 20 bytes long: RFC 5280, 5.2.3
        "this_update": int(found.this_update.timestamp()),
        "next_update": int(found.next_update.timestamp()),
        "points": sorted(found.points),
        "whose": found.whose.value,
        "modified": modified,
    }


def _content(fd: int) -> bytes:
    with os.fdopen(fd, "rb", closefd=False) as file:
        content = file.read(crl.FILE_BYTES_MAX + 1)
    if len(content) > crl.FILE_BYTES_MAX:
        raise crl.CrlRefused(f"has more than {crl.FILE_BYTES_MAX} bytes")
    return content


def main() -> None:
    sock = open_socket(int(sys.argv[1]))
    harden()
    limit()
    packet, fds, _, _ = socket.recv_fds(sock, wire.PACKET_BYTES_MAX, _FDS_MAX)
    try:
        answer = read(wire.unpack(packet), fds)
    except crl.CrlRefused as refused:
        answer = {"t": "refused", "why": f"the CRL {refused}"[:_WHY_CHARACTERS_MAX]}
    except (FetchFailed, OSError) as failed:
        answer = {"t": "failed", "why": str(failed)[:_WHY_CHARACTERS_MAX]}
    except MemoryError:
        answer = {"t": "refused", "why": f"the CRL needs more than {MEMORY_BYTES_MAX} bytes of memory"}
    sock.send(wire.pack(answer))


if __name__ == "__main__":
    main()
