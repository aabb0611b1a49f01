"""A product that was renewed leads to its account; what only looks like it does not."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from sqlalchemy import func, select

from portal_adapter import app as portal
from portal_adapter.auth.certificate import Issuers
from portal_adapter.auth.session import SESSION_COOKIE, VISITOR_COOKIE
from portal_adapter.store.schema import accounts, audit, outbox, products, sessions
from tests.portal.cards import nonce_of_card, ticket
from tests.portal.commands import command
from tests.portal.place import Issuer, Place, Product, SetClock, Visitor

SERIAL = "PNOLU-19151210"


@pytest.fixture
def old(place: Place) -> Product:
    """Ada's product, which has an account."""
    product = place.issuer.product("Ada", "Lovelace", serial=SERIAL)
    place.visitor().logs_in(product=product)
    return product


def count(place: Place, table: Any) -> int:
    with place.services.engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def leads_to(place: Place, product: Product, number: str = "ada-new") -> str:
    """The page that somebody who has just proved a product comes to."""
    visitor = place.visitor()
    assert visitor.proves(product, number).headers["location"] == "/register"
    page = visitor.get("/register")
    return str(page.headers.get("location", "/register"))


def test_a_renewed_product_is_confirmed_and_then_logs_in(place: Place, old: Product) -> None:
    """TOK-06: the person is asked first; then it is her account's, which is told by mail, and the old one is still there."""
    new = place.issuer.product("Ada", "Lovelace", serial=SERIAL, begins=-1)
    ada = place.visitor()
    assert ada.proves(new, "ada-new").headers["location"] == "/register"
    assert ada.get("/register").headers["location"] == "/renewal"
    assert "Your product was renewed" in ada.get("/renewal").text
    assert (count(place, products), count(place, sessions)) == (1, 1)  # nothing yet
    done = ada.post("/renewal", page="/renewal")
    assert (done.status_code, done.headers["location"]) == (303, "/home")
    assert len(ada.json("/account").json()["products"]) == 2
    assert count(place, accounts) == 1
    with place.services.engine.connect() as connection:
        mail = connection.execute(select(outbox.c.recipient, outbox.c.data)).one()
        assert (mail.recipient, json.loads(mail.data)["event"]) == ("ada@example.org", "product-renewed")
        line = connection.execute(select(audit.c.detail).where(audit.c.event == "product-renewed")).scalar_one()
        assert json.loads(line)["renews"] == old.certificate.fingerprint(old.certificate.signature_hash_algorithm).hex()
    assert place.visitor().proves(old).headers["location"] == "/home"
    assert place.visitor().proves(new, "ada-new").headers["location"] == "/home"


def presents(place: Place, product: Product) -> Visitor:
    """Somebody who has logged in with a card or stick, up to the portal's answer."""
    visitor = place.visitor()
    done = visitor.post("/login/ticket", ticket(place, product, nonce_of_card(visitor)))
    assert done.status_code == 303, done.text
    return visitor


def test_a_renewed_card_is_of_the_old_one_s_kind(place: Place) -> None:
    """TOK-06: the same for who comes with a certificate by TLS; a Signing Server product is no card's renewal."""
    ada = presents(place, place.issuer.product("Ada", "Lovelace", serial=SERIAL))
    ada.post("/register", {"email": "ada@example.org", "kind": "stick"}, page="/register")
    new = place.issuer.product("Ada", "Lovelace", serial=SERIAL, begins=-1)
    assert leads_to(place, new, "ada-new") == "/register"
    again = presents(place, new)
    assert again.post("/renewal", page="/renewal").headers["location"] == "/home"
    assert [one["kind"] for one in again.json("/account").json()["products"]] == ["stick", "stick"]


def test_the_same_key_is_the_same_product(place: Place) -> None:
    """TOK-06: a certificate for the key of a product is its renewal without a serialNumber, too."""
    first = place.issuer.product("Ada", "Lovelace")
    place.visitor().logs_in(product=first)
    assert leads_to(place, place.issuer.product("Ada", "Lovelace", begins=-1, key=first.key)) == "/renewal"
    assert leads_to(place, place.issuer.product("Ada", "Lovelace", begins=-1)) == "/register"  # the names alone


