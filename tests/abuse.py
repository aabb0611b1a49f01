"""
Abuse of connections beside a good client who is measured: what `tests/signer/access/test_abuse.py` runs in a small size
and `make soak PART=abuse` in full.

Two cores carry everything: the daemon, its lane, the good client (this process) and the abuser, who has a process of his
own. So the baseline of an abuser who keeps a core busy is the good client beside a process that does the same and harms
nobody; what is compared is the abuse, not the price of a core. The baseline of one who only holds connections is the
good client alone. Baseline and abuse take turns, so that a machine with other work has it in both.
"""

import contextlib
import json
import math
import os
import re
import select
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import google_crc32c
import psutil

from signer.v1 import signing_pb2 as pb
from tests.daemon import REPOSITORY, SUBMIT, Rig, as_user, until
from tests.hostile import minimal_pdf
from tests.signer.access.calls import (
    Caller,
    ask,
    card_rig,
    digest,
    digests,
    lane_pids,
    metric,
    reload,
    rss_mb,
    said,
    signed,
    statuses,
)

ABUSER = "abuser"  # a caller with an allow-list and limits of its own, and a certificate as good as anybody's
SIGN = "/signer.v1.Signing/SignDigests"
CHECK = "/grpc.health.v1.Health/Check"
CALM = 60  # descriptors: more than a daemon with one token and a few callers has
CALLS, TURN_S = 200, 0.7  # in one turn, at most
ROUNDS_MIN, ROUNDS_MAX = 3, 12


def rig_with_abuser() -> Rig:
    rig = card_rig("P-256")
    rig.callers[ABUSER] = ("submit", SUBMIT, None)
    return rig


def request(count: int) -> str:
    """SignDigests with so many digests, in hexadecimal."""
    return bytes(ask(digests=digests(count)).SerializeToString()).hex()


