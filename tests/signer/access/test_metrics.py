"""/metrics: in both formats, moving with what happens, and without a word that a caller chose."""

import statistics
import time
import uuid
from collections.abc import Iterator

import prometheus_client.openmetrics.parser as openmetrics
import prometheus_client.parser as prometheus
import pytest

from signer.metrics import Metrics
from tests.daemon import Rig, until
from tests.signer.access.calls import Caller, ask, digests, metric, scrape

FORMATS = {
    "text/plain": prometheus.text_string_to_metric_families,
    "application/openmetrics-text": openmetrics.text_string_to_metric_families,
}
LABELS = {"caller", "rpc", "code", "reason", "output", "status", "token", "lane", "state", "le", "anchor"}


@pytest.fixture(scope="module")
def portal(shared: Rig) -> Iterator[Caller]:
    with Caller(shared) as caller:
        yield caller


@pytest.mark.parametrize("accept", FORMATS)
def test_both_formats(shared: Rig, portal: Caller, accept: str) -> None:
    """The answer is what the scraper asked for, and the format's own parser reads it."""
    portal.sign()
    kind, text = scrape(shared, accept)
    assert kind.startswith(accept)
    families = {family.name: family for family in FORMATS[accept](text)}
    for name in ("paraph_token_state", "paraph_lane_signatures", "paraph_calls", "paraph_refusals", "paraph_items"):
        assert name in families or f"{name}_total" in families
        assert families.get(name, families.get(f"{name}_total")).documentation  # type: ignore[union-attr]
    assert families["paraph_lane_signature_seconds"].type == "histogram"


def test_counters_move(shared: Rig, portal: Caller) -> None:
    """Calls, refusals by reason, items and signatures are counted as they end, each for its caller."""

    def now() -> list[float]:
        return [
            metric(shared, "paraph_calls_total", caller="portal", rpc="SignDigests", code="OK"),
            metric(shared, "paraph_items_total", caller="portal", output="RAW", status="SIGNED"),
            metric(shared, "paraph_lane_signatures_total", token="card", lane="0"),
            metric(shared, "paraph_call_seconds_count", rpc="SignDigests"),
            metric(shared, "paraph_refusals_total", caller="portal", rpc="SignDigests", reason="CRC_MISMATCH"),
            metric(shared, "paraph_calls_total", caller="portal", rpc="SignDigests", code="INVALID_ARGUMENT"),
        ]

    before = now()
    assert portal.sign(digests=digests(7)).code == "OK"
    assert portal.sign(crc32c=1).reason == "CRC_MISMATCH"
    moved = [1, 7, 7, 2, 1, 1]
    until(lambda: [b - a for a, b in zip(before, now(), strict=True)] == moved, 2, f"{moved}, not {now()}")


def test_an_end_that_waits_for_nothing() -> None:
    """The thread that answers looks twice a second whether it is to end; the daemon's end is not held up by that."""
    took = []
    for _ in range(5):
        metrics = Metrics(list, int)
        metrics.serve("127.0.0.1:0", 1_024)
        time.sleep(0.02)  # it is in its pause
        began = time.monotonic()
        metrics.close()
        took.append(time.monotonic() - began)
    assert statistics.median(took) < 0.1, took


def test_gauges(shared: Rig) -> None:
    """A token is in exactly one state, its lane is up, and nothing is in work when nobody calls."""
    assert metric(shared, "paraph_token_state", token="card") == 1
    assert metric(shared, "paraph_token_state", token="card", state="READY") == 1
    assert metric(shared, "paraph_lane_up", token="card") == 1
    assert metric(shared, "paraph_lane_starts_total", token="card") == 1
    assert metric(shared, "paraph_lane_losses_total", token="card") == 0
    until(lambda: metric(shared, "paraph_calls_in_work") == 0, 2)
    assert metric(shared, "paraph_spool_bytes") == 0


def test_no_label_is_a_callers_word(shared: Rig, portal: Caller) -> None:
    """Whatever a caller writes into a request, its headers or its certificate, no series of it appears."""
    canary = "canary-4711"
    names = [portal.sign(credential=canary), portal.sign(request_id=canary)]
    names.append(portal.sign(request_id=str(uuid.uuid4()), credential="p-256", crc32c=1))
    assert "OK" not in {answer.code for answer in names}
    portal.signing.SignDigests(ask(), timeout=10, metadata=[("x-caller", canary), ("user-agent", canary)])
    with Caller(shared, canary) as stranger:
        assert stranger.sign().reason == "CALLER_UNKNOWN"
    call = portal.channel.unary_unary(f"/signer.v1.Signing/{canary}")
    with pytest.raises(Exception, match="UNIMPLEMENTED"):
        call(b"", timeout=10)
    text = scrape(shared)[1]
    assert canary not in text
    families = list(prometheus.text_string_to_metric_families(text))
    used = {label for family in families for sample in family.samples for label in sample.labels}
    assert used == LABELS
    callers = {s.labels["caller"] for f in families for s in f.samples if "caller" in s.labels}
    assert callers <= {"", "portal", "operator"}, "configured names only"
