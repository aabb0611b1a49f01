"""
A person's walk in a real browser: what she presses and follows, and which page she then sees. Each page is looked at by
axe-core, which needs scripts itself; under the policy, and nothing may be said on the console.

    with Walker(chromium, real, visitor, scripts=True) as ada:
        ada.goes(space, "Ada Lovelace")
        ada.follows("Select a procedure", "Select a procedure")
        with ada.window("Sign (opens a new window)", "Select the certificate"):
            ada.presses("Next", "Read and approve")
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Any, Self

from playwright.sync_api import Browser, Page, expect

from tests.portal.real import Browser as Visitor
from tests.portal.real import Real
from tests.portal.sights import brings_axe, violations
from tests.portal.street import WAIT_MS

PAPERS = re.compile(r"/(form|document|sign/document/\d+)$")

ATTEMPT = re.compile(r"(?<=/signing/)[0-9a-f]{32}")


def opened(chromium: Browser, *, language: str = "en", **more: Any) -> Page:
    context = chromium.new_context(ignore_https_errors=True, locale=language, **more)
    context.set_default_timeout(WAIT_MS)
    return context.new_page()


def lend(person: Visitor, real: Real, page: Page) -> None:
    """Her session in this browser."""
    page.context.add_cookies(
        [{"name": one.name, "value": one.value or "", "url": real.portal_origin, "secure": True} for one in person.http.cookies.jar]
    )  # fmt: skip


class Walker:
    """`page` is where she is; without `reads` the frames of PDFs stay empty: the browser shows each in a process of its own."""

    def __init__(
        self, chromium: Browser, real: Real, visitor: Visitor, *, scripts: bool, reads: bool = True, **more: Any
    ) -> None:
        self.page = opened(chromium, java_script_enabled=scripts, **more)
        self.real, self.scripts = real, scripts
        self._said: list[str] = []
        self._found: list[object] = []
        self._seen: set[tuple[str, ...]] = set()
        lend(visitor, real, self.page)
        if scripts:
            brings_axe(self.page.context)
        if not reads:
            self.page.context.route(PAPERS, lambda route: route.fulfill(body="", content_type="text/plain"))
        self.page.context.on("console", lambda message: self._hears(message.text))
        self.page.context.on("weberror", lambda error: self._said.append(str(error.error)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.page.context.close()
        if kind is None:
            assert not self._found, self._found
            assert not self._said, self._said

    def _hears(self, text: str) -> None:
        """A form that is shown again with its mistakes has a status that the browser says."""
        if "status of 422" not in text:
            self._said.append(text)

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
        """In the block she is in the window that the button opens; the page where it was pressed stays as it is."""
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
        """She is on the page with this heading; what axe-core finds on it is told at the end. It looks once at each state of it."""
        expect(self.page.locator("h1")).to_contain_text(heading, timeout=WAIT_MS)
        self.page.wait_for_load_state()  # with its looks
        if not self.scripts:
            return
        state = (heading, ATTEMPT.sub("", self.page.url), *self.page.locator(".standing").all_inner_texts())
        if state not in self._seen:
            self._seen.add(state)
            self._found += [(heading, self.page.url, *one) for one in violations(self.page)]
