"""
From a request to its answer: limits, session, form token, level and right, one transaction, and the one place where a
refusal becomes a page or a problem (RFC 9457).

Order, and why it is this one: what is too large is not read; who is nobody is sent to log in before anything is said of
what there is; a space's stranger is told that it does not exist; and only then the view decides. A file is read only from
who may send one, and looked into before the transaction. A refused request leaves
one audit line and nothing else; its session is extended, as by any request.
"""

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, OperationalError
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response

from portal_adapter.auth import session as sessions
from portal_adapter.auth.session import LANGUAGE_COOKIE, SESSION_COOKIE, VISITOR_COOKIE, Session
from portal_adapter.domain import agent, audit, marks, space, terms
from portal_adapter.domain.actor import check_right
from portal_adapter.domain.ids import hashed
from portal_adapter.language import LANGUAGES, Language, preferred
from portal_adapter.network import network
from portal_adapter.refusal import Refusal
from portal_adapter.store.database import reading, writing
from portal_adapter.web.aids import aids
from portal_adapter.web.answer import Answer, Download, Page, Redirect, Refused
from portal_adapter.web.ask import Ahead, Ask, Uploaded
from portal_adapter.web.back import inside
from portal_adapter.web.body import check_text, on_disk, read
from portal_adapter.web.cookies import NOTICE_COOKIE, set_cookie
from portal_adapter.web.headers import policy
from portal_adapter.web.notices import NOTICES
from portal_adapter.web.once import once
from portal_adapter.web.route import Level, Look, Route

if TYPE_CHECKING:
    from portal_adapter.app import Services

log = logging.getLogger("portal")
T = TypeVar("T")

QUERY_CHARACTERS_MAX = 8192  # of one value: a certificate in base64 has up to 4 000
_OF_LOOKING = frozenset({"unauthenticated", "not-found", "method-not-allowed", "guard-failed"})


def endpoint(route: Route, services: "Services") -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return await _Visit(route, services, request).answer()

    return answer


