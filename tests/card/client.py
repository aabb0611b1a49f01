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
NO_CARD, SHARING_VIOLATION = 0x8010000C, 0x8010000B
_SCOPE_SYSTEM, _SHARED, _T1, _LEAVE, _PRESENT = 2, 2, 2, 0, 0x20


class PcscError(Exception):
    """`code` is PC/SC's."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"{code:#x}")


def transmit(environment: Mapping[str, str], reader: str, *commands: bytes) -> list[bytes]:
    """What the card answers to each; it is left as it is afterwards. Raises `PcscError`."""
    return [bytes.fromhex(answer) for answer in _ask(environment, reader, *(command.hex() for command in commands))]


def has_card(environment: Mapping[str, str], reader: str) -> bool:
    """Whether pcscd knows of a card in the reader, whoever has it."""
    return bool(_ask(environment, reader, "present"))


def is_logged_in(environment: Mapping[str, str], reader: str) -> bool:
    """Whether a program without the PIN could sign with the card now."""
    _, answer = transmit(environment, reader, SELECT, ASK)
    assert answer == b"\x90\x00" or answer[:1] in {b"\x63", b"\x69"}, answer.hex()
    return answer == b"\x90\x00"


def _ask(environment: Mapping[str, str], reader: str, *words: str) -> list[str]:
    asked = subprocess.run(
        [sys.executable, "-I", __file__, reader, *words],
        env=os.environ | dict(environment), check=True, text=True, stdout=subprocess.PIPE, timeout=30,
    )  # fmt: skip
    code, answers = json.loads(asked.stdout)
    if code:
        raise PcscError(code)
    return list(answers)


class _State(ctypes.Structure):
    _fields_ = (
        *(("reader", ctypes.c_char_p), ("data", ctypes.c_void_p), ("current", ctypes.c_ulong)),
        *(("event", ctypes.c_ulong), ("length", ctypes.c_ulong), ("atr", ctypes.c_ubyte * 33)),
    )


def _speak(reader: str, words: list[str]) -> tuple[int, list[str]]:
    """PC/SC's code, and the answers."""
    pcsc = ctypes.CDLL("libpcsclite.so.1")
    long, dword, byref = ctypes.c_long, ctypes.c_ulong, ctypes.byref

    def call(name: str, *arguments: object) -> None:
        function = getattr(pcsc, name)
        function.restype = long
        code = function(*arguments) & 0xFFFFFFFF
        if code:
            raise PcscError(code)

    context, card, protocol = long(), long(), dword()
    answers = []
    try:
        call("SCardEstablishContext", dword(_SCOPE_SYSTEM), None, None, byref(context))
        if words == ["present"]:
            state = _State(reader.encode())
            call("SCardGetStatusChange", context, dword(0), byref(state), dword(1))
            return 0, ["yes"] if state.event & _PRESENT else []
        call("SCardConnect", context, reader.encode(), dword(_SHARED), dword(_T1), byref(card), byref(protocol))
        for command in map(bytes.fromhex, words):
            buffer, length = ctypes.create_string_buffer(65536), dword(65536)
            head = (dword * 2)(_T1, ctypes.sizeof(dword) * 2)  # SCARD_IO_REQUEST
            call("SCardTransmit", card, head, command, dword(len(command)), None, buffer, byref(length))
            answers.append(buffer.raw[: length.value].hex())
        call("SCardDisconnect", card, dword(_LEAVE))
    except PcscError as error:
        return error.code, answers
    return 0, answers


if __name__ == "__main__":
    print(json.dumps(_speak(sys.argv[1], sys.argv[2:])))
