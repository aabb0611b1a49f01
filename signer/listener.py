"""
gRPC servers: one for each listener, because a Unix socket is its caller and a server knows only itself.

TLS 1.2 or newer is gRPC's own floor. Certificates are read again when the configuration is reloaded: connections keep
the ones they began with, new ones get the new.
"""

import errno
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from signer.config import ConfigError, Listener
from signer.limits import (
    CONNECTION_IDLE_S,
    CONNECTIONS_MAX,
    CONNECTIONS_SHARE,
    TRANSPORT_MESSAGE_BYTES_MAX,
    TRANSPORT_METADATA_BYTES_MAX,
)

OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_receive_message_length", TRANSPORT_MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", -1),  # our own answers are bounded where they are made
    # No compression: 1 KB of gzip is 1 MiB, before anybody knows who has sent it. It is answered UNIMPLEMENTED.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.max_metadata_size", TRANSPORT_METADATA_BYTES_MAX),
    ("grpc.absolute_max_metadata_size", TRANSPORT_METADATA_BYTES_MAX),
    # A connection; clients that want more open another. Not 64, which many have in flight: one that starts a call as
    # soon as another ends is ahead of us by a moment, and gets RST_STREAM.
    ("grpc.max_concurrent_streams", 128),
    ("grpc.max_connection_age_ms", 30 * 60_000),  # certificates and policy are looked at anew
    ("grpc.max_connection_age_grace_ms", 60_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.keepalive_time_ms", 60_000),  # a peer that is gone without a word is noticed ...
    ("grpc.keepalive_timeout_ms", 20_000),  # ... within 80 s
    ("grpc.max_connection_idle_ms", CONNECTION_IDLE_S * 1_000),  # pings are no calls
    # No strikes, but the end above. gRPC's own answer to the third ping, ENHANCE_YOUR_CALM, costs more than pings: while
    # they come faster than it reads, it adds an error to a list for each, and copies the list. Four connections that
    # flooded for 4 s took a processor for more than a minute; answered, 1.4 million a second take a quarter of one.
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),  # a second daemon on the same address is a mistake, not a share
)


_PARSERS: Mapping[str, Callable[[bytes], Any]] = {
    "certificate": x509.load_pem_x509_certificates,
    "key": lambda pem: load_pem_private_key(pem, None),
    "client_ca": x509.load_pem_x509_certificates,
}


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The content of one listener's TLS files."""

    certificate: bytes
    key: bytes
    client_ca: bytes

    @classmethod
    def read(cls, listener: Listener) -> "TlsFiles":
        """
        Raises `ConfigError` with every file that cannot be read, does not hold what it should, or belongs to another.

        gRPC would take such files without a word, and then fail at every handshake.
        """
        mistakes, contents, parsed = [], [], []
        for field, parse in _PARSERS.items():
            path: Path = getattr(listener, field)
            try:
                contents.append(path.read_bytes())
                parsed.append(parse(contents[-1]))
            except OSError as error:
                mistakes.append(f"listener.{field}: {path}: {error.strerror}")
            except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it wants a password
                mistakes.append(f"listener.{field}: {path}: no PEM {field.removeprefix('client_')} that can be read")
        if not mistakes and parsed[0][0].public_key() != parsed[1].public_key():
            mistakes.append(f"listener.key: {listener.key}: does not belong to the certificate {listener.certificate}")
        if mistakes:
            raise ConfigError(Path("listener"), mistakes)
        return cls(*contents)

    def for_grpc(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(self.key, self.certificate)], self.client_ca)


def connections_max(descriptors: int, listeners: int) -> int:
    """
    How many connections each of so many listeners may have, so that all together leave descriptors to the rest.

    gRPC itself does without: it would accept until there are none, and then no document, lane or database opens.
    """
    return max(1, min(CONNECTIONS_MAX, int(descriptors * CONNECTIONS_SHARE)) // listeners)


class AddressInUse(Exception):
    """Another process listens there; the message names the setting and the address."""


def check_free(setting: str, address: str) -> None:
    """Raises `AddressInUse`. gRPC would say so in lines of its own, and of any other mistake in the same words."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what a daemon of before has just left is free
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AddressInUse(f"{setting}: the address {address} is in use by another process") from None


class Door:
    """One listener with its server; what connects beyond `connections` is hung up on at once."""

    def __init__(
        self,
        listener: Listener,
        handlers: Sequence[grpc.GenericRpcHandler],
        connections: int = CONNECTIONS_MAX,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    ) -> None:
        self.listener = listener
        self.port = 0
        options = (*OPTIONS, ("grpc.max_allowed_incoming_connections", connections))
        self._server = grpc.aio.server(options=options, interceptors=interceptors)
        self._server.add_generic_rpc_handlers(tuple(handlers))
        self._tls: TlsFiles | None = None
        self._fresh = False
        self._lock = threading.Lock()  # gRPC asks for certificates on a thread of its own

    def add_health(self, health: Any, services: Sequence[str]) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(health, self._server)
        reflection.enable_server_reflection((*services, reflection.SERVICE_NAME, "grpc.health.v1.Health"), self._server)

    async def open(self) -> None:
        """Bind and serve; raises `AddressInUse`, and `ConfigError` where the address cannot be had at all."""
        if self.listener.socket is not None:
            self._bind_socket(self.listener.socket)
        else:
            self._bind_address(str(self.listener.address))
        await self._server.start()
        if self.listener.socket is not None:
            self.listener.socket.chmod(int(self.listener.mode, 8))

    def _bind_socket(self, path: Path) -> None:
        if path.is_socket():
            path.unlink()  # a left-over of a daemon that was killed; the state's lock says nobody lives
        elif path.exists():
            raise ConfigError(path, ["listener.socket: what is there is not a socket"])
        before = os.umask(0o177)  # nobody may connect before the mode is set
        try:
            self._server.add_insecure_port(f"unix:{path}")
        except RuntimeError as error:
            raise ConfigError(path, [f"listener.socket: {error}"]) from None
        finally:
            os.umask(before)

    def _bind_address(self, address: str) -> None:
        self._tls = TlsFiles.read(self.listener)
        check_free("listener.address", address)
        credentials = grpc.dynamic_ssl_server_credentials(
            self._tls.for_grpc(), self._changed_certificates, require_client_authentication=True
        )
        try:
            self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise ConfigError(Path(address), [f"listener.address: {error}"]) from None

    def _changed_certificates(self) -> Any:  # the stubs of gRPC do not know the None
        """Called by gRPC at each handshake: None for 'as before'."""
        with self._lock:
            if not self._fresh or self._tls is None:
                return None
            self._fresh = False
            return self._tls.for_grpc()

    def use(self, tls: TlsFiles | None) -> None:
        """New connections get these certificates."""
        with self._lock:
            if tls is not None and tls != self._tls:
                self._tls, self._fresh = tls, True

    async def close(self, grace_s: float) -> None:
        """Take no new calls, give those in work their time, then end."""
        await self._server.stop(grace_s)
        if self.listener.socket is not None:
            self.listener.socket.unlink(missing_ok=True)
