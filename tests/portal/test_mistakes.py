"""What is nowhere, and what goes wrong here."""

import logging
import re

import pytest
from sqlalchemy import select, text

from portal_adapter.store import schema
from portal_adapter.store.database import reading, writing
from portal_adapter.web import frame
from tests.portal.place import Place


def test_a_page_that_is_not_there(place: Place) -> None:
    """0.1: 404 as a page in the reader's language and as a problem, the same for every path."""
    visitor = place.visitor()
    page = visitor.get("/no/such/page")
    assert page.status_code == 404 and "There is no such page" in page.text
    assert visitor.json("/no/such/page").json()["code"] == "not-found"


@pytest.mark.parametrize(
    ("path", "method", "allow"), [("/terms", "DELETE", "GET, HEAD, POST"), ("/home", "POST", "GET, HEAD")]
)
def test_a_method_that_is_not_served(place: Place, path: str, method: str, allow: str) -> None:
    """0.1: 405 names the methods of all routes of the path."""
    visitor = place.visitor()
    page = visitor.http.request(method, path)
    assert (page.status_code, page.headers["allow"]) == (405, allow) and "<h1>There is no such page</h1>" in page.text
    problem = visitor.http.request(method, path, headers={"accept": "application/json"})
    assert (problem.status_code, problem.json()["code"]) == (405, "method-not-allowed")


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_a_mistake_of_ours_shows_a_reference_and_nothing_else(
    place: Place, accept: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """0.1: 500 with a reference that the log has beside what happened; no word of it goes outside, and nothing was changed."""
    visitor = place.visitor()
    visitor.logs_in(terms=False)
    given = visitor.form("/terms")

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the canary")

    monkeypatch.setattr("portal_adapter.domain.terms.audit.note", broken)
    answer = visitor.http.post("/terms", data={**given, "accepted": "yes"}, headers={"accept": accept})
    assert answer.status_code == 500 and "canary" not in answer.text and "Traceback" not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    reference = re.search(r"\b[0-9a-f]{8}\b", answer.text)
    assert reference is not None
    assert f"reference {reference[0]}" in caplog.text and "the canary" in caplog.text
    if accept == "application/json":
        assert (answer.headers["content-type"], answer.json()["code"]) == ("application/problem+json", "internal-error")
    with reading(place.services.engine) as connection:
        assert connection.execute(select(schema.acceptances)).first() is None


def test_a_mistake_of_the_base_is_a_calm_page_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """0.1: the page about a mistake needs nothing of what may be broken."""
    monkeypatch.setattr(frame._Visit, "_page", lambda *_: 1 / 0)
    for path in ("/login", "/nowhere"):
        answer = place.visitor().get(path, headers={"accept-language": "fr"})
        assert answer.status_code == 500 and '<html lang="fr">' in answer.text, path


def test_the_log_has_no_value_of_a_statement(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """UI-08: what a database's error says leaves out the values, which are people's."""
    caplog.set_level(logging.DEBUG)
    with pytest.raises(Exception, match="no such table") as raised, writing(place.services.engine) as connection:
        connection.execute(text("INSERT INTO nowhere VALUES (:value)"), {"value": "canary"})
    assert "canary" not in str(raised.value)
