"""
What does the service add to a signature's time, and how long does a person wait beside somebody's batch?

Unloaded: the median of single calls, verification on, beside the median of raw C_Sign in the same rounds.
Loaded: a person's calls, one after the other with a pause, while another caller keeps 10 000 digests (two requests of
5 000, renewed as they end) on the same single lane. On a card (185 ms) a call may take what is left of the signature under
way, its own signature, and 30 ms. Both signatures are as long as the card drew them (its log says), because the p99 of two
draws is 400 ms by itself: a limit for the sum would judge the draws.
"""

import statistics
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from bench.load.interactive import quantiles
from bench.rig.bed import Bed, counted
from bench.rig.child import Client
from bench.rig.daemon import Service
from bench.rig.report import Report, Row, bounded
from bench.rig.rounds import Sample, play
from bench.rig.shim import Shim

ADDED_MS = 1.0
LOADED_MS = 35.0
CARD_S, CARD_SIGMA_S = 0.185, 0.185 * 0.05
CARD_ADDED_MS = 30.0
CARD_MS = 2 * CARD_S * 1e3 + CARD_ADDED_MS
BATCH, BATCHES = 5_000, 2


def ask(*, quick: bool) -> Report:
    rounds = 5 if quick else 7
    seconds, card_s = (3.0, 10.0) if quick else (15.0, 40.0)
    rows: list[Row] = []
    with Bed() as bed:
        token, card = bed.store.tokens("lane", "card")
        shim = Shim(bed.directory / "shim", card.module, logged=True)
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
                return counted(person, answer)

            def bare(kind: str = kind, limit: list[float] = limit) -> Sample:
                limit.append(raw.latency_us(kind, 200) / 1e3)
                return Sample(200, 0.2 * limit[-1])

            play({"raw": bare, "ours": call}, rounds)
            alone = statistics.median(mine - theirs for mine, theirs in zip(ours, limit, strict=True))
            note = f"call {statistics.median(ours):.2f} ms, C_Sign {statistics.median(limit):.2f} ms"
            rows.append(bounded(f"{kind}, alone: added to C_Sign, median", alone, ADDED_MS, "ms", note=note))
            answer = _beside_a_batch(person, other, credential, seconds)
            rows.append(bounded(f"{kind}, beside a batch: p99", answer["p99"], LOADED_MS, "ms", note=_seen(answer)))
        answer = _beside_a_batch(person, other, card.keys["RSA-2048"].label, card_s)
        added = quantiles(added_ms(answer["calls"], shim.signatures()))
        case = "a card of 185 ms, beside a batch: p99"
        note = f"median {added['p50']:.1f} ms, worst {added['max']:.1f} ms"
        rows.append(
            bounded(f"{case} of what a call adds to the two signatures", added["p99"], CARD_ADDED_MS, "ms", note=note)
        )
        # Without a figure to reach: two draws have this p99 by themselves.
        rows.append(bounded(f"{case} of a whole call", answer["p99"], CARD_MS, "ms", note=_seen(answer), goal=""))
    return Report("latency", rows, rounds)


def _beside_a_batch(person: Client, other: Client, credential: str, seconds: float) -> dict[str, Any]:
    order = {"do": "flood", "credential": credential, "batch": BATCH, "in_flight": BATCHES, "channels": 1}
    other.tell({**order, "seconds": seconds + 1.0, "timeout_s": 120})
    settle = person.got({"do": "latency", "credential": credential, "count": 0, "seconds": 0.5})  # the batch is there
    answer = person.got(
        {"do": "latency", "credential": credential, "count": 0, "pause_s": 0.01, "seconds": seconds - settle["seconds"]}
    )
    flood = other.told()
    other.verify()
    return {**answer, "beside": flood["count"] / flood["seconds"]}


def _seen(answer: dict[str, Any]) -> str:
    seen = f"{answer['count']} calls, median {answer['p50']:.1f} ms, worst {answer['max']:.1f} ms"
    return f"{seen}; the batches got {answer['beside']:,.4g} /s"


def added_ms(calls: Sequence[Sequence[float]], signatures: Sequence[tuple[float, float]]) -> list[float]:
    """
    Of each call, what was neither its own signature (the last that was made when it was answered) nor the rest of the one
    under way when it began. Whatever else it waited for is in it, other signatures too.
    """
    ends = [ended for _, ended in signatures]
    found = []
    for began, ended in calls:
        own, first = bisect_right(ends, ended) - 1, bisect_right(ends, began)
        token_s = sum(signatures[one][1] - max(began, signatures[one][0]) for one in {first, own})
        found.append((ended - began - token_s) * 1e3)
    return found
