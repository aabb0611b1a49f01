"""The window, for real: what is typed in it, and what becomes of it."""

import re
import time
from urllib.parse import parse_qs, urlsplit

import pytest

from signer.v1 import operator_pb2 as op
from tests.portal.place import hidden
from tests.portal.real import ENROL_AT, TRIES_A_MINUTE, Browser, Person, Real
from tests.portal.signing import Signer, fields, returned
from tests.signer.access.calls import Caller, metric
from tests.signer.people import canaries

WRONG = "wrong horse 8"


TYPED: dict[str, bytes] = {"the wrong secret code": WRONG.encode()}


def canaries_of(person: Person, *more: str) -> None:
    TYPED[f"{person.name}'s secret code"] = person.secret_code.encode()
    TYPED.update({f"{person.name}'s {number}": text.encode() for number, text in enumerate(more)})


# ---- enrolment, with an app; the login with its next code, half a minute later, comes last


def enrols(browser: Browser, code: str) -> str:
    """The second page."""
    where = f"{browser.real.window_origin}/enrol"
    begun = browser.post(where, browser.get(where).text, {"enrolment": code})
    assert begun.status_code == 303, begun.text
    page = browser.get(browser.real.window_origin + begun.headers["location"])
    assert page.status_code == 200
    assert code not in page.text and code not in begun.headers["location"]
    return page.text


def sets_up_an_app(real: Real) -> None:
    """Gil, with each mistake first."""
    gil, browser = real.people["gil"], real.browser()
    address = browser.asks_for_window(gil.number)
    early = browser.types(address, gil.secret_code, "123456")
    assert early.status_code == 409
    assert 'href="/enrol?language=en"' in early.text
    finish = f"{real.window_origin}/enrol/finish"
    code = real.begins_enrolment(gil)
    assert f"\nWhere you type it in: {ENROL_AT}\n" in real.inbox.next("gil", "enrolment-code")["text"]
    page = enrols(browser, code)
    picture = browser.get(f"{real.window_origin}/enrol/picture.svg")
    assert picture.headers["content-type"] == "image/svg+xml; charset=utf-8"
    assert b"<svg" in picture.content
    shown = re.search(r"<code>([A-Z2-7 ]+)</code>", page)
    assert shown is not None
    key = shown[1].replace(" ", "")
    # Nobody else sees the key.
    assert real.browser().get(f"{real.window_origin}/enrol/picture.svg").status_code == 404
    assert real.browser().get(finish).status_code == 303
    # Everything that is wrong is told at once, and what was typed is not shown again.
    wrong = browser.post(finish, page, {"secret_code": "aaaaaa", "again": "b", "otp": ""})
    assert wrong.status_code == 422
    assert "not all the same" in wrong.text and "This field is mandatory." in wrong.text
    differs = browser.post(finish, page, {"secret_code": gil.secret_code, "again": WRONG, "otp": "1"})
    assert "The two are not the same." in differs.text and WRONG not in differs.text
    assert "One-time code: A one-time code has six digits." in differs.text
    bad = browser.post(finish, page, {"secret_code": gil.secret_code, "again": gil.secret_code, "otp": "000000"})
    assert bad.status_code == 422
    assert "The one-time code is not right." in bad.text and gil.secret_code not in bad.text
    gil.uri = f"otpauth://totp/gil?secret={key}"
    typed = {"secret_code": gil.secret_code, "again": gil.secret_code, "otp": gil.otp()}
    done = browser.post(finish, page, typed)
    assert done.status_code == 200
    assert "Your codes are set up" in done.text
    # The picture is gone, and the code was good once.
    assert browser.get(f"{real.window_origin}/enrol/picture.svg").status_code == 404
    where = f"{real.window_origin}/enrol"
    over = browser.post(where, browser.get(where).text, {"enrolment": code})
    assert over.status_code == 422
    assert "There is no such enrolment code, or its time is over." in over.text
    canaries_of(gil, code, key)


