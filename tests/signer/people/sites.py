"""An HTTP server on loopback that answers as a test tells it."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from typing import Any

MONDAY = "Mon, 23 Nov 2026 12:00:00 GMT"


@dataclass
class Site:
    """What it answers to each path, and what it was asked."""

    url: str = ""
    content: bytes = b""  # of any path without a story below
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    goes: dict[str, str] = field(default_factory=dict)  # path -> where it redirects to
    is_endless: bool = False
    is_silent: bool = False  # says a byte of a header now and then
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # (path, If-Modified-Since)
    over: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def site(context: SSLContext | None = None) -> Iterator[Site]:
    """A server until the end."""
    made = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append((self.path, self.headers["If-Modified-Since"]))
            with contextlib.suppress(ConnectionError):
                self.answer()

        def answer(self) -> None:
            if made.is_silent:
                while not made.over.wait(0.05):
                    self.wfile.write(b"H")
                return
            if self.path in made.goes:
                self.send_response(302)
                self.send_header("Location", made.goes[self.path])
                self.end_headers()
                return
            self.send_response(made.status)
            for name, value in made.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(made.content)
            while made.is_endless and not made.over.is_set():
                self.wfile.write(bytes(65_536))

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass  # the other side has gone

    with Server(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        made.url = f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made
        finally:
            made.over.set()
            server.shutdown()
            thread.join()
