"""
The functions of a PKCS#11 module as they are: every one answers the name of its return code, and nothing is made of it.

For looking at modules (`cases.py`), not for signing: a lane has `cryptoki.py`.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

from pool.codes import name_of

ULONG = ctypes.c_ulong
NONE = 2 ** (8 * ctypes.sizeof(ULONG)) - 1  # CK_UNAVAILABLE_INFORMATION
SERIAL_SESSION = 4
USER = 1
# Places in CK_FUNCTION_LIST (PKCS#11 v2.40, 3.6: pkcs11f.h); place 0 is the version, padded to a pointer.
_PLACES = {
    "C_Initialize": 1,
    "C_Finalize": 2,
    "C_GetInfo": 3,
    "C_GetSlotList": 5,
    "C_GetTokenInfo": 7,
    "C_OpenSession": 13,
    "C_CloseSession": 14,
    "C_CloseAllSessions": 15,
    "C_Login": 19,
    "C_Logout": 20,
    "C_GetAttributeValue": 25,
    "C_FindObjectsInit": 27,
    "C_FindObjects": 28,
    "C_FindObjectsFinal": 29,
    "C_SignInit": 43,
    "C_Sign": 44,
    "C_GenerateRandom": 65,
}
_OS_LOCKING = 2
_OBJECTS_MAX = 500


class Mechanism(ctypes.Structure):
    _fields_ = (("mechanism", ULONG), ("parameter", ctypes.c_void_p), ("length", ULONG))


class PssParameters(ctypes.Structure):
    _fields_ = (("hash", ULONG), ("mgf", ULONG), ("salt_bytes", ULONG))


class _Attribute(ctypes.Structure):
    _fields_ = (("type", ULONG), ("value", ctypes.c_void_p), ("length", ULONG))


class _InitializeArgs(ctypes.Structure):
    _fields_ = (("mutexes", ctypes.c_void_p * 4), ("flags", ULONG), ("reserved", ctypes.c_void_p))


class _Info(ctypes.Structure):
    _fields_ = (
        *(("version", ctypes.c_char * 2), ("manufacturer", ctypes.c_char * 32), ("flags", ULONG)),
        *(("library", ctypes.c_char * 32), ("rest", ctypes.c_char * 2)),
    )


class TokenInfo(ctypes.Structure):
    _fields_ = (
        *(("label", ctypes.c_char * 32), ("manufacturer", ctypes.c_char * 32), ("model", ctypes.c_char * 16)),
        *(("serial", ctypes.c_char * 16), ("flags", ULONG), ("numbers", ULONG * 10), ("rest", ctypes.c_char * 20)),
    )


class Answered(Exception):
    """A function that should have gone well did not; `code` says what it answered."""

    def __init__(self, function: str, code: str) -> None:
        self.code = code
        super().__init__(f"{function}: {code}")


class Functions:
    """A loaded module. `call` answers a code, `must` raises `Answered` for any but CKR_OK."""

    def __init__(self, module: str) -> None:
        self._library = ctypes.CDLL(module)
        pointer = self.list()
        if not pointer:
            raise Answered("C_GetFunctionList", "no list")
        self._list = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_void_p))

    def list(self) -> int | None:
        """The address of the function list, as it is told now."""
        pointer = ctypes.c_void_p()
        self._library.C_GetFunctionList(ctypes.byref(pointer))
        return pointer.value

    def call(self, function: str, *arguments: Any) -> str:
        types = [ULONG if isinstance(argument, int) else ctypes.c_void_p for argument in arguments]
        code = ctypes.CFUNCTYPE(ULONG, *types)(self._list[_PLACES[function]] or 0)(*arguments)
        return "CKR_OK" if code == 0 else name_of(code)

    def must(self, function: str, *arguments: Any) -> None:
        code = self.call(function, *arguments)
        if code != "CKR_OK":
            raise Answered(function, code)

    def initialize(self, *, locking: bool = False) -> str:
        if not locking:
            return self.call("C_Initialize", None)
        return self.call("C_Initialize", ctypes.byref(_InitializeArgs(flags=_OS_LOCKING)))

    def library(self) -> str:
        """The module's description of itself."""
        info = _Info()
        self.must("C_GetInfo", ctypes.byref(info))
        return str(info.library.decode("utf-8", "replace")).strip()

    def slots(self, *, with_token: bool) -> Sequence[int]:
        count = ULONG()
        self.must("C_GetSlotList", int(with_token), None, ctypes.byref(count))
        found = (ULONG * max(1, count.value))()
        self.must("C_GetSlotList", int(with_token), found, ctypes.byref(count))
        return [int(found[place]) for place in range(count.value)]

    def token_info(self, slot: int) -> TokenInfo:
        info = TokenInfo()
        self.must("C_GetTokenInfo", slot, ctypes.byref(info))
        return info

    def session(self, slot: int) -> int:
        handle = ULONG()
        self.must("C_OpenSession", slot, SERIAL_SESSION, None, None, ctypes.byref(handle))
        return handle.value

    def login(self, session: int, pin: str) -> str:
        value = pin.encode()
        return self.call("C_Login", session, USER, ctypes.create_string_buffer(value, len(value) + 1), len(value))

    def objects(self, session: int, kind: int) -> Sequence[int]:
        """The handles of all objects of a class (CKO_*)."""
        wanted = ULONG(kind)
        row = _Attribute(0, ctypes.addressof(wanted), ctypes.sizeof(wanted))
        found, count = (ULONG * _OBJECTS_MAX)(), ULONG()
        self.must("C_FindObjectsInit", session, ctypes.byref(row), 1)
        try:
            self.must("C_FindObjects", session, found, _OBJECTS_MAX, ctypes.byref(count))
        finally:
            self.call("C_FindObjectsFinal", session)
        return [int(found[place]) for place in range(count.value)]

    def attribute(self, session: int, handle: int, kind: int) -> bytes | None:
        """The value of an attribute (CKA_*); None for one that the object does not have, or does not show."""
        row = _Attribute(kind, None, 0)
        code = self.call("C_GetAttributeValue", session, handle, ctypes.byref(row), 1)
        if code != "CKR_OK" or row.length == NONE:
            return None
        room = ctypes.create_string_buffer(row.length or 1)
        row.value = ctypes.addressof(room)
        self.must("C_GetAttributeValue", session, handle, ctypes.byref(row), 1)
        return room.raw[: row.length]

    def sign_init(self, session: int, key: int, mechanism: int, pss: PssParameters | None = None) -> str:
        wanted = Mechanism(mechanism, None, 0)
        if pss is not None:
            wanted.parameter, wanted.length = ctypes.addressof(pss), ctypes.sizeof(pss)
        return self.call("C_SignInit", session, ctypes.byref(wanted), key)

    def sign(self, session: int, data: bytes, room: int = 1024) -> tuple[str, bytes]:
        """The code, and what stands in the buffer of `room` bytes."""
        out, length = ctypes.create_string_buffer(max(1, room)), ULONG(room)
        code = self.call("C_Sign", session, data, len(data), out, ctypes.byref(length))
        return code, out.raw[: length.value] if code == "CKR_OK" else b""
