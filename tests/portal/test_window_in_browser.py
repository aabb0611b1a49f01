"""The window in a real browser, with the daemon behind it: for everybody, by keyboard, without scripts, under the CSP."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.daemon import until
from tests.portal.real import Browser as Visitor
from tests.portal.real import Person, Real
from tests.portal.sights import AXE
from tests.portal.signing import opens, state
from tests.portal.signs import LEASE
from tests.portal.street import CHROMIUM, QUIET, WAIT_MS
from tests.portal.test_signing_for_real import PRIVATE, confirmed, logged_in, pdfsig, sends, sent_to_window


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET])
        yield browser
        browser.close()


def opened(chromium: Browser, *, language: str = "en", **more: Any) -> Page:
    context = chromium.new_context(ignore_https_errors=True, locale=language, **more)
    context.set_default_timeout(WAIT_MS)
    return context.new_page()


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


LEAVE_WHILE_IT_WAITS = """() => {
    setTimeout(() => document.querySelector(".side button").click());
    setTimeout(() => document.querySelector("#waiting:not([hidden])") && document.querySelector("[form=leave]").click(), 500);
}"""
Look = Callable[[str], None]
OURS = {**AXE, "iframes": False}  # what the browser shows a PDF in is its own


@pytest.fixture(params=["en", "fr"])
def looked_at(request: pytest.FixtureRequest, chromium: Browser) -> Iterator[tuple[Page, str, Look]]:
    """A page, its language, and what looks at it: axe-core finds nothing, wide and narrow; at 320 px nothing is cut off."""
    language = request.param
    page = opened(chromium, language=language, bypass_csp=True)
    found: list[object] = []

    def look(what: str) -> None:
        assert page.locator("html").get_attribute("lang") == language
        page.evaluate(AXE_SCRIPT)
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 900})
            violations = page.evaluate("options => axe.run(options).then(found => found.violations)", OURS)
            found.extend((what, width, one["id"], one["nodes"][0]["html"][:200]) for one in violations)
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
    for path in ("/", "/login", "/enrol", "/nothing"):
        page.goto(f"{real.window_origin}{path}?language={language}")
        look(path)
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


def lend(person: Visitor, real: Real, page: Page) -> None:
    """Her session in this browser."""
    page.context.add_cookies(
        [{"name": one.name, "value": one.value or "", "url": real.portal_origin, "secure": True} for one in person.http.cookies.jar]
    )  # fmt: skip


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_procedure_is_signed_in_a_window_of_its_own(real: Real, chromium: Browser, scripts: bool) -> None:
    """
    SIG-02 to SIG-08, SIG-12: "Sign" opens a window, which goes through both origins and back to the saved procedure; the
    first page shows how it stands once one comes back to it. In the same window with the other button; cancelled there it is back. SUB-03, TRK-07, COR-04, COR-05:
    then sent, accepted, sent back, corrected, signed and sent again, and closed. Nothing is said on the console.
    """
    ada = real.people["ada"]
    person = logged_in(real, ada)
    at = confirmed(person, "change-of-address", PRIVATE)
    page = opened(chromium, java_script_enabled=scripts)
    lend(person, real, page)
    said: list[str] = []
    page.context.on("console", lambda message: said.append(message.text))
    page.goto(f"{real.portal_origin}{at}")
    page.get_by_role("button", name="Sign in this window").click()
    page.wait_for_url(f"{real.portal_origin}{at}/signing/*")
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_url(f"{real.portal_origin}{at}")
    with page.context.expect_page() as new:
        page.get_by_role("button", name="Sign (opens a new window)").click()
    window = new.value
    window.wait_for_url(f"{real.portal_origin}{at}/signing/*")
    assert window.evaluate("window.opener") is None
    expect(window.locator("[name=credential]:checked")).to_have_value("ada")
    paper, side = window.locator(".paper").bounding_box(), window.locator(".side").bounding_box()
    assert paper is not None and side is not None and side["x"] >= paper["x"] + paper["width"]
    signs(real, ada, window, at, scripts=scripts)
    expect(window.locator("main")).to_contain_text("Signed by Ada Lovelace")
    with window.expect_download() as saved:
        window.get_by_role("link", name="Download it").click()
    assert saved.value.path().read_bytes() == person.get(f"{at}/form").content
    comes_back(page, f"{real.portal_origin}{at}", scripts=scripts)

    dan, desk = agent(real), f"/desk/{at.rsplit('/', 1)[1]}"
    assert dan.get(desk).status_code == 404
    sent(window, 1)
    assert sends(dan, f"{desk}/accept", dan.get(desk)).status_code == 303
    correction = f"{desk}/correction"
    assert sends(dan, correction, dan.get(correction), {"field.street": "Which number?"}).status_code == 303
    window.get_by_role("link", name="To the procedure").click()
    window.get_by_role("region", name="What is to be corrected").get_by_role("link", name="Number and street").click()
    window.get_by_label("Number and street").fill("13 Mill Lane")
    window.get_by_role("button", name="Next", exact=True).click()
    window.get_by_role("button", name="Confirm the entry").click()
    window.get_by_role("button", name="Sign in this window").click()
    window.wait_for_url(f"{real.portal_origin}{at}/signing/*")
    signs(real, ada, window, at, scripts=scripts)
    sent(window, 2)
    signed = person.get(f"{at}/transmissions/2/form").content
    assert pdfsig(real, signed).count("Signature is Valid.") == 1
    closing = f"{desk}/closing"
    assert sends(dan, closing, dan.get(closing), {"reason": "Done."}).status_code == 303
    window.goto(f"{real.portal_origin}{at}")
    expect(window.locator(".standing")).to_contain_text("Closed")
    assert said == []
    page.context.close()


def comes_back(page: Page, address: str, *, scripts: bool) -> None:
    """To the page that has opened a window, in which the procedure was signed."""
    assert page.url == address
    expect(page.locator("main")).not_to_contain_text("Signed by")
    page.evaluate("window.dispatchEvent(new Event('focus'))")  # each page of this browser thinks that it has it always
    expect(page.locator("main")).to_contain_text("Signed by" if scripts else "Sign in this window")


def signs(real: Real, ada: Person, window: Page, at: str, *, scripts: bool) -> None:
    """From the choice of the certificate to what is saved."""
    window.get_by_role("button", name="Next").click()
    window.wait_for_url(f"{real.window_origin}/sign/approve*")
    window.check("#field-approved")
    window.get_by_role("button", name="Next step").click()
    window.fill("#field-secret_code", ada.secret_code)
    window.fill("#field-otp", ada.otp())
    window.keyboard.press("Enter")
    if not scripts:
        window.wait_for_url(f"{real.portal_origin}/signings/returned*")
        window.get_by_role("button", name="Continue").click()
    window.wait_for_url(f"{real.portal_origin}{at}/signing/*")
    window.get_by_role("button", name="Save to Millbrook").click()
    window.wait_for_url(f"{real.portal_origin}{at}")


def sent(window: Page, number: int) -> None:
    """From the procedure's page to the receipt."""
    window.get_by_role("link", name="Send the procedure").click()
    window.get_by_role("button", name="Send the procedure").click()
    expect(window.get_by_role("heading", level=1)).to_contain_text(f"Transmission {number}")


def agent(real: Real) -> Visitor:
    """Somebody who has the town hall's desk by the operator's command."""
    dan = logged_in(real, real.people["dan"])
    accounts = json.loads(real.run("user", "portal", "list", "--json").stdout)
    [account] = [one["id"] for one in accounts if one["given"] == "Dan"]
    done = real.run("agent", "portal", "add", account, "millbrook-town-hall")
    assert done.returncode == 0, done.stderr
    return dan


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
    arrived = person.get(answer.headers["location"])
    sends(person, f"{step}/returned", arrived)
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
    form = "/spaces/new/business"
    fields = {"kind": "association", "title": "Engines", "company": "Engines Ltd", "email": "e@example.org"}
    other = sends(person, form, person.get(form), fields).headers["location"].rsplit("/", 1)[1]
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
