"""
What share of the token does a caller keep beside one that floods it?

Two callers' fair shares of a token are halves. The small caller sends batches of 64 with 16 unanswered, which alone use
the token up; the flood is another caller's, with the largest legal batches, as many as one caller may have in work. Its
share is its rate beside the flood by half its rate alone, in the same rounds. A second case floods with single digests.

What the flooder got meanwhile is the token's signatures, as the daemon counts them, without the small caller's: so that it
is seen what both together lose, which nobody gets.
"""

import re
import statistics
import time
from functools import partial

from bench.rig.bed import Bed, sample
from bench.rig.child import Client
from bench.rig.daemon import Daemon, Service
from bench.rig.report import Report, Row
from bench.rig.rounds import Sample, Series, play

SMALL = {"do": "flood", "batch": 64, "in_flight": 16, "channels": 1}
FLOODS = {
    "16 batches of 5000 in flight": {"do": "flood", "batch": 5_000, "in_flight": 16, "channels": 4},
    "240 single digests in flight": {"do": "flood", "batch": 1, "in_flight": 240, "channels": 8},
}


def ask(*, quick: bool) -> Report:
    rounds, seconds = (3, 1.0) if quick else (5, 2.0)
    rows: list[Row] = []
    with Bed() as bed:
        [token] = bed.store.tokens("verified")
        daemon = bed.daemon(Service(token, bed.lanes))
        small, flooder = bed.client(daemon), bed.client(daemon, "other")
        for kind in ("P-256",) if quick else ("P-256", "RSA-2048"):
            credential = token.keys[kind].label
            for name, flood in FLOODS.items():
                order = {**SMALL, "credential": credential, "seconds": seconds}
                beside = _Beside(daemon, small, flooder, order, {**flood, "credential": credential}, seconds)
                series = play({"alone": partial(sample, small, **order), "beside": beside.run}, rounds)
                rows.append(_row(f"{kind}, beside {name}", series, beside.flooders))
    return Report("fairness", rows, rounds)


class _Beside:
    """The small caller beside the flood, which begins before and ends after what is counted. `flooders`: its rates."""

    def __init__(
        self, daemon: Daemon, small: Client, flooder: Client, order: dict[str, object], flood: dict[str, object],
        seconds: float,
    ) -> None:  # fmt: skip
        self._daemon, self._small, self._flooder = daemon, small, flooder
        self._order, self._flood = order, {**flood, "seconds": seconds + 1.0}
        self.flooders: list[float] = []

    def run(self) -> Sample:
        self._flooder.tell(self._flood)
        self._small.got({**self._order, "seconds": 0.5})
        before, began = _signatures(self._daemon), time.monotonic()
        counted = sample(self._small, **self._order)
        made, took = _signatures(self._daemon) - before, time.monotonic() - began
        self.flooders.append(max(0.0, made - counted.count) / took)
        self._flooder.told()
        return Sample(counted.count, counted.seconds, self._verify)

    def _verify(self) -> None:
        self._small.verify()
        self._flooder.verify()


def _signatures(daemon: Daemon) -> float:
    """That all lanes have made."""
    found = re.findall(r"^paraph_lane_signatures_total\{[^}]*\} (\S+)", daemon.metrics(), re.MULTILINE)
    return sum(map(float, found))


def _row(case: str, series: dict[str, Series], flooders: list[float]) -> Row:
    alone, beside = series["alone"], series["beside"]
    ratio = round(2 * beside.over(alone), 3)
    others = round(max(*alone.others, *beside.others), 2)
    rates = zip(beside.rates, flooders, alone.rates, strict=True)
    both = statistics.median((small + flooder) / whole for small, flooder, whole in rates)
    note = f"alone {alone.rate:,.0f} /s; the flooder {statistics.median(flooders):,.0f} /s, both {both:.2f} of alone"
    return Row(case, round(beside.rate, 1), round(alone.rate / 2, 1), ratio, goal=">= 0.8", others=others, note=note)
