"""Time: every call has a deadline and keeps to it, what is late is not signed, and slow clients cost nothing."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from signer import limits
from signer.clock import Clock
from signer.config import Caller as ConfiguredCaller
from signer.handlers import Admission, Gatekeeper
from signer.metrics import Metrics
from signer.policy import Policy
from signer.refused import Refused
from signer.v1 import signing_pb2 as pb
from signer.v1 import signing_pb2_grpc
from tests.daemon import SUBMIT, Rig, running, until
from tests.signer.access.calls import (
    Caller,
    answer_of,
    ask,
    asked,
    digest,
    digests,
    lane_pids,
    metric,
    rss_mb,
    shim_of,
    signed,
    statuses,
    two_callers_rig,
)

LATE_S = 0.2  # an answer comes at most so long after its deadline


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with running(two_callers_rig()) as made:
        yield made


@pytest.fixture(scope="module")
def portal(rig: Rig) -> Iterator[Caller]:
    with Caller(rig) as caller:
        yield caller


@pytest.fixture(autouse=True)
def a_lane_that_signs(rig: Rig, portal: Caller) -> Iterator[None]:
    """Each test begins and ends with a lane that works by itself."""
    yield
    shim_of(rig).clear()
    until(lambda: portal.sign(digests=[digest(999_999)]).code == "OK", 20, "a lane that signs")


def next_signs(rig: Rig, rule: str, count: int = 1) -> None:
    """The script's rule for the next so many C_Sign."""
    number = signed(rig)
    shim_of(rig).script(f"C_Sign {number + 1}-{number + count} {rule}")


# ---- which deadline a call gets


def _deadline_s(rpc: str, asked_s: float | None) -> float:
    """How long a call is given by the gatekeeper."""
    caller = ConfiguredCaller(name="portal", role="submit", rpcs=frozenset(SUBMIT))
    policy = Policy({"portal": caller}, {}, frozenset(), (), {})
    clock: Any = SimpleNamespace(monotonic=lambda: 1_000.0, wall=Clock().wall)
    peers: Any = SimpleNamespace(identify=lambda _: caller)
    context: Any = SimpleNamespace(invocation_metadata=lambda: (), time_remaining=lambda: asked_s)
    outcome: Any = SimpleNamespace(caller=None)
    keeper = Gatekeeper(peers, lambda: policy, clock, Admission(), Metrics(list, int), Refused())
    return keeper.begin(rpc, context, outcome).deadline - 1_000.0


@pytest.mark.parametrize(
    ("rpc", "asked_s", "given_s"),
    [
        ("SignDigests", None, 30 * 0.98),
        ("GetCredential", None, 30 * 0.98),
        ("SignDigests", 5.0, 5 * 0.98),
        ("SignDigests", 0.5, 0.48),
        ("SignDigests", 0.01, -0.01),
        ("SignDigests", 600.0, 600 * 0.98),
        ("SignDigests", 100_000.0, 600 * 0.98),
        ("SignDigests", 1e12, 600 * 0.98),
        ("VerifyDocument", None, 600 * 0.98),
        ("VerifyDocument", 100_000.0, 600 * 0.98),
        ("SignDocuments", None, 600 * 0.98),
        ("SignDocuments", 100_000.0, 3_600 * 0.98),
        ("StreamDigests", None, 1_800 * 0.98),
        ("StreamDigests", 100_000.0, 1_800 * 0.98),
    ],
)
def test_row_5_3_every_call_has_a_deadline(rpc: str, asked_s: float | None, given_s: float) -> None:
    """Row 5.3: a call that names no deadline gets one, none is longer than its cap, and the answer leaves before it."""
    assert _deadline_s(rpc, asked_s) == pytest.approx(given_s)


# ---- a token that hangs


def test_row_5_3_answer_at_the_deadline(rig: Rig, portal: Caller) -> None:
    """
    Row 5.3: with a token that hangs for a minute the caller has the service's own word, not its library's, by its
    deadline; a second later the lane is gone, and a new one signs.
    """
    (lane,) = lane_pids(rig)
    next_signs(rig, "hang 60")
    began = time.monotonic()
    answer = portal.sign(digests=[digest(1)], timeout_s=3.0)  # as below
    took = time.monotonic() - began
    assert (answer.code, answer.reason, answer.domain) == ("DEADLINE_EXCEEDED", "TOKEN_TIMEOUT", "paraph")
    assert "INDETERMINATE" in answer.message
    assert 2.8 < took <= 3.0 + LATE_S
    until(lambda: lane not in lane_pids(rig), 1.2, "the end of the lane that hangs")
    assert statuses(portal.sign(digests=[digest(2)])) == ["SIGNED"]
    assert asked(rig).count(digest(1).hex()) == 1


