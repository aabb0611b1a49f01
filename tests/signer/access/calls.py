"""
What the tests of access share: a card behind the shim, calls whose answer is a value, requests that are right until a
test spoils them, and counts.
"""

import contextlib
import hashlib
import json
import signal
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import google_crc32c
import grpc
import psutil
from google.rpc import error_details_pb2, status_pb2
from prometheus_client.parser import text_string_to_metric_families

from signer import credential as rows
from signer.clock import Clock
from signer.credential import Output, State
from signer.store import open_store
from signer.v1 import operator_pb2_grpc, signing_pb2_grpc
from signer.v1 import signing_pb2 as pb
from tests.daemon import SUBMIT, Rig, Token, until
from tests.processes import children
from tests.shim import Shim
from tests.softhsm import MODULE, PIN

WORST_S = 0.25  # the bar is 50 ms for a refusal; a single one on a busy machine may be late


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended: `code` is 'OK' with the response in `value`, or a gRPC status with what its details say."""

    code: str
    reason: str = ""
    domain: str = ""
    message: str = ""
    retry_s: float | None = None
    details: bytes = b""
    value: Any = field(default=None, compare=False)

    @property
    def brief(self) -> tuple[str, str]:
        return self.code, self.reason


def answer_of(error: grpc.RpcError) -> Answer:
    call: Any = error
    details = bytes(dict(call.trailing_metadata() or ()).get("grpc-status-details-bin", b""))
    reason, domain, retry_s = "", "", None
    for detail in status_pb2.Status.FromString(details).details:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason, domain = info.reason, info.domain
        elif detail.Unpack(retry):
            retry_s = retry.retry_delay.ToNanoseconds() / 1e9
    return Answer(call.code().name, reason, domain, call.details() or "", retry_s, details)


def said(call: Callable[[], Any]) -> Answer:
    """The answer of a blocking call."""
    try:
        return Answer("OK", value=call())
    except grpc.RpcError as error:
        return answer_of(error)


class Caller:
    """Both services over a channel of its own, blocking, as the holder of a certificate."""

    def __init__(self, rig: Rig, name: str = "portal", files: tuple[Path, Path] | None = None) -> None:
        # A daemon that is started again is found again at once.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100)]
        options += [("grpc.max_reconnect_backoff_ms", 200)]
        self.channel = grpc.secure_channel(f"127.0.0.1:{rig.port}", rig.tls(name, files), options)
        self.signing: Any = signing_pb2_grpc.SigningStub(self.channel)
        self.operator: Any = operator_pb2_grpc.OperatorStub(self.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def sign(self, request: Any = None, *, timeout_s: float | None = 10.0, **changes: Any) -> Answer:
        """SignDigests with this request, or with `request(**changes)`."""
        message = request if request is not None else ask(**changes)
        return said(lambda: self.signing.SignDigests(message, timeout=timeout_s))


def digest(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def digests(count: int, start: int = 0) -> list[bytes]:
    return [digest(number) for number in range(start, start + count)]


def ask(**changes: Any) -> Any:
    """One SHA-256 digest for the P-256 key, RAW; `changes` are fields given instead, the checksum follows them."""
    fields: dict[str, Any] = {
        "request_id": str(uuid.uuid4()),
        "credential": "p-256",
        "output": "RAW",
        "digest_algorithm": "SHA256",
        "signature_algorithm": "ECDSA",
        "digests": [digest(0)],
    } | changes
    if "messages" in changes and "digests" not in changes:
        del fields["digests"]
    items = fields.get("messages") or fields.get("digests") or ()
    fields.setdefault("crc32c", google_crc32c.value(b"".join(items)))
    return pb.SignDigestsRequest(**fields)


def statuses(answer: Answer) -> list[str]:
    assert answer.code == "OK", answer
    return [pb.ItemStatus.Name(item.status) for item in answer.value.items]


def card_rig(*kinds: str, pin: str = PIN, **more: Any) -> Rig:
    """A rig with one token, 'card', behind a shim, with a key and a credential of each kind."""
    rig = Rig()
    rig.shim = Shim(rig.directory / "shim", str(MODULE))
    rig.store.token("card", pin=pin)
    rig.store.keys("card", kinds)
    rig.tokens = [Token("card", "card", module=rig.shim.module, pin=pin, more=more)]
    rig.add_keys("card", kinds)
    return rig


def two_callers_rig() -> Rig:
    """The same with a P-256 key, for another caller beside the portal, too."""
    rig = card_rig("P-256")
    rig.callers["other"] = ("submit", SUBMIT, None)
    return rig


def enrol(rig: Rig, name: str, chain: bytes, label: str, outputs: Sequence[str], state: State = State.ACTIVE) -> None:
    """Put a credential into the store of a rig that was not started yet: faster than the command."""
    engine = open_store(rig.state / "paraph.sqlite")
    wanted = [Output(output) for output in outputs]
    rows.add(engine, name, chain, cka_id=None, key_label=label, outputs=wanted, clock=Clock())
    rows.set_state(engine, name, state, Clock())
    engine.dispose()


def shim_of(rig: Rig) -> Shim:
    assert rig.shim is not None
    return rig.shim


def signed(rig: Rig) -> int:
    """How often C_Sign was called so far."""
    return shim_of(rig).number("C_Sign")


def asked(rig: Rig) -> list[str]:
    """What each C_Sign was given so far, in hexadecimal."""
    return [call.data or "" for call in shim_of(rig).signs()]


def scrape(rig: Rig, accept: str = "text/plain") -> tuple[str, str]:
    """(content type, text) of /metrics."""
    asking = urllib.request.Request(f"http://127.0.0.1:{rig.metrics_port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(asking, timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def metric(rig: Rig, name: str, **labels: str) -> float:
    """The sum of the samples of this name whose labels include these."""
    families = text_string_to_metric_families(scrape(rig)[1])
    samples = (sample for family in families for sample in family.samples)
    return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())


@contextlib.contextmanager
def untouched(rig: Rig) -> Iterator[None]:
    """Nothing in here is signed and no method is entered: no call is counted for a caller or ended OK."""

    def counts() -> tuple[float, float, float]:
        calls = "paraph_calls_total"
        known = metric(rig, calls) - metric(rig, calls, caller="")
        return known, metric(rig, calls, code="OK"), metric(rig, "paraph_items_total")

    before, signatures = counts(), signed(rig)
    yield
    assert counts() == before
    assert signed(rig) == signatures


def reload(rig: Rig) -> str:
    """SIGHUP; answers what the log says about it."""
    before = len(rig.log.read_text())

    def outcome() -> str | None:
        lines = rig.log.read_text()[before:].splitlines()
        return next((line for line in lines if "signer: reload" in line), None)

    rig.send_signal(signal.SIGHUP)
    return str(until(outcome, 5, "a line about the reload"))


def processes(rig: Rig) -> list[psutil.Process]:
    """The daemon's process and everything under it."""
    assert rig.process is not None
    front = psutil.Process(rig.process.pid)
    return [front, *front.children(recursive=True)]


def lane_pids(rig: Rig) -> list[int]:
    assert rig.process is not None
    return [lane.pid for lane in children(rig.process.pid, "pool.worker")]


def rss_mb(rig: Rig) -> float:
    """The front process's resident memory."""
    assert rig.process is not None
    return float(psutil.Process(rig.process.pid).memory_info().rss) / 1e6


def within(texts: Sequence[str], text: str) -> bool:
    return all(part in text for part in texts)


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Paraph = Callable[..., Done]
