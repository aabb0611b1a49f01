"""
Signing: a person reads the daemon's copy of what a portal has sent, approves it, and signs it with what her product asks
for (SIG-02, SIG-05 to SIG-07, SIG-09, SIG-13, SIG-15). Choosing the certificate and saving are the portal's steps.

    /sign?link=...     the daemon's one-time link, once: then the batch is this browser's, and the link out of the address
    /sign/approve      step 2: read and approved
    /sign/codes        step 3: secret code and one-time code, or the PIN of a card
    /sign/cancel       from either, and back to the portal
    /sign/document/0   what is read

How the batch stands the daemon is asked for each page; what was approved, and when, is in the browser's cookie (attempt.py).
So steps are taken in their order, whatever is posted.
"""

import asyncio
import hmac
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from starlette.responses import RedirectResponse, Response, StreamingResponse

from portal_adapter.language import msgid
from portal_adapter.network import network
from portal_adapter.refusal import FieldError, Refusal
from portal_adapter.web.headers import policy
from portal_adapter.window import reasons
from portal_adapter.window.attempt import COOKIE, Attempt, link_of, opened, sealed
from portal_adapter.window.daemon import Batch, Daemon, Typed
from portal_adapter.window.login import typed
from portal_adapter.window.visit import Visit
from signer.client import ServiceError

log = logging.getLogger("window")

LINK_CHARACTERS_MAX = 128  # the daemon's have 43
FORM_CHARACTERS_MAX = 64
LOOKS, LOOK_S = 20, 0.5  # at a batch that somebody else is signing just now

Done = tuple[bool, ServiceError | None]  # whether the batch is over, and why something of it is not signed
View = Callable[[Visit, Attempt, Batch], Awaitable[Response]]

# A batch that is not open any more: state -> what the portal is told, heading, what to do.
_ENDED: Mapping[str, tuple[str, str, str]] = {
    "SIGNED": ("signed", msgid("This is signed"), msgid("Continue to {portal_name} to save it there.")),
    "CANCELLED": (
        "cancelled",
        msgid("This signing was cancelled"),
        msgid("Nothing was signed. On {portal_name} you can begin again."),
    ),
    "SIGNING": ("", msgid("This is being signed"), msgid("It takes a moment. Look again whether it is done.")),
}


def _of_batch(view: View) -> Callable[[Visit], Awaitable[Response]]:
    """A step of a batch that is this browser's; for every other there is a page that says what to do."""

    async def step(visit: Visit) -> Response:
        attempt = _attempt(visit)
        if attempt is None:
            return _gone(visit)
        try:
            batch = await visit.services.daemon.batch(attempt.batch)
        except ServiceError as error:
            return _away(visit, attempt, error)
        return await view(visit, attempt, batch)

    return step


def _open(view: View) -> Callable[[Visit], Awaitable[Response]]:
    """A step of one that is still open, too."""

    async def step(visit: Visit, attempt: Attempt, batch: Batch) -> Response:
        return await view(visit, attempt, batch) if batch.is_open else _ended(visit, attempt, batch)

    return _of_batch(step)


async def begin(visit: Visit) -> Response:
    """By the portal's link, or back to where she was. A link is good once, for the browser that follows it first."""
    attempt, link = _attempt(visit), visit.query.get("link", "")[:LINK_CHARACTERS_MAX]
    if attempt is not None and (not link or hmac.compare_digest(attempt.link, link_of(link))):
        return visit.redirect("/sign/approve")
    if not link:
        return _gone(visit)
    try:
        batch, ends = await visit.services.daemon.follow(link)
    except ServiceError as error:
        return _away(visit, None, error)
    log.info("batch %s is shown to a browser at %s", batch, visit.address)
    return _keep(visit, Attempt(batch, link_of(link), ends), visit.redirect("/sign/approve"))


# ---- step 2


@_open
async def show_approval(visit: Visit, _: Attempt, batch: Batch) -> Response:
    return _page(visit, "sign_approve.html", batch)