def test_row_5_3_batch_that_its_deadline_cuts(rig: Rig, portal: Caller) -> None:
    """Row 5.3: at the deadline a batch is answered item by item: what is signed, what is under way, what never was."""
    number = signed(rig)
    next_signs(rig, "delay 0.45", 100)
    batch = digests(20, 100)
    began = time.monotonic()
    answer = portal.sign(
        digests=batch, timeout_s=3.0
    )  # the service's word has 60 ms to arrive before the caller's own clock
    assert time.monotonic() - began <= 3.0 + LATE_S
    found = statuses(answer)
    done = found.count("SIGNED")
    assert 2 <= done <= 7
    rest = found[done:]
    assert rest[0] in {"INDETERMINATE", "NOT_ATTEMPTED"}
    assert set(rest[1:]) == {"NOT_ATTEMPTED"}
    assert {item.reason for item in answer.value.items[done + 1 :]} == {"DEADLINE_EXCEEDED"}
    assert statuses(portal.sign(digests=[digest(3)])) == ["SIGNED"]
    given = [call.data for call in shim_of(rig).signs()[number:]]
    attempted = done + rest.count("INDETERMINATE")
    assert given[:attempted] == [item.hex() for item in batch[:attempted]]
    assert not {item.hex() for item in batch[attempted:]} & set(given), "NOT_ATTEMPTED, and C_Sign was called"


def test_f44_deadline_while_queued(rig: Rig, portal: Caller) -> None:
    """
    F44: a call whose deadline passes in the line is answered DEADLINE_EXCEEDED, and what it asked for is not signed
    afterwards: the lane lives on, signs what others ask, and never sees those digests.
    """
    next_signs(rig, "hold 60")
    with Caller(rig, "other") as other, ThreadPoolExecutor(1) as threads:
        before = signed(rig)
        first = threads.submit(other.sign, digests=[digest(10)])
        until(lambda: signed(rig) > before, 5, "the first call under C_Sign")
        late = digests(3, 20)
        began = time.monotonic()
        answer = portal.sign(digests=late, timeout_s=0.5)
        assert time.monotonic() - began <= 0.5 + LATE_S
        assert answer.brief == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
        assert not first.done()
        shim_of(rig).clear()
        assert statuses(first.result()) == ["SIGNED"]
        for number in range(100):  # what were still in the line would come before these
            assert statuses(portal.sign(digests=[digest(1_000_000 + number)])) == ["SIGNED"]
    assert not {item.hex() for item in late} & set(asked(rig))
    assert len(lane_pids(rig)) == 1


def test_f44_request_of_a_stream(rig: Rig, portal: Caller) -> None:
    """F44: on a stream each request has a deadline of its own; one that is late is not signed, the stream goes on."""
    next_signs(rig, "delay 0.8")
    late = [digest(number) for number in range(40, 43)]
    requests = [ask(digests=[digest(39)]), ask(digests=late, timeout_s=0.3), ask(digests=[digest(44)])]
    first, second, third = portal.signing.StreamDigests(iter(requests), timeout=20)
    assert [item.status for item in (*first.items, *third.items)] == [pb.SIGNED] * 2
    reasons = {second.error.reason} | {item.reason for item in second.items}
    assert reasons - {""} == {"DEADLINE_EXCEEDED"}
    assert not {item.hex() for item in late} & set(asked(rig))


def test_deadline_that_is_over_already(rig: Rig, portal: Caller) -> None:
    """A call with no time left is never begun."""
    before = signed(rig)
    assert portal.sign(timeout_s=0.001).code == "DEADLINE_EXCEEDED"
    assert statuses(portal.sign(digests=[digest(50)])) == ["SIGNED"]
    assert signed(rig) == before + 1


