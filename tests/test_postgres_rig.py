"""The PostgreSQL server of the tests does what they take for granted: it keeps what it said it has, and then goes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.daemon import until
from tests.postgres import WAL, Postgres
from tests.processes import living

ROOT = Path(__file__).parent.parent


def working_in(directory: Path) -> list[psutil.Process]:
    """Processes whose working directory this is or was; asked without the help of what is tested."""
    cwds = [(process, process.info["cwd"] or "") for process in psutil.process_iter(["cwd"])]
    return [process for process, cwd in cwds if cwd.startswith(str(directory))]


def segments() -> set[str]:
    """System V shared memory, by its ids."""
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}


@pytest.fixture
def own() -> Iterator[Postgres]:
    """A server for one test to close."""
    with Postgres(tcp=True) as server:
        yield server


def test_it_is_durable_unprivileged_and_off_the_network(postgres: Postgres) -> None:
    with psycopg.connect(postgres.create("settings")) as connection:
        for name, value in {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}.items():
            assert connection.execute("SELECT current_setting(%s)", [name]).fetchone() == (value,)
    processes = postgres.processes()
    assert postgres.process is not None
    assert postgres.process.pid in {process.pid for process in processes}
    assert len(processes) > 1
    assert not living(processes, lambda process: process.uids().real == 0)
    assert not living(processes, lambda process: bool(process.net_connections("inet")))
    assert postgres.directory.stat().st_mode & 0o077 == 0


def test_a_database_is_empty(postgres: Postgres) -> None:
    """Also the second time, and while somebody uses the first."""
    with psycopg.connect(postgres.create("it's 100% new"), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (number int)")
        with psycopg.connect(postgres.create("it's 100% new")) as other:
            assert other.execute("SELECT count(*) FROM pg_tables WHERE tablename = 'kept'").fetchone() == (0,)


def test_a_crash_keeps_what_was_committed(postgres: Postgres) -> None:
    """And nothing else. The client learns of it by its connection's end."""
    url = postgres.create("crash")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept (number int)")
        connection.execute("INSERT INTO kept VALUES (1)")
        connection.commit()
        connection.execute("INSERT INTO kept VALUES (2)")
        postgres.kill()
        assert not postgres.running
        assert not working_in(postgres.directory)
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    postgres.start()
    assert "database system was not properly shut down" in postgres.log.read_text()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT number FROM kept").fetchall() == [(1,)]


def test_a_power_cut_takes_what_was_not_synced() -> None:
    """A commit whose sync has not come back is in the log after a crash, and is not after a power cut; what was synced is."""
    with Postgres(cuttable=True) as server, ThreadPoolExecutor(1) as threads:
        assert server.disk is not None
        url = server.create("cut")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (number int)")
        for number, is_cut in ((1, False), (2, True)):
            with psycopg.connect(url, autocommit=True) as other:
                server.disk.script("sync sleep 60")
                commit = threads.submit(other.execute, "INSERT INTO kept VALUES (%s)", [number])
                until(lambda: any(path.stat().st_size for path in (server.data / WAL).glob("*.undo")), 5, "a write")
                server.kill()
                assert isinstance(commit.exception(), psycopg.OperationalError)
                if is_cut:
                    assert server.power_cut()
                server.disk.script()
                server.start()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT number FROM kept").fetchall() == [(1,)]


def test_a_killed_server_is_there_for_the_next_test(postgres: Postgres) -> None:
    postgres.kill()
    with psycopg.connect(postgres.create("next")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_tcp_asks_for_the_password(own: Postgres) -> None:
    with psycopg.connect(own.url("postgres", tcp=True)) as connection:
        assert connection.info.host == "127.0.0.1"
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(own.url("postgres", tcp=True).replace(own.password, "wrong"))


@pytest.mark.parametrize("state", ["runs", "is killed", "hangs"])
def test_nothing_is_left_when_it_is_closed(own: Postgres, state: str) -> None:
    """No process, no directory, no shared memory."""
    segment = (own.data / "postmaster.pid").read_text().splitlines()[6].split()[1]
    assert segment in segments()
    if state == "is killed":
        own.kill()
    elif state == "hangs":
        assert own.process is not None
        own.process.send_signal(signal.SIGSTOP)
    own.close()
    assert not working_in(own.directory)
    assert not own.directory.exists()
    assert segment not in segments()


def test_nothing_is_left_of_a_test_that_dies() -> None:
    """SIGKILL to the process of the tests: what guards the server outlives it just so long as it takes."""
    code = "import time; from tests.postgres import Postgres; print(Postgres().directory, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        directory = Path(tests.stdout.readline().strip())
        assert directory.name.startswith("paraph-postgres-")
        assert working_in(directory)
        os.kill(tests.pid, signal.SIGKILL)
    until(lambda: not directory.exists(), what="the directory is gone")
    assert not working_in(directory)
