"""Logging in and out, and registering (TOK-01 to TOK-08, TOK-12 to TOK-15)."""

import base64
import binascii
from typing import Any
from urllib.parse import urlencode

from portal_adapter.auth import certificate as certificates
from portal_adapter.auth import statement as statements
from portal_adapter.auth.session import SESSION_COOKIE
from portal_adapter.domain import login
from portal_adapter.domain.fields import Fields
from portal_adapter.domain.ids import hashed
from portal_adapter.domain.login import LoggedIn, Proof
from portal_adapter.refusal import Refusal, guard
from portal_adapter.store.database import reading
from portal_adapter.web.answer import Answer, Page, Redirect
from portal_adapter.web.ask import Ahead, Ask
from portal_adapter.web.back import inside
from portal_adapter.web.route import Level, Route

NUMBER_CHARACTERS_MAX = 63  # a credential's name


def show(ask: Ask) -> Answer:
    """The ways to log in."""
    return Page("login.html", {"back": inside(ask.query.get("back", "/"))})


def begin_server(ask: Ask) -> Answer:
    """To the window, where the code is typed."""
    fields = Fields(ask.form)
    number = fields.text("number", most=NUMBER_CHARACTERS_MAX)
    fields.check()
    nonce = _begin(ask, number)
    ends = ask.now + ask.settings.limits.challenge_s
    query = urlencode({"credential": number, "nonce": nonce, "ends": ends, "language": ask.language.code})
    return Redirect(f"{ask.settings.window.origin}/login?{query}", outside=True)


def begin_card(ask: Ask) -> Answer:
    """To the origin where TLS asks for the certificate."""
    where = ask.settings.cards or ask.settings.front
    if where is None:
        raise Refusal("not-found")
    nonce = _begin(ask, "")
    return Redirect(
        f"{where.origin}/present?{urlencode({'language': ask.language.code, 'nonce': nonce})}", outside=True
    )


def back_from_window(ask: Ask) -> Answer:
    """With the statement that the daemon signed."""
    statement, signature, der = (_decoded(ask.form.get(name, "")) for name in ("statement", "signature", "certificate"))
    nonce = hashed(statements.nonce_of(statement))
    back, number = login.use_attempt(ask.connection, ask.now, nonce, ask.visitor, ask.settings.limits)
    found = ask.services.issuers.accept(der, ask.now)
    certificates.check_for_login(found)
    window = ask.settings.window
    statements.check(statement, signature, der, caller=window.caller, audience=ask.settings.portal.origin)
    return _finish(ask, Proof(found, number, back))


def back_from_cards(ask: Ask) -> Answer:
    """With a ticket for the certificate that was presented."""
    nonce, der = login.take_ticket(ask.connection, ask.now, ask.form.get("ticket", ""), ask.settings.limits)
    back, _ = login.use_attempt(ask.connection, ask.now, nonce, ask.visitor, ask.settings.limits)
    found = ask.services.issuers.accept(der, ask.now)
    certificates.check_for_login(found)
    return _finish(ask, Proof(found, "", back))


def returned(ask: Ask) -> Answer:
    """Where the window and the cards' origin lead to: a page whose one button posts what they gave, so that a GET changes nothing."""
    names = ("statement", "signature", "certificate", "ticket")
    given = {name: ask.query[name] for name in names if name in ask.query}
    return Page("returned.html", {"given": given})


def show_registration(ask: Ask) -> Answer:
    """A new account; who has one adds the product to it."""
    if ask.session is not None:
        return Redirect("/account/products/new")
    proof = login.presented_in(ask.connection, ask.now, ask.visitor)
    if proof is None:
        return Redirect("/login")
    if login.renewed(ask.connection, proof) is not None:
        return Redirect("/renewal")
    return Page("register.html", _shown(proof))


def register(ask: Ask) -> Answer:
    if (same := _again(ask)) is not None:
        return same
    if ask.session is not None:
        return Redirect("/account/products/new")
    done = login.register(
        ask.connection, ask.now, ask.visitor, dict(ask.form), ask.language.code, ask.settings.limits, ask.address,
        ask.found,
    )  # fmt: skip
    return _opened(done)


def show_renewal(ask: Ask) -> Answer:
    """A product that renews one of an account: it becomes that account's when the person says so."""
    proof = None if ask.session is not None else login.presented_in(ask.connection, ask.now, ask.visitor)
    old = None if proof is None else login.renewed(ask.connection, proof)
    if proof is None or old is None:
        return Redirect("/register")
    return Page("renewal.html", _shown(proof))