@pytest.mark.parametrize("way", ["cancel", "vanish"])
def test_cancelled_call(rig: Rig, portal: Caller, way: str) -> None:
    """After a caller has cancelled, or its connection is gone, at most the item under C_Sign is finished."""
    next_signs(rig, "delay 0.1", 100)
    batch = digests(40, 200 if way == "cancel" else 300)
    with Caller(rig, "other") as other:
        before = signed(rig)
        call = other.signing.SignDigests.future(ask(digests=batch), timeout=20)
        until(lambda: signed(rig) >= before + 2, 5, "two C_Sign of the batch")
        if way == "cancel":
            call.cancel()
        at_most = signed(rig) + 1
    until(lambda: metric(rig, "paraph_calls_in_work") == 0, 5, "the end of the cancelled call")
    shim_of(rig).clear()
    assert statuses(portal.sign(digests=[digest(60)])) == ["SIGNED"]
    given = asked(rig)
    assert sum(item.hex() in given for item in batch) <= at_most - before


# ---- bounded memory


def test_row_5_4_over_limit_requests_leave_nothing(rig: Rig) -> None:
    """Row 5.4: a hundred messages over the limit at one time, again and again, do not make the front 10 MB larger."""
    request = ask(credential="x" * (limits.MIB + 1))
    with Caller(rig) as one, Caller(rig) as two, ThreadPoolExecutor(100) as threads:

        def all_at_once() -> None:
            answers = [threads.submit(caller.sign, request, timeout_s=30) for caller in (one, two) for _ in range(50)]
            assert {answer.result().brief for answer in answers} == {("INVALID_ARGUMENT", "MESSAGE_TOO_LARGE")}

        def lowest(until_mb: float) -> float:
            """What the front comes down to, when ordinary calls go on."""
            found = []
            end = time.monotonic() + 8
            while time.monotonic() < end and min(found, default=1e9) > until_mb:
                assert one.sign().code == two.sign().code == "OK"
                found.append(rss_mb(rig))
                threading.Event().wait(0.05)
            return min(found)

        fresh = rss_mb(rig)
        all_at_once()  # the threads and buffers of two busy connections
        before = lowest(fresh + 8)
        after: list[float] = []
        while len(after) < 2 or (after[-1] > before + 10 and len(after) < 5):
            all_at_once()  # a buffer that one burst leaves behind is the next one's; a leak would add up
            after.append(lowest(before + 10))
    assert after[-1] - before <= 10, f"{before:.0f} MB before, {after} MB after"


# ---- F40: clients that take their time


def test_f40_slow_and_half_open_handshakes(rig: Rig, portal: Caller) -> None:
    """
    F40: who connects and says nothing, or begins TLS with one byte a second, is hung up on after 10 s; meanwhile
    nothing of the service is held, and others are served as ever.
    """
    hello = _client_hello()

    def last(sends: bytes) -> float:
        """How long the server keeps a connection on which this comes, a byte a second."""
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", rig.port), timeout=20) as client:
            client.settimeout(1.0)
            for byte in sends or bytes(30):
                with contextlib.suppress(TimeoutError):
                    if sends:
                        client.sendall(bytes([byte]))
                    try:
                        if client.recv(1) == b"":
                            return time.monotonic() - began
                    except ConnectionError:
                        return time.monotonic() - began
        return time.monotonic() - began

    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(last, sends) for sends in (b"", b"", hello, hello)]
        slowest = 0.0
        while not all(future.done() for future in waiting):
            began = time.monotonic()
            assert statuses(portal.sign(digests=[digest(70)])) == ["SIGNED"]
            slowest = max(slowest, time.monotonic() - began)
            until(lambda: metric(rig, "paraph_calls_in_work") == 0, 1, "nothing of a handshake counts as a call")
            threading.Event().wait(0.05)  # the pace of a calm caller
    assert all(9 <= future.result() <= 12 for future in waiting), [future.result() for future in waiting]
    assert slowest < 1.0


def _client_hello() -> bytes:
    """The first bytes of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


class _Flood:
    """A client that sends requests as fast as they are taken, and counts them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.sent = 0
        self.enough = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        while not self.enough.is_set():
            yield ask(digests=digests(self.count, 1_000 * (self.sent % 50)))
            self.sent += 1


