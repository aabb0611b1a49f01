"""What a PKCS#11 return code from a signature means for the item, and for the session it came from: one table."""

from collections.abc import Mapping
from enum import Enum


class Meaning(Enum):
    REQUEST = "the token refuses this request; the session is good for the next"
    MAYBE_SIGNED = "the token may have made the signature that it did not hand over; the session is lost"
    SESSION = "nothing was signed; the session is lost, and another one can do it"


# What C_Sign answers. A code that is not here, a vendor's own above all, is MAYBE_SIGNED: nothing is signed twice because
# we did not know a word.
TABLE: Mapping[str, Meaning] = {
    "CKR_DATA_INVALID": Meaning.REQUEST,
    "CKR_DATA_LEN_RANGE": Meaning.REQUEST,
    "CKR_KEY_FUNCTION_NOT_PERMITTED": Meaning.REQUEST,
    "CKR_KEY_SIZE_RANGE": Meaning.REQUEST,
    "CKR_KEY_TYPE_INCONSISTENT": Meaning.REQUEST,
    "CKR_MECHANISM_INVALID": Meaning.REQUEST,
    "CKR_MECHANISM_PARAM_INVALID": Meaning.REQUEST,
    "CKR_ARGUMENTS_BAD": Meaning.SESSION,
    "CKR_BUFFER_TOO_SMALL": Meaning.SESSION,
    "CKR_CRYPTOKI_NOT_INITIALIZED": Meaning.SESSION,
    "CKR_DEVICE_MEMORY": Meaning.SESSION,  # the token had not the memory to perform it (PKCS#11 v3.1, 5.1.2)
    "CKR_KEY_HANDLE_INVALID": Meaning.SESSION,
    "CKR_OBJECT_HANDLE_INVALID": Meaning.SESSION,
    "CKR_OPERATION_ACTIVE": Meaning.SESSION,
    "CKR_OPERATION_NOT_INITIALIZED": Meaning.SESSION,
    "CKR_SESSION_CLOSED": Meaning.SESSION,
    "CKR_SESSION_COUNT": Meaning.SESSION,
    "CKR_SESSION_HANDLE_INVALID": Meaning.SESSION,
    "CKR_USER_NOT_LOGGED_IN": Meaning.SESSION,
    "CKR_DEVICE_ERROR": Meaning.MAYBE_SIGNED,
    "CKR_DEVICE_REMOVED": Meaning.MAYBE_SIGNED,
    "CKR_FUNCTION_FAILED": Meaning.MAYBE_SIGNED,
    "CKR_GENERAL_ERROR": Meaning.MAYBE_SIGNED,
    "CKR_HOST_MEMORY": Meaning.MAYBE_SIGNED,
    "CKR_TOKEN_NOT_PRESENT": Meaning.MAYBE_SIGNED,
}
# Of what there was too little, by the code that says so: the reason (errors.REASONS). WORKER_LIMIT is no code of PKCS#11:
# a lane says it of itself in the place of whatever a driver answers that has run into the process's limits.
SHORTAGES: Mapping[str, str] = {
    "CKR_SESSION_COUNT": "TOKEN_SESSIONS",
    "CKR_DEVICE_MEMORY": "TOKEN_SESSIONS",
    "CKR_HOST_MEMORY": "WORKER_LIMIT",
    "WORKER_LIMIT": "WORKER_LIMIT",
}
# What PC/SC says, not the module: the card was pulled, also if one is back; nothing of pcscd answers. No fault of the lane.
CARD_GONE, PCSC_DOWN = "CARD_GONE", "PCSC_DOWN"
REMOVED = frozenset({"CKR_DEVICE_REMOVED", "CKR_TOKEN_NOT_PRESENT", CARD_GONE})
# The same of C_Login, which is called in a session that was good a moment ago: it ends with its token (v3.1, 5.1.2).
REMOVED_BEFORE = frozenset({"CKR_SESSION_CLOSED", "CKR_SESSION_HANDLE_INVALID"})
# What C_Login answers, by what became of the PIN. Any other code says nothing: the try may be spent.
PIN_REFUSED = frozenset(
    {"CKR_PIN_INCORRECT", "CKR_PIN_INVALID", "CKR_PIN_LEN_RANGE", "CKR_PIN_EXPIRED", "CKR_PIN_LOCKED"}
)
PIN_NOT_CHECKED = frozenset(
    {
        "CKR_USER_ALREADY_LOGGED_IN",
        "CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
        "CKR_ANOTHER_USER_ALREADY_LOGGED_IN",  # python-pkcs11's word for the same
        "CKR_USER_TOO_MANY_TYPES",
    }
)


