"""
Every page in every state: as it is found, with its menus open, after its forms were sent with mistakes; and what axe-core
finds in them, under the policy. `make soak PART=pages` looks at all of them in both languages and at two widths; the tests
at each once, in the longer language and as narrow as it may get.
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import BrowserContext, Page

from portal_adapter.web.route import Level
from portal_adapter.web.routes import FORMS, ROUTES
from tests.portal.place import ORIGIN, Place
from tests.portal.street import Street
from tests.portal.town import ATTACHES, Town

AXE = {
    "resultTypes": ["violations"],
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "rules": {"target-size": {"enabled": True}},
    "iframes": False,  # what the browser shows a PDF in is its own
}
CONTRAST = AXE | {
    "runOnly": ["color-contrast"],
    "rules": {},
}  # of the colours: the rest of a dark page is that of a light one
RUN = "options => axe.run(options).then(found => found.violations)"
GETS = {route.name: route for route in ROUTES if route.method == "GET"}
LIMITS = f"[limits]\nlogin_a_minute = 1000\n{ATTACHES}"
NARROW = 320  # WCAG 2.2, 1.4.10

EMPTY = """fields => {
    for (const one of fields) { one.checked = false; if (one.type !== "checkbox" && one.type !== "radio") one.value = ""; }
    return fields.length;
}"""

Act = Callable[[Page], bool]  # answers whether anything was done
State = tuple[str, str, list[Act]]  # who looks, the path, what is done there


def _sent_empty(actions: list[str]) -> Act:
    """The form that leads to one of `actions` is sent with its fields emptied; one without fields has no mistakes."""

    def send(page: Page) -> bool:
        for action in actions:
            form = page.locator(f'form[action="{action}"]')
            fields = form.locator(":is(input, textarea, select):not([type=hidden], [readonly])")
            if fields.evaluate_all(EMPTY):
                with page.expect_navigation():
                    form.locator("button").last.evaluate("one => one.click()")
                return True
        return False

    return send


def _menus(page: Page) -> bool:
    for one in page.locator("details:not([open]) > summary").all():
        one.click()
    return True


def _wrong_date(page: Page) -> bool:
    page.locator("#field-on").fill("soon")
    page.locator('button[value="next"]').click()
    page.wait_for_load_state()
    return True


# Who is shown a form that neither everybody nor Ada is.
FORM_OF = {
    "register": "dora",
    "renew": "gwen",
    "accept-terms": "carol",
    "accept-invitation": "ada",
    "refuse-invitation": "ada",
}
FILES = {  # no pages
    *("view-document", "download-document", "view-form", "download-form", "transferred-document"),
    *("view-attachment", "download-attachment"),
    *("transmission-form", "transmission-piece", "desk-form", "desk-piece"),
}


def states(town: Town) -> Iterator[State]:
    """
    Each page as it is found, and what is then done on it: its menus opened, its forms sent with mistakes; and what is no
    page. What everybody may see is looked at by nobody, and once a route by Ada, whose pages have her menus.
    """
    found: dict[tuple[str, str], list[Act]] = defaultdict(list)
    for route in GETS.values():
        if route.name not in FILES:
            is_open = route.level is Level.OPEN
            for path in town.paths(route) if is_open else ():
                found["nobody", path] = []
            for path in town.paths(route)[: 1 if is_open else None]:
                found["ada", path] = []
    found["ada", f"/spaces/{town.ada_space}"].append(_menus)
    for post, shown in FORMS.items():
        action = next(route for route in ROUTES if route.name == post)
        who = "nobody" if GETS[shown].level is Level.OPEN else "ada"
        found[FORM_OF.get(post, who), town.paths(GETS[shown])[0]].append(_sent_empty(town.paths(action)))
    found["ada", town.paths(GETS["step"])[0]].append(_wrong_date)
    for one in (("carol", "/terms"), ("dora", "/register"), ("gwen", "/renewal"), ("ada", "/nowhere")):
        found.setdefault(one, [])
    for (who, path), acts in found.items():
        yield who, path, acts


def brings_axe(context: BrowserContext) -> None:
    """Into each page that it shows from now on: sent once, and under any policy."""
    context.add_init_script(AXE_SCRIPT)


def violations(page: Page) -> list[tuple[str, str]]:
    """What axe-core finds on the page as it is now: the rule, and the first place that breaks it."""
    return _found(page, AXE)


def violations_in_the_dark(page: Page) -> list[tuple[str, str]]:
    """The same of its dark colours, which are those of any width."""
    page.emulate_media(reduced_motion="reduce", color_scheme="dark")  # colours change at once
    try:
        return _found(page, CONTRAST)
    finally:
        page.emulate_media(reduced_motion="reduce", color_scheme="light")


def _found(page: Page, options: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in page.evaluate(RUN, options)]


def people(town: Town) -> dict[str, Any]:
    """Who looks; a name of `states` -> whose session the browser has."""
    town.ada.proves(town.place.issuer.product("Ada", "Lovelace"))  # a second product, to be registered
    dora = town.place.visitor()  # has shown a product that is not registered
    dora.proves(town.place.issuer.product("Dora", "Dorn"))
    gwen = town.place.visitor()  # has shown a product that renews hers
    gwen.logs_in("Gwen", "Gauss", town.place.issuer.product("Gwen", "Gauss", serial="G-1"))
    gwen.post("/logout")
    gwen.proves(town.place.issuer.product("Gwen", "Gauss", serial="G-1", begins=-1))
    return {"ada": town.ada, "carol": town.carol, "dora": dora, "gwen": gwen, "nobody": None}


def faults(street: Street, town: Town, language: str, widths: tuple[int, ...]) -> tuple[int, list[tuple[Any, ...]]]:
    """
    How many states were looked at, and what is wrong with them. A page is loaded again only after something was done, and one
    to which several addresses lead is looked at once.
    """
    count, found = 0, []
    hears, fails = (
        (lambda message: found.append((message.text, message.location))),
        (lambda error: found.append((str(error),))),
    )
    for who, person in people(town).items():
        with street.visit(person, language=language, width=widths[0]) as page:
            brings_axe(page.context)
            page.on("console", hears)
            page.on("pageerror", fails)
            seen: set[str] = set()
            for _, path, acts in (one for one in states(town) if one[0] == who):
                page.goto(ORIGIN + path)
                if page.url not in seen:
                    found += _seen(page, widths)
                    count += 1
                seen.add(page.url)
                is_fresh = True
                for act in acts:
                    if not is_fresh:
                        page.goto(ORIGIN + path)
                    if act(page):
                        found += _seen(page, widths, is_dark=len(widths) > 1)
                        is_fresh, count = False, count + 1
    return count, [one for one in found if "status of 4" not in str(one[0])]


def _seen(page: Page, widths: tuple[int, ...], *, is_dark: bool = True) -> Iterator[tuple[Any, ...]]:
    """What is wrong with a page as it is now. Its dark colours with one width as it is found, with more in every state."""
    if is_dark:
        yield from ((page.url, "dark", *one) for one in violations_in_the_dark(page))
    for width in widths:
        page.set_viewport_size({"width": width, "height": 900})
        yield from ((page.url, width, *one) for one in violations(page))
    page.set_viewport_size({"width": NARROW, "height": 900})
    wide = page.evaluate("document.documentElement.scrollWidth")
    if wide > NARROW:
        yield page.url, NARROW, "reflow", f"{wide} px"


def all_faults() -> str:
    """All states in both languages at both widths; AssertionError with what is wrong."""
    with tempfile.TemporaryDirectory() as directory:
        place = Place(Path(directory), extra=LIMITS)
        with Street(place) as street:
            town, count = Town(place), 0
            for language in ("en", "fr"):
                some, found = faults(street, town, language, (1280, 390))
                assert found == [], found
                count += some
        place.close()
    return (
        f"{count} pages and states at 1280 and 390 px: axe-core finds nothing, at {NARROW} px nothing is cut off, and nothing "
        "is refused by the policy or said on the console"
    )
