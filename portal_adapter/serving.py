"""
An HTTPS listener: uvicorn, with what it does not do by itself: the client's certificate is put where the frame looks for
it, and more than one runs in a process.
"""

import asyncio
import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from portal_adapter.settings import Listener

CONNECTIONS_MAX = 512
KEEP_ALIVE_S = 15
STOP_S = 10  # for requests that are being answered
HEADER_BYTES_MAX = 32 * 1024


class _Protocol(HttpToolsProtocol):
    """With `peer_certificate` (DER) in the state of each request's scope: TLS has verified it, or there is none."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        tls = self.transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        self.scope["state"]["peer_certificate"] = certificate


class Server:
    """`async with Server(...)` listens in the block; raises OSError where it cannot."""

    def __init__(self, app: Any, listener: Listener, *, client_ca: Path | None = None) -> None:
        host, _, port = listener.address.rpartition(":")
        config = uvicorn.Config(
            app, host=host.strip("[]"), port=int(port), http=_Protocol, loop="none", lifespan="off", log_config=None,
            access_log=False, server_header=False, date_header=False, limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=KEEP_ALIVE_S, timeout_graceful_shutdown=STOP_S, ws="none", proxy_headers=False,
            ssl_certfile=listener.certificate, ssl_keyfile=listener.key,
            ssl_ca_certs=None if client_ca is None else str(client_ca),
            ssl_cert_reqs=ssl.CERT_NONE if client_ca is None else ssl.CERT_OPTIONAL,
        )  # fmt: skip
        config.load()
        assert config.ssl is not None
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._config = config

    async def __aenter__(self) -> Self:
        server = self._server
        server.lifespan = self._config.lifespan_class(self._config)
        await server.startup()
        if server.should_exit:
            raise OSError(f"cannot listen on {self._config.host}:{self._config.port}")
        self._ticking = asyncio.create_task(server.main_loop(), name="http listener")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        await self._ticking
        await self._server.shutdown()
