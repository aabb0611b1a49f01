"""
What share of the token does a caller keep beside one that floods it?

Two callers' fair shares of a token are halves. The small caller sends batches of 64 with 16 unanswered, which alone use
the token up; the flood is another caller's, with the largest legal batches, as many as one caller may have in work. Its
share is its rate beside the flood by half its rate alone, in the same rounds. A second case floods with single digests.
"""

from functools import partial

from bench.rig.bed import Bed, sample
from bench.rig.child import Child
from bench.rig.daemon import Service
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
                beside = partial(_beside, small, flooder, order, {**flood, "credential": credential}, seconds)
                series = play({"alone": partial(sample, small, **order), "beside": beside}, rounds)
                rows.append(_row(f"{kind}, beside {name}", series))
    return Report("fairness", rows, rounds)


def _beside(small: Child, flooder: Child, order: dict[str, object], flood: dict[str, object], seconds: float) -> Sample:
    """The flood begins before and ends after what is counted."""
    flooder.tell({**flood, "seconds": seconds + 1.0})
    small.ask({**order, "seconds": 0.5})
    counted = sample(small, **order)
    flooder.told()
    return counted


def _row(case: str, series: dict[str, Series]) -> Row:
    alone, beside = series["alone"], series["beside"]
    ratio = round(2 * beside.over(alone), 3)
    others = round(max(*alone.others, *beside.others), 2)
    note = f"alone {alone.rate:,.0f} /s"
    return Row(case, round(beside.rate, 1), round(alone.rate / 2, 1), ratio, goal=">= 0.8", others=others, note=note)
