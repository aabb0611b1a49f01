"""What can the token do? Raw C_SignInit and C_Sign, one lane and all lanes, and with one OpenSSL verify behind each."""

from functools import partial

from bench.rig.bed import Bed
from bench.rig.report import Report, Row
from bench.rig.rounds import play


def ask(*, quick: bool) -> Report:
    rounds, seconds = (5, 0.3) if quick else (7, 0.8)
    rows = []
    with Bed() as bed:
        [token] = bed.store.tokens("limit")
        one, all_ = bed.raw(token, 1), bed.raw(token)
        for kind in token.keys:
            series = play(
                {
                    "raw": partial(all_.run, kind, seconds),
                    "verified": partial(all_.run, kind, seconds, verify=True),
                    "one": partial(one.run, kind, seconds),
                },
                rounds,
            )
            raw = series["raw"]
            for name, text in (("raw", f"{bed.lanes} lanes"), ("verified", "and one verify each"), ("one", "1 lane")):
                each = series[name]
                ratio, others = round(each.over(raw), 3), round(max(each.others), 2)
                rows.append(
                    Row(
                        f"{kind}, {text}",
                        round(each.rate, 1),
                        round(raw.rate, 1),
                        ratio,
                        cpu_us=each.cpu,
                        others=others,
                    )
                )
    return Report("limit", rows, rounds)
