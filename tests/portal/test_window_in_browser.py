"""The window in a real browser, with the daemon behind it: for everybody, by keyboard, without scripts, under the CSP."""

import json
import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, FilePayload, Locator, Page, Route, expect, sync_playwright

from tests.daemon import until
from tests.portal.pictures import png
from tests.portal.real import CARD_PIN, Person, Real
from tests.portal.real import Browser as Visitor
from tests.portal.sights import brings_axe, violations, violations_in_the_dark
from tests.portal.signing import opens, state
from tests.portal.signs import LEASE
from tests.portal.street import CHROMIUM, QUIET
from tests.portal.test_procedures import PERSON
from tests.portal.test_signing_for_real import (
    PRIVATE,
    business_of,
    canary,
    check_pdf,
    check_signed,
    confirmed,
    logged_in,
    sends,
    sent_to_window,
    space_of,
)
from tests.portal.walker import Walker, lend, opened


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET])
        yield browser
        browser.close()


def to_window(page: Page, real: Real, number: str) -> None:
    page.goto(f"{real.portal_origin}/login")
    page.fill("#field-number", number)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{real.window_origin}/login*")


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_login_by_keyboard(real: Real, chromium: Browser, scripts: bool) -> None:
    """UI-01, TOK-14: number, codes and the way back are done by the keyboard alone, with and without scripts."""
    ada, page = real.people["ada"], opened(chromium, java_script_enabled=scripts)
    to_window(page, real, ada.number)
    page.focus("#field-secret_code")
    page.keyboard.type(ada.secret_code)
    page.keyboard.press("Tab")
    page.keyboard.type(ada.otp())
    page.keyboard.press("Enter")
    if not scripts:
        page.wait_for_url(f"{real.portal_origin}/login/returned*")
        page.focus("main button")
        page.keyboard.press("Enter")
    page.wait_for_url(re.compile(rf"^{re.escape(real.portal_origin)}/(register|terms|home|spaces.*)$"))
    page.context.close()


def test_a_person_registers_logs_out_and_in(real: Real, chromium: Browser) -> None:
    """
    TOK-05, TOK-14, TOK-15, UI-01: from nothing into her account, through the portal and the window, without scripts; a
    registration that is posted twice makes one account, and leads where one does.
    """
    fay, page = real.people["fay"], opened(chromium, java_script_enabled=False)
    types_codes(page, real, fay)
    page.wait_for_url(f"{real.portal_origin}/register")
    page.fill("#field-email", "fay@example.org")
    page.route("**/register", twice)
    page.click("main form button")
    page.wait_for_url(f"{real.portal_origin}/terms*")
    page.check("[name=accepted]")
    page.click("main form button")
    page.goto(f"{real.portal_origin}/account")
    expect(page.locator("main")).to_contain_text(fay.number)
    page.click("form[action='/logout'] button")
    page.goto(f"{real.portal_origin}/account")
    page.wait_for_url(f"{real.portal_origin}/login*")
    types_codes(page, real, fay)
    page.wait_for_url(f"{real.portal_origin}/spaces")
    assert listed(real, "Fay") == 1
    page.context.close()


def test_a_login_with_a_card(real: Real, chromium: Browser) -> None:
    """TOK-08, TOK-14: the browser presents its certificate where TLS asks for it, and nowhere else; without one the page says so."""
    certificate, key = real.card("Cora", "Clifford")
    card = {"origin": real.cards_origin, "certPath": str(certificate), "keyPath": str(key)}
    page = opened(chromium, client_certificates=[card])
    page.goto(f"{real.portal_origin}/login")
    page.click("form[action='/login/card'] button")
    page.wait_for_url(f"{real.cards_origin}/present*")
    expect(page.locator("main")).to_contain_text("Cora Clifford")
    page.click("main form button")
    page.wait_for_url(f"{real.portal_origin}/register")
    page.check("[value=smartcard]")
    page.fill("#field-email", "cora@example.org")
    page.click("main form button")
    page.wait_for_url(f"{real.portal_origin}/terms*")
    assert listed(real, "Cora") == 1
    page.context.close()
    page = opened(chromium)
    page.goto(f"{real.portal_origin}/login")
    page.click("form[action='/login/card'] button")
    page.wait_for_url(f"{real.cards_origin}/present*")
    expect(page.locator("main")).to_contain_text("Your browser has presented no certificate.")
    page.context.close()


