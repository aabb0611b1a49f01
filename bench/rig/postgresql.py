"""
A PostgreSQL server of the bench's own: its directory, its Unix socket, durable as PostgreSQL is by itself.

PostgreSQL refuses to be root; where the bench is, the server runs as the user `postgres` of Debian's package.
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from bench.rig.child import start
from bench.rig.softhsm import NotInstalled

_START_S = 30.0
_END_S = 10.0
_MODE_AT_ROOT = 0o711  # the other user passes through


class Postgres:
    """Runs when it is made; `url` is its one database."""

    def __init__(self) -> None:
        beside = sorted(Path("/usr/lib/postgresql").glob("[0-9]*/bin/initdb"), key=lambda path: float(path.parts[-3]))
        if not beside:
            raise NotInstalled("PostgreSQL is missing; on Debian: apt-get install postgresql")
        programs = beside[-1].parent
        self._directory = Path(tempfile.mkdtemp(prefix="paraph-bench-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {}
        try:
            if not os.geteuid():
                user = pwd.getpwnam("postgres")
                os.chown(self._directory, user.pw_uid, user.pw_gid)
                self._directory.chmod(_MODE_AT_ROOT)
                self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            self._start(programs)
        except BaseException:
            self.close()
            raise
        self.url = f"postgresql://postgres@/postgres?host={self._directory}&port=5432"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, programs: Path) -> None:
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        data = self._directory / "data"
        words: list[str | Path] = [programs / "initdb", "-D", data, "--auth=trust", "--username=postgres", "--no-sync"]
        done = subprocess.run(words, env=environment, cwd="/", check=False, capture_output=True, text=True, **self._as)
        if done.returncode:
            raise RuntimeError(f"initdb: {done.stderr.strip()}")
        settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={self._directory}"]
        with (self._directory / "log").open("wb") as log:
            self._process = start(
                [programs / "postgres", "-D", data, *settings],
                environment=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._as,
            )  # fmt: skip
        end = time.monotonic() + _START_S
        ready: list[str | Path] = [programs / "pg_isready", "-q", "-h", self._directory]
        while subprocess.run(ready, env=environment, check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"PostgreSQL did not start: {(self._directory / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def close(self) -> None:
        """An immediate shutdown: its children end with it."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)
