"""
What does the service add to a signature's time, and how long does a person wait beside somebody's batch?

Unloaded: the median of single calls, verification on, beside the median of raw C_Sign in the same rounds.
Loaded: a person's calls, one after the other with a pause, while another caller keeps 10 000 digests (two requests of
5 000, renewed as they end) on the same single lane. On a card (185 ms) the time allowed is the signature under way, the
call's own signature, and 30 ms.
"""

import statistics

from bench.rig.bed import Bed
from bench.rig.child import Child
from bench.rig.daemon import Service
from bench.rig.report import Report, Row, bounded
from bench.rig.rounds import Sample, play
from bench.rig.shim import Shim

ADDED_MS = 1.0
LOADED_MS = 35.0
CARD_S, CARD_SIGMA_S = 0.185, 0.185 * 0.05
BATCH, BATCHES = 5_000, 2


def ask(*, quick: bool) -> Report:
    rounds = 5 if quick else 7
    seconds, card_s = (3.0, 10.0) if quick else (15.0, 40.0)
    rows: list[Row] = []
    with Bed() as bed:
        token, card = bed.store.tokens("lane", "card")
        shim = Shim(bed.directory / "shim", card.module)
        shim.script(f"C_Sign * delay-normal {CARD_S} {CARD_SIGMA_S}")
        slow = Service(card, 1, kind="smartcard", module=shim.module, environment=shim.environment)
        daemon = bed.daemon(Service(token, 1), slow)
        person, other, raw = bed.client(daemon), bed.client(daemon, "other"), bed.raw(token, 1)
        for kind in token.keys:
            credential = token.keys[kind].label
            ours: list[float] = []
            limit: list[float] = []

            def call(credential: str = credential, ours: list[float] = ours) -> Sample:
                answer = person.ask({"do": "latency", "credential": credential, "count": 200})
                ours.append(answer["p50"])
                return Sample(answer["count"], answer["seconds"])

            def bare(kind: str = kind, limit: list[float] = limit) -> Sample:
                limit.append(raw.latency_us(kind, 200) / 1e3)
                return Sample(200, 0.2 * limit[-1])

            play({"raw": bare, "ours": call}, rounds)
            added = statistics.median(mine - theirs for mine, theirs in zip(ours, limit, strict=True))
            note = f"call {statistics.median(ours):.2f} ms, C_Sign {statistics.median(limit):.2f} ms"
            rows.append(bounded(f"{kind}, alone: added to C_Sign, median", added, ADDED_MS, "ms", note=note))
            rows.append(_loaded(person, other, credential, f"{kind}, beside a batch: p99", LOADED_MS, seconds))
        allowed = 2e3 * CARD_S + 30.0
        credential = card.keys["RSA-2048"].label
        rows.append(_loaded(person, other, credential, "a card of 185 ms, beside a batch: p99", allowed, card_s))
    return Report("latency", rows, rounds)


def _loaded(person: Child, other: Child, credential: str, case: str, limit_ms: float, seconds: float) -> Row:
    order = {"do": "flood", "credential": credential, "batch": BATCH, "in_flight": BATCHES, "channels": 1}
    other.tell({**order, "seconds": seconds + 1.0, "timeout_s": 120})
    settle = person.ask({"do": "latency", "credential": credential, "count": 0, "seconds": 0.5})  # the batch is there
    answer = person.ask(
        {"do": "latency", "credential": credential, "count": 0, "pause_s": 0.01, "seconds": seconds - settle["seconds"]}
    )
    other.told()
    note = f"{answer['count']} calls, median {answer['p50']:.1f} ms, worst {answer['max']:.1f} ms"
    return bounded(case, answer["p99"], limit_ms, "ms", note=note)