def twice(route: Route) -> None:
    """As by a second click: the first answer goes nowhere."""
    if route.request.method == "POST":
        assert route.fetch(max_redirects=0).status == 303
    route.continue_()


def types_codes(page: Page, real: Real, person: Person) -> None:
    """From the portal's login through the window to the portal's answer, without scripts."""
    to_window(page, real, person.number)
    page.fill("#field-secret_code", person.secret_code)
    page.fill("#field-otp", person.otp())
    page.keyboard.press("Enter")
    page.wait_for_url(f"{real.portal_origin}/login/returned*")
    page.click("main form button")


def listed(real: Real, given: str) -> int:
    """How many accounts of that name the operator sees."""
    found = json.loads(real.run("user", "portal", "list", "--json").stdout)
    return sum(one["given"] == given for one in found)


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_signing_by_keyboard(real: Real, chromium: Browser, scripts: bool) -> None:
    """
    UI-01, SIG-02: read, approve, type the codes and go back by the keyboard alone, with and without scripts. The document is
    shown under the policy, wide beside the steps and narrow above them; nothing is refused or said on the console.
    """
    ada, page = real.people["ada"], opened(chromium, java_script_enabled=scripts)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    batch = opens(real, "ada")
    with page.expect_response("**/sign/document/0") as document:
        page.goto(batch.address)
    assert document.value.status == 200
    paper, side = page.locator(".paper"), page.locator(".side")
    for width, is_beside in ((1280, True), (639, False)):
        page.set_viewport_size({"width": width, "height": 900})
        left, right = paper.bounding_box(), side.bounding_box()
        assert left is not None and right is not None
        assert (right["x"] >= left["x"] + left["width"]) is is_beside
        assert (right["y"] >= left["y"] + left["height"]) is not is_beside
    page.focus("#field-approved")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{real.window_origin}/sign/codes*")
    page.focus("#field-secret_code")
    page.keyboard.type(ada.secret_code)
    page.keyboard.press("Tab")
    page.keyboard.type(ada.otp())
    assert said == []
    with page.expect_request(f"{real.portal_origin}/signings/returned?batch={batch.id}&outcome=signed&*"):
        page.keyboard.press("Enter")
    assert state(real, batch.id) == "SIGNED"
    page.context.close()


def test_what_is_about_to_end_says_so(real: Real, chromium: Browser) -> None:
    """
    TOK-14, SIG-02: the pages of a login and of a signing say when it ends, warn before, and once it is over lead on: the login to
    the portal's. The end of the one is not the other's, in the same browser.
    """
    page = opened(chromium)
    page.clock.install()
    page.goto(opens(real, "ada").address)
    signing = page.locator("#session-end")
    expect(signing).to_contain_text("This signing ends in 15 minutes.")
    login = page.context.new_page()
    to_window(login, real, "ada-login")
    line = login.locator("#session-end")
    expect(line).to_contain_text("This login ends in 2 minutes.")
    login.clock.fast_forward(70_000)
    expect(line).to_have_attribute("role", "alert")
    expect(line).to_have_text("This login ends in less than a minute.")
    login.clock.fast_forward(60_000)
    expect(login.locator("body")).to_have_text("This login is over. Please begin again.")
    assert login.get_by_role("link").get_attribute("href") == f"{real.portal_origin}/login"
    page.clock.fast_forward(690_000)
    expect(signing).to_contain_text("This signing ends in 15 minutes.")
    page.clock.fast_forward(45_000)
    expect(signing).to_have_text("This signing ends in less than a minute.")
    page.clock.fast_forward(60_000)
    expect(page.locator("body")).to_have_text("This signing is over.")
    page.context.close()


PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_code_that_is_sent_to_a_phone(real: Real, chromium: Browser, scripts: bool) -> None:
    """
    TOK-14, SIG-06, UI-01: after "Send me a code" the phone shows that it was sent and where the codes are typed, with the focus
    there; the one-time code is typed by digits. The browser's Back leads to the page of before.
    """
    page = opened(chromium, java_script_enabled=scripts, **PHONE)

    def sends_code() -> None:
        before = page.url
        with page.expect_navigation():
            page.click("button[value=send]")
        code = page.locator("#field-otp")
        assert code.get_attribute("inputmode") == "numeric"
        expect(page.locator("#field-secret_code")).to_be_focused()
        for one in (".notice", "#field-secret_code", "#field-otp"):
            expect(page.locator(one).last).to_be_in_viewport(ratio=1)
        page.go_back()
        assert page.url == before and page.locator("#field-otp").count() == 1
        page.go_forward()

    to_window(page, real, "nobody-login")
    sends_code()
    page.goto(f"{real.window_origin}/code?credential=nobody-{int(scripts)}&language=en")
    sends_code()
    page.goto(opens(real, "dan").address)
    page.check("#field-approved")
    page.click(".side button")
    page.wait_for_url("**/sign/codes*")
    sends_code()
    expect(page.locator(".notice")).to_contain_text("A one-time code was sent to you.")
    page.context.close()


LEAVE_WHILE_IT_WAITS = """() => {
    setTimeout(() => document.querySelector(".side button").click());
    setTimeout(() => document.querySelector("#waiting:not([hidden])") && document.querySelector("[form=leave]").click(), 500);
}"""
Look = Callable[[str], None]


@pytest.fixture(params=["en", "fr"])
def looked_at(request: pytest.FixtureRequest, chromium: Browser) -> Iterator[tuple[Page, str, Look]]:
    """A page, its language, and what looks at it: axe-core finds nothing, wide and narrow; at 320 px nothing is cut off."""
    language = request.param
    page = opened(chromium, language=language)
    brings_axe(page.context)
    found: list[object] = []

    def look(what: str) -> None:
        assert page.locator("html").get_attribute("lang") == language
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 900})
            found.extend((what, width, *one) for one in violations(page))
        found.extend((what, "dark", *one) for one in violations_in_the_dark(page))
        page.set_viewport_size({"width": 320, "height": 900})
        wide = page.evaluate("document.documentElement.scrollWidth")
        found.extend([(what, wide)] if wide > 320 else [])

    yield page, language, look
    assert found == []
    page.context.close()


def test_the_window_is_for_everybody(real: Real, looked_at: tuple[Page, str, Look]) -> None:
    """UI-01: each page of login and enrolment, with mistakes too, in both languages."""
    page, language, look = looked_at
    to_window(page, real, "nobody-login")
    look("codes")
    page.fill("#field-secret_code", "wrong horse 8")
    page.fill("#field-otp", "000000")
    page.keyboard.press("Enter")
    expect(page.locator("#summary")).to_be_focused()
    look("wrong codes")
    to_window(page, real, "dan-login")
    look("a code that is sent")
    to_window(page, real, "ada")
    look("a certificate for signing")
    for path in ("/", "/login", "/enrol", "/code", "/code?credential=dan-login", "/nothing"):
        page.goto(f"{real.window_origin}{path}{'&' if '?' in path else '?'}language={language}")
        look(path)
    page.goto(f"{real.window_origin}/code?credential=dan-login&language={language}")
    page.fill("#field-new_code", "password1")
    page.keyboard.press("Enter")
    expect(page.locator("#summary")).to_be_focused()
    look("a change, with mistakes")
    page.goto(f"{real.window_origin}/enrol?language={language}")
    page.click("main button")
    look("no enrolment code")


