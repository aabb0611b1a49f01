"""
Clients that abuse their connection, each run in a process of its own: `python -m tests.abuser KIND`.

What they want stands as JSON in the first line of their input: the daemon's port, the caller's TLS files, sizes. They
speak to loopback only, write a line of JSON when they have begun in full, another one at the end, and end with their
input. HTTP/2 is made here of frames (the layers below `h2`, which keeps to manners that an abuser has not, and is
twenty times slower): one process must be able to send more than the daemon can take.
"""

import contextlib
import functools
import json
import os
import resource
import select
import socket
import ssl
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

from hpack import Encoder
from hyperframe.frame import DataFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
ACK = END_STREAM = 1
ERRORS = {0: "NO_ERROR", 2: "INTERNAL_ERROR", 7: "REFUSED_STREAM", 11: "ENHANCE_YOUR_CALM"}
CANCEL = 8
ALL_AT_ONCE = 16_384  # bytes handed to TLS at one time: one record

wishes: dict[str, Any] = {}
seen: Counter[str] = Counter()


class HungUpOn(Exception):
    """The daemon has closed the connection."""


def open_socket() -> socket.socket:
    raw = socket.create_connection(("127.0.0.1", wishes["port"]), timeout=30)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return raw


@functools.cache
def context() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(wishes["ca"])
    made.load_cert_chain(wishes["certificate"], wishes["key"])
    made.set_alpn_protocols(["h2"])
    return made


class Connection:
    """HTTP/2 over TLS with the caller's certificate; what it gets is counted in `seen`."""

    def __init__(self, settings: dict[int, int] | None = None, *, acknowledge: bool = True) -> None:
        self.acknowledge = acknowledge
        self.opened = time.monotonic()
        try:
            self.tls = context().wrap_socket(open_socket(), server_hostname="127.0.0.1")
        except OSError as error:
            raise HungUpOn from error
        self.tls.setblocking(False)
        self.out = bytearray(PREFACE + SettingsFrame(0, settings=settings or {}).serialize())
        self._in = bytearray()
        self.stream = 1
        seen["connections"] += 1

    def wait(self, timeout_s: float) -> None:
        """Until it can be read, or written if there is something to write. (No select: it knows 1 024 descriptors.)"""
        poll = select.poll()
        poll.register(self.tls, select.POLLIN | (select.POLLOUT if self.out else 0))
        poll.poll(timeout_s * 1e3)

    def send_all(self) -> None:
        """Everything that is to be sent; what arrives meanwhile is read."""
        while self.out:
            self.send_some()
            if self.out:
                self.wait(1.0)

    def send_some(self) -> None:
        try:
            sent = self.tls.send(memoryview(self.out)[:ALL_AT_ONCE])
            del self.out[:sent]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError as error:
            self.receive()
            raise HungUpOn from error
        self.receive()

    def receive(self) -> None:
        while True:
            try:
                data = self.tls.recv(65_536)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                raise HungUpOn from error
            if not data:
                raise HungUpOn
            self._in += data
            for kind, flags, body in self._frames():
                self._count(kind, flags, body)

    def _frames(self) -> Iterator[tuple[int, int, bytes]]:
        data, at = bytes(self._in), 0
        while len(data) >= at + 9 + int.from_bytes(data[at : at + 3]):
            end = at + 9 + int.from_bytes(data[at : at + 3])
            yield data[at + 3], data[at + 4], data[at + 9 : end]
            at = end
            if len(data) < at + 9:
                break
        del self._in[:at]

    def _count(self, kind: int, flags: int, body: bytes) -> None:
        if kind == RST_STREAM:
            code = int.from_bytes(body)
            seen[f"RST_STREAM {ERRORS.get(code, code)}"] += 1
        elif kind == GOAWAY:
            code = int.from_bytes(body[4:8])
            seen[f"GOAWAY {ERRORS.get(code, code)}"] += 1
            seen.setdefault("GOAWAY after ms", self.age_ms())
        elif kind == DATA:
            seen["bytes"] += len(body)
            if body and self.acknowledge:
                self.out += WindowUpdateFrame(0, window_increment=len(body)).serialize()
        elif kind == SETTINGS and not flags & ACK:
            settings = SettingsFrame(0)
            settings.parse_body(memoryview(body))
            seen["streams allowed"] = settings.settings.get(SettingsFrame.MAX_CONCURRENT_STREAMS, 0)
            if self.acknowledge:
                self.out += SettingsFrame(0, flags=["ACK"]).serialize()
        elif kind == PING and flags & ACK:
            seen["pings answered"] += 1
        elif kind == PING and self.acknowledge:
            seen["pings of the daemon"] += 1
            self.out += PingFrame(0, opaque_data=body, flags=["ACK"]).serialize()

    def age_ms(self) -> int:
        return int((time.monotonic() - self.opened) * 1e3)

    def call(self, path: str, message: bytes | None) -> int:
        """The frames of a call on the next stream, which is returned; without a message it stays open."""
        stream, self.stream = self.stream, self.stream + 2
        self.out += HeadersFrame(stream, data=headers(path), flags=["END_HEADERS"]).serialize()
        if message is not None:
            if message[:2] == b"\x0a\x24":  # a request to sign: its id, 36 characters, is its first field
                message = message[:2] + str(uuid.uuid4()).encode() + message[38:]
            self.out += DataFrame(stream, data=framed(message), flags=["END_STREAM"]).serialize()
        return stream


@functools.cache
def headers(path: str) -> bytes:
    """The header block of a call, with nothing in it that the daemon would have to remember from another."""
    fields = [(":method", "POST"), (":scheme", "https"), (":path", path), (":authority", "daemon")]
    return Encoder().encode([*fields, ("te", "trailers"), ("content-type", "application/grpc")])