@_open
async def approve(visit: Visit, attempt: Attempt, batch: Batch) -> Response:
    if visit.form.get("shown") != batch.shown:
        return _not_the_same(visit, batch)
    if visit.form.get("approved") != "yes":
        mistake = FieldError("approved", "required", "Tick this box once you have read the document.")
        return _page(visit, "sign_approve.html", batch, Refusal("validation", errors=[mistake]))
    log.info("batch %s is approved, from %s", batch.id, visit.address)
    approved = replace(attempt, approved=int(time.time()), shown=batch.shown)
    return _keep(visit, approved, visit.redirect("/sign/codes"))


# ---- step 3


@_open
async def show_codes(visit: Visit, attempt: Attempt, batch: Batch) -> Response:
    if attempt.shown != batch.shown:
        return visit.redirect("/sign/approve")
    return _codes(visit, batch, contact=attempt.contact)


@_of_batch
async def answer(visit: Visit, attempt: Attempt, batch: Batch) -> Response:
    # The second of two clicks may find it no longer open, by the first: it is answered as that one.
    if not batch.is_open and not _is_twin(visit, batch):
        return _ended(visit, attempt, batch)
    if visit.form.get("shown") != batch.shown:
        return _not_the_same(visit, batch)
    if attempt.shown != batch.shown:
        refusal = Refusal("forbidden-transition", "Read and approve the document first.", reason="not-approved")
        return _page(visit, "sign_approve.html", batch, refusal)
    return await (_send_code(visit, attempt, batch) if visit.form.get("do") == "send" else _sign(visit, attempt, batch))


def _is_twin(visit: Visit, batch: Batch) -> bool:
    try:
        return visit.services.acts.knows(batch.id, _sent(visit, typed(visit, _fields(batch))))
    except Refusal:
        return False


def _sent(visit: Visit, given: Typed) -> tuple[str, ...]:
    """What makes two forms the same one."""
    return (visit.form.get("form", "")[:FORM_CHARACTERS_MAX], given.secret_code, given.otp, given.pin)


async def _send_code(visit: Visit, attempt: Attempt, batch: Batch) -> Response:
    try:
        visit.services.pace.check(network(visit.address), visit.now)
        contact = await visit.services.daemon.send_code_for(batch.id, visit.address)
    except ServiceError as error:
        return _codes(visit, batch, reasons.refusal(error), is_final=reasons.is_final(error))
    except Refusal as refusal:
        return _codes(visit, batch, refusal)
    log.info("a code was sent for batch %s, asked for by %s", batch.id, visit.address)
    return _keep(visit, replace(attempt, contact=contact), visit.redirect("/sign/codes", field="secret_code"))


async def _sign(visit: Visit, attempt: Attempt, batch: Batch) -> Response:
    try:
        given = typed(visit, _fields(batch))
        visit.services.pace.check(network(visit.address), visit.now)
    except Refusal as refusal:
        return _codes(visit, batch, refusal)
    is_over, problem = await visit.services.acts.once(
        batch.id, _sent(visit, given), lambda: _signed(visit.services.daemon, batch, given), waits=bool(batch.presence)
    )
    if problem is None:
        log.info("batch %s is signed, from %s", batch.id, visit.address)
        return _to_portal(visit, attempt, "signed")
    log.info("batch %s is not signed, from %s: %s", batch.id, visit.address, problem.reason or problem.code)
    if problem.reason == "BATCH_STATE":
        return await _settled(visit, attempt)
    if is_over or problem.reason == "AUTHZ_DIGEST":
        return _failed(visit, attempt, is_over=is_over)
    if problem.reason == "BATCH_UNKNOWN":
        return _gone(visit, attempt)
    told = reasons.of_token(problem) if batch.gate == "token-pin" else reasons.of_codes(problem, batch.gate)
    return _codes(visit, batch, told, is_final=reasons.is_final(problem))


