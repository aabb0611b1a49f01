"""
A listener: uvicorn, with what it does not do by itself. The client's certificate is put where the frame looks for it, a
connection that sends no request, or a body drop by drop, is ended, nobody holds all the connections, and more than one
listener runs in a process.

    Server(app, listener)                 HTTPS
    Server(app, cards, client_ca=...)     HTTPS that asks the browser for a certificate
    BehindFront(app, front)               plain HTTP on a Unix socket, for a front that has ended TLS
"""

import asyncio
import os
import socket
import ssl
import stat
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote_to_bytes

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.responses import PlainTextResponse
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from portal_adapter.accepting import Accepting, Counted
from portal_adapter.settings import Front, Listener
from portal_adapter.unusable import Unusable
from portal_adapter.web.headers import Headers, always

CONNECTIONS_MAX = 512  # whose requests are answered; others' are told to come back
ACCEPTED_MAX = 2 * CONNECTIONS_MAX  # with those in their handshake: descriptors are left for what is done
# Of one network (network.py): a browser has up to six, and keeps them for KEEP_ALIVE_S, so that an office behind one address
# has room for twenty people who load a page at once; who is alone holds a quarter of what is answered.
CONNECTIONS_OF_ONE = 128
KEEP_ALIVE_S = 15
HANDSHAKE_S = 10.0  # a card's PIN is asked for in it, by a browser that begins again afterwards if it was slow
HEAD_S = 10.0  # from a connection, or the end of a request, to the next request's headers
HEAD_BYTES_MAX = 32 * 1024  # of a request's line and headers beyond one read of the socket; a returning login has 6 KiB
BODY_S = 20.0  # for a body, and a second more for each so many bytes of it
BODY_BYTES_A_S = 4096
BODY_AHEAD_S = 60.0  # that bytes can buy beforehand: a network that is lost for a moment
BACKLOG = 256  # that the kernel holds until they are accepted
STOP_S = 10  # for requests that are being answered
CIPHERS = (
    "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2 (RFC 9325, 4.2): forward secret and authenticated; 1.3 has no others
)
_SOCKET_MODE = 0o660

# What is answered here, and not by the program; it says to browsers what the program's answers say.
_BUSY = Headers(PlainTextResponse("Too many ask at once. Please try again in a moment.", 503, {"connection": "close"}))
_UNREADABLE = Headers(PlainTextResponse("The certificate's header cannot be read.", 400))
_NO_REQUEST = b"This is no request."
_OF_NO_REQUEST = (
    *always(), (b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store"), (b"connection", b"close"),
    (b"content-length", b"%d" % len(_NO_REQUEST)),
)  # fmt: skip


class _Protocol(HttpToolsProtocol, Counted):
    """With `peer_certificate` (DER) in the state of each request's scope: TLS has verified it, or there is none."""

    _late: asyncio.TimerHandle | None = None
    _slow: asyncio.TimerHandle | None = None
    _body_until = 0.0
    _head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD_S, transport.abort)  # a polite end would wait for the other side
        self._program = self.app

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > HEAD_BYTES_MAX:
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """For bytes that are none of HTTP, and where a request's end would be in doubt (RFC 9112, 6.1)."""
        del msg
        head = b"".join(b"%b: %b\r\n" % one for one in _OF_NO_REQUEST)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + head + b"\r\n" + _NO_REQUEST)
        self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._late is None:
            self._late = self.loop.call_later(HEAD_S, self.transport.abort)
        tls = self.transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        self.scope["state"]["peer_certificate"] = certificate

    def on_headers_complete(self) -> None:
        self._in_time()
        self._body_until = self.loop.time() + BODY_S
        self._slow = self.loop.call_later(BODY_S, self._too_slow)
        is_full = max(len(self.connections), len(self.tasks)) >= CONNECTIONS_MAX
        self.app = _BUSY if is_full else self._program
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        self._body_until = min(self._body_until + len(body) / BODY_BYTES_A_S, self.loop.time() + BODY_AHEAD_S)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        self._in_time()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        self.over()
        super().connection_lost(exc)

    def _in_time(self) -> None:
        for timer in (self._late, self._slow):
            if timer is not None:
                timer.cancel()
        self._late = self._slow = None

    def _too_slow(self) -> None:
        """While we do not read, the other side is not slow."""
        now = self.loop.time()
        if self.flow.read_paused:
            self._body_until = now + BODY_S
        if now >= self._body_until:
            self.transport.abort()
        else:
            self._slow = self.loop.call_at(self._body_until, self._too_slow)


