"""
One virtual reader: the other end of a reader of vpcd (vsmartcard's driver for pcscd), with or without a card in it.

    pcscd with libifdvpcd.so, which listens  <--a connection is an inserted card--  Reader  -->  Card

The protocol: two bytes of length, then a command APDU, or one byte: power off, on, reset, or the question for the ATR.
"""

import contextlib
import socket
import threading
from collections.abc import Callable

from tests.card.piv import Card, Died

_OFF, _ON, _RESET, _ATR = b"\0", b"\1", b"\2", b"\4"
_AGAIN_S = 0.02  # a pcscd that was killed, or starts, is looked for as often


def atr(historical: bytes = b"paraph") -> bytes:
    """Answer to reset (ISO/IEC 7816-3, 8): T=0 and T=1 offered, historical bytes, and the check byte."""
    body = bytes([0x80 | len(historical), 0x80, 0x01]) + historical
    check = 0
    for byte in body:
        check ^= byte
    return b"\x3b" + body + bytes([check])


class Reader:
    """`name` is what PC/SC calls it; `connect` gives a connection to vpcd's port, or raises `OSError`."""

    def __init__(self, name: str, port: int, connect: Callable[[int], socket.socket]) -> None:
        self.name, self.port = name, port
        self.card: Card | None = None
        self._connect = connect
        self._connection: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def insert(self, card: Card) -> None:
        """pcscd sees it within half a second."""
        assert self.card is None, f"there is a card in {self.name}"
        card.reset()
        card.pulled.clear()
        self.card = card
        self._thread = threading.Thread(target=self._serve, args=(card,), daemon=True)
        self._thread.start()

    def remove(self) -> Card:
        """Pull the card, whatever it is doing; answers it. pcscd sees it within half a second."""
        card, thread = self.card, self._thread
        assert card is not None and thread is not None, f"no card is in {self.name}"
        card.pulled.set()
        if self._connection is not None:
            with contextlib.suppress(OSError):  # its other end is gone already
                self._connection.shutdown(socket.SHUT_RDWR)
        thread.join()
        self.card = self._thread = None
        card.reset()
        return card

    def _serve(self, card: Card) -> None:
        """While the card is in; after a pcscd comes the next. One that died stays in, and answers nobody."""
        while not card.pulled.is_set():
            try:
                with self._connect(self.port) as self._connection:
                    if not card.pulled.is_set():
                        _speak(card, self._connection)
            except Died:
                card.reset()
                return
            except (EOFError, OSError):
                card.reset()
                card.pulled.wait(_AGAIN_S)


def _speak(card: Card, connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    has_power = False
    while True:
        length = int.from_bytes(_exactly(connection, 2))
        # vpcd sends length and body one by one, and its kernel keeps the second until the first is acknowledged: 40 ms a
        # command, unless that is done at once. The kernel forgets the option, so it is set each time.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        message = _exactly(connection, length)
        if length != 1:
            if not has_power:  # put in for another so fast that nobody has seen it: it hears nothing
                raise EOFError
            answer = card.transmit(message)
        elif message == _ATR:
            answer = atr()
        else:
            assert message in {_OFF, _ON, _RESET}, message
            has_power = message != _OFF
            card.reset()
            continue
        connection.sendall(len(answer).to_bytes(2) + answer)


def _exactly(connection: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        more = connection.recv(count - len(got))
        if not more:
            raise EOFError
        got += more
    return got
