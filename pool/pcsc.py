"""
What PC/SC says of readers and the cards in them, and the reset of a card.

By ctypes: a few calls of libpcsclite (PC/SC part 5, 3.2; its handles and codes are C longs on Linux). A child asks
(worker.py, probe.py, card.py), never the daemon itself: a call waits as long as a driver likes.
"""

import ctypes
import os
import socket
import time
from dataclasses import dataclass

_LIBRARY = "libpcsclite.so.1"
_SOCKET = "/run/pcscd/pcscd.comm"  # where pcscd listens, unless this variable says otherwise
_SOCKET_IN = "PCSCLITE_CSOCK_NAME"
_SCOPE_SYSTEM, _SHARE_SHARED, _PROTOCOL_ANY, _RESET_CARD = 2, 2, 3, 1
_ATR_BYTES_MAX = 33
# What a state of a reader is made of (SCARD_STATE_*); the upper half counts what was inserted and pulled.
_UNAWARE, _IGNORE, _UNKNOWN, _UNAVAILABLE, _EMPTY, _PRESENT, _COUNT_AT = 0, 0x1, 0x4, 0x8, 0x10, 0x20, 16
_OK = 0
_TIMEOUT, _DENIED, _NO_READERS, _UNKNOWN_READER = 0x8010000A, 0x8010006A, 0x8010002E, 0x80100009
# Where no card is, or no reader, there is no power and no login: no card, reader gone, card removed.
_NO_CARD = frozenset({_UNKNOWN_READER, 0x8010000C, 0x80100017, 0x80100069, _NO_READERS})
_PACE_S = 0.02  # between two looks, whatever else about the reader changes all the time
# No service, service stopped, no answer from it, and a context that it knows nothing of.
_NO_SERVICE = frozenset({0x8010001D, 0x8010001E, 0x80100013, 0x80100003})
_SHARING = 0x8010000B  # somebody else has the card to himself
_BUSY_S = 4.0
_AGAIN_S = 0.3  # a reader that is away, or a pcscd that is down, is looked for as often


class PcscError(Exception):
    """`why`: 'down' (no pcscd answers), 'denied' (it is not ours to use), 'absent' (no card is there), or 'fault'."""

    def __init__(self, why: str, detail: str) -> None:
        self.why = why
        self.detail = detail
        super().__init__(detail)


def other_card(reader: str, label: str) -> str:
    return f"the card in reader '{reader}' is labelled '{label}'"


def no_token(reader: str) -> str:
    return f"the module shows no token for the card in reader '{reader}': it has no driver for it, or another program holds it"


@dataclass(frozen=True, slots=True)
class Seen:
    """A reader at one moment. `count` goes up whenever a card is inserted or pulled."""

    is_known: bool
    has_card: bool
    count: int


class _ReaderState(ctypes.Structure):
    _fields_ = (
        ("reader", ctypes.c_char_p),
        ("user_data", ctypes.c_void_p),
        ("current", ctypes.c_ulong),
        ("event", ctypes.c_ulong),
        ("atr_bytes", ctypes.c_ulong),
        ("atr", ctypes.c_ubyte * _ATR_BYTES_MAX),
    )


