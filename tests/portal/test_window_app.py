"""The window's pages without a daemon: what goes wrong in them."""

import hashlib
import logging
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from portal_adapter.language import Language
from portal_adapter.web.templates import Templates
from portal_adapter.window import app as window
from portal_adapter.window.settings import load
from signer.client import Profile, ServiceError
from tests.portal.place import ORIGIN, WINDOW, hidden

CONFIG = f"""
[window]
origin = "{WINDOW}"
[listener]
address = "127.0.0.1:1"
certificate = "tls.pem"
key = "tls.key"
[portal]
name = "Millbrook"
origin = "{ORIGIN}"
[daemon]
profile = "client.toml"
"""


class Broken:
    """A daemon's client with a mistake in it."""

    async def check_for_login(self, credential: str) -> None:
        pass

    async def authenticate(self, _: object, typed: object, *, is_known: bool) -> Any:
        raise RuntimeError(typed.secret_code)  # type: ignore[attr-defined]


def window_with(
    daemon: Broken, directory: Path, monkeypatch: pytest.MonkeyPatch, key: Path | None = None
) -> TestClient:
    """A browser at a window that has this client of the daemon, with a key of its own or without."""
    (directory / "window.toml").write_text(CONFIG)
    monkeypatch.setattr(window.Profile, "load", lambda _: Profile("unix:x.sock", key=key))
    monkeypatch.setattr(window, "Daemon", lambda _: daemon)
    return TestClient(window.app(window.services(load(directory / "window.toml"))), base_url=WINDOW)


def login_of(number: str, nonce: str = "00", language: str = "en") -> str:
    """Where the portal sends her just after she has named the number."""
    return f"/login?credential={number}&nonce={nonce * 32}&ends={int(time.time()) + 120}&language={language}"


@pytest.mark.parametrize("language", ["en", "fr"])
def test_a_mistake_of_ours_shows_a_reference_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    """0.1, TOK-14: a calm page with a reference that the log has beside where it happened; no word of it, and no code, is in either."""
    browser = window_with(Broken(), tmp_path, monkeypatch)
    page = browser.get(login_of("ada-login", "00", language))
    with caplog.at_level(logging.ERROR):
        answer = browser.post("/login", data={**hidden(page.text), "secret_code": "horse 7", "otp": "123456"})
    assert answer.status_code == 500 and f'<html lang="{language}">' in answer.text
    assert f'href="{ORIGIN}/login"' in answer.text
    assert answer.headers["cache-control"] == "no-store"
    reference = re.search(r"<code>([0-9a-f]{8})</code>", answer.text)
    assert reference is not None and f"reference {reference[1]}" in caplog.text and "in authenticate" in caplog.text
    assert "horse" not in answer.text and "horse" not in caplog.text


def test_a_page_that_there_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0.1: its heading says so, as on the portal, and nothing says it twice."""
    browser = window_with(Broken(), tmp_path, monkeypatch)
    page = browser.get("/nothing")
    assert page.status_code == 404 and "<h1>There is no such page</h1>" in page.text
    assert page.text.count("There is no such page") == 2 and 'role="alert"' not in page.text  # the title, too
    for path in (
        "/.git/config",
        "/docs",
        "/openapi.json",
        "/metrics",
        "/health",
        "/static/",
        "/static/../window/app.py",
    ):
        assert browser.get(path).status_code == 404
    assert browser.request("TRACE", "/login").status_code == 404


class Sending(Broken):
    """A daemon's client that sends codes, but to nobody of the number 'nobody-login'."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.known: list[bool] = []

    async def send_code(self, login: Any, _source: str) -> None:
        if login.credential == "nobody-login":
            raise ServiceError("CREDENTIAL_UNKNOWN", "")
        self.sent.append(login.credential)

    async def authenticate(self, _: object, typed: object, *, is_known: bool) -> tuple[bytes, bytes, bytes]:
        self.known.append(is_known)
        if typed.secret_code != "right":  # type: ignore[attr-defined]
            raise ServiceError("OTP_INCORRECT", "")
        return b"statement", b"signature", b"certificate"

    async def send_code_to_change(self, credential: str, _source: str) -> None:
        self.sent.append(f"{credential} change")

    async def change_code(self, _credential: str, _typed: object, _new: str, *, is_known: bool) -> None:
        self.known.append(is_known)
        raise ServiceError("OTP_INCORRECT", "")


