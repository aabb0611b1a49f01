"""
Does memory grow? Resident memory of front and lanes after many signatures (10^6; quick: 5*10^4), looked at ten times.

P-256, verification off, batches of 1 000: the fastest way to many. 'Flat' is the growth over the second half.
"""

from bench.rig.bed import Bed
from bench.rig.daemon import Service
from bench.rig.machine import rss_mb
from bench.rig.report import Report, Row, bounded

LANE_MB, FRONT_MB, GROWTH_MB = 35.0, 150.0, 2.0
LOOKS = 10


def ask(*, quick: bool) -> Report:
    signatures = 50_000 if quick else 1_000_000
    with Bed() as bed:
        [token] = bed.store.tokens("unverified")
        daemon = bed.daemon(Service(token, bed.lanes, verify=False))
        client = bed.client(daemon)
        order = {"do": "batches", "credential": token.keys["P-256"].label, "batch": 1_000, "in_flight": 4}
        lanes, front = [max(map(rss_mb, daemon.lane_pids()))], [rss_mb(daemon.pid)]
        for _ in range(LOOKS):
            client.got({**order, "total": signatures // LOOKS})
            lanes.append(max(map(rss_mb, daemon.lane_pids())))
            front.append(rss_mb(daemon.pid))
    words = f"after {signatures:,} signatures".replace(",", " ")
    return Report("memory", [*_rows("lane", lanes, LANE_MB, words), *_rows("front", front, FRONT_MB, words)], 1)


def _rows(what: str, looks: list[float], limit_mb: float, words: str) -> list[Row]:
    grown = looks[-1] - looks[len(looks) // 2]
    return [
        bounded(f"{what}, {words}", looks[-1], limit_mb, "MB", note=f"before {looks[0]:.1f} MB"),
        bounded(f"{what}, grown over the second half", max(0.0, grown), GROWTH_MB, "MB"),
    ]
