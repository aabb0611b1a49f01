"""`make demo-portal`: what it prints is so."""

import re
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2 as httpx

from tests.portal.place import hidden
from tests.portal.test_signing_for_real import PRIVATE, confirmed, sends

ROOT = Path(__file__).parents[2]


class Demo:
    """The demo's process; `lines` is what it has printed."""

    def __init__(self, directory: Path) -> None:
        self.lines: list[str] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "deploy/demo/portal.py", directory],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()

    def until(self, pattern: str, after: int = 0) -> str:
        """The first group of the first line that has it."""

        def found() -> re.Match[str] | None:
            return next((match for line in self.lines[after:] if (match := re.search(pattern, line))), None)

        with self._news:
            assert self._news.wait_for(lambda: found() or self.process.poll() is not None, 100), self.lines
            match = found()
        assert match is not None, "".join(self.lines)
        return match[1]

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            self._reader.join()
            assert self.process.stdout is not None
            self.process.stdout.close()


class Walker:
    """A browser for whom the other tests' ways are."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def get(self, address: str) -> httpx.Response:
        return self.http.get(address)

    def post(self, address: str, page: str, fields: Mapping[str, str] | None = None) -> httpx.Response:
        return self.http.post(address, data={**hidden(page), **(fields or {})})


def signs(demo: Demo, browser: Any, window: str, secret_code: str) -> None:
    """Bo signs a procedure with the code that is sent for it."""
    at = confirmed(browser, "change-of-address", PRIVATE)
    step = sends(browser, f"{at}/signing", browser.get(at)).headers["location"]
    shown = browser.get(step)
    chosen = re.findall(r'name="credential" value="([^"]+)" checked', shown.text)
    link = sends(browser, f"{step}/certificate", shown, {"credential": chosen[0]}).headers["location"]
    page = browser.get(window + browser.get(link).headers["location"])
    browser.post(f"{window}/sign/approve", page.text, {"approved": "yes"})
    page, after = browser.get(f"{window}/sign/codes"), len(demo.lines)
    sent = browser.post(f"{window}/sign/codes", page.text, {"do": "send"})
    page = browser.get(window + sent.headers["location"])
    otp = demo.until(r"to bo: .*?(\d{6,})\D*$", after)
    assert re.findall(r"names this signing (\S+):", page.text) == [demo.until(r"Check code of them all: (\S+)", after)]
    done = browser.post(f"{window}/sign/codes", page.text, {"secret_code": secret_code, "otp": otp})
    arrived = browser.get(done.headers["location"])
    assert sends(browser, f"{step}/returned", arrived).headers["location"] == step
    assert sends(browser, f"{step}/save", browser.get(step)).headers["location"] == at
    assert "Signed by" in browser.get(at).text


def test_the_demo_has_a_business_and_an_administration(tmp_path: Path) -> None:
    """
    TOK-14, ESP-22, SIG-08, TRK-11: Bo logs in with what is printed and the code that is sent, is in the team, and signs; Cleo logs in,
    too, who has the town hall's desk; Ctrl-C ends all.
    """
    demo = Demo(tmp_path)
    try:
        portal = demo.until(r"the portal +(https://\S+)")
        window = demo.until(r"the window +(https://\S+)")
        secret_code = demo.until(r"bo-login +(.+?)  ")
        demo.until("(Ctrl-C)")
        assert not any("message to" in line for line in demo.lines), "codes of what is done already"
        tls = ssl.create_default_context(cafile=str(tmp_path / "pki" / "root.pem"))
        for name, page, said in (("bo", "/spaces", "Kiln and Clay"), ("cleo", "/desk", "Millbrook Town Hall")):
            with httpx.Client(verify=tls, base_url=portal, headers={"accept-language": "en"}, timeout=30) as browser:

                def send(
                    address: str, shown: httpx.Response, fields: dict[str, str], browser: httpx.Client = browser
                ) -> httpx.Response:
                    return browser.post(address, data={**hidden(shown.text), **fields})

                begun = send("/login/server", browser.get("/login"), {"number": f"{name}-login"})
                address = begun.headers["location"]
                assert address.startswith(window)
                after = len(demo.lines)
                sent = send(address, browser.get(address), {"do": "send"})
                asked = browser.get(window + sent.headers["location"])
                otp = demo.until(rf"to {name}: Your code to log in: (\d+)", after)
                back = send(address, asked, {"secret_code": secret_code, "otp": otp}).headers["location"]
                assert send("/login/statement", browser.get(back), {}).status_code == 303
                assert said in browser.get(page).text
                if name == "bo":
                    signs(demo, Walker(browser), window, secret_code)
    finally:
        code = demo.end()
    assert code == 0
    for address in (portal, window):
        try:
            httpx.get(address, verify=tls)
        except httpx.ConnectError:
            continue
        raise AssertionError(f"{address} still answers")