class Clock:
    """That of the window: what it counts by, and what cookies end by."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr("portal_adapter.window.visit.time.monotonic", lambda: self.now)
        monkeypatch.setattr("portal_adapter.window.known.time.time", lambda: self.now)


def test_of_one_number_three_codes_are_sent_in_ten_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Row 6.6, 0.1 rate-limited: a fourth code within ten minutes is refused with how long that lasts, whatever login asks for
    it, alike for a number that is nobody's; other numbers go on, and ten minutes later so does this one.
    """
    clock = SimpleNamespace(now=1_000.0)
    monkeypatch.setattr("portal_adapter.window.visit.time.monotonic", lambda: clock.now)
    daemon = Sending()
    browser = window_with(daemon, tmp_path, monkeypatch)

    def asks(number: str, nonce: str) -> Any:
        clock.now += 10
        page = browser.get(login_of(number, nonce))
        return browser.post("/login", data={**hidden(page.text), "do": "send"})

    for number in ("dan-login", "nobody-login"):
        assert [asks(number, nonce).status_code for nonce in ("00", "11", "22")] == [200] * 3
        refused = asks(number, "33")
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "570"
        assert "Several codes were sent in the last minutes." in refused.text
    assert asks("hal-login", "44").status_code == 200
    clock.now += 600
    assert asks("dan-login", "55").status_code == 200
    assert daemon.sent == ["dan-login"] * 3 + ["hal-login", "dan-login"]


def login(browser: TestClient, clock: Clock, **typed: str) -> Any:
    """A form of /login, of another login each time; by default a code is asked for."""
    clock.now += 0.01
    nonce = f"{int(clock.now * 100):064x}"
    page = browser.get(f"/login?credential=ada-login&nonce={nonce}&ends={int(clock.now) + 120}&language=en")
    return browser.post("/login", data={**hidden(page.text), **(typed or {"do": "send"})}, follow_redirects=False)


def test_strangers_use_up_nothing_of_hers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Row 6.6: three codes in ten minutes are sent for one network, and six for all strangers; a browser in which she has logged
    in has three of its own, for logging in and for changing her code, and its own ten tries a minute, also within a network
    that has none left. What the daemon is told is whether she is known. Ten minutes later strangers have some again.
    """
    clock, daemon = Clock(monkeypatch), Sending()
    hers = window_with(daemon, tmp_path, monkeypatch)
    others = [TestClient(hers.app, base_url=WINDOW, client=(f"192.0.2.{number}", 1)) for number in range(4)]
    assert login(hers, clock, secret_code="right", otp="123456").status_code == 303
    for number, sent in enumerate((3, 3, 0, 0)):
        answers = [login(others[number], clock).status_code for _ in range(4)]
        assert answers == [303] * sent + [429] * (4 - sent)
    neighbour = TestClient(hers.app, base_url=WINDOW)
    while login(neighbour, clock, secret_code="wrong", otp="123456").status_code != 429:
        pass
    assert [login(hers, clock).status_code for _ in range(2)] == [303] * 2
    change = {**hidden(hers.get("/code?credential=ada-login&language=en").text), "credential": "ada-login"}
    assert [hers.post("/code", data={**change, "do": "send"}).status_code for _ in range(2)] == [200, 429]
    daemon.known.clear()
    chosen = {"secret_code": "right", "otp": "123456", "new_code": "entirely other 9", "again": "entirely other 9"}
    assert hers.post("/code", data=change | chosen).status_code == 422
    assert login(hers, clock, secret_code="right", otp="123456").status_code == 303
    assert login(others[3], clock, secret_code="right", otp="123456").status_code == 303
    assert daemon.known == [True, True, False]
    assert daemon.sent == ["ada-login"] * 8 + ["ada-login change"]
    clock.now += 600
    assert login(others[2], clock).status_code == 303


def test_a_browser_is_known_by_its_own_cookie_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Row 6.6: it is of the window that gave it, over restarts as long as that has the same key; of one number, whole and for
    180 days. It is no script's, and has nothing in it that was typed, or the number.
    """
    clock, daemon = Clock(monkeypatch), Sending()
    key = tmp_path / "client.key"
    key.write_text("a key")
    browser = window_with(daemon, tmp_path, monkeypatch, key)
    said = login(browser, clock, secret_code="right", otp="123456").headers["set-cookie"]
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=strict", f"Max-Age={180 * 86400}"} <= set(said.split("; "))
    name, _, value = said.partition(";")[0].partition("=")
    assert name.startswith("__Host-known-") and "ada-login" not in said and "right" not in said

    def is_known(window: TestClient, name: str = name, value: str = value, number: str = "ada-login") -> bool:
        window.cookies.clear()
        page = window.get(login_of(number))
        window.cookies.set(name, value)
        window.post("/login", data={**hidden(page.text), "secret_code": "wrong", "otp": "123456"})
        clock.now += 60
        return daemon.known[-1]

    assert is_known(window_with(daemon, tmp_path, monkeypatch, key))
    ends, id_, mac = value.split(".")
    for other in (
        f"{int(ends) + 1}.{id_}.{mac}",
        f"{ends}.x.{mac}",
        f"{ends}.{id_}.",
        "..",
        "",
        "x",
        f"{ends}.{id_}.{mac}0",
    ):
        assert not is_known(browser, value=other)
    of_eve = name[:13] + hashlib.sha256(b"eve-login").hexdigest()[:16]
    assert not is_known(browser, of_eve, number="eve-login")
    clock.now = int(ends) - 1
    assert is_known(browser)
    assert not is_known(browser)
    key.write_text("another key")
    clock.now = 1_000.0
    assert not is_known(window_with(daemon, tmp_path, monkeypatch, key))