@pytest.mark.parametrize("looked_at", ["fr"], indirect=True)
def test_signing_is_for_everybody(real: Real, looked_at: tuple[Page, str, Look]) -> None:
    """UI-01, SIG-02, SIG-09: each page of a signing, with mistakes too, in the longer language; what waits at a reader is left by Cancel."""
    page, language, look = looked_at
    batch = opens(real, "dan", language=language)
    page.goto(batch.address)
    look("read and approve")
    page.click(".side button")
    expect(page.locator("#summary")).to_be_focused()
    look("not approved")
    page.check("#field-approved")
    page.click(".side button")
    page.wait_for_url("**/sign/codes*")
    look("sign")
    page.fill("#field-otp", "000000")
    page.keyboard.press("Enter")
    expect(page.locator("#summary")).to_be_focused()
    look("sign, with mistakes")
    page.click("button[form=leave]")
    page.goto(f"{real.window_origin}/sign/codes?language={language}")
    look("cancelled")
    page.goto(f"{real.window_origin}/sign?link=none&language={language}")
    look("gone")
    batch = opens(real, "pia", language=language)
    page.goto(batch.address)
    page.check("#field-approved")
    page.click(".side button")
    page.wait_for_url("**/sign/codes*")
    look("a PIN that is typed at the reader")
    real.pad("C_Login@stick * hold 20")
    try:
        page.evaluate(LEAVE_WHILE_IT_WAITS)  # Playwright itself does nothing on a page that is being left
        until(lambda: state(real, batch.id) == "CANCELLED", 10, "it is cancelled")
    finally:
        real.pad()


@pytest.fixture(scope="module")
def agent(real: Real) -> Visitor:
    """Dan, who has the town hall's desk by the operator's command."""
    dan = logged_in(real, real.people["dan"])
    accounts = json.loads(real.run("user", "portal", "list", "--json").stdout)
    [account] = [one["id"] for one in accounts if one["given"] == "Dan"]
    done = real.run("agent", "portal", "add", account, "millbrook-town-hall")
    assert done.returncode == 0, done.stderr
    return dan


@pytest.fixture(scope="module")
def cleo(real: Real) -> Visitor:
    """Who is logged in with her card."""
    browser = real.browser(real.card("Cleo", "Token", serial="cleo-1"))
    browser.logs_in_with_card()
    return browser


def approves(walker: Walker, certificate: str) -> None:
    """From the choice of the certificate to the step where she types."""
    expect(walker.page.locator("[name=credential]:checked")).to_have_value(certificate)
    paper, side = walker.page.locator(".paper").bounding_box(), walker.page.locator(".side").bounding_box()
    assert paper is not None and side is not None and side["x"] >= paper["x"] + paper["width"]
    walker.presses("Next", "Read and approve")
    assert walker.page.url.startswith(f"{walker.real.window_origin}/sign/approve")
    walker.page.check("#field-approved")
    walker.presses("Next step", "Sign")


def comes_back(walker: Walker) -> None:
    """From the window to the step where it is saved."""
    if not walker.scripts:  # else the button presses itself
        walker.sees("Almost there")
        walker.presses("Continue", "Save to Millbrook")
    walker.sees("Save to Millbrook")


def signs_with_codes(walker: Walker, person: Person, then: str) -> None:
    approves(walker, person.name)
    walker.page.get_by_label("Secret code").fill(person.secret_code)
    walker.page.get_by_label("One-time code").fill(person.otp())
    walker.page.get_by_role("button", name="Sign", exact=True).click()
    comes_back(walker)
    walker.presses("Save to Millbrook", then)


