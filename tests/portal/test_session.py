"""Opening a session, keeping it, and losing it."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from sqlalchemy import select

from portal_adapter import app as portal
from portal_adapter.auth import statement as statements
from portal_adapter.auth.certificate import Issuers
from portal_adapter.auth.session import SESSION_COOKIE, VISITOR_COOKIE
from portal_adapter.refusal import Refusal
from portal_adapter.settings import SettingsError, load
from portal_adapter.store.schema import accounts, attempts, audit, products, sessions
from portal_adapter.web.back import inside
from portal_adapter.web.route import Level
from portal_adapter.web.routes import ROUTES
from portal_adapter.web.views.cards import CARDS_ROUTES
from tests.portal.cards import at_cards, nonce_of_card, ticket
from tests.portal.place import CARDS, WINDOW, Issuer, Known, Place, Product, SetClock, Visitor, hidden
from tests.portal.town import picture

CLOSED = "/login?back=%2Faccount"


def begins(visitor: Visitor, number: str = "ada-login", back: str = "/") -> str:
    """The nonce that the window is given."""
    begun = visitor.post("/login/server", {"number": number, "back": back}, page="/login")
    assert begun.status_code == 303, begun.text
    assert begun.headers["location"].startswith(f"{WINDOW}/login?")
    nonce = re.search(r"nonce=([0-9a-f]{64})", begun.headers["location"])
    assert nonce is not None
    return nonce[1]


def in_session(visitor: Visitor) -> bool:
    answer = visitor.get("/account")
    assert (answer.status_code, answer.headers.get("location", CLOSED)) in {(200, CLOSED), (303, CLOSED)}
    return answer.status_code == 200


def outcomes(place: Place, event: str) -> list[str]:
    with place.services.engine.connect() as connection:
        return list(connection.execute(select(audit.c.outcome).where(audit.c.event == event)).scalars())


def has_no_session(place: Place) -> bool:
    with place.services.engine.connect() as connection:
        return connection.execute(select(sessions)).first() is None


# ---- the challenge


def test_a_challenge_is_32_fresh_bytes(place: Place) -> None:
    """TOK-14: each login has a nonce of 32 bytes of its own, and the database does not have it."""
    ada = place.visitor()
    nonces = {begins(ada) for _ in range(5)}
    assert len(nonces) == 5
    content = (place.directory / "state" / "portal.db").read_bytes()
    assert not any(nonce.encode() in content for nonce in nonces)


def test_a_challenge_is_over_after_two_minutes(place: Place) -> None:
    """TOK-14: a statement for a challenge of 120 s ago is accepted, a second later it is `unauthenticated`."""
    product = place.issuer.product("Ada", "Lovelace")
    for waits, status in ((120, 303), (121, 401)):
        ada = place.visitor()
        nonce = begins(ada)
        SetClock.later(waits)
        assert ada.post("/login/statement", product.statement(nonce)).status_code == status
    assert outcomes(place, "login-statement") == ["unauthenticated"]


def test_the_window_is_told_when_a_login_ends(place: Place) -> None:
    """TOK-14: with the challenge the window gets the time until which the portal takes it."""
    begun = place.visitor().post("/login/server", {"number": "ada-login", "back": "/"}, page="/login")
    assert parse_qs(urlsplit(begun.headers["location"]).query)["ends"] == [str(SetClock.at + 120)]


def test_a_statement_is_taken_once(place: Place) -> None:
    """TOK-14: a statement that has opened a session opens no second one, in the same browser and after logging out."""
    ada = place.visitor()
    product = ada.logs_in()
    ada.post("/logout")
    statement = product.statement(begins(ada))
    assert ada.post("/login/statement", statement).headers["location"] == "/home"
    assert ada.post("/login/statement", statement).status_code == 401
    ada.post("/logout")
    again = ada.post("/login/statement", statement)
    assert again.status_code == 401
    assert not in_session(ada)


def test_a_statement_of_another_browser_is_refused(place: Place) -> None:
    """TOK-14: a login is finished only in the browser that began it: a stolen statement is worth nothing elsewhere."""
    ada, thief = place.visitor(), place.visitor()
    product = place.issuer.product("Ada", "Lovelace")
    statement = product.statement(begins(ada))
    assert thief.post("/login/statement", statement).status_code == 401
    assert ada.post("/login/statement", statement).status_code == 303  # and the thief's try has not used it up


@pytest.mark.parametrize(
    "changed",
    [
        {"caller": "other"},
        {"audience": "https://evil.example"},
        {"nonce": "00" * 32},
        {"nonce": ""},
        {"subject": "ada\nx"},
    ],
)
def test_a_statement_for_something_else_is_refused(place: Place, changed: dict[str, str]) -> None:
    """TOK-14: another caller's statement, one for another portal, another challenge or with another line is `unauthenticated`."""
    ada = place.visitor()
    product = place.issuer.product("Ada", "Lovelace")
    fields = {"nonce": begins(ada)} | changed
    assert ada.post("/login/statement", product.statement(fields.pop("nonce"), **fields)).status_code == 401
    assert ada.get("/register").headers["location"] == "/login"
    assert has_no_session(place)


