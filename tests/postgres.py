"""
A PostgreSQL server for tests: its own directory, its own Unix socket, and no setting that trades durability for speed.

    with Postgres() as server:                  # it runs when it is made
        url = server.create("ledger")           # an empty database; postgresql://...
        server.kill()                           # SIGKILL to all its processes
        server.start()                          # crash recovery

Like a daemon under test it runs as `paraph-test` where we are root, which PostgreSQL refuses to be. A process of ours
guards it, and takes server and directory away when it is closed or when the process of the tests is gone, however that
came. What `kill` cannot take is what the kernel was handed: a lost machine is more than a lost process, and is played by
`power_cut`.
"""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from tests import daemon
from tests.daemon import as_user, until
from tests.disk import Disk

START_S = 60.0  # a recovery may have much to read
QUIT_S = 3.0
SUPERUSER = "paraph"
WAL = "pg_wal"


class Postgres:
    """
    A running server, `directory` its place and `log` what it says. `tcp` also opens a free port of 127.0.0.1; `cuttable`
    puts the tests' own disk under its write-ahead log, for `power_cut`.

    Whoever gets into the directory is believed to be any user; over TCP the user `paraph` has `password`.
    """

    def __init__(self, *, tcp: bool = False, cuttable: bool = False) -> None:
        programs = _programs()
        self.directory = Path(tempfile.mkdtemp(prefix="paraph-postgres-")).resolve()
        self.data = self.directory / "data"
        self.log = self.directory / "postgres.log"
        self.tcp = tcp
        self.port = daemon._free_port() if tcp else 5432  # without TCP no more than a part of the socket's name
        self.password = secrets.token_hex(16)
        self.process: subprocess.Popen[bytes] | None = None
        self._user = _user()
        self._postgres = programs / "postgres"
        self._environment = _environment()
        self.disk = Disk(self.directory / "disk", f"{WAL}/", undo=True) if cuttable else None
        if self.disk is not None:
            self._environment |= self.disk.environment
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "tests.postgres", self.directory],
            cwd=daemon.REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            self._init(programs / "initdb")
            self.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def url(self, database: str, *, tcp: bool = False) -> str:
        """What psycopg and libpq connect to; by the socket, or by TCP with a password in it."""
        name, directory = quote(database, ""), quote(str(self.directory), "")
        if not tcp:
            return f"postgresql://{SUPERUSER}@/{name}?host={directory}&port={self.port}"
        assert self.tcp, "made without tcp=True"
        return f"postgresql://{SUPERUSER}:{self.password}@127.0.0.1:{self.port}/{name}"

    def create(self, database: str) -> str:
        """Make an empty database, in the place of one of this name; answers its URL. A killed server is started."""
        if not self.running:
            self.start()
        name = sql.Identifier(database)
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
            connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        return self.url(database)

    def start(self) -> None:
        """Start it, after `kill` on what the crash left, and wait until it answers."""
        assert not self.running, "it runs"
        with self.log.open("ab") as log:
            process = self.process = subprocess.Popen(
                as_user([self._postgres, "-D", self.data], self._user),
                cwd="/", env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

        def answers() -> bool:
            assert process.poll() is None, f"PostgreSQL ended: {self.log.read_text()[-3000:]}"
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url("postgres")):
                return True
            return False

        until(answers, START_S, f"PostgreSQL answers; log in {self.log}")

    def kill(self) -> None:
        """SIGKILL to the postmaster and all its children: nothing is written any more, and no client is told."""
        assert self.process is not None
        self.process.kill()  # first, so that no child comes after the others went
        until(lambda: not _signalled(self.data, signal.SIGKILL), what="PostgreSQL is dead")
        self.process.wait()

    def power_cut(self) -> int:
        """
        After `kill`: take back what was written to the write-ahead log and not synced; answers how many writes. Pages of
        tables stay: none is written before the part of the log that it follows from is synced.
        """
        assert self.disk is not None, "made without cuttable=True"
        return self.disk.power_cut(self.data / WAL)

    def processes(self) -> list[psutil.Process]:
        """The postmaster and its children; none is left of them after `kill` and `close`."""
        return _processes(self.data)

    def close(self) -> None:
        """End the server, if need be by force, and remove its directory. More than once does no harm."""
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait()
        if self.process is not None:
            self.process.wait()

    def _init(self, initdb: Path) -> None:
        secret = self.directory / "password"
        secret.write_text(self.password)
        if self._user is not None:
            for path in (self.directory, secret):
                os.chown(path, self._user.pw_uid, self._user.pw_gid)
        words = ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={secret}", f"--username={SUPERUSER}"]
        words += ["--encoding=UTF8", "--locale=C", "--no-sync"]  # no crash is of interest before it has started
        done = subprocess.run(
            as_user([initdb, "-D", self.data, *words], self._user),
            cwd="/", env=_environment(), check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"initdb: {done.stdout.strip()}")
        settings = {
            "listen_addresses": "127.0.0.1" if self.tcp else "",
            "port": self.port,
            "unix_socket_directories": self.directory,
            "fsync": "on",  # these three are PostgreSQL's defaults, and what the tests are about
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "dynamic_shared_memory_type": "mmap",  # in our directory: a killed server leaves its shared memory
        }
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())


def _programs() -> Path:
    """The directory of initdb and postgres, the newest version of those that Debian keeps side by side."""
    beside = [path for path in Path("/usr/lib/postgresql").glob("[0-9]*/bin") if (path / "initdb").exists()]
    if beside:
        return max(beside, key=lambda path: float(path.parent.name))
    if found := shutil.which("initdb"):
        return Path(found).parent
    raise RuntimeError("there is no PostgreSQL server here; `deploy/setup tests` installs it")


def _user() -> pwd.struct_passwd | None:
    if os.geteuid():
        return None
    try:
        return pwd.getpwnam(daemon.USER)
    except KeyError:
        return daemon.staged()[1]  # makes the user


def _environment() -> dict[str, str]:
    """Nothing of ours: PGDATA, PGPORT and the like would be obeyed."""
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}


def _processes(data: Path) -> list[psutil.Process]:
    """Every process of the server works in its data directory, also those that lost their parent."""
    return [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(data)]


def _signalled(data: Path, number: int) -> list[psutil.Process]:
    """The server's processes, to each of which this was sent."""
    found = _processes(data)
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
    return found


def _end(directory: Path) -> None:
    """No process, no shared memory, no file: an immediate shutdown, or what has to be done in its place."""
    data = directory / "data"
    _signalled(data, signal.SIGQUIT)
    end = time.monotonic() + QUIT_S
    while _processes(data):
        if time.monotonic() > end:
            _signalled(data, signal.SIGKILL)
        time.sleep(0.02)
    with contextlib.suppress(FileNotFoundError, IndexError):  # it is there where the server could not clean up
        segment = (data / "postmaster.pid").read_text().splitlines()[6].split()[1]
        subprocess.run(["ipcrm", "-m", segment], check=False)
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.read()  # ends when the other end is closed, by `close` or with its process
    _end(Path(sys.argv[1]))
