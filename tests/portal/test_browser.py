"""Pages in a real browser, over real TLS: for everybody, by keyboard, on a small screen, without scripts, and under the CSP."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Route, expect

from tests.daemon import until
from tests.portal.pictures import png
from tests.portal.place import CARDS, ORIGIN, WINDOW, Place
from tests.portal.sights import GETS, LIMITS, NARROW, faults
from tests.portal.street import CODE, Street
from tests.portal.town import DEFINITION, Town


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    place = Place(tmp_path_factory.mktemp("street"), extra=LIMITS)
    with Street(place) as made:
        yield made
    place.close()


@pytest.fixture(scope="module")
def town(street: Street) -> Town:
    return Town(street.place)


# ---- every page in every state


def test_every_page_is_for_everybody(street: Street, town: Town) -> None:
    """
    UI-01, UI-07: axe-core finds nothing on any page, with mistakes and menus open too; at 320 px nothing is cut off; under
    the CSP nothing is refused or said on the console.
    """
    count, found = faults(street, town, "fr", (NARROW,))  # `make soak PART=pages`: both languages, two more widths
    assert found == []
    assert count > 80


# What means nothing on paper.
ONLY_ON_SCREEN = "button, nav, header, footer, .crumb, .action, .secondary, input[type=file], iframe, td a:has(.unseen), .answers dd a"


def test_paper_has_the_content_alone(street: Street, town: Town) -> None:
    """UI-04: printed, and in the print view, no page has navigation, buttons, or a field for a file; the print view leads back."""
    space = f"{ORIGIN}/spaces/{town.ada_space}"
    pages = [f"{ORIGIN}/account", space, *(f"{space}/{part}" for part in ("team", "files", "procedures"))]
    pages += [
        ORIGIN + path for name in ("procedure", "attachments", "check", "step") for path in town.paths(GETS[name])[:1]
    ]
    with street.visit(town.ada) as page:
        for address in pages:
            for is_view in (False, True):
                page.emulate_media(media="screen" if is_view else "print")
                page.goto(f"{address}?view=print" if is_view else address)
                seen = page.locator(ONLY_ON_SCREEN).filter(visible=True).all()
                assert [one.evaluate("one => one.outerHTML") for one in seen] == [], address
                expect(page.get_by_role("heading", level=1)).to_be_visible()
                expect(page.get_by_role("link", name="Back to the page")).to_be_visible(visible=is_view)
                if is_view:
                    page.emulate_media(media="print")
                    expect(page.locator(".aids")).to_be_hidden()


def test_pages_are_dark_for_who_wants_it(street: Street) -> None:
    """UI-01, UI-04: in dark colours where the browser asks for them, with the fields and the browser's own parts; on paper never."""
    colours = "[getComputedStyle(document.documentElement), getComputedStyle(document.querySelector('#field-number'))]"
    shown = f"{colours}.flatMap(one => [one.colorScheme, one.backgroundColor])"
    light = ["normal", "rgb(255, 255, 255)"] * 2
    with street.visit() as page:
        page.goto(f"{ORIGIN}/login")
        assert page.evaluate(shown) == light
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(shown) == ["dark", "rgb(18, 22, 28)"] * 2
        page.emulate_media(media="print")
        assert page.evaluate(shown) == light


def test_a_script_that_got_into_a_page_does_not_run(street: Street) -> None:
    """UI-07: inline scripts, handlers, styles and other sites' files in a page are refused by the browser."""
    evil = (
        "<script>window.hacked = 1</script><img src='/none' onerror='window.hacked = 2'><svg onload='window.hacked = 3'></svg>"
        "<style>body { display: none }</style><script src='https://window.test/evil.js'></script><iframe src='/'></iframe>"
    )

    answer = street.place.visitor().get("/login")
    spoilt = answer.text.replace("</main>", f"{evil}</main>")

    def spoil(route: Route) -> None:
        route.fulfill(status=200, headers=dict(answer.headers), body=spoilt)

    with street.visit() as page:
        page.route("**/login", spoil)
        page.add_init_script(
            "window.refused = []; addEventListener('securitypolicyviolation', event => refused.push(event.effectiveDirective))"
        )
        page.goto(f"{ORIGIN}/login")
        until(lambda: page.evaluate("refused.length >= 6"), 10, "what the policy refuses")
        assert page.evaluate("window.hacked") is None
        assert page.locator("main").is_visible()
        refused = set(page.evaluate("refused"))
        assert {"script-src-elem", "script-src-attr", "style-src-elem", "frame-src"} <= refused


