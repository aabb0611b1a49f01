"""What a refusal is to a reader, to a program and to the database, whichever of its codes it has."""

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, func, select, text
from sqlalchemy.exc import OperationalError

from portal_adapter import app as portal
from portal_adapter.domain import marks
from portal_adapter.network import network
from portal_adapter.refusal import CODES, FieldError, Refusal, Unmet
from portal_adapter.store import schema
from portal_adapter.store.database import writing
from portal_adapter.web import frame
from portal_adapter.web.ask import Ask
from portal_adapter.web.headers import Headers
from portal_adapter.web.lines import OF_NOBODY_MAX, OF_ONE_MAX, Lines
from portal_adapter.web.route import Level, Route
from portal_adapter.web.routes import ROUTES
from tests.portal.pictures import png
from tests.portal.place import ORIGIN, Place, SetClock, Visitor, hidden
from tests.portal.town import picture

STATUS = {
    "unauthenticated": 401, "auth-too-weak": 401, "forbidden": 403, "not-found": 404, "method-not-allowed": 405, "forbidden-transition": 409, "stale": 409,
    "guard-failed": 409, "gone": 410, "too-large": 413, "bad-type": 415, "validation": 422, "confirmation-required": 422,
    "rejected-content": 422, "rate-limited": 429, "signer-unavailable": 503,
}  # fmt: skip
JSON = {"accept": "application/json"}


def refused(ask: Ask) -> Any:
    """It does something first, which must not remain."""
    marks.mark(ask.connection, ask.now, "test", "somebody")
    raise refusal(ask.form["code"] if ask.form else ask.query["code"])


def refusal(code: str) -> Refusal:
    error = FieldError("title", "too_long", "Use at most {limit} characters; this has {count}.", {"count": 101}, 100)
    unmet = Unmet("terms-not-accepted", "Accept the general terms first.", "/terms")
    return Refusal(
        code, "This login is over. Please begin again.", reason="for-a-test", errors=[error], unmet=[unmet],
        retry_after_s=30 if code == "rate-limited" else None, state="closed",
    )  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    extra = [
        Route(method, "/refused", f"refused-{method}", refused, Level.SESSION, ("0.1",)) for method in ("GET", "POST")
    ]
    made.app = Headers(portal._starlette(made.services, (*ROUTES, *extra)))
    yield made
    made.close()


def visitor(place: Place) -> Visitor:
    ada = Visitor(place, place.app, ORIGIN)
    ada.logs_in()
    return ada


def test_the_codes_are_the_contracts() -> None:
    """0.1: each code has its one HTTP status."""
    assert STATUS == CODES


@pytest.mark.parametrize("code", CODES)
def test_a_refusal_is_a_page_and_a_problem(place: Place, code: str) -> None:
    """0.1: the same status and words as a page and as an RFC 9457 problem; a field's mistake with its limit, guards with links."""
    ada = visitor(place)
    for method in ("GET", "POST"):
        if method == "GET":
            page, problem = ada.get(f"/refused?code={code}"), ada.json(f"/refused?code={code}")
        else:
            page, problem = ada.post("/refused", {"code": code}), ada.json("/refused", {"code": code})
        assert page.status_code == problem.status_code == STATUS[code]
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "This login is over. Please begin again." in page.text
        assert "Use at most 100 characters; this has 101." in page.text
        assert '<a href="/terms">Accept the general terms first.</a>' in page.text
        assert problem.headers["content-type"] == "application/problem+json"
        assert problem.json() == {
            "type": "about:blank", "title": code, "status": STATUS[code], "code": code, "reason": "for-a-test", "state": "closed",
            "detail": "This login is over. Please begin again.",
            "errors": [{"field": "title", "code": "too_long", "message": "Use at most 100 characters; this has 101.", "limit": 100}],
            "unmet": [{"code": "terms-not-accepted", "message": "Accept the general terms first.", "href": "/terms"}],
        }  # fmt: skip
        waits = "30" if code == "rate-limited" else None
        assert page.headers.get("retry-after") == problem.headers.get("retry-after") == waits


