"""
Logging in: a person reads who asks, types her codes, and takes the daemon's statement back to the portal (TOK-14).

The portal has begun it and checks what comes back; what is in this page's address is only passed on, and is good for no
other portal than ours: the statement names it. When the login ends stands there, too, so that the page can say it, and no
code is used up for a login that the portal would not take any more; that it is over in time, the portal sees to.
"""

import base64
import logging
import math
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.responses import RedirectResponse, Response

from portal_adapter.refusal import FieldError, Refusal
from portal_adapter.window import known, reasons
from portal_adapter.window.daemon import Login, Typed
from portal_adapter.window.visit import Visit
from signer.client import ServiceError

log = logging.getLogger("window")

CODE_CHARACTERS_MAX = 256  # the daemon's own limit is less; longer is nobody's code
ONE_TIME_CODE = re.compile(r"[0-9]{6}")  # the daemon's, wherever it comes from (signer/otp.py)
SEND_EVERY_S = 30.0  # for one login: as the daemon has it, which knows the numbers that there are
BACK_S = 10  # before a login's end the page's own: for the daemon's answer, and the way back to the portal
# That nothing was sent is not told: it would tell which numbers there are, and whose codes are sent.
UNTOLD = frozenset(
    {"CREDENTIAL_UNKNOWN", "GATE_MISMATCH", "CREDENTIAL_SUSPENDED", "CREDENTIAL_PENDING", "SUBJECT_SUSPENDED"}
)
NUMBER = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")  # a credential's, as the daemon has it
_NONCE = re.compile(r"([0-9a-f]{2}){16,64}")
_TIME = re.compile(r"[0-9]{1,12}")


async def show(visit: Visit) -> Response:
    """The same page for every number, whatever its one-time code comes from, and for one that is nobody's."""
    login = _asked(visit, visit.query)
    try:
        await visit.services.daemon.check_for_login(login.credential)
    except ServiceError as error:
        if error.reason != "CREDENTIAL_UNKNOWN":
            return visit.refused("refused.html", {}, reasons.refusal(error))
    return visit.page("codes.html", _data(login) | {"is_sent": visit.query.get("sent") == "yes"})


async def answer(visit: Visit) -> Response:
    login = _asked(visit, visit.form)
    return await (_send_code(visit, login) if visit.form.get("do") == "send" else _log_in(visit, login))


async def _send_code(visit: Visit, login: Login) -> Response:
    try:
        known.check_sending(visit, login.credential, login.nonce.hex())
        await visit.services.daemon.send_code(login, visit.address)
        log.info("a code was sent for %s, asked for by %s", login.credential, visit.address)
    except ServiceError as error:
        if error.reason not in UNTOLD:
            return _refused(visit, login, reasons.refusal(error))
        log.info("no code was sent for %s, asked for by %s: %s", login.credential, visit.address, error.reason)
    except Refusal as refusal:
        return _refused(visit, login, refusal)
    asked = {"credential": login.credential, "nonce": login.nonce.hex(), "ends": str(login.ends), "sent": "yes"}
    return visit.redirect("/login", asked, field="secret_code")


async def _log_in(visit: Visit, login: Login) -> Response:
    try:
        given = typed(visit)
        known.check_try(visit, login.credential)
        is_known = bool(known.browser(visit, login.credential))
        statement, signature, certificate = await visit.services.daemon.authenticate(login, given, is_known=is_known)
    except ServiceError as error:
        log.info("no login of %s from %s: %s", login.credential, visit.address, error.reason or error.code)
        return _refused(visit, login, reasons.refusal(error))
    except Refusal as refusal:
        return _refused(visit, login, refusal)
    log.info("login of %s from %s", login.credential, visit.address)
    query = urlencode({"statement": _text(statement), "signature": _text(signature), "certificate": _text(certificate)})
    response = RedirectResponse(f"{login.audience}/login/returned?{query}", 303)
    known.remember(visit, login.credential, response)
    return response


def _asked(visit: Visit, given: Mapping[str, str]) -> Login:
    """Raises `Refusal` for what the portal has not begun, and `gone` for what is over."""
    credential, nonce, ends = (given.get(name, "") for name in ("credential", "nonce", "ends"))
    if not NUMBER.fullmatch(credential) or not _NONCE.fullmatch(nonce) or not _TIME.fullmatch(ends):
        raise _not_from_portal()
    login = Login(credential, bytes.fromhex(nonce), visit.services.settings.portal.origin, int(ends))
    if time.time() >= login.ends - BACK_S:
        raise _over(was_sent=bool(visit.form))
    return login


def _not_from_portal() -> Refusal:
    return Refusal("validation", "This page is opened by a login that you begin on the portal. Please begin again.")


def _over(*, was_sent: bool) -> Refusal:
    if was_sent:
        return Refusal("gone", "The time for this login is over. What you sent was not looked at. Please begin again.")
    return Refusal("gone", "This login is over. Please begin again.")


def typed(visit: Visit, fields: Sequence[str] = ("secret_code", "otp")) -> Typed:
    """Raises `Refusal` with every one of these fields that is empty or cannot be a code: that costs no try."""
    errors = []
    for name in fields:
        value = visit.form.get(name, "")
        if not value.strip():
            errors.append(FieldError(name, "required", "This field is mandatory."))
        elif len(value) > CODE_CHARACTERS_MAX:
            errors.append(FieldError(name, "too-long", "This is too long for a code."))
        elif name == "otp":
            errors += check_one_time_code(value)
    if errors:
        raise Refusal("validation", errors=errors)
    given = {name: visit.form[name] for name in fields}
    return Typed(given.get("secret_code", ""), joined(given.get("otp", "")), visit.address, given.get("pin", ""))


def check_one_time_code(text: str) -> list[FieldError]:
    if ONE_TIME_CODE.fullmatch(joined(text)):
        return []
    return [FieldError("otp", "rules", "A one-time code has six digits.")]


def joined(text: str) -> str:
    """A one-time code without the spaces that apps show in it."""
    return "".join(text.split())


def _refused(visit: Visit, login: Login, refusal: Refusal) -> Response:
    """With the form again where typing again, now or later, can help; the codes are never in it."""
    template = "refused.html" if refusal.code == "guard-failed" else "codes.html"
    return visit.refused(template, _data(login), refusal)


def _data(login: Login) -> dict[str, Any]:
    now, closes = int(time.time()), login.ends - BACK_S
    return {
        "credential": login.credential, "nonce": login.nonce.hex(), "ends": login.ends, "is_sent": False,
        "now": now, "closes": closes, "left_min": max(1, math.ceil((closes - now) / 60)),
    }  # fmt: skip


def _text(data: bytes) -> str:
    """Base64 for addresses, without padding (RFC 4648, 5)."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
