"""Papers and documents on a socket, one after the other: each with its length before it, in four bytes."""

import socket
import struct

BYTES_MAX = 32 * 1024 * 1024


def send(to: socket.socket, data: bytes) -> None:
    to.sendall(struct.pack(">I", len(data)) + data)


def receive(from_: socket.socket) -> bytes | None:
    """None at the end; raises ValueError for a length that nobody sends."""
    head = _exactly(from_, 4)
    if head is None:
        return None
    (length,) = struct.unpack(">I", head)
    if length > BYTES_MAX:
        raise ValueError(f"a frame of {length} bytes")
    return _exactly(from_, length)


def _exactly(from_: socket.socket, count: int) -> bytes | None:
    found = bytearray()
    while len(found) < count:
        some = from_.recv(min(count - len(found), 1 << 20))
        if not some:
            return None
        found += some
    return bytes(found)
