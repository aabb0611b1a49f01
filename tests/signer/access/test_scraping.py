"""The port of /metrics: whoever reaches it takes nothing from the daemon."""

import contextlib
import socket
import time
import urllib.request
from collections.abc import Iterator

import pytest

from signer import scraping
from signer.limits import METRICS_CONNECTIONS_MAX
from signer.metrics import Metrics
from tests import abuse
from tests.daemon import Rig, running, until
from tests.signer.access.calls import Caller, metric, processes

SILENT = 300  # connections
DESCRIPTORS = 256


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    made = Metrics(list, int)
    made.serve("127.0.0.1:0", 100_000)
    yield made
    made.close()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def has_ended(connection: socket.socket) -> bool:
    """Whether the other side has hung up, now or within ten seconds."""
    with contextlib.suppress(ConnectionResetError):
        return connection.recv(1) == b""
    return True


def scraped(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


@pytest.fixture
def small() -> Iterator[Rig]:
    """A daemon that may have few descriptors."""
    rig = abuse.rig_with_abuser()
    rig.descriptors = DESCRIPTORS
    with running(rig):
        yield rig


def test_who_is_silent_takes_nothing(small: Rig) -> None:
    """
    More silent connections than the daemon has descriptors: it holds a few, has a thread for each of them and no more, a scrape
    is answered, a document signed and a new caller let in; the log has not a line of them.
    """
    (front, *_), log = processes(small), small.log.read_text()
    with Caller(small) as portal, contextlib.ExitStack() as held:
        assert abuse.signs_document(portal) == "SIGNED"
        descriptors, threads = front.num_fds(), front.num_threads()
        for _ in range(SILENT):
            held.enter_context(connected(small.metrics_port))
        assert front.num_fds() - descriptors <= 10
        assert front.num_threads() - threads <= 10
        assert metric(small, "paraph_calls_total") > 0
        assert abuse.signs_document(portal) == "SIGNED"
        with Caller(small, abuse.ABUSER) as anew:
            assert anew.sign().code == "OK"
    assert small.log.read_text() == log


def test_the_oldest_goes_first(metrics: Metrics) -> None:
    """Where one is too many the oldest is hung up on; the others stay, and the new one is answered."""
    with contextlib.ExitStack() as stack:
        open_ = [stack.enter_context(connected(metrics.port)) for _ in range(METRICS_CONNECTIONS_MAX)]
        assert "paraph_calls_in_work" in scraped(metrics.port)
        assert has_ended(open_[0])
        for connection in open_[1:]:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.0 200"


def test_nobody_is_waited_for(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has sent half a request and nothing more is hung up on."""
    assert scraping.Handler.timeout == 5.0
    monkeypatch.setattr(scraping.Handler, "timeout", 0.2)
    with connected(metrics.port) as connection:
        connection.sendall(b"GET /metr")
        began = time.monotonic()
        assert has_ended(connection)
        assert 0.1 < time.monotonic() - began < 3


def test_hung_up_on_at_the_end(metrics: Metrics) -> None:
    """Its threads end with their connections."""
    assert metrics._server is not None
    for _ in range(3 * METRICS_CONNECTIONS_MAX):
        connected(metrics.port).close()
    until(lambda: not metrics._server._open, 10, "the end of all")  # type: ignore[union-attr]
