"""Procedures signed for real: the portal, the window and the daemon, with codes and with a card's PIN; two spaces, one after the other."""

import re
import subprocess
from collections.abc import Mapping
from typing import Any

import httpx2 as httpx

from tests.daemon import until
from tests.pki import Authority, pem
from tests.portal.real import Browser, Person, Real
from tests.portal.signing import Opened, Signer
from tests.portal.test_procedures import HOME, PERSON
from tests.signer.people import canaries

PRIVATE: Mapping[str, Mapping[str, str]] = {"person": PERSON, "address": HOME}


def sends(browser: Browser, action: str, page: httpx.Response, fields: Mapping[str, str] | None = None) -> Any:
    """The form of a page that leads there."""
    form = re.search(rf'<form method="post" action="{re.escape(action)}".*?</form>', page.text, re.DOTALL)
    assert form is not None, page.text
    return browser.post(action, form[0], fields)


def space_of(browser: Browser) -> str:
    """The path of her private space, which is made where there is none."""
    page = browser.get("/spaces/new/private")
    if 'name="email"' in page.text:
        made = sends(browser, "/spaces/new/private", page, {"email": "somebody@example.org"})
        if made.status_code == 303:
            return str(made.headers["location"])
    found = re.search(r'href="(/spaces/[^"/]{11})"', browser.get("/spaces").text)
    assert found is not None
    return found[1]


def business_of(browser: Browser, title: str) -> str:
    """The path of a new business space of hers."""
    page = "/spaces/new/business"
    fields = {"kind": "association", "title": title, "company": f"{title} Ltd", "email": "office@example.org"}
    return str(sends(browser, page, browser.get(page), fields).headers["location"])


def confirmed(browser: Browser, definition: str, steps: Mapping[str, Mapping[str, str]]) -> str:
    """The path of a new procedure of hers that is filled in and confirmed."""
    page = f"{space_of(browser)}/catalogue/{definition}"
    where = str(sends(browser, page, browser.get(page)).headers["location"])
    at = where.rsplit("/steps/", 1)[0]
    for step, answers in steps.items():
        page = f"{at}/steps/{step}"
        done = sends(browser, page, browser.get(page), {"go": "next", **answers})
        assert done.status_code == 303, done.text
    done = sends(browser, f"{at}/check", browser.get(f"{at}/check"))
    assert (done.status_code, done.headers["location"]) == (303, f"{at}/check"), done.text
    return at


def sent_to_window(real: Real, browser: Browser, at: str, credential: str) -> tuple[str, Signer]:
    """Up to the window: the attempt's page, and who is there."""
    begun = sends(browser, f"{at}/signing", browser.get(at))
    assert begun.status_code == 303, begun.text
    step = str(begun.headers["location"])
    page = browser.get(step)
    assert re.search(rf'value="{credential}" checked', page.text), page.text
    chosen = sends(browser, f"{step}/certificate", page, {"credential": credential})
    assert chosen.status_code == 303, chosen.text
    address = chosen.headers["location"]
    assert address.startswith(f"{real.window_origin}/sign?link="), address
    found = re.search(r"the certificate", browser.get(step).text)
    assert found is not None
    return step, Signer(real, browser, Opened("", address))


def back(browser: Browser, answer: httpx.Response, step: str) -> Any:
    """From the window to step 4, and "Save"."""
    assert answer.status_code == 303, answer.text
    page = browser.get(answer.headers["location"])
    action = re.search(r'<form method="post" action="([^"]+)" data-go>', page.text)
    assert action is not None, page.text
    done = sends(browser, action[1], page)
    assert (done.status_code, done.headers["location"]) == (303, step), done.text
    page = browser.get(step)
    assert "Save to Millbrook" in page.text
    return sends(browser, f"{step}/save", page)


def signs(real: Real, browser: Browser, at: str, credential: str, **typed: str) -> Any:
    """All of it, with what is typed in the window; codes are the person's where nothing is given."""
    step, signer = sent_to_window(real, browser, at, credential)
    page = signer.approves()
    return back(browser, signer.types(page, **(typed or signer.codes_of(real.people[credential], page))), step)


def pdfsig(real: Real, content: bytes) -> str:
    file = real.directory / "downloaded.pdf"
    file.write_bytes(content)
    return subprocess.run(["pdfsig", "-nocert", file], check=False, text=True, capture_output=True, timeout=60).stdout


def check_signed(real: Real, browser: Browser, at: str, given: bytes, *names: str) -> None:
    """What is shown and downloaded is what was confirmed, and valid signatures of these people."""
    shown, content = browser.get(f"{at}/form"), browser.get(f"{at}/form/download").content
    assert shown.content == content
    assert content.startswith(given) and len(content) > len(given)
    check_pdf(real, content, *names)
    assert "Ready" in browser.get(at).text


