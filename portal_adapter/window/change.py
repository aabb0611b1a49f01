"""
Another secret code: a person shows the one that she has and a one-time code, and chooses (ASVS 5.0, 6.2.2 and 6.2.3).

The pages look alike for every product number, and for one that is nobody's.
"""

import logging
import secrets
from typing import Any

from starlette.responses import Response

from portal_adapter.refusal import FieldError, Refusal
from portal_adapter.window import known, reasons
from portal_adapter.window.daemon import Daemon, Typed
from portal_adapter.window.enrolment import check_choice
from portal_adapter.window.login import NUMBER, UNTOLD, typed
from portal_adapter.window.visit import Visit
from signer.client import ServiceError

log = logging.getLogger("window")

TYPED_CHARACTERS = (6, 64)  # of a secret code that was chosen at any time
FORM_CHARACTERS_MAX = 64  # of its id: ours has 22
_ORDER = ("secret_code", "new_code", "again", "otp")  # as the page has them


async def show(visit: Visit) -> Response:
    """The product's number first, where the address has none."""
    return _page(visit, visit.query.get("credential", ""), is_sent=visit.query.get("sent") == "yes")


async def answer(visit: Visit) -> Response:
    credential = visit.form.get("credential", "").strip()
    if not NUMBER.fullmatch(credential):
        mistake = FieldError("credential", "unknown", "This is not a product number.")
        return visit.refused(
            "change.html", {"credential": "", "is_sent": False}, Refusal("validation", errors=[mistake])
        )
    if visit.form.get("do") == "number":
        return _page(visit, credential)
    return await (_send_code if visit.form.get("do") == "send" else _change)(visit, credential)


async def _send_code(visit: Visit, credential: str) -> Response:
    try:
        known.check_sending(visit, credential, "change")
        await visit.services.daemon.send_code_to_change(credential, visit.address)
        log.info("a code to change was sent for %s, asked for by %s", credential, visit.address)
    except ServiceError as error:
        if error.reason not in UNTOLD:
            return _refused(visit, credential, reasons.refusal(error))
        log.info("no code to change was sent for %s, asked for by %s: %s", credential, visit.address, error.reason)
    except Refusal as refusal:
        return _refused(visit, credential, refusal)
    return visit.redirect("/code", {"credential": credential, "sent": "yes"}, field="secret_code")


async def _change(visit: Visit, credential: str) -> Response:
    new = visit.form.get("new_code", "")
    try:
        given = _given(visit, new)
        known.check_try(visit, credential)
    except Refusal as refusal:
        return _refused(visit, credential, refusal)
    sent = (visit.form.get("form", "")[:FORM_CHARACTERS_MAX], given.secret_code, given.otp, new)
    is_known = bool(known.browser(visit, credential))
    problem = await visit.services.changes.once(
        credential,
        sent,
        lambda: _changed(visit.services.daemon, credential, given, new, is_known=is_known),
        waits=False,
    )
    if problem is None:
        log.info("the secret code of %s is changed, from %s", credential, visit.address)
        return visit.page("changed.html", {})
    log.info("no change of %s's secret code from %s: %s", credential, visit.address, problem.reason or problem.code)
    told = reasons.refusal(problem)
    if problem.reason == "CODE_WEAK" or (problem.reason == "CODE_RULES" and _is_plain(given.secret_code)):
        told = Refusal("validation", errors=[FieldError("new_code", one.code, one.message) for one in told.errors])
    return _refused(visit, credential, told)


async def _changed(daemon: Daemon, credential: str, given: Typed, new: str, *, is_known: bool) -> ServiceError | None:
    """The daemon is asked once. What is kept for a moment holds nothing that was typed."""
    try:
        await daemon.change_code(credential, given, new, is_known=is_known)
    except ServiceError as error:
        return ServiceError(error.reason, "", error.code, error.retry_s)
    return None


def _given(visit: Visit, new: str) -> Typed:
    """Raises `Refusal` with everything that is wrong with the form itself."""
    errors: list[FieldError] = []
    given = None
    try:
        given = typed(visit)
    except Refusal as refusal:
        errors += refusal.errors
    errors += check_choice(new, visit.form.get("again", ""), "new_code")
    if given is not None and not errors and new == given.secret_code:
        errors.append(FieldError("new_code", "same", "This is the secret code that you have."))
    if given is None or errors:
        raise Refusal("validation", errors=sorted(errors, key=lambda one: _ORDER.index(one.field)))
    return given


def _is_plain(code: str) -> bool:
    """Whether the daemon's rules for what is typed can have nothing against it: then they are against the new one."""
    return TYPED_CHARACTERS[0] <= len(code) <= TYPED_CHARACTERS[1] and code.isascii() and code.isprintable()


def _page(visit: Visit, credential: str, *, is_sent: bool = False) -> Response:
    known = credential if NUMBER.fullmatch(credential) else ""
    return visit.page("change.html", _data(known) | {"is_sent": is_sent})


def _refused(visit: Visit, credential: str, refusal: Refusal) -> Response:
    template = "refused.html" if refusal.code == "guard-failed" else "change.html"
    return visit.refused(template, _data(credential), refusal)


def _data(credential: str) -> dict[str, Any]:
    return {"credential": credential, "is_sent": False, "form_id": secrets.token_urlsafe(16)}
