"""The window's pages without a daemon: what goes wrong in them."""

import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from portal_adapter.language import Language
from portal_adapter.web.templates import Templates
from portal_adapter.window import app as window
from portal_adapter.window.settings import load
from signer.client import ServiceError
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

    async def authenticate(self, _: object, typed: object) -> None:
        raise RuntimeError(typed.secret_code)  # type: ignore[attr-defined]


def window_with(daemon: Broken, directory: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """A browser at a window that has this client of the daemon."""
    (directory / "window.toml").write_text(CONFIG)
    monkeypatch.setattr(window.Profile, "load", lambda _: SimpleNamespace())
    monkeypatch.setattr(window, "Daemon", lambda _: daemon)
    return TestClient(window.app(window.services(load(directory / "window.toml"))), base_url=WINDOW)


@pytest.mark.parametrize("language", ["en", "fr"])
def test_a_mistake_of_ours_shows_a_reference_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    """0.1, TOK-14: a calm page with a reference that the log has beside where it happened; no word of it, and no code, is in either."""
    browser = window_with(Broken(), tmp_path, monkeypatch)
    page = browser.get(f"/login?credential=ada-login&nonce={'0' * 64}&language={language}")
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

    async def send_code(self, login: Any, _source: str) -> None:
        if login.credential == "nobody-login":
            raise ServiceError("CREDENTIAL_UNKNOWN", "")
        self.sent.append(login.credential)


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
        page = browser.get(f"/login?credential={number}&nonce={nonce * 32}&language=en")
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


class Closed(Broken):
    """A daemon's client that may ask for nothing."""

    async def follow(self, link: str) -> None:
        raise ServiceError("RPC_NOT_ALLOWED", "")

    async def authenticate(self, *_: object) -> None:
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
