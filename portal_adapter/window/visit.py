"""
One request to the window: who may post what to it, and the page that answers.

The window knows no session. A browser has a cookie, of which its forms' tokens are made with a key that is new at each
start; so a form is posted by the browser that was shown it, and by no other site (ASVS 3.5.1, 3.5.3).
"""

import hashlib
import hmac
import logging
import math
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from portal_adapter.language import LANGUAGES, Language, preferred
from portal_adapter.refusal import Refusal

if TYPE_CHECKING:
    from portal_adapter.window.app import Services

log = logging.getLogger("window")

COOKIE = "__Host-window"
FIELDS_MAX = 20  # of a form
SECRET_FIELDS = frozenset({"secret_code", "new_code", "again", "otp", "pin", "enrolment"})  # never shown again


class Visit:
    def __init__(self, services: "Services", request: Request) -> None:
        self.services, self.request = services, request
        self.query = request.query_params
        self.address = request.client.host.partition("%")[0] if request.client else ""  # without IPv6's zone
        self.now = time.monotonic()
        self.form: Mapping[str, str] = {}
        self.browser = request.cookies.get(COOKIE, "")[:128]
        self._is_new = not self.browser
        if self._is_new:
            self.browser = secrets.token_urlsafe(32)

    @property
    def language(self) -> Language:
        asked = self.form.get("language") or self.query.get("language", "")
        fallback = preferred(self.request.headers.get("accept-language", ""), self.services.settings.window.language)
        return Language(asked if asked in LANGUAGES else fallback, "UTC")

    async def read(self) -> None:
        """The posted form; raises `Refusal` for what is none of ours."""
        most = self.services.settings.limits.form_bytes
        kind = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            raise Refusal("bad-type", "This is not a form.")
        body = bytearray()
        async for part in self.request.stream():
            body += part
            if len(body) > most:
                raise Refusal("too-large", "This is too large.")
        try:
            self.form = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX))
        except ValueError:
            raise Refusal("validation", "This form cannot be read.") from None
        site = self.request.headers.get("sec-fetch-site", "same-origin")
        given = self.form.get("csrf", "").encode()
        if site not in {"same-origin", "none"} or not hmac.compare_digest(self._token().encode(), given):
            raise Refusal("forbidden", "This form is not of this visit. Open the page again.")

    def page(self, template: str, data: Mapping[str, Any], status: int = 200) -> Response:
        language = self.language
        shown = {name: value for name, value in self.form.items() if name not in SECRET_FIELDS}
        html = self.services.templates.render(
            template, {"refusal": None, "form": shown, **data}, language=language, csrf=self._token(),
            here=self._here, wait=lambda seconds: _wait(language, seconds),
        )  # fmt: skip
        return self._known(Response(html, status, media_type="text/html"))

    def redirect(self, path: str, query: Mapping[str, str] | None = None, *, field: str = "") -> Response:
        """To another page of the window, in the same language; with a `field` to that one, which has the focus."""
        asked = urlencode({**(query or {}), "language": self.language.code})
        return self._known(RedirectResponse(f"{path}?{asked}{f'#field-{field}' if field else ''}", 303))

    def refused(self, template: str, data: Mapping[str, Any], refusal: Refusal) -> Response:
        """A page that says why; Retry-After where waiting helps."""
        response = self.page(template, {**data, "refusal": refusal, "errors": refusal.errors}, refusal.status)
        if refusal.retry_after_s is not None:
            response.headers["retry-after"] = str(max(1, refusal.retry_after_s))
        return response

    def _known(self, response: Response) -> Response:
        """With the browser's cookie, where it has none yet."""
        if self._is_new:
            response.set_cookie(COOKIE, self.browser, path="/", secure=True, httponly=True, samesite="lax")
        return response

    def failed(self, error: Exception) -> Response:
        """
        A mistake of ours, whatever it is. The reference stands here and in the log; what the error says does not stand
        there, for it may be of what was typed.
        """
        reference = secrets.token_hex(4)
        where = "".join(traceback.format_tb(error.__traceback__))
        log.error(
            "reference %s: %s %s: %s\n%s", reference, self.request.method, self.request.url.path, type(error), where
        )
        html = self.services.templates.render("failed.html", {"reference": reference}, language=self.language)
        return Response(html, 500, media_type="text/html")

    def _here(self, language: str) -> str:
        """The address of the page in another language; nothing that was typed is in it."""
        given: Mapping[str, str] = dict(self.query) | dict(self.form)
        kept = {
            name: given[name] for name in ("credential", "nonce", "ends", "sent", "document", "link") if name in given
        }
        return "?" + urlencode({**kept, "language": language})

    def _token(self) -> str:
        return hmac.new(self.services.key, b"form\0" + self.browser.encode(), hashlib.sha256).hexdigest()


def _wait(language: Language, seconds: int) -> str:
    if seconds < 120:
        return language.count("Try again in {number} second.", "Try again in {number} seconds.", max(1, seconds))
    return language.count("Try again in {number} minute.", "Try again in {number} minutes.", math.ceil(seconds / 60))


def endpoint(
    view: Callable[[Visit], Awaitable[Response]], services: "Services"
) -> Callable[[Request], Awaitable[Response]]:
    """A view answers what it expects itself; what is left is said on a page of its own."""

    async def answer(request: Request) -> Response:
        visit = Visit(services, request)
        try:
            if request.method == "POST":
                await visit.read()
            return await view(visit)
        except ClientDisconnect:
            return Response(status_code=400)
        except Refusal as refusal:
            return visit.refused("refused.html", {}, refusal)
        except Exception as error:  # noqa: BLE001 -- nothing of it goes outside
            return visit.failed(error)

    return answer
