"""
A place behind real TLS on loopback ports, and a Chromium that walks there: its names lead to those ports, and it trusts
the one certificate.

    with Street(place) as street:
        with street.visit() as page:
            page.goto("https://portal.test/login")

The window here is a stand-in that knows one secret code, and signs as the daemon would: what is typed there and who signs
is the business of the tests of the window.
"""

import asyncio
import base64
import contextlib
import hashlib
import html
import socket
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from urllib.parse import parse_qs, urlencode

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from portal_adapter.serving import Server
from portal_adapter.settings import Listener
from tests.portal.place import CARDS, ORIGIN, WINDOW, Place, Product, Visitor

CODE = "correct horse"
CHROMIUM = "/usr/bin/chromium"
QUIET = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
WAIT_MS = 10_000  # for whatever a test waits for in a page


class Street:
    """`products`: number -> product, as the stand-in window knows them."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.products: dict[str, Product] = {}
        self.ports = {origin: free_port() for origin in (ORIGIN, WINDOW, CARDS)}
        self._certificate()
        self._stack = ExitStack()
        self._browser: Browser | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._over, started = asyncio.Event(), threading.Event()
        thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(started),))
        thread.start()
        assert started.wait(10)
        self._stack.callback(thread.join)
        self._stack.callback(lambda: self._loop.call_soon_threadsafe(self._over.set))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self._loop.close()

    def product(self, given: str, family: str) -> str:
        """The number of a new Signing Server product."""
        number = f"{given.lower()}-login"
        self.products[number] = self.place.issuer.product(given, family)
        return number

    def chromium(self) -> Browser:
        """Started for the first page."""
        if self._browser is None:
            rules = ", ".join(f"MAP {origin[8:]}:443 127.0.0.1:{port}" for origin, port in self.ports.items())
            playwright = self._stack.enter_context(sync_playwright())
            self._browser = playwright.chromium.launch(
                executable_path=CHROMIUM,
                args=[*QUIET, f"--host-resolver-rules={rules}", f"--ignore-certificate-errors-spki-list={self.spki}"],
            )
            self._stack.callback(self._browser.close)
        return self._browser

    @contextlib.contextmanager
    def visit(
        self, visitor: Visitor | None = None, *, width: int = 1280, language: str = "en", **more: Any
    ) -> Iterator[Page]:
        """A page in a fresh browser; with the session of `visitor`."""
        context = self.chromium().new_context(viewport={"width": width, "height": 900}, locale=language, **more)
        context.set_default_timeout(WAIT_MS)
        if visitor is not None:
            lend(visitor, context)
        try:
            yield context.new_page()
        finally:
            context.close()

    # ---- serving

    async def _serve(self, started: threading.Event) -> None:
        apps = {ORIGIN: self.place.app, WINDOW: self._window(), CARDS: self.place.cards}
        async with AsyncExitStack() as stack:
            for origin, app in apps.items():
                listener = Listener(address=f"127.0.0.1:{self.ports[origin]}", certificate=self.pem, key=self.key)
                await stack.enter_async_context(Server(app, listener))
            started.set()
            await self._over.wait()

    def _certificate(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "street")])
        names = x509.SubjectAlternativeName([x509.DNSName(origin[8:]) for origin in self.ports])
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30)).add_extension(names, critical=False).sign(key, hashes.SHA256())
        )  # fmt: skip
        self.pem, self.key = self.place.directory / "street.pem", self.place.directory / "street.key"
        self.pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.key.write_bytes(private)
        self.key.chmod(0o600)
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.spki = base64.b64encode(hashlib.sha256(public).digest()).decode()

    def _window(self) -> Any:
        async def ask(request: Request) -> Response:
            query = request.query_params
            fields = "".join(
                f'<input type="hidden" name="{name}" value="{html.escape(query[name])}">'
                for name in ("credential", "nonce")
            )
            form = f'<form method="post" action="/login">{fields}<label>Secret code <input name="code" type="password"></label>'
            return HTMLResponse(
                f'<!doctype html><html lang="en"><title>Window</title><h1>Window</h1>{form}<button>Log in</button></form>'
            )

        async def answer(request: Request) -> Response:
            given = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
            if given.get("code") != CODE:
                return HTMLResponse("wrong code", 403)
            self.place.numbers[given["credential"]] = self.products[given["credential"]].der
            statement = self.products[given["credential"]].statement(given["nonce"])
            return RedirectResponse(f"{ORIGIN}/login/returned?{urlencode(statement)}", 303)

        return Starlette(routes=[Route("/login", ask), Route("/login", answer, methods=["POST"])])


def lend(visitor: Visitor, context: BrowserContext) -> None:
    """The cookies of a visitor, who then is there in this browser."""
    for name, value in visitor.http.cookies.items():
        context.add_cookies(
            [{"name": name, "value": value, "url": ORIGIN, "secure": True, "httpOnly": True, "sameSite": "Lax"}]
        )


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
