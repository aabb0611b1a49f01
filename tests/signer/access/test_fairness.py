"""
One caller floods, another works on: what the second keeps, and what the first makes the service hold.

One lane, so that the token is what is fought over; the two callers, the daemon and its lane share what processors there
are. A caller's share beside one other is half of what it gets alone, measured in turns with what it gets beside.
"""

import signal
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.daemon import Rig, Token, running, until
from tests.signer.access.calls import metric, rss_mb
from tests.signer.access.load import Load
from tests.softhsm import MODULE

pytestmark = pytest.mark.alone
ROUNDS, SECONDS = 3, 1.0
CALM = {"batch": 64, "in_flight": 16, "channels": 1}  # alone it uses the token up
SHARE = 0.8


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with running(flooded_rig()) as made:
        yield made


def flooded_rig() -> Rig:
    """A token without a shim: two callers who may both use its key."""
    made = Rig()
    made.store.token("card")
    made.store.keys("card", ["P-256"])
    made.tokens = [Token("card", "card", module=str(MODULE), kind="signing-server")]
    made.add_keys("card", ["P-256"])
    made.callers["other"] = made.callers["portal"]
    return made


def share(
    rig: Rig, flood: dict[str, Any], rounds: int = ROUNDS, seconds: float = SECONDS
) -> tuple[float, dict[str, Any]]:
    """What the calm caller keeps of its share beside the flood; and how the flood's calls ended."""
    ratios, ends = [], {}
    with Load(rig, "portal") as calm, Load(rig, "other") as flooder:
        calm.ask("closed", seconds=0.3, **CALM)
        for _ in range(rounds):
            flooder.tell("spin", seconds=seconds + 0.3)
            alone = calm.ask("closed", seconds=seconds, warm=0.2, **CALM)
            flooder.told()
            flooder.tell("closed", seconds=seconds + 0.7, **flood)
            beside = calm.ask("closed", seconds=seconds, warm=0.5, **CALM)
            ends = flooder.told()["ends"]
            assert beside["ends"].keys() <= {"OK"}, beside
            ratios.append(2 * beside["count"] / alone["count"])
    return statistics.median(ratios), ends


FLOODS = {
    "the largest legal batches": {"batch": 5_000, "in_flight": 16, "channels": 4},
    "single digests, more than one caller may have in work": {"in_flight": 512, "channels": 8},
    "tiny streams, 512 at one time, one after the other": {"in_flight": 512, "channels": 8, "stream": True},
}


@pytest.mark.parametrize("name", FLOODS)
def test_f45_a_flood_leaves_others_their_share(rig: Rig, name: str) -> None:
    """
    F45: one caller offers ten times what there is; its calls are answered or refused as too many (RESOURCE_EXHAUSTED;
    when to come back: row 5.5), what is held for it is bounded, and another caller, who is refused nothing, keeps at
    least 80 % of its share.
    """
    kept, ends = share(rig, FLOODS[name])
    assert kept >= SHARE, (kept, ends)
    # INTERNAL is gRPC's client by itself: a write that comes after the refusal of its stream.
    assert ends.keys() <= {"OK", "TOO_MANY_CALLS", "BACKLOG_FULL", "ANSWERS_UNREAD", "INTERNAL"}, ends
    assert rss_mb(rig) < 150
    until(lambda: metric(rig, "paraph_calls_in_work") == 0, 10, "the end of the flood")