def test_a_login_that_is_over_spends_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    TOK-14: the page says when the login ends. Ten seconds before the portal takes it no more, nothing of it is given to the
    daemon: no code is sent, none is looked at, and the page says so.
    """
    clock = SimpleNamespace(now=1_800_000_000.0)
    monkeypatch.setattr("portal_adapter.window.login.time", SimpleNamespace(time=lambda: clock.now))
    daemon = Sending()
    browser = window_with(daemon, tmp_path, monkeypatch)
    address = f"/login?credential=ada-login&nonce={'0' * 64}&ends={int(clock.now) + 120}&language="
    page = browser.get(f"{address}en")
    assert "This login ends in 2 minutes." in page.text
    assert "Cette connexion prend fin dans 2 minutes." in browser.get(f"{address}fr").text
    clock.now += 60
    assert "This login ends in 1 minute." in browser.get(f"{address}en").text
    clock.now += 49
    assert browser.get(f"{address}en").status_code == 200
    clock.now += 1
    codes = {"secret_code": "horse 7", "otp": "123456"}
    for typed in (codes, {"do": "send"}):
        over = browser.post("/login", data={**hidden(page.text), **typed})
        assert over.status_code == 410
        assert "What you sent was not looked at." in over.text and f'href="{ORIGIN}/login"' in over.text
    assert daemon.sent == []
    again = browser.get(f"{address}en")
    assert again.status_code == 410 and "This login is over. Please begin again." in again.text


class Closed(Broken):
    """A daemon's client that may ask for nothing."""

    async def follow(self, link: str) -> None:
        raise ServiceError("RPC_NOT_ALLOWED", "")

    async def authenticate(self, *_: object, **__: object) -> None:
        raise ServiceError("RPC_NOT_ALLOWED", "")


def test_what_trying_again_does_not_cure_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIG-15: where the daemon does not let the window in, no page offers to try again; it says whom to tell, and leads back."""
    browser = window_with(Closed(), tmp_path, monkeypatch)
    away = browser.get("/sign?link=x&language=en")
    assert away.status_code == 503 and "retry-after" not in away.headers
    assert ">Try again<" not in away.text
    assert "Trying again does not help. Tell the help desk" in away.text
    assert f'class="action" href="{ORIGIN}/"' in away.text


@pytest.mark.parametrize(
    ("contact", "said"),
    [
        ("a***@example.org", "A one-time code was sent to a***@example.org."),
        ("https://hooks.example.org/***", "A one-time code was sent to you."),
    ],
)
def test_whom_a_code_was_sent_to(contact: str, said: str) -> None:
    """SIG-06: a person knows her e-mail address, and nothing of a webhook."""
    templates = Templates(
        {"portal_name": "Millbrook", "window_origin": WINDOW}, Path(window.__file__).parent / "templates"
    )
    data = {
        "subject": "ada", "contact": contact, "kind": "", "secret": "", "csrf": "", "form_id": "", "refusal": None,
        "here": str,
    }  # fmt: skip
    page = templates.render("finish.html", data, language=Language("en", "UTC"))
    assert re.findall(r'role="status">([^<]*)<', page) == [said]
