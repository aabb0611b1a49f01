"""
Do N cards sign N times as much as one?

N SoftHSM tokens, each in a store and with a worker process of its own, behind the module of tests/shim, which draws every signature's time in C:
median 185 ms, sigma 5 % (a median RSA-2048 card). Single calls, three unanswered for each card, counted at the client.
Then the same with one card that needs 676 ms (the slowest known), and with one that dies half-way. The keys of all
cards are one credential's, as of cards issued to one purpose; the limit is what the cards could do by their latencies.

And how long eight tokens need from the daemon's start to READY.
"""

import statistics
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from bench.rig import softhsm
from bench.rig.bed import Bed, counted
from bench.rig.child import Client
from bench.rig.daemon import Service
from bench.rig.report import Report, Row, bounded
from bench.rig.rounds import Sample, play
from bench.rig.shim import Shim

CARD_S, SIGMA_S, SLOW_S = 0.185, 0.185 * 0.05, 0.676
WARM_S = 1.0  # until every card is at work
START_S = 2.0


def ask(*, quick: bool) -> Report:
    rounds, seconds = (1, 4.0) if quick else (5, 4.0)
    rows: list[Row] = []
    for count in (8, 64) if quick else (8, 16, 32, 64):
        with Bed() as bed:
            rows += _cases(bed, count, rounds, seconds)
    rows.append(_start(3 if quick else 5))
    return Report("cards", rows, rounds)


def _cases(bed: Bed, count: int, rounds: int, seconds: float) -> list[Row]:
    """All cards alike; with eight of them also with one that is slow, and with one that dies."""
    cards = softhsm.cards(bed.directory / "cards", count)
    alike = Shim(bed.directory / "alike", cards[0].module)
    other = Shim(bed.directory / "other", cards[0].module)
    for shim in (alike, other):
        shim.script(f"C_Sign * delay-normal {CARD_S} {SIGMA_S}")
    services = [
        Service(card, 1, kind="smartcard", module=shim.module, environment=shim.environment)
        for card, shim in zip(cards, [other] + [alike] * (count - 1), strict=True)
    ]
    client = bed.client(bed.daemon(*services))
    credential = cards[0].keys["RSA-2048"].label
    order = {"do": "single", "credential": credential, "in_flight": 3 * count, "channels": 1 + count // 12}
    order |= {"seconds": seconds, "warm": WARM_S, "tolerant": True}
    rows = [_row(f"{count} cards", client, partial(client.ask, order), count / CARD_S, rounds)]
    if count == 8:
        other.script(f"C_Sign * delay-normal {SLOW_S} {SIGMA_S}")
        slow = partial(client.ask, order)
        rows.append(_row("8 cards, one of them at 676 ms", client, slow, 7 / CARD_S + 1 / SLOW_S, rounds))
        other.script(f"C_Sign * delay-normal {CARD_S} {SIGMA_S}")
        client.got({**order, "seconds": 1.0})
        rows.append(_row("8 cards, one dies half-way", client, partial(_dying, client, other, order), 7.5 / CARD_S, 1))
    return rows


def _dying(client: Client, shim: Shim, order: dict[str, Any]) -> dict[str, Any]:
    """In the middle of what is counted the card answers CKR_DEVICE_REMOVED, and then no card is in its reader."""
    client.tell(order)
    time.sleep(order["warm"] + order["seconds"] / 2)
    shim.script("C_Sign * return 0x32", "C_GetSlotList * absent")
    return client.told()


def _row(case: str, client: Client, run: Callable[[], dict[str, Any]], limit: float, rounds: int) -> Row:
    """The limit is computed, not measured; so a ratio needs no pair."""
    failed: Counter[str] = Counter()

    def ours() -> Sample:
        answer = run()
        failed.update(answer["failed"])
        return counted(client, answer)

    series = play({"ours": ours}, rounds)["ours"]
    note = f"failed calls: {failed.total()}" + (f", {failed.most_common(1)[0][0]}" if failed else "")
    ratio, others = round(series.rate / limit, 3), round(max(series.others), 2)
    return Row(
        case, round(series.rate, 2), round(limit, 2), ratio, goal=">= 0.97", cpu_us=series.cpu, others=others, note=note
    )


def _start(starts: int) -> Row:
    with Bed() as bed:
        labels = [f"token{number}" for number in range(8)]
        daemon = bed.daemon(*(Service(token, 1) for token in bed.store.tokens(*labels, kinds=("P-256",))))
        took = []
        for _ in range(starts):
            daemon.stop()
            began = time.monotonic()
            daemon.start()
            took.append(time.monotonic() - began)
    note = f"{starts} starts, worst {max(took):.2f} s"
    return bounded("8 tokens from start to READY", statistics.median(took), START_S, "s", note=note)
