"""
The child end of the secret codes: hashes one with argon2id, or verifies one, at a time.

Started as `python -I -m signer.hasher SOCKET PARENT`. A process of its own, because 19 MiB are gone through for each
question: in a thread of the daemon they would take caches and time from everybody, and a code is better kept in few
places. It opens no file and no connection; `code.py` is the other end.

    {"t": "hash", "code": ...}                  {"t": "hashed", "phc": ...}
    {"t": "verify", "code": ..., "phc": ...}    {"t": "verified", "same": ...}
"""

import os
import resource
import sys
from typing import Any

from argon2.exceptions import Argon2Error, VerifyMismatchError
from argon2.low_level import Type, hash_secret, verify_secret

from pool import wire
from pool.child import harden, open_socket
from signer.phc import OURS

MEMORY_BYTES_MAX = 512 * 1024 * 1024  # of addresses: a hash of four lanes takes 250 MiB, most of it for threads
_NOFILE = 8  # it has four


def limit() -> None:
    """Memory and open files for the whole life of the process (setrlimit(2))."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_NOFILE, _NOFILE))


def hash_code(message: dict[str, Any]) -> dict[str, Any]:
    phc = hash_secret(
        message["code"].encode(),
        os.urandom(OURS.salt_bytes),
        time_cost=OURS.passes,
        memory_cost=OURS.memory_kib,
        parallelism=OURS.lanes,
        hash_len=OURS.hash_bytes,
        type=Type.ID,
    )
    return {"t": "hashed", "phc": phc.decode()}


def verify(message: dict[str, Any]) -> dict[str, Any]:
    """argon2_verify computes and compares in constant time; every error but one means that it could not."""
    try:
        verify_secret(message["phc"].encode(), message["code"].encode(), Type.ID)
    except VerifyMismatchError:
        return {"t": "verified", "same": False}
    return {"t": "verified", "same": True}


def main() -> None:
    sock = open_socket(int(sys.argv[1]))
    harden()
    limit()
    actions = {"hash": hash_code, "verify": verify}
    sock.send(wire.pack({"t": "ready"}))
    while packet := sock.recv(wire.PACKET_BYTES_MAX):
        message = wire.unpack(packet)
        try:
            answer = actions[message["t"]](message)
        except Argon2Error as error:  # no memory; its texts are fixed
            raise SystemExit(f"argon2: {error}") from None
        sock.send(wire.pack(answer))


if __name__ == "__main__":
    main()