def renew(ask: Ask) -> Answer:
    if (same := _again(ask)) is not None:
        return same
    if ask.session is not None:
        return Redirect("/account/products/new")
    return _opened(login.renew(ask.connection, ask.now, ask.visitor, ask.address, ask.found))


def look_at_registration(ahead: Ahead) -> str:
    """As `look_at_number`; raises `guard-failed` `product-renewed` for who has an account already."""
    with reading(ahead.services.engine) as connection:
        proof = login.presented_in(connection, ahead.now, ahead.visitor)
        if proof is not None and login.renewed(connection, proof) is not None:
            message = "This product renews one that has an account here. Confirm that, and go on with that account."
            raise guard("product-renewed", message, "/renewal")
    return look_at_number(ahead)


def look_at_number(ahead: Ahead) -> str:
    """Answers the proof whose number was found to be its certificate's; raises `guard-failed` `other-number`."""
    with reading(ahead.services.engine) as connection:
        proof = login.presented_in(connection, ahead.now, ahead.visitor)
    if proof is None or not proof.number:
        return ""
    if ahead.services.numbers.certificate_of(proof.number) != proof.certificate.der:
        message = "The product number that was typed is not this product’s. Log in again with the number of this one."
        raise guard("other-number", message, "/login")
    return proof.key


def logout(ask: Ask) -> Answer:
    """Whoever uses this browser next registers nothing that was presented in it."""
    login.forget(ask.connection, ask.visitor)
    if ask.session is not None:
        login.logout(ask.connection, ask.now, ask.actor.account, ask.session.token, ask.address)
    return Redirect("/", {SESSION_COOKIE: None})


def _shown(proof: Proof) -> dict[str, Any]:
    found = proof.certificate
    return {
        "family": found.family, "given": found.given, "issuer": found.issuer, "not_after": found.not_after,
        "kind": "server" if proof.number else "", "fingerprint": found.fingerprint,
    }  # fmt: skip


def _again(ask: Ask) -> Answer | None:
    account = ask.actor.account if ask.session is not None else ""
    done = login.again(ask.connection, ask.now, ask.visitor, account, ask.address)
    return None if done is None else _opened(done)


def _begin(ask: Ask, number: str) -> str:
    back = inside(ask.form.get("back", "/"))
    return login.begin(ask.connection, ask.now, ask.visitor, back, number, ask.settings.limits, ask.address)


def _finish(ask: Ask, proof: Proof) -> Answer:
    if ask.session is not None and login.owner_of(ask.connection, proof) == ask.actor.account:
        login.logout(ask.connection, ask.now, ask.actor.account, ask.session.token, ask.address)  # she changes to it
    elif ask.session is not None:  # another product of a person who is logged in
        login.present(ask.connection, ask.now, proof, ask.visitor)
        return Redirect("/account/products/new")
    done = login.finish(ask.connection, ask.now, proof, ask.visitor, ask.address)
    return Redirect("/register") if done is None else _opened(done)


def _opened(done: LoggedIn) -> Answer:
    back = "/home" if done.back == "/" else done.back
    return Redirect(back, {SESSION_COOKIE: done.token} if done.token else {})


def _decoded(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise Refusal("unauthenticated", "This login could not be checked. Please begin again.") from None


ROUTES = (
    Route("GET", "/login", "login", show, Level.OPEN, ("TOK-01", "TOK-12")),
    Route("POST", "/login/server", "login-server", begin_server, Level.OPEN, ("TOK-02", "TOK-14")),
    Route("POST", "/login/card", "login-card", begin_card, Level.OPEN, ("TOK-02", "TOK-14")),
    Route("GET", "/login/returned", "returned", returned, Level.OPEN, ("TOK-14",)),
    Route("POST", "/login/statement", "login-statement", back_from_window, Level.OPEN, ("TOK-03", "TOK-14")),
    Route("POST", "/login/ticket", "login-ticket", back_from_cards, Level.OPEN, ("TOK-03", "TOK-14")),
    Route("GET", "/register", "registration", show_registration, Level.OPEN, ("TOK-06", "TOK-15")),
    Route("POST", "/register", "register", register, Level.OPEN, ("TOK-07", "TOK-15"), before=look_at_registration),
    Route("GET", "/renewal", "renewal", show_renewal, Level.OPEN, ("TOK-06",)),
    Route("POST", "/renewal", "renew", renew, Level.OPEN, ("TOK-06",), before=look_at_number),
    Route("POST", "/logout", "logout", logout, Level.OPEN, ("TOK-12",)),
)
FORMS = {"login-server": "login", "login-card": "login", "register": "registration", "renew": "renewal"}