def test_f45_who_never_reads_takes_nothing_from_the_others(rig: Rig) -> None:
    """
    F45: a caller asks for the longest answers there are and then reads none: what is held for it is bounded, what it
    asks beyond that is refused, and another caller keeps at least 80 % of its share.
    """
    before = rss_mb(rig)
    with Load(rig, "portal") as calm, Load(rig, "other") as flooder:
        calm.ask("closed", seconds=0.3, **CALM)
        alone = calm.ask("closed", seconds=SECONDS, **CALM)
        held_up = metric(rig, "paraph_refusals_total", reason="ANSWERS_UNREAD")
        # 1 500 CMS of P-256 and its chain are 2 MB; 100 of such calls would be 200 MB.
        flooder.tell("closed", seconds=30, batch=1_000, in_flight=100, channels=2, output="CADES_B_B")
        until(lambda: metric(rig, "paraph_refusals_total", reason="ANSWERS_UNREAD") > held_up, 10, "a refusal")
        flooder.signal(signal.SIGSTOP)
        worst, ratios = 0.0, []
        for _ in range(ROUNDS):
            beside = calm.ask("closed", seconds=SECONDS, **CALM)
            ratios.append(2 * beside["count"] / alone["count"])
            worst = max(worst, rss_mb(rig))
        assert statistics.median(ratios) >= SHARE, ratios
        assert metric(rig, "paraph_calls_in_work") >= 1, "answers that nobody reads are in work"
        assert worst - before < 100, f"{before:.0f} MB before, {worst:.0f} MB with unread answers"
    until(lambda: metric(rig, "paraph_calls_in_work") == 0, 10, "the end of the calls whose caller is gone")
    with Load(rig, "other") as again:
        assert again.ask("closed", seconds=0.2, in_flight=1, channels=1)["ends"].keys() == {"OK"}, "all is given back"


def rate_while(rig: Rig, load: Load, seconds: float, do: str, **order: Any) -> tuple[float, dict[str, Any]]:
    """Signatures a second by the lanes' own count, which knows no batches, while a load runs; and the load's answer."""
    load.tell(do, seconds=seconds, **order)
    time.sleep(seconds / 10)
    signed, began = metric(rig, "paraph_lane_signatures_total"), time.monotonic()
    time.sleep(seconds * 0.8)
    signed, took = metric(rig, "paraph_lane_signatures_total") - signed, time.monotonic() - began
    return signed / took, load.told()


def overload(rig: Rig, seconds: float, *, rounds: int = 1, patience: float = 10.0) -> str:
    """Row 5.5 for so long, in rounds, with calls of so many seconds: raises AssertionError, answers the figures."""
    kept, shed, peak = [], [], 0.0
    ends: Counter[str] = Counter()
    quick = metric(rig, "paraph_call_seconds_bucket", le="0.02", rpc="SignDigests")
    pushed = accepted = 0
    with Load(rig, "portal") as load:
        load.ask("closed", seconds=0.5, batch=1_000, in_flight=8, channels=16)
        for _ in range(rounds):
            peak, answer = rate_while(rig, load, 1.5, "closed", batch=1_000, in_flight=8, channels=16)
            assert peak, f"nothing was signed: {answer}"
            order = {"rate": 10 * peak, "channels": 16, "batch": 1_000, "patience": patience}
            rate, got = rate_while(rig, load, seconds, "offer", **order)
            kept.append(rate / peak)
            shed += got["shed"]
            pushed += got["pushed"]
            ends += Counter(got["ends"])
    within = metric(rig, "paraph_call_seconds_bucket", le="0.02", rpc="SignDigests") - quick
    refused, accepted = (
        ends["RESOURCE_EXHAUSTED BACKLOG_FULL"],
        ends["OK"] + ends["DEADLINE_EXCEEDED DEADLINE_EXCEEDED"],
    )
    p99_ms = sorted(shed)[int(len(shed) * 0.99)] * 1e3
    assert statistics.median(kept) >= 0.9, (kept, ends)
    assert refused + accepted == ends.total(), ends
    assert ends["OK"] >= 0.97 * accepted, f"what is taken is done in time, on a machine 10 % slower at times: {ends}"
    assert pushed == refused > 0, "each refusal says when to come back, in both languages"
    assert within >= refused * 0.99, f"{within:.0f} of {refused} refusals within 20 ms"
    assert p99_ms <= 100, p99_ms
    return (
        f"{peak:,.0f}/s at the peak, 10 times that offered for {seconds:g} s: goodput {statistics.median(kept):.2f} of it, "
        f"{refused} calls refused, 99 in 100 of them at the client within {p99_ms:.0f} ms; of {accepted} that were taken "
        f"{ends['OK']} were done in time"
    )


def test_row_5_5_ten_times_too_much(rig: Rig) -> None:
    """
    Row 5.5: own admission control, of all, by caller and by token's line: at ten times what it can do the service still
    does at least 90 % of it; what is shed is answered within 20 ms with RESOURCE_EXHAUSTED, gRPC's pushback and
    RetryInfo. F45: ten times the load; that shares are fair within 20 % is tested above.
    """
    print(overload(rig, 1.5, rounds=5, patience=1.2))
