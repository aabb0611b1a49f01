"""
C_SignInit, C_Sign and C_Login without a layer between: called by the function list of the module that python-pkcs11
loaded.

python-pkcs11 asks for the signature's length before each signature and allocates anew; here the token writes into the
result page itself. Both ways are the same to the worker (`worker.by_library` is the other): for a key and an algorithm
a function from data and an address with `SIGNATURE_BYTES_MAX` of room to the signature's length, which raises `Refused`
with the name of the return code, and `WrongSignature` for a length that no signature has. A test holds them against each other.

python-pkcs11 opens a session for each login. A PIN belongs into the session that has shown the token's keys: it ends when
its token is taken out (PKCS#11 v3.1, 5.1.2), so that no other token can hear the PIN.

A key that is always authenticated (CKA_ALWAYS_AUTHENTICATE) wants C_Login as CKU_CONTEXT_SPECIFIC between the two
calls, for each signature (PKCS#11 v3.1, 5.6.8): such a function is given the PIN.

Some modules make their function list anew at each call (p11-kit-client). There the list seen here would not be the one
python-pkcs11 uses, so python-pkcs11's own way stays, for logins as well; `loaded` says which it is.
"""

import ctypes
import mmap
from collections.abc import Callable
from functools import cache
from typing import Any

from pool.codes import name_of
from pool.mechanism import CKG_MGF1, CKM, CKM_HASH, DIGEST_BYTES, Algorithm, Scheme, WrongSignature
from pool.wire import SIGNATURE_BYTES_MAX

_ULONG = ctypes.c_ulong
_ULONG_BYTES = ctypes.sizeof(_ULONG)
# Places in CK_FUNCTION_LIST (PKCS#11 v2.40, 3.6: pkcs11f.h); place 0 is the version, padded to a pointer.
_C_GET_SLOT_INFO, _C_LOGIN, _C_LOGOUT, _C_SIGN_INIT, _C_SIGN = 6, 19, 20, 43, 44
_CKF_TOKEN_PRESENT, _CKF_REMOVABLE_DEVICE = 0x1, 0x2
_CKR_OK = 0
_CKU_USER, _CKU_CONTEXT_SPECIFIC = 1, 2

Sign = Callable[[bytes, ctypes.c_void_p], int]
Signer = Callable[[Any, Algorithm, str | None], Sign]


class Refused(Exception):
    """
    The token answered with a return code that is not CKR_OK; `code` is its name. `begun` is False where C_SignInit said
    it, or the login after it, so that nothing can have been signed.
    """

    def __init__(self, code: str, *, begun: bool = True) -> None:
        self.code = code
        self.begun = begun
        super().__init__(code)


class _Mechanism(ctypes.Structure):
    _fields_ = (("mechanism", _ULONG), ("parameter", ctypes.c_void_p), ("length", _ULONG))


class _PssParameters(ctypes.Structure):
    _fields_ = (("hash", _ULONG), ("mgf", _ULONG), ("salt_bytes", _ULONG))


class _SlotInfo(ctypes.Structure):
    _fields_ = (("texts", ctypes.c_char * 96), ("flags", _ULONG), ("versions", ctypes.c_ubyte * 4))


_SLOT_INFO = ctypes.CFUNCTYPE(_ULONG, _ULONG, ctypes.c_void_p)
_KEPT: dict[int, Any] = {}  # entry of a function list -> what it leads to