def types_pin(walker: Walker) -> str:
    """Cleo, up to where it is saved; the batch."""
    approves(walker, "cleo")
    walker.page.get_by_label("PIN of your card or stick").fill(CARD_PIN)
    with walker.page.expect_request(f"{walker.real.portal_origin}/signings/returned?*") as returned:
        walker.page.get_by_role("button", name="Sign", exact=True).click()
    comes_back(walker)
    return re.findall(r"batch=([0-9a-f-]{36})", returned.value.url)[0]


def downloaded(walker: Walker) -> bytes:
    """The signed document of the procedure whose page is shown."""
    with walker.page.expect_download() as saved:
        walker.page.get_by_role("link", name="Download it").click()
    return saved.value.path().read_bytes()


ADDRESS, LEASE_TITLE = "Declare a change of address", "Declare the transfer of a lease"
PIECE: FilePayload = {"name": "the lease.png", "mimeType": "image/png", "buffer": png(64, 64)}
SCRIPTS = pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])


def row_of(walker: Walker, at: str) -> Locator:
    """A procedure in the list that is shown."""
    return walker.page.get_by_role("row").filter(has_text=at.rpartition("/")[2])


def fills_in_a_lease(walker: Walker, space: str) -> str:
    """From the space's page to the confirmed form; the path of the procedure."""
    page = walker.page
    walker.goes(space, "Ada Lovelace")
    walker.follows("Select a procedure", "Select a procedure")
    page.get_by_label("Words in title").fill("LEASE")
    walker.presses("Search", "Select a procedure")
    page.get_by_role("link", name=LEASE_TITLE).click()
    walker.sees(LEASE_TITLE)
    walker.presses("Create", "The lease")
    at = page.url.removeprefix(walker.real.portal_origin).rpartition("/steps/")[0]
    page.get_by_label("Address of the premises").fill("12 Mill Lane")
    walker.presses("Resume later", "Procedures")
    row_of(walker, at).get_by_role("link").click()
    walker.sees(LEASE_TITLE)
    walker.follows("Continue the declaration", "The lease")
    expect(page.get_by_label("Address of the premises")).to_have_value("12 Mill Lane")
    page.get_by_label("Landlord").fill("Mill Ltd")
    page.get_by_label("Date of the transfer").fill("1.11.2026")
    page.get_by_label("yes").check()
    walker.presses("Next", "Check and confirm")
    walker.presses("Confirm the entry", "Check and confirm")
    return at


def attaches_and_sends(walker: Walker, at: str) -> None:
    """From the procedure that is signed to its page once it is sent."""
    walker.goes(at, LEASE_TITLE)
    walker.follows("Complete the attachments", LEASE_TITLE)
    walker.follows("Attach Lease", "Attach: Lease")
    walker.page.get_by_label("File *").set_input_files([PIECE])
    walker.presses("Attach", LEASE_TITLE)
    sends_it(walker, 1)
    expect(walker.page.get_by_role("link", name="the lease", exact=True)).to_be_visible()
    walker.follows("To the procedure", LEASE_TITLE)


def sends_it(walker: Walker, number: int) -> None:
    """To the receipt."""
    walker.follows("Send the procedure", "Send the procedure")
    walker.presses("Send the procedure", f"Transmission {number}")
    expect(walker.page.get_by_text("1 Town Hall Square")).to_be_visible()