@pytest.mark.parametrize("code", CODES)
def test_a_refusal_leaves_one_line_of_audit_and_nothing_else(place: Place, code: str) -> None:
    """0.1, UI-08: what the view had done is taken back; for a POST one line of the audit says who was refused what."""
    ada = visitor(place)
    before = picture(place.services.engine)
    ada.post("/refused", {"code": code, "secret_code": "hunter2"})
    after = picture(place.services.engine)
    lines = after.pop("audit")[len(before.pop("audit")) :]
    assert after == before
    assert len(lines) == 1
    line = dict(zip(schema.audit.c.keys(), lines[0], strict=True))
    assert (line["event"], line["outcome"], line["detail"]) == ("refused-POST", code, '{"reason": "for-a-test"}')
    assert line["account"] != ""
    assert "hunter2" not in repr(lines)


def test_a_limit_says_when_to_come_back(place: Place) -> None:
    """0.1: the eleventh login that is begun from an address in a minute is 429 with Retry-After in seconds."""
    somebody = Visitor(place, place.app, ORIGIN)
    begun = [somebody.post("/login/server", {"number": "ada-login"}, page="/login") for _ in range(11)]
    assert [one.status_code for one in begun] == [303] * 10 + [429]
    assert begun[-1].headers["retry-after"] == "60"
    assert "Try again in 60 seconds." in begun[-1].text


def test_an_ended_sessions_form_leads_to_the_login(place: Place) -> None:
    """TOK-12: who posts a form after the session has ended is sent to log in and then to its page, and not told of a forged form."""
    ada = visitor(place)
    fields = ada.form("/spaces/new/private")
    cookie = ada.http.cookies["__Host-session"]
    ada.post("/logout")
    ada.http.cookies.set("__Host-session", cookie, domain="portal.test", path="/")
    again = ada.http.post("/spaces/new/private", data={**fields, "email": "ada@example.org"})
    assert (again.status_code, again.headers["location"]) == (303, "/login?back=%2Fspaces%2Fnew%2Fprivate")
    assert count(place, schema.spaces) == 0


def test_a_refused_page_in_another_language_is_come_back_to(place: Place) -> None:
    """UI-02: after a refused form the language switch leads to the page of that form, or to the front page; never to a POST."""
    somebody = Visitor(place, place.app, ORIGIN)
    again = somebody.post("/login/server", {"number": ""}, page="/login")
    assert again.status_code == 422
    assert '<input type="hidden" name="back" value="/login">' in again.text
    ada = visitor(place)
    assert '<input type="hidden" name="back" value="/">' in ada.post("/refused", {"code": "stale"}).text


def test_a_refusal_of_the_view_does_not_end_the_session(place: Place) -> None:
    """TOK-12: a product that was not presented is asked for again; the person stays logged in."""
    ada = visitor(place)
    assert ada.post("/account/products").status_code == 401
    assert ada.get("/account").status_code == 200


def refusals(place: Place) -> list[dict[str, Any]]:
    with place.services.engine.connect() as connection:
        lines = connection.execute(select(schema.audit).where(schema.audit.c.outcome != "done")).mappings()
        return [{**line, "detail": json.loads(line["detail"])} for line in lines]


def test_nobody_fills_the_audit(place: Place) -> None:
    """0.1, UI-08: refusals of one network without a session leave so many lines in a minute; the next line says how many were left out."""
    ada, nobody = visitor(place), place.visitor()
    for _ in range(OF_ONE_MAX + 20):
        assert nobody.http.post("/login/server", data={"csrf": "wrong"}).status_code == 403
    assert len(refusals(place)) == OF_ONE_MAX
    ada.post("/refused", {"code": "stale"})
    found = refusals(place)
    assert len(found) == OF_ONE_MAX + 1 and found[-1]["detail"] == {"left_out": 20, "reason": "for-a-test"}
    SetClock.later(60)
    nobody.http.post("/login/server", data={"csrf": "wrong"})
    assert len(refusals(place)) == OF_ONE_MAX + 2


