"""
A real daemon on loopback, by the product's public commands: `paraph credential add`, `paraph serve`.

    with Daemon(directory, [Service(token)]) as daemon, daemon.client("portal") as client:
        client.ask({"do": "digests", ...})

Everything that the product does is switched on: mutual TLS, metrics, admission, allow-lists. One credential for each
key, named as it; callers 'portal' and 'other' may use all of them.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.rig.child import Client, start
from bench.rig.pki import Pki
from bench.rig.softhsm import Token
from signer.v1 import operator_pb2 as op
from signer.v1 import operator_pb2_grpc

REPOSITORY = Path(__file__).parent.parent.parent
CALLERS = ("portal", "other")
_SUBMIT = '["ListCredentials", "GetCredential", "SignDigests", "StreamDigests", "SignDocuments", "VerifyDocument", "GetResult"]'
_OPERATOR = '["GetServerInfo", "ListTokens"]'
_START_S = 90.0  # 64 lanes over one store are logged in one after the other
_STOP_S = 20.0
_STUCK = {op.Token.CHANGED, op.Token.LOCKED, op.Token.QUARANTINED}  # states that waiting does not end


class DaemonError(RuntimeError):
    """The daemon did not start, or ended; the message is the end of its log."""


@dataclass(frozen=True, slots=True)
class Service:
    """A token as the daemon is to use it; `module` and `environment` where something stands in front of it."""

    token: Token
    lanes: int = 2
    verify: bool = True
    kind: str = "signing-server"
    module: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


class Daemon:
    def __init__(
        self,
        directory: Path,
        services: Sequence[Service],
        *,
        pki: Pki | None = None,
        recorded: bool = True,
        database: str = "",
    ) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.pki = pki or Pki(directory / "pki")
        self._services = services
        self._database = database
        self._program = "signer" if recorded else "bench.rig.unrecorded"
        self.port, self.metrics_port = free_port(), free_port()
        self._files = {name: self.pki.caller(name) for name in (*CALLERS, "operator")}
        self._log = directory / "daemon.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._chains: dict[str, Path] = {}

    def __enter__(self) -> Self:
        try:
            self._configure()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def config(self) -> Path:
        return self.directory / "paraph.toml"

    def chain(self, credential: str) -> Path:
        """The certificate file of a credential, its issuers behind it."""
        return self._chains[credential]

    def _configure(self) -> None:
        certificate, key = self.pki.server()
        keys = {k.label: k.spki for service in self._services for k in service.token.keys.values()}
        lines = [
            f'[server]\nstate = "{self.directory}/state"\nmetrics = "127.0.0.1:{self.metrics_port}"',
            f'[trust]\nroots = ["{self.pki.root}"]',
            self._ledger(),
            f'[[listener]]\naddress = "127.0.0.1:{self.port}"\ncertificate = "{certificate}"\nkey = "{key}"',
            f'client_ca = "{self.pki.ca}"',
            f'[[caller]]\nname = "operator"\nuri = "urn:bench:operator"\nrole = "operator"\nrpcs = {_OPERATOR}',
        ]
        for service in self._services:
            token = service.token
            lines += [
                f'[[token]]\nname = "{token.label}"\nkind = "{service.kind}"',
                f'module = "{service.module or token.module}"\nlabel = "{token.label}"\npin_file = "{token.pin_file}"',
                f"lanes = {service.lanes}\nverify = {str(service.verify).lower()}\n[token.environment]",
                *(f'{name} = "{value}"' for name, value in {**token.environment, **service.environment}.items()),
            ]
        names = ", ".join(f'"{name}"' for name in keys)
        for caller in CALLERS:
            lines.append(f'[[caller]]\nname = "{caller}"\nuri = "urn:bench:{caller}"\nrole = "submit"')
            lines.append(f"rpcs = {_SUBMIT}\ncredentials = [{names}]")
        self.config.write_text("\n".join(lines) + "\n")
        for label, spki in keys.items():
            self._chains[label] = self.pki.signer(label, spki)
            words = ["credential", "--config", self.config, "add", label, "--certificate", self._chains[label]]
            words += ["--key-label", label, *(w for o in ("RAW", "CADES_B_B", "PADES_B_B") for w in ("--output", o))]
            done = subprocess.run(_paraph(*words), cwd=REPOSITORY, env=_environment(), check=False, capture_output=True)
            if done.returncode:
                raise DaemonError(done.stderr.decode())

    def _ledger(self) -> str:
        """The section of the ledger, with keys of its own, and an anchor on this disk, which is the nearest."""
        place, anchor = self.directory / "ledger", self.directory / "anchor"
        for directory in (place, anchor):
            directory.mkdir(exist_ok=True)
        private = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for name, content in (("checkpoint.key", private), ("data.key", os.urandom(32))):
            (place / name).unlink(missing_ok=True)
            (place / name).write_bytes(content)
            (place / name).chmod(0o400)
        keys = f'checkpoint_key = "{place}/checkpoint.key"\ndata_key_file = "{place}/data.key"'
        if self._database:
            keys += f'\ndatabase = "{self._database}"'
        return f'[ledger]\n{keys}\n[[ledger.anchor]]\nfile = "{anchor}/checkpoints"'

    def start(self) -> None:
        """Start the process and wait until every token is READY."""
        with self._log.open("ab") as log:
            self._process = start(
                [sys.executable, "-m", self._program, "serve", "--config", str(self.config)],
                environment=_environment(), cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.wait_ready()

    def wait_ready(self) -> None:
        end = time.monotonic() + _START_S
        with grpc.secure_channel(f"127.0.0.1:{self.port}", self._credentials("operator")) as channel:
            stub = operator_pb2_grpc.OperatorStub(channel)
            while True:
                try:
                    answer = stub.ListTokens(op.ListTokensRequest(), timeout=2, wait_for_ready=True)
                    lanes = [lane.state for token in answer.tokens for lane in token.lanes]
                    if all(token.state == op.Token.READY for token in answer.tokens) and op.Lane.STARTING not in lanes:
                        return
                    stuck = [token.detail for token in answer.tokens if token.state in _STUCK]
                    if stuck:
                        raise DaemonError(stuck[0])
                except grpc.RpcError:
                    pass
                if self._process is None or self._process.poll() is not None or time.monotonic() > end:
                    raise DaemonError(f"the daemon did not come up: {self.log_tail()}")
                time.sleep(0.02)

    def lane_pids(self) -> list[int]:
        with grpc.secure_channel(f"127.0.0.1:{self.port}", self._credentials("operator")) as channel:
            answer = operator_pb2_grpc.OperatorStub(channel).ListTokens(op.ListTokensRequest(), timeout=5)
        return [lane.pid for token in answer.tokens for lane in token.lanes]

    def _credentials(self, caller: str) -> grpc.ChannelCredentials:
        certificate, key = self._files[caller]
        return grpc.ssl_channel_credentials(self.pki.ca.read_bytes(), key.read_bytes(), certificate.read_bytes())

    def log_tail(self) -> str:
        return self._log.read_text()[-2000:] if self._log.exists() else "no log"

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def client(self, caller: str = "portal", *, target: str | None = None) -> Client:
        """A client process that speaks for this caller; to another server on the same PKI with `target`."""
        certificate, key = self._files[caller]
        words = [sys.executable, "-m", "bench.load", target or f"127.0.0.1:{self.port}", self.pki.ca, certificate, key]
        return Client(words, environment=_environment(), cwd=REPOSITORY)

    def close(self) -> None:
        self.stop()
        for name in ("state", "anchor"):  # a new state's checkpoints are not those that the file has
            shutil.rmtree(self.directory / name, ignore_errors=True)

    def stop(self) -> None:
        """As an operator would: calls in work get their time, then it ends."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGTERM)  # the second one ends it now
                try:
                    self._process.wait(5)
                except subprocess.TimeoutExpired:
                    os.killpg(self._process.pid, signal.SIGKILL)
                    self._process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _paraph(*words: object) -> list[str]:
    return [sys.executable, "-m", "signer", *(str(word) for word in words)]


def _environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
