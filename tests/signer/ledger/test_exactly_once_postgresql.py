"""
A request is executed once, with the ledger on PostgreSQL: the tests of SQLite's, and a server that is killed under load.

`f28`, `f27` and `documents_again` end the daemon with kill -9; here it is the database that goes, too.
"""

import contextlib
import itertools
import random
import signal
import time
from collections.abc import Iterator

import psycopg
import pytest

from signer.chain import Kind
from signer.database import database_at
from signer.writer import EX_IOERR
from tests.daemon import Rig, running, until
from tests.postgres import Postgres
from tests.processes import standing_still
from tests.signer.access.calls import Caller, answer_of, card_rig, digest, signed, statuses
from tests.signer.ledger import test_exactly_once as sqlite
from tests.signer.ledger.book import book, kinds, request, result, signatures
from tests.signer.ledger.crashes import Clients, History, judge
from tests.signer.ledger.entries import started
from tests.signer.ledger.test_exactly_once import (  # noqa: F401 -- collected here once more
    test_a_refused_request_leaves_nothing,
    test_a_stream_again,
    test_documents_again,
    test_f27_under_c_sign,
    test_f28_after_the_answer,
    test_f30_twins,
    test_f30_who_waits_has_a_deadline_of_his_own,
    test_f31_another_body,
    test_f43_the_caller_has_gone,
    test_released_is_written,
    test_row_4_2_the_same_again,
)
from tests.signer.ledger.test_storage import lock_held

SERVING, NOT_SERVING = 1, 2
CREDENTIALS = ["p-256", "rsa-2048"]
_databases = itertools.count()


def on(server: Postgres, rig: Rig) -> Rig:
    """The rig with a database of its own on this server."""
    rig.database = server.create(f"exactly once {next(_databases)}")
    return rig


@pytest.fixture(scope="module")
def rig(postgres: Postgres) -> Iterator[Rig]:
    with running(on(postgres, sqlite.two_callers())) as made:
        yield made


@pytest.fixture(scope="module")
def ended(postgres: Postgres) -> Iterator[Rig]:
    """For tests that end the daemon, or its database, and start it again."""
    with running(on(postgres, sqlite.two_callers())) as made:
        yield made


@pytest.fixture
def own(postgres: Postgres) -> Iterator[Rig]:
    """For a test that counts epochs, or all there is in the ledger."""
    with running(on(postgres, sqlite.two_callers())) as made:
        yield made


@pytest.fixture
def portal(rig: Rig) -> Iterator[Caller]:
    with Caller(rig) as caller:
        yield caller


def test_it_is_really_there(rig: Rig, portal: Caller) -> None:
    """Credentials, rows and results are in PostgreSQL, the results encrypted; in the state there is only this one's id."""
    answer = portal.sign(request(digests=[digest(600)]))
    assert not list(rig.state.glob("paraph.sqlite*"))
    with psycopg.connect(rig.database) as connection:
        names = connection.execute("SELECT name FROM credentials ORDER BY name").fetchall()
        [(instance,)] = connection.execute("SELECT instance FROM ledger_instances").fetchall()
        results = b"".join(data for (data,) in connection.execute("SELECT data FROM ledger_results").fetchall())
    assert [name for (name,) in names] == CREDENTIALS
    assert (rig.state / "instance").read_text() == instance
    assert results
    assert answer.value.items[0].signature not in results


def test_credentials_are_changed_there(ended: Rig) -> None:
    """`paraph credential` works on the configured store, and the daemon takes it up."""
    done = ended.command("credential", "--config", ended.config, "suspend", "p-256")
    assert done.returncode == 0, done.stderr
    with Caller(ended) as portal:
        until(lambda: portal.sign().reason == "CREDENTIAL_SUSPENDED", 5, "the daemon has read it")
        done = ended.command("credential", "--config", ended.config, "resume", "p-256")
        assert done.returncode == 0, done.stderr
        until(lambda: portal.sign().code == "OK", 5, "the daemon has read it")


def test_the_server_is_away_and_comes_back(ended: Rig, postgres: Postgres) -> None:
    """
    F23, row 4.3: no signature while there is no database, a reason at once (STORE_BUSY) with when to come back, health
    NOT_SERVING within 1 s, and it heals by itself; what was answered before is answered with the same bytes.
    """
    message = request(digests=[digest(1)])
    with Caller(ended) as portal:
        first = signatures(portal.sign(message))
        until(lambda: kinds(ended, message.request_id)[Kind.RELEASED], 5, "nothing left to be written")
        before = signed(ended)
        postgres.kill()
        refused = portal.sign(digests=[digest(2)])
        assert (refused.code, refused.reason) == ("UNAVAILABLE", "STORE_BUSY")
        assert refused.retry_s is not None
        until(lambda: ended.health() == NOT_SERVING, 1.0, "NOT_SERVING")
        assert result(portal, message.request_id).reason == "STORE_BUSY"
        assert signed(ended) == before
        postgres.start()
        until(lambda: ended.health() == SERVING, 5, "SERVING again")
        until(lambda: portal.sign(message).code == "OK", 5)
        assert signatures(portal.sign(message)) == signatures(result(portal, message.request_id)) == first
        assert signed(ended) == before


