"""What a person is told where the daemon refuses: its reasons (proto/README.md) in the portal's words."""

import math
from collections.abc import Mapping

from portal_adapter.language import msgid
from portal_adapter.refusal import FieldError, Refusal, guard, invalid
from signer.client import ServiceError

SENT = "A code was sent a moment ago. Look for it before you ask for another."
OFTEN = msgid("Several codes were sent in the last minutes. Look for the newest of them, or wait.")
# How many tries are left the daemon does not say.
WRONG_CODES = "The secret code or the one-time code is not right. After a few more wrong tries nothing is looked at for 15 minutes or longer."

# A code field's mistake: reason -> (field, message). That there is no such product is told as a wrong code.
_CODES: Mapping[str, tuple[str, str]] = {
    "OTP_INCORRECT": ("secret_code", WRONG_CODES),
    "CREDENTIAL_UNKNOWN": ("secret_code", WRONG_CODES),
    "OTP_USED": ("otp", "This one-time code was used before. Wait for the next one."),
    "OTP_EXPIRED": ("otp", "This one-time code has expired, or was sent for something else. Ask for a new one."),
    "CODE_RULES": ("secret_code", "A secret code has 8 to 64 characters, not all the same."),
    "CODE_WEAK": (
        "secret_code",
        "This is easy to guess. Choose one without your name, and without a word, a date or a row of keys alone.",
    ),
    "ENROLMENT_UNKNOWN": ("enrolment", "There is no such enrolment code, or its time is over."),
}
# Which of two codes was wrong is not told; what becomes of the one-time code is: gate -> message.
_WRONG_AT: Mapping[str, str] = {
    "code+sent-otp": msgid(
        "The secret code or the one-time code is not right. The one-time code that was sent to you is not used up: you can type it again. After a few more wrong tries nothing is looked at for 15 minutes or longer."
    ),
    "code+totp": msgid(
        "The secret code or the one-time code is not right. The one-time code is not used up: you can type it again as long as it is shown. After a few more wrong tries nothing is looked at for 15 minutes or longer."
    ),
    "code+hotp": msgid(
        "The secret code or the one-time code is not right. If the one-time code was right, it is used up: have your device make another one. After a few more wrong tries nothing is looked at for 15 minutes or longer."
    ),
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
    "CREDENTIAL_CHANGED": "This product has another certificate now. Go back, and begin again.",
}
_NOT_ALLOWED = "RPC_NOT_ALLOWED"  # what the window may not ask for
_LATER: Mapping[str, str] = {
    "OTP_LOCKED": "Too many wrong codes were typed. Nothing more is looked at for a while. Whoever issued your product can unlock it sooner.",
    "OTP_SENT": SENT,
}

_PINS: Mapping[str, str] = {
    "PIN_INCORRECT": "The PIN is not right.",
    "PIN_UNCLEAR": "Your card or stick did not say whether the PIN is right; it counts as a try. Make sure of it before the next.",
}
# A person's own token: what a person mends at it, and then tries again.
_AT_TOKEN: Mapping[str, tuple[str, str]] = {
    "TOKEN_ABSENT": ("token-absent", "Your card or stick is not there. Put it in, and try again."),
    "TOKEN_REMOVED": ("token-absent", "Your card or stick was taken out. Put it in again, and sign once more."),
    "KEY_UNKNOWN": ("token-absent", "The card or stick with this certificate is not there. Put it in, and try again."),
    "TOKEN_CHANGED": ("token-changed", "Another card or stick is in this place. Put yours in, and try again."),
    "TOKEN_STARTING": ("token-starting", "Your card or stick is being opened. Try again in a moment."),
    "TOKEN_BUSY": ("token-busy", "Somebody else is using this reader now. Try again in a moment."),
    "TOKEN_TIMEOUT": ("token-timeout", "Your card or stick has not answered in time. Please try again."),
    "PIN_AT_PAD": ("pin-at-pad", "The PIN of this card is typed at its reader. Open this page again."),
}
# ... and what nobody mends here.
_TOKEN_FINAL: Mapping[str, str] = {
    "PIN_LOCKED": "Your card or stick is locked, because its PIN was wrong too often. Nothing more is sent to it. Whoever issued it can unlock it.",
    "PIN_FINAL_TRY_GUARD": "One more wrong PIN could lock your card or stick for good, so that none is sent from here. Whoever issued it can help.",
    "TOKEN_QUARANTINED": "Your card or stick has made a wrong signature, and is not used any more. Whoever runs the service can help.",
}


def of_token(error: ServiceError) -> Refusal:
    """The same where a person signs with her own token."""
    reason = error.reason.lower().replace("_", "-")
    if error.reason == "PIN_INCORRECT" and error.tries_left is not None:
        mistake = FieldError("pin", reason, "The PIN is not right. Tries left: {number}.", {"number": error.tries_left})
        return Refusal("validation", errors=[mistake], reason=reason)
    if error.reason in _PINS:
        return invalid("pin", reason, _PINS[error.reason])
    if (found := _AT_TOKEN.get(error.reason)) is not None:
        return guard(*found)
    if (said := _TOKEN_FINAL.get(error.reason)) is not None:
        return guard(reason, said)
    return refusal(error)


def of_codes(error: ServiceError, gate: str) -> Refusal:
    """The same where it is known where her one-time codes come from."""
    if error.reason == "OTP_INCORRECT" and (said := _WRONG_AT.get(gate)) is not None:
        mistake = FieldError("secret_code", "otp_incorrect", said)
        return Refusal("validation", errors=[mistake], reason="wrong-code")
    return refusal(error)


def is_final(error: ServiceError) -> bool:
    """Whether typing again helps nobody, now or later."""
    return error.reason in _FINAL or error.reason in _TOKEN_FINAL or error.reason == _NOT_ALLOWED


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
    return trouble(error)


def trouble(error: ServiceError) -> Refusal:
    """The service's own, whatever it calls it; what the window may not ask for no waiting mends."""
    if error.reason == _NOT_ALLOWED:
        message = "The signing service does not accept the portal’s request. Nothing was changed. Whoever runs the portal has to look at it."
        return Refusal("signer-unavailable", message, reason=error.reason)
    message = "The signing service cannot be reached just now. Nothing was lost: please try again."
    return Refusal("signer-unavailable", message, reason=error.reason, retry_after_s=math.ceil(error.retry_s or 5.0))