def test_many_networks_without_a_session_are_bounded_and_people_are_not_hidden_by_them() -> None:
    """0.1, UI-08: all who have no session share a bound; a person's refusals have their own."""
    lines = Lines()
    written = [lines.admit(f"192.0.2.{number % 250}", 0, is_nobody=True) for number in range(OF_NOBODY_MAX + 5)]
    assert written == [0] * OF_NOBODY_MAX + [None] * 5
    assert lines.admit("ada", 0, is_nobody=False) == 5
    assert lines.admit("192.0.2.1", 60, is_nobody=True) == 0


@pytest.mark.parametrize(
    ("address", "taken_for"),
    [
        ("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"), ("", ""),
    ],
)  # fmt: skip
def test_limits_take_a_network_for_one(address: str, taken_for: str) -> None:
    """TOK-14: who has 64 bits of IPv6 addresses does not begin as many logins a minute."""
    assert network(address) == taken_for


def test_without_the_database_a_person_is_told_so(place: Place) -> None:
    """0.1: who is logged in gets the same calm 503 as everybody, not a mistake of ours."""
    ada = visitor(place)
    with writing(place.services.engine) as connection:
        connection.execute(text("ALTER TABLE products RENAME TO away"))
    answer = ada.get("/account")
    assert answer.status_code == 503 and "Please try again in a moment." in answer.text
    # Only a page that knows it tells other tabs that nobody is logged in: they take what they show away.
    assert "data-signed-out" not in answer.text
    with writing(place.services.engine) as connection:
        connection.execute(text("ALTER TABLE away RENAME TO products"))
    assert "data-signed-out" not in ada.get("/account").text
    ada.post("/logout")
    assert "data-signed-out" in ada.get("/login").text


def test_a_full_disk_lets_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """TOK-12: a page is shown also where the session cannot be extended."""
    ada = visitor(place)
    SetClock.later(30)

    def full(*_: object) -> None:
        raise OperationalError("", {}, Exception("database or disk is full"))

    monkeypatch.setattr(frame.sessions, "seen", full)
    assert ada.get("/account").status_code == 200


