"""
How many PDFs a second are signed as PAdES B-B, and how does that compare to pyHanko by itself and to the bare token?

Documents go up and come down through gRPC, on several streams with several unanswered on each: short ones in one message,
as the client library sends them, and once more in chunks. The peer is one pyHanko process with its own PKCS11Signer on the
same token, all in memory: as its documentation shows it, and told how long a signature is (`peers/`). Asked of a one-page
minimal PDF, by the client library's `sign_file` too, and of every file of deploy/demo/corpus, of which the median and the
worst are shown; last of digests alone, as the client library sends them when it keeps the document to itself.
"""

import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench.rig.bed import Bed, sample
from bench.rig.child import Child, Client
from bench.rig.daemon import REPOSITORY, Service
from bench.rig.pdf import minimal_pdf
from bench.rig.raw import Raw
from bench.rig.report import Report, Row, compare
from bench.rig.rounds import play

STREAMS, IN_FLIGHT = 3, 16  # as many as a stream may have in work: a client that does not wait for answers has them
DIGESTS = 1_000
CORPUS = REPOSITORY / "deploy" / "demo" / "corpus"
PYHANKO, SIZED = "one pyHanko process", "pyHanko, size given"
FILES = {"one after the other": 1, "4 at one time": 4}  # as many streams as a caller may have


def ask(*, quick: bool) -> Report:
    rounds, seconds = (5, 0.6) if quick else (7, 1.5)
    with Bed() as bed:
        [token] = bed.store.tokens("verified")
        daemon = bed.daemon(Service(token, bed.lanes))
        credential = token.keys["RSA-2048"].label
        client, raw = bed.client(daemon), bed.raw(token)
        words = (token.module, token.label, token.pin_file, credential, daemon.chain(credential))
        pyhanko = bed.peer("pyhanko_pkcs11", *words, token=token)
        page = bed.directory / "page.pdf"
        page.write_bytes(minimal_pdf())
        minimal = _case("minimal PDF, up and down", client, raw, pyhanko, credential, page, rounds, seconds)
        rows = [_aimed(minimal, "", f"{PYHANKO} >= 15, >= 0.22")]
        rows.append(
            _case("minimal PDF, in chunks", client, raw, pyhanko, credential, page, rounds, seconds / 2, chunks=True)
        )
        rows += _files(client, raw, credential, page, rounds, seconds / 2)
        # In the quick form three rounds a file, for time.
        each, slice_s = (3, 0.2) if quick else (5, 0.7)
        files = [
            _case(path.name, client, raw, pyhanko, credential, path, each, slice_s)
            for path in sorted(CORPUS.glob("*.pdf"))
        ]
        rows += _corpus(files, f"{each} rounds a file")
        guess = raw.run("RSA-2048", 0.2).rate
        order = {"credential": credential, "batch": DIGESTS, "in_flight": 4, "output": "PADES_B_B"}
        total = max(2 * DIGESTS, guess * seconds)
        series = play(
            {
                "raw": partial(raw.run, "RSA-2048", seconds / 2),
                "ours": partial(sample, client, do="batches", total=total, **order),
            },
            rounds,
        )
        rows.append(compare("digests only, CMS for the gap back", series, "ours", "raw", goal=">= 0.85"))
    return Report("pades", rows, rounds)


def _case(
    name: str, client: Client, raw: Raw, pyhanko: Child, credential: str, path: Path, rounds: int, seconds: float,
    *, chunks: bool = False,
) -> Row:  # fmt: skip
    """One document again and again; last, that others find what came back good, too."""
    order = {"credential": credential, "files": [str(path)], "streams": STREAMS, "chunks": chunks}
    order |= {"do": "documents", "in_flight": IN_FLIGHT}
    client.got({**order, "seconds": 0.1})
    peer = partial(sample, pyhanko, files=[str(path)], seconds=seconds / 2)
    series = play(
        {
            "raw": partial(raw.run, "RSA-2048", min(0.3, seconds / 2)),
            "ours": partial(sample, client, seconds=seconds, **order),
            PYHANKO: partial(peer, size_given=False),
            SIZED: partial(peer, size_given=True),
        },
        rounds,
    )
    client.ask({"do": "examine"})
    return compare(name, series, "ours", "raw", {PYHANKO: PYHANKO, SIZED: SIZED})


def _files(client: Client, raw: Raw, credential: str, path: Path, rounds: int, seconds: float) -> list[Row]:
    """A short one by the client library, a stream for each."""
    contestants = {"raw": partial(raw.run, "RSA-2048", min(0.3, seconds / 2))}
    for name, count in FILES.items():
        order = {"do": "files", "credential": credential, "file": str(path), "at_once": count}
        contestants[name] = partial(sample, client, seconds=seconds, **order)
    series = play(contestants, rounds)
    client.ask({"do": "examine"})
    return [compare(f"minimal PDF, sign_file, {name}", series, name, "raw") for name in FILES]


def _corpus(files: list[Row], note: str) -> list[Row]:
    """Median and worst, by the ratio to raw C and by that to pyHanko; then each file for the table."""
    by_peer = sorted(files, key=lambda row: row.peers[PYHANKO])
    by_limit = sorted(files, key=lambda row: row.ratio)
    middle = by_limit[len(files) // 2]
    peers = {peer: round(statistics.median(row.peers[peer] for row in files), 3) for peer in (PYHANKO, SIZED)}
    median = Row(
        "corpus, median", middle.ours, middle.limit, middle.ratio, peers, f"{PYHANKO} >= 7, >= 0.09",
        cpu_us=middle.cpu_us, others=middle.others, note=f"{len(files)} files, {note}",
    )  # fmt: skip
    worst = _aimed(by_limit[0], "corpus, worst of raw C: ", "")
    return [
        median,
        worst,
        _aimed(by_peer[0], "corpus, worst of pyHanko: ", ""),
        *(_aimed(r, "file ", "") for r in files),
    ]


def _aimed(row: Row, prefix: str, goal: str) -> Row:
    return replace(row, case=prefix + row.case, goal=goal)
