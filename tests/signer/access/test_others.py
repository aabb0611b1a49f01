"""Health and reflection: whose certificate is good gets answers, in turn, and of streams a few."""

import contextlib
import gc
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from signer.errors import Refusal
from signer.handlers import Admission
from signer.limits import OTHERS_MESSAGE_BYTES_MAX, OTHERS_STREAMS_MAX
from signer.others import Others
from signer.resets import Allowance, Interceptor, Resets
from signer.unparsed import Unparsed
from tests.daemon import Rig, running, until
from tests.pool.rig import until as soon
from tests.signer.access.calls import Answer, Caller, answer_of, reload, said, two_callers_rig

SERVING = health_pb2.HealthCheckResponse.SERVING
REVOKED = ("UNAUTHENTICATED", "CALLER_REVOKED")
FULL = ("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS")
ASKING = reflection_pb2.ServerReflectionRequest(list_services="")


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with running(two_callers_rig()) as made:
        yield made


@contextlib.contextmanager
def denied(rig: Rig, certificate: Path) -> Iterator[None]:
    print_ = x509.load_pem_x509_certificates(certificate.read_bytes())[0].fingerprint(hashes.SHA256()).hex()
    rig.denied.write_text(print_ + "\n")
    assert "reloaded" in reload(rig)
    try:
        yield
    finally:
        rig.denied.write_text("")
        assert "reloaded" in reload(rig)


def health(caller: Caller) -> Any:
    return health_pb2_grpc.HealthStub(caller.channel)


def check(caller: Caller, service: str = "") -> Answer:
    return said(lambda: health(caller).Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status)


def watch(caller: Caller) -> Any:
    return health(caller).Watch(health_pb2.HealthCheckRequest(), timeout=60)


def reflected(caller: Caller, requests: Iterator[Any]) -> Any:
    return reflection_pb2_grpc.ServerReflectionStub(caller.channel).ServerReflectionInfo(requests, timeout=60)


def names() -> list[x509.GeneralName]:
    return [x509.UniformResourceIdentifier(f"urn:test:{name}") for name in ("portal", "other")]


@pytest.mark.parametrize("is_odd", [False, True], ids=["one name", "two names"])
def test_denied(rig: Rig, is_odd: bool) -> None:
    """A certificate on the deny-list gets nothing here either, whatever names are in it; before and after it was good."""
    files = rig.pki.tls(f"stolen-{is_odd}", names()[: 1 + is_odd])
    with Caller(rig, files=files) as thief:
        assert check(thief).value == SERVING
        with denied(rig, files[0]):
            assert check(thief).brief == REVOKED
            assert said(lambda: next(watch(thief))).brief == REVOKED
            assert said(lambda: next(reflected(thief, iter([ASKING])))).brief == REVOKED
            with Caller(rig) as portal:
                assert check(portal).value == SERVING
        assert check(thief).value == SERVING


def test_denied_in_the_middle_of_a_stream(rig: Rig) -> None:
    """Each message of a stream is asked for by somebody who may."""
    files = rig.pki.tls("reflecting", names()[:1])
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with Caller(rig, files=files) as thief:
        stream = reflected(thief, iter(requests.get, None))
        requests.put(ASKING)
        assert said(lambda: next(stream)).code == "OK"
        with denied(rig, files[0]):
            requests.put(ASKING)
            assert said(lambda: next(stream)).brief == REVOKED
        requests.put(None)


def test_who_is_no_caller(rig: Rig) -> None:
    """A load balancer's certificate names no caller: it may ask after the health."""
    with Caller(rig, "load-balancer") as balancer:
        assert balancer.sign().reason == "CALLER_UNKNOWN"
        assert check(balancer).value == SERVING
        assert next(watch(balancer)).status == SERVING


def test_streams_are_few(rig: Rig) -> None:
    """One more than a caller may have open is refused, on whichever connection; another's is not, nor is a single question."""
    with Caller(rig) as portal, Caller(rig) as again, Caller(rig, "other") as other:
        open_ = [watch(portal) for _ in range(OTHERS_STREAMS_MAX - 1)]
        assert {next(each).status for each in open_} == {SERVING}
        never = threading.Event()
        open_.append(reflected(portal, iter(_first_and_wait(never))))
        assert said(lambda: next(open_[-1])).code == "OK"
        for stream in (watch(again), reflected(again, iter([ASKING]))):
            answer = said(lambda: next(stream))  # noqa: B023 -- called at once
            assert answer.brief == FULL
            assert answer.retry_s
        assert next(watch(other)).status == SERVING
        assert check(again).value == SERVING
        for each in open_:
            each.cancel()
        never.set()
        until(lambda: said(lambda: next(watch(again))).code == "OK", 10)


def _first_and_wait(over: threading.Event) -> Iterator[Any]:
    yield ASKING
    over.wait(60)


def test_messages_are_short(rig: Rig) -> None:
    """What is longer than any name is refused before it is parsed."""
    with Caller(rig) as portal:
        assert check(portal, "x" * (OTHERS_MESSAGE_BYTES_MAX - 3)).code == "NOT_FOUND"
        assert check(portal, "x" * OTHERS_MESSAGE_BYTES_MAX).brief == ("INVALID_ARGUMENT", "MESSAGE_TOO_LARGE")
        call = portal.channel.unary_unary("/grpc.health.v1.Health/Check")
        junk: Any = call.future(b"\xff", timeout=10)
        with pytest.raises(grpc.RpcError) as error:
            junk.result()
        assert answer_of(error.value).brief == ("INVALID_ARGUMENT", "MESSAGE_MALFORMED")


class Denied:
    def identify(self, context: Any) -> Any:
        raise Refusal("CALLER_REVOKED")


async def test_who_is_turned_away_leaves_nothing() -> None:
    """His call is held as one that was reset is, and of its message nothing."""
    kept = Resets(Admission(), lambda _: None)
    kept._allowances[""] = Allowance(lambda: 0.0, -1_000.0)
    server = grpc.aio.server(interceptors=[Interceptor(kept, Denied(), Others(kept.admission.starts))])
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/grpc.health.v1.Health/Check")(bytes(500_000))
        await soon(lambda: kept._held == 1, 5)
        gc.collect()
        assert [one.size for one in gc.get_objects() if isinstance(one, Unparsed)] == [0]
        call.cancel()
    await server.stop(None)
