"""
What operators watch: /metrics in Prometheus's and OpenMetrics' formats, on a port of its own.

Calls are counted as they end; tokens and lanes are read from the pool when somebody asks. No label holds anything that
a caller can choose.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pool import TokenView
from pool.lane import LATENCY_BUCKETS_S
from pool.lane import State as LaneState
from pool.token import State as TokenState
from signer.scraping import Server

_CALL_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


disable_created_metrics()  # type: ignore[no-untyped-call]  # a line of its own for each series, and nobody looks at them


class PoolCollector(Collector):
    """Tokens and lanes as the pool tells them now."""

    def __init__(self, snapshot: Callable[[], list[TokenView]]) -> None:
        self._snapshot = snapshot

    def describe(self) -> list[Metric]:
        return []  # the names depend on nothing, and a registration needs no snapshot

    def collect(self) -> Iterator[Metric]:
        views = self._snapshot()
        state = GaugeMetricFamily(
            "paraph_token_state", "1 for the state that the token is in.", labels=["token", "state"]
        )
        waiting = GaugeMetricFamily("paraph_token_waiting", "Digests waiting for keys of the token.", labels=["token"])
        for view in views:
            for each in TokenState:
                state.add_metric([view.name, each], float(view.state is each))
            waiting.add_metric([view.name], view.waiting)
        yield state
        yield waiting
        yield from self._lanes(views)

    def _lanes(self, views: list[TokenView]) -> Iterator[Metric]:
        at = ["token", "lane"]
        signed = CounterMetricFamily("paraph_lane_signatures", "Signatures made and verified.", labels=at)
        errors = CounterMetricFamily("paraph_lane_errors", "Items that failed, by return code.", labels=[*at, "reason"])
        starts = CounterMetricFamily("paraph_lane_starts", "Starts of the lane's process.", labels=at)
        losses = CounterMetricFamily(
            "paraph_lane_losses", "Ends of the lane's process that nobody asked for.", labels=at
        )
        frames = GaugeMetricFamily("paraph_lane_frames", "Frames that the lane has.", labels=at)
        up = GaugeMetricFamily("paraph_lane_up", "1 while the lane can sign.", labels=at)
        latency = HistogramMetricFamily(
            "paraph_lane_signature_seconds",
            "Lane time a signature, verifying included; the mean of its frame.",
            labels=at,
        )
        for view in views:
            for lane, _ in view.lanes:
                labels, tally = [view.name, str(lane.index)], lane.tally
                signed.add_metric(labels, tally.signed)
                for reason, count in tally.failed.items():
                    errors.add_metric([*labels, reason], count)
                starts.add_metric(labels, tally.starts)
                losses.add_metric(labels, tally.losses)
                frames.add_metric(labels, lane.in_flight)
                up.add_metric(labels, float(lane.state in {LaneState.IDLE, LaneState.SIGNING}))
                latency.add_metric(labels, _buckets(tally.latency), tally.busy_s)
        yield from (signed, errors, starts, losses, frames, up, latency)


def _buckets(counts: list[int]) -> list[tuple[str, float]]:
    total, buckets = 0, []
    for bound, count in zip((*LATENCY_BUCKETS_S, float("inf")), counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
    return buckets


class AnchorCollector(Collector):
    """What waits for anchors, as the checkpoints tell it now."""

    def __init__(self, queues: Callable[[], Mapping[str, int]]) -> None:
        self._queues = queues

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        queue = GaugeMetricFamily("paraph_anchor_queue", "Checkpoints waiting for the anchor.", labels=["anchor"])
        for name, waiting in self._queues().items():
            queue.add_metric([name], waiting)
        yield queue


class Lists(Protocol):
    """CRLs, by the name of their issuer; asked from a thread of its own."""

    def ages(self) -> Mapping[str, float]: ...

    def failures(self) -> Mapping[str, int]: ...


class CrlCollector(Collector):
    """The CRLs as they are held now."""

    def __init__(self, lists: Lists) -> None:
        self._lists = lists

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        age = GaugeMetricFamily(
            "paraph_crl_age_seconds", "Since thisUpdate of the CRL held; +Inf where there is none.", labels=["issuer"]
        )
        for name, seconds in self._lists.ages().items():
            age.add_metric([name], seconds)
        failures = CounterMetricFamily(
            "paraph_crl_failures", "How often no CRL was had, or a bad one.", labels=["issuer"]
        )
        for name, count in self._lists.failures().items():
            failures.add_metric([name], count)
        yield from (age, failures)


class Metrics:
    """`count_*` find the series that a call belongs to in a dictionary of their own: each lookup is made four times a call."""

    def __init__(
        self,
        snapshot: Callable[[], list[TokenView]],
        calls_in_work: Callable[[], int],
        checkpoint_age_s: Callable[[], float] | None = None,
        anchor_queues: Callable[[], Mapping[str, int]] | None = None,
        lists: Lists | None = None,
    ) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(PoolCollector(snapshot))
        self.calls = Counter(
            "paraph_calls", "Calls ended, by gRPC code.", ["caller", "rpc", "code"], registry=self.registry
        )
        self.refusals = Counter(
            "paraph_refusals", "Calls refused.", ["caller", "rpc", "reason"], registry=self.registry
        )
        self.resets = Counter(
            "paraph_resets", "Calls reset past their caller's allowance.", ["caller"], registry=self.registry
        )
        self.items = Counter(
            "paraph_items", "Digests and documents answered.", ["caller", "output", "status"], registry=self.registry
        )
        self.call_seconds = Histogram(
            "paraph_call_seconds", "From request to answer.", ["rpc"], buckets=_CALL_BUCKETS_S, registry=self.registry
        )
        in_work = Gauge("paraph_calls_in_work", "Calls whose answer was not taken yet.", registry=self.registry)
        in_work.set_function(calls_in_work)
        if checkpoint_age_s is not None:
            age = Gauge(
                "paraph_checkpoint_age_seconds", "Of the newest checkpoint that an anchor has.", registry=self.registry
            )
            age.set_function(checkpoint_age_s)
        if anchor_queues is not None:
            self.registry.register(AnchorCollector(anchor_queues))
        if lists is not None:
            self.registry.register(CrlCollector(lists))
        self.spool_bytes = Gauge("paraph_spool_bytes", "Bytes of documents in work.", registry=self.registry)
        self._server: Server | None = None
        self._series: dict[tuple[str, ...], Any] = {}

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A number that is read when somebody asks."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def count_call(self, caller: str, rpc: str, code: str, seconds: float) -> None:
        """One more call has ended."""
        self._of(self.calls, caller, rpc, code).inc()
        self._of(self.call_seconds, rpc).observe(seconds)

    def count_items(self, caller: str, output: str, status: str, count: int) -> None:
        """So many digests or documents were answered."""
        self._of(self.items, caller, output, status).inc(count)

    def _of(self, metric: Any, *labels: str) -> Any:
        key = (metric._name, *labels)  # noqa: SLF001 -- it has no public name
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = metric.labels(*labels)
        return series

    def serve(self, address: str, descriptors: int) -> None:
        """Answer GET /metrics there, with a small part of so many descriptors."""
        self._server = Server(address, self.registry, descriptors)

    @property
    def port(self) -> int:
        return 0 if self._server is None else int(self._server.server_port)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
