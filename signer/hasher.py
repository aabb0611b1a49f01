"""
The child end of the secret codes: hashes one with argon2id, or verifies one, at a time.

Started as `python -I -m signer.hasher SOCKET PARENT`. A process of its own, because 19 MiB are gone through for each
question: in a thread of the daemon they would take caches and time from everybody, and a code is better kept in few
places. It opens no file and no connection; `code.py` is the other end.

    {"t": "hash"}                  {"t": "hashed", "phc": ...}
    {"t": "verify", "phc": ...}    {"t": "verified", "same": ...}

With each question comes the code, as an open file in memory. It is mapped, and argon2 reads it there: no object of
Python's ever has it, which could not be wiped, and of many people's codes none is left behind.
"""

import os
import resource
import socket
import sys
from mmap import ACCESS_READ, mmap
from typing import Any

# `lib` is documented, and not in the module's list of exports.
from argon2.low_level import ARGON2_VERSION, Type, error_to_str, ffi, lib  # type: ignore[attr-defined]

from pool import wire
from pool.child import harden, open_socket
from signer.phc import OURS, written

MEMORY_BYTES_MAX = 512 * 1024 * 1024  # of addresses: a hash of four lanes takes 250 MiB, most of it for threads
_NOFILE = 8  # it has four, and two of a code


def limit() -> None:
    """Memory and open files for the whole life of the process (setrlimit(2))."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_NOFILE, _NOFILE))


def hash_code(_message: dict[str, Any], code: Any) -> dict[str, Any]:
    salt, hash_ = os.urandom(OURS.salt_bytes), ffi.new("uint8_t[]", OURS.hash_bytes)
    setting = OURS.passes, OURS.memory_kib, OURS.lanes
    kind = Type.ID.value, ARGON2_VERSION
    _check(lib.argon2_hash(*setting, code, len(code), salt, len(salt), hash_, len(hash_), ffi.NULL, 0, *kind))
    return {"t": "hashed", "phc": written(OURS, salt, bytes(hash_))}


def verify(message: dict[str, Any], code: Any) -> dict[str, Any]:
    """argon2_verify computes and compares in constant time; every error but one means that it could not."""
    found = lib.argon2_verify(message["phc"].encode(), code, len(code), Type.ID.value)
    if found != lib.ARGON2_VERIFY_MISMATCH:
        _check(found)
    return {"t": "verified", "same": found == lib.ARGON2_OK}


def _check(found: int) -> None:
    if found != lib.ARGON2_OK:  # no memory; its texts are fixed
        raise SystemExit(f"argon2: {error_to_str(found)}")


def main() -> None:
    sock = open_socket(int(sys.argv[1]))
    harden()
    limit()
    actions = {"hash": hash_code, "verify": verify}
    sock.send(wire.pack({"t": "ready"}))
    while True:
        packet, fds, _, _ = socket.recv_fds(sock, wire.PACKET_BYTES_MAX, 1)
        if not packet:
            return
        message = wire.unpack(packet)
        [fd] = fds
        with mmap(fd, 0, access=ACCESS_READ) as file, ffi.from_buffer(file) as code:
            os.close(fd)
            answer = actions[message["t"]](message, code)
        sock.send(wire.pack(answer))


if __name__ == "__main__":
    main()