@SCRIPTS
def test_from_the_catalogue_to_a_pdf_that_two_spaces_have_signed(real: Real, chromium: Browser, scripts: bool) -> None:
    """
    UI-01, PROC-04, PROC-06, PROC-12, PROC-13, SIG-02, SIG-03, SIG-05, SIG-06, SIG-08, SIG-12, SIG-17, ATT-03, SUB-08:
    created, filled in, left, resumed, confirmed, signed with codes in a window, transferred, signed with codes in the other
    space, a document attached, and sent; the PDF that is downloaded then begins with what was confirmed, and `pdfsig` finds
    both signatures valid. axe-core finds nothing on any page on the way, and nothing is said on the console.
    """
    ada, eve = real.people["ada"], real.people["eve"]
    ada_there, eve_there = logged_in(real, ada), logged_in(real, eve)
    other = business_of(eve_there, "Sums" if scripts else "Series")
    with (
        Walker(chromium, real, ada_there, scripts=scripts) as walker,
        Walker(chromium, real, eve_there, scripts=scripts, reads=False) as second,
    ):
        at = fills_in_a_lease(walker, space_of(ada_there))
        given, there = ada_there.get(f"{at}/form").content, f"{other}/signatures/{at.rpartition('/')[2]}"
        with walker.window("Sign (opens a new window)", "Select the certificate"):
            signs_with_codes(walker, ada, LEASE_TITLE)
            expect(walker.page.locator("main")).to_contain_text("Signed by Ada Lovelace")
            first = downloaded(walker)
            assert first.startswith(given) and len(first) > len(given)
            walker.page.get_by_label("Identifier of the other space").fill(other.rpartition("/")[2])
            walker.presses("Transfer the procedure", LEASE_TITLE)
            expect(walker.page.get_by_role("region", name="Second signature")).to_contain_text("to sign it")
        # The page that has opened the window: each page of this browser thinks that it has the focus always.
        walker.page.evaluate("window.dispatchEvent(new Event('focus'))")
        expect(walker.page.locator("main")).to_contain_text("Signed by" if scripts else "Sign in this window")

        second.goes(other, "Sums" if scripts else "Series")
        second.follows("1 procedure of another space is to be signed here.", "To be signed for other spaces")
        second.follows(LEASE_TITLE, LEASE_TITLE)
        assert eve_there.get(f"{there}/document").content == first
        second.presses("Sign in this window", "Select the certificate")
        signs_with_codes(second, eve, "To be signed for other spaces")
        expect(second.page.get_by_role("table", name="Signed here for other spaces")).to_contain_text(LEASE_TITLE)

        attaches_and_sends(walker, at)
        signed = downloaded(walker)
    assert signed.startswith(first)
    check_pdf(real, signed, "Ada Lovelace", "Eve Euler")


def asks_for_correction(desk: Walker, at: str) -> None:
    """From the list of an agent; sent with a mistake first."""
    desk.goes("/desk", "Desk")
    row_of(desk, at).get_by_role("link").click()
    desk.sees(ADDRESS)
    desk.presses("Accept", ADDRESS)
    desk.follows("Ask for correction", "Ask for correction")
    desk.presses("Send back for correction", "Ask for correction")
    expect(desk.page.locator("#summary")).to_be_focused()
    desk.page.get_by_role("heading", name="Your new address").click()
    desk.page.get_by_label("Number and street").fill("Which number?")
    desk.presses("Send back for correction", ADDRESS)
    expect(desk.page.get_by_role("status")).to_contain_text("sent back for correction")


def corrects_the_street(walker: Walker, at: str) -> None:
    """To the entry that is confirmed again."""
    walker.goes(at, ADDRESS)
    part = walker.page.get_by_role("region", name="What is to be corrected")
    expect(part).to_contain_text("Which number?")
    part.get_by_role("link", name="Number and street").click()
    walker.sees("Your new address")
    walker.page.get_by_label("Number and street").fill("13 Mill Lane")
    walker.presses("Next", "Check and confirm")
    walker.presses("Confirm the entry", "Check and confirm")


def writes(desk: Walker, at: str) -> None:
    desk.goes(f"/desk/{at.rpartition('/')[2]}", ADDRESS)
    desk.follows("New message", "New message")
    desk.page.get_by_label("Subject").fill("Thank you")
    desk.page.get_by_label("Message").fill("A week.")
    desk.presses("Send", ADDRESS)
    expect(desk.page.get_by_text("The message is sent.")).to_be_visible()