def test_a_person_sets_up_her_codes_with_an_app(real: Real) -> None:
    """TOK-14: before, her product is not set up; with the enrolment code there is a QR code, which nobody else sees."""
    sets_up_an_app(real)


# ---- logging in


@pytest.mark.parametrize("name", ["ada", "bob", "dan"])
def test_a_person_logs_in_with_her_codes(real: Real, name: str) -> None:
    """
    TOK-14: product number, secret code and one-time code open a session, whatever the one-time code comes from. For the
    next login the same one-time code is refused.
    """
    person, browser = real.people[name], real.browser()
    address = browser.asks_for_window(person.number)
    otp = browser.codes_of(person, address)
    browser.opens(browser.returns(browser.types(address, person.secret_code, otp)))
    page = browser.get("/account")
    assert page.status_code == 200
    assert f"{person.given} {person.family}" in page.text
    assert person.number in page.text
    other = real.browser()
    again = other.types(other.asks_for_window(person.number), person.secret_code, otp)
    assert again.status_code == 422
    assert "one-time code" in again.text
    real.unlocks(name)


def test_the_page_says_who_logs_in_where(real: Real) -> None:
    """TOK-14: before a code is typed the page names the product and the portal by its origin; the fields are empty."""
    page = real.browser().get(real.browser().asks_for_window("ada-login"))
    assert "ada-login" in page.text
    assert real.portal_origin in page.text
    assert fields(page.text) == {"secret_code": "", "otp": ""}
    assert 'type="password"' in page.text
    assert 'autocomplete="one-time-code"' in page.text


def test_the_window_speaks_the_reader_s_language(real: Real) -> None:
    """UI-02: it opens in the language of the portal's page, and has a link to the other one for the same login."""
    browser = real.browser()
    address = browser.asks_for_window("ada-login").replace("language=en", "language=fr")
    page = browser.get(address).text
    assert '<html lang="fr">' in page
    assert "Code secret" in page
    other = re.search(r'<a href="(\?[^"]+)" lang="en"', page)
    assert other is not None
    english = browser.get(f"{real.window_origin}/login{other[1].replace('&amp;', '&')}").text
    assert "Secret code" in english
    assert hidden(english)["nonce"] == hidden(page)["nonce"]


def test_every_answer_of_the_window_has_the_headers(real: Real) -> None:
    """UI-07: TLS only, no store, no frame, no script of others; a form may lead to the portal and nowhere else."""
    browser = real.browser()
    for path in ("/", "/login", "/enrol", "/enrol/finish", "/enrol/picture.svg", "/nothing", "/static/portal.css"):
        headers = browser.get(real.window_origin + path).headers
        policy = headers["content-security-policy"]
        assert f"form-action 'self' {real.portal_origin};" in policy
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert headers["strict-transport-security"] == "max-age=63072000; includeSubDomains"
        assert headers["x-content-type-options"] == "nosniff"
        assert "object-src 'none'" in policy and "base-uri 'none'" in policy
        assert headers["referrer-policy"] == "same-origin"
        assert not any(name.startswith("access-control-") for name in headers)
        assert headers.get("content-type", "text/; charset=utf-8").endswith("; charset=utf-8")
        assert headers["cache-control"] == ("public, max-age=3600" if "static" in path else "no-store")
        assert "server" not in headers
    cookie = real.browser().get(f"{real.window_origin}/enrol").headers["set-cookie"]
    assert cookie.startswith("__Host-window=")
    for flag in ("HttpOnly", "Secure", "Path=/", "SameSite=lax"):
        assert flag in cookie


# ---- wrong codes


