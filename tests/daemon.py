"""
A real daemon for tests: its tokens, PKI, configuration and process, started and ended by the test that wants it.

As root, file modes prove nothing; so the daemon then runs as the system user `paraph-test`, from a copy of the code in
a place that this user can read. Assertions about modes are made from a second user, `nobody`.
"""

import contextlib
import functools
import json
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from grpc_health.v1 import health_pb2, health_pb2_grpc

from signer.client import Client, Profile
from signer.clock import Clock
from signer.database import DATABASE
from tests.pki import Pki
from tests.shim import Shim
from tests.softhsm import MODULE, PIN, Store

USER = "paraph-test"
REPOSITORY = Path(__file__).parent.parent
SUBMIT = ["ListCredentials", "GetCredential", "SignDigests", "StreamDigests", "SignDocuments", "VerifyDocument"]
SUBMIT += ["GetResult"]
OPERATOR = ["GetServerInfo", "ReloadConfig", "ListTokens", "WatchTokens", "UnlockToken", "DrainToken", "ResumeToken"]


def until(condition: Callable[[], Any], timeout_s: float = 15.0, what: str = "") -> Any:
    """The first true answer of `condition`; fails with `what` after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while not (answer := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s:g} s: {what or condition}")
        time.sleep(0.02)
    return answer


@functools.cache
def staged() -> tuple[str, pwd.struct_passwd | None]:
    """(the Python that runs the daemon, the user it runs as): ourselves, or `paraph-test` where we are root."""
    if os.geteuid():
        return sys.executable, None
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", USER], check=True)
        user = pwd.getpwnam(USER)
    stage = Path(tempfile.mkdtemp(prefix="paraph-stage-"))
    stage.chmod(0o755)
    subprocess.run([os.path.realpath(sys.executable), "-m", "venv", "--without-pip", stage / "venv"], check=True)
    site = Path("lib") / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (stage / "venv" / site).rmdir()
    source = Path(sys.prefix) / site
    linked = subprocess.run(["cp", "-al", source, stage / "venv" / site], check=False, capture_output=True)
    if linked.returncode:  # another file system
        shutil.rmtree(stage / "venv" / site, ignore_errors=True)
        shutil.copytree(source, stage / "venv" / site)
    for pointer in (stage / "venv" / site).glob("*paraph*.pth"):
        pointer.unlink()
    python = str(stage / "venv" / "bin" / "python")
    for package in ("pool", "signer"):
        shutil.copytree(REPOSITORY / package, stage / "venv" / site / package)
        # The daemon's user cannot write there, and each start would compile again what was never imported before.
        subprocess.run([python, "-m", "compileall", "-q", stage / "venv" / site / package], check=True)
    import atexit

    atexit.register(shutil.rmtree, stage, ignore_errors=True)
    check = as_user([python, "-I", "-c", "import signer.server, pool.worker"], user)
    subprocess.run(check, check=True, cwd="/")
    return python, user


def as_user(command: Sequence[Any], user: pwd.struct_passwd | None) -> list[str]:
    """The command run as this user, without any group or privilege of ours."""
    words = [str(word) for word in command]
    if user is None:
        return words
    return [
        "setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--no-new-privs", *words
    ]  # fmt: skip


@dataclass
class Token:
    """
    A token of the daemon's configuration; more keys of the section in `more`, more variables of its processes in
    `environment`. `pin` empty: none is configured.
    """

    name: str
    label: str
    kind: str = "smartcard"
    module: str = str(MODULE)
    pin: str = PIN
    more: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


class Rig:
    """
    Everything a daemon needs, in a directory of its own. Tell it tokens, credentials and callers, then `start` it.

    `credentials`: name -> (chain PEM, key label or CKA_ID, outputs). `callers`: name -> (role, RPCs, credential names).
    """

    def __init__(self, store: Store | None = None, shim: Shim | None = None) -> None:
        self.python, self.user = staged()
        self.directory = Path(tempfile.mkdtemp(prefix="paraph-rig-"))
        self.directory.chmod(0o755)
        self.store = store or Store(self.directory / "softhsm")
        self.shim = shim
        self.pki = Pki(self.directory / "pki")
        self.server_files = self.pki.server()
        self.tokens: list[Token] = []
        self.credentials: dict[str, tuple[bytes, str | bytes, Sequence[str]]] = {}
        self.callers: dict[str, tuple[str, Sequence[str], Sequence[str] | None]] = {
            "portal": ("submit", SUBMIT, None),
            "operator": ("operator", OPERATOR, ()),
        }
        self.subjects: dict[str, str] = {}  # caller of the role self -> whose it is
        self.sections: list[str] = []  # more of the configuration, as TOML
        self.sockets: dict[str, tuple[str, str]] = {}  # caller -> (file name, mode)
        self.denied = self.directory / "denied"
        self.denied.write_text("")
        self.keys = _ledger_keys(self.directory / "keys")
        self.anchor = self.directory / "anchor" / "checkpoints"  # the file that the daemon puts its checkpoints into
        self.anchor.parent.mkdir()
        self.checkpoint: dict[str, Any] = {"checkpoint_key": str(self.keys / "checkpoint.key")}  # keys of [ledger]
        self.database = ""  # a postgresql:// URL; empty: SQLite in the state
        self.environment: dict[str, str] = {}
        self.constants: dict[str, float] = {}  # of signer/limits.py, with other values than theirs: NAME -> value
        self.assembly_processes: int | None = 1  # each starts for 0.4 s of a processor; None: as many as by default
        self.descriptors: int | None = None  # soft and hard limit of the daemon's process; None: as ours
        self.limits: list[str] = []  # of the daemon's process, as words for prlimit(1)
        self.program: list[Any] = ["-m", "signer"]  # what its Python runs
        self.before: list[Any] = []  # words before the command of the daemon's process, which end by running it
        self.place = Path("/")  # where it runs
        self.log_level = "INFO"
        self.port = 0
        self.metrics_port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.log = self.directory / "daemon.log"
        self._files: dict[str, tuple[Path, Path]] = {}
        self._issuing = threading.Lock()  # callers in several threads: gRPC aborts over half a file

    @property
    def config(self) -> Path:
        return self.directory / "paraph.toml"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    def add_keys(
        self, label: str, kinds: Sequence[str], outputs: Sequence[str] = ("RAW", "CADES_B_B", "PADES_B_B")
    ) -> None:
        """A credential for each kind of key on a token of the store, named by the kind in lower case."""
        for kind in kinds:
            _, spki = self.store.made[label][kind]
            self.credentials[kind.lower()] = (self.pki.signer(f"Signer {kind}", spki), kind, outputs)

    def write_config(self, **sections: str) -> None:
        """The configuration as it is now; `sections` are TOML texts appended to it."""
        certificate, key = self.server_files
        lines = [
            "[server]",
            f'state = "{self.state}"',
            f'metrics = "127.0.0.1:{self.metrics_port}"',
            *([f"assembly_processes = {self.assembly_processes}"] if self.assembly_processes else []),
            "[trust]",
            f'roots = ["{self.pki.root_file}"]',
            f'denied_certificates = "{self.denied}"',
            "[ledger]",
            *(f"{name} = {json.dumps(value)}" for name, value in self.checkpoint.items()),
            f'data_key_file = "{self.keys / "data.key"}"',
            *([f'database = "{self.database}"'] if self.database else []),
            "[[ledger.anchor]]",
            f'file = "{self.anchor}"',
            "[[listener]]",
            f'address = "127.0.0.1:{self.port}"',
            f'certificate = "{certificate}"',
            f'key = "{key}"',
            f'client_ca = "{self.pki.ca_file}"',
        ]
        for caller, (name, mode) in self.sockets.items():
            lines += ["[[listener]]", f'socket = "{self.directory / name}"', f'mode = "{mode}"', f'caller = "{caller}"']
        for token in self.tokens:
            pin = self.directory / f"{token.name}.pin"
            if token.pin and not pin.exists():
                pin.write_text(token.pin)
                pin.chmod(0o400)
            environment = self.store.environment | (self.shim.env if self.shim and token.module != str(MODULE) else {})
            environment = environment | token.environment
            lines += ["[[token]]", f'name = "{token.name}"', f'kind = "{token.kind}"', f'module = "{token.module}"']
            lines += [f'label = "{token.label}"', *([f'pin_file = "{pin}"'] if token.pin else [])]
            lines += [f"{name} = {json.dumps(value)}" for name, value in token.more.items()]
            lines += ["[token.environment]", *(f'{n} = "{v}"' for n, v in environment.items())]
        for name, (role, rpcs, credentials) in self.callers.items():
            allowed = list(self.credentials) if credentials is None else list(credentials)
            lines += ["[[caller]]", f'name = "{name}"', f'uri = "urn:test:{name}"', f'role = "{role}"']
            lines += [f"rpcs = {json.dumps(list(rpcs))}", f"credentials = {json.dumps(allowed)}"]
            lines += [f'subject = "{self.subjects[name]}"'] if name in self.subjects else []
        self.config.write_text("\n".join([*lines, *self.sections, *sections.values()]) + "\n")

    def command(self, *words: Any) -> subprocess.CompletedProcess[str]:
        """`paraph WORDS...` as the daemon's user."""
        return subprocess.run(
            as_user([self.python, "-I", "-m", "signer", *words], self.user),
            cwd="/", check=False, text=True, capture_output=True, timeout=60,
        )  # fmt: skip

    def prepare(self) -> None:
        """Write the configuration and the credentials, and give everything to the daemon's user."""
        if not self.port:
            self.port = self.metrics_port = _free_port()
            while self.metrics_port == self.port:  # the system may give the same one out again
                self.metrics_port = _free_port()
        self.write_config()
        if self.credentials:
            self._enrol()
        self._hand_over()

    def _enrol(self) -> None:
        """What `paraph credential add` does, in this process: a command takes half a second for each."""
        from signer import credential as rows  # late: processes that only call a daemon import this file, too
        from signer.store import open_store

        engine = open_store(self.database or self.state / DATABASE)
        for name, (chain, label, outputs) in self.credentials.items():
            path = self.directory / f"{name}.chain.pem"
            path.write_bytes(chain)
            path.chmod(0o644)
            wanted = [rows.Output(output) for output in outputs]
            by_id, by_label = (label, None) if isinstance(label, bytes) else (None, label)
            rows.add(engine, name, chain, cka_id=by_id, key_label=by_label, outputs=wanted, clock=Clock())
        engine.dispose()

    def _hand_over(self) -> None:
        """Everything but the log, which this process opened, becomes the daemon user's."""
        if self.user is None:
            return
        places = [self.directory, self.store.directory]
        for top in places:
            for path in (top, *top.rglob("*")):
                with contextlib.suppress(FileNotFoundError):
                    os.chown(path, self.user.pw_uid, self.user.pw_gid, follow_symlinks=False)

    def start(self, *, wait: bool = True) -> "Rig":
        self.prepare()
        self.launch()
        if wait:
            self.wait_serving()
        return self

    def launch(self, *arguments: str) -> None:
        """Start the process; `prepare` was called before."""
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **self.environment}
        if self.constants:
            environment["PYTHONPATH"] = str(self._replaced())
        words = ["serve", "--config", self.config, "--log-level", self.log_level, *arguments]
        # As -I, but for the environment, where a test sets something in it for Python.
        alone = "-Ps" if any(name.startswith("PYTHON") for name in environment) else "-I"
        command = [self.python, alone, *map(str, self.program), *words]
        limits = list(self.limits)
        if self.descriptors is not None:
            limits.append(f"--nofile={self.descriptors}:{self.descriptors}")
        command = as_user(command, self.user)
        if limits:
            command = ["prlimit", *limits, *command]  # before the privilege to raise them is gone
        command = [*map(str, self.before), *command]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.place, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _replaced(self) -> Path:
        """A directory for PYTHONPATH: Python runs what is there before anything of the daemon has read a constant."""
        place = self.directory / "constants"
        place.mkdir(exist_ok=True)
        lines = ["from signer import limits", *(f"limits.{name} = {value!r}" for name, value in self.constants.items())]
        (place / "sitecustomize.py").write_text("\n".join(lines) + "\n")
        return place

    def wait_serving(self, timeout_s: float = 30.0) -> None:
        def serving() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"the daemon ended: {self.log.read_text()}"
            return self.health() == health_pb2.HealthCheckResponse.SERVING

        until(serving, timeout_s, f"SERVING; log: {self.log.read_text()[-2000:]}")

    def health(self) -> int | None:
        """The overall health, None while nothing answers."""
        with grpc.secure_channel(f"127.0.0.1:{self.port}", self.tls("operator")) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
            except grpc.RpcError:
                return None
            return int(answer.status)

    def files(self, caller: str) -> tuple[Path, Path]:
        """(certificate, key) of a caller."""
        with self._issuing:
            if caller not in self._files:
                self._files[caller] = self.pki.caller(caller)
            return self._files[caller]

    def tls(self, caller: str, files: tuple[Path, Path] | None = None) -> grpc.ChannelCredentials:
        certificate, key = files or self.files(caller)
        return grpc.ssl_channel_credentials(self.pki.ca_file.read_bytes(), key.read_bytes(), certificate.read_bytes())

    def profile(self, caller: str, files: tuple[Path, Path] | None = None) -> Profile:
        certificate, key = files or self.files(caller)
        return Profile(f"127.0.0.1:{self.port}", self.pki.ca_file, certificate, key)

    def client(self, caller: str = "portal", files: tuple[Path, Path] | None = None) -> Client:
        return Client(self.profile(caller, files))

    def send_signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 45.0) -> int:
        """End the daemon; answers its exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
            _wait_for(self.process, timeout_s)
        try:
            return self.process.wait(0.1)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


@contextlib.contextmanager
def running(rig: Rig) -> Iterator[Rig]:
    """The rig's daemon, ended whatever happens; on an error its log is shown."""
    try:
        yield rig.start()
    except BaseException:
        print(rig.log.read_text()[-5000:] if rig.log.exists() else "no log")
        raise
    finally:
        rig.close()


def _wait_for(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Until it ends, at most so long; `Popen.wait` with a time looks only twenty times a second."""
    descriptor = os.pidfd_open(process.pid)
    try:
        select.select([descriptor], [], [], timeout_s)
    finally:
        os.close(descriptor)


def _ledger_keys(directory: Path) -> Path:
    """A directory with checkpoint.key, checkpoint.pub and data.key."""
    directory.mkdir()
    key = Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for name, content in (("checkpoint.pub", public), ("checkpoint.key", private), ("data.key", os.urandom(32))):
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o400)
    return directory


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
