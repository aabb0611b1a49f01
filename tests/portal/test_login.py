"""Logging in and registering."""

from tests.portal.place import Place


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


def test_terms_that_have_changed_meanwhile_are_not_accepted_by_an_older_page(place: Place) -> None:
    """ESP-03: what is kept as accepted is the version that the person's page has shown."""
    ada = place.visitor()
    ada.logs_in(terms=False)
    again = ada.post("/terms", {"accepted": "yes", "version": "0"})
    assert again.status_code == 422 and "The general terms have changed meanwhile. Read them again." in again.text
    assert 'name="version" value="1"' in again.text
    assert ada.get("/home").headers["location"].startswith("/terms")
    assert ada.post("/terms", {**ada.form("/terms"), "accepted": "yes"}).status_code == 303
    assert ada.get("/home").headers["location"] == "/spaces"


def test_the_terms_and_their_version_are_read_together(place: Place) -> None:
    """ESP-03: a text that is changed under a running portal is not shown with the old version, nor accepted under it."""
    (place.directory / "terms-en.txt").write_text("Be rich.")
    ada = place.visitor()
    assert "Be honest." in ada.get("/terms").text and "Be rich." not in ada.get("/terms").text
