"""
A person's walk in a real browser: what she presses and follows, and which page she then sees. Each page is looked at by
axe-core, which needs scripts itself, once in each form; under the policy, and nothing may be said on the console.

    with Walker(chromium, real, visitor, scripts=True) as ada:
        ada.goes(space, "Ada Lovelace")
        ada.follows("Select a procedure", "Select a procedure")
        with ada.window("Sign (opens a new window)", "Select the certificate"):
            ada.presses("Next", "Read and approve")
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Any, ClassVar, Self

from playwright.sync_api import Browser, Page, expect

from tests.portal.real import Browser as Visitor
from tests.portal.real import Real
from tests.portal.sights import brings_axe, violations
from tests.portal.street import WAIT_MS


def opened(chromium: Browser, *, language: str = "en", **more: Any) -> Page:
    context = chromium.new_context(ignore_https_errors=True, locale=language, **more)
    context.set_default_timeout(WAIT_MS)
    return context.new_page()


def lend(person: Visitor, real: Real, page: Page) -> None:
    """Her session in this browser."""
    page.context.add_cookies(
        [{"name": one.name, "value": one.value or "", "url": real.portal_origin, "secure": True} for one in person.http.cookies.jar]
    )  # fmt: skip


# What a page is made of, for this purpose: two that agree in it are the same page to axe-core.
STRUCTURE = "h1, h2, h3, label, legend, th, button, nav a, [role]"
OWN = re.compile(r"[0-9A-Z]{4,}(-[0-9A-Z]{4,})+|[0-9A-Z]{11}|[0-9a-f-]{32,36}|\d+")  # references, identifiers, numbers


class Walker:
    """`page` is where she is."""

    looked: ClassVar[set[tuple[str, ...]]] = set()

    def __init__(self, chromium: Browser, real: Real, visitor: Visitor, *, scripts: bool, **more: Any) -> None:
        self.page = opened(chromium, java_script_enabled=scripts, **more)
        self.real, self.scripts = real, scripts
        self.said: list[str] = []
        self._found: list[object] = []
        lend(visitor, real, self.page)
        if scripts:
            brings_axe(self.page.context)
        self.page.context.on("console", lambda message: self._hears(message.text))
        self.page.context.on("weberror", lambda error: self.said.append(str(error.error)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.page.context.close()
        if kind is None:
            assert self._found == []
            assert self.said == []

    def _hears(self, text: str) -> None:
        """A form that is shown again with its mistakes has a status that the browser says."""
        if "status of 422" not in text:
            self.said.append(text)

    # ---- from page to page

    def goes(self, path: str, heading: str) -> None:
        self.page.goto(f"{self.real.portal_origin}{path}")
        self.sees(heading)

    def presses(self, button: str, heading: str) -> None:
        self.page.get_by_role("button", name=button, exact=True).click()
        self.sees(heading)

    def follows(self, link: str, heading: str) -> None:
        self.page.get_by_role("link", name=link, exact=True).click()
        self.sees(heading)

    @contextlib.contextmanager
    def window(self, button: str, heading: str) -> Iterator[None]:
        """In the block she is in the window that the button opens; the page where it was pressed stays where it is."""
        before, address = self.page, self.page.url
        with self.page.context.expect_page() as new:
            self.page.get_by_role("button", name=button, exact=True).click()
        self.page = new.value
        self.sees(heading)
        assert self.page.evaluate("window.opener") is None
        yield
        assert before.url == address
        self.page.close()
        self.page = before

    def sees(self, heading: str) -> None:
        """She is on the page with this heading; what axe-core finds on it is told at the end."""
        expect(self.page.locator("h1")).to_contain_text(heading)
        if self.scripts:
            self.page.wait_for_load_state()
            parts = self.page.locator(STRUCTURE).all_text_contents()
            kind = tuple(OWN.sub("*", text) for text in (self.page.url.partition("?")[0], *parts))
            if kind in self.looked:
                return
            self.looked.add(kind)
            self._found += [(heading, self.page.url, *one) for one in violations(self.page)]
