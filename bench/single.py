"""
What does a call cost? One digest a call, 64 calls in flight, against an empty handler over the same mutual TLS; for
RSA-2048 against raw C too. Beside them the server one would write in a day.
"""

from functools import partial

from bench.rig.bed import Bed, sample
from bench.rig.daemon import Service
from bench.rig.report import Report, Row, compare
from bench.rig.rounds import play

IN_FLIGHT = 64
CHANNELS = 2  # a connection has a limit of streams, and 64 on one are refused now and then


def ask(*, quick: bool) -> Report:
    rounds, seconds = (5, 0.4) if quick else (7, 1.2)
    rows: list[Row] = []
    with Bed() as bed:
        checked, unchecked = bed.store.tokens("verified", "unverified")
        daemon = bed.daemon(Service(checked, bed.lanes), Service(unchecked, bed.lanes, verify=False))
        client = bed.client(daemon)
        empty = bed.client(daemon, target=bed.empty_server(daemon))
        plain = bed.client(daemon, target=bed.plain_server(daemon, unchecked))
        raw = bed.raw(checked)
        for kind in checked.keys:
            order = {"do": "single", "seconds": seconds, "in_flight": IN_FLIGHT, "channels": CHANNELS}
            series = play(
                {
                    "raw": partial(raw.run, kind, seconds / 2),
                    "empty": partial(
                        sample, empty, do="empty", seconds=seconds, in_flight=IN_FLIGHT, channels=CHANNELS
                    ),
                    "on": partial(sample, client, credential=checked.keys[kind].label, **order),
                    "off": partial(sample, client, credential=unchecked.keys[kind].label, **order),
                    "plain": partial(sample, plain, do="plain", kind=kind, seconds=seconds, in_flight=IN_FLIGHT),
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
    return Report("single", rows, rounds)