def reads(walker: Walker, at: str) -> None:
    """What the agent has written, from the list."""
    walker.goes(at.rpartition("/")[0], "Procedures")
    row = row_of(walker, at)
    expect(row.get_by_text("1 message from the administration, 1 unread")).to_be_attached()
    row.get_by_role("link").first.click()
    walker.sees(ADDRESS)
    walker.page.get_by_role("link", name="Messages").click()
    walker.sees(ADDRESS)
    expect(walker.page.get_by_text("A week.")).to_have_count(0)
    walker.presses("Open", ADDRESS)
    expect(walker.page.get_by_text("A week.")).to_be_visible()


def closes(desk: Walker, at: str) -> None:
    reference = at.rpartition("/")[2]
    desk.goes(f"/desk/{reference}", ADDRESS)
    desk.follows("Close", "Close the procedure")
    desk.page.get_by_label("Reason").fill("Done.")
    desk.presses(f"Close procedure {reference}", ADDRESS)
    expect(desk.page.get_by_text("The procedure is closed.")).to_be_visible()


@SCRIPTS
def test_a_cards_pin_signs_and_an_agent_processes(
    real: Real, chromium: Browser, cleo: Visitor, agent: Visitor, scripts: bool
) -> None:
    """
    UI-01, SIG-02, SIG-03, SIG-06, SIG-07, SIG-09, SIG-12, TOK-03, SUB-01, SUB-03, SUB-08, TRK-07, TRK-09, TRK-11, COR-03,
    COR-04, COR-05, MSG-02, MSG-04: Cleo, who is logged in with her card, is offered its certificate for signing, and signs
    with its PIN in a window; first cancelled; what was signed and is not saved is destroyed at
    the daemon. Then sent, accepted, sent back, corrected, signed and sent again, and closed, with a message.
    """
    given = {**PRIVATE, "person": {**PERSON, "given": "Cleo", "family": "Token"}}
    at = confirmed(cleo, "change-of-address", given)
    form = cleo.get(f"{at}/form").content
    with (
        Walker(chromium, real, cleo, scripts=scripts, reads=False) as walker,
        Walker(chromium, real, agent, scripts=scripts, viewport={"width": 390, "height": 900}) as desk,
    ):
        walker.goes(at, ADDRESS)
        walker.presses("Sign in this window", "Select the certificate")
        walker.presses("Cancel", ADDRESS)
        with walker.window("Sign (opens a new window)", "Select the certificate"):
            batch = types_pin(walker)
            assert state(real, batch) == "SIGNED"
            walker.presses("Cancel", ADDRESS)
            assert state(real, batch) == "CANCELLED"
            walker.presses("Sign in this window", "Select the certificate")
            types_pin(walker)
            walker.presses("Save to Millbrook", ADDRESS)
            expect(walker.page.locator("main")).to_contain_text("Signed by Cleo Token")
            check_signed(real, cleo, at, form, "Cleo Token")
            assert agent.get(f"/desk/{at.rpartition('/')[2]}").status_code == 404
            sends_it(walker, 1)
        asks_for_correction(desk, at)
        corrects_the_street(walker, at)
        walker.presses("Sign in this window", "Select the certificate")
        types_pin(walker)
        walker.presses("Save to Millbrook", ADDRESS)
        sends_it(walker, 2)
        writes(desk, at)
        reads(walker, at)
        closes(desk, at)
        walker.goes(at, ADDRESS)
        expect(walker.page.locator(".standing")).to_contain_text("Closed")
        signed = downloaded(walker)
    assert signed == cleo.get(f"{at}/transmissions/2/form").content
    check_pdf(real, signed, "Cleo Token")
    canary(real, {"PIN": CARD_PIN})


def marked(page: Page) -> tuple[str, list[str]]:
    """How the current step of a signing is seen, and what stands before those that are done."""
    current = page.locator(".side li[aria-current=step]").evaluate("one => getComputedStyle(one).fontWeight")
    done = page.locator(".side li.done").evaluate_all(
        "all => all.map(one => getComputedStyle(one, '::before').content)"
    )
    return current, done