class ListenError(Unusable):
    """The address or socket cannot be listened on; the message names it."""


class _Listening:
    """`async with` listens in the block; raises `ListenError`. `where` is for people."""

    def __init__(self, app: Any, where: str, **tls: Any) -> None:
        self._where = where
        self._config = uvicorn.Config(
            app, http=_Protocol, loop="none", lifespan="off", log_config=None, access_log=False, server_header=False,
            date_header=False, timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_S, ws="none", proxy_headers=False, **tls,
        )  # fmt: skip
        self._config.load()
        self._server = uvicorn.Server(self._config)

    async def _listen(self, protocol: Callable[[], _Protocol]) -> Any:
        """What has a `close`."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        server = self._server
        server.lifespan = self._config.lifespan_class(self._config)

        def protocol() -> _Protocol:
            return _Protocol(config=self._config, server_state=server.server_state, app_state={})

        try:
            listening = await self._listen(protocol)
        except OSError as error:
            raise ListenError(f"cannot listen on {self._where}: {error.strerror or error}") from None
        server.servers = [listening]
        server.started = True
        self._ticking = asyncio.create_task(server.main_loop(), name="http listener")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        await self._ticking
        await self._server.shutdown()


class Server(_Listening):
    """
    An address of this machine alone (loopback) has a front before it, whose connections are everybody's: there none is
    counted by where it comes from.
    """

    def __init__(self, app: Any, listener: Listener, *, client_ca: Path | None = None) -> None:
        super().__init__(
            app, listener.address, ssl_certfile=listener.certificate, ssl_keyfile=listener.key,
            ssl_ca_certs=None if client_ca is None else str(client_ca),
            ssl_cert_reqs=ssl.CERT_NONE if client_ca is None else ssl.CERT_OPTIONAL,
        )  # fmt: skip
        assert self._config.ssl is not None
        self._config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        self._config.ssl.set_ciphers(CIPHERS)
        host, _, port = listener.address.rpartition(":")
        self._address = host.strip("[]"), int(port)

    async def _listen(self, protocol: Callable[[], _Protocol]) -> Accepting:
        host, port = self._address
        assert self._config.ssl is not None
        return Accepting(
            await _bound(host, port), protocol, tls=self._config.ssl, handshake_s=HANDSHAKE_S,
            of_one=None if _is_loopback(host) else CONNECTIONS_OF_ONE, most=ACCEPTED_MAX,
        )  # fmt: skip


def _is_loopback(host: str) -> bool:
    return host == "localhost" or ip_address(host).is_loopback


async def _bound(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of a host, listening; raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    made: list[socket.socket] = []
    try:
        for family, _, _, _, address in found:
            made.append(socket.create_server(address, family=family, backlog=BACKLOG))
            made[-1].setblocking(False)
    except OSError:
        for one in made:
            one.close()
        raise
    return made


class BehindFront(_Listening):
    """The socket's mode is 0660: the front is in our group, or alone in its directory's."""

    def __init__(self, app: Any, front: Front) -> None:
        super().__init__(Fronted(app, front.header), str(front.socket))
        self._path = front.socket

    async def _listen(self, protocol: Callable[[], _Protocol]) -> asyncio.AbstractServer:
        if self._path.exists() and stat.S_ISSOCK(self._path.stat().st_mode):
            self._path.unlink()  # of a process that was killed
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o777 & ~_SOCKET_MODE)  # never open to more, not even for a moment
        try:
            made.bind(str(self._path))
        except OSError:
            made.close()
            raise
        finally:
            os.umask(before)
        return await asyncio.get_running_loop().create_unix_server(protocol, sock=made)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, traceback)
        self._path.unlink(missing_ok=True)


class Fronted:
    """
    ASGI middleware for the front's socket alone: its header (PEM, URL-encoded; empty for none) becomes `peer_certificate`.
    A header that comes twice, or holds something else, is the front's mistake or somebody's trick: 400.
    """

    def __init__(self, app: Any, header: str) -> None:
        self._app = app
        self._header = header.lower().encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            scope["state"]["peer_certificate"] = _only([v for name, v in scope["headers"] if name == self._header])
        except ValueError:
            await _UNREADABLE(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _only(values: list[bytes]) -> bytes | None:
    """The certificate in DER; raises ValueError."""
    if len(values) > 1:
        raise ValueError("more than one")
    if not values or not values[0]:
        return None
    return x509.load_pem_x509_certificate(unquote_to_bytes(values[0])).public_bytes(Encoding.DER)
