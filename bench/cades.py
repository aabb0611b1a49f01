"""
At what share of the token's speed are CAdES B-B made over document digests?

RSA-2048, verification on, batches as large as the credential allows. The peer is `openssl cms -sign`, a process for
each document, as many side by side as there are lanes, with its key in a *file*: it has no token to wait for.
"""

from functools import partial

from bench.rig.bed import Bed, sample
from bench.rig.daemon import Service
from bench.rig.filekey import file_key
from bench.rig.report import Report, Row, compare
from bench.rig.rounds import play

BATCH = 1_000  # under every credential's cms_digests_max with two certificates


def ask(*, quick: bool) -> Report:
    rounds, seconds = (5, 0.5) if quick else (7, 1.5)
    rows: list[Row] = []
    with Bed() as bed:
        [token] = bed.store.tokens("verified")
        daemon = bed.daemon(Service(token, bed.lanes))
        client, raw = bed.client(daemon), bed.raw(token)
        document = bed.directory / "document"
        document.write_bytes(b"A document of the bench.\n" * 40)
        openssl = bed.peer("openssl_cms", *file_key(bed.directory, daemon.pki), bed.lanes)
        for kind in ("RSA-2048",) if quick else ("RSA-2048", "P-256"):
            guess = raw.run(kind, 0.2).rate
            order = {"credential": token.keys[kind].label, "batch": BATCH, "in_flight": 4, "output": "CADES_B_B"}
            contestants = {
                "raw": partial(raw.run, kind, seconds / 2),
                "ours": partial(sample, client, do="batches", total=max(2 * BATCH, guess * seconds), **order),
            }
            if kind == "RSA-2048":
                contestants["openssl"] = partial(sample, openssl, file=str(document), seconds=seconds)
            series = play(contestants, rounds)
            goal = ">= 0.85" if kind == "RSA-2048" else ""
            peers = {"openssl cms (RSA-2048 file key)": "openssl"} if kind == "RSA-2048" else {}
            words = f"{kind}, CAdES B-B over digests, batches of {BATCH}"
            rows.append(compare(words, series, "ours", "raw", peers, goal=goal))
    return Report("cades", rows, rounds)