@pytest.mark.parametrize("looked_at", ["fr"], indirect=True)
def test_the_portals_steps_are_for_everybody(real: Real, looked_at: tuple[Page, str, Look]) -> None:
    """UI-01, SIG-02, SIG-14, SIG-17: choosing the certificate, with a mistake too, saving, another window, and the other space's page."""
    page, _, look = looked_at
    ada = real.people["ada"]
    person = logged_in(real, ada)
    at = confirmed(person, "transfer-of-lease", {"lease": LEASE})
    page.context.set_extra_http_headers({"accept-language": "fr"})
    lend(person, real, page)
    page.goto(f"{real.portal_origin}{at}")
    look("the procedure, unsigned")
    step, signer = sent_to_window(real, person, at, "ada")
    page.goto(f"{real.portal_origin}{step}")
    assert marked(page) == ("700", [])
    look("select, while the window is open")
    page.locator("[name=credential]:checked").evaluate("one => { one.checked = false; }")
    page.click(f'form[action="{step}/certificate"] button')
    expect(page.locator("#summary")).to_be_focused()
    look("no certificate")
    page.goto(f"{real.portal_origin}{at}/signing")
    look("another window")
    codes = signer.approves()
    answer = signer.types(codes, **signer.codes_of(ada, codes))
    page.route("**/returned", lambda route: route.fulfill(status=204))  # the button presses itself, and she stays
    page.goto(answer.headers["location"], wait_until="commit")
    expect(page.locator("form[data-go]")).to_be_visible()
    # Not `wait_for_function`, which evaluates text within the page once it has to wait: the page's policy refuses that.
    styled = "[...document.querySelectorAll('link[rel=stylesheet][href$=\"portal.css\"]')].every(one => one.sheet)"
    until(lambda: page.evaluate(styled), 10, "its style sheet")
    look("almost there")
    sends(person, f"{step}/returned", person.get(answer.headers["location"]))
    page.goto(f"{real.portal_origin}{step}")
    assert marked(page) == ("700", ['"✓"'] * 3)
    look("save")
    page.click(f'form[action="{step}/save"] button')
    page.wait_for_url(f"{real.portal_origin}{at}")
    look("signed, to be transferred")
    page.fill("#field-identifier", "00000000000")
    page.click(f'form[action="{at}/transfer"] button')
    expect(page.locator("#summary")).to_be_focused()
    look("no such space")
    other = business_of(person, "Engines").rsplit("/", 1)[1]
    page.goto(f"{real.portal_origin}{at}")
    page.fill("#field-identifier", other)
    page.click(f'form[action="{at}/transfer"] button')
    page.wait_for_url(f"{real.portal_origin}{at}")
    look("transferred")
    for path in (
        f"/spaces/{other}/procedures",
        f"/spaces/{other}/signatures",
        f"/spaces/{other}/signatures/{at[-13:]}",
    ):
        page.goto(f"{real.portal_origin}{path}")
        look(path)


def test_the_picture_is_shown_under_the_policy(real: Real, chromium: Browser) -> None:
    """UI-07, TOK-14: the QR code is shown although nothing but our own files may be, and nothing is refused or said on the console."""
    ivy, page = real.people["ivy"], opened(chromium)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"{real.window_origin}/enrol")
    page.fill("#field-enrolment", real.begins_enrolment(ivy))
    page.keyboard.press("Enter")
    page.wait_for_url(f"{real.window_origin}/enrol/finish*")
    picture = page.locator('img[src="/enrol/picture.svg"]')
    assert picture.evaluate("one => one.complete && one.naturalWidth > 100")
    assert picture.get_attribute("alt")
    ivy.uri = f"otpauth://totp/ivy?secret={page.locator('main code').inner_text().replace(' ', '')}"
    page.fill("#field-secret_code", ivy.secret_code)
    page.fill("#field-again", ivy.secret_code)
    page.fill("#field-otp", ivy.otp())
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Your codes are set up")
    assert said == []
    page.context.close()