@pytest.mark.parametrize("number", ["ada-login", "nobody-login"])
def test_a_wrong_code_is_told_and_not_shown_again(real: Real, number: str) -> None:
    """TOK-14: a wrong code is refused beside its field, the fields are empty, and a product that is none looks the same."""
    browser = real.browser()
    address = browser.asks_for_window(number)
    otp = real.people["ada"].otp() if number == "ada-login" else "123456"
    asked = metric(real.rig, "paraph_refusals_total", rpc="Authenticate")
    answer = browser.types(address, WRONG, otp)
    assert metric(real.rig, "paraph_refusals_total", rpc="Authenticate") == asked + 1, (
        "one that comes sooner would tell"
    )
    assert answer.status_code == 422
    assert "The secret code or the one-time code is not right." in answer.text
    assert "After a few more wrong tries nothing is looked at for 15 minutes or longer." in answer.text
    assert 'href="#field-secret_code"' in answer.text
    assert fields(answer.text) == {"secret_code": "", "otp": ""}
    assert WRONG not in answer.text and otp not in answer.text
    real.unlocks("ada")


def test_empty_fields_are_told_all_at_once(real: Real) -> None:
    """UI-03: each mandatory field that is empty is named, and nothing is asked of the daemon."""
    browser = real.browser()
    answer = browser.types(browser.asks_for_window("ada-login"), "", " ")
    assert answer.status_code == 422
    assert answer.text.count("This field is mandatory.") == 4  # in the summary, and beside each field
    assert 'aria-invalid="true"' in answer.text


@pytest.mark.parametrize("otp", ["12", "12345", "1234567", "12345a", "١٢٣٤٥٦"])
def test_what_is_no_one_time_code_costs_no_try(real: Real, otp: str) -> None:
    """TOK-14, UI-03: what has not a one-time code's form is told at its field, and not given to the daemon."""
    browser = real.browser()
    asked = metric(real.rig, "paraph_refusals_total", rpc="Authenticate")
    answer = browser.types(browser.asks_for_window("ada-login"), WRONG, otp)
    assert answer.status_code == 422
    assert 'href="#field-otp">One-time code: A one-time code has six digits.' in answer.text
    assert 'href="#field-secret_code"' not in answer.text
    assert metric(real.rig, "paraph_refusals_total", rpc="Authenticate") == asked
    spaced = browser.types(browser.asks_for_window("nobody-login"), WRONG, " 123\u00a0456 ")
    assert 'href="#field-secret_code"' in spaced.text  # as apps show it


def test_the_certificate_for_signing_is_not_for_logging_in(real: Real) -> None:
    """TOK-03: the number of a signature certificate is refused before any code is typed, and the page says why."""
    browser = real.browser()
    answer = browser.get(browser.asks_for_window("ada"))
    assert answer.status_code == 422
    assert "This product number is for signing." in answer.text
    assert fields(answer.text) == {}


def test_wrong_codes_lock_for_a_quarter_of_an_hour_and_no_longer(real: Real) -> None:
    """
    0.1 rate-limited, row 6.6: after three wrong codes for one person, from wherever, nothing more is looked at where she has not logged in before, and
    the page says for how long: at most 15 minutes. In a browser in which she has, and with her card, she logs in meanwhile. The address that the
    daemon counts is the browser's.
    """
    eve = real.people["eve"]
    hers = real.browser()
    hers.logs_in(eve)
    for _ in range(3):
        browser = real.browser()
        assert browser.types(browser.asks_for_window(eve.number), WRONG, "000000").status_code == 422
    browser = real.browser()
    locked = browser.types(browser.asks_for_window(eve.number), eve.secret_code, eve.otp())
    assert locked.status_code == 429
    assert 800 < int(locked.headers["retry-after"]) <= 900
    assert "Too many wrong codes were typed." in locked.text and "Try again in 15 minutes." in locked.text
    assert fields(locked.text) == {"secret_code": "", "otp": ""}
    assert f"subject=eve source=window {browser.address}" in real.rig.log.read_text()
    hers.logs_in(eve)
    real.browser(real.card("Eve", "Euler")).logs_in_with_card()
    real.unlocks("eve")
    real.browser().logs_in(eve)