class _Visit:
    """One request."""

    def __init__(self, route: Route, services: "Services", request: Request) -> None:
        self.route, self.services, self.request = route, services, request
        cookies = request.cookies
        self.token = cookies.get(SESSION_COOKIE, "")[:128]
        self.visitor = cookies.get(VISITOR_COOKIE, "")[:128]
        self.fresh_visitor = ""
        if not self.visitor:
            self.visitor = self.fresh_visitor = secrets.token_urlsafe(32)
        asked = request.query_params.get("language", "") if services.site else cookies.get(LANGUAGE_COOKIE, "")
        self.language = Language(
            asked
            if asked in LANGUAGES
            else preferred(request.headers.get("accept-language", ""), services.settings.portal.language),
            services.settings.portal.time_zone,
        )
        self.wants_json = "application/json" in request.headers.get("accept", "")
        self.session: Session | None = None
        self.revoked: Session | None = None  # one that ends with this request: its product was revoked
        self.space: Mapping[str, Any] | None = None
        self.form: dict[str, str] = {}
        self.form_token = self.form_id = ""
        self.spaces: list[Mapping[str, Any]] = []
        self.administration = ""  # that she works for
        self.found: Any = None
        self._arrived: Callable[[], None] = lambda: None
        self.now = services.clock.now()
        self.address = request.client.host if request.client else ""

    async def answer(self) -> Response:
        try:
            response = await self._answered()
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:  # noqa: BLE001 -- a mistake of ours, whatever it is: nothing of it goes outside
            response = self._failed(error)
        if self.fresh_visitor:
            set_cookie(response, VISITOR_COOKIE, self.fresh_visitor)
        return response

    async def _answered(self) -> Response:
        with ExitStack() as stack:
            try:
                if self.route.upload is not None:
                    await self._in_thread(partial(self._admit, stack))
                files: Mapping[str, Uploaded] = await self._read(stack)
                if self.route.upload is not None:
                    self._check_form()
                    await self._in_thread(self._count_upload)
                    files = await self._looked_into(self.route.upload, files)
                if self.route.before is not None:
                    await asyncio.get_running_loop().run_in_executor(self.services.askers, self._ask_before)
                response = await self._in_thread(partial(self._looked_at_twice, files))
            except Refusal as refusal:
                response = await self._in_thread(partial(self._refused, refusal))
            except IntegrityError:  # a unique key has settled a race: the other one won
                lost = Refusal("stale", "Somebody else was quicker. Look at the page again.", reason="lost-race")
                response = await self._in_thread(partial(self._refused, lost))
            except OperationalError as error:  # the database is locked, full or away: nothing was changed
                log.error("the database refuses: %s", error.orig)  # noqa: TRY400 -- no fault of ours
                response = await self._in_thread(partial(self._refused, _away()))
        if self.revoked is not None:
            await self._in_thread(partial(self._end_revoked, self.revoked))
        return response

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.services.threads, work)

    # ---- reading

    def _admit(self, stack: ExitStack) -> None:
        """Before a file is read: who may not send one is told so now. Those that are being read count, too."""
        with reading(self.services.engine) as connection:
            self._recognise(connection)
            self._let_in(connection)
            if self.route.admit is not None:
                self.route.admit(self._ask(connection, {}, [], []))
            assert self.session is not None  # Route: files come from a person
            others, self._arrived = self.services.arriving.begin(self.session.actor.account)
            stack.callback(self._arrived)
            self._check_uploads(connection, others)

    def _ask_before(self) -> None:
        """Only for a form of ours, of somebody who may send it, or for a page that she may see."""
        assert self.route.before is not None
        with reading(self.services.engine) as connection:
            self._recognise(connection)
            if self.route.method == "POST":
                self._check_form()
            self._let_in(connection)
        parts = {name: str(value) for name, value in self.request.path_params.items()}
        self.found = self.route.before(
            Ahead(self.services, self.now, self.language, self.session, self.visitor, parts, self.form, self.space)
        )

    def _count_upload(self) -> None:
        """Every file counts, whatever comes of it: looking into one is what costs."""
        assert self.session is not None  # Route: files come from a person
        with writing(self.services.engine) as connection:
            self._check_uploads(connection)
            marks.mark(connection, self.now, "upload", self.session.actor.account)
        self._arrived()

    def _check_uploads(self, connection: Connection, arriving: int = 0) -> None:
        assert self.session is not None
        most = self.services.settings.limits.uploads_a_minute - arriving
        marks.check(connection, self.now, "upload", self.session.actor.account, most, 60)

    async def _looked_into(self, look: Look, files: Mapping[str, Uploaded]) -> Mapping[str, Uploaded]:
        work = partial(look, self.services, self.form, files)
        return await asyncio.get_running_loop().run_in_executor(self.services.lookers, work)

    async def _read(self, stack: ExitStack) -> dict[str, Uploaded]:
        check_text(*self.request.query_params.values())
        if self.route.method != "POST":
            return {}
        limits = self.services.settings.limits

        async def keep(upload: UploadFile) -> Uploaded:
            return await self._in_thread(partial(on_disk, upload, self.services.blobs.incoming, stack))

        file_bytes = 0 if self.route.upload is None else limits.document_bytes
        fields, files = await read(self.request, limits.form_bytes, file_bytes, keep)
        self._keep(fields)
        return files

    def _keep(self, fields: dict[str, str]) -> None:
        """What the frame itself wants of a form is not the view's."""
        self.form_token = fields.pop("csrf", "") or self.request.headers.get("x-csrf-token", "")
        self.form_id = fields.pop("form", "")
        self.form = fields

    # ---- deciding

    def _looked_at_twice(self, files: Mapping[str, Uploaded]) -> Response:
        """Who loses a race for a unique key looks again, at what the winner left, and is told that."""
        try:
            return self._in_transaction(files)
        except IntegrityError:
            return self._in_transaction(files)

    def _in_transaction(self, files: Mapping[str, Uploaded]) -> Response:
        after: list[Callable[[], None]] = []
        undo: list[Callable[[], None]] = []
        is_post, is_decided = self.route.method == "POST", False
        try:
            with (writing if is_post else reading)(self.services.engine) as connection:
                self._recognise(connection)
                if is_post:
                    self._check_form()
                self._let_in(connection)
                ask = self._ask(connection, files, after, undo)
                answer = self._once(connection, ask) if is_post else self.route.view(ask)
                if is_post and self.session is not None:
                    sessions.seen(connection, self.now, self.session)
                response = None if isinstance(answer, Refused) else self._respond(answer)
                is_decided = True  # the commit alone is left
        except BaseException:
            # Where the answer to COMMIT was lost the rows may be there, and name what this would remove; what they do not
            # name is swept (domain/kept.py).
            if not is_decided:
                for one in undo:
                    one()
            raise
        for one in after:
            one()
        if isinstance(answer, Refused):
            raise answer.refusal
        assert response is not None
        if isinstance(answer, Download) and answer.audited is not None:
            self._note_download(*answer.audited)
        if not is_post:
            self._extend()
        return response

    def _extend(self) -> None:
        """By a transaction of its own, where a request has none that is kept: every request extends the session (TOK-12)."""
        if self.session is None or not sessions.is_due(self.now, self.session):
            return
        try:
            with writing(self.services.engine) as connection:
                sessions.seen(connection, self.now, self.session)
        except OperationalError as error:  # locked, or the disk is full: what was asked for can be read all the same
            log.error("a session is not extended: %s", error.orig)  # noqa: TRY400 -- no fault of ours

    def _let_in(self, connection: Connection) -> None:
        if self.route.level is not Level.OPEN and self.session is None:
            raise Refusal("unauthenticated", "Please log in.")
        if self.session is not None:
            if self.route.fresh and not sessions.is_fresh(self.now, self.session):
                message = "Your login was some time ago. For this, please log in once more."
                raise Refusal("unauthenticated", message, reason="login-too-old", back=self._page_of_form())
            if self.route.level in {Level.TERMS, Level.AGENT}:
                terms.check(connection, self.session.actor.account, self.services.settings.terms.version)
            if self.route.level is Level.AGENT:
                agent.check(self.administration)
            if self.route.right:
                identifier = self.request.path_params["space"]
                self.space = space.of(connection, self.session.actor, identifier)
                space.check_product(connection, self.session.actor, self.space, self.services.settings.business)
                check_right(self.space["role"], self.route.right)
                if self.route.method == "POST":
                    space.check_active(self.space)

    def _recognise(self, connection: Connection) -> None:
        """Whose session it is, and what the header's menu lists."""
        if not self.token:
            return
        found = sessions.find(connection, self.now, self.token, self.services.settings.limits, self.address)
        if found is not None and self.services.issuers.is_revoked(found.certificate):
            self.revoked, found = found, None
        self.session = found
        if self.session is not None and (not self.wants_json or self.route.level is Level.AGENT):
            self.administration = agent.administration_of(connection, self.session.actor.account)
        if self.session is not None and not self.wants_json:
            self.spaces = space.all_of(connection, self.session.actor.account)

    def _end_revoked(self, session: Session) -> None:
        """For good, also if the list should change its mind."""
        actor = session.actor
        try:
            with writing(self.services.engine) as connection:
                if sessions.end(connection, self.now, session.token):
                    audit.note(
                        connection, self.now, "session-ended", account=actor.account, address=self.address,
                        reason="certificate-revoked", fingerprint=actor.fingerprint,
                    )  # fmt: skip
        except OperationalError as error:  # the next request ends it
            log.error("a session is not ended: %s", error.orig)  # noqa: TRY400 -- no fault of ours

    def _check_form(self) -> None:
        """A form of ours, in the browser it was shown to (ASVS 3.5.1), and no other site's (3.5.3)."""
        site = self.request.headers.get("sec-fetch-site", "same-origin")
        # Who posts a form of a session that has ended meanwhile is sent to log in; a form for everybody may have been shown
        # before the login that has just come, by a second click.
        is_of_session = self.session is not None and self.route.level is not Level.OPEN
        cookies = {self.token} if is_of_session else {self.token, self.visitor}
        ours = any(cookie and sessions.is_form_token(self.services.key, cookie, self.form_token) for cookie in cookies)
        if site not in {"same-origin", "none"} or not ours:
            raise Refusal("forbidden", "This form is not of this visit. Open the page again.", reason="form-token")

    def _ask(
        self,
        connection: Connection,
        files: Mapping[str, Uploaded],
        after: list[Callable[[], None]],
        undo: list[Callable[[], None]],
    ) -> Ask:
        return Ask(
            connection, self.services, self.now, self.language, self.session, self.visitor, self.address,
            {name: str(value) for name, value in self.request.path_params.items()},
            {name: value[:QUERY_CHARACTERS_MAX] for name, value in self.request.query_params.items()},
            self.form, files, self.space, self.request.scope.get("state", {}).get("peer_certificate"), after, undo,
            self.found, self.administration,
        )  # fmt: skip

    def _once(self, connection: Connection, ask: Ask) -> Answer:
        """With a form's own name, which each page that shows it gives it, a second time it leads where it has led."""
        if not self.form_id:
            return self.route.view(ask)
        owner = hashed(self.token if self.session is not None else self.visitor)
        key = hashed(json.dumps([self.route.name, self.request.url.path, self.form_id, self.form, _sums(ask.files)]))
        return once(connection, self.now, owner, key, lambda: self.route.view(ask))

    # ---- answering

    def _respond(self, answer: Page | Redirect | Download) -> Response:
        if isinstance(answer, Download):
            return _download(answer)
        if isinstance(answer, Redirect):
            response: Response = (
                JSONResponse({"location": answer.location})
                if self.wants_json and not answer.outside
                else RedirectResponse(answer.location, 303)
            )
            for name, value in answer.cookies.items():
                set_cookie(response, name, value)
            if answer.cookies.get(SESSION_COOKIE, "") is None:  # who logs out leaves no page behind (ASVS 14.3.1)
                response.headers["clear-site-data"] = '"cache", "storage"'
            if answer.notice and not self.wants_json:
                set_cookie(response, NOTICE_COOKIE, answer.notice, max_age=60)
            return response
        if self.wants_json:
            return JSONResponse({**answer.data, "csrf": self._csrf()}, answer.status)
        return self._page(
            answer.template, answer.data, answer.status, self.request.url.path, is_framing=answer.is_framing
        )

    def _page(
        self, template: str, data: Mapping[str, Any], status: int, path: str, *, is_framing: bool = False
    ) -> Response:
        """`path` is where the reader comes back to when she has chosen another language."""
        notice = NOTICES.get(self.request.cookies.get(NOTICE_COOKIE, ""), "")
        shown = self.route.method == "GET" and status == 200
        origin, query = self.services.settings.portal.origin, self.request.query_params
        html = self.services.templates.render(
            template, data, language=self.language, session=self.session, space=self.space, csrf=self._csrf(),
            form_id=secrets.token_urlsafe(16), path=path, notice=notice, now=self.now, spaces=self.spaces,
            site=self.services.site, is_agent=bool(self.administration),
            aids=aids(self.route.name, origin, path, query) if shown else None,
        )  # fmt: skip
        response = Response(html, status, media_type="text/html")
        if is_framing:
            targets = [self.services.settings.window.origin]
            response.headers["content-security-policy"] = policy(targets, frames="'self'")
        if notice:
            set_cookie(response, NOTICE_COOKIE, None)
        return response

    def _note_download(self, event: str, about: Mapping[str, Any]) -> None:
        account = self.session.actor.account if self.session is not None else ""
        with writing(self.services.engine) as connection:
            audit.note(connection, self.now, event, account=account, address=self.address, **about)

    def _csrf(self) -> str:
        return sessions.form_token(self.services.key, self.token if self.session is not None else self.visitor)

    def _refused(self, refusal: Refusal) -> Response:
        if self.session is None and self.token:  # it was refused before anybody looked who it is
            try:
                with reading(self.services.engine) as connection:
                    self._recognise(connection)
            except OperationalError as error:
                log.error("nobody is recognised: %s", error.orig)  # noqa: TRY400 -- no fault of ours
        self._write_down(refusal)
        self._extend()
        response = self._problem(refusal) if self.wants_json else self._refusal_page(refusal)
        if refusal.retry_after_s is not None:
            response.headers["retry-after"] = str(max(1, refusal.retry_after_s))
        return response

    def _failed(self, error: Exception) -> Response:
        """Nothing was changed. The reference stands here and in the log, so that one leads to the other."""
        reference = secrets.token_hex(4)
        log.error("reference %s: %s %s", reference, self.route.method, self.route.name, exc_info=error)
        text = self.language.text
        if self.wants_json:
            body = {
                "type": "about:blank", "title": "internal-error", "status": 500, "code": "internal-error",
                "detail": text("Something went wrong here. Nothing was changed."), "reference": reference,
            }  # fmt: skip
            return JSONResponse(body, 500, media_type="application/problem+json")
        html = self.services.templates.render(
            "failed.html", {"reference": reference, "site": self.services.site}, language=self.language
        )
        return Response(html, 500, media_type="text/html")

    def _write_down(self, refusal: Refusal) -> None:
        if self.route.method == "GET" and refusal.code in _OF_LOOKING and not self._is_of_ids(refusal):
            return  # nothing was tried but to look
        actor = self.session.actor if self.session is not None else None
        who = actor.account if actor else network(self.address)
        left_out = self.services.lines.admit(who, self.now, is_nobody=actor is None)
        if left_out is None:
            return
        more = {"left_out": left_out} if left_out else {}
        try:
            with writing(self.services.engine) as connection:
                audit.note(
                    connection, self.now, self.route.name, account=actor.account if actor else "",
                    space=self.space["id"] if self.space else "", outcome=refusal.code, address=self.address,
                    reason=refusal.reason, **more,
                )  # fmt: skip
        except OperationalError as error:
            log.error("a refusal is not in the audit: %s", error.orig)  # noqa: TRY400 -- as above

    def _is_of_ids(self, refusal: Refusal) -> bool:
        """Who is logged in and asks for what is not hers by its id may be trying ids (ASVS 16.3.2)."""
        return refusal.code == "not-found" and self.session is not None and bool(self.request.path_params)

    def _problem(self, refusal: Refusal) -> Response:
        text = self.language.text
        errors = [
            {
                "field": one.field,
                "code": one.code,
                "message": text(one.message, **(one.values or {}), limit=one.limit),
                **({} if one.limit is None else {"limit": one.limit}),
            }
            for one in refusal.errors
        ]
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": refusal.code,
            "status": refusal.status,
            "code": refusal.code,
            "detail": text(refusal.message),
            "reason": refusal.reason,
            **refusal.details,
        }
        if errors:
            body["errors"] = errors
        if refusal.unmet:
            body["unmet"] = [
                {"code": one.code, "message": text(one.message, **(one.values or {})), "href": one.href}
                for one in refusal.unmet
            ]
        return JSONResponse(body, refusal.status, media_type="application/problem+json")

    def _refusal_page(self, refusal: Refusal) -> Response:
        if refusal.code == "unauthenticated" and self.session is None and self.route.level is not Level.OPEN:
            response: Response = RedirectResponse(f"/login?{urlencode({'back': self._page_of_form()})}", 303)
            if self.token:
                set_cookie(response, SESSION_COOKIE, None)
            return response
        if refusal.reason == "terms-not-accepted" and self.route.method == "GET":
            return RedirectResponse(f"/terms?{urlencode({'back': self._page_of_form()})}", 303)
        is_shown_again = refusal.errors or refusal.code in {"stale", "confirmation-required"}
        if is_shown_again and (again := self._same_form(refusal)) is not None:
            return again
        data = {"refusal": refusal, "procedure_at": self._procedure()}
        return self._page("refusal.html", data, refusal.status, self._page_of_form())

    def _procedure(self) -> str:
        """The page of the procedure that was asked for something; empty where it was none."""
        found = next((path for path in _PROCEDURES if f"{self.route.path}/".startswith(f"{path}/")), "")
        return found.format(**self.request.path_params)

    def _page_of_form(self) -> str:
        """Where the reader comes back to: the page that she asked for, or the one that shows the form that she posted."""
        if self.route.method == "GET":
            path, query = self.request.url.path, self.request.url.query
            asked = f"{path}?{query}" if query else path
            return asked if inside(asked) == asked else path
        shows = self.services.forms.get(self.route.name)
        return "/" if shows is None else shows.path.format(**self.request.path_params)

    def _same_form(self, refusal: Refusal) -> Response | None:
        """
        The form once more, with what was typed and what is wrong with it: from the page that shows it. A stale one gets
        the present version, so that sending it again is said knowingly; where a confirmation was missing, it is the page
        that asks for it.
        """
        is_search = self.route.method == "GET"  # its form is its own page's, and the query its fields
        shows = self.route if is_search else self.services.forms.get(self.route.name)
        if shows is None:
            return None
        wrong = {one.field for one in refusal.errors}
        try:
            with reading(self.services.engine) as connection:
                if self.space is not None and self.session is not None:  # as it is now
                    self.space = space.of(connection, self.session.actor, self.space["identifier"])
                ask = replace(self._ask(connection, {}, [], []), form={})
                typed = ask.query if is_search else self.form
                if is_search:
                    ask = replace(ask, query={name: value for name, value in typed.items() if name not in wrong})
                page = shows.view(ask)
        except Refusal:
            return None
        if not isinstance(page, Page):
            return None
        data = {
            **page.data, "form": typed, "errors": refusal.errors, "stale": refusal.code == "stale",
        }  # fmt: skip
        path = shows.path.format(**self.request.path_params)
        return self._page(page.template, data, refusal.status, path, is_framing=page.is_framing)


def _away() -> Refusal:
    return Refusal("signer-unavailable", "Please try again in a moment.")


_PROCEDURES = ("/spaces/{space}/procedures/{reference}", "/spaces/{space}/signatures/{transferred}", "/desk/{sent}")


def _sums(files: Mapping[str, Uploaded]) -> dict[str, str]:
    return {name: one.sha256 for name, one in files.items()}


def _download(answer: Download) -> Response:
    """RFC 6266: the name for people, beside an ASCII one."""
    kind = "inline" if answer.inline else "attachment"
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in answer.name) or "document"
    value = f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(answer.name, safe='')}"
    headers = {"content-disposition": value}
    if answer.is_framed:
        headers |= {"content-security-policy": policy(ancestors="'self'"), "x-frame-options": "SAMEORIGIN"}
    # Looked at here: what is lost on the disk is a mistake that is told like any other.
    return FileResponse(answer.path, media_type=answer.media_type, headers=headers, stat_result=answer.path.stat())
