"""
What a caller is told when nothing of a call was attempted, and the one table of the gRPC status that each reason has.

    Refusal            reason, message, and perhaps `retry_s`

There is one class and a table, because callers act on the reason: the gRPC code follows from it, and so does whether
sending the same again can help. What is not a `Refusal` or an error of the pool is ours: INTERNAL, with no word of it
outside.
"""

from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from pool import REASONS as POOL_REASONS
from pool import BadRequest, Busy, PinRefused, PoolError, Unavailable

DOMAIN = "paraph"
Code = grpc.StatusCode

# reason -> (code, what it means and what to do). The pool's sentences are its own.
TABLE: Mapping[str, tuple[grpc.StatusCode, str]] = {
    "CALLER_UNKNOWN": (Code.UNAUTHENTICATED, "The client certificate names no configured caller by exactly one URI."),
    "CALLER_EXPIRED": (Code.UNAUTHENTICATED, "The client certificate has expired; renew it."),
    "CALLER_REVOKED": (Code.UNAUTHENTICATED, "The client certificate is on the deny-list."),
    "RPC_NOT_ALLOWED": (Code.PERMISSION_DENIED, "The caller's allow-list does not have this call."),
    "CREDENTIAL_UNKNOWN": (Code.NOT_FOUND, "There is no such credential for this caller."),
    "OUTPUT_NOT_ALLOWED": (Code.FAILED_PRECONDITION, "The credential does not make this output."),
    "CREDENTIAL_SUSPENDED": (Code.FAILED_PRECONDITION, "The credential is suspended; ask the operator."),
    "CERT_EXPIRED": (Code.FAILED_PRECONDITION, "The credential's certificate has expired; renew it."),
    "CERT_NOT_YET_VALID": (Code.FAILED_PRECONDITION, "The credential's certificate is not valid yet."),
    "CERT_REVOKED": (Code.FAILED_PRECONDITION, "The credential's certificate is revoked by its CA; get another one."),
    "CERT_UNTRUSTED": (Code.FAILED_PRECONDITION, "The credential's certificate leads to no configured root."),
    "CERT_USAGE": (Code.FAILED_PRECONDITION, "The credential's certificate is not for signatures (keyUsage)."),
    "CREDENTIAL_PENDING": (Code.FAILED_PRECONDITION, "The person has not completed the enrolment yet."),
    "OUT_OF_HOURS": (Code.FAILED_PRECONDITION, "The credential's policy does not allow it at this hour."),
    "NOT_SEEN": (
        Code.FAILED_PRECONDITION,
        "The person's credential signs only documents that the service has seen; send them with OpenBatch.",
    ),
    "TEXT_NOT_SEEN": (
        Code.FAILED_PRECONDITION,
        "The person would sign a reason or a location that nobody shows to her; leave both empty.",
    ),
    "AUTHZ_MISSING": (Code.PERMISSION_DENIED, "The credential is a person's: it signs with an authorisation only."),
    "AUTHZ_UNKNOWN": (Code.PERMISSION_DENIED, "There is no such authorisation; ask for a new one."),
    "AUTHZ_CALLER": (Code.PERMISSION_DENIED, "The authorisation is another caller's to redeem."),
    "AUTHZ_KEY": (Code.PERMISSION_DENIED, "The authorisation is for another credential or key."),
    "AUTHZ_OUTPUT": (Code.PERMISSION_DENIED, "The authorisation is for another output or algorithm."),
    "AUTHZ_COUNT": (Code.PERMISSION_DENIED, "That is not the number of items that was, or may be, authorised."),
    "AUTHZ_DIGEST": (Code.PERMISSION_DENIED, "What is to be signed is not what was authorised."),
    "AUTHZ_USED": (Code.PERMISSION_DENIED, "The authorisation was redeemed by another request."),
    "AUTHZ_EXPIRED": (Code.PERMISSION_DENIED, "The authorisation has expired; ask for a new one."),
    "OTP_INCORRECT": (Code.PERMISSION_DENIED, "The secret code or the one-time code is not right."),
    "OTP_USED": (Code.PERMISSION_DENIED, "The one-time code was used before; wait for the next one."),
    "OTP_EXPIRED": (Code.PERMISSION_DENIED, "The one-time code has expired or was sent for something else."),
    "OTP_LOCKED": (Code.PERMISSION_DENIED, "Too many wrong codes; try again later, or have the operator unlock it."),
    "OTP_SENT": (Code.RESOURCE_EXHAUSTED, "A one-time code was sent just now; look for it before asking for another."),
    "NONCE_LENGTH": (Code.INVALID_ARGUMENT, "A login names its audience, and a nonce of 16 to 64 bytes."),
    "CODE_RULES": (Code.INVALID_ARGUMENT, "The secret code has 8 to 64 characters, not all the same."),
    "CODE_WEAK": (
        Code.INVALID_ARGUMENT,
        "The secret code is easy to guess; choose one without names, words, dates or rows of keys.",
    ),
    "SOURCE_INVALID": (
        Code.INVALID_ARGUMENT,
        "source is the IP address that the person is at, without a port, or empty.",
    ),
    "CODES_FAILED": (Code.UNAVAILABLE, "The process that checks codes was lost; try again."),
    "CODES_BUSY": (Code.RESOURCE_EXHAUSTED, "Too many codes are being checked; try again."),
    "BATCH_UNKNOWN": (Code.NOT_FOUND, "There is no such batch of this caller, or its time is over."),
    "BATCH_STATE": (Code.FAILED_PRECONDITION, "The batch is not in a state for this; GetBatch shows it."),
    "TOO_MANY_BATCHES": (
        Code.RESOURCE_EXHAUSTED,
        "The caller has 5 000 batches open, or 500 000 items in those that are not erased yet; finish some, or wait.",
    ),
    "TOO_MANY_FOR_PERSON": (
        Code.RESOURCE_EXHAUSTED,
        "30 of the caller's batches wait for this person; have her sign some, or cancel them.",
    ),
    "SUBJECT_INVALID": (Code.INVALID_ARGUMENT, "The subject cannot be stored so."),
    "SUBJECT_UNKNOWN": (Code.NOT_FOUND, "There is no such subject."),
    "SUBJECT_SUSPENDED": (Code.FAILED_PRECONDITION, "The subject is suspended or not enrolled; ask the operator."),
    "CONTACT_INVALID": (Code.INVALID_ARGUMENT, "The contact cannot be used."),
    "CONTACT_UNREACHABLE": (Code.UNAVAILABLE, "No message can be sent to the person's contact now; ask the operator."),
    "ENROLMENT_UNKNOWN": (Code.NOT_FOUND, "There is no such enrolment, or its time is over; ask the operator."),
    "PEOPLE_NOT_SERVED": (Code.FAILED_PRECONDITION, "The configuration has no [people] section."),
    "GATE_MISMATCH": (Code.FAILED_PRECONDITION, "The credential's gate does not work that way."),
    "CREDENTIAL_INVALID": (Code.INVALID_ARGUMENT, "The credential cannot be stored."),
    "CLOCK_UNSAFE": (
        Code.FAILED_PRECONDITION,
        "The system's clock was set, so nothing new is authorised until an operator has confirmed it.",
    ),
    "REQUEST_ID_INVALID": (Code.INVALID_ARGUMENT, "request_id is a UUID in its usual form."),
    "OUTPUT_MISSING": (Code.INVALID_ARGUMENT, "Name the output: RAW, CADES_B_B or PADES_B_B."),
    "ALGORITHM_MISSING": (Code.INVALID_ARGUMENT, "Name the digest and the signature algorithm; neither is defaulted."),
    "REQUEST_UNKNOWN": (Code.NOT_FOUND, "There is no such request of this caller."),
    "IDEMPOTENCY_MISMATCH": (
        Code.INVALID_ARGUMENT,
        "The request_id was used for another request; send the same, or take a new one.",
    ),
    "REQUEST_BURNT": (
        Code.FAILED_PRECONDITION,
        "The request_id is from before a restore, and nobody knows whether it was signed; find out, then take a new one.",
    ),
    "CREDENTIAL_CHANGED": (
        Code.FAILED_PRECONDITION,
        "The credential has another certificate than when this request was signed; GetResult has its answer.",
    ),
    "NOT_THE_SAME": (
        Code.FAILED_PRECONDITION,
        "The document is not prepared as it was when it was signed; send it with a new request_id.",
    ),
    "PAGE_TOKEN_UNKNOWN": (
        Code.INVALID_ARGUMENT,
        "page_token is the next_page_token of this caller's last answer, or empty for the first page.",
    ),
    "CERTIFICATE_INVALID": (Code.INVALID_ARGUMENT, "A certificate is given in DER, or as its SHA-256 in 32 bytes."),
    "CRC_MISMATCH": (Code.INVALID_ARGUMENT, "crc32c is not that of the bytes received; send them again."),
    "STRING_TOO_LONG": (Code.INVALID_ARGUMENT, "A text has at most 255 characters, and no control characters."),
    "MESSAGE_TOO_LARGE": (Code.INVALID_ARGUMENT, "A message has at most 1 MiB; use StreamDigests for more."),
    "MESSAGE_MALFORMED": (Code.INVALID_ARGUMENT, "The bytes are no message of this RPC; compare the .proto files."),
    "METADATA_TOO_LARGE": (Code.INVALID_ARGUMENT, "A call has at most 8 KiB of metadata."),
    "STREAM_ORDER": (Code.INVALID_ARGUMENT, "The stream's messages come in the order that the .proto file gives."),
    "DOCUMENT_TOO_LARGE": (Code.INVALID_ARGUMENT, "A document has at most 128 MiB."),
    "SIZE_MISMATCH": (Code.INVALID_ARGUMENT, "The document has another length than its beginning announced."),
    "DOCUMENT_EMPTY": (Code.INVALID_ARGUMENT, "The document has no bytes."),
    "TOO_MANY_DOCUMENTS": (Code.INVALID_ARGUMENT, "A stream has at most 1 000 documents; open another."),
    "PDF_REJECTED": (Code.INVALID_ARGUMENT, "The PDF cannot be signed; the message says what is wrong with it."),
    "TOO_MANY_STREAMS": (Code.RESOURCE_EXHAUSTED, "The caller has 4 document streams open; end one first."),
    "TOO_MANY_CALLS": (Code.RESOURCE_EXHAUSTED, "Too many calls are in work; try again."),
    "ANSWERS_UNREAD": (Code.RESOURCE_EXHAUSTED, "Answers of 64 MiB wait to be read by the caller; read them first."),
    "SPOOL_FULL": (Code.RESOURCE_EXHAUSTED, "The space for documents in work is used up; try again."),
    "STREAM_OVER": (Code.UNAVAILABLE, "The stream has reached its age; open another and go on there."),
    "ASSEMBLY_FAILED": (Code.UNAVAILABLE, "The process that assembles documents was lost; try again."),
    "AUDIT_UNWRITABLE": (Code.UNAVAILABLE, "The ledger cannot be written, so nothing is signed; try again."),
    "STORE_BUSY": (Code.UNAVAILABLE, "The ledger's disk does not answer, so nothing is signed; try again."),
    "NO_RANDOMNESS": (Code.UNAVAILABLE, "The system gives no random bytes, so nothing can be kept secret; try again."),
    "REVOCATION_UNAVAILABLE": (
        Code.UNAVAILABLE,
        "Whether the credential's certificate is revoked is not known now, so nothing is signed; try again.",
    ),
    "CHECKPOINT_OVERDUE": (
        Code.UNAVAILABLE,
        "No checkpoint of the ledger could be anchored for a day, so nothing is signed; ask the operator.",
    ),
    "INTERRUPTED": (
        Code.UNAVAILABLE,
        "The service ended while it was at it; send the same with the same request_id within 120 s to go on.",
    ),
    "DRAINING": (Code.UNAVAILABLE, "The service is stopping; try another instance."),
    "CONFIG_REJECTED": (
        Code.FAILED_PRECONDITION,
        "The configuration has mistakes; the old one stays in force, but for credentials and who is denied besides.",
    ),
    "TOKEN_STATE": (Code.FAILED_PRECONDITION, "The token's state does not allow this."),
    "INTERNAL": (Code.INTERNAL, "A fault of the service; the operator's log has it under the request id."),
}
# The pool's reasons that are not UNAVAILABLE when they stand for a whole call.
_POOL_CODES: Mapping[str, grpc.StatusCode] = {
    "KEY_UNKNOWN": Code.FAILED_PRECONDITION,
    "ALGORITHM_NOT_ALLOWED": Code.INVALID_ARGUMENT,
    "DIGEST_LENGTH": Code.INVALID_ARGUMENT,
    "BATCH_EMPTY": Code.INVALID_ARGUMENT,
    "BATCH_TOO_LARGE": Code.INVALID_ARGUMENT,
    "BACKLOG_FULL": Code.RESOURCE_EXHAUSTED,
    "TOKEN_SESSIONS": Code.RESOURCE_EXHAUSTED,
    "WORKER_LIMIT": Code.RESOURCE_EXHAUSTED,
    "PIN_LOCKED": Code.FAILED_PRECONDITION,
    "PIN_FINAL_TRY_GUARD": Code.FAILED_PRECONDITION,
    "PIN_INCORRECT": Code.PERMISSION_DENIED,
    "PIN_AT_PAD": Code.INVALID_ARGUMENT,
    "TOKEN_QUARANTINED": Code.FAILED_PRECONDITION,
    "TOKEN_UNKNOWN": Code.NOT_FOUND,
    "TOKEN_TIMEOUT": Code.DEADLINE_EXCEEDED,
    "DEADLINE_EXCEEDED": Code.DEADLINE_EXCEEDED,
    "CANCELLED": Code.CANCELLED,
    "SIGNATURE_INVALID": Code.INTERNAL,
}


