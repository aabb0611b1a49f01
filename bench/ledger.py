"""
What does the ledger cost? The daemon against itself without one, on the same tokens, in turns.

The disk is this machine's own: what an fsync costs is in the answer. An unloaded call is compared with raw C_Sign. The
PostgreSQL server is on this machine, too, and takes its time from the same processors.
"""

import statistics
from collections.abc import Callable
from functools import partial

from bench.rig.bed import Bed, counted, sample
from bench.rig.child import Client
from bench.rig.daemon import Service
from bench.rig.raw import Raw
from bench.rig.report import Report, Row, bounded, compare
from bench.rig.rounds import Sample, play
from bench.rig.softhsm import NotInstalled
from bench.single import CHANNELS, IN_FLIGHT

BATCHES = {  # kind, verification -> goal
    ("RSA-2048", True): ">= 0.97",
    ("P-256", False): ">= 0.90",
    ("P-256", True): ">= 0.95",
}
POSTGRESQL_GOAL = ">= 0.80"
ADDED_MS = 1.8


def ask(*, quick: bool) -> Report:
    rounds, seconds = (5, 0.5) if quick else (7, 1.2)
    rows: list[Row] = []
    with Bed() as bed:
        checked, unchecked, *others = bed.store.tokens("verified", "unverified", "bare-verified", "bare-unverified")
        daemon = bed.daemon(Service(checked, bed.lanes), Service(unchecked, bed.lanes, verify=False))
        # On tokens of its own: two daemons do not share one.
        bare = bed.daemon(Service(others[0], bed.lanes), Service(others[1], bed.lanes, verify=False), recorded=False)
        ours, without, raw = bed.client(daemon), bed.client(bare), bed.raw(checked, 1)
        for (kind, verify), goal in BATCHES.items():
            token, other = (checked, others[0]) if verify else (unchecked, others[1])
            for batch in (256,) if quick else (256, 1_000):
                order = {"do": "flood", "batch": batch, "in_flight": max(4, 2048 // batch), "channels": 1}
                words = f"{kind}, verify {'on' if verify else 'off'}, batches of {batch}"
                both = _turns(ours, without, token.keys[kind].label, other.keys[kind].label, order, seconds)
                rows.append(compare(words, play(both, rounds), "with", "without", goal=goal))
        order = {"do": "single", "in_flight": IN_FLIGHT, "channels": CHANNELS}
        for kind in ("P-256",) if quick else ("P-256", "RSA-2048"):
            words = f"{kind}, verify on, single calls, {IN_FLIGHT} in flight"
            both = _turns(ours, without, checked.keys[kind].label, others[0].keys[kind].label, order, seconds)
            rows.append(compare(words, play(both, rounds), "with", "without", goal=">= 0.75"))
        order["random_ids"] = True
        both = _turns(ours, without, checked.keys["P-256"].label, others[0].keys["P-256"].label, order, seconds)
        rows.append(compare("P-256, the same with random request ids", play(both, rounds), "with", "without"))
        rows.append(_alone(ours, raw, checked.keys["P-256"].label, rounds))
    rows += _postgresql(rounds, seconds)
    return Report("ledger", rows, rounds)


def _postgresql(rounds: int, seconds: float) -> list[Row]:
    """Batches with the ledger in PostgreSQL, against none; nothing where there is no server to be had."""
    rows: list[Row] = []
    with Bed() as bed:
        try:
            url = bed.postgresql()
        except NotInstalled as missing:
            print(f"ledger: {missing}")
            return rows
        token, other = bed.store.tokens("verified", "bare-verified")
        ours = bed.client(bed.daemon(Service(token, bed.lanes), database=url))
        without = bed.client(bed.daemon(Service(other, bed.lanes), recorded=False))
        order = {"do": "flood", "batch": 256, "in_flight": 8, "channels": 1}
        for kind in token.keys:
            words = f"PostgreSQL: {kind}, verify on, batches of 256"
            both = _turns(ours, without, token.keys[kind].label, other.keys[kind].label, order, seconds)
            rows.append(compare(words, play(both, rounds), "with", "without", goal=POSTGRESQL_GOAL))
    return rows


def _turns(
    ours: Client, without: Client, credential: str, other: str, order: dict[str, object], seconds: float
) -> dict[str, Callable[[], Sample]]:
    return {
        "with": partial(sample, ours, credential=credential, seconds=seconds, **order),
        "without": partial(sample, without, credential=other, seconds=seconds, **order),
    }


def _alone(ours: Client, raw: Raw, credential: str, rounds: int) -> Row:
    calls: list[float] = []
    limit: list[float] = []

    def call() -> Sample:
        answer = ours.ask({"do": "latency", "credential": credential, "count": 200})
        calls.append(answer["p50"])
        return counted(ours, answer)

    def bare() -> Sample:
        limit.append(raw.latency_us("P-256", 200) / 1e3)
        return Sample(200, 0.2 * limit[-1])

    play({"raw": bare, "ours": call}, rounds)
    added = statistics.median(mine - theirs for mine, theirs in zip(calls, limit, strict=True))
    note = f"call {statistics.median(calls):.2f} ms, C_Sign {statistics.median(limit):.2f} ms"
    return bounded("P-256, verify on, a call alone: added to C_Sign, median", added, ADDED_MS, "ms", note=note)