class Pcsc:
    """A conversation with pcscd, which ends with this process. Every method raises `PcscError`."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise PcscError("fault", f"{error}; install PC/SC lite") from None
        self._context = ctypes.c_long()
        self._call("SCardEstablishContext", ctypes.c_ulong(_SCOPE_SYSTEM), None, None, ctypes.byref(self._context))

    def readers(self) -> list[str]:
        length = ctypes.c_ulong()
        if self._call("SCardListReaders", self._context, None, None, ctypes.byref(length), but={_NO_READERS}):
            return []
        names = ctypes.create_string_buffer(length.value)
        if self._call("SCardListReaders", self._context, None, names, ctypes.byref(length), but={_NO_READERS}):
            return []
        return [name.decode("utf-8", "replace") for name in names.raw[: length.value].split(b"\0") if name]

    def look(self, reader: str) -> Seen:
        return self._status(reader, _UNAWARE, 0)

    def wait(self, reader: str, seen: Seen | None, timeout_s: float) -> Seen:
        """The reader as soon as it is not as `seen`, or after this time."""
        end = time.monotonic() + timeout_s
        while True:
            now = self.look(reader)
            left_s = end - time.monotonic()
            if now != seen or left_s <= 0:
                return now
            if now.is_known:
                current = (_PRESENT if now.has_card else _EMPTY) | now.count << _COUNT_AT
                self._status(reader, current, int(left_s * 1000))
                time.sleep(_PACE_S)
            else:
                time.sleep(min(_AGAIN_S, left_s))

    def reset(self, reader: str) -> None:
        """
        Whoever is logged in to the card is not any more; nothing where no card is. A card that is still busy for a
        process that was killed is waited for.
        """
        card, protocol = ctypes.c_long(), ctypes.c_ulong()
        end = time.monotonic() + _BUSY_S
        while code := self._call(
            "SCardConnect", self._context, reader.encode(), ctypes.c_ulong(_SHARE_SHARED),
            ctypes.c_ulong(_PROTOCOL_ANY), ctypes.byref(card), ctypes.byref(protocol), but={*_NO_CARD, _SHARING},
        ):  # fmt: skip
            if code != _SHARING:
                return
            if time.monotonic() >= end:
                raise PcscError("fault", f"another program has the card in reader '{reader}' ({code:#x})")
            time.sleep(_AGAIN_S)
        self._call("SCardDisconnect", card, ctypes.c_ulong(_RESET_CARD), but=_NO_CARD)

    def find(self, reader: str) -> Seen:
        """The reader with a card in it; raises `PcscError` with 'absent' where there is none."""
        seen = self.look(reader)
        if not seen.is_known:
            names = ", ".join(f"'{name}'" for name in self.readers())
            raise PcscError("absent", f"PC/SC has no reader '{reader}'; it has {names or 'none'}")
        if not seen.has_card:
            raise PcscError("absent", f"no card is in reader '{reader}'")
        return seen

    def _status(self, reader: str, current: int, timeout_ms: int) -> Seen:
        state = _ReaderState(reader.encode(), None, current, 0, 0)
        code = self._call(
            "SCardGetStatusChange", self._context, ctypes.c_ulong(timeout_ms), ctypes.byref(state), ctypes.c_ulong(1),
            but={_TIMEOUT, _UNKNOWN_READER, _NO_READERS},
        )  # fmt: skip
        away = _IGNORE | _UNKNOWN | _UNAVAILABLE
        if code in {_UNKNOWN_READER, _NO_READERS} or state.event & away:
            return Seen(is_known=False, has_card=False, count=0)
        return Seen(is_known=True, has_card=bool(state.event & _PRESENT), count=state.event >> _COUNT_AT)

    def _call(self, function: str, *arguments: object, but: frozenset[int] | set[int] = frozenset()) -> int:
        """Answers 0, or the code if it is one of `but`."""
        called = getattr(self._library, function)
        called.restype = ctypes.c_long
        code = int(called(*arguments)) & 0xFFFFFFFF
        if code == _OK or code in but:
            return code
        if code == _DENIED:
            raise PcscError("denied", f"pcscd refuses us ({function}: {code:#x}); allow this user by a polkit rule")
        if code not in _NO_SERVICE:
            raise PcscError("fault", f"{function}: {code:#x}")
        path = os.environ.get(_SOCKET_IN, _SOCKET)
        problem = _why_not(path)
        if isinstance(problem, PermissionError):
            raise PcscError("denied", f"{path} may not be used by this user ({problem.strerror})")
        said = problem.strerror if problem else f"{function}: {code:#x}"
        raise PcscError("down", f"pcscd does not answer at {path} ({said}); start it")


def _why_not(path: str) -> OSError | None:
    """What keeps us from pcscd's socket; the library has one code for all of it."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
        except OSError as error:
            return error
    return None
