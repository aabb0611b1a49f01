"""
Why a request was refused, in words that pages, the JSON API and tests share (REQUIREMENTS.md beside this file, "Refusals").

A refusal is raised anywhere below a view. The frame takes the transaction back, writes one audit line, and answers a page
or an RFC 9457 problem: one place decides which (web/frame.py). Nothing else of the request remains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# code -> HTTP status
CODES: Mapping[str, int] = {
    "unauthenticated": 401,
    "auth-too-weak": 401,
    "forbidden": 403,
    "not-found": 404,
    "method-not-allowed": 405,
    "forbidden-transition": 409,
    "stale": 409,
    "guard-failed": 409,
    "gone": 410,
    "too-large": 413,
    "bad-type": 415,
    "validation": 422,
    "confirmation-required": 422,
    "rejected-content": 422,
    "rate-limited": 429,
    "signer-unavailable": 503,
}


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field's mistake. `message` is a msgid, `values` what stands in it."""

    field: str
    code: str
    message: str
    values: Mapping[str, Any] | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Unmet:
    """
    A guard that is false. `message` is a msgid, `values` what stands in it; `href` leads to where it is mended, empty for
    nowhere.
    """

    code: str
    message: str
    href: str = ""
    values: Mapping[str, Any] | None = None


class Refusal(Exception):
    """
    `reason` is the finer word within a code ('terms-not-accepted'), `message` a msgid for people. `details` go into the
    answer as they are, and hold nothing secret.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        reason: str = "",
        errors: Sequence[FieldError] = (),
        unmet: Sequence[Unmet] = (),
        retry_after_s: int | None = None,
        **details: Any,
    ) -> None:
        self.code = code
        self.status = CODES[code]
        self.message = message
        self.reason = reason
        self.errors = tuple(errors)
        self.unmet = tuple(unmet)
        self.retry_after_s = retry_after_s
        self.details = details
        super().__init__(f"{code} {reason} {message}".strip())


def not_found() -> Refusal:
    """One answer for what does not exist and what is somebody else's."""
    return Refusal("not-found")


def stale(version: int, **details: Any) -> Refusal:
    """Somebody else has changed it meanwhile: `version` is the present one."""
    return Refusal(
        "stale", "Somebody else has changed this meanwhile. Open the page again.", version=version, **details
    )


def guard(code: str, message: str, href: str = "") -> Refusal:
    """One guard that is false."""
    return Refusal("guard-failed", message, reason=code, unmet=[Unmet(code, message, href)])


def unmet(found: Sequence[Unmet]) -> None:
    """Raise `guard-failed` with all of them, unless there are none."""
    if found:
        first = found[0]
        message = first.message if len(found) == 1 and not first.values else "Something is still missing."
        raise Refusal("guard-failed", message, reason=first.code, unmet=found)


def invalid(field: str, code: str, message: str, *, limit: int | None = None, **values: Any) -> Refusal:
    """One field's mistake, by itself."""
    return Refusal("validation", errors=[FieldError(field, code, message, values, limit)], reason=code)