@pytest.mark.parametrize("field", ["statement", "signature", "certificate"])
@pytest.mark.parametrize("value", ["", "A", "!!!!", "AAAA", "A" * 8000, "é"])
def test_a_statement_that_cannot_be_read_is_refused(place: Place, field: str, value: str) -> None:
    """TOK-14: whatever stands in the three fields is refused with its code, and opens nothing."""
    ada = place.visitor()
    product = place.issuer.product("Ada", "Lovelace")
    answer = ada.post("/login/statement", product.statement(begins(ada)) | {field: value})
    assert answer.status_code in {401, 422}, answer.text
    assert has_no_session(place)


def test_a_signature_of_another_key_is_refused(place: Place) -> None:
    """TOK-14: a statement is believed when the presented certificate's own key has signed it."""
    ada = place.visitor()
    nonce = begins(ada)
    product, other = (place.issuer.product("Ada", "Lovelace") for _ in range(2))
    mixed = product.statement(nonce) | {"signature": other.statement(nonce)["signature"]}
    assert ada.post("/login/statement", mixed).status_code == 401


# ---- the certificate


def test_the_right_one_of_two_certificates(place: Place) -> None:
    """TOK-03: a certificate for signing does not log in (`wrong-certificate-usage`); one for both does."""
    ada = place.visitor()
    signing = place.issuer.product("Ada", "Lovelace", signs=True)
    answer = ada.post("/login/statement", signing.statement(begins(ada)), headers={"accept": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["reason"] == "wrong-certificate-usage"
    assert answer.json()["errors"][0]["field"] == "product"
    both = place.issuer.product("Ada", "Lovelace", both=True)
    assert ada.post("/login/statement", both.statement(begins(ada))).headers["location"] == "/register"


@pytest.mark.parametrize(
    ("issuer", "days", "reason"),
    [("own", -1, "certificate-expired"), ("own", 900, ""), ("other", 365, "untrusted-issuer")],
)
def test_only_valid_certificates_of_accepted_issuers(place: Place, issuer: str, days: int, reason: str) -> None:
    """TOK-08: an expired certificate, and one of a CA that only has an accepted one's name, are refused with the reason."""
    ada = place.visitor()
    product = (place.issuer if issuer == "own" else Issuer()).product("Ada", "Lovelace", days=days)
    answer = ada.post("/login/statement", product.statement(begins(ada)), headers={"accept": "application/json"})
    if not reason:
        assert answer.json() == {"location": "/register"}
        return
    assert (answer.status_code, answer.json()["reason"]) == (409, reason)
    assert outcomes(place, "login-statement") == ["guard-failed"]


@pytest.mark.parametrize(
    "changed",
    [
        lambda der: der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07"),  # a version that there is not
        lambda der: der.replace(b"\x06\x03\x55\x1d\x0f", b"\x06\x03\x55\x1d\x25"),  # an extension twice
        lambda der: der.replace(b"\x2a\x86\x48\xce\x3d\x04\x03\x02", b"\x2a\x86\x48\xce\x3d\x04\x03\x7f"),  # an unknown algorithm
        lambda der: der[: len(der) // 2],
    ],
)  # fmt: skip
def test_whatever_is_sent_as_a_certificate_is_refused(place: Place, changed: Callable[[bytes], bytes]) -> None:
    """TOK-14: bytes that anybody may send are a refusal, and no mistake of ours in the log."""
    product = place.issuer.product("Ada", "Lovelace")
    der = changed(product.der)
    assert der != product.der
    with pytest.raises(Refusal):
        place.services.issuers.accept(der, SetClock.at)


def revoked(
    place: Place,
    name: str,
    *products: Product,
    days: int = 7,
    issuer: Issuer | None = None,
    signed_with: hashes.HashAlgorithm | None = None,
) -> Path:
    """A list with those products, of the place's CA or in its name."""
    now, by = datetime.fromtimestamp(SetClock.at, UTC), issuer or place.issuer
    builder = x509.CertificateRevocationListBuilder().issuer_name(by.name)
    builder = builder.last_update(now - timedelta(days=30)).next_update(now + timedelta(days=days))
    for one in products:
        entry = x509.RevokedCertificateBuilder().serial_number(one.certificate.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(now - timedelta(days=1)).build())
    path = place.directory / name
    path.write_bytes(builder.sign(by.key, signed_with or hashes.SHA256()).public_bytes(serialization.Encoding.DER))
    return path


def test_a_revoked_product_does_not_log_in(place: Place) -> None:
    """TOK-08: what its CA has revoked is refused, from the moment that the list is there; a list of the CA's own that is over is none."""
    card, other = place.issuer.product("Ada", "Lovelace"), place.issuer.product("Bob", "Boole")
    text = place.config.read_text().replace(
        'issuers = ["issuers.pem"]', 'issuers = ["issuers.pem"]\ncrls = ["list.crl"]'
    )
    place.config.write_text(text)
    with pytest.raises(SettingsError, match=r"list\.crl: No such file"):
        portal.read_files(load(place.config))
    revoked(place, "list.crl")
    issuers = portal.read_files(load(place.config)).issuers
    assert issuers.accept(card.der, SetClock.at).given == "Ada"
    revoked(place, "list.crl", card)
    assert refusal_of(issuers, card) == ("guard-failed", "certificate-revoked")
    assert issuers.accept(other.der, SetClock.at).given == "Bob"
    revoked(place, "list.crl", card, days=-1)
    assert refusal_of(issuers, card) == ("guard-failed", "certificate-revoked")
    assert refusal_of(issuers, other) == ("signer-unavailable", "no-revocation-list")
    revoked(place, "list.crl", issuer=Issuer())
    assert refusal_of(issuers, other) == ("signer-unavailable", "no-revocation-list")
    (place.directory / "list.crl").write_bytes(b"nothing")
    assert refusal_of(issuers, other) == ("signer-unavailable", "no-revocation-list")


def test_a_session_ends_when_its_product_is_revoked(place: Place) -> None:
    """TOK-08, TOK-12: with the first request after the list has come, for good; other sessions go on, and a list that is over ends none."""
    path = revoked(place, "list.crl")
    place.services = replace(place.services, issuers=Issuers((place.issuer.certificate,), (path,)))
    place.app = portal.app(place.services)
    ada, bob = place.visitor(), place.visitor()
    card = ada.logs_in()
    bob.logs_in("Bob", "Boole")
    assert in_session(ada)
    cookie = ada.http.cookies[SESSION_COOKIE]
    revoked(place, "list.crl", card, days=-1)
    assert not in_session(ada)
    assert in_session(bob)
    revoked(place, "list.crl", issuer=Issuer())
    ada.http.cookies.set(SESSION_COOKIE, cookie, domain="portal.test", path="/")
    assert not in_session(ada)  # the list has changed its mind
    revoked(place, "list.crl")
    ada.proves(card)
    form = ada.form("/account")
    revoked(place, "list.crl", card)
    began = time.monotonic()
    answer = ada.http.post("/account", data={**form, "email": "x@example.org", "language": "en"})
    assert answer.headers["location"].startswith("/login?") and time.monotonic() - began < 4
    assert outcomes(place, "session-ended") == ["done"] * 2
    assert outcomes(place, "account-changed") == []


def refusal_of(issuers: Issuers, product: Product) -> tuple[str, str]:
    with pytest.raises(Refusal) as refused:
        issuers.accept(product.der, SetClock.at)
    return refused.value.code, refused.value.reason


# ---- registering


def test_a_product_of_another_account_is_taken(place: Place) -> None:
    """TOK-15: a product that belongs to somebody cannot be registered once more (`product-taken`)."""
    ada, twin = place.visitor(), place.visitor()
    product = place.issuer.product("Ada", "Lovelace")
    ada.proves(product)
    twin.proves(product)  # both were shown the form before either has confirmed
    form = {"email": "ada@example.org"}
    assert ada.post("/register", form, page="/register").status_code == 303
    answer = twin.post("/register", form, page="/register", headers={"accept": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["code"] == "product-taken"


def test_another_product_is_added_and_the_last_one_stays(place: Place) -> None:
    """TOK-15: a further product of the same person is listed with kind, issuer and expiry; all but the last can be removed."""
    ada = place.visitor()
    ada.logs_in()
    answer = ada.proves(place.issuer.product("ADA", "Love-lace"), "ada-2")
    assert answer.headers["location"] == "/account/products/new"
    assert ada.post("/account/products", page="/account/products/new").status_code == 303
    page = ada.get("/account").text
    assert page.count("Test Products CA") == 2 and "ada-2" in page
    first, second = re.findall(r"/account/products/([0-9a-f]{32})/remove", page)
    assert ada.post(f"/account/products/{second}/remove").status_code == 303
    answer = ada.post(f"/account/products/{first}/remove", headers={"accept": "application/json"})
    assert (answer.status_code, answer.json()["reason"]) == (409, "last-product")


@pytest.mark.parametrize("page", ["/register", "/account/products/new"])
def test_a_number_is_the_presented_products_own(place: Place, page: str) -> None:
    """TOK-15: who names another's number and proves his own certificate registers neither; the daemon says whose a number is."""
    eve = place.visitor()
    if page != "/register":
        eve.logs_in("Eve", "Moriarty")
    eve.proves(place.issuer.product("Eve", "Moriarty"), "ada-login")
    place.numbers["ada-login"] = place.issuer.product("Ada", "Lovelace").der
    form = {"email": "eve@example.org"}
    target = page.removesuffix("/new")
    answer = eve.post(target, form, page=page, headers={"accept": "application/json"})
    assert (answer.status_code, answer.json()["reason"]) == (409, "other-number")
    with place.services.engine.connect() as connection:
        assert "ada-login" not in connection.execute(select(products.c.number)).scalars().all()


def test_what_is_presented_while_the_number_is_asked_for_is_not_registered(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TOK-15: what was found out about one product is not believed of another that took its place meanwhile."""
    eve = place.visitor()
    product = place.issuer.product("Eve", "Moriarty")
    eve.proves(product, "eve-login")
    form = eve.form("/register")

    def meanwhile(_: object, number: str) -> bytes:
        eve.proves(place.issuer.product("Eve", "Moriarty"), "ada-login")
        return product.der

    monkeypatch.setattr(Known, "certificate_of", meanwhile)
    answer = eve.http.post("/register", data={**form, "email": "eve@example.org"})
    assert answer.status_code == 401


def test_who_shows_another_product_of_hers_changes_to_it(place: Place) -> None:
    """TOK-13, TOK-14: who is asked for another product while she is logged in has a session with it; the old one is over."""
    ada = place.visitor()
    ada.logs_in()
    other = place.issuer.product("Ada", "Lovelace")
    ada.proves(other, "ada-2")
    ada.post("/account/products", page="/account/products/new")
    old = ada.http.cookies[SESSION_COOKIE]
    changed = ada.proves(other, "ada-2", "/spaces")
    assert changed.headers["location"] == "/spaces" and ada.http.cookies[SESSION_COOKIE] != old
    assert [one["in_use"] for one in ada.json("/account").json()["products"]] == [False, True]
    ada.http.cookies.set(SESSION_COOKIE, old, domain="portal.test", path="/")
    assert not in_session(ada)


def test_who_has_an_account_makes_no_second_one(place: Place) -> None:
    """TOK-15: a product that is presented while a session is open is added to its account, by whatever page."""
    ada = place.visitor()
    ada.logs_in()
    ada.proves(place.issuer.product("Ada", "Lovelace"), "ada-2")
    assert ada.get("/register").headers["location"] == "/account/products/new"
    done = ada.post("/register", {"email": "second@example.org"})
    assert done.headers["location"] == "/account/products/new"
    with place.services.engine.connect() as connection:
        assert len(connection.execute(select(accounts)).all()) == 1


def test_the_names_of_another_product_are_its_certificates(place: Place) -> None:
    """TOK-07, TOK-15: names that are posted with it and differ are refused, each beside its field, with an audit line; its own are taken."""
    ada = place.visitor()
    ada.logs_in()
    ada.proves(place.issuer.product("Ada", "Lovelace"), "ada-2")
    done = ada.json("/account/products", {"family": "Byron", "given": "Augusta"})
    assert (done.status_code, [(one["field"], one["code"]) for one in done.json()["errors"]]) == (
        422, [("family", "read-only"), ("given", "read-only")],
    )  # fmt: skip
    with place.services.engine.connect() as connection:
        lines = list(connection.execute(select(audit.c.outcome).where(audit.c.event == "add-product")).scalars())
    assert lines == ["validation"]
    assert len(ada.json("/account").json()["products"]) == 1
    assert ada.json("/account/products", {"family": "Lovelace", "given": "Ada"}).status_code == 200
    assert len(ada.json("/account").json()["products"]) == 2


def test_who_logs_out_leaves_nothing_to_register(place: Place) -> None:
    """TOK-15, TOK-12: whoever uses the browser next cannot register what was presented in it."""
    ada = place.visitor()
    ada.logs_in()
    ada.proves(place.issuer.product("Ada", "Lovelace"), "ada-2")
    ada.post("/logout")
    assert ada.get("/register").headers["location"] == "/login"


def test_a_used_login_keeps_no_link(place: Place) -> None:
    """ESP-23: where a login leads to may be a personal link, and is kept no longer than it is needed."""
    ada = place.visitor()
    ada.logs_in()
    ada.post("/logout")
    ada.proves(place.issuer.product("Ada", "Lovelace"), back="/invitations/secret")
    with place.services.engine.connect() as connection:
        assert set(connection.execute(select(attempts.c.back)).scalars()) == {""}


def test_another_person_s_product_is_not_hers(place: Place) -> None:
    """TOK-15: a product with other names is refused (`other-person`)."""
    ada = place.visitor()
    ada.logs_in()
    ada.proves(place.issuer.product("Bob", "Boole"))
    answer = ada.post("/account/products", page="/account/products/new", headers={"accept": "application/json"})
    assert (answer.status_code, answer.json()["reason"]) == (409, "other-person")


def test_a_removed_product_s_sessions_end(place: Place) -> None:
    """TOK-15, TOK-12, row 6.7: with a product the sessions that it has opened are over, also when it is registered again."""
    ada, stick = place.visitor(), place.visitor()
    ada.logs_in()
    other = place.issuer.product("Ada", "Lovelace")
    ada.proves(other, "ada-2")
    ada.post("/account/products", page="/account/products/new")
    stick.logs_in(product=other)
    assert in_session(stick)
    cookie = stick.http.cookies[SESSION_COOKIE]
    second = re.findall(r"/account/products/([0-9a-f]{32})/remove", ada.get("/account").text)[1]
    ada.post(f"/account/products/{second}/remove")
    assert not in_session(stick)
    assert in_session(ada)
    ada.proves(other, "ada-2")
    assert ada.post("/account/products", page="/account/products/new").status_code == 303
    stick.http.cookies.set(SESSION_COOKIE, cookie, domain="portal.test", path="/")
    assert not in_session(stick)


def test_what_was_presented_waits_a_quarter_of_an_hour(place: Place) -> None:
    """TOK-15: an unknown product may be registered in its browser for 15 minutes after it was presented, and in no other."""
    ada = place.visitor()
    ada.proves(place.issuer.product("Ada", "Lovelace"))
    assert place.visitor().get("/register").headers["location"] == "/login"
    SetClock.later(15 * 60)
    assert ada.get("/register").status_code == 200
    SetClock.later(1)
    assert ada.get("/register").headers["location"] == "/login"


# ---- sessions


def test_every_page_has_a_login_link_or_a_logout(place: Place) -> None:
    """TOK-12: without a session each page links to the login; with one it has a logout and says when the session ends."""
    ada = place.visitor()
    assert all('href="/login"' in ada.get(path).text for path in ("/", "/login", "/terms", "/nothing"))
    ada.logs_in()
    for path in ("/account", "/terms", "/spaces", "/nothing"):
        page = ada.get(path).text
        assert 'action="/logout"' in page
        assert f'data-ends="{SetClock.at + 15 * 60}"' in page


def test_a_session_ends_after_a_quarter_of_an_hour_of_rest(place: Place) -> None:
    """TOK-12, row 6.7: 15 minutes without a request end a session; every request, a GET too, extends it."""
    ada = place.visitor()
    ada.logs_in()
    for _ in range(4):
        SetClock.later(15 * 60 - 10)
        assert in_session(ada)
    SetClock.later(15 * 60)
    assert not in_session(ada)


def test_a_form_that_is_refused_extends_the_session(place: Place) -> None:
    """TOK-12: who mends what was wrong in a long form is not sent to log in before the time that its page says."""
    ada = place.visitor()
    ada.logs_in()
    page = "/spaces/new/business"
    fields = {**ada.form(page), "kind": "legal_person", "title": ""}
    for path, status in ((page, 422), (f"{page}/no", 404)):
        SetClock.later(14 * 60)
        answer = ada.http.post(path, data=fields)
        assert (answer.status_code, f'data-ends="{SetClock.at + 15 * 60}"' in answer.text) == (status, True)
    SetClock.later(14 * 60)
    assert in_session(ada)


def test_a_session_ends_after_eight_hours(place: Place) -> None:
    """TOK-12, row 6.7: 8 hours after the login a session is over, whatever was asked meanwhile; the page says that time."""
    ada = place.visitor()
    ada.logs_in()
    ends = SetClock.at + 8 * 3600
    while SetClock.at < ends - 14 * 60:
        SetClock.later(14 * 60)
        assert in_session(ada)
    assert f'data-ends="{ends}"' in ada.get("/account").text
    SetClock.later(ends - SetClock.at - 1)
    assert in_session(ada)
    SetClock.later(1)
    assert not in_session(ada)


def test_a_logged_out_session_is_over_at_once(place: Place) -> None:
    """
    Row 6.7, TOK-12: sessions: the cookie of one that was logged out opens nothing any more, at once, for pages and for JSON.
    (Fixation, parallel sessions, 15 minutes of rest and 8 hours in all: below. A cookie that was stolen: the client's TLS is
    not looked at, since a browser changes connections; it is the person's who has it until she logs out or is idle.)
    """
    ada, thief = place.visitor(), place.visitor()
    ada.logs_in()
    thief.http.cookies.set(SESSION_COOKIE, ada.http.cookies[SESSION_COOKIE], domain="portal.test", path="/")
    assert in_session(thief)
    gone = ada.post("/logout")
    assert "Max-Age=0" in gone.headers["set-cookie"]
    assert not in_session(thief)
    assert thief.json("/account").status_code == 401


def test_parallel_sessions_end_one_by_one(place: Place) -> None:
    """TOK-12, row 6.7: two browsers of one person have two sessions; a logout ends its own."""
    one, other = place.visitor(), place.visitor()
    product = one.logs_in()
    other.logs_in(product=product)
    assert one.http.cookies[SESSION_COOKIE] != other.http.cookies[SESSION_COOKIE]
    one.post("/logout")
    assert not in_session(one)
    assert in_session(other)


def test_a_session_is_never_one_that_was_given(place: Place) -> None:
    """TOK-12, row 6.7: a cookie that somebody has put into a browser opens nothing, and is not the session's after the login (fixation)."""
    ada = place.visitor()
    ada.http.cookies.set(SESSION_COOKIE, "A" * 43, domain="portal.test", path="/")
    assert not in_session(ada)
    ada.http.cookies.delete(SESSION_COOKIE)
    product = ada.logs_in()
    first = ada.http.cookies[SESSION_COOKIE]
    ada.post("/logout")
    ada.logs_in(product=product)
    assert ada.http.cookies[SESSION_COOKIE] not in {first, "A" * 43}
    assert len(ada.http.cookies[SESSION_COOKIE]) >= 43  # 256 bits


def test_the_database_cannot_open_a_session(place: Place) -> None:
    """TOK-12, row 6.7, TOK-14, row 6.8: neither a session's cookie nor a browser's is in the database; what is there opens nothing as a cookie."""
    ada, thief = place.visitor(), place.visitor()
    ada.logs_in()
    files = [path.read_bytes() for path in (place.directory / "state").rglob("*") if path.is_file()]
    for name in (SESSION_COOKIE, VISITOR_COOKIE):
        assert not any(ada.http.cookies[name].encode() in content for content in files)
    with place.services.engine.connect() as connection:
        stored = connection.execute(select(sessions.c.token)).scalars().all()
    assert len(stored) == 1
    thief.http.cookies.set(SESSION_COOKIE, stored[0], domain="portal.test", path="/")
    assert not in_session(thief)


def test_a_session_knows_its_certificate(place: Place) -> None:
    """TOK-13: with a session the fingerprint of the certificate is kept that was used to open it."""
    ada = place.visitor()
    product = ada.logs_in()
    ada.proves(place.issuer.product("Ada", "Lovelace"), "ada-2")
    ada.post("/account/products", page="/account/products/new")
    with place.services.engine.connect() as connection:
        assert connection.execute(select(products)).mappings().all()[1]["number"] == "ada-2"
        [fingerprint] = connection.execute(select(sessions.c.fingerprint)).scalars()
    assert fingerprint == fingerprint_of(product)


def fingerprint_of(product: Product) -> str:
    from hashlib import sha256

    return sha256(product.der).hexdigest()


# ---- limits, and where a login leads


def test_an_address_begins_ten_logins_a_minute(place: Place) -> None:
    """
    Row 6.6, 0.1: rate limits: the eleventh login that one address begins within a minute is refused with 429 and Retry-After;
    then it goes on. (Wrong codes, 5 in 15 minutes for each person, by which nobody is locked out for longer: test_window.py.
    Codes that are sent, 3 in ten minutes: test_window_app.py. Uploads, 30 a minute: test_archive.py. Signings that are
    begun, 20 a minute for each person: test_signing.py.)
    """
    ada = place.visitor()
    for _ in range(10):
        begins(ada)
    answer = ada.post("/login/server", {"number": "ada-login"}, page="/login")
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    SetClock.later(int(answer.headers["retry-after"]))
    begins(ada)


def test_a_login_leads_to_what_was_asked_for(place: Place) -> None:
    """TOK-05, 0.1: with the filter and the page of a list, also by the terms; a query that is none of ours is left out."""
    ada = place.visitor()
    wanted = "/help?status=to_be_corrected&page=2&q=%C3%A9+a"
    assert inside(wanted) == wanted
    asked = "/spaces?status=to_be_corrected&page=2"
    location = ada.get(asked).headers["location"]
    assert location == "/login?" + urlencode({"back": asked})
    product = place.issuer.product("Ada", "Lovelace")
    ada.logs_in(product=product, terms=False)
    location = ada.get(asked).headers["location"]
    assert location == "/terms?" + urlencode({"back": asked})
    done = ada.post(
        "/terms", {"accepted": "yes", "back": ada.form(location)["back"].replace("&amp;", "&")}, page=location
    )
    assert done.headers["location"] == asked
    ada.post("/logout")
    assert ada.proves(product, back=asked).headers["location"] == asked
    assert place.visitor().get("/spaces?x=https://evil.example").headers["location"] == "/login?back=%2Fspaces"


@pytest.mark.parametrize(
    "back",
    [
        "https://evil.example",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "/%2f/evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\r\nlocation: https://evil.example",
        "javascript:alert(1)",
        "/account?x=https://evil.example",
        "/?//evil.example",
        "/account?x=1#y",
        "/account?x=\r\nlocation:+https%3A%2F%2Fevil.example",
        "//evil.example?x=1",
        "?x=1",
        "/account?" + "a" * 600,
        "evil.example",
        " //evil.example",
        "/@evil.example",
        "",
        "/" + "a" * 300,
    ],
)
def test_a_login_leads_to_no_other_site(place: Place, back: str) -> None:
    """TOK-14: whatever stands in `back`, the login and the choice of a language lead to a page of the portal (CWE-601)."""
    assert inside(back) == "/"
    ada = place.visitor()
    product = ada.logs_in()
    chosen = ada.post("/language", {"language": "fr", "back": back})
    assert chosen.headers["location"] == "/"
    ada.post("/logout")
    assert ada.proves(product, back=back).headers["location"] == "/home"
    shown = place.visitor().get("/login", params={"back": back})
    assert hidden(shown.text)["back"] == "/"


def test_a_login_leads_to_the_page_that_was_wanted(place: Place) -> None:
    """TOK-01, TOK-05: who is nobody yet is sent to log in, and afterwards to the page that was wanted."""
    ada = place.visitor()
    product = ada.logs_in()
    ada.post("/logout")
    assert ada.get("/account").headers["location"] == CLOSED
    back = hidden(ada.get(CLOSED).text)["back"]
    assert ada.proves(product, back=back).headers["location"] == "/account"


# ---- tickets of the cards' origin


def test_a_ticket_is_taken_once_in_its_browser_within_two_minutes(place: Place) -> None:
    """TOK-14: the cards' origin's ticket is good once, in the browser that began, for 120 s; it is not in the database."""
    product = place.issuer.product("Ada", "Lovelace")
    ada, thief = place.visitor(), place.visitor()
    mine = ticket(place, product, nonce_of_card(ada))
    files = [path.read_bytes() for path in (place.directory / "state").rglob("*") if path.is_file()]
    assert not any(mine["ticket"].encode() in content for content in files)
    assert thief.post("/login/ticket", mine).status_code == 401
    assert ada.post("/login/ticket", mine).headers["location"] == "/register"
    assert ada.post("/login/ticket", mine).status_code == 401
    late = ticket(place, product, nonce_of_card(ada))
    SetClock.later(121)
    assert ada.post("/login/ticket", late).status_code == 401
    assert ada.post("/login/ticket", {"ticket": ""}).status_code == 401


@pytest.mark.parametrize(
    ("given", "days", "own", "reason"),
    [
        ("Eve", 365, False, "untrusted-issuer"),
        ("Eve", -1, True, "certificate-expired"),
        ("", 365, True, "no-person"),
    ],
)
def test_a_card_that_is_refused_has_a_page_and_a_line(
    place: Place, given: str, days: int, own: bool, reason: str
) -> None:
    """TOK-08, UI-08: 403 with the reason and one line of the audit, though nothing was posted; a good one has none."""
    product = (place.issuer if own else Issuer("Nobody's CA")).product(given or " ", "Nobody", days=days)
    page = at_cards(place, product).get("/present?nonce=00")
    assert (page.status_code, "You may not do this" in page.text) == (403, True)
    with place.services.engine.connect() as connection:
        found = [dict(one) for one in connection.execute(select(audit)).mappings()]
    assert [(one["event"], one["outcome"]) for one in found] == [("present", "forbidden")]
    assert json.loads(found[0]["detail"])["reason"] == reason
    assert at_cards(place, place.issuer.product("Ada", "Lovelace")).get("/present?nonce=00").status_code == 200
    assert outcomes(place, "present") == ["forbidden"]


def test_from_the_cards_origin_every_link_leads_to_the_portal(place: Place) -> None:
    """TOK-08, UI-02: there is one page there; the way on from a refusal is the portal's, and it speaks the language that was chosen."""
    ada = place.visitor()
    ada.post("/language", {"language": "fr"})
    nonce = ada.post("/login/card", {"back": "/"}, page="/login").headers["location"]
    expired = at_cards(place, place.issuer.product("Ada", "Lovelace", days=-1))
    for path in (nonce.removeprefix(CARDS), "/nowhere"):
        page = expired.get(path)
        assert page.status_code in {403, 404}
        links = set(re.findall(r'(?:href|action)="([^"]*)"', page.text))
        assert {one for one in links if one.startswith("/") and not one.startswith("/static/")} == set()
        assert "https://portal.test/" in links
        assert ('<html lang="fr">' in page.text) is (path != "/nowhere")
    shown = at_cards(place, place.issuer.product("Ada", "Lovelace")).get(nonce.removeprefix(CARDS))
    assert 'action="/present?language=fr"' in shown.text


def test_a_ticket_is_for_a_challenge_that_is_there(place: Place) -> None:
    """TOK-14: for a nonce that nobody began, that is over or that was used the cards' origin gives no ticket."""
    product = place.issuer.product("Ada", "Lovelace")
    ada = place.visitor()
    used = nonce_of_card(ada)
    ada.post("/login/ticket", ticket(place, product, used))
    over = nonce_of_card(ada)
    cards = at_cards(place, product)
    page = hidden(cards.get("/present", params={"nonce": over}).text)
    SetClock.later(121)
    for nonce in (over, used, "00" * 32, ""):
        assert cards.http.post("/present", data=page | {"nonce": nonce}).status_code == 401


def test_the_cards_origin_has_one_page() -> None:
    """TOK-14: nothing but presenting a certificate happens where TLS asks for one."""
    assert {route.path for route in CARDS_ROUTES} == {"/present"}


# ---- what logins hang on (ASVS 7.4.3, 7.5.1, 7.5.2)


def test_a_person_sees_and_ends_her_other_sessions(place: Place) -> None:
    """TOK-12: the account's page lists what is open, with product and times; the others end at once by one button, and have a line."""
    one, other, bob = place.visitor(), place.visitor(), place.visitor()
    product = one.logs_in()
    bob.logs_in("Bob", "Boole")
    assert "Log out everywhere else" not in one.get("/account").text
    SetClock.later(30)
    other.logs_in(product=product)
    shown = one.json("/account").json()["sessions"]
    assert [(each["created"], each["is_this"]) for each in shown] == [(SetClock.at, False), (SetClock.at - 30, True)]
    assert {(each["kind"], each["number"]) for each in shown} == {("server", "ada-login")}
    assert "token" not in str(shown)
    page = one.get("/account").text
    assert page.count("Signing Server ada-login") == 3 and page.count("(this one)") == 1
    done = one.post("/account/sessions/end", page="/account")
    assert (done.status_code, done.headers["location"]) == (303, "/account")
    assert not in_session(other) and in_session(one) and in_session(bob)
    assert len(one.json("/account").json()["sessions"]) == 1
    assert outcomes(place, "sessions-ended") == ["done"]


def test_what_logins_hang_on_wants_a_fresh_login(place: Place) -> None:
    """TOK-15, TOK-12: ten minutes after the login products, address and other sessions are left as they are until she has logged in once more."""
    ada = place.visitor()
    product = ada.logs_in()
    ada.proves(place.issuer.product("Ada", "Lovelace"), "ada-2")
    ada.post("/account/products", page="/account/products/new")
    second = next(one["id"] for one in ada.json("/account").json()["products"] if not one["in_use"])
    changes = (
        ("/account", {"email": "eve@example.org", "language": "en"}), ("/account/products", {}),
        (f"/account/products/{second}/remove", {}), ("/account/sessions/end", {}),
    )  # fmt: skip
    SetClock.later(10 * 60)
    assert "Log in once more" not in ada.get("/account").text
    SetClock.later(1)
    ada.proves(place.issuer.product("Ada", "Lovelace"), "ada-3")
    before = picture(place.services.engine, without=("audit", "attempts", "marks"))
    for path, fields in changes:
        page = ada.post(path, fields, page="/account")
        assert page.status_code == 401 and "Your login was some time ago." in page.text, path
        assert 'href="/login?back=/' in page.text
        problem = ada.json(path, fields)
        assert (problem.status_code, problem.json()["reason"]) == (401, "login-too-old")
    assert picture(place.services.engine, without=("audit", "attempts", "marks")) == before
    page = ada.get("/account").text
    assert 'href="/login?back=/account"' in page and "Present another product" not in page
    ada.proves(product, back="/account")
    assert ada.post(changes[0][0], changes[0][1], page="/account").status_code == 303
    assert ada.post(changes[2][0], page="/account").status_code == 303
    assert len(ada.json("/account").json()["products"]) == 1


def test_who_logs_out_leaves_nothing_in_her_browser(place: Place) -> None:
    """TOK-12: the answer to a logout has the browser forget its pages and what they have stored; the cookie goes."""
    ada = place.visitor()
    ada.logs_in()
    assert "clear-site-data" not in ada.get("/account").headers
    gone = ada.post("/logout")
    assert gone.headers["clear-site-data"] == '"cache", "storage"'
    assert SESSION_COOKIE not in ada.http.cookies


def test_a_cookie_stands_in_no_page(place: Place) -> None:
    """TOK-12: neither a session's cookie nor a browser's is in a page, in JSON or in an address that is led to."""
    ada = place.visitor()
    ada.logs_in()
    secrets = [ada.http.cookies[name] for name in (SESSION_COOKIE, VISITOR_COOKIE)]
    for path in ("/", "/login", "/account", "/terms", "/spaces", "/home", "/spaces/new/business"):
        for headers in ({}, {"accept": "application/json"}):
            answer = ada.get(path, headers=headers)
            said = answer.text + answer.headers.get("location", "")
            assert not any(secret in said for secret in secrets), path


def test_a_new_portal_has_no_account(place: Place) -> None:
    """TOK-06: nobody is there before somebody has registered, and no setting makes anybody."""
    with place.services.engine.connect() as connection:
        for table in (accounts, products, sessions):
            assert connection.execute(select(table)).first() is None


def test_the_ways_to_log_in_are_these() -> None:
    """TOK-14: a session is opened by these forms alone, after a statement or a ticket, and by nothing else in the program."""
    root = Path(portal.__file__).parent
    opening = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if re.search(r"\bopen_session\(|insert\(sessions\)", path.read_text())
    }
    assert opening == {"auth/session.py", "domain/login.py"}
    views = (root / "web" / "views" / "login.py").read_text()
    assert set(re.findall(r"def (\w+)\(ask: Ask\)[^\n]*\n(?:(?!^def ).*\n)*?.*(?:_opened|_finish|_again)\(", views, re.MULTILINE)) >= {
        "back_from_window", "back_from_cards", "register", "renew"
    }  # fmt: skip
    opens = {"login-statement", "login-ticket", "register", "renew"}
    others = {"login-server", "login-card", "logout", "language", "end-other-sessions"}
    everybody = {one.name for one in ROUTES if one.method == "POST" and one.level is Level.OPEN}
    assert everybody == (opens | others) - {"end-other-sessions"}


def statement_of(first: str = "paraph-login-v1") -> bytes:
    return f"{first}\nwindow\nhttps://portal.test\n{'00' * 32}\nada\n2026-11-27T09:00:00Z\n".encode()


def certificate_of(key: Any) -> bytes:
    """By itself, with a key of whatever kind."""
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "x")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1).public_key(key.public_key())
    )
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    by = ec.generate_private_key(ec.SECP256R1())
    return builder.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def test_a_statement_is_signed_as_its_key_wants() -> None:
    """TOK-14: one algorithm for each kind of key; another hash, another padding, another kind of key and another form are refused."""
    said, p256, p384 = statement_of(), ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
    rsa_key, ed, ed448_key = rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate(), ed448.Ed448PrivateKey.generate()  # fmt: skip

    def is_believed(key: Any, signature: bytes, text: bytes = said) -> bool:
        try:
            statements.check(text, signature, certificate_of(key), caller="window", audience="https://portal.test")
        except Refusal:
            return False
        return True

    assert is_believed(p256, p256.sign(said, ec.ECDSA(hashes.SHA256())))
    assert is_believed(p384, p384.sign(said, ec.ECDSA(hashes.SHA384())))
    assert is_believed(ed, ed.sign(said))
    assert is_believed(rsa_key, rsa_key.sign(said, padding.PKCS1v15(), hashes.SHA256()))
    for weak in (hashes.SHA1(), hashes.SHA224(), hashes.SHA512()):
        assert not is_believed(p256, p256.sign(said, ec.ECDSA(weak)))
        assert not is_believed(rsa_key, rsa_key.sign(said, padding.PKCS1v15(), weak))
    assert not is_believed(p384, p384.sign(said, ec.ECDSA(hashes.SHA256())))
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    assert not is_believed(rsa_key, rsa_key.sign(said, pss, hashes.SHA256()))
    assert not is_believed(ed448_key, ed448_key.sign(said))
    assert not is_believed(p256, b"")
    for first in ("paraph-login-v2", "paraph-batch-v1", ""):
        other = statement_of(first)
        assert not is_believed(p256, p256.sign(other, ec.ECDSA(hashes.SHA256())), other)
