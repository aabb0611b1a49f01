"""
A pcscd of the tests' own, with virtual readers, as many at a time as one likes.

    with Pcscd("left", "right") as pcscd:
        pcscd["left"].insert(card)
        subprocess.run(["pkcs11-tool", ...], env=os.environ | pcscd.environment)
        pcscd.kill()                            # SIGKILL
        pcscd.start()                           # the cards are still in

The machine's own pcscd, its sockets and its real readers are not touched (namespace.py).
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from tests.card.reader import Reader

DRIVER = Path("/usr/lib/pcsc/drivers/serial/libifdvpcd.so")
OPENSC = next(iter(sorted(Path("/usr/lib").glob("*/opensc-pkcs11.so"))), Path("/usr/lib/opensc-pkcs11.so"))
NAMESPACE = Path(__file__).with_name("namespace.py")
WAIT_S = 10.0
READERS_MAX = 8  # pcscd has room for 16 slots, and each of vpcd's readers has two
PORT = 35963  # vpcd's usual one; a reader takes two


class Pcscd:
    """`environment` points clients to it, `log` is what it says. `names` are the readers'."""

    def __init__(self, *names: str) -> None:
        if not DRIVER.exists():
            raise RuntimeError(f"{DRIVER} is not there; `deploy/setup tests` installs it")
        assert 0 < len(names) <= READERS_MAX, names
        self.directory = Path(tempfile.mkdtemp(prefix="paraph-pcscd-"))
        self.directory.chmod(0o755)
        self._run, conf, self.log = (self.directory / name for name in ("run", "conf", "log"))
        for made in (self._run, conf):
            made.mkdir(mode=0o755)
        self.pid = 0
        self._asking = threading.Lock()
        self._readers = {
            name: Reader(f"{name} 00 00", PORT + 2 * number, self._connect) for number, name in enumerate(names)
        }
        for name, reader in self._readers.items():  # a file each: pcscd mixes the ports of two in one file
            (conf / str(reader.port)).write_text(self._section(name, reader))
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        with theirs:
            self._namespace = subprocess.Popen(
                ["unshare", *as_root, "--mount", "--net", sys.executable, "-I", NAMESPACE,
                 str(theirs.fileno()), self.directory],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, name: str) -> Reader:
        return self._readers[name]

    def __iter__(self) -> Iterator[Reader]:
        return iter(self._readers.values())

    @property
    def path(self) -> Path:
        """Of its socket."""
        return self._run / "pcscd.comm"

    @property
    def environment(self) -> dict[str, str]:
        return {"PCSCLITE_CSOCK_NAME": str(self.path)}

    def start(self) -> None:
        """Start it, and wait until it takes clients."""
        assert not self.pid, "it runs"
        answer, _ = self._ask("start")
        if not answer:
            raise RuntimeError("no namespaces can be made here; run the tests as root")
        self.pid = int(answer)
        self._wait(self._answers, "takes clients")

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it; the cards stay in their readers, and have no power."""
        pid, self.pid = self.pid, 0
        assert pid, "it does not run"
        os.kill(pid, number)
        self._wait(lambda: not _runs(pid), "has ended")

    def close(self) -> None:
        """End it and whatever belongs to it. More than once does no harm."""
        for reader in self:
            if reader.card is not None:
                reader.remove()
        self.pid = 0
        self._control.close()
        self._namespace.wait()
        shutil.rmtree(self.directory, ignore_errors=True)  # where the namespace could not be made

    def _section(self, name: str, reader: Reader) -> str:
        """vpcd keeps its connections in variables of its library: two readers on one copy would be one card."""
        driver = shutil.copy(DRIVER, self.directory / f"{reader.port}.so")
        place = f"{reader.port:#x}"
        return f'FRIENDLYNAME "{name}"\nLIBPATH {driver}\nDEVICENAME /dev/null:{place}\nCHANNELID {place}\n'

    def _ask(self, order: str) -> tuple[str, list[int]]:
        """The answer of the process in the namespace, empty where it is gone, and what it passed."""
        with self._asking:
            try:
                self._control.send(order.encode())
                answer, fds, _, _ = socket.recv_fds(self._control, 256, 1)
            except ConnectionError:
                return "", []
        return answer.decode(), list(fds)

    def _connect(self, port: int) -> socket.socket:
        """A connection to vpcd; raises `OSError` while there is none."""
        answer, fds = self._ask(str(port)) if self.pid else ("pcscd does not run", [])
        if not fds:
            raise OSError(answer or "the namespace is gone")
        os.set_inheritable(fds[0], False)  # what is passed is inherited otherwise, and a card would stay in
        return socket.socket(fileno=fds[0])

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.path)) == 0

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > end:
                raise RuntimeError(f"not within {WAIT_S:g} s: pcscd {what}; it says {self.log.read_text()[-2000:]}")
            time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