# What passes by itself, wherever it is noticed.
_RETRIES_S: Mapping[str, float] = {
    "CODES_BUSY": 1.0,
    "CODES_FAILED": 1.0,
    "AUDIT_UNWRITABLE": 1.0,
    "STORE_BUSY": 1.0,
    "NO_RANDOMNESS": 1.0,
    "INTERRUPTED": 0.1,
    "POOL_CLOSED": 1.0,  # as DRAINING
    "REVOCATION_UNAVAILABLE": 5.0,  # a CRL's file is looked at so often
}


class Refusal(Exception):
    """
    `reason` is a key of `TABLE` or of `pool.REASONS`; `detail` names the case; `retry_s` where waiting helps; `tries_left`
    of a PIN, where the token's word can be trusted.
    """

    def __init__(
        self, reason: str, detail: str = "", *, retry_s: float | None = None, tries_left: int | None = None
    ) -> None:
        self.reason = reason
        self.detail = detail
        self.tries_left = tries_left
        self.retry_s = _RETRIES_S.get(reason) if retry_s is None else retry_s
        self.code = _code(reason)
        sentence = TABLE[reason][1] if reason in TABLE else POOL_REASONS[reason]
        self.message = f"{sentence} ({detail})" if detail else sentence
        super().__init__(f"{reason}: {self.message}")

    def bare(self) -> "Refusal":
        """The same without its way here: the traceback's frames would keep the request, and the code in it, alive."""
        return Refusal(self.reason, self.detail, retry_s=self.retry_s, tries_left=self.tries_left)


