"""What a person is told where the daemon refuses: its reasons (proto/README.md) in the portal's words."""

import math
from collections.abc import Mapping

from portal_adapter.refusal import FieldError, Refusal, guard, invalid
from signer.client import ServiceError

SENT = "A code was sent a moment ago. Look for it before you ask for another."
WRONG_CODES = "The secret code or the one-time code is not right."

# A code field's mistake: reason -> (field, message). That there is no such product is told as a wrong code.
_CODES: Mapping[str, tuple[str, str]] = {
    "OTP_INCORRECT": ("secret_code", WRONG_CODES),
    "CREDENTIAL_UNKNOWN": ("secret_code", WRONG_CODES),
    "OTP_USED": ("otp", "This one-time code was used before. Wait for the next one."),
    "OTP_EXPIRED": ("otp", "This one-time code has expired, or was sent for something else. Ask for a new one."),
    "CODE_RULES": ("secret_code", "A secret code has 6 to 64 characters, not all the same."),
    "ENROLMENT_UNKNOWN": ("enrolment", "There is no such enrolment code, or its time is over."),
}
# What typing codes again cannot mend: reason -> message.
_FINAL: Mapping[str, str] = {
    "CREDENTIAL_SUSPENDED": "This product is suspended. Ask whoever issued it.",
    "SUBJECT_SUSPENDED": "This product is suspended. Ask whoever issued it.",
    "CREDENTIAL_PENDING": "This product is not set up yet. You have been sent an enrolment code for that.",
    "CERT_EXPIRED": "This product has expired. Ask its issuer for a new one.",
    "CERT_NOT_YET_VALID": "This product is not valid yet.",
    "CERT_REVOKED": "This product was revoked. Ask its issuer for a new one.",
    "CERT_UNTRUSTED": "This product is not from an issuer that is accepted here.",
    "OUT_OF_HOURS": "This product cannot be used at this hour.",
    "GATE_MISMATCH": "This product does not work with these codes. Ask whoever issued it.",
}
_LATER: Mapping[str, str] = {
    "OTP_LOCKED": "Too many wrong codes were typed. Nothing more is looked at for a while.",
    "OTP_SENT": SENT,
}


def refusal(error: ServiceError) -> Refusal:
    """An unknown reason, or none, is the service's trouble: nothing was done, and the same may be tried again."""
    if (found := _CODES.get(error.reason)) is not None:
        field, message = found
        return Refusal("validation", errors=[FieldError(field, error.reason.lower(), message)], reason="wrong-code")
    if error.reason == "CERT_USAGE":
        message = "This product number is for signing. Log in with the authentication certificate of your product."
        return invalid("credential", "wrong-certificate-usage", message)
    if (said := _FINAL.get(error.reason)) is not None:
        return guard(error.reason.lower().replace("_", "-"), said)
    if (said := _LATER.get(error.reason)) is not None:
        return Refusal(
            "rate-limited", said, reason=error.reason.lower(), retry_after_s=math.ceil(error.retry_s or 1.0)
        )  # fmt: skip
    message = "The signing service cannot be reached just now. Nothing was lost: please try again."
    return Refusal("signer-unavailable", message, reason=error.reason, retry_after_s=math.ceil(error.retry_s or 5.0))
