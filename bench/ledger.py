"""
What does the ledger cost? The daemon against itself without one, on the same tokens, in turns.

The disk is this machine's own: what an fsync costs is in the answer. An unloaded call is compared with raw C_Sign.
"""

import statistics
from functools import partial

from bench.rig.bed import Bed, sample
from bench.rig.child import Child
from bench.rig.daemon import Service
from bench.rig.raw import Raw
from bench.rig.report import Report, Row, bounded, compare
from bench.rig.rounds import Sample, play
from bench.single import CHANNELS, IN_FLIGHT

BATCHES = {  # kind, verification -> goal
    ("RSA-2048", True): ">= 0.97",
    ("P-256", False): ">= 0.90",
    ("P-256", True): ">= 0.95",
}
ADDED_MS = 1.8


def ask(*, quick: bool) -> Report:
    rounds, seconds = (5, 0.5) if quick else (11, 1.2)
    rows: list[Row] = []
    with Bed() as bed:
        checked, unchecked = bed.store.tokens("verified", "unverified")
        services = Service(checked, bed.lanes), Service(unchecked, bed.lanes, verify=False)
        daemon, bare = bed.daemon(*services), bed.daemon(*services, recorded=False)
        ours, without, raw = bed.client(daemon), bed.client(bare), bed.raw(checked, 1)
        for (kind, verify), goal in BATCHES.items():
            credential = (checked if verify else unchecked).keys[kind].label
            for batch in (256,) if quick else (256, 1_000):
                order = {"do": "flood", "credential": credential, "batch": batch, "in_flight": max(4, 2048 // batch)}
                order |= {"channels": 1, "seconds": seconds}
                words = f"{kind}, verify {'on' if verify else 'off'}, batches of {batch}"
                rows.append(_compared(words, ours, without, order, rounds, goal))
        order = {"do": "single", "seconds": seconds, "in_flight": IN_FLIGHT, "channels": CHANNELS}
        for kind in ("P-256",) if quick else ("P-256", "RSA-2048"):
            words = f"{kind}, verify on, single calls, {IN_FLIGHT} in flight"
            credential = checked.keys[kind].label
            rows.append(_compared(words, ours, without, {**order, "credential": credential}, rounds, ">= 0.75"))
        rows.append(_alone(ours, raw, checked.keys["P-256"].label, rounds))
    return Report("ledger", rows, rounds)


def _compared(words: str, ours: Child, without: Child, order: dict[str, object], rounds: int, goal: str) -> Row:
    series = play({"with": partial(sample, ours, **order), "without": partial(sample, without, **order)}, rounds)
    return compare(words, series, "with", "without", goal=goal)


def _alone(ours: Child, raw: Raw, credential: str, rounds: int) -> Row:
    calls: list[float] = []
    limit: list[float] = []

    def call() -> Sample:
        answer = ours.ask({"do": "latency", "credential": credential, "count": 200})
        calls.append(answer["p50"])
        return Sample(answer["count"], answer["seconds"])

    def bare() -> Sample:
        limit.append(raw.latency_us("P-256", 200) / 1e3)
        return Sample(200, 0.2 * limit[-1])

    play({"raw": bare, "ours": call}, rounds)
    added = statistics.median(mine - theirs for mine, theirs in zip(calls, limit, strict=True))
    note = f"call {statistics.median(calls):.2f} ms, C_Sign {statistics.median(limit):.2f} ms"
    return bounded("P-256, verify on, a call alone: added to C_Sign, median", added, ADDED_MS, "ms", note=note)