class Cryptoki:
    """The functions of a module, by the address of its function list; `session` is always python-pkcs11's."""

    def __init__(self, functions: int) -> None:
        places = ctypes.cast(functions, ctypes.POINTER(ctypes.c_void_p))
        # PYFUNCTYPE keeps the interpreter's lock: a lane has one thread, and whoever ends it does so from outside.
        self._slot_info = ctypes.PYFUNCTYPE(_ULONG, _ULONG, ctypes.c_void_p)(places[_C_GET_SLOT_INFO])
        self._login = ctypes.PYFUNCTYPE(_ULONG, _ULONG, _ULONG, ctypes.c_char_p, _ULONG)(places[_C_LOGIN])
        self._logout = ctypes.PYFUNCTYPE(_ULONG, _ULONG)(places[_C_LOGOUT])
        # Without the types of their arguments, which would be converted at each call: they are given C's own values, made
        # once (`signer`). A number of Python's would pass as a C int.
        self._sign_init = ctypes.PYFUNCTYPE(_ULONG)(places[_C_SIGN_INIT])
        self._sign = ctypes.PYFUNCTYPE(_ULONG)(places[_C_SIGN])

    def is_empty(self, slot: int) -> bool:
        """
        Whether the module says that the token was taken out of the slot. OpenSC looks at the reader only when it is asked
        for the slot; of the token it tells what it knew before.
        """
        info = _SlotInfo()
        code = self._slot_info(slot, ctypes.addressof(info))
        removable = bool(info.flags & _CKF_REMOVABLE_DEVICE)
        return code == _CKR_OK and removable and not info.flags & _CKF_TOKEN_PRESENT

    def log_in(self, session: Any, pin: str | None) -> str:
        """The user's login in this very session, None for a PIN that is typed at the reader: '' or the code's name."""
        value = None if pin is None else pin.encode()
        code = self._login(session.handle, _CKU_USER, value, len(value or b""))
        return "" if code == _CKR_OK else name_of(code)

    def log_out(self, session: Any) -> None:
        """Whatever it answers: C_Finalize comes next."""
        self._logout(session.handle)

    def signer(self, session: Any) -> Signer:
        """Signing in this session."""
        sign_init, c_sign, c_login, handle = self._sign_init, self._sign, self._login, _ULONG(session.handle)
        # The lengths of what goes in and of what comes out, as C sees them; a view is the quickest way to read and write.
        lengths = (_ULONG * 2)()
        length = memoryview(lengths).cast("B").cast("L")
        data_bytes, at_room = _ULONG.from_buffer(lengths), ctypes.c_void_p(ctypes.addressof(lengths) + _ULONG_BYTES)

        def log_in_after(pin: bytes) -> Callable[[Any, Any, Any], int]:
            def begin(handle: Any, mechanism: Any, key_handle: Any) -> int:
                code: int = sign_init(handle, mechanism, key_handle)
                return code or c_login(handle, _CKU_CONTEXT_SPECIFIC, pin, len(pin))

            return begin

        def signer(key: Any, algorithm: Algorithm, pin: str | None = None) -> Sign:
            mechanism, key_handle = ctypes.c_void_p(_mechanism(algorithm)[0]), _ULONG(key.handle)
            begin = sign_init if pin is None else log_in_after(pin.encode())

            def sign(data: bytes, address: ctypes.c_void_p) -> int:
                code = begin(handle, mechanism, key_handle)
                if code != _CKR_OK:
                    raise Refused(name_of(code), begun=False)
                length[0], length[1] = len(data), SIGNATURE_BYTES_MAX
                code = c_sign(handle, data, data_bytes, address, at_room)
                if code != _CKR_OK:
                    raise Refused(name_of(code))
                signature_bytes = length[1]
                if not 0 < signature_bytes <= SIGNATURE_BYTES_MAX:
                    raise WrongSignature
                return signature_bytes

            return sign

        return signer


def loaded(module: str) -> Cryptoki | None:
    """The functions of a module that this process has loaded; None where its function list does not stay."""
    library = ctypes.CDLL(module)  # the loader answers with the copy that is already there
    lists = [_function_list(library), _function_list(library)]
    return None if lists[0] is None or lists[0] != lists[1] else Cryptoki(lists[0])


def overlook_slots(module: str) -> bool:
    """
    Have C_GetSlotInfo of a module that this process has loaded answer for a slot of which it can say nothing, too: with
    zeros. python-pkcs11 gives up a whole listing at the first such slot, and makes slots in no other way. What is written to
    is the module's own function list, whose layout is the standard's; False where it does not stay, or may not be written to.
    """
    library = ctypes.CDLL(module)
    functions = _function_list(library)
    if functions is None or functions != _function_list(library):
        return False
    place = functions + _C_GET_SLOT_INFO * ctypes.sizeof(ctypes.c_void_p)
    pointer = ctypes.c_void_p.from_address(place)
    if place in _KEPT:  # a listing can fail for other reasons, at each look: one behind the other they would grow
        return True
    real = _SLOT_INFO(pointer.value or 0)

    def slot_info(slot: int, info: int) -> int:
        if real(slot, info) != _CKR_OK:
            ctypes.memset(info, 0, ctypes.sizeof(_SlotInfo))
        return _CKR_OK

    try:
        lenient = _SLOT_INFO(slot_info)
    except MemoryError:  # no memory may be written and run here, and libffi has no other way
        return False
    if ctypes.CDLL(None).mprotect(
        ctypes.c_void_p(place & -mmap.PAGESIZE), mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE
    ):
        return False  # constant data cannot be written to before
    _KEPT[place] = lenient
    pointer.value = ctypes.cast(lenient, ctypes.c_void_p).value
    return True


def _function_list(library: ctypes.CDLL) -> int | None:
    pointer = ctypes.c_void_p()
    if library.C_GetFunctionList(ctypes.byref(pointer)) != _CKR_OK:
        return None
    return pointer.value


@cache
def _mechanism(algorithm: Algorithm) -> tuple[int, Any]:
    """The address of a CK_MECHANISM, and what must be kept alive for it."""
    mechanism, parameters = _Mechanism(CKM[algorithm.scheme], None, 0), None
    if algorithm.scheme is Scheme.RSA_PSS:
        assert algorithm.hash is not None
        hash_ = algorithm.hash
        parameters = _PssParameters(CKM_HASH[hash_], CKG_MGF1[hash_], DIGEST_BYTES[hash_])
        mechanism.parameter = ctypes.addressof(parameters)
        mechanism.length = ctypes.sizeof(parameters)
    return ctypes.addressof(mechanism), (mechanism, parameters)