def test_f40_client_that_never_reads(rig: Rig, portal: Caller) -> None:
    """
    F40: on a stream whose client never reads, the service stops reading at 20 000 unanswered digests; it holds no more
    than those, and other callers are served as ever.
    """
    most, each = limits.STREAM_UNANSWERED_DIGESTS_MAX, 1_000
    options = [("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)]
    memory, before = rss_mb(rig), signed(rig)
    flood = _Flood(each)
    with grpc.secure_channel(f"127.0.0.1:{rig.port}", rig.tls("other"), options) as channel:
        stream = signing_pb2_grpc.SigningStub(channel).StreamDigests(iter(flood), timeout=60)
        try:
            until(lambda: signed(rig) >= before + most, 30, "20 000 signatures for a stream that nobody reads")
            calm = [portal.sign(digests=[digest(80)]) for _ in range(100)]
            assert {answer.code for answer in calm} == {"OK"}
            made = signed(rig) - before - len(calm)
            # What left the service already: an answer on the wire, one in the client's window, one being written.
            assert made <= most + 4 * each
            settled, taken = signed(rig), flood.sent
            began = time.monotonic()
            assert {portal.sign(digests=[digest(81)]).code for _ in range(100)} == {"OK"}
            assert time.monotonic() - began < 5
            assert signed(rig) == settled + 100, "it has stopped"
            assert flood.sent <= taken + 1
            assert rss_mb(rig) - memory < 30
        finally:
            flood.enough.set()
            stream.cancel()
    until(lambda: metric(rig, "paraph_calls_in_work") == 0, 5, "the end of the stream")


def test_f40_unanswered_digests_stop_the_reading(rig: Rig, portal: Caller) -> None:
    """F40: a token that signs nothing does not let a stream pile up: 20 000 digests wait, the next are not read."""
    shim_of(rig).script(f"C_Sign {signed(rig) + 1}+ hold 60")
    flood = _Flood(5_000)
    with Caller(rig, "other") as other:
        stream = other.signing.StreamDigests(iter(flood), timeout=20)
        waiting = {"token": "card"}
        until(lambda: metric(rig, "paraph_token_waiting", **waiting) > 15_000, 10, "a full stream")

        def taken() -> int:
            """How much was sent after so many looks: time in which a service that goes on reading would read."""
            for _ in range(30):
                assert metric(rig, "paraph_token_waiting", **waiting) <= limits.STREAM_UNANSWERED_DIGESTS_MAX
            return flood.sent

        until(lambda: flood.sent == taken(), 10, "an end of the sending")
        assert flood.sent * flood.count < 100 * limits.STREAM_UNANSWERED_DIGESTS_MAX, "the rest is in the windows"
        flood.enough.set()
        stream.cancel()
        with contextlib.suppress(grpc.RpcError):
            next(stream)
    until(lambda: metric(rig, "paraph_token_waiting", **waiting) == 0, 10, "an empty line")


def test_a_stream_is_held_back_and_not_refused(rig: Rig) -> None:
    """Of 200 single digests, 2 s of the token and each with half a second, none is refused: what has no time is not read yet."""
    shim_of(rig).script("C_Sign * delay 0.01")
    with Caller(rig, "other") as other:
        assert statuses(other.sign(ask(digests=digests(5)))) == ["SIGNED"] * 5  # so that it knows how slow the token is
        requests = (ask(digests=digests(1, number), timeout_s=0.5) for number in range(200))
        answers = list(other.signing.StreamDigests(requests, timeout=30))
    assert not [one.error.reason for one in answers if one.HasField("error")]
    signed_ = [item.status == pb.SIGNED for one in answers for item in one.items]
    assert len(signed_) == 200
    assert sum(signed_) >= 190, "but for some whose time was over because the machine stood still"


def test_idle_stream_ends_at_its_deadline(rig: Rig, portal: Caller) -> None:
    """A stream on which nothing comes ends at its deadline with the service's own word; it held nothing."""
    quiet = threading.Event()
    stream = portal.signing.StreamDigests(iter(lambda: quiet.wait() and None, None), timeout=1.0)
    began = time.monotonic()
    try:
        with pytest.raises(grpc.RpcError) as error:
            next(stream)
    finally:
        quiet.set()
    assert time.monotonic() - began <= 1.0 + LATE_S
    assert answer_of(error.value).brief == ("UNAVAILABLE", "STREAM_OVER")
    assert statuses(portal.sign()) == ["SIGNED"]
