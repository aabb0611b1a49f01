"""How long the answer to somebody's codes takes, at a login and at a signature, while others look at pages of the portal."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.portal.load import PACE, p95
from tests.portal.real import Browser, Real
from tests.portal.signing import Signer, returned

CODES = ("ada", "eve", "fay")  # whose devices show a code as often as they are asked


@contextmanager
def visited(browser: Browser) -> Iterator[list[float]]:
    """Somebody's page is asked for `PACE` times a second during the block; milliseconds of each, from when it was due."""
    over, took = threading.Event(), []

    def look() -> None:
        begin = time.monotonic()
        for number in range(10**6):
            due = begin + number / PACE
            if over.wait(max(0.0, due - time.monotonic())):
                return
            assert browser.get("/account").status_code == 200
            took.append((time.monotonic() - due) * 1e3)

    visitor = threading.Thread(target=look)
    visitor.start()
    try:
        yield took
    finally:
        over.set()
        visitor.join()


def login_ms(real: Real, name: str) -> float:
    """The window's answer to her codes and the portal's to the statement: what she waits for after 'Log in'."""
    person, browser = real.people[name], real.browser()
    address = browser.asks_for_window(person.number)
    page, otp = browser.get(address).text, person.otp()
    began = time.monotonic()
    answer = browser.post(address, page, {"secret_code": person.secret_code, "otp": otp})
    browser.returns(answer)
    return (time.monotonic() - began) * 1e3


def signature_ms(real: Real, name: str) -> float:
    """The window's answer to her codes for a document: signed."""
    signer = Signer.at(real, name)
    page = signer.approves()
    typed = signer.codes_of(real.people[name], page)
    began = time.monotonic()
    answer = signer.types(page, **typed)
    took = (time.monotonic() - began) * 1e3
    assert returned(answer)["outcome"] == "signed"
    return took


def measured(real: Real, each: int) -> str:
    """The figures, or AssertionError."""
    visitor = real.browser()
    visitor.logs_in(real.people["ada"])
    with visited(visitor) as pages:
        logins = [login_ms(real, CODES[number % len(CODES)]) for number in range(each)]
        signatures = [signature_ms(real, "ada") for _ in range(each)]
    said = (
        f"{each} logins and {each} signatures with codes, beside {PACE} pages a second: p95 {p95(logins):.0f} ms and "
        f"{p95(signatures):.0f} ms; {len(pages)} pages, p95 {p95(pages):.0f} ms"
    )
    assert max(p95(logins), p95(signatures)) <= 300, said
    assert p95(pages) <= 50, said
    return said