@pytest.mark.parametrize(
    "made",
    [
        lambda issuer: issuer.product("Ada", "Lovelace", serial="PNOLU-19000101", begins=-1),
        lambda issuer: issuer.product("Ada", "Lovelace", begins=-1),
        lambda issuer: issuer.product("Ada", "King", serial=SERIAL, begins=-1),
        lambda issuer: issuer.product("Ada", "Lovelace", serial=SERIAL, begins=-801),
        lambda issuer: issuer.product("Ada", "Lovelace", serial=SERIAL),  # as old
    ],
    ids=["another serial", "no serial", "another name", "an older one", "one as old"],
)
def test_what_only_looks_like_a_renewal_is_unknown(
    place: Place, old: Product, made: Callable[[Issuer], Product]
) -> None:
    """TOK-06: it is registered by itself, and confirming it as a renewal is refused."""
    product = made(place.issuer)
    assert leads_to(place, product) == "/register"
    eve = place.visitor()
    eve.proves(product, "ada-new")
    answer = eve.post("/renewal", page="/register", headers={"accept": "application/json"})
    assert (answer.status_code, answer.json()["reason"]) == (401, "nothing-renewed")
    assert count(place, products) == 1


def test_another_ca_renews_nothing(place: Place, old: Product) -> None:
    """TOK-06: nor does one of the same name with another key, though both are accepted."""
    other = Issuer()
    place.services = replace(place.services, issuers=Issuers((place.issuer.certificate, other.certificate)))
    place.app = portal.app(place.services)
    assert leads_to(place, other.product("Ada", "Lovelace", serial=SERIAL, begins=-1)) == "/register"
    assert leads_to(place, place.issuer.product("Ada", "Lovelace", serial=SERIAL, begins=-1)) == "/renewal"


def test_what_was_removed_does_not_come_back(place: Place, old: Product) -> None:
    """TOK-06: who has found the card that a person lost and removed, the newer of two, does not get into her account."""
    ada = place.visitor()
    ada.logs_in(product=old)
    lost = place.issuer.product("Ada", "Lovelace", serial=SERIAL, begins=-1)
    ada.proves(lost, "ada-lost")
    ada.post("/account/products", page="/account/products/new")
    second = re.findall(r"/account/products/([0-9a-f]{32})/remove", ada.get("/account").text)[1]
    ada.post(f"/account/products/{second}/remove")
    assert leads_to(place, lost, "ada-lost") == "/register"
    assert leads_to(place, place.issuer.product("Ada", "Lovelace", serial=SERIAL, begins=0)) == "/renewal"


def test_who_could_be_two_is_nobody(place: Place, old: Product) -> None:
    """TOK-06: where two accounts have a product that it could renew, it is neither's."""
    twin = place.visitor()
    twin.proves(place.issuer.product("Ada", "Lovelace", serial=SERIAL), "twin")
    twin.post("/register", {"email": "twin@example.org"}, page="/register")
    assert count(place, accounts) == 2
    assert leads_to(place, place.issuer.product("Ada", "Lovelace", serial=SERIAL, begins=-1)) == "/register"


def test_a_renewed_product_makes_no_second_account(place: Place, old: Product) -> None:
    """TOK-06: the registration's form is refused for it, and leads to the page where it is confirmed."""
    ada = place.visitor()
    ada.proves(place.issuer.product("Ada", "Lovelace", serial=SERIAL, begins=-1), "ada-new")
    answer = ada.post(
        "/register", {"email": "ada@example.org"}, page="/renewal", headers={"accept": "application/json"}
    )
    assert (answer.status_code, answer.json()["reason"]) == (409, "product-renewed")
    assert answer.json()["unmet"][0]["href"] == "/renewal"
    assert count(place, accounts) == 1


# ---- a second click


