"""
A connection to a server that may hang, drip or talk without end: what smtplib and http.client take for a socket.

Each step has its time, all of them together have theirs, and so have all bytes that the server says. Where one of these
is over, reading and writing raise `OSError`.
"""

import errno
import io
import ipaddress
import socket
import ssl
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

ANSWER_BYTES_MAX = 64 * 1024  # of all that the server says: an SMTP dialogue has 2 kB, the head of an HTTP answer 1 kB


def is_loopback(host: str) -> bool:
    """Whether it is an address of this host; 'localhost' is none: names lead wherever a resolver says."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Line:
    """
    `step_s` is for one connect, handshake, write or read, `whole_s` for all of them. A resolver has its own limits, which
    nothing can shorten.
    """

    def __init__(self, host: str, port: int, *, step_s: float, whole_s: float) -> None:
        self._host = host
        self._step_s = step_s
        self._end = time.monotonic() + whole_s
        self._room = ANSWER_BYTES_MAX
        self._socket = socket.create_connection((host, port), min(step_s, whole_s))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or a body waits for its head's receipt

    def encrypt(self, context: ssl.SSLContext) -> None:
        """TLS from here on."""
        self._allow_step()
        self._socket = context.wrap_socket(self._socket, server_hostname=self._host)

    def end_within(self, seconds: float) -> None:
        self._end = min(self._end, time.monotonic() + seconds)

    def sendall(self, content: "ReadableBuffer") -> None:
        self._allow_step()
        self._socket.sendall(content)

    def read_into(self, place: "WriteableBuffer") -> int:
        self._allow_step()
        count = self._socket.recv_into(place)
        self._room -= count
        if self._room < 0:
            raise OSError(errno.EMSGSIZE, f"the answer is longer than {ANSWER_BYTES_MAX} bytes")
        return count

    def makefile(self, mode: str) -> io.BufferedReader:
        """What the server says; `mode` is "rb"."""
        assert mode == "rb"
        return io.BufferedReader(_Said(self))

    def close(self) -> None:
        self._socket.close()

    def _allow_step(self) -> None:
        left_s = self._end - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(errno.ETIMEDOUT, "the time for all of it is over")
        self._socket.settimeout(min(self._step_s, left_s))


class _Said(io.RawIOBase):
    def __init__(self, line: Line) -> None:
        self._line = line

    def readable(self) -> bool:
        return True

    def readinto(self, place: "WriteableBuffer") -> int:
        return self._line.read_into(place)