class Abuser:
    """One process of `tests/abuser.py`, ended with the block."""

    def __init__(self, rig: Rig, kind: str, port: int | None = None, caller: str = ABUSER, **wishes: Any) -> None:
        certificate, key = rig.files(caller)
        files = {"ca": str(rig.pki.ca_file), "certificate": str(certificate), "key": str(key)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.abuser", kind],
            cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._in: Any = self._process.stdin
        self._out: Any = self._process.stdout
        self._in.write(json.dumps({"port": port or rig.port} | files | wishes) + "\n")
        self._in.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._in.close()
        self._out.close()

    def said(self, timeout_s: float = 30.0) -> dict[str, int]:
        """Its next line: that it has begun in full, or what it has seen in all."""
        ready, _, _ = select.select([self._out], [], [], timeout_s)
        assert ready, f"the abuser said nothing for {timeout_s:g} s"
        line = self._out.readline()
        assert line, "the abuser ended"
        return json.loads(line)  # type: ignore[no-any-return]

    def end(self) -> dict[str, int]:
        """What it has seen in all."""
        self._process.send_signal(signal.SIGCONT)
        self._in.close()
        *_, last = self._out.read().splitlines()
        self._process.wait(10)
        return json.loads(last)  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """It runs in here, and sleeps outside."""
        self._process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.sleep()

    def sleep(self) -> None:
        self._process.send_signal(signal.SIGSTOP)


def turn_ms(portal: Caller) -> list[float]:
    """
    How long each of 200 calls took, one after the other, or of those that fit 0.7 s; a few before them only settle
    what was changed.
    """
    took: list[float] = []
    end = time.monotonic() + TURN_S
    while len(took) < 5 + CALLS and (time.monotonic() < end or len(took) < 20):
        began = time.perf_counter()
        assert statuses(portal.sign(digests=[digest(len(took))])) == ["SIGNED"]
        took.append((time.perf_counter() - began) * 1e3)
    return took[5:]


def p99(values: list[float]) -> float:
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


TIMES = 2.0  # what an abuser may cost a good client: so many times the p99 of the baseline
Beside = Callable[[], AbstractContextManager[object]]


@dataclass
class Outcome:
    """What the good client's calls took in the turns of each kind, what the abuser got, what the daemon held."""

    calm_ms: list[float] = field(default_factory=list)
    abused_ms: list[float] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    descriptors: int = 0  # the most that were seen
    descriptors_max: int = 0

    def __getitem__(self, what: str) -> int:
        return self.seen[what]

    def is_served(self, times: float = TIMES) -> bool:
        return p99(self.abused_ms) <= times * p99(self.calm_ms)

    def check(self, times: float = TIMES) -> str:
        """The figures in words; raises AssertionError where the good client or the descriptors suffered."""
        calls = f"{len(self.calm_ms)} and {len(self.abused_ms)} calls"
        figures = f"p99 {p99(self.calm_ms):.1f} ms, with it {p99(self.abused_ms):.1f} ms, of {calls}"
        assert self.is_served(times), figures
        assert 0 < self.descriptors <= self.descriptors_max, f"{self.descriptors} of {self.descriptors_max} descriptors"
        return f"{figures}; at most {self.descriptors} descriptors of {self.descriptors_max}"


def compare(rig: Rig, portal: Caller, beside: Beside, baseline: Beside = contextlib.nullcontext) -> Outcome:
    """
    Baseline and abuse by turns: three rounds, and up to twelve while these say that the good client is not served. Six
    slow calls are the p99 of three turns, and other work on the machine makes as many.
    """
    outcome = Outcome(descriptors_max=descriptors_max(rig))
    for number in range(1, ROUNDS_MAX + 1):
        with baseline():
            outcome.calm_ms += turn_ms(portal)
        with beside():
            outcome.abused_ms += turn_ms(portal)
            outcome.descriptors = max(outcome.descriptors, descriptors(rig))
        if number >= ROUNDS_MIN and outcome.is_served():
            break
    return outcome


# ---- what is abused


def ping_flood(rig: Rig, portal: Caller, connections: int) -> Outcome:
    """
    Pings on several connections, as fast as they are taken. The abuser has a core to himself, as the process of the
    baseline has. When he is gone, the daemon must be idle within a second: no work is left behind.
    """
    with Abuser(rig, "spin") as harmless, Abuser(rig, "pings", connections=connections) as abuser:
        for each in (harmless, abuser):
            each.said()
            each.sleep()
        outcome = compare(rig, portal, abuser.awake, harmless.awake)
        outcome.seen += Counter(abuser.end())
    until(lambda: descriptors(rig) < CALM, 5, "the end of the abuser's connections")
    used = cpu_s(rig)
    time.sleep(0.5)  # what is measured is the processor's time in it
    outcome.seen["cpu ms left behind"] = int((cpu_s(rig) - used) * 1e3)
    return outcome


def rapid_reset(rig: Rig, portal: Caller, streams: int, path: str, message: str | None) -> Outcome:
    """
    Calls that are reset at once, as fast as they are taken, on one connection; at least so many.

    As with pings, the abuser has a core to himself, as the process of the baseline has.
    """
    wishes = {"path": path, "streams": 0} | ({} if message is None else {"message": message})
    front_mb = rss_mb(rig)
    with (
        Abuser(rig, "spin") as harmless,
        Abuser(rig, "resets", **wishes) as abuser,
    ):
        for each in (harmless, abuser):
            each.said()
            each.sleep()
        outcome = compare(rig, portal, abuser.awake, harmless.awake)
        outcome.seen += Counter(abuser.end())
    while outcome.seen["streams"] < streams:
        with Abuser(rig, "resets", **(wishes | {"streams": streams - outcome.seen["streams"]})) as abuser:
            abuser.said(120)
            outcome.seen += Counter(abuser.end())
    until(lambda: metric(rig, "paraph_calls_in_work") == 0, 10, "the end of the calls that were reset")
    until(lambda: descriptors(rig) < CALM, 5, "the end of the abuser's connections")
    outcome.seen["front grew MB"] = int(rss_mb(rig) - front_mb)
    return outcome


def hasty_reset(rig: Rig, streams: int) -> Counter[str]:
    """The same without a look at what the daemon says first (SETTINGS); what the abuser got."""
    with Abuser(rig, "resets", path=SIGN, streams=streams, hasty=True) as abuser:
        abuser.said(60)
        return Counter(abuser.end())


def standing(rig: Rig, portal: Caller, kind: str, connections: int) -> Outcome:
    """
    So many connections that only stand there, opened and closed in each round: on those of kind "idle" nothing happens,
    those of kind "half_open" begin TLS and stop.
    """

    @contextlib.contextmanager
    def held() -> Iterator[None]:
        with Abuser(rig, kind, connections=connections, again=False) as abuser:  # `again` is for half-open ones
            seen.update(abuser.said(120))  # idle ones complete TLS, each of them: that takes its time
            yield
        until(lambda: descriptors(rig) < CALM, 20, "the end of the connections")

    seen: Counter[str] = Counter()
    outcome = compare(rig, portal, held)
    outcome.seen = seen
    return outcome


def lasting(rig: Rig, connections: int, port: int | None = None) -> Counter[str]:
    """So many half-open connections left until they are hung up on."""
    with Abuser(rig, "half_open", port, connections=connections, again=False) as abuser:
        abuser.said()
        return Counter(abuser.said())


def slow_reader(rig: Rig, portal: Caller, streams: int) -> Outcome:
    """So many calls on one connection whose answers are taken a byte at a time, from when all are signed."""

    @contextlib.contextmanager
    def held() -> Iterator[None]:
        before = signed(rig)
        with Abuser(rig, "slow_reader", path=SIGN, message=request(5), streams=streams) as abuser:
            abuser.said()
            until(lambda: signed(rig) >= before + 5 * streams, 20, "the signatures of all calls")
            yield
            assert metric(rig, "paraph_calls_in_work") == streams, "answers that were not taken are in work"
            seen.update(abuser.end())
        until(lambda: metric(rig, "paraph_calls_in_work") == 0, 10, "the end of the calls")

    seen: Counter[str] = Counter()
    outcome = compare(rig, portal, held)
    outcome.seen = seen
    return outcome


def more_than_fit(rig: Rig, portal: Caller, connections: int) -> Outcome:
    """
    More connections than the daemon has descriptors. Its own work needs some: a document is signed and a killed lane
    replaced, even while whoever is hung up on comes again at once. (That alone, ten thousand connections a second, makes
    the good client's p99 about twice as long: it is no part of what is compared.)
    """
    outcome = standing(rig, portal, "half_open", connections)
    with Abuser(rig, "half_open", connections=connections, again=True) as abuser:
        abuser.said()
        assert signs_document(portal) == "SIGNED"
        (lane,) = lane_pids(rig)
        os.kill(lane, signal.SIGKILL)
        until(lambda: portal.sign().code == "OK" and lane_pids(rig) not in ([], [lane]), 20, "a new lane")
        outcome.descriptors = max(outcome.descriptors, descriptors(rig))
        outcome.seen = Counter(abuser.end())
    return outcome


def no_descriptor(rig: Rig, portal: Caller, connections: int) -> Outcome:
    """
    No descriptor left, by whatever took them: nobody new is accepted, what needs one is refused with its reason, and
    who is there is served; when there are some again, so is who waited.
    """
    most = descriptors_max(rig)

    @contextlib.contextmanager
    def none_left() -> Iterator[None]:
        limit_descriptors(rig, descriptors(rig))
        with Abuser(rig, "half_open", connections=connections, again=False) as abuser:
            abuser.said()
            try:
                yield
                assert signs_document(portal) == "SPOOL_FULL"
                assert "refused, the old configuration stays" in reload(rig)
                with Caller(rig) as waiting:
                    call = waiting.signing.SignDigests.future(ask(), timeout=10)
                    assert not call.done()
                    limit_descriptors(rig, most)
                    assert statuses(said(call.result)) == ["SIGNED"]
            finally:
                limit_descriptors(rig, most)
        assert signs_document(portal) == "SIGNED"
        assert "reloaded" in reload(rig)
        until(lambda: descriptors(rig) < CALM, 20, "the end of the connections")

    return compare(rig, portal, none_left)


# ---- helpers


def signs_document(portal: Caller) -> str:
    """Its status, or the reason why not."""
    document = minimal_pdf()
    opening = pb.OpenDocuments(
        request_id=str(uuid.uuid4()),
        credential="p-256",
        output="PADES_B_B",
        digest_algorithm="SHA256",
        signature_algorithm="ECDSA",
    )
    messages = [
        pb.SignDocumentsRequest(open=opening),
        pb.SignDocumentsRequest(begin=pb.BeginDocument(index=0, name="letter.pdf", size=len(document))),
        pb.SignDocumentsRequest(chunk=document),
        pb.SignDocumentsRequest(end=pb.EndDocument(crc32c=google_crc32c.value(document))),
    ]
    answer = said(lambda: list(portal.signing.SignDocuments(iter(messages), timeout=20)))
    if answer.code != "OK":
        return answer.reason
    (result,) = [message.result for message in answer.value if message.WhichOneof("message") == "result"]
    return result.reason or str(pb.ItemStatus.Name(result.status))


def descriptors(rig: Rig) -> int:
    return int(front(rig).num_fds())


def cpu_s(rig: Rig) -> float:
    used = front(rig).cpu_times()
    return float(used.user + used.system)


def front(rig: Rig) -> psutil.Process:
    assert rig.process is not None
    return psutil.Process(rig.process.pid)


def descriptors_max(rig: Rig) -> int:
    """The limit of the daemon's process."""
    limits = Path(f"/proc/{front(rig).pid}/limits").read_text()
    found = re.search(r"^Max open files +(\d+)", limits, re.MULTILINE)
    assert found
    return int(found[1])


def limit_descriptors(rig: Rig, most: int) -> None:
    """Let the running daemon have so many, no matter how many it has."""
    command = ["prlimit", f"--pid={front(rig).pid}", f"--nofile={most}:"]
    subprocess.run(as_user(command, rig.user), check=True)
