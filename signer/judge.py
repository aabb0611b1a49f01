"""
The child end of one secret code that a person chooses: whether it is easy to guess.

Started as `python -I -m signer.judge SOCKET PARENT`, for one question; `code.py` is the other end.

    {"t": "judge", "words": [...]}    {"t": "judged", "weak": ...}

With it comes the code, as an open file in memory. zxcvbn knows the 30 000 passwords that were stolen most often, names,
words, dates and rows of keys, and adds the `words` that whoever guesses would try first: the person's and the service's.
"""

import os
import re
import resource
import socket
import sys
from typing import Any

from pool import wire
from pool.child import harden, open_socket

# A million guesses: with five before a lock of a quarter of an hour (guesses.py) that is five years of them, each with a
# one-time code to be guessed as well. Eight digits that nobody has chosen for a reason have ten million and more.
GUESSES_MIN = 1_000_000
JUDGED_CHARACTERS = 24  # of the code: the time grows faster than its length, and what follows only makes it harder
CPU_S = 5  # ten times the worst that was found
_JOINTS = re.compile(r"[\W_]+")  # a name with a year behind a hyphen is as easy as without it


def judge(message: dict[str, Any], code: str) -> dict[str, Any]:
    import zxcvbn  # 25 ms, that the start need not wait for

    readings = {code[:JUDGED_CHARACTERS], _JOINTS.sub("", code)[:JUDGED_CHARACTERS]} - {""}
    guesses = [zxcvbn.zxcvbn(reading, user_inputs=message["words"])["guesses"] for reading in readings]
    return {"t": "judged", "weak": min(guesses) < GUESSES_MIN}


def main() -> None:
    sock = open_socket(int(sys.argv[1]))
    harden()
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    sock.send(wire.pack({"t": "ready"}))
    packet, fds, _, _ = socket.recv_fds(sock, wire.PACKET_BYTES_MAX, 1)
    if not packet:
        return
    [fd] = fds
    code = os.pread(fd, os.fstat(fd).st_size, 0).decode()
    sock.send(wire.pack(judge(wire.unpack(packet), code)))
    while sock.recv(1):  # until the other end has its answer
        pass


if __name__ == "__main__":
    main()
