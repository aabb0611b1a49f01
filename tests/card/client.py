"""
Speaks with a card through PC/SC in a process that is thrown away: what another program on the machine could do.

    transmit(pcscd.environment, reader.name, SELECT, ASK)     # the answers, as bytes
"""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Mapping

SELECT = bytes.fromhex("00a4040009a0000003080000100000")  # the PIV application
ASK = bytes.fromhex("00200080")  # an empty VERIFY: is a PIN needed? It costs no try
_SCOPE_SYSTEM, _SHARED, _T1, _LEAVE = 2, 2, 2, 0


class PcscError(Exception):
    """`code` is PC/SC's."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"{code:#x}")


def transmit(environment: Mapping[str, str], reader: str, *commands: bytes) -> list[bytes]:
    """What the card answers to each; it is left as it is afterwards. Raises `PcscError`."""
    asked = subprocess.run(
        [sys.executable, "-I", __file__, reader, *(command.hex() for command in commands)],
        env=os.environ | dict(environment), check=True, text=True, stdout=subprocess.PIPE, timeout=30,
    )  # fmt: skip
    said = json.loads(asked.stdout)
    if isinstance(said, int):
        raise PcscError(said)
    return [bytes.fromhex(answer) for answer in said]


def is_logged_in(environment: Mapping[str, str], reader: str) -> bool:
    """Whether a program without the PIN could sign with the card now."""
    _, answer = transmit(environment, reader, SELECT, ASK)
    assert answer == b"\x90\x00" or answer[:1] in {b"\x63", b"\x69"}, answer.hex()
    return answer == b"\x90\x00"


def _speak(reader: str, commands: list[bytes]) -> list[str] | int:
    pcsc = ctypes.CDLL("libpcsclite.so.1")
    long, dword, byref = ctypes.c_long, ctypes.c_ulong, ctypes.byref
    for name in ("SCardEstablishContext", "SCardConnect", "SCardTransmit", "SCardDisconnect"):
        getattr(pcsc, name).restype = long
    context, card, protocol = long(), long(), dword()
    code = pcsc.SCardEstablishContext(dword(_SCOPE_SYSTEM), None, None, byref(context))
    if not code:
        words = (dword(_SHARED), dword(_T1), byref(card), byref(protocol))
        code = pcsc.SCardConnect(context, reader.encode(), *words)
    answers = []
    for command in commands:
        buffer, length = ctypes.create_string_buffer(65536), dword(65536)
        head = (dword * 2)(_T1, ctypes.sizeof(dword) * 2)  # SCARD_IO_REQUEST
        if not code:
            where = (None, buffer, byref(length))
            code = pcsc.SCardTransmit(card, head, command, dword(len(command)), *where)
            answers.append(buffer.raw[: length.value].hex())
    pcsc.SCardDisconnect(card, dword(_LEAVE))
    return code & 0xFFFFFFFF if code else answers


if __name__ == "__main__":
    print(json.dumps(_speak(sys.argv[1], [bytes.fromhex(word) for word in sys.argv[2:]])))
