"""Logging in and registering."""

from pathlib import Path

import pytest

from tests.portal.place import Place


@pytest.fixture
def place(tmp_path: Path):
    made = Place(tmp_path)
    yield made
    made.close()


def test_an_unknown_product_is_registered_by_its_holder_and_no_account_is_made_silently(place: Place) -> None:
    """TOK-06, TOK-15: the page shows what was read from the certificate; after «Confirm» there is an account and a session."""
    ada = place.visitor()
    assert ada.proves(place.issuer.product("Ada", "Lovelace")).headers["location"] == "/register"
    assert ada.get("/account").headers["location"].startswith("/login")
    page = ada.get("/register").text
    assert "Lovelace" in page and "Test Products CA" in page
    done = ada.post("/register", {"email": "ada@example.org"}, page="/register")
    assert (done.status_code, done.headers["location"]) == (303, "/home")
    assert "Ada Lovelace" in ada.get("/account").text


def test_a_business_space_is_created(place: Place) -> None:
    """ESP-04: the form, then the space with its title in the header and the success message once."""
    ada = place.visitor()
    ada.logs_in()
    identifier = ada.creates_business()
    page = ada.get(f"/spaces/{identifier}")
    assert page.status_code == 200
    assert "You have successfully created a business space on Millbrook." in page.text
    assert "Engines Ltd" in page.text