def test_an_address_tries_so_many_times_a_minute(real: Real) -> None:
    """0.1 rate-limited, row 6.6: one form with codes more than the limit from one address within a minute is refused unseen; other addresses go on."""
    browser = real.browser()
    address = browser.asks_for_window("nobody-login")
    began = time.monotonic()
    answers = [browser.types(address, WRONG, "000000") for _ in range(TRIES_A_MINUTE + 1)]
    assert time.monotonic() - began < 60
    assert [answer.status_code for answer in answers] == [422] * TRIES_A_MINUTE + [429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    other = real.browser()
    assert other.types(other.asks_for_window("nobody-login"), WRONG, "000000").status_code == 422


def test_a_code_is_not_sent_twice_in_a_moment(real: Real) -> None:
    """0.1 rate-limited, row 6.6: within half a minute a second code is refused, with how long that lasts, for any number; the contact is not shown."""
    for number in ("dan-login", "nobody-at-all-login"):
        browser = real.browser()
        address = browser.asks_for_window(number)
        sent = browser.has_sent(address, browser.get(address).text)
        assert "one is on its way" in sent.text and "/dan" not in sent.text
        again = browser.post(address, sent.text, {"do": "send"})
        assert again.status_code == 429
        assert 0 < int(again.headers["retry-after"]) <= 30
        assert "A code was sent a moment ago." in again.text


def test_numbers_that_there_are_look_like_others(real: Real) -> None:
    """TOK-14: the page, and the one after a code was asked for, are the same for a TOTP, a HOTP, a code that is sent, and nobody's."""

    def seen(page: str, number: str) -> str:
        own = r'name="(csrf|nonce|ends)" value="[^"]*"|nonce=[0-9a-f]+|ends=\d+|data-(of|ends|now)="[^"]*"'
        return re.sub(own, "", page.replace(number, "NUMBER"))

    shown, sent = set(), set()
    for number in ("ada-login", "bob-login", "hal-login", "fay-login", "never-seen-login"):
        browser = real.browser()
        address = browser.asks_for_window(number)
        page = browser.get(address)
        shown.add((page.status_code, seen(page.text, number)))
        answer = browser.has_sent(address, page.text)
        sent.add((answer.status_code, seen(answer.text, number)))
    assert len(shown) == 1
    assert len(sent) == 1


# ---- what no code can mend


def test_a_suspended_person_is_told(real: Real) -> None:
    """TOK-14: right codes of somebody who is suspended open nothing; the page says so, and asks for no code again."""
    fay, browser = real.people["fay"], real.browser()
    with Caller(real.rig, "operator") as operator:
        operator.operator.SuspendSubject(op.SuspendSubjectRequest(subject="fay"), timeout=10)
        address = browser.asks_for_window(fay.number)
        answer = browser.types(address, fay.secret_code, fay.otp())
        assert answer.status_code == 409
        assert "This product is suspended." in answer.text
        assert fields(answer.text) == {}
        operator.operator.SuspendSubject(op.SuspendSubjectRequest(subject="fay", resume=True), timeout=10)


def test_without_the_daemon_nothing_is_lost(real: Real) -> None:
    """
    0.1 signer-unavailable, SIG-15: the page says that nothing was lost and offers the same form, empty; it works when the
    daemon is back. A signing goes on, too, and can be left meanwhile.
    """
    ada, browser = real.people["ada"], real.browser()
    signer, leaver, late = (Signer.at(real, "ada") for _ in range(3))
    codes = [one.approves() for one in (signer, leaver)]
    address = browser.asks_for_window(ada.number)
    page = browser.get(address).text
    real.rig.stop()
    try:
        answer = browser.post(address, page, {"secret_code": ada.secret_code, "otp": "123456"})
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert "Nothing was lost" in answer.text
        assert fields(answer.text) == {"secret_code": "", "otp": ""}
        for away in (
            signer.types(codes[0], secret_code=ada.secret_code, otp="123456"),
            signer.get("/sign/codes"),
            late.browser.get(late.opened.address),
        ):
            assert away.status_code == 503
            assert "Nothing was lost" in away.text and ">Try again</a>" in away.text
        assert late.opened.address.partition("?")[2].partition("&")[0] in away.text
        assert returned(leaver.post("/sign/cancel", codes[1]))["outcome"] == "cancelled"
        opened = browser.get(address)
        assert opened.status_code == 503
        assert "Try again" in opened.text
    finally:
        real.rig.launch()
        real.rig.wait_serving()
    done = browser.post(address, answer.text, {"secret_code": ada.secret_code, "otp": ada.otp()})
    assert browser.returns(done).status_code == 303
    typed = {"secret_code": ada.secret_code, "otp": ada.otp()}
    assert returned(signer.types(codes[0], **typed))["outcome"] == "signed"
    assert "Read and approved" in late.follows()


# ---- forms of others


def test_a_form_of_another_visit_is_refused(real: Real) -> None:
    """UI-07: a form without its token, with another browser's, or from another site is refused, and no code of it looked at."""
    browser = real.browser()
    address = browser.asks_for_window("ada-login")
    mine, others = browser.get(address).text, real.browser().get(address).text
    typed = {"secret_code": "correct horse 7", "otp": "123456"}
    for page, more in (
        (re.sub(r'name="csrf" value="[^"]*"', 'name="csrf" value=""', mine), {}),
        (others, {}),
        (mine, {"headers": {"sec-fetch-site": "cross-site"}}),
        (mine, {"headers": {"sec-fetch-site": "same-site"}}),
    ):
        answer = browser.post(address, page, typed, **more)
        assert answer.status_code == 403, answer.text
    assert browser.post(address, mine, {"secret_code": WRONG, "otp": "123456"}).status_code == 422


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"a=" + b"x" * 17_000, "application/x-www-form-urlencoded", 413),
        (b"{}", "application/json", 415),
        (b"--x--", "multipart/form-data; boundary=x", 415),
        (b"&".join(b"%d=1" % number for number in range(30)), "application/x-www-form-urlencoded", 422),
        (b"a=\xff\xfe", "application/x-www-form-urlencoded", 422),
    ],
)
def test_what_is_no_form_is_refused(real: Real, content: bytes, kind: str, status: int) -> None:
    """0.1: too large, of another kind, with too many fields, or not text: refused with its own code."""
    answer = real.browser().http.post(f"{real.window_origin}/login", content=content, headers={"content-type": kind})
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    "query",
    [
        "",
        "credential=ada-login&ends=9999999999",
        "credential=ada-login&nonce=00&ends=9999999999",
        f"credential=ada-login&nonce={'AB' * 32}&ends=9999999999",
        f"credential=ADA%0d%0aX&nonce={'ab' * 32}&ends=9999999999",
        f"credential={'a' * 64}&nonce={'ab' * 32}&ends=9999999999",
        f"credential=ada-login&nonce={'ab' * 65}&ends=9999999999",
        f"credential=ada-login&nonce={'ab' * 32}",
        f"credential=ada-login&nonce={'ab' * 32}&ends=soon",
    ],
)
def test_an_address_that_the_portal_did_not_make_leads_nowhere(real: Real, query: str) -> None:
    """TOK-14: without a product number and a challenge of their form there is a page without code fields, and a way to the portal."""
    answer = real.browser().get(f"{real.window_origin}/login?{query}")
    assert answer.status_code == 422
    assert fields(answer.text) == {}
    assert f'href="{real.portal_origin}/login"' in answer.text


