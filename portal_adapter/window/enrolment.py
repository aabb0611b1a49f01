"""
Enrolment: with the code that was sent to her a person sets her secret code and shows a first one-time code.

Between the two pages the window remembers, in memory and for the one browser, what the first has answered. The picture
of the seed is fetched from an address without anything secret in it: whose it is, the cookie says.
"""

import io
import logging
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import segno
from starlette.responses import RedirectResponse, Response

from portal_adapter.network import network
from portal_adapter.refusal import FieldError, Refusal
from portal_adapter.window import reasons
from portal_adapter.window.daemon import Begun, Typed
from portal_adapter.window.login import CODE_CHARACTERS_MAX, check_one_time_code, joined
from portal_adapter.window.visit import Visit
from signer.client import ServiceError

log = logging.getLogger("window")

CODE_CHARACTERS = (8, 64)  # of a secret code: the daemon's limits (proto/README.md, CODE_RULES)


@dataclass(frozen=True, slots=True)
class Pending:
    """An enrolment that has begun; `ends` in seconds, monotonic."""

    enrolment: str = field(repr=False)
    begun: Begun
    ends: float


class Enrolments:
    """One for each browser."""

    def __init__(self) -> None:
        self._pending: dict[str, Pending] = {}

    def put(self, browser: str, pending: Pending, now: float) -> None:
        self._pending = {name: one for name, one in self._pending.items() if one.ends > now}
        self._pending[browser] = pending

    def of(self, browser: str, now: float) -> Pending | None:
        found = self._pending.get(browser)
        return found if found is not None and found.ends > now else None

    def end(self, browser: str) -> None:
        self._pending.pop(browser, None)


async def show(visit: Visit) -> Response:
    return visit.page("enrol.html", {})


async def begin(visit: Visit) -> Response:
    """Again for a browser that has one: the newest counts."""
    enrolment = visit.form.get("enrolment", "").strip()
    try:
        if not enrolment:
            raise Refusal("validation", errors=[FieldError("enrolment", "required", "This field is mandatory.")])
        await _begin(visit, enrolment[:CODE_CHARACTERS_MAX])
    except Refusal as refusal:
        return visit.refused("enrol.html", {}, refusal)
    return RedirectResponse(f"/enrol/finish?language={visit.language.code}", 303)


async def show_finish(visit: Visit) -> Response:
    pending = _pending(visit)
    return RedirectResponse("/enrol", 303) if pending is None else visit.page("finish.html", _data(pending))


async def answer(visit: Visit) -> Response:
    pending = _pending(visit)
    if pending is None:
        return RedirectResponse("/enrol", 303)
    return await (_send_again if visit.form.get("do") == "send" else _finish)(visit, pending)


async def _send_again(visit: Visit, pending: Pending) -> Response:
    """Another one-time code to the contact."""
    try:
        await _begin(visit, pending.enrolment)
    except Refusal as refusal:
        return visit.refused("finish.html", _data(pending), refusal)
    return RedirectResponse(f"/enrol/finish?language={visit.language.code}", 303)


async def picture(visit: Visit) -> Response:
    """What a device makes its codes from, as a QR code (ISO/IEC 18004)."""
    pending = _pending(visit)
    if pending is None or not pending.begun.uri:
        return Response(status_code=404)
    file = io.BytesIO()
    segno.make_qr(pending.begun.uri, error="m").save(file, kind="svg", scale=5, border=4, light="#fff")
    return Response(file.getvalue(), media_type="image/svg+xml")


async def _finish(visit: Visit, pending: Pending) -> Response:
    try:
        typed = _typed(visit)
        visit.services.pace.check(network(visit.address), visit.now)
        await visit.services.daemon.complete_enrolment(pending.enrolment, typed)
    except ServiceError as error:
        log.info("no enrolment of %s from %s: %s", pending.begun.subject, visit.address, error.reason or error.code)
        refusal = reasons.refusal(error)
        if error.reason == "OTP_INCORRECT":  # there is no old secret code that could be wrong
            refusal = Refusal("validation", errors=[FieldError("otp", "wrong", "The one-time code is not right.")])
        if error.reason == "ENROLMENT_UNKNOWN":  # its time is over
            visit.services.enrolments.end(visit.browser)
            return visit.refused("enrol.html", {}, refusal)
        return visit.refused("finish.html", _data(pending), refusal)
    except Refusal as refusal:
        return visit.refused("finish.html", _data(pending), refusal)
    visit.services.enrolments.end(visit.browser)
    log.info("%s is enrolled, from %s", pending.begun.subject, visit.address)
    return visit.page("enrolled.html", {"subject": pending.begun.subject})


async def _begin(visit: Visit, enrolment: str) -> None:
    visit.services.pace.check(network(visit.address), visit.now)
    try:
        begun = await visit.services.daemon.begin_enrolment(enrolment, visit.address)
    except ServiceError as error:
        log.info("no enrolment from %s: %s", visit.address, error.reason or error.code)
        raise reasons.refusal(error) from None
    ends = visit.now + visit.services.settings.limits.enrolment_s
    visit.services.enrolments.put(visit.browser, Pending(enrolment, begun, ends), visit.now)


def _pending(visit: Visit) -> Pending | None:
    return visit.services.enrolments.of(visit.browser, visit.now)


def _typed(visit: Visit) -> Typed:
    """Raises `Refusal` with everything that is wrong with the form itself."""
    errors: list[FieldError] = []
    code, again, otp = (visit.form.get(name, "") for name in ("secret_code", "again", "otp"))
    errors += check_choice(code, again, "secret_code")
    if not otp.strip():
        errors.append(FieldError("otp", "required", "This field is mandatory."))
    else:
        errors += check_one_time_code(otp)
    if errors:
        raise Refusal("validation", errors=errors)
    return Typed(code, joined(otp), visit.address)


def _data(pending: Pending) -> dict[str, object]:
    """`secret` is the seed for a device without a camera, in groups of four."""
    uri = pending.begun.uri
    secret = parse_qs(urlsplit(uri).query).get("secret", [""])[0]
    groups = " ".join(secret[at : at + 4] for at in range(0, len(secret), 4))
    kind = urlsplit(uri).netloc  # totp, hotp; empty where a code was sent
    return {"subject": pending.begun.subject, "contact": pending.begun.contact, "kind": kind, "secret": groups}


def check_choice(code: str, again: str, field: str) -> list[FieldError]:
    """What is wrong with a secret code that was typed into `field`, as far as its form goes, and `again`."""
    least, most = CODE_CHARACTERS
    if not least <= len(code) <= most or len(set(code)) == 1:
        return [FieldError(field, "rules", "A secret code has 8 to 64 characters, not all the same.")]
    return [] if code == again else [FieldError("again", "differs", "The two are not the same.")]
