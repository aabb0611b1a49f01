"""
A way to a PostgreSQL server that is cut when a COMMIT goes by: at the worst moment, and no other.

    with Way(server) as way:
        way.url("ledger")           # the same database by this way
        way.cut = "before"          # the next COMMIT does not arrive
        way.cut = "after"           # it arrives, and its answer does not
        way.cut = "late"            # it arrives half a second after the client has seen the connection end
        way.is_open = False         # nobody gets through who comes now
"""

import contextlib
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Self
from urllib.parse import quote

from tests.postgres import SUPERUSER, Postgres

LATE_S = 0.5
COMMIT = b"Q\0\0\0\x0bCOMMIT\0"  # the message "Query" of PostgreSQL's protocol


class Way:
    def __init__(self, server: Postgres) -> None:
        self.cut = ""
        self.is_open = True
        self.cuts = 0
        self._directory = tempfile.TemporaryDirectory(prefix="paraph-way-")
        self._to = str(server.directory / f".s.PGSQL.{server.port}")
        self._port = server.port
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(Path(self._directory.name) / f".s.PGSQL.{server.port}"))
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._directory.cleanup()

    def url(self, database: str) -> str:
        return f"postgresql://{SUPERUSER}@/{quote(database, '')}?host={self._directory.name}&port={self._port}"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if not self.is_open:
                    client.close()
                    continue
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._to)
                threading.Thread(target=self._to_server, args=(client, server), daemon=True).start()
                threading.Thread(target=_pump, args=(server, client), daemon=True).start()

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self.cut and data == COMMIT:
                    how, self.cut = self.cut, ""
                    self.cuts += 1
                    _end(client)  # nothing of the answer arrives
                    if how == "late":
                        time.sleep(LATE_S)
                    if how != "before":
                        server.sendall(data)
                        time.sleep(0.1)  # its answer is made
                    break
                server.sendall(data)
        _end(server)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    _end(source)
    _end(target)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
