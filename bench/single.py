"""
What does a call cost? One digest a call, 64 calls in flight, against an empty handler over the same mutual TLS; for
RSA-2048 against raw C too. Beside them the server one would write in a day.

And what does a second caller cost the busy one, who asks for next to nothing: 5 single digests a second, with the same key?
"""

import statistics
import time
from dataclasses import replace
from functools import partial
from typing import Any

from bench.rig.bed import Bed, counted, sample
from bench.rig.child import Client
from bench.rig.daemon import Service
from bench.rig.report import Report, Row, compare
from bench.rig.rounds import Sample, Series, play

IN_FLIGHT = 64
LIGHT = 5  # calls a second
CHANNELS = 2  # a connection has a limit of streams, and 64 on one are refused now and then


def ask(*, quick: bool) -> Report:
    rounds, seconds = (5, 0.4) if quick else (7, 1.2)
    asked = ("P-256",) if quick else ("RSA-2048", "P-256")  # for the second caller
    rows: list[Row] = []
    with Bed() as bed:
        checked, unchecked = bed.store.tokens("verified", "unverified")
        daemon = bed.daemon(Service(checked, bed.lanes), Service(unchecked, bed.lanes, verify=False))
        client, other = bed.client(daemon), bed.client(daemon, "other")
        empty = bed.client(daemon, target=bed.empty_server(daemon))
        plain = bed.client(daemon, target=bed.plain_server(daemon, unchecked))
        raw = bed.raw(checked)
        for kind in checked.keys:
            order = {"do": "single", "seconds": seconds, "in_flight": IN_FLIGHT, "channels": CHANNELS}
            light: list[float] = []
            beside = partial(_beside, client, other, {**order, "credential": checked.keys[kind].label}, light)
            series = play(
                {
                    "raw": partial(raw.run, kind, seconds / 2),
                    "empty": partial(
                        sample, empty, do="empty", seconds=seconds, in_flight=IN_FLIGHT, channels=CHANNELS
                    ),
                    "on": partial(sample, client, credential=checked.keys[kind].label, **order),
                    "off": partial(sample, client, credential=unchecked.keys[kind].label, **order),
                    **({"beside": beside} if kind in asked else {}),
                    "plain": partial(sample, plain, do="plain", kind=kind, seconds=seconds / 2, in_flight=IN_FLIGHT),
                },
                rounds,
            )
            for switch in ("off", "on"):
                words = f"{kind}, verify {switch}, {IN_FLIGHT} in flight"
                others = {"plain server": "plain"}
                if kind == "RSA-2048":
                    peers = others | {"empty handler": "empty"}
                    rows.append(compare(f"{words}, of raw C", series, switch, "raw", peers, goal=">= 0.42"))
                else:
                    goal = ">= 0.65" if switch == "off" else ">= 0.58"
                    peers = others | {"raw C": "raw"}
                    rows.append(compare(f"{words}, of an empty handler", series, switch, "empty", peers, goal=goal))
            if kind in asked:
                rows.append(_light(kind, series, light))
    return Report("single", rows, rounds)


def _beside(client: Client, other: Client, order: dict[str, Any], light: list[float]) -> Sample:
    """The light caller begins before and ends after what is counted; the median of its calls' times goes to `light`."""
    less = {"do": "offer", "credential": order["credential"], "batch": 1, "rate": LIGHT, "channels": 1}
    other.tell({**less, "seconds": order["seconds"] + 2 / LIGHT})
    time.sleep(1 / LIGHT)  # the busy one begins as it does without the other
    answer = client.ask(order)
    light.append(other.told()["served"]["p50"])

    def verify() -> None:
        client.verify()
        other.verify()

    return replace(counted(client, answer), verify=verify)


def _light(kind: str, series: dict[str, Series], light: list[float]) -> Row:
    words = f"{kind}, verify on, beside a caller of {LIGHT} calls a second, of the same without"
    note = f"its own calls: {statistics.median(light):.1f} ms"
    return compare(words, series, "beside", "on", goal=">= 0.9", note=note)
