"""
The test bed: a directory, tokens, a daemon over them, and whatever a question starts; all of it ended at its end.

    with Bed() as bed:
        token = bed.store.tokens("verified")[0]
        daemon = bed.daemon(Service(token))
        client, raw = bed.client(daemon), bed.raw(token)
"""

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.rig.child import Child, Client
from bench.rig.daemon import REPOSITORY, Daemon, Service, free_port
from bench.rig.machine import cores
from bench.rig.postgresql import Postgres
from bench.rig.raw import Raw
from bench.rig.rounds import Sample
from bench.rig.softhsm import Store, Token


class Bed:
    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.directory = Path(tempfile.mkdtemp(prefix="paraph-bench-"))
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.lanes = cores()
        self._daemons = 0
        self.store = Store(self.directory / "softhsm")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()

    def daemon(self, *services: Service, recorded: bool = True, database: str = "") -> Daemon:
        """`database`: the URL of the PostgreSQL database that its ledger is in, instead of SQLite."""
        self._daemons += 1
        directory = self.directory / f"daemon{self._daemons}"
        return self._stack.enter_context(Daemon(directory, services, recorded=recorded, database=database))

    def postgresql(self) -> str:
        """The URL of an empty database of a server that ends with the bed; raises `NotInstalled`."""
        return self._stack.enter_context(Postgres()).url

    def client(self, daemon: Daemon, caller: str = "portal", *, target: str | None = None) -> Client:
        return self._stack.enter_context(daemon.client(caller, target=target))

    def raw(self, token: Token, lanes: int | None = None) -> Raw:
        return self._stack.enter_context(Raw(token, lanes or self.lanes))

    def peer(self, name: str, *words: object, token: Token | None = None) -> Child:
        """A program of bench/peers."""
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **(token.environment if token else {})}
        command = [sys.executable, "-m", f"bench.peers.{name}", *words]
        return self._stack.enter_context(Child(command, environment=environment, cwd=REPOSITORY))

    def empty_server(self, daemon: Daemon) -> str:
        """The address of a handler that does nothing, on the daemon's PKI."""
        port = free_port()
        self.peer("empty_handler", port, *daemon.pki.server(), daemon.pki.ca)
        return f"127.0.0.1:{port}"

    def plain_server(self, daemon: Daemon, token: Token) -> str:
        """The address of the server one would write in a day, on the daemon's PKI and this token."""
        port = free_port()
        keys = [f"{kind}={key.label}" for kind, key in token.keys.items()]
        tls = (*daemon.pki.server(), daemon.pki.ca)
        self.peer("plain_server", port, *tls, token.module, token.label, token.pin_file, *keys, token=token)
        return f"127.0.0.1:{port}"


def sample(child: Child, **order: object) -> Sample:
    """A client's or a peer's answer to an order."""
    return counted(child, child.ask(order))


def counted(child: Child, answer: dict[str, Any]) -> Sample:
    """What an answer counts; what a client got is to be verified."""
    return Sample(answer["count"], answer["seconds"], child.verify if isinstance(child, Client) else None)
