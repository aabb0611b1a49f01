"""What a PKCS#11 return code from a signature means for the item, and for the session it came from: one table."""

from collections.abc import Mapping
from enum import Enum


class Meaning(Enum):
    REQUEST = "the token refuses this request; the session is good for the next"
    MAYBE_SIGNED = "the token may have made the signature that it did not hand over; the session is lost"
    SESSION = "nothing was signed; the session is lost, and another one can do it"


# A code that is not here is SESSION: the lane is replaced, and a code that keeps coming back opens the breaker.
TABLE: Mapping[str, Meaning] = {
    "CKR_DATA_INVALID": Meaning.REQUEST,
    "CKR_DATA_LEN_RANGE": Meaning.REQUEST,
    "CKR_KEY_FUNCTION_NOT_PERMITTED": Meaning.REQUEST,
    "CKR_KEY_SIZE_RANGE": Meaning.REQUEST,
    "CKR_KEY_TYPE_INCONSISTENT": Meaning.REQUEST,
    "CKR_MECHANISM_INVALID": Meaning.REQUEST,
    "CKR_MECHANISM_PARAM_INVALID": Meaning.REQUEST,
    "CKR_DEVICE_ERROR": Meaning.MAYBE_SIGNED,
    "CKR_DEVICE_MEMORY": Meaning.MAYBE_SIGNED,
    "CKR_DEVICE_REMOVED": Meaning.MAYBE_SIGNED,
    "CKR_FUNCTION_FAILED": Meaning.MAYBE_SIGNED,
    "CKR_GENERAL_ERROR": Meaning.MAYBE_SIGNED,
    "CKR_HOST_MEMORY": Meaning.MAYBE_SIGNED,
    "CKR_TOKEN_NOT_PRESENT": Meaning.MAYBE_SIGNED,
}
REMOVED = frozenset({"CKR_DEVICE_REMOVED", "CKR_TOKEN_NOT_PRESENT"})


def meaning(code: str) -> Meaning:
    return TABLE.get(code, Meaning.SESSION)
