"""At what share of the token's speed are 256 concurrent single calls signed through the coalescing client?"""

from functools import partial

from bench.rig.bed import Bed, sample
from bench.rig.daemon import Service
from bench.rig.report import NotBuilt, Report, Row, compare
from bench.rig.rounds import play

CONCURRENT = 256


def ask(*, quick: bool) -> Report:
    rounds, seconds = (5, 0.5) if quick else (7, 1.5)
    rows: list[Row] = []
    with Bed() as bed:
        [token] = bed.store.tokens("unverified")
        daemon = bed.daemon(Service(token, bed.lanes, verify=False))
        client, raw = bed.client(daemon), bed.raw(token)
        for kind in ("P-256",) if quick else ("P-256", "RSA-2048"):
            order = {"do": "coalesce", "credential": token.keys[kind].label, "in_flight": CONCURRENT}
            if not client.got({**order, "seconds": 0.2})["built"]:
                raise NotBuilt("Client.sign_digest")
            series = play(
                {"raw": partial(raw.run, kind, seconds / 2), "ours": partial(sample, client, seconds=seconds, **order)},
                rounds,
            )
            goal = ">= 0.65" if kind == "P-256" else ""
            words = f"{kind}, verify off, {CONCURRENT} concurrent sign_digest"
            rows.append(compare(words, series, "ours", "raw", goal=goal))
    return Report("coalesce", rows, rounds)