async def _signed(daemon: Daemon, batch: Batch, given: Typed) -> Done:
    """The daemon is asked once. What comes back, and may be kept for a moment, holds nothing that was typed."""
    try:
        is_over, reason = await daemon.sign(batch, given)
    except ServiceError as error:
        return False, ServiceError(error.reason, "", error.code, error.retry_s, error.tries_left)
    except asyncio.CancelledError:  # given up
        return False, ServiceError("CANCELLED", "")
    return is_over, ServiceError(reason, "") if reason else None


async def _settled(visit: Visit, attempt: Attempt) -> Response:
    """Somebody is at the same batch, who is most often herself, by a second click: how it comes out."""
    try:
        for _ in range(LOOKS):
            batch = await visit.services.daemon.batch(attempt.batch)
            if batch.state != "SIGNING":
                break
            await asyncio.sleep(LOOK_S)
    except ServiceError as error:
        return _away(visit, attempt, error)
    if batch.state == "SIGNED":
        return _to_portal(visit, attempt, "signed")
    if not batch.is_open:
        return _ended(visit, attempt, batch)
    message = "This was sent twice, and what was sent first was not accepted. Please look, and try again."
    return _codes(visit, batch, Refusal("forbidden-transition", message, reason="sent-twice"))


# ---- leaving


async def cancel(visit: Visit) -> Response:
    """
    Whatever the daemon answers she is led back: the portal destroys what was signed in the very moment (SIG-09), and a
    batch that could not be cancelled ends by itself.
    """
    attempt = _attempt(visit)
    if attempt is None:
        return _gone(visit)
    visit.services.acts.give_up(attempt.batch)
    try:
        await visit.services.daemon.cancel(attempt.batch)
    except ServiceError as error:
        log.info("batch %s is left, and was not cancelled: %s", attempt.batch, error.reason or error.code)
    else:
        log.info("batch %s is cancelled, from %s", attempt.batch, visit.address)
    return _to_portal(visit, attempt, "cancelled")


# ---- the document


async def document(visit: Visit) -> Response:
    """As the daemon has it, byte for byte, or why there is none: in a frame of our own pages, and of no others."""
    response = await _document(visit)
    response.headers["content-security-policy"] = policy(ancestors="'self'")
    response.headers["x-frame-options"] = "SAMEORIGIN"
    return response


@_open
async def _document(visit: Visit, attempt: Attempt, batch: Batch) -> Response:
    """A PDF is shown, anything else is saved."""
    index = int(visit.request.path_params["index"])
    if index >= len(batch.documents) or not batch.is_seen:
        return visit.refused("refused.html", {}, Refusal("not-found"))
    pieces = aiter(visit.services.daemon.document(batch.id, index))
    try:
        first = await anext(pieces, b"")
    except ServiceError as error:
        if error.reason == "AUTHZ_DIGEST":
            return _failed(visit, attempt, is_over=False)
        return _away(visit, attempt, error)
    kind, how = ("application/pdf", "inline") if batch.is_pdf else ("application/octet-stream", "attachment")
    one = batch.documents[index]
    headers = {
        "content-length": str(one.size),
        "content-disposition": f"{how}; filename*=UTF-8''{quote(one.name, safe='')}",
    }
    return StreamingResponse(_all(first, pieces), media_type=kind, headers=headers)


