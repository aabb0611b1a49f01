"""
Resets the card in one reader, in a process that is thrown away afterwards.

A card that was given its PIN stays logged in for whoever speaks to it next, also when the process that gave the PIN was
killed: only a reset or the loss of its power ends that. C_Logout alone depends on the driver's good will, and nobody
calls it for a process that crashed. Started as `python -I -m pool.reset SOCKET READER PARENT`.

PC/SC by ctypes: four calls of libpcsclite (PC/SC part 5, 3.2; its handles and codes are C longs on Linux).
"""

import ctypes
import os
import sys
from typing import Any

from pool import wire
from pool.child import harden, open_socket
from pool.library import LibraryRefused, check_environment

_LIBRARY = "libpcsclite.so.1"
_SCOPE_SYSTEM, _SHARE_SHARED, _PROTOCOL_ANY, _RESET_CARD = 2, 2, 3, 1
_OK = 0
# Where no card is, or no reader, there is no power and no login: unknown reader, no card, reader gone, card removed,
# no readers at all.
_NO_CARD = frozenset({0x80100009, 0x8010000C, 0x80100017, 0x80100069, 0x8010002E})


def reset(reader: str) -> dict[str, Any]:
    """Answers 'reset', where there was something to reset or nothing to fear, or 'failed' and why."""
    try:
        check_environment(os.environ)
        pcsc = ctypes.CDLL(_LIBRARY)
    except (LibraryRefused, OSError) as error:
        return _failed(str(error))
    for function in (pcsc.SCardEstablishContext, pcsc.SCardConnect, pcsc.SCardDisconnect):
        function.restype = ctypes.c_long
    context, card, protocol = ctypes.c_long(), ctypes.c_long(), ctypes.c_ulong()
    scope = ctypes.c_ulong(_SCOPE_SYSTEM)
    code = pcsc.SCardEstablishContext(scope, None, None, ctypes.byref(context))
    if code != _OK:
        return _failed(f"SCardEstablishContext: {_hex(code)}; is pcscd running?")
    code = pcsc.SCardConnect(
        context, reader.encode(), ctypes.c_ulong(_SHARE_SHARED), ctypes.c_ulong(_PROTOCOL_ANY),
        ctypes.byref(card), ctypes.byref(protocol),
    )  # fmt: skip
    if code & 0xFFFFFFFF in _NO_CARD:
        return {"t": "reset"}
    if code != _OK:
        return _failed(f"SCardConnect: {_hex(code)}")
    code = pcsc.SCardDisconnect(card, ctypes.c_ulong(_RESET_CARD))
    return {"t": "reset"} if code == _OK else _failed(f"SCardDisconnect: {_hex(code)}")


def _failed(detail: str) -> dict[str, Any]:
    return {"t": "failed", "detail": detail}


def _hex(code: int) -> str:
    return f"{code & 0xFFFFFFFF:#x}"


def main() -> None:
    sock = open_socket(int(sys.argv[1]))
    harden()
    sock.send(wire.pack(reset(sys.argv[2])))


if __name__ == "__main__":
    main()
