"""
The cards' origin: one page. TLS has asked for the certificate; here it becomes a ticket, which goes back to the portal
through the browser that presented it.
"""

from urllib.parse import urlencode

from portal_adapter.auth.certificate import Certificate
from portal_adapter.domain import login
from portal_adapter.refusal import Refusal
from portal_adapter.web.answer import Answer, Page, Redirect
from portal_adapter.web.ask import Ask
from portal_adapter.web.route import Level, Route


def present(ask: Ask) -> Answer:
    """A page with one button: a GET changes nothing."""
    certificate = ask.peer_certificate
    shown = _accepted(ask, certificate) if certificate is not None else None
    data = {
        "nonce": ask.query.get("nonce", ""),
        "name": "" if shown is None else f"{shown.given} {shown.family}",
        "issuer": "" if shown is None else shown.issuer,
    }
    return Page("present.html", data)


def presented(ask: Ask) -> Answer:
    if ask.peer_certificate is None:
        raise Refusal("unauthenticated", "Your browser has presented no certificate.", reason="no-certificate")
    limits = ask.settings.limits
    _accepted(ask, ask.peer_certificate)
    ticket = login.issue_ticket(ask.connection, ask.now, ask.form.get("nonce", ""), ask.peer_certificate, limits)
    query = urlencode({"ticket": ticket})
    return Redirect(f"{ask.settings.portal.origin}/login/returned?{query}", outside=True)


def _accepted(ask: Ask, certificate: bytes) -> Certificate:
    """Raises `forbidden` with what is wrong with it, which has an audit line though it is but shown here (TOK-08)."""
    try:
        return ask.services.issuers.accept(certificate, ask.now)
    except Refusal as refusal:
        message = refusal.message or refusal.errors[0].message
        raise Refusal("forbidden", message, reason=refusal.reason) from None


CARDS_ROUTES = (
    Route("GET", "/present", "present", present, Level.OPEN, ("TOK-08", "TOK-14")),
    Route("POST", "/present", "presented", presented, Level.OPEN, ("TOK-08", "TOK-14")),
)
