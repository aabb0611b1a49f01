"""The window, for real: what is typed in it, and what becomes of it."""

from collections.abc import Iterator

import pytest

from tests.portal.real import Real


@pytest.fixture(scope="module")
def real() -> Iterator[Real]:
    with Real() as made:
        yield made


def test_a_person_logs_in_with_her_codes(real: Real) -> None:
    """TOK-14: product number, secret code and one-time code open a session, whatever the one-time code comes from."""
    for person in real.people.values():
        browser = real.browser()
        browser.logs_in(person)
        page = browser.get("/account")
        assert page.status_code == 200
        assert f"{person.given} {person.family}" in page.text
        assert person.number in page.text


def test_a_person_logs_in_with_a_card(real: Real) -> None:
    """TOK-08, TOK-14: TLS asks for the certificate of the card; with it a session is opened."""
    browser = real.browser(real.card("Cleo", "Clifford"))
    browser.logs_in_with_card()
    assert "Cleo Clifford" in browser.get("/account").text