def code_of(reason: str) -> int:
    """The google.rpc.Code of what one item was not signed for; 0 (OK) where it was."""
    return int(_code(reason).value[0]) if reason else 0


def _code(reason: str) -> grpc.StatusCode:
    return TABLE[reason][0] if reason in TABLE else _POOL_CODES.get(reason, Code.UNAVAILABLE)


def refusal_from(error: Exception) -> Refusal | None:
    """What an error means to the caller; None for one that is ours."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, Busy):
        return Refusal(error.reason, error.detail, retry_s=error.retry_s)
    if isinstance(error, Unavailable):
        return Refusal(error.reason, error.detail, retry_s=error.retry_s)
    if isinstance(error, PinRefused):
        left = "unknown" if error.tries_left is None else str(error.tries_left)
        detail = f"{error.detail}; tries left: {left}".removeprefix("; ")
        return Refusal(error.reason, detail, tries_left=error.tries_left)
    if isinstance(error, BadRequest | PoolError):
        return Refusal(error.reason, error.detail)
    return None


def details(refusal: Refusal) -> tuple[tuple[str, str | bytes], ...]:
    """
    The trailing metadata that carries ErrorInfo and RetryInfo (gRPC's richer error model), and the same for gRPC's own
    retries (gRFC A6): when, or never. INDETERMINATE is UNAVAILABLE, which a stock retry policy would send again.
    """
    status = status_pb2.Status(code=refusal.code.value[0], message=refusal.message)
    info = error_details_pb2.ErrorInfo(reason=refusal.reason, domain=DOMAIN)
    if refusal.tries_left is not None:
        info.metadata["tries_left"] = str(refusal.tries_left)
    status.details.append(_any(info))
    if refusal.retry_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(max(1, int(refusal.retry_s * 1e3)))
        status.details.append(_any(error_details_pb2.RetryInfo(retry_delay=delay)))
    pushback_ms = -1 if refusal.retry_s is None else max(1, int(refusal.retry_s * 1e3))
    return (
        ("grpc-status-details-bin", status.SerializeToString()),
        ("grpc-retry-pushback-ms", str(pushback_ms)),
    )


def _any(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def problem_of(refusal: Refusal) -> dict[str, Any]:
    """The fields of a `Problem` message: the same for one request or document of a stream."""
    return {
        "reason": refusal.reason,
        "message": refusal.message,
        "code": refusal.code.value[0],
        "retry_after_s": refusal.retry_s or 0.0,
    }
