"""The window's pages without a daemon: what goes wrong in them."""

import logging
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from portal_adapter.language import Language
from portal_adapter.web.templates import Templates
from portal_adapter.window import app as window
from portal_adapter.window.settings import load
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


@pytest.mark.parametrize("language", ["en", "fr"])
def test_a_mistake_of_ours_shows_a_reference_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    """0.1, TOK-14: a calm page with a reference that the log has beside where it happened; no word of it, and no code, is in either."""
    (tmp_path / "window.toml").write_text(CONFIG)
    monkeypatch.setattr(window.Profile, "load", lambda _: SimpleNamespace())
    monkeypatch.setattr(window, "Daemon", lambda _: Broken())
    browser = TestClient(window.app(window.services(load(tmp_path / "window.toml"))), base_url=WINDOW)
    page = browser.get(f"/login?credential=ada-login&nonce={'0' * 64}&language={language}")
    with caplog.at_level(logging.ERROR):
        answer = browser.post("/login", data={**hidden(page.text), "secret_code": "horse 7", "otp": "123456"})
    assert answer.status_code == 500 and f'<html lang="{language}">' in answer.text
    assert f'href="{ORIGIN}/login"' in answer.text
    assert answer.headers["cache-control"] == "no-store"
    reference = re.search(r"<code>([0-9a-f]{8})</code>", answer.text)
    assert reference is not None and f"reference {reference[1]}" in caplog.text and "in authenticate" in caplog.text
    assert "horse" not in answer.text and "horse" not in caplog.text


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