def test_the_window_leads_to_its_own_portal_alone(real: Real) -> None:
    """TOK-14: whatever an address or a form says of audience and return, the answer goes to the configured portal."""
    ada, browser = real.people["ada"], real.browser()
    address = browser.asks_for_window(ada.number)
    evil = {"audience": "https://evil.example", "back": "https://evil.example", "portal": "https://evil.example"}
    page = browser.get(f"{address}&audience=https://evil.example").text
    done = browser.post(address, page, {"secret_code": ada.secret_code, "otp": ada.otp(), **evil})
    assert done.status_code == 303
    assert done.headers["location"].startswith(f"{real.portal_origin}/login/returned?")
    query = parse_qs(urlsplit(done.headers["location"]).query)
    assert query.keys() == {"statement", "signature", "certificate"}
    assert "=" not in "".join(one[0] for one in query.values())


# ---- enrolment, with a code that is sent


def test_a_person_sets_up_her_codes_with_a_code_that_is_sent(real: Real) -> None:
    """TOK-14: where one-time codes are sent the first one is, too; another one at once is refused with a time."""
    hal, browser = real.people["hal"], real.browser()
    code = real.begins_enrolment(hal)
    after = len(real.inbox.messages)
    page = enrols(browser, code)
    assert "picture.svg" not in page
    finish = f"{real.window_origin}/enrol/finish"
    again = browser.post(finish, page, {"do": "send"})
    assert again.status_code == 429
    assert "A code was sent a moment ago." in again.text
    otp = real.inbox.code("hal", "confirm-code", after)
    done = browser.post(finish, page, {"secret_code": hal.secret_code, "again": hal.secret_code, "otp": otp})
    assert done.status_code == 200, done.text
    browser.logs_in(hal)
    canaries_of(hal, code, otp)