# C_SignInit signs nothing: what it answers is about the request or about the session.
INIT_REQUEST = frozenset(
    {
        *(code for code, what in TABLE.items() if what is Meaning.REQUEST),
        "CKR_ACTION_PROHIBITED",
        "CKR_ARGUMENTS_BAD",
        "CKR_FUNCTION_NOT_SUPPORTED",
    }
)


def meaning(code: str, *, begun: bool = True) -> Meaning:
    """`begun`: C_Sign answered, or it is not known which function did; otherwise it was C_SignInit."""
    if not begun:
        return Meaning.REQUEST if code in INIT_REQUEST else Meaning.SESSION
    return TABLE.get(code, Meaning.MAYBE_SIGNED)


def shortage(problem: str) -> str:
    """The reason for how a lane or a call ended, where that was for want of something; '' for any other end."""
    return next((reason for code, reason in SHORTAGES.items() if code in problem), "")


# PKCS#11 v3.1, pkcs11t.h: the return codes that C_Login, C_SignInit and C_Sign may give, and a few that drivers do give.
NAMES: Mapping[int, str] = {
    0x1: "CKR_CANCEL",
    0x2: "CKR_HOST_MEMORY",
    0x3: "CKR_SLOT_ID_INVALID",
    0x5: "CKR_GENERAL_ERROR",
    0x6: "CKR_FUNCTION_FAILED",
    0x7: "CKR_ARGUMENTS_BAD",
    0x1B: "CKR_ACTION_PROHIBITED",
    0x20: "CKR_DATA_INVALID",
    0x21: "CKR_DATA_LEN_RANGE",
    0x30: "CKR_DEVICE_ERROR",
    0x31: "CKR_DEVICE_MEMORY",
    0x32: "CKR_DEVICE_REMOVED",
    0x50: "CKR_FUNCTION_CANCELLED",
    0x54: "CKR_FUNCTION_NOT_SUPPORTED",
    0x60: "CKR_KEY_HANDLE_INVALID",
    0x62: "CKR_KEY_SIZE_RANGE",
    0x63: "CKR_KEY_TYPE_INCONSISTENT",
    0x68: "CKR_KEY_FUNCTION_NOT_PERMITTED",
    0x70: "CKR_MECHANISM_INVALID",
    0x71: "CKR_MECHANISM_PARAM_INVALID",
    0x82: "CKR_OBJECT_HANDLE_INVALID",
    0x90: "CKR_OPERATION_ACTIVE",
    0x91: "CKR_OPERATION_NOT_INITIALIZED",
    0xA0: "CKR_PIN_INCORRECT",
    0xA1: "CKR_PIN_INVALID",
    0xA2: "CKR_PIN_LEN_RANGE",
    0xA3: "CKR_PIN_EXPIRED",
    0xA4: "CKR_PIN_LOCKED",
    0xB0: "CKR_SESSION_CLOSED",
    0xB1: "CKR_SESSION_COUNT",
    0xB3: "CKR_SESSION_HANDLE_INVALID",
    0xE0: "CKR_TOKEN_NOT_PRESENT",
    0xE1: "CKR_TOKEN_NOT_RECOGNISED",
    0x100: "CKR_USER_ALREADY_LOGGED_IN",
    0x101: "CKR_USER_NOT_LOGGED_IN",
    0x102: "CKR_USER_PIN_NOT_INITIALIZED",
    0x103: "CKR_USER_TYPE_INVALID",
    0x104: "CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
    0x105: "CKR_USER_TOO_MANY_TYPES",
    0x150: "CKR_BUFFER_TOO_SMALL",
    0x190: "CKR_CRYPTOKI_NOT_INITIALIZED",
    0x200: "CKR_FUNCTION_REJECTED",
}


def name_of(code: int) -> str:
    return NAMES.get(code, f"CKR_{code:#x}")
