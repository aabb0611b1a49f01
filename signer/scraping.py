"""
The HTTP server of /metrics: few connections, and none that takes its time.

prometheus_client's own has a thread and a descriptor for each connection, for as long as that is silent; so whoever
reaches the port could take all that there are, and nothing would be signed any more. Here the oldest one is hung up on
where there are too many: a scrape takes milliseconds, and so does its turn to be the oldest.
"""

import contextlib
import socket
import sys
import threading
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from signer.limits import METRICS_CONNECTIONS_MAX, METRICS_CONNECTIONS_SHARE, METRICS_SILENT_S


class Server(ThreadingMixIn, WSGIServer):
    """
    For one address, HOST:PORT; raises `OSError` where it cannot be had. `descriptors`: how many the process may have. From
    the start on it answers on threads of its own.
    """

    daemon_threads = True  # the process's end waits for none
    request_queue_size = 64  # not 5: TCP tries again only after a second, of a scrape among silent connections, too

    def __init__(self, address: str, registry: CollectorRegistry, descriptors: int) -> None:
        host, _, port = address.rpartition(":")
        self._most = max(2, min(METRICS_CONNECTIONS_MAX, int(descriptors * METRICS_CONNECTIONS_SHARE)))
        self._open: dict[Any, None] = {}  # the oldest first, until their threads have ended
        self._changed = threading.Condition()
        family, *_, place = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        self.address_family = family
        super().__init__((str(place[0]), int(port)), Handler)
        self.set_app(make_wsgi_app(registry))
        threading.Thread(target=self.serve_forever, name="metrics", daemon=True).start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Who comes next waits meanwhile: the thread of one that was hung up on ends at once, or with its scrape."""
        with self._changed:
            if not self._has_room():
                with contextlib.suppress(OSError):  # it has gone
                    next(iter(self._open)).shutdown(socket.SHUT_RDWR)
            has_room = self._changed.wait_for(self._has_room, METRICS_SILENT_S)
            if has_room:
                self._open[request] = None
        if has_room:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def _has_room(self) -> bool:
        return len(self._open) < self._most

    def shutdown_request(self, request: Any) -> None:
        with self._changed:
            self._open.pop(request, None)
            self._changed.notify_all()
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who is silent, or goes away, is nobody's trouble."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def close(self) -> None:
        # Its thread looks only twice a second whether it is to end, and whenever something comes to this socket.
        self.socket.shutdown(socket.SHUT_RDWR)
        self.shutdown()
        self.server_close()


class Handler(WSGIRequestHandler):
    timeout = METRICS_SILENT_S

    def log_message(self, *_: Any) -> None:
        """Scrapes are no news."""