def test_another_site_can_neither_send_a_form_nor_frame_a_page(street: Street, town: Town) -> None:
    """Row 6.4, UI-07: in a real browser a page of another origin posts to the portal as Ada: nothing happens; its frame stays empty."""
    attack = f"""<!doctype html><form id="f" method="post" action="{ORIGIN}/spaces/new/private"><input name="email" value="a@example.org">
      <button>Win</button></form><iframe src="{ORIGIN}/login"></iframe>"""
    with street.visit(town.bob) as page:
        page.route(f"{WINDOW}/attack", lambda route: route.fulfill(body=attack, content_type="text/html"))
        page.goto(f"{WINDOW}/attack")
        frame = page.frames[-1]
        assert frame.locator("input").count() == 0
        with page.expect_response(f"{ORIGIN}/spaces/new/private") as answered:
            page.click("button")
        assert answered.value.status == 403


# ---- flows


def logs_in(page: Page, number: str, *, scripts: bool) -> None:
    page.goto(ORIGIN)
    page.get_by_role("link", name="Log in").first.click()
    page.get_by_label("Product number").fill(number)
    page.get_by_role("button", name="Continue", exact=True).click()
    page.get_by_label("Secret code").fill(CODE)
    page.get_by_role("button", name="Log in").click()
    if not scripts:  # else the button presses itself
        page.get_by_role("button", name="Continue").click()
    page.wait_for_url(lambda url: "/login" not in url)


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_from_a_product_to_two_spaces(street: Street, scripts: bool) -> None:
    """UI-01, TOK-15, ESP-03, ESP-04, ESP-35: registered, terms accepted, both spaces made, language changed, logged out and in again."""
    number = street.product("Grace" if scripts else "Maud", "Hopper")
    with street.visit(java_script_enabled=scripts) as page:
        logs_in(page, number, scripts=scripts)
        expect(page.get_by_role("heading", level=1)).to_have_text("Register this product")
        page.get_by_label("E-mail address").fill("not an address")
        page.get_by_role("button", name="Confirm").click()
        expect(page.get_by_role("alert")).to_contain_text("Give an e-mail address")
        expect(page.locator("#summary")).to_be_focused()
        expect(page.get_by_label("E-mail address")).to_have_value("not an address")
        page.get_by_label("E-mail address").fill("grace@example.org")
        page.get_by_role("button", name="Confirm").click()
        page.get_by_label("I have read the general terms").check()
        page.get_by_role("button", name="Confirm").click()

        page.get_by_role("link", name="Create a private space").click()
        page.get_by_role("button", name="Confirm").click()
        expect(page.get_by_role("status")).to_have_text("You have created your private space.")
        page.goto(f"{ORIGIN}/spaces/new/business")
        page.get_by_label("an association").check()
        page.get_by_label("Title of the business space").fill("Choir")
        page.get_by_label("Company name").fill("Choir of Millbrook")
        page.get_by_role("button", name="Confirm").click()
        expect(page.get_by_role("status")).to_contain_text(
            "You have successfully created a business space on Millbrook."
        )
        page.reload()
        expect(page.get_by_role("status")).to_have_count(0)

        page.get_by_role("button", name="Français").click()
        expect(page.locator("html")).to_have_attribute("lang", "fr")
        expect(page.get_by_role("heading", level=1)).to_have_text("Choir")
        page.get_by_role("button", name="English").click()
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("link", name="Log in").first).to_be_visible()
        logs_in(page, number, scripts=scripts)
        expect(page).to_have_url(re.compile(f"{ORIGIN}/spaces/[0-9A-Z]+"))


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_from_the_catalogue_to_the_confirmed_form(street: Street, scripts: bool) -> None:
    """UI-01, PROC-01, PROC-04, PROC-06, PROC-10, PROC-11, PROC-12, PROC-13, PROC-14: created, filled in with a mistake, left, resumed, confirmed, edited."""
    ada = street.place.visitor()
    ada.logs_in("Ada" if scripts else "Augusta", "Byron")
    ada.post("/spaces/new/private", {"email": "ada@example.org"}, page="/spaces/new/private")
    with street.visit(ada, java_script_enabled=scripts) as page:
        page.goto(f"{ORIGIN}/home")
        page.get_by_role("link", name="Select a procedure").click()
        page.get_by_label("Words in title").fill("MOVING")
        page.get_by_role("button", name="Search").click()
        page.get_by_role("link", name="Declare a change of address").click()
        page.get_by_role("button", name="Create").click()
        expect(page.get_by_label("Name(s) *", exact=True)).to_have_value("Byron")
        page.get_by_role("button", name="Next", exact=True).click()
        page.get_by_label("Number and street").fill("12 Mill Lane")
        page.get_by_label("Date of the move").fill("soon")
        page.get_by_label("somebody’s guest").check()
        page.get_by_role("button", name="Resume later").click()
        expect(page.locator("#summary")).to_be_focused()
        expect(page.get_by_label("Date of the move")).to_have_value("soon")
        page.get_by_label("Date of the move").fill("1.11.2026")
        page.get_by_role("button", name="Resume later").click()
        expect(page.get_by_role("status")).to_have_text("The draft is saved. You can resume it at any time.")

        page.get_by_role("link", name="Declare a change of address").click()
        page.get_by_role("link", name="Continue the declaration").click()
        expect(page.get_by_label("Number and street")).to_have_value("12 Mill Lane")
        page.get_by_label("Name of your host").fill("Charles")
        page.get_by_role("button", name="Next", exact=True).click()
        page.get_by_role("link", name="Still empty: Postal code").click()
        expect(page).to_have_url(re.compile(r"/steps/address#field-postcode$"))
        page.get_by_label("Postal code").fill("L-1234")
        page.get_by_label("Town").fill("Millbrook")
        page.get_by_role("button", name="Next", exact=True).click()
        page.get_by_role("button", name="Confirm the entry").click()
        expect(page.get_by_role("status")).to_have_text("The entry is confirmed.")
        page.get_by_role("link", name="Change Town").click()
        page.get_by_label("Town").fill("Elsewhere")
        page.get_by_role("button", name="Next", exact=True).click()
        expect(page.get_by_role("button", name="Confirm the entry")).to_be_visible()
        page.get_by_role("link", name="Resume later").click()
        page.get_by_role("link", name="Declare a change of address").click()
        page.get_by_role("link", name="Delete the procedure").click()
        page.get_by_role("button", name=re.compile("Delete procedure P-")).click()
        expect(page.get_by_text("There is no procedure in this space yet.")).to_be_visible()


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_a_document_is_attached_replaced_and_taken_out(street: Street, scripts: bool) -> None:
    """UI-01, ATT-02, ATT-03, ATT-04, ATT-05, ATT-08, ATT-11: from the computer with a mistake first, from the archive, and away again; how much is sent is shown where scripts run."""
    ada = street.place.visitor()
    ada.logs_in("Ida" if scripts else "Isolde", "Byron")
    space = f"/spaces/{ada.creates_business('Leases' if scripts else 'Rents')}"
    begun = ada.post(f"{space}/catalogue/{DEFINITION}", page=f"{space}/catalogue/{DEFINITION}").headers["location"]
    tab = begun.rsplit("/steps/", 1)[0] + "/attachments"
    file = {"name": "the lease.png", "mimeType": "image/png", "buffer": png(64, 64)}
    with street.visit(ada, java_script_enabled=scripts) as page:
        page.goto(f"{ORIGIN}{tab}")
        expect(page.locator("#slot-lease")).to_contain_text("Missing")
        page.get_by_role("link", name="Attach Lease").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Declare the transfer of a leaseAttach: Lease")
        page.get_by_role("button", name="Attach", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("Choose a file.")
        page.get_by_label("Name").fill("Our lease")
        page.get_by_label("File *").set_input_files([{**file, "buffer": b"no picture"}])  # type: ignore[list-item]
        page.get_by_role("button", name="Attach", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("This is none by its content.")
        expect(page.get_by_label("Name")).to_have_value("Our lease")
        page.get_by_label("File *").set_input_files([file])  # type: ignore[list-item]
        page.get_by_label("Keep a copy in my archive").check()
        held: list[Route] = []
        if scripts:
            page.route("**/slots/lease", lambda route: held.append(route))  # noqa: PLW0108 -- a method takes no mark
        page.get_by_role("button", name="Attach", exact=True).click()
        if scripts:
            expect(page.get_by_role("progressbar", name="The file is being sent")).to_be_visible()
            held[0].continue_()
        expect(page.get_by_role("status")).to_have_text("The document is attached.")
        expect(page).to_have_url(f"{ORIGIN}{tab}")
        expect(page.locator("#slot-lease")).to_contain_text("Our lease")
        expect(page.locator("#slot-lease .sign")).to_have_text("✓ Attached")

        page.get_by_role("link", name="Add a supporting document").click()
        page.get_by_role("button", name="Attach Our lease").click()
        expect(page.get_by_text("2 of 20 attachments used, 18 left.")).to_be_visible()
        page.locator("#slot-lease").get_by_role("link", name="Remove Our lease").click()
        page.get_by_role("button", name="Remove this attachment").click()
        expect(page.get_by_role("status")).to_have_text("The attachment is removed.")
        expect(page.locator("#slot-lease .sign")).to_have_text("! Missing")


def test_a_colleague_is_invited_gets_another_role_and_leaves(street: Street, town: Town) -> None:
    """ESP-22, ESP-23, ESP-24, UI-01: without scripts: invited, accepted by the link of the mail, made an editor, gone again."""
    number = street.product("Gus", "Guest")
    team = f"{ORIGIN}/spaces/{town.ada_space}/team"
    with street.visit(town.ada, java_script_enabled=False) as ada, street.visit(java_script_enabled=False) as gus:
        ada.goto(team)
        ada.get_by_role("link", name="Invite a person").click()
        ada.get_by_label("First name(s)").fill("Gus")
        ada.get_by_label("Name(s)", exact=False).nth(1).fill("Guest")
        ada.get_by_label("E-mail address").fill("gus@example.org")
        ada.get_by_label("Viewer").check()
        ada.get_by_role("button", name="Send the invitation").click()
        expect(ada.get_by_role("status")).to_be_visible()

        logs_in(gus, number, scripts=False)
        gus.get_by_label("E-mail address").fill("gus@example.org")
        gus.get_by_role("button", name="Confirm").click()
        gus.get_by_label("I have read the general terms").check()
        gus.get_by_role("button", name="Confirm").click()
        gus.goto(town.last_link())
        gus.get_by_role("button", name="Accept").click()
        expect(gus.get_by_role("heading", level=1)).to_have_text("Engines")

        ada.goto(team)
        ada.get_by_role("link", name="Gus Guest").click()
        ada.get_by_label("Editor").check()
        ada.get_by_role("button", name="Confirm").click()
        expect(ada.get_by_role("row", name="Gus Guest")).to_contain_text("Editor")

        gus.goto(team)
        gus.get_by_role("link", name="Leave the space").click()
        gus.get_by_role("button", name="Leave the space").click()
        assert gus.goto(team).status == 404  # type: ignore[union-attr]
        ada.reload()
        expect(ada.get_by_text("Gus Guest")).to_have_count(0)


def test_a_card_that_is_not_there_is_told_so(street: Street) -> None:
    """TOK-14: who has no certificate to present is told so on the cards' origin, and led back."""
    with street.visit() as page:
        page.goto(f"{ORIGIN}/login")
        page.get_by_role("button", name="Continue with the card or stick").click()
        expect(page).to_have_url(re.compile(CARDS))
        expect(page.get_by_role("heading", level=1)).to_have_text("No certificate")
        page.get_by_role("link", name="Begin again").click()
        expect(page).to_have_url(f"{ORIGIN}/login")


def press_to(page: Page, name: str, *, most: int = 40) -> None:
    """Tab until what has the focus is called so; each stop must be seen to have it."""
    for _ in range(most):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        if not focused.count():
            continue
        ring = focused.evaluate(
            "one => { const s = getComputedStyle(one); return s.outlineStyle + ' ' + s.outlineWidth; }"
        )
        assert ring == "solid 3px", (focused.evaluate("one => one.outerHTML"), ring)
        label = focused.evaluate("one => (one.labels?.[0] ?? one).textContent.trim()")
        if label.startswith(name):
            return
    raise AssertionError(f"{name!r} is not reached by Tab")


def test_one_flow_by_keyboard_alone(street: Street) -> None:
    """UI-01: logged in, terms accepted and a business space made without a mouse; each stop has its ring."""
    number = street.product("Kay", "Board")
    with street.visit() as page:
        page.goto(ORIGIN)
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Go to the content")).to_be_focused()
        press_to(page, "Log in")
        page.keyboard.press("Enter")
        page.wait_for_url(f"{ORIGIN}/login")
        press_to(page, "Product number")
        page.keyboard.type(number)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{WINDOW}/login*")
        page.keyboard.press("Tab")
        page.keyboard.type(CODE)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{ORIGIN}/register")
        press_to(page, "E-mail address")
        page.keyboard.type("kay@example.org")
        page.keyboard.press("Enter")
        page.wait_for_url(f"{ORIGIN}/terms?*")
        press_to(page, "I have read")
        page.keyboard.press("Space")
        page.keyboard.press("Enter")
        page.wait_for_url(f"{ORIGIN}/spaces")
        press_to(page, "Create a business space")
        page.keyboard.press("Enter")
        page.wait_for_url(f"{ORIGIN}/spaces/new/business")
        press_to(page, "a legal person")
        page.keyboard.press("ArrowDown")
        press_to(page, "Title of the business space")
        page.keyboard.type("Keys")
        press_to(page, "Company name")
        page.keyboard.type("Keys and Locks")
        press_to(page, "Confirm")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Keys")
        press_to(page, "Keys")  # the menu of spaces
        page.keyboard.press("Enter")
        expect(page.get_by_role("link", name="Manage my spaces")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("link", name="Manage my spaces")).not_to_be_visible()
        expect(page.locator("summary")).to_be_focused()


@pytest.mark.parametrize(
    ("language", "labels"), [("en", ["Logged in", "Last used"]), ("fr", ["Connexion", "Dernière utilisation"])]
)
def test_a_narrow_account_says_what_its_dates_are(street: Street, town: Town, language: str, labels: list[str]) -> None:
    """UI-01, UI-02: where the table of her sessions has no headings, each date has its own; where it has them it is said once."""
    label = "[...document.querySelectorAll('table')].at(-1).querySelectorAll('td')"
    shown = f"[...{label}].slice(0, 2).map(one => getComputedStyle(one, '::before').content)"
    with street.visit(town.ada, language=language, width=360) as page:
        page.goto(f"{ORIGIN}/account")
        assert page.evaluate(shown) == [f'"{one}"' for one in labels]
        page.set_viewport_size({"width": 1200, "height": 800})
        assert page.evaluate(shown) == ["none", "none"]


def test_a_session_that_is_about_to_end_says_so(street: Street, town: Town) -> None:
    """TOK-12: a script warns more than 20 seconds ahead, and takes the page away when it is over; without one the page has printed the time."""
    with street.visit(town.ada) as page:
        page.clock.install()
        page.goto(f"{ORIGIN}/account")
        line = page.locator("#session-end")
        expect(line).to_contain_text("10:15")
        page.clock.fast_forward(14 * 60 * 1000)
        expect(line).to_contain_text("10:15")
        page.clock.fast_forward(15 * 1000)
        expect(line).to_have_attribute("role", "alert")
        expect(line).to_contain_text("less than a minute")
        with page.context.expect_page() as other:  # what is used elsewhere goes on here
            page.evaluate("open('/account')")
        other.value.wait_for_load_state()
        expect(line).to_contain_text("10:15")
        away = '<!doctype html><title>Away</title><body><script src="/static/portal.js" defer></script>'
        page.context.route(
            f"{ORIGIN}/away", lambda route: route.fulfill(status=503, body=away, content_type="text/html")
        )
        with page.context.expect_page() as failed:  # nor does one that could not be made take this one away
            page.evaluate("open('/away')")
        failed.value.wait_for_load_state()
        page.clock.fast_forward(5000)
        expect(line).to_contain_text("10:15")
        page.clock.fast_forward(16 * 60 * 1000)
        expect(page.locator("body")).to_have_text("Your session has ended. Log in again.")
        assert "Lovelace" not in page.content()
        assert page.get_by_role("link").get_attribute("href") == "/account"