def test_an_app_that_was_set_up_logs_in(real: Real) -> None:
    """TOK-14: with the code that comes after the one of the enrolment."""
    gil = real.people["gil"]
    if not gil.uri:  # this test runs alone
        sets_up_an_app(real)
    real.browser().logs_in(gil)


# ---- another secret code


def change_page(real: Real, browser: Browser, number: str) -> str:
    """With the product's number, as the front page leads to it."""
    where = f"{real.window_origin}/code"
    asked = browser.get(where)
    assert 'name="credential"' in asked.text and 'name="secret_code"' not in asked.text
    page = browser.post(where, asked.text, {"credential": number, "do": "number"})
    assert page.status_code == 200, page.text
    return page.text


def form_of(page: str) -> str:
    """The one with the codes."""
    return page[page.rindex("<form") :]


def test_a_person_changes_her_secret_code(real: Real) -> None:
    """
    TOK-14, ASVS 6.2.2, 6.2.3, 6.2.4, 6.2.11: from her account she comes to the window; by her secret code and a one-time code
    that is sent for it she sets another one. What is wrong is told at its field, nothing typed is shown again, and the
    one-time code is not used up by it. The same form sent twice is done once. Then the new one logs her in and the old does not.
    """
    dan, browser, new = real.people["dan"], real.browser(), "clay and kiln 5"
    browser.logs_in(dan)
    account = browser.get("/account").text
    assert f'href="{real.window_origin}/code?credential={dan.number}&amp;language=en"' in account
    where, after = f"{real.window_origin}/code", len(real.inbox.messages)
    page = browser.get(f"{where}?credential={dan.number}&language=en").text
    assert "of nobody" not in page and dan.number in page
    sent = browser.has_sent(where, page, {"credential": dan.number})
    assert sent.status_code == 200 and "on its way to its holder" in sent.text
    otp = real.inbox.code("dan", "change-code", after)
    again = browser.post(where, page, {"credential": dan.number, "do": "send"})
    assert again.status_code == 429 and "A code was sent a moment ago." in again.text
    good = {"credential": dan.number, "secret_code": dan.secret_code, "new_code": new, "again": new, "otp": otp}
    for wrong, told in (
        ({"otp": "", "secret_code": ""}, "This field is mandatory."),
        ({"new_code": "short", "again": "short"}, "A secret code has 8 to 64 characters"),
        ({"again": WRONG}, "The two are not the same."),
        ({"new_code": "password1", "again": "password1"}, "This is easy to guess."),
        ({"new_code": f"{dan.name}-1987", "again": f"{dan.name}-1987"}, "This is easy to guess."),
        ({"new_code": dan.secret_code, "again": dan.secret_code}, "This is the secret code that you have."),
        ({"new_code": f"{dan.family}-1987", "again": f"{dan.family}-1987"}, "This is easy to guess."),
        ({"secret_code": WRONG}, "The secret code or the one-time code is not right."),
        ({"credential": "no number!"}, "This is not a product number."),
    ):
        answer = browser.post(where, form_of(sent.text), good | wrong)
        assert (answer.status_code, told in answer.text) == (422, True), (wrong, answer.text)
        assert not [one for one in (dan.secret_code, new, WRONG, otp) if one in answer.text]
    done = browser.post(where, form_of(sent.text), good)
    assert done.status_code == 200 and "Your secret code is changed" in done.text
    assert browser.post(where, form_of(sent.text), good).text == done.text
    canaries_of(dan, otp, new)
    old, dan.secret_code = dan.secret_code, new
    assert real.inbox.next("dan", "code-changed", after)
    other = real.browser()
    address = other.asks_for_window(dan.number)
    assert other.types(address, old, other.codes_of(dan, address)).status_code == 422
    real.unlocks("dan")


