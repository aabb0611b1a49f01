"""
What becomes of a service that is offered ten times what it can do?

Capacity is measured first, closed loop: batches of 1 000, as many as it takes. Then digests are offered at ten times that
rate for 60 s (quick: 10 s), open loop, in batches of 1 000 over 16 connections. Goodput is what came back SIGNED within
the time; at the client the time of a refusal runs from the moment its call was due. In the server it is read from
paraph_call_seconds: of 10 calls 9 are refused, so its median is a refusal's.
"""

import re

from bench.rig.bed import Bed
from bench.rig.daemon import Daemon, Service
from bench.rig.report import Report, Row, bounded

BATCH, CONNECTIONS, TIMES = 1_000, 16, 10
SERVER_MS, CLIENT_MS = 20.0, 100.0


def ask(*, quick: bool) -> Report:
    seconds, kinds = (10.0, ("P-256",)) if quick else (60.0, ("P-256", "RSA-2048"))
    rows: list[Row] = []
    with Bed() as bed:
        [token] = bed.store.tokens("verified")
        daemon = bed.daemon(Service(token, bed.lanes))
        client = bed.client(daemon)
        for kind in kinds:
            credential = token.keys[kind].label
            order = {"credential": credential, "batch": BATCH, "channels": CONNECTIONS}
            peak = client.got({**order, "do": "flood", "in_flight": 8, "seconds": 4.0})
            peak_rate = peak["count"] / peak["seconds"]
            before = daemon.metrics()
            got = client.got({**order, "do": "offer", "rate": TIMES * peak_rate, "seconds": seconds})
            rate = got["count"] / got["seconds"]
            if got["shed"] is None:
                raise RuntimeError(f"{TIMES} times the capacity, and nothing was refused: {got['codes']}")
            codes = ", ".join(f"{code} {count}" for code, count in sorted(got["codes"].items()))
            codes += "".join(f", {count} items {reason}" for reason, count in sorted(got["unsigned"].items()))
            note = f"{codes}; sender late by {max(0.0, got['late_s']):.1f} s"
            ratio = round(rate / peak_rate, 3)
            words = f"{kind}, {TIMES} x capacity for {seconds:.0f} s"
            rows.append(Row(f"{words}: goodput", round(rate, 1), round(peak_rate, 1), ratio, goal=">= 0.90", note=note))
            inside = _median_ms(daemon, before)
            rows.append(bounded(f"{words}: shed in the server, median", inside, SERVER_MS, "ms"))
            shed = f"p50 {got['shed']['p50']:.1f} ms; served p50 {got['served']['p50']:.0f} ms"
            rows.append(bounded(f"{words}: shed at the client, p99", got["shed"]["p99"], CLIENT_MS, "ms", note=shed))
    return Report("overload", rows, 1)


def _median_ms(daemon: Daemon, before: str) -> float:
    """The median of what the histogram gained, within its bucket by a straight line."""
    old, new = _buckets(before), _buckets(daemon.metrics())
    gained = [(bound, count - old.get(bound, 0.0)) for bound, count in sorted(new.items())]
    half = gained[-1][1] / 2
    if not half:
        raise RuntimeError("the server has seen no call")
    low = below = 0.0
    for bound, count in gained:
        if count >= half and bound != float("inf"):
            return (low + (bound - low) * (half - below) / max(1.0, count - below)) * 1e3
        low, below = bound, count
    return float("inf")


def _buckets(text: str) -> dict[float, float]:
    found = re.findall(r"^paraph_call_seconds_bucket\{([^}]*)\} (\S+)", text, re.MULTILINE)
    rows = {}
    for labels, value in found:
        names = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if names.get("rpc") == "SignDigests":
            rows[float(names["le"].replace("+Inf", "inf"))] = float(value)
    return rows