def server_hangs(rig: Rig, server: Postgres, held_s: float) -> str:
    """Every process of the server stands still for so many seconds, at least 2; raises AssertionError, answers what was seen."""
    with Caller(rig) as portal:
        message = request()
        assert statuses(portal.sign(message)) == ["SIGNED"]
        # Nothing is left to be written: what is asked has to be looked up first, and shows by itself that nothing answers.
        until(lambda: kinds(rig, message.request_id)[Kind.RELEASED], 5, "RELEASED")
        before = signed(rig)
        with standing_still(server.processes()):
            began = time.monotonic()
            calls = [
                portal.signing.SignDigests.future(request(digests=[digest(700 + i)]), timeout=1.5) for i in range(3)
            ]
            until(lambda: rig.health() == NOT_SERVING, 2.0, "NOT_SERVING")
            assert time.monotonic() - began < 1.2
            told = [answer_of(call.exception()).brief for call in calls]
            assert told == [("UNAVAILABLE", "STORE_BUSY")] * 3, "in the service's own words"
            assert time.monotonic() - began < 2.5
            refused = 0
            while not refused or time.monotonic() - began < held_s:
                assert portal.sign().reason == "STORE_BUSY", "refused at once while it hangs"
                assert rig.health() == NOT_SERVING
                refused += 1
                time.sleep(0.1)
        until(lambda: rig.health() == SERVING, 8, "SERVING again")
        assert signed(rig) == before, "what was too late was signed afterwards"
        assert statuses(portal.sign()) == ["SIGNED"]
    return f"a server that stands still for {held_s:g} s: {refused} calls told STORE_BUSY, no C_Sign, SERVING again by itself"


def test_a_server_that_hangs(ended: Rig, postgres: Postgres) -> None:
    """
    Row 4.3, 4.7: it does not answer: NOT_SERVING within a second of the first call, each call is answered by the service
    before its deadline, none is signed, and it resumes by itself. For 30 s: the soak part `storage`.
    """
    server_hangs(ended, postgres, 2.0)


@contextlib.contextmanager
def table_locked(rig: Rig) -> Iterator[None]:
    with psycopg.connect(rig.database) as other:
        other.execute("LOCK TABLE ledger_rows")
        yield


def test_f22_a_table_is_locked(ended: Rig) -> None:
    """F22: somebody holds a lock in PostgreSQL: UNAVAILABLE/STORE_BUSY and RetryInfo, before any C_Sign."""
    lock_held(ended, table_locked(ended), 1.0)


def test_started_without_a_server(postgres: Postgres) -> None:
    """The start ends with 75, which the service manager tries again, and one line that names the database."""
    with contextlib.closing(on(postgres, card_rig("P-256"))) as rig:
        rig.prepare()
        postgres.kill()
        try:
            done = rig.command("serve", "--config", rig.config)
        finally:
            postgres.start()
        assert done.returncode == 75
        assert done.stderr.splitlines()[-1].startswith("paraph serve: postgresql://")


def test_two_daemons_with_one_id(own: Rig) -> None:
    """A copy of the state directory takes the chain over: who had it before ends, and writes nothing more."""
    with Caller(own) as portal:
        assert statuses(portal.sign()) == ["SIGNED"]
        before = signed(own)
        _, copy, _ = started(database_at(own.database, own.state))
        assert portal.sign(timeout_s=5).code == "UNAVAILABLE"
        assert own.process is not None
        assert own.process.wait(5) == EX_IOERR
    assert "another daemon writes it now" in own.log.read_text()
    assert signed(own) == before
    last = book(own.state)[-1]
    assert (last.epoch, last.kind) == (2, Kind.EPOCH)
    copy.close()


def test_killed_under_load(own: Rig, postgres: Postgres) -> None:
    """
    Row 3.3: kill -9 of the store's server under load, now and then of the daemon as well: no signature is released twice, none that was
    acknowledged is lost, C_Sign is never called without an INTENT. Row 4.7: every call is answered by the service, before
    its caller gives up.
    """
    chance, history = random.Random(11), History()
    load = Clients(own, 8, history)
    try:
        for number in range(6):
            time.sleep(chance.uniform(0.1, 0.5))  # many requests long
            postgres.kill()
            time.sleep(chance.uniform(0.0, 0.6))
            if number % 3 == 2:
                own.stop(signal.SIGKILL)
            postgres.start()
            if number % 3 == 2:
                own.launch()
            own.wait_serving()
        time.sleep(1.0)
    finally:
        load.stop()
    with Caller(own) as caller:
        until(lambda: statuses_or_none(caller) == ["SIGNED"], 5)
        judge(own, caller, history)
    answered = sum(bool(told.given) for told in history.requests.values())
    assert answered > 50, history.codes


def test_f29_the_power_is_cut() -> None:
    """
    F29, row 4.1: the power of the database's host is cut under load, now and then the daemon's with it: what was not synced
    is lost, and nothing is released twice or without INTENT and SIGNED, nothing acknowledged is lost, and no C_Sign is
    without a record.
    """
    chance, history, taken = random.Random(29), History(), 0
    with Postgres(cuttable=True) as server, running(on(server, sqlite.two_callers())) as rig:
        assert server.disk is not None
        server.disk.script("sync sleep 0.02")  # most moments are between a write and its sync
        load = Clients(rig, 8, history)
        try:
            for number in range(6):
                time.sleep(chance.uniform(0.3, 0.8))
                server.kill()
                if number % 3 == 2:
                    rig.stop(signal.SIGKILL)
                taken += server.power_cut()
                server.start()
                if number % 3 == 2:
                    rig.launch()
                rig.wait_serving()
        finally:
            load.stop()
        assert taken, "each cut was behind a sync: nothing was tried"
        with Caller(rig) as caller:
            until(lambda: statuses_or_none(caller) == ["SIGNED"], 5)
            judge(rig, caller, history)
    assert sum(bool(told.given) for told in history.requests.values()) > 20, history.codes


def statuses_or_none(caller: Caller) -> list[str] | None:
    answer = caller.sign(digests=[digest(-1)])
    return statuses(answer) if answer.code == "OK" else None