def test_a_change_tells_no_number(real: Real) -> None:
    """TOK-14: of a product that there is not the window shows what it shows of one that there is: asked, sent and typed."""
    pages = []
    for number in (real.people["hal"].number, "nobody-at-all"):
        browser = real.browser()
        page = change_page(real, browser, number)
        where = f"{real.window_origin}/code"
        sent = browser.has_sent(where, page, {"credential": number})
        typed = {"credential": number, "secret_code": WRONG, "otp": "000000", "new_code": "clay and kiln 5"}
        wrong = browser.post(where, form_of(sent.text), typed | {"again": "clay and kiln 5"})
        weak = browser.post(where, form_of(sent.text), typed | {"new_code": "password1", "again": "password1"})
        assert (sent.status_code, wrong.status_code, weak.status_code) == (200, 422, 422)
        pages.append([bare(answer.text, number) for answer in (sent, wrong, weak)])
    assert pages[0] == pages[1]


def bare(page: str, number: str) -> str:
    """Without what differs from visit to visit."""
    return re.sub(r'name="(csrf|form)" value="[^"]*"', "", page).replace(number, "NUMBER")


# ---- nothing typed is written anywhere


def test_nothing_that_was_typed_is_written_anywhere(real: Real) -> None:
    """
    UI-07, row 7.2: after all of the above, and a login here, no secret code, one-time code, enrolment code or seed is in a log, a
    database, a command line or an environment of the portal or the window, in any form.
    """
    ada, browser = real.people["ada"], real.browser()
    address = browser.asks_for_window(ada.number)
    otp = ada.otp()
    done = browser.types(address, ada.secret_code, otp)
    canaries_of(ada, otp)
    browser.returns(done)
    wrong = "799979"  # no part of any time that is written as digits
    browser.types(browser.asks_for_window(ada.number), WRONG, wrong)
    TYPED["a wrong one-time code"] = wrong.encode()
    written = canaries.files(real.directory) | {"the daemon's log": real.rig.log.read_bytes()}
    written |= {
        f"the {name}'s {what}": (real.proc(name) / what).read_bytes()
        for name in ("portal", "window")
        for what in ("cmdline", "environ")
    }
    written["the address that leads back"] = done.headers["location"].encode()
    assert any("window.log" in name and content for name, content in written.items())
    assert any("portal.db" in name and content for name, content in written.items())
    assert canaries.hits(TYPED, written) == []