def test_a_commit_whose_answer_is_lost_takes_no_bytes_along(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    0.1, ATT-05: where the answer to COMMIT is lost the row may be there: its bytes stay, the person is told to look, and
    finds it. What no row names is swept later.
    """
    ada = visitor(place)
    space = ada.creates_business()
    page = f"/spaces/{space}/files"
    file = {"file": ("a.png", png(), "image/png")}

    @contextlib.contextmanager
    def losing(engine: Engine) -> Iterator[Connection]:
        with writing(engine) as connection:
            yield connection
        if lost and count(place, schema.documents):
            lost.clear()
            raise OperationalError("COMMIT", {}, Exception("server closed the connection unexpectedly"))

    form, lost = ada.form(page), [True]
    monkeypatch.setattr(frame, "writing", losing)
    fields = {**form, "type": "other", "name": "A plan"}
    assert ada.http.post(page, data=fields, files=file).status_code == 503
    assert lost == []
    [document] = ada.json(page).json()["documents"]
    assert ada.get(f"{page}/{document['id']}").content == png()


# ---- a form that is sent twice


def count(place: Place, table: Any) -> int:
    with place.services.engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def test_a_form_that_is_sent_again_leads_where_it_led(place: Place) -> None:
    """0.1: a repeated form token answers the first one's result, and nothing is made twice; another form's is not mixed up."""
    ada = visitor(place)
    fields = {
        **ada.form("/spaces/new/business"),
        "kind": "association",
        "title": "Choir",
        "company": "Choir",
        "email": "c@example.org",
    }
    first, again = (ada.http.post("/spaces/new/business", data=fields) for _ in range(2))
    assert first.status_code == again.status_code == 303
    assert first.headers["location"] == again.headers["location"]
    assert count(place, schema.spaces) == 1
    other = ada.http.post("/spaces/new/business", data={**fields, "form": "another", "title": "Band"})
    assert other.headers["location"] != first.headers["location"]
    refused_first = {**fields, "form": "mended", "title": ""}
    assert ada.http.post("/spaces/new/business", data=refused_first).status_code == 422
    assert ada.http.post("/spaces/new/business", data={**refused_first, "title": "Quartet"}).status_code == 303
    assert count(place, schema.spaces) == 3


def test_a_form_with_something_else_in_it_is_another_one(place: Place) -> None:
    """0.1: who goes back in the browser, changes what she typed and sends it has sent another form, and it is not lost."""
    ada = visitor(place)
    path = "/spaces/new/business"
    fields = {**ada.form(path), "kind": "association", "title": "Choir", "company": "Choir", "email": "c@example.org"}
    first = ada.http.post(path, data=fields)
    changed = ada.http.post(path, data={**fields, "title": "Band"})
    assert first.headers["location"] != changed.headers["location"] and count(place, schema.spaces) == 2


def test_another_person_with_the_same_token_does_her_own(place: Place) -> None:
    """0.1: a form token is its browser's: somebody else's form of the same name never leads to the first one's result."""
    ada, bob = visitor(place), Visitor(place, place.app, ORIGIN)
    bob.logs_in("Bob", "Byron")
    fields = {"kind": "association", "title": "Choir", "company": "Choir", "email": "c@example.org", "form": "same"}
    first = ada.post("/spaces/new/business", fields)
    answer = bob.post("/spaces/new/business", fields)
    assert answer.headers.get("location") != first.headers["location"]
    assert first.headers["location"] not in answer.text


def twins(place: Place, forms: list[dict[str, str]], ada: Visitor, path: str) -> list[Any]:
    """So many posts at the same moment, each by a browser of its own that has Ada's cookies."""
    barrier, answers = threading.Barrier(len(forms)), []

    def post(fields: dict[str, str]) -> None:
        browser = Visitor(place, place.app, ORIGIN)
        browser.http.cookies.update(ada.http.cookies)
        barrier.wait()
        answers.append(browser.http.post(path, data=fields))

    threads = [threading.Thread(target=post, args=(fields,)) for fields in forms]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A place on each database."""
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres").create(f"t{tmp_path.name[-20:]}")
    made = Place(tmp_path, database=url)
    yield made
    made.close()


def test_twins_that_are_sent_at_once_lead_to_the_winners_result(either: Place) -> None:
    """0.1: eight copies of one form at the same moment make one space, and all lead to it; on both databases."""
    ada = visitor(either)
    page = "/spaces/new/business"
    fields = {"kind": "association", "company": "Choir", "email": "c@example.org"}
    for number in range(5):
        before = count(either, schema.spaces)
        tokens = hidden(ada.get(page).text)
        answers = twins(either, [{**fields, "title": f"Choir {number}", **tokens}] * 8, ada, page)
        assert [one.status_code for one in answers] == [303] * 8
        assert len({one.headers["location"] for one in answers}) == 1
        assert count(either, schema.spaces) == before + 1


def test_different_forms_at_once_have_one_winner(either: Place) -> None:
    """ESP-01, 0.1: of eight forms that each want the one private space at the same moment one gets it; the others are told why not."""
    ada = visitor(either)
    page = "/spaces/new/private"
    forms = [{**hidden(ada.get(page).text), "email": "ada@example.org"} for _ in range(8)]
    answers = twins(either, forms, ada, page)
    assert sorted(one.status_code for one in answers) == [303] + [409] * 7
    assert all("You have a private space already." in one.text for one in answers if one.status_code == 409)
    assert count(either, schema.spaces) == 1
