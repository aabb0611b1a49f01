"""
At what share of the token's speed are batches of digests signed?

Against raw C at equal lanes; with verification on also against raw C with one OpenSSL verify behind each signature; and
beside them the server one would write in a day. opencryptoki's soft token is asked too where it can be started; in the full
form other kinds of keys, too, in batches of 256 against raw C.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from bench.rig import opencryptoki
from bench.rig.bed import Bed, sample
from bench.rig.child import Child
from bench.rig.daemon import Service
from bench.rig.raw import Raw
from bench.rig.report import Report, Row, compare
from bench.rig.rounds import Sample, play
from bench.rig.softhsm import Token

BATCHES = (256, 1_000, 5_000)
QUICK = (256, 1_000)
MORE_S, MORE_ROUNDS = 0.5, 3
GOALS = {
    ("RSA-2048", True): ">= 0.92",
    ("RSA-2048", False): ">= 0.95",
    ("P-256", True): ">= 0.42, verified >= 0.88",
    ("P-256", False): ">= 0.90",
}


def ask(*, quick: bool) -> Report:
    rounds, seconds = (5, 0.4) if quick else (5, 1.2)
    rows: list[Row] = []
    with Bed() as bed:
        checked, unchecked = bed.store.tokens("verified", "unverified")
        daemon = bed.daemon(Service(checked, bed.lanes), Service(unchecked, bed.lanes, verify=False))
        client = bed.client(daemon)
        plain = bed.client(daemon, target=bed.plain_server(daemon, unchecked))
        for token in (checked, unchecked):
            raw = bed.raw(token)
            batches = QUICK if quick else BATCHES
            for kind in token.keys:
                peer = partial(sample, plain, do="plain", kind=kind, seconds=seconds / 2, in_flight=64)
                rows += cases(client, raw, token, kind, rounds, seconds, batches, peer)
    if not quick:
        rows += _more()
    rows += _soft(quick=quick)
    return Report("digests", rows, rounds)


def cases(
    client: Child, raw: Raw, token: Token, kind: str, rounds: int, seconds: float,
    batches: Sequence[int] = BATCHES, plain: Callable[[], Sample] | None = None,
) -> list[Row]:  # fmt: skip
    """One kind of key, all sizes of batch, in one set of rounds."""
    verify = token.label != "unverified"
    guess = raw.run(kind, 0.2).rate  # how many digests make the time of a round
    contestants: dict[str, Callable[[], Sample]] = {"raw": partial(raw.run, kind, seconds)}
    if verify:
        contestants["verified"] = partial(raw.run, kind, seconds, verify=True)
    if plain is not None:
        contestants["plain server"] = plain
    for batch in batches:
        # At least two of the largest: the first one's answer is written while the second is signed.
        order = {"credential": token.keys[kind].label, "batch": batch, "total": max(2 * batch, guess * seconds)}
        contestants[str(batch)] = partial(sample, client, do="batches", in_flight=max(4, 2048 // batch), **order)
    series = play(contestants, rounds)
    peers: dict[str, str] = {name: name for name in ("verified", "plain server") if name in contestants}
    words = f"{kind}, verify {'on' if verify else 'off'}"
    goal = GOALS[kind, verify]
    return [compare(f"{words}, batches of {batch}", series, str(batch), "raw", peers, goal=goal) for batch in batches]


def _more() -> list[Row]:
    """Other kinds of keys, verification on: over SHA-256 digests, Ed25519 over messages as long."""
    rows: list[Row] = []
    with Bed() as bed:
        token = bed.store.more("more")
        daemon = bed.daemon(Service(token, bed.lanes))
        client, raw = bed.client(daemon), bed.raw(token)
        for kind, key in token.keys.items():
            order = {"credential": key.label, "batch": 256, "total": max(2 * 256, raw.run(kind, 0.2).rate * MORE_S)}
            contestants = {
                "raw": partial(raw.run, kind, MORE_S),
                "ours": partial(sample, client, do="batches", in_flight=8, **order),
            }
            series = play(contestants, MORE_ROUNDS)
            rows.append(compare(f"{kind}, verify on, batches of 256", series, "ours", "raw"))
    return rows


def _soft(*, quick: bool) -> list[Row]:
    try:
        rows = opencryptoki.rows_from_house(quick=quick)
    except opencryptoki.Skipped as why:
        print(f"digests: opencryptoki's soft token is not asked: {why}", flush=True)
        return []
    return [replace(Row(**row), case=f"opencryptoki, {row['case']}", goal=">= 0.85") for row in rows]