def clicks_again(visitor: Visitor, first: dict[str, str], path: str) -> Any:
    """The same form once more from a browser that the first answer has not reached."""
    visitor.http.cookies.delete(SESSION_COOKIE)
    return visitor.http.post(path, data=first)


@pytest.mark.parametrize("reached", [False, True], ids=["answer lost", "answer there"])
def test_a_second_click_on_register_leads_to_the_same_account(place: Place, reached: bool) -> None:
    """0.1, TOK-15: one account, the same page, and a session in the browser that the first answer has not reached."""
    ada = place.visitor()
    ada.proves(place.issuer.product("Ada", "Lovelace"), back="/spaces")
    form = {name: value for name, value in ada.form("/register").items() if name in {"csrf", "form"}}
    form["email"] = "ada@example.org"
    first = ada.http.post("/register", data=form)
    again = ada.http.post("/register", data=form) if reached else clicks_again(ada, form, "/register")
    assert (first.status_code, first.headers["location"]) == (303, "/spaces")
    assert (again.status_code, again.headers["location"]) == (303, "/spaces")
    assert count(place, accounts) == 1
    assert ada.get("/account").status_code == 200
    assert count(place, sessions) == (1 if reached else 2)


def test_a_second_click_is_one_of_the_same_browser_and_soon(place: Place) -> None:
    """0.1, TOK-15: after a minute, after logging out, and in another browser, the form that was sent opens nothing."""
    ada = place.visitor()
    ada.proves(place.issuer.product("Ada", "Lovelace"))
    form = {**ada.form("/register"), "email": "ada@example.org"}
    assert ada.http.post("/register", data=form).status_code == 303
    SetClock.later(61)
    assert clicks_again(ada, form, "/register").status_code == 401
    bob = place.visitor()
    bob.logs_in("Bob", "Boole")
    visitor = bob.http.cookies[VISITOR_COOKIE]
    bob.post("/logout")
    assert bob.http.cookies[VISITOR_COOKIE] == visitor
    assert bob.post("/register", {"email": "bob@example.org"}, page="/login").status_code == 401


# ---- by an operator


def test_an_operator_registers_a_product_for_who_has_lost_hers(place: Place, old: Product) -> None:
    """TOK-06, UI-08: with her names, an accepted certificate and a line in the audit; she is told by mail."""
    (person,) = json.loads(command(place, "user", "list", "--json").stdout)
    new = place.issuer.product("Ada", "Lovelace")
    file = place.directory / "new.pem"
    file.write_bytes(new.certificate.public_bytes(serialization.Encoding.PEM))
    done = command(place, "user", "add-product", person["id"], "--stick", str(file))
    assert done.returncode == 0 and "stick of Test Products CA" in done.stdout
    assert presents(place, new).get("/account").status_code == 200
    with place.services.engine.connect() as connection:
        line = connection.execute(select(audit).where(audit.c.event == "product-added")).mappings().one()
        assert (line["account"], "operator" in json.loads(line["detail"])) == (person["id"], True)
        assert connection.execute(select(outbox.c.recipient)).scalars().all() == ["ada@example.org"]


@pytest.mark.parametrize("what", ["of another person", "of another CA", "for signing", "no certificate", "taken"])
def test_an_operator_registers_nothing_that_is_not_hers(place: Place, old: Product, what: str) -> None:
    """TOK-06: what would not log her in is refused, and so is another person's; nothing is written but the refusal."""
    (person,) = json.loads(command(place, "user", "list", "--json").stdout)
    made = {
        "of another person": place.issuer.product("Bob", "Boole").der,
        "of another CA": Issuer().product("Ada", "Lovelace").der,
        "for signing": place.issuer.product("Ada", "Lovelace", signs=True).der,
        "no certificate": b"nothing",
        "taken": old.der,
    }[what]
    file = place.directory / "new.der"
    file.write_bytes(made)
    done = command(place, "user", "add-product", person["id"], "--smartcard", str(file))
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr and done.stderr
    assert (count(place, products), count(place, outbox)) == (1, 0)