def check_pdf(real: Real, content: bytes, *names: str) -> None:
    """It has valid signatures of these people and no others."""
    told = pdfsig(real, content)
    assert told.count("Signature is Valid.") == len(names), told
    assert "Total document signed" in told
    assert [one for one in names if one in told] == list(names), told


def logged_in(real: Real, person: Person) -> Browser:
    browser = real.browser()
    browser.logs_in(person)
    return browser


def test_codes_sign_a_procedure(real: Real) -> None:
    """
    SIG-01 to SIG-12: with a code that is sent, from the confirmed form to the download that `pdfsig` verifies. First cancelled in
    the window and begun again, and the signed one taken back before it is saved; no code is in database, logs or sessions (SIG-07).
    """
    dan = real.people["dan"]
    browser = logged_in(real, dan)
    at = confirmed(browser, "change-of-address", PRIVATE)
    given = browser.get(f"{at}/form").content
    step, signer = sent_to_window(real, browser, at, "dan")
    signer.follows()
    left = signer.post("/sign/cancel", signer.get("/sign/approve").text)
    page = browser.get(left.headers["location"])
    done = sends(browser, f"{step}/returned", page)
    assert done.headers["location"] == at
    assert "The signing is cancelled" in browser.get(at).text

    step, signer = sent_to_window(real, browser, at, "dan")
    page = signer.approves()
    typed = signer.codes_of(dan, page)
    done = back(browser, signer.types(page, **typed), step)
    assert (done.status_code, done.headers["location"]) == (303, at), done.text
    check_signed(real, browser, at, given, "Dan Dantzig")

    canary(real, {"secret code": typed["secret_code"], "code": typed["otp"]})


def canary(real: Real, typed: dict[str, str]) -> None:
    """Nothing of what was typed is in a file of portal, window or daemon, in a log or in what a process was started with."""
    written = canaries.files(real.directory) | {"the daemon's log": real.rig.log.read_bytes()}
    for name in ("portal", "window"):
        written |= {f"the {name}'s {what}": (real.proc(name) / what).read_bytes() for what in ("cmdline", "environ")}
    assert any("portal.db" in name for name in written)
    assert canaries.hits({name: value.encode() for name, value in typed.items()}, written) == []


def test_without_the_daemon_the_portal_goes_on(real: Real) -> None:
    """SIG-15: while the daemon is stopped a signing is refused with 503 and begun again afterwards; nothing else suffers."""
    ada = logged_in(real, real.people["ada"])
    at = confirmed(ada, "change-of-address", PRIVATE)
    begun = sends(ada, f"{at}/signing", ada.get(at))
    step = begun.headers["location"]
    profile = real.directory / "portal.client.toml"
    kept = profile.read_text()
    profile.write_text(kept.replace(f"127.0.0.1:{real.rig.port}", "127.0.0.1:9"))
    try:
        away = ada.get(step)
        assert (away.status_code, away.headers["retry-after"]) == (503, "30")
        assert f'href="{step}">Try again</a>' in away.text
        assert ada.get(at).status_code == 200
        certificate, key = real.rig.files("operator")  # who may not ask for it: no waiting mends that
        lines = [line for line in kept.splitlines() if not line.startswith(("certificate", "key"))]
        profile.write_text("\n".join([*lines, f'certificate = "{certificate}"', f'key = "{key}"', ""]))
        refused = ada.get(step)
        assert refused.status_code == 503 and "retry-after" not in refused.headers
        assert "Whoever runs the portal has to look at it." in refused.text and "Try again" not in refused.text
    finally:
        profile.write_text(kept)
    until(lambda: ada.get(step).status_code == 200, 5, "the daemon is there")
    assert sends(ada, f"{step}/cancel", ada.get(step)).status_code == 303


def test_a_daemon_of_another_ca_gets_nothing(real: Real) -> None:
    """SIG-15: the portal talks only to a daemon whose certificate is of the CA that its profile names; that is in the log."""
    ada = logged_in(real, real.people["ada"])
    at = confirmed(ada, "change-of-address", PRIVATE)
    step = sends(ada, f"{at}/signing", ada.get(at)).headers["location"]
    profile, other = real.directory / "portal.client.toml", real.directory / "another-ca.pem"
    other.write_bytes(pem(Authority("Test issuing").certificate))  # the name alone is the same
    kept, before = profile.read_text(), len(real.log("portal").read_text())
    profile.write_text(kept.replace(f'ca = "{real.ca}"', f'ca = "{other}"'))
    assert profile.read_text() != kept
    try:
        assert ada.get(step).status_code == 503
        said = real.log("portal").read_text()[before:]
        assert re.search(
            r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ WARNING portal: the daemon is not to be had", said, re.MULTILINE
        )
    finally:
        profile.write_text(kept)
    until(lambda: ada.get(step).status_code == 200, 5, "the daemon is there")
    assert sends(ada, f"{step}/cancel", ada.get(step)).status_code == 303
