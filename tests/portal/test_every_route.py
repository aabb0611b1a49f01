"""What holds for every route, those that are added later included: the tests go through ROUTES."""

import json
import re
from collections.abc import Iterator
from urllib.parse import quote, urlencode

import pytest

from portal_adapter.refusal import Refusal
from portal_adapter.web.body import MULTIPART_BYTES, check_text
from portal_adapter.web.route import Level, Route
from portal_adapter.web.routes import FORMS, ROUTES
from portal_adapter.web.views.cards import CARDS_ROUTES
from tests.portal.place import CARDS, Place, Visitor
from tests.portal.town import ATTACHES, MARKER, NOBODYS, Town, on_the_wire, parameters, picture

GETS = [route for route in ROUTES if route.method == "GET"]
POSTS = [route for route in ROUTES if route.method == "POST"]
CLOSED = [route for route in ROUTES if route.level is not Level.OPEN]
OF_IDS = [route for route in ROUTES if parameters(route)]
JSON = {"accept": "application/json"}
INLINE = re.compile(r"<style|\sstyle=|\son[a-z]+=|javascript:|<script(?![^>]*\ssrc=)", re.IGNORECASE)


def named(routes: list[Route]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("route", routes, ids=lambda route: route.name)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    place = Place(tmp_path_factory.mktemp("town"), extra=ATTACHES)
    yield Town(place)
    place.close()


def token(visitor: Visitor) -> str:
    return str(visitor.json("/terms").json()["csrf"])


def check_headers(headers: dict[str, str], *, static: bool = False) -> None:
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["base-uri"] == policy["object-src"] == "'none'"
    # The PDF of a form is shown in a frame of our own pages (SIG-02), and nothing else in any.
    is_framed = headers.get("content-type") == "application/pdf" and policy["frame-ancestors"] == "'self'"
    assert is_framed or policy["frame-ancestors"] == "'none'"
    assert headers["x-frame-options"] == ("SAMEORIGIN" if is_framed else "DENY")
    assert policy.get("frame-src", "'self'") == "'self'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["form-action"].split()[0] == "'self'"
    assert "unsafe" not in headers["content-security-policy"]
    assert "*" not in headers["content-security-policy"]
    age = re.match(r"max-age=(\d+); includeSubDomains", headers["strict-transport-security"])
    assert age is not None
    assert int(age[1]) >= 365 * 86400
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == ("public, max-age=3600" if static else "no-store")
    assert "server" not in headers
    assert not any(name.startswith("access-control-") for name in headers)  # no other origin reads an answer
    kind = headers.get("content-type", "")
    assert kind.endswith("; charset=utf-8") or not re.match(r"text/|.*\+xml", kind), kind


# ---- what every answer says to browsers


def asks(visitor: Visitor, route: Route, path: str, headers: dict[str, str]) -> Iterator[object]:
    if route.method == "GET":
        yield visitor.get(path, headers=headers)
    else:
        yield visitor.http.post(path, headers=headers)  # refused for its form
        yield visitor.http.post(path, data={"csrf": token(visitor)}, headers=headers)  # refused for what is not in it


QUIET_POSTS = {"logout"}  # they do what they say without a field


@named([route for route in ROUTES if route.name not in QUIET_POSTS])
@pytest.mark.parametrize("who", ["ada", "nobody"])
def test_every_answer_has_the_headers(town: Town, route: Route, who: str) -> None:
    """
    Row 6.4, UI-07: CSRF, CSP and clickjacking: every answer of every route has its headers: HSTS for a year and more, a CSP
    without unsafe-inline, no sniffing, no frames, nothing kept in caches; no page has a script of its own in it (below), and
    in a real browser another site can neither send a form nor frame a page (test_browser.py).
    """
    visitor = town.ada if who == "ada" else town.nobody
    path = town.paths(route)[-1] if who == "ada" else route.path
    for headers in ({}, JSON):
        for answer in asks(visitor, route, path, headers):
            check_headers(answer.headers)
            for cookie in answer.headers.get_list("set-cookie"):
                assert cookie.startswith("__Host-")
                assert {"secure", "httponly", "path=/", "samesite=lax"} <= {
                    one.strip().lower() for one in cookie.split(";")
                }


def test_answers_that_no_view_makes_have_the_headers_too(town: Town) -> None:
    """UI-07: a page that does not exist, a method that is not served, a static file, one that is none, the cards' origin."""
    ada = town.ada
    for answer in (
        ada.get("/nowhere"),
        ada.http.put("/account"),
        ada.http.delete("/spaces"),
        ada.http.request("TRACE", "/terms"),
        ada.get("/static/none.css"),
    ):
        assert answer.status_code in {404, 405}
        check_headers(answer.headers)
    for name in ("portal.css", "print.css", "portal.js", "icon.svg"):
        answer = ada.get(f"/static/{name}")
        assert answer.status_code == 200
        check_headers(answer.headers, static=True)
    cards = Visitor(town.place, town.place.cards, CARDS)
    for route in CARDS_ROUTES:
        for answer in (cards.get(route.path), cards.http.post(route.path)):
            check_headers(answer.headers)
    outside = f"form-action 'self' {town.place.services.settings.portal.origin};"
    assert outside in cards.get("/present").headers["content-security-policy"]


@named(GETS)
@pytest.mark.parametrize("language", ["en", "fr"])
def test_no_page_has_an_inline_script_or_style(town: Town, route: Route, language: str) -> None:
    """UI-07: everything a page runs or looks like comes from its own files; each page names its language."""
    for path in town.paths(route):
        page = town.ada.get(path, headers={"accept-language": language})
        if page.headers.get("content-type", "").startswith("text/html"):
            assert not INLINE.search(page.text), INLINE.search(page.text)
            assert f'<html lang="{language}">' in page.text


# ---- forms


@named(POSTS)
def test_a_form_of_another_visit_changes_nothing(town: Town, route: Route) -> None:
    """F55, row 6.4, UI-07, 0.1: CSRF: a POST without the form token, with a wrong one, with another visitor's or person's is 403; nothing is done."""
    foreign = (None, "", "0" * 64, token(town.nobody), token(town.bob), "é" * 64)
    before = picture(town.engine, without=("audit",))
    for path in town.paths(route):
        for given in foreign:
            fields = {"a": "b"} if given is None else {"csrf": given}
            page = town.ada.http.post(path, data=fields)
            assert page.status_code == 403, given
            problem = town.ada.http.post(path, json=fields, headers=JSON)
            assert (problem.status_code, problem.json()["reason"]) == (403, "form-token")
    assert picture(town.engine, without=("audit",)) == before


@named(POSTS)
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_form_that_another_site_sends_is_refused(town: Town, route: Route, site: str) -> None:
    """UI-07: with the right token, but Sec-Fetch-Site of elsewhere, nothing is done."""
    before = picture(town.engine, without=("audit",))
    answer = town.ada.http.post(
        town.paths(route)[0], data={"csrf": token(town.ada)}, headers={"sec-fetch-site": site, **JSON}
    )
    assert (answer.status_code, answer.json()["reason"]) == (403, "form-token")
    assert picture(town.engine, without=("audit",)) == before


@named(GETS)
def test_looking_changes_nothing(town: Town, route: Route) -> None:
    """UI-07: no GET, of a person or of nobody, as page or as JSON, leaves anything in the database but lines on refusals, and on what agents open (UI-08)."""
    before = picture(town.engine)
    lines = before.pop("audit")
    for visitor in (town.ada, town.place.visitor()):
        for path in (*town.paths(route), route.path):
            for headers in ({}, JSON):
                assert visitor.get(path, headers=headers).status_code < 500
                assert visitor.http.head(path, headers=headers).status_code < 500
    after = picture(town.engine)
    assert all("done" not in line or "desk-download" in line for line in set(after.pop("audit")) - set(lines))
    assert after == before


def test_every_form_has_a_page_that_shows_it() -> None:
    """0.1: a refused form is shown again with what was typed: FORMS names pages that exist, for posts that exist."""
    assert set(FORMS) <= {route.name for route in POSTS}
    assert set(FORMS.values()) <= {route.name for route in GETS}


# ---- who may come


def page_of_form(route: Route, path: str) -> str:
    """With the ids that the POST's path has; the front page where no page shows the form again."""
    shows = next((one for one in ROUTES if one.name == FORMS.get(route.name)), None)
    ids = re.fullmatch(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", route.path), path)
    assert ids is not None
    return "/" if shows is None else shows.path.format(**ids.groupdict())


@named(CLOSED)
def test_without_a_session_one_is_sent_to_log_in(town: Town, route: Route) -> None:
    """TOK-01, 0.1: 303 to the login with the wanted page kept, or that of the form; a program gets 401; nothing is said of what there is."""
    for path in (town.paths(route)[0], route.path.replace("{", "").replace("}", "")):
        if route.method == "GET":
            page, problem = town.nobody.get(path), town.nobody.get(path, headers=JSON)
            wanted = quote(path, safe="")  # an identifier may end with a character of its own
        else:
            page = town.nobody.http.post(path, data={"csrf": token(town.nobody)})
            problem = town.nobody.http.post(path, json={"csrf": token(town.nobody)}, headers=JSON)
            wanted = quote(page_of_form(route, path), safe="")
        assert page.status_code == 303
        assert page.headers["location"] == f"/login?back={wanted}"
        assert (problem.status_code, problem.json()["code"]) == (401, "unauthenticated")


@named([route for route in CLOSED if route.level in {Level.TERMS, Level.AGENT}])
def test_without_the_terms_one_is_sent_to_them(town: Town, route: Route) -> None:
    """ESP-03: nothing but the terms and the account is reachable before they are accepted."""
    path = town.paths(route)[0]
    if route.method == "GET":
        assert town.carol.get(path).headers["location"] == f"/terms?{urlencode({'back': path})}"
        problem = town.carol.get(path, headers=JSON)
    else:
        before = picture(town.engine, without=("audit",))
        problem = town.carol.http.post(path, json={"csrf": token(town.carol)}, headers=JSON)
        assert picture(town.engine, without=("audit",)) == before
    assert (problem.status_code, problem.json()["reason"]) == (409, "terms-not-accepted")


@named(OF_IDS)
def test_what_is_anothers_does_not_exist(town: Town, route: Route) -> None:
    """
    Row 6.2, F55, 0.1, TOK-01: two tenants are apart: every route, read and written, with every id of the other's, a guessed
    or a malformed one, of spaces, procedures, files, signed documents, messages: 404 alike, not 403, and no word of the
    other's; nothing is changed. (Lists and filters: the next test. A route without a requirement and a test fails the
    build: test_requirement_list.py. The daemon's callers: tests/signer/ledger/test_exactly_once.py and tests/signer/people/test_bound.py.)
    """
    csrf, before = token(town.ada), picture(town.engine, without=("audit",))
    said = set()
    for number, path in enumerate(town.strangers(route)):
        for headers in (JSON, {}) if number % 4 == 0 else (JSON,):  # the page of a refusal is the same for all
            if route.method == "GET":
                answer = town.ada.get(path, headers=headers)
            else:
                answer = town.ada.http.post(path, data={"csrf": csrf}, headers=headers)
            assert answer.status_code == 404, (path, answer.status_code, answer.text[:300])
            assert MARKER.lower() not in answer.text.lower()
            assert "set-cookie" not in answer.headers
            if headers:
                said.add(answer.text)
    assert len(said) == 1, said  # what exists elsewhere and what exists nowhere: the same words
    assert picture(town.engine, without=("audit",)) == before


@named(GETS)
def test_no_page_of_a_person_has_a_word_of_anothers(town: Town, route: Route) -> None:
    """Row 6.2, TOK-01: no page, list or filter of Ada's says anything of Bob's: 0 leaks."""
    for path in town.paths(route):
        for headers in ({}, JSON):
            for query in ("", "?page=2", "?q=Zauber", "?space=" + town.bob_space, "?back=/spaces/" + town.bob_space):
                text = town.ada.get(path + query, headers=headers).text.lower()
                assert MARKER.lower() not in text


FORGED = (
    "x-user", "x-remote-user", "remote-user", "x-forwarded-user", "x-client-cert", "x-ssl-client-cert", "ssl-client-cert",
    "x-forwarded-client-cert", "x-original-url", "x-rewrite-url", "x-forwarded-for", "x-http-method-override", "authorization",
)  # fmt: skip


@named(CLOSED)
def test_no_header_makes_somebody(town: Town, route: Route) -> None:
    """F55, TOK-14: a forged header makes nobody a user: whatever a request says in headers, without a session it is 401."""
    value = town.account()
    headers = {**dict.fromkeys(FORGED, value), **JSON}
    path = town.paths(route)[0]
    if route.method == "GET":
        answer = town.nobody.get(path, headers=headers)
    else:
        answer = town.nobody.http.post(path, json={"csrf": token(town.nobody)}, headers=headers)
    assert answer.status_code == 401


# ---- what is sent


@named(POSTS)
def test_a_body_that_is_too_large_is_refused_while_it_comes(town: Town, route: Route) -> None:
    """0.1: by its stated length, and where none is stated after the limit; both numbers are said, and nothing is kept."""
    limits = town.place.services.settings.limits
    limit = limits.document_bytes if route.upload else limits.form_bytes
    most = limit + MULTIPART_BYTES if route.upload else limit
    path, before = town.paths(route)[0], picture(town.engine, without=("audit",))
    stated = town.ada.http.post(path, content=b"x" * (most + 1), headers={"content-type": "text/plain", **JSON})
    assert (stated.status_code, stated.json()["limit"], stated.json()["measured"]) == (413, limit, most + 1)

    taken = 0

    def pieces() -> Iterator[bytes]:
        nonlocal taken
        head = b"csrf=x&a="
        while True:
            taken += 1
            yield head + b"x" * 65536

    kind = b"application/x-www-form-urlencoded"
    cookies = "; ".join(f"{one.name}={one.value}" for one in town.ada.http.cookies.jar).encode()
    headers = [(b"content-type", kind), (b"accept", b"application/json"), (b"cookie", cookies)]
    status, _, body = on_the_wire(town.place.app, "POST", path.encode(), headers, pieces())
    assert (status, json.loads(body)["limit"]) == (413, limit)
    assert taken * 65536 <= most + 3 * 65536  # the rest was not waited for
    assert picture(town.engine, without=("audit",)) == before


MARKS = "\u0301\u0327" * 16  # on one letter


def test_no_letter_has_so_many_marks(town: Town) -> None:
    """0.1: putting them in order takes the square of their number, of seconds for a form that is full of them; what scripts need is taken."""
    for text in (MARKS, "a" + "\u0f73" * 31, "\uff9e\u0301" * 16):  # some are marks only once they are taken apart
        with pytest.raises(Refusal):
            check_text("a", text)
    check_text("a" + "\u0301\u0327" * 15, "ế" * 100, "हिन्दी" * 100, "한국어" * 100, "\u1100\u1161" * 100)
    found = town.ada.json(f"/spaces/{town.ada_space}/catalogue?words=a{MARKS}")
    assert (found.status_code, found.json()["reason"]) == (422, "form-unreadable")


@named(POSTS)
def test_a_body_of_another_kind_is_refused(town: Town, route: Route) -> None:
    """0.1: only forms and JSON objects of texts, with no more fields than a form has; a file only where one is asked for."""
    path, csrf = town.paths(route)[0], token(town.ada)
    headers = {**JSON, "x-csrf-token": csrf}
    before = picture(town.engine, without=("audit",))
    for kind in ("text/plain", "application/xml", "application/octet-stream"):
        assert town.ada.http.post(path, content=b"a=b", headers={**headers, "content-type": kind}).status_code == 415
    halves = (b'{"a": "\\ud800"}', b'{"\\udc00": "a"}')  # of a pair in UTF-16: no text
    marks = f'{{"a": "x{MARKS}"}}'.encode()
    wrong = (
        b"{",
        b"[]",
        b'"a"',
        b'{"a": 1}',
        b'{"a": {"b": "c"}}',
        b"[" * 100_000,
        b"\xff\xfe",
        b"null",
        *halves,
        marks,
    )
    for body in wrong:
        answer = town.ada.http.post(path, content=body, headers={**headers, "content-type": "application/json"})
        assert (answer.status_code, answer.json()["reason"]) == (422, "form-unreadable"), body[:20]
    part = b'--x\r\ncontent-disposition: form-data; name="a"\r\n\r\nx\r\n--x--\r\n'
    for charset in ("undefined", "punycode", "utf-7"):  # which fails, takes long, or makes what is no text
        kind = f"multipart/form-data; boundary=x; charset={charset}"
        assert town.ada.http.post(path, content=part, headers={**headers, "content-type": kind}).status_code == 415
    assert town.ada.http.post(path, data={"a": MARKS}, headers=headers).json()["reason"] == "form-unreadable"
    many = {f"f{number}": (None, "x") for number in range(600)}
    assert town.ada.http.post(path, files=many, headers=headers).status_code == 422
    answer = town.ada.http.post(path, json=dict.fromkeys(many, "x"), headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (422, "form-unreadable")
    if not route.upload:
        file = {"file": ("a.pdf", b"%PDF-1.7", "application/pdf")}
        assert town.ada.http.post(path, files=file, headers=headers).status_code == 422
    assert picture(town.engine, without=("audit",)) == before


@named([route for route in POSTS if route.name not in QUIET_POSTS])
def test_a_parameter_counts_where_it_belongs(town: Town, route: Route) -> None:
    """0.1: a form's token in the address is none, and what stands there beside the form is no field of it."""
    path, csrf = town.paths(route)[0], token(town.ada)
    before = picture(town.engine, without=("audit",))
    problem = town.ada.http.post(path, params={"csrf": csrf}, data={"a": "b"}, headers=JSON)
    assert (problem.status_code, problem.json()["reason"]) == (403, "form-token")
    twice = f"csrf={csrf}&csrf=wrong".encode()  # the last one counts, wherever one looks
    headers = {**JSON, "content-type": "application/x-www-form-urlencoded"}
    assert town.ada.http.post(path, content=twice, headers=headers).status_code == 403
    assert picture(town.engine, without=("audit",)) == before


def test_what_stands_in_the_address_is_no_field(town: Town) -> None:
    """0.1: a form whose fields are in the address instead is an empty one."""
    fields = {"kind": "association", "title": "Choir", "company": "Choir", "email": "c@example.org"}
    problem = town.ada.http.post(
        "/spaces/new/business", params=fields, data={"csrf": token(town.ada)}, headers=JSON
    ).json()
    assert {"title", "company", "email"} <= {one["field"] for one in problem["errors"]}


LARGE = ("9" * 19, "9" * 40, "٣")


@named(GETS + [route for route in POSTS if route.name not in QUIET_POSTS])
def test_numbers_that_are_too_large_are_refused(town: Town, route: Route) -> None:
    """0.1: pages, versions and counts that no database holds are a refusal, or nothing that is looked at."""
    csrf = token(town.ada)
    before = picture(town.engine, without=("audit", "marks", "attempts"))
    for number in LARGE:
        names = dict.fromkeys(("page", "version", "sent", "seen", "document"), number)
        if route.method == "GET":
            answer = town.ada.get(town.paths(route)[0], params=names)
        else:
            answer = town.ada.http.post(town.paths(route)[0], data={**names, "csrf": csrf})
        assert answer.status_code < 500, (number, answer.text[:300])
        if answer.status_code >= 400:
            assert picture(town.engine, without=("audit", "marks", "attempts")) == before


NULLS = (
    "\0",
    "a\r\nbcc: x@example.org",
    "\u202e",
    "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
    "\x1b[2J",
)


@named([route for route in POSTS if route.name not in QUIET_POSTS])
def test_no_text_in_a_form_brings_it_down(town: Town, route: Route) -> None:
    """0.1: whatever stands in the fields of the form that is shown, the answer is a refusal or a page, and says it on one line."""
    shows = FORMS.get(route.name)
    names = {
        "email",
        "title",
        "name",
        "given",
        "family",
        "number",
        "nonce",
        "ticket",
        "statement",
        "kind",
        "version",
        "token",
    }
    if shows is not None:
        get = next(one for one in GETS if one.name == shows)
        page = town.ada.get(town.paths(get)[0]).text
        names |= set(re.findall(r' name="([a-z_]+)"', page)) - {"csrf", "form", "accepted"}
    csrf = token(town.ada)
    for text in NULLS:
        before = picture(town.engine, without=("audit", "marks", "attempts"))
        path = town.paths(route)[-1]
        answer = town.ada.http.post(path, data={**dict.fromkeys(names, text), "csrf": csrf})
        assert answer.status_code < 500, answer.text
        assert not any("\n" in value or "\r" in value or "bcc" in value.lower() for value in answer.headers.values())
        if answer.status_code >= 400:
            assert picture(town.engine, without=("audit", "marks", "attempts")) == before


# ---- paths


PATHS = (
    b"/static/../portal.py", b"/static/..%2f..%2fsettings.py", b"/static/%2e%2e/%2e%2e/settings.py", b"/static/..%5c..%5csettings.py",
    b"/static//etc/passwd", b"/static/%00", b"/spaces/../account/../../etc/passwd", b"/help/../../../etc/passwd",
    b"/help/..%2f..%2fsettings", b"//evil.example/login", b"/%2e%2e/%2e%2e/etc/passwd", b"/login%0d%0aset-cookie:%20a=b", b"/static",
    b"/static/", b"/static/portal.css/..%2f..%2froutes.py", b"/.git/config", b"/static/.git/HEAD", b"/.env", b"/docs", b"/openapi.json",
    b"/metrics", b"/health", b"/server-status",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.decode())
def test_a_path_leads_to_a_page_or_to_nothing(town: Town, path: bytes) -> None:
    """F55, 0.1: a path that climbs out of a directory, names another host or breaks a line is not found; no file of ours is shown."""
    status, headers, body = on_the_wire(town.place.app, "GET", path, [])
    assert status in {404, 307}, (status, body[:200])
    assert b"import" not in body
    assert b"root:" not in body
    for name, value in headers:
        assert b"\r" not in value
        assert b"\n" not in value
        if name == b"location":
            assert value.startswith((b"https://portal.test/", b"/"))
            assert b"evil" not in value


def test_the_ids_that_nobody_has_are_tried(town: Town) -> None:
    """0.1: the tests of ids are not empty: both tenants' ids are in the lists they go through."""
    space = next(route for route in OF_IDS if route.name == "space")
    tried = set(town.strangers(space))
    assert {f"/spaces/{town.bob_space}", f"/spaces/{NOBODYS[0]}"} <= tried
    assert town.ada.get(f"/spaces/{town.ada_space}").status_code == 200
    assert town.bob.get(f"/spaces/{town.bob_space}").status_code == 200