def framed(message: bytes) -> bytes:
    """A message as gRPC sends it: not compressed, its length, itself."""
    return b"\0" + len(message).to_bytes(4) + message


def say() -> None:
    """Write what was seen, and what it cost this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seen["cpu ms"] = int((used.ru_utime + used.ru_stime) * 1e3)
    print(json.dumps(seen), flush=True)


def _end_with_input() -> None:
    sys.stdin.read()
    say()
    os._exit(0)


# ---- the kinds


def spin() -> None:
    """Not an abuser: keeps a processor busy, as one does."""
    say()
    while True:
        pass


def pings() -> None:
    """Pings on several connections, as fast as they are taken; who is hung up on comes again."""
    burst = b"".join(PingFrame(0, opaque_data=number.to_bytes(8)).serialize() for number in range(1_000))
    connections: list[Connection] = []
    said = False
    while True:
        while len(connections) < wishes["connections"]:
            connections.append(Connection())
        for connection in list(connections):
            try:
                if len(connection.out) < len(burst):
                    connection.out += burst
                    seen["pings"] += 1_000
                connection.send_some()
            except HungUpOn:
                seen["hung up on"] += 1
                connections.remove(connection)
        if not said and seen["pings answered"]:
            said = True
            say()
        poll = select.poll()
        for connection in connections:
            poll.register(connection.tls, select.POLLIN | select.POLLOUT)
        poll.poll(100)


def stay() -> None:
    """Ping every 20 ms, with `stream` during a call that stays open, until hung up on."""
    connection = Connection()
    if wishes.get("stream"):
        connection.call(wishes["stream"], b"")
    try:
        while True:
            connection.out += PingFrame(0, opaque_data=bytes(8)).serialize()
            connection.send_all()
            connection.wait(0.02)
            connection.receive()
            time.sleep(0.02)
    except HungUpOn:
        seen["hung up on after ms"] = connection.age_ms()
    say()
    _read_on([])


def resets() -> None:
    """
    Calls that are reset at once, as fast as they are taken: `streams` of them, or with 0 until the end. With `message`
    each is a whole request. With `hasty` the daemon's SETTINGS are never acknowledged.
    """
    message = bytes.fromhex(wishes["message"]) if "message" in wishes else None
    began = time.monotonic()
    connection = None
    said = False
    while not wishes["streams"] or seen["streams"] < wishes["streams"]:
        try:
            if connection is None:
                connection = Connection(acknowledge=not wishes.get("hasty"))
                connection.send_all()
            for _ in range(100):
                stream = connection.call(wishes["path"], message)
                connection.out += RstStreamFrame(stream, error_code=CANCEL).serialize()
            connection.send_all()
            seen["streams"] += 100
        except HungUpOn:
            seen["hung up on"] += 1
            connection = None
        if not said and not wishes["streams"] and seen["streams"] >= 1_000:
            said = True
            say()
    seen["ms"] = int((time.monotonic() - began) * 1e3)
    say()
    _read_on([connection] if connection else [])


def idle() -> None:
    """Connections that say who they are and then nothing."""
    connections = []
    for _ in range(wishes["connections"]):
        try:
            connection = Connection()
            connection.send_all()
            connections.append(connection)
        except HungUpOn:
            seen["hung up on"] += 1
    say()
    _read_on(connections)


def half_open() -> None:
    """
    Connections that begin TLS with its first bytes and then say nothing. With `again`, who is hung up on comes again at
    once; without, the second line tells how long they lasted.
    """
    opened: dict[int, tuple[socket.socket, float]] = {}
    poll = select.poll()
    lasted: list[float] = []
    while True:
        while len(opened) < wishes["connections"]:
            raw = open_socket()
            with contextlib.suppress(OSError):
                raw.send(b"\x16\x03\x01\x02")  # a handshake record, version, half a length
            opened[raw.fileno()] = raw, time.monotonic()
            poll.register(raw, select.POLLIN)
            seen["connections"] += 1
        if not seen["hung up on"]:
            say()
        for descriptor, _ in poll.poll():
            raw, since = opened.pop(descriptor)
            lasted.append(time.monotonic() - since)
            poll.unregister(descriptor)
            raw.close()
            seen["hung up on"] += 1
        if not wishes["again"]:
            wishes["connections"] = len(opened)
        if not opened:
            seen["shortest ms"], seen["longest ms"] = int(min(lasted) * 1e3), int(max(lasted) * 1e3)
            say()
            _read_on([])


def slow_reader() -> None:
    """Calls whose answers are let through a byte at a time: ten in a second, of all together."""
    connection = Connection({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    message = bytes.fromhex(wishes["message"])
    streams = [connection.call(wishes["path"], message) for _ in range(wishes["streams"])]
    connection.send_all()
    say()
    while True:
        for stream in streams:
            connection.out += WindowUpdateFrame(stream, window_increment=1).serialize()
            connection.send_all()
            connection.receive()
            connection.wait(0.1)


def _read_on(connections: list[Connection]) -> None:
    """Until the end, or until nothing is left: read what comes, and answer what must be answered."""
    poll = select.poll()
    by_descriptor = {}
    for connection in connections:
        by_descriptor[connection.tls.fileno()] = connection
        poll.register(connection.tls, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll(100):
            try:
                by_descriptor[descriptor].receive()
                by_descriptor[descriptor].send_all()
            except HungUpOn:
                seen["hung up on"] += 1
                poll.unregister(descriptor)


KINDS = {function.__name__: function for function in (spin, pings, stay, resets, idle, half_open, slow_reader)}

if __name__ == "__main__":
    wishes.update(json.loads(sys.stdin.readline()))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    threading.Thread(target=_end_with_input, daemon=True).start()
    KINDS[sys.argv[1]]()
