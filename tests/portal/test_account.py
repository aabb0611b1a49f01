"""A person's account: address and language, and what she is told."""

import json
from typing import Any

import pytest
from sqlalchemy import select

from portal_adapter.store import schema
from portal_adapter.store.database import reading
from tests.portal.place import Place, Visitor


def mails(place: Place) -> list[tuple[str, str, Any]]:
    """Recipient, language and data, the oldest first."""
    with reading(place.services.engine) as connection:
        found = connection.execute(select(schema.outbox).order_by(schema.outbox.c.created)).mappings()
        return [(row["recipient"], row["language"], json.loads(row["data"])) for row in found]


def test_a_changed_address_is_told_to_the_old_one(place: Place, ada: Visitor) -> None:
    """MAIL-12: the old address hears of the new one, of which it sees the beginning only; the page has the new one."""
    done = ada.post("/account", {"email": "countess@example.org", "language": "fr"}, page="/account")
    assert (done.status_code, done.headers["location"]) == (303, "/account")
    ((recipient, language, data),) = mails(place)
    assert (recipient, language) == ("ada@example.org", "en")
    assert (data["event"], data["about"]) == ("address-changed", "c***@example.org")
    page = ada.get("/account").text
    assert "Your account is changed." in page and 'value="countess@example.org"' in page
    assert '<option value="fr" selected>' in page


def test_another_language_alone_is_no_notice(place: Place, ada: Visitor) -> None:
    """MAIL-12: what is no security matter sends nothing; later mails are in the new language."""
    ada.post("/account", {"email": "ada@example.org", "language": "fr"}, page="/account")
    assert mails(place) == []
    ada.post("/account", {"email": "countess@example.org", "language": "fr"}, page="/account")
    assert mails(place)[0][1] == "fr"


@pytest.mark.parametrize(
    ("fields", "codes"),
    [
        ({"email": "", "language": "en"}, {"email": "required"}),
        ({"email": "x", "language": "de"}, {"email": "email_invalid", "language": "unknown"}),
        ({"email": "a@example.org\r\nBcc: b@example.org", "language": "en"}, {"email": "control_characters"}),
        ({"email": "b@example.org", "language": "en", "family": "King"}, {"family": "read-only"}),
    ],
)
def test_mistakes_change_nothing(place: Place, ada: Visitor, fields: dict[str, str], codes: dict[str, str]) -> None:
    """TOK-07, MAIL-12, 0.1: all mistakes at once, what was typed is kept, neither account nor outbox change."""
    page = ada.post("/account", fields, page="/account")
    assert page.status_code == 422
    if fields["email"] == "x":
        assert 'value="x"' in page.text
    problem = ada.json("/account", fields)
    assert {one["field"]: one["code"] for one in problem.json()["errors"]} == codes
    assert mails(place) == []
    assert ada.json("/account").json()["email"] == "ada@example.org"


def test_products_that_come_and_go_are_told(place: Place, ada: Visitor) -> None:
    """MAIL-12: a new product and a removed one, each with its issuer, to the account's address."""
    ada.proves(place.issuer.product("Ada", "Lovelace"), "second")
    ada.post("/account/products", page="/account/products/new")
    second = next(one for one in ada.json("/account").json()["products"] if not one["in_use"])
    ada.post(f"/account/products/{second['id']}/remove", page="/account")
    found = mails(place)
    assert sorted(data["event"] for _, _, data in found) == ["product-added", "product-removed"]
    assert {(recipient, data["about"]) for recipient, _, data in found} == {("ada@example.org", "Test Products CA")}