async def _all(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in pieces:
        yield piece


# ---- the cookie


def _attempt(visit: Visit) -> Attempt | None:
    cookie = visit.request.cookies.get(COOKIE, "")
    return opened(visit.services.key, visit.browser, cookie, time.time())


def _keep(visit: Visit, attempt: Attempt, response: Response) -> Response:
    response.set_cookie(
        COOKIE, sealed(visit.services.key, visit.browser, attempt), max_age=max(0, attempt.ends - int(time.time())),
        path="/", secure=True, httponly=True, samesite="lax",
    )  # fmt: skip
    return response


# ---- pages


def _fields(batch: Batch) -> tuple[str, ...]:
    """What is typed here; at a reader with a pad of its own nothing is."""
    if batch.gate == "token-pin":
        return () if batch.presence == "pad" else ("pin",)
    return ("secret_code", "otp")


def _codes(
    visit: Visit, batch: Batch, refusal: Refusal | None = None, *, contact: str = "", is_final: bool = False
) -> Response:
    """Step 3; where nothing that is typed helps, without fields."""
    trouble = None
    if refusal is None and batch.gate == "token-pin" and batch.trouble:
        trouble = reasons.of_token(ServiceError(batch.trouble, "")).message
    more = {"contact": contact, "is_final": is_final, "trouble": trouble, "form_id": secrets.token_urlsafe(16)}
    return _page(visit, "sign_codes.html", batch, refusal, **more)


def _not_the_same(visit: Visit, batch: Batch) -> Response:
    """Most often a second signing was begun in this browser, and the form is of the first."""
    message = "This is not the document of the page that you sent. Read this one, or go back."
    return _page(visit, "sign_approve.html", batch, Refusal("stale", message))


def _page(visit: Visit, template: str, batch: Batch, refusal: Refusal | None = None, **more: Any) -> Response:
    at = visit.query.get("document", "")
    data = {
        "batch": batch,
        "at": next((index for index in range(len(batch.documents)) if str(index) == at), 0),
        "fields": _fields(batch),
        "left_min": max(1, math.ceil((batch.ends - time.time()) / 60)),
        "now": int(time.time()),
        **more,
    }
    response = visit.page(template, data) if refusal is None else visit.refused(template, data, refusal)
    portal = visit.services.settings.portal.origin
    response.headers["content-security-policy"] = policy([portal], frames="'self'")
    return response


def _ended(visit: Visit, attempt: Attempt, batch: Batch) -> Response:
    outcome, heading, text = _ENDED[batch.state]
    data = {"heading": heading, "text": text, "back": _back(visit, attempt, outcome) if outcome else ""}
    return visit.page("sign_over.html", data, Refusal("forbidden-transition").status)


def _failed(visit: Visit, attempt: Attempt, *, is_over: bool) -> Response:
    if is_over:
        text = msgid("No good signature came from the token. Whoever runs the service can see why.")
    else:
        text = msgid("The document is not what you were shown any more, so nothing was signed.")
    data = {"heading": msgid("This could not be signed"), "text": text, "back": _back(visit, attempt, "failed")}
    return visit.page("sign_over.html", data, Refusal("stale").status)


def _gone(visit: Visit, attempt: Attempt | None = None) -> Response:
    data = {
        "heading": msgid("This signing is not here any more"),
        "text": msgid(
            "Its link was used already, perhaps in another window, or its time is over. On {portal_name} you see how it stands, and can begin again."
        ),
        "back": _back(visit, attempt, "over") if attempt else f"{visit.services.settings.portal.origin}/",
    }
    return visit.page("sign_over.html", data, Refusal("gone").status)


def _away(visit: Visit, attempt: Attempt | None, error: ServiceError) -> Response:
    """The daemon does not know it any more, or does not answer: the same page again, or back."""
    if error.reason == "BATCH_UNKNOWN":
        return _gone(visit, attempt)
    log.warning("the daemon does not show a batch: %s", error.reason or error.code)
    again = "" if attempt is not None else visit.query.get("link", "")[:LINK_CHARACTERS_MAX]
    return visit.refused("sign_away.html", {"link": again, "is_ours": attempt is not None}, reasons.trouble(error))


def _to_portal(visit: Visit, attempt: Attempt, outcome: str) -> Response:
    return RedirectResponse(_back(visit, attempt, outcome), 303)


def _back(visit: Visit, attempt: Attempt, outcome: str) -> str:
    """
    The portal's page with one button. `outcome`: 'signed', 'failed' (a token made no good signature, or the copy was changed),
    'cancelled', 'over' (its time). It comes by a browser: the portal asks the daemon what is true.
    """
    approved = datetime.fromtimestamp(attempt.approved, UTC).isoformat() if attempt.approved else ""
    query = urlencode({"batch": attempt.batch, "outcome": outcome, "approved": approved})
    return f"{visit.services.settings.portal.origin}/signings/returned?{query}"
