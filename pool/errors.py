"""
What can go wrong in the pool, by what the caller should do next.

    PoolError
    ├── BadRequest     change the request: it can never be signed as it stands
    ├── Busy           send the same again, after `retry_s` seconds
    ├── PinRefused     ask the person for the PIN again, or for an express word before the last try
    └── Unavailable    wait for the token, or for a person who must act on it

These are raised when *nothing* of a request was attempted. Once a digest may have met a token, the answer is an
`Outcome` per digest instead (`pool.work`). Every error and every outcome that is not SIGNED carries a `reason` from
`REASONS`: a stable word, and the sentence that says what it means and what to do.
"""

REASONS: dict[str, str] = {
    "KEY_UNKNOWN": "No configured token has this key; check the credential and the token's keys.",
    "ALGORITHM_NOT_ALLOWED": "The key cannot make this kind of signature; ask for one that its type allows.",
    "DIGEST_LENGTH": "A digest has not the length that its algorithm gives.",
    "BATCH_EMPTY": "There is nothing to sign in the request.",
    "BATCH_TOO_LARGE": "The request has more digests than the limit; split it or stream it.",
    "BACKLOG_FULL": "More work is waiting than the pool takes; try again after the time told.",
    "TOKEN_ABSENT": "The token is not there; insert it or start its reader.",
    "PCSC_DOWN": "The host's PC/SC service, which readers belong to, does not answer or refuses the daemon; see to pcscd.",
    "TOKEN_CHANGED": "Another token sits in this place; put the configured one back. No PIN was sent.",
    "TOKEN_STARTING": "The token is being opened; try again in a moment.",
    "PIN_LOCKED": "A PIN was refused; check it, then unlock the token. It is not tried again without a person.",
    "PIN_INCORRECT": "The token refused the PIN; make sure of it before it is given again.",
    "PIN_AT_PAD": "This token's PIN is typed at its reader; send the request without one.",
    "PIN_FINAL_TRY_GUARD": "Another refused PIN could lock the token for good; make sure of it, then use the override.",
    "PIN_UNCLEAR": "The token did not say whether the PIN is right; it counts as a try. Check the PIN before the next.",
    "LOGIN_REQUIRED": "The key is a person's: it signs only in a lease, after the token's own PIN.",
    "TOKEN_BUSY": "Somebody else has the token now; try again when it is free. The PIN was not looked at.",
    "TOKEN_QUARANTINED": "The token made a wrong signature; examine it before it is unlocked.",
    "TOKEN_FAULT": "The token or its driver fails; it is tried again by itself.",
    "TOKEN_SESSIONS": "The token has no session or no memory left; end what else uses it. It is tried again by itself.",
    "WORKER_LIMIT": "The token's driver has used up what its process may have; it was replaced: ask again.",
    "TOKEN_DRAINED": "An operator has drained the token; resume it to sign with it.",
    "TOKEN_REMOVED": "The token went away in the middle of its work; put it back, then ask again for what was not signed.",
    "TOKEN_TIMEOUT": "The token did not answer in time; its lane was replaced, and what was not begun may be asked again.",
    "MODULE_CRASH": "The token's driver crashed; its lane was replaced, and what was not begun may be asked again.",
    "SIGNATURE_INVALID": "The token's signature does not verify and was withheld; an operator must examine the token.",
    "DEADLINE_EXCEEDED": "The deadline passed before this digest's turn; it was not signed.",
    "CANCELLED": "The caller went away before this digest's turn; it was not signed.",
    "TOKEN_UNKNOWN": "No token is configured with this name.",
    "POOL_CLOSED": "The pool is stopping; this digest was not signed.",
}


class PoolError(Exception):
    """Never raised itself. `reason` is a key of `REASONS`; `detail` names the case."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail or REASONS[reason]}")


class BadRequest(PoolError):
    """The request can never be signed as it stands; `index` is the first digest at fault, if one is."""

    def __init__(self, reason: str, detail: str = "", index: int | None = None) -> None:
        self.index = index
        super().__init__(reason, detail)


class Busy(PoolError):
    """The pool is full; nothing was attempted; try again after `retry_s` seconds."""

    def __init__(self, reason: str, retry_s: float, detail: str = "") -> None:
        self.retry_s = retry_s
        super().__init__(reason, detail)


class PinRefused(PoolError):
    """
    A person's PIN was not accepted, or not sent for fear of the last try. `tries_left` is what the token has left, None
    where its word cannot be trusted.
    """

    def __init__(self, reason: str, detail: str = "", tries_left: int | None = None) -> None:
        self.tries_left = tries_left
        super().__init__(reason, detail)


class Unavailable(PoolError):
    """No token can take the work; nothing was attempted. `retry_s` is None where a person must act first."""

    def __init__(self, reason: str, detail: str = "", retry_s: float | None = None) -> None:
        self.retry_s = retry_s
        super().__init__(reason, detail)
