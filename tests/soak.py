"""
The full figures, too long for every run of the tests: `python -m tests.soak` lists them, `python -m tests.soak leaks`
runs one, prints its line and adds it to tests/SOAK.md.

The tests run the same functions in a smaller size.
"""

import argparse
import asyncio
import contextlib
import itertools
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psutil
import pytest

from signer.store import open_store
from tests import abuse as abuses
from tests import modules
from tests import pulls as pulling
from tests.daemon import Rig, running, until
from tests.fault_list import by_fault
from tests.pool import pins as pin_sequences
from tests.pool.test_entries import ENTRIES, forget_losses, four, hangs, strikes
from tests.pool.test_held import GROWTH_MB, held_by_lanes
from tests.pool.test_interleavings import everybodys, weather
from tests.portal import load, load_procedures, sights
from tests.postgres import Postgres
from tests.shim import Shim
from tests.signer.access.calls import (
    Caller,
    ask,
    card_rig,
    digests,
    lane_pids,
    metric,
    processes,
    rss_mb,
    shim_of,
    signed,
    statuses,
)
from tests.signer.access.test_fairness import FLOODS, SHARE, flooded_rig, overload, share
from tests.signer.ledger.crashes import run as crash_run
from tests.signer.ledger.fill import fill
from tests.signer.ledger.tampering import POSITIONS, TAMPERS
from tests.signer.ledger.test_audit import NO_TRACE, check_history, is_seen, tampered
from tests.signer.ledger.test_crashes import crashing_rig
from tests.signer.ledger.test_exactly_once_postgresql import on, server_hangs, table_locked
from tests.signer.ledger.test_storage import disk_hangs, lock_held, locked, rig_on_disk
from tests.signer.people import flood, speed
from tests.signer.people.machine import Machine
from tests.signer.people.stage import Stage
from tests.signer.people.test_machine import ALL_TOLD, STEPS
from tests.signer.people.test_machine import run as run_machine
from tests.signer.people.test_once import REDEEMERS, race
from tests.simulation.many import spread
from tests.softhsm import MODULE

OUTCOMES = Path(__file__).with_name("SOAK.md")
HEAD = """\
# Soak outcomes

The last outcome of each `make soak PART=...`, newest last.

| date | part | size | outcome |
|---|---|---|---|
"""
WORST = ("tests/pool/test_faults.py", "tests/pool/test_shortages.py")  # the part `faults`
BATCH = 1_000  # digests in a call
PACE_S = 24.0  # two losses of a lane; a breaker opens at five in a minute
TOKENS_AT_ONCE = 5
STORMS = 10  # that a process is given at a time
MEAN_STEPS = 32  # at least, of the runs of the state machine: some end early


@dataclass(frozen=True)
class Held:
    """What the daemon and its processes hold at one moment."""

    processes: int
    fds: int  # of all of them
    sessions: int  # PKCS#11 sessions opened and not closed
    front_mb: float
    lanes_mb: float  # of the largest lane


def held(rig: Rig) -> Held:
    everybody = processes(rig)
    opened = closed = 0
    with (shim_of(rig).directory / "log").open() as log:
        for line in log:  # not parsed as a whole: it has two lines for each signature
            opened += '"C_OpenSession","ev":"leave"' in line and '"rv":0' in line
            closed += '"C_CloseSession","ev":"leave"' in line and '"rv":0' in line
    return Held(
        len(everybody), sum(_fds(process) for process in everybody), opened - closed, rss_mb(rig), lanes_mb(rig)
    )


def lanes_mb(rig: Rig) -> float:
    return max(psutil.Process(pid).memory_info().rss for pid in lane_pids(rig)) / 1e6


def _fds(process: psutil.Process) -> int:
    return int(process.num_fds())


def settled(rig: Rig) -> Held:
    """What is held once that has not changed for a second: a process that is replaced is back. At most 10 s are waited."""
    before, since, end = held(rig), time.monotonic(), time.monotonic() + 10
    while time.monotonic() < end:
        time.sleep(0.1)
        now = held(rig)
        if more(now, before) or now.fds != before.fds:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > 1:
            break
    return before


def quiet(rig: Rig, first: Held) -> Held:
    """What is held when the daemon is at rest: connections that are being closed are waited for, at most 10 s."""
    with contextlib.suppress(AssertionError):
        until(lambda: not more(held(rig), first), 10)
    return held(rig)


def more(now: Held, first: Held) -> bool:
    return now.processes != first.processes or now.sessions != first.sessions or now.fds > first.fds


def work(rig: Rig, signatures: int, cancels: int) -> None:
    """So many signatures in batches, and so many calls that are cancelled while they are in work, on new connections."""
    with Caller(rig) as portal:
        for start in range(0, signatures, BATCH):
            found = statuses(portal.sign(digests=digests(min(BATCH, signatures - start), start), timeout_s=60))
            assert set(found) == {"SIGNED"}
    shim_of(rig).script("C_Sign * delay 0.001")  # slow enough that calls are still in work when they are cancelled

    def cancelled() -> float:
        return metric(rig, "paraph_calls_total", code="CANCELLED")

    enough = cancelled() + cancels
    while cancelled() < enough:
        with Caller(rig) as portal:
            before = signed(rig)
            calls = [portal.signing.SignDigests.future(ask(digests=digests(20)), timeout=60) for _ in range(50)]
            until(lambda: signed(rig) > before, 10, "the first of the calls in work")  # noqa: B023 -- called at once
            for call in reversed(calls):
                call.cancel()
        until(lambda: metric(rig, "paraph_calls_in_work") == 0, 10, "the end of the cancelled calls")
    shim_of(rig).clear()


def leaks(signatures: int = 100_000, cancels: int = 1_000) -> str:
    """
    Sign and cancel; nothing that the daemon holds may grow. Answers the figures, raises AssertionError.

    What is held is compared between the end of a first tenth, when everything was made once, and of each half.
    """
    with running(card_rig("P-256")) as rig:
        began = time.monotonic()
        work(rig, signatures // 10, cancels // 10)
        first = settled(rig)
        halves = []
        for _ in range(2):
            work(rig, signatures * 45 // 100, cancels * 45 // 100)
            halves.append(quiet(rig, first))
        took_s = time.monotonic() - began
        done = metric(rig, "paraph_items_total", status="SIGNED")
        ended = metric(rig, "paraph_calls_total", code="CANCELLED")
        for half in halves:
            assert not more(half, first), (first, half)
            assert half.front_mb < 150, half
        grown = halves[1].front_mb - halves[0].front_mb
        assert grown < max(5, halves[0].front_mb * 0.05), f"the second half left the front {grown:.1f} MB larger"
        lane_mb = halves[1].lanes_mb - first.lanes_mb
        assert lane_mb <= GROWTH_MB, f"the lane is {lane_mb:.1f} MB larger"
        assert done >= signatures
        assert ended >= cancels
        last = asdict(halves[1])
    return (
        f"{done:,.0f} signatures, {ended:,.0f} cancelled calls in {took_s:.0f} s: {last['processes']} processes, "
        f"{last['fds']} descriptors, {last['sessions']} sessions before and after; front {first.front_mb:.0f}, "
        f"{halves[0].front_mb:.0f}, {halves[1].front_mb:.0f} MB after a tenth, half, all; the lane {lane_mb:+.1f} MB"
    )


def all_leaks() -> str:
    """The daemon, and then its lanes alone, a person's among them."""
    said = leaks()
    with tempfile.TemporaryDirectory() as directory:
        lanes = asyncio.run(held_by_lanes(Path(directory), signatures=100_000, wrong_pins=1_000, cancels=1_000))
    return f"{said}; lanes alone: {lanes}"


def entries(repeats: int = 10, paced: int = 40) -> str:
    """
    SIGSEGV and abort at every entry of a module, so many times, in random order, under load on four tokens: as fast as the
    lane is back, and then so many at the pace that a breaker allows, at which others' times are compared.
    """
    plan = [(entry, action) for entry in ENTRIES for action in ("crash", "abort")] * repeats
    random.Random(6).shuffle(plan)
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        forget_losses(patch)
        place = Path(directory)
        store = four(place / "softhsm")
        fast = asyncio.run(strikes(store, place / "fast", plan, calm_s=30.0))
        told = asyncio.run(strikes(store, place / "paced", plan[:paced], calm_s=30.0, pause_s=PACE_S))
        hung = asyncio.run(hangs(store, place / "hung", paced, calm_s=30.0))
    said = f"{fast}; at a breaker's pace {told}; with {paced} hangs p99 {hung.p99_s * 1e3:.1f} for {hung.p99_before_s * 1e3:.1f} ms"
    assert max(told.p99_s / told.p99_before_s, hung.p99_s / hung.p99_before_s) <= 1.1, said
    return said


def repeated(count: int, *files: str) -> str:
    """Whole files of tests, so many times; AssertionError with the last lines where one fails."""
    began = time.monotonic()
    for number in range(count):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=0", *files],
            check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert not done.returncode, f"repeat {number + 1}: {done.stdout[-1_500:]}"
        last = done.stdout.splitlines()[-1]
    return f"{count} times, the last: {last}; {time.monotonic() - began:.0f} s"


def listed_faults(*places: str, count: int = 20) -> str:
    """Row 3.4: the tests of faults in these directories, as the fault list names them, but those of the part `faults`."""
    named = {test for tests in by_fault().values() for test in tests if "::test_" in test}
    chosen = sorted(
        test for test in named if test.startswith(places) and f"tests/{test.partition('::')[0]}" not in WORST
    )
    beside = ("-m", "not alone", "-n", "3", "--dist", "loadfile")
    return repeated(count, *beside, *(f"tests/{test}" for test in chosen))


def fairness() -> str:
    """What a caller keeps of its share beside each flood, five rounds of three seconds."""
    kept = {}
    with running(flooded_rig()) as rig:
        for name, flood in FLOODS.items():
            kept[name], ends = share(rig, flood, 5, 3.0)
            assert kept[name] >= SHARE, (name, kept[name], ends)
        front_mb = rss_mb(rig)
        assert front_mb < 150, front_mb
    return (
        "; ".join(f"beside {name} {value:.2f} of its share" for name, value in kept.items())
        + f"; front {front_mb:.0f} MB"
    )


def ten_times() -> str:
    with running(flooded_rig()) as rig:
        return overload(rig, 60.0)


def abuse(connections: int = 5_000, streams: int = 100_000) -> str:
    """Everything of tests/abuse.py; the figures, or AssertionError. The times of a connection are those of the daemon."""
    said = []
    with running(abuses.rig_with_abuser()) as rig, Caller(rig) as portal:
        abuses.turn_ms(portal)
        front_mb = rss_mb(rig)
        pings = abuses.ping_flood(rig, portal, connections=16)
        assert pings["cpu ms left behind"] < 100
        said.append(f"{pings['pings']:,} pings on 16 connections: {pings.check()}")
        for kind, path, message in (
            ("bare calls", abuses.SIGN, None),
            ("whole calls", abuses.SIGN, abuses.request(1)),
            ("health checks", abuses.CHECK, ""),
        ):
            reset = abuses.rapid_reset(rig, portal, streams, path, message)
            assert reset["streams"] >= streams
            assert reset["RST_STREAM REFUSED_STREAM"] > 0.9 * reset["streams"]
            said.append(f"{reset['streams']:,} {kind} reset: {reset.check()}")
        hasty = abuses.hasty_reset(rig, streams)
        assert hasty["RST_STREAM ENHANCE_YOUR_CALM"] >= 0.97 * streams
        said.append(f"{streams:,} in haste: {hasty['RST_STREAM ENHANCE_YOUR_CALM']:,} ENHANCE_YOUR_CALM")
        for name, kind in (("idle", "idle"), ("half-open", "half_open")):
            outcome = abuses.standing(rig, portal, kind, connections)
            assert outcome.descriptors > connections
            said.append(f"{connections:,} {name}: {outcome.check()}")
        slow = abuses.slow_reader(rig, portal, streams=100)
        said.append(f"100 answers read slowly: {slow.check()}")
        half = abuses.lasting(rig, connections)
        assert 9_900 <= half["shortest ms"] <= half["longest ms"] <= 11_000
        said.append(f"half-open ones last {half['shortest ms'] / 1e3:.1f} to {half['longest ms'] / 1e3:.1f} s")
        with abuses.Abuser(rig, "stay") as patient:
            seen = patient.said(400)
        assert 260_000 <= seen["GOAWAY after ms"] <= 335_000
        said.append(f"who only pings has GOAWAY after {seen['GOAWAY after ms'] / 1e3:.0f} s")
        out = abuses.no_descriptor(rig, portal, connections=100)
        said.append(f"no descriptor left: {out.check()}")
        said.append(f"front {front_mb:.0f} MB before, {rss_mb(rig):.0f} after")
    small = abuses.rig_with_abuser()
    small.descriptors = 1_024
    with running(small) as rig, Caller(rig) as portal:
        abuses.turn_ms(portal)
        crowd = abuses.more_than_fit(rig, portal, connections)
        said.append(f"{connections:,} to a daemon with 1,024 descriptors: {crowd.check()}")
    return "; ".join(said)


def histories(correct: int = 100_000, done: int = 10_000) -> str:
    """Random ledgers, whole and tampered with, before the offline verifier; the figures, or AssertionError."""
    began, rows, gaps = time.monotonic(), 0, 0
    for seed in range(correct):
        report = check_history(f"soak {seed}")
        rows += sum(report.rows.values())
        gaps += bool(report.gaps)
    places = [(kind, position) for kind in TAMPERS for position in POSITIONS if (kind, position) not in NO_TRACE]
    kinds: Counter[str] = Counter()
    seeds = itertools.count()
    while kinds.total() < done:
        seed = next(seeds)
        for kind, position in places:
            report = tampered(kind, position, f"soak {seed}")
            if report is not None:
                assert is_seen(kind, report), (kind, position, seed)
                kinds[report.findings[0].kind if report.findings else report.verdict] += 1
    took_s = time.monotonic() - began
    first = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    return (
        f"{correct:,} correct histories ({rows:,} rows, {gaps:,} with a declared gap), none accused; {kinds.total():,} "
        f"tampered with in {len(TAMPERS)} ways at {len(POSITIONS)} kinds of place, all found, as {first}; {took_s:.0f} s"
    )


def crashes(each: int = 50, rigs: int = 10) -> str:
    """Kill -9 and power cuts under load; every judgement of crashes.py, or AssertionError."""
    said = []
    for seed in range(rigs):
        with running(crashing_rig()) as rig:
            said.append(crash_run(rig, each, seed=1_000 + seed))
        print(said[-1], flush=True)
    return f"{each * rigs} crashes; the last {each}: {said[-1]}"


def restart(chunks: int = 1_000_000) -> str:
    """Kill -9, and the next start with so many chunks in the ledger."""
    with running(card_rig("P-256")) as rig:
        with Caller(rig) as portal:
            assert statuses(portal.sign()) == ["SIGNED"]
        rig.stop(signal.SIGKILL)
        began = time.monotonic()
        fill(rig.state / "paraph.sqlite", chunks)
        filled_s = time.monotonic() - began
        began = time.monotonic()
        rig.launch()
        rig.wait_serving(60)
        took_s = time.monotonic() - began
        front_mb = rss_mb(rig)
        with Caller(rig) as portal:
            assert statuses(portal.sign()) == ["SIGNED"]
    assert took_s <= 10.0, f"SERVING after {took_s:.1f} s"
    return f"SERVING {took_s:.1f} s after its start, with {chunks:,} chunks (written in {filled_s:.0f} s); front {front_mb:.0f} MB"


def storage(held_s: float = 30.0) -> str:
    """F22, row 4.3: what the ledger is in is locked, and does not answer, for so long; on both databases."""
    said = []
    with running(rig_on_disk()) as rig:
        said += [lock_held(rig, locked(rig), held_s), disk_hangs(rig, held_s)]
    with Postgres() as server, running(on(server, card_rig("P-256"))) as rig:
        said += [lock_held(rig, table_locked(rig), held_s), server_hangs(rig, server, held_s)]
    return f"SQLite {said[0]}; {said[1]}; PostgreSQL {said[2]}; {said[3]}"


def people() -> str:
    return speed.report()


def once(rounds: int = 500) -> str:
    """Parallel redeemers of one authorisation, over two daemons' connections; exactly one winner a round."""
    said = []
    with tempfile.TemporaryDirectory() as directory, Postgres() as server:
        places: dict[str, Path | str] = {"SQLite": Path(directory, "once.sqlite"), "PostgreSQL": server.create("once")}
        for name, place in places.items():
            began = time.monotonic()
            engines = [open_store(place) for _ in range(2)]
            told = race(engines, rounds)
            for engine in engines:
                engine.dispose()
            said.append(
                f"{name}: {told['OK']:,} winners in {rounds:,} rounds of {REDEEMERS}, {told['AUTHZ_USED']:,} AUTHZ_USED, "
                f"{time.monotonic() - began:.0f} s"
            )
    return "; ".join(said)


def visits(count: int = 200) -> str:
    """Guests who are enrolled, allow something and go; whose code is in no process's memory a second later."""
    clean = 0
    with Stage() as stage:
        for _ in range(count):
            code = stage.visit()
            time.sleep(1.0)
            clean += not stage.left(code)
    assert clean >= 0.95 * count, f"of {count} codes {count - clean} were still in memory"
    return f"{clean} of {count} codes were in no process's memory one second after"


def pulls(each: int = 25, rounds: int = 8) -> str:
    """A card pulled and put back 25 times under load, and pcscd killed now and then; so many times anew."""
    restarts = [3, 2] * (rounds // 2)
    for seed, count in enumerate(restarts):
        said = pulling.run(each, count, 2_600 + seed)
        print(said, flush=True)
    return f"{each * rounds} pulls, {sum(restarts)} restarts of pcscd, no restart of the daemon in a round; the last round: {said}"


def machine(steps: int = 20_000) -> str:
    """The state machine of people, callers and an operator."""
    began = time.monotonic()
    done = run_machine(steps // MEAN_STEPS, STEPS)
    assert done >= steps, done
    assert Machine.told.keys() >= ALL_TOLD
    told = sorted(Machine.told.items(), key=lambda pair: -pair[1])
    words = ", ".join(f"{count:,} {what}" for what, count in told if not what.startswith("ListSubjects"))
    return f"{done:,} steps in {time.monotonic() - began:.0f} s, no invariant broken; {words}"


def storms(first: int) -> tuple[Counter[str], Counter[str]]:
    """What people did, and were told, in a storm of this seed and the nine after it, each on fresh lanes."""
    logging.getLogger("pool").setLevel(logging.CRITICAL)  # each killed lane is a warning
    steps, told = Counter[str](), Counter[str]()
    for seed in range(first, first + STORMS):
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            shim = Shim(directory / "shim", str(MODULE))
            seen = asyncio.run(weather(everybodys(directory), shim, directory / "state", seed, 20, signs=15))
        steps += seen.steps
        told += seen.wrong + seen.right
    return steps, told


def interleavings(steps: int = 100_000, first: int = 1_000) -> str:
    """Row 2.1: storms of people on tokens, as many at a time as there are processors; the seeds from `first` on."""
    done, told, began = Counter[str](), Counter[str](), time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as processes:
        while done.total() < steps:
            firsts = [first + STORMS * place for place in range(os.cpu_count() or 1)]
            for some, words in processes.map(storms, firsts):
                done += some
                told += words
            first = firsts[-1] + STORMS
    assert told["PIN_INCORRECT"] > 0
    words_ = ", ".join(f"{count:,} {what}" for what, count in done.most_common())
    return (
        f"{done.total():,} steps ({words_}) with seeds up to {first - 1}, {told['']:,} leases: 0 foreign signatures, 0 twice; "
        f"{time.monotonic() - began:.0f} s"
    )


def pins(stack: str, sequences: int = 2_500) -> str:
    """Random sequences of PINs over one kind of token, on five of them at a time; the seeds are 0 to `sequences` - 1."""
    logging.getLogger("pool").setLevel(logging.CRITICAL)  # each refused PIN is a warning
    seeds, tally, began = iter(range(sequences)), Counter[str](), time.monotonic()

    async def on_one() -> None:
        with pin_sequences.counted(stack) as token:
            for seed in seeds:
                tally.update(await pin_sequences.play(token, seed))

    async def on_all() -> None:
        await asyncio.gather(*(on_one() for _ in range(TOKENS_AT_ONCE)))

    try:
        asyncio.run(on_all())
    except AssertionError as error:
        print(*error.__notes__, sep="\n")
        raise
    assert tally["sequences"] == sequences, tally
    words = ", ".join(f"{count:,} {what}" for what, count in sorted(tally.items(), key=lambda pair: -pair[1]))
    return f"{words}; none locked by us; {time.monotonic() - began:.0f} s"


def all_modules() -> str:
    """The forty cases of each module, as pool/MODULES.md has them."""
    began, wanted, other = time.monotonic(), modules.published(), []
    for module, stack in modules.STACKS.items():
        with stack() as asked:
            found = asked.answers()
        names = [name for name in found if name not in modules.VARYING]
        other += [f"{module}, {name}: {found[name]}" for name in names if found[name] != wanted[module][name]]
    assert not other, "; ".join(other)
    return f"{len(wanted)} modules as published, in {time.monotonic() - began:.0f} s"


def simulation(seeds: int = 10_000) -> str:
    """Runs of the simulation, from seeds that were never tried before."""
    began, first = time.monotonic(), int(time.time()) * 100_000
    counts: Counter[str] = Counter()
    bad: dict[int, str] = {}
    for some, broken in spread(first, seeds):
        counts += some
        bad |= broken
    assert not bad, f"of {seeds:,} seeds from {first} on {len(bad)} broke an invariant: {dict(list(bad.items())[:50])}"
    told = ", ".join(f"{counts[name]:,} {name}" for name in ("C_Sign", "C_Login", "turns of the loop"))
    return f"{seeds:,} seeds from {first} on in {time.monotonic() - began:.0f} s, no invariant broken; {told}"


# name -> (what is run in full, its size in words, one line for the list)
PARTS: dict[str, tuple[Callable[[], str], str, str]] = {
    "fairness": (
        fairness,
        "5 rounds of 3 s for each flood",
        "F45: beside a flood of batches, of single calls and of tiny streams a caller keeps 80 % of its share",
    ),
    "overload": (
        ten_times,
        "10 times the capacity for 60 s",
        "row 5.5: goodput stays at 90 % of the peak, and what is shed is told when to come back",
    ),
    "leaks": (
        all_leaks,
        "100 000 signatures, 1 000 cancelled calls, 1 000 wrong PINs",
        "row 2.8: descriptors, sessions, processes and memory do not grow over signatures, cancelled calls and wrong PINs",
    ),
    "entries": (
        entries,
        "SIGSEGV and abort at 16 entries of a module, 10 times each; 40 of them paced",
        "row 2.3: a crash wherever a module can be entered costs one item, its lane 2 s, other tokens 10 % of their p99",
    ),
    "faults": (
        partial(repeated, 20, *WORST),
        "20 times",
        "rows 2.4 and 2.7, F1 to F14, F50: what modules and lanes do at their worst, 20 times each",
    ),
    "faults-pool": (
        partial(listed_faults, "pool/"),
        "20 times",
        "row 3.4, F1 to F21, F49, F50, F57: the pool's other tests in FAULTS.md, on real stacks too, 20 times each",
    ),
    "faults-ledger": (
        partial(listed_faults, "signer/ledger/"),
        "20 times",
        "row 3.4, F22 to F31, F43, F51, F56 to F58: the ledger's tests in FAULTS.md, 20 times each",
    ),
    "faults-access": (
        partial(listed_faults, "signer/access/", "signer/outputs/", "simulation/"),
        "20 times",
        "row 3.4, F35, F40 to F42, F44, F47, F48, F52, F53: callers, documents and the daemon's life, 20 times each",
    ),
    "faults-people": (
        partial(listed_faults, "signer/people/", "portal/"),
        "20 times",
        "row 3.4, F32 to F37, F54, F55, F57: people's and the portal's tests in FAULTS.md, 20 times each",
    ),
    "slots": (
        partial(repeated, 20, "tests/pool/test_discovery.py"),
        "20 times",
        "row 2.10: discovery among 16 slots, of which 4 vanish while they are listed",
    ),
    "abuse": (
        abuse,
        "100 000 streams reset, 5 000 connections",
        "a good client's p99 beside ping floods, 100 000 resets and 5 000 connections is at most twice its baseline",
    ),
    "crashes": (
        crashes,
        "500 crashes of daemon, committer, lanes and power",
        "rows 3.3 and 4.1, F29: nothing released twice, nothing acknowledged lost, no C_Sign without an intent",
    ),
    "restart": (
        restart,
        "1 000 000 chunks",
        "a restart after kill -9 looks through the whole ledger and is SERVING within 10 s",
    ),
    "storage": (
        storage,
        "30 s for each lock and each disk",
        "F22, row 4.3: a store locked or blocked for 30 s: no signature, a reason to each caller, and it resumes by itself",
    ),
    "people": (
        people,
        "200 documents, 40 batches of 1 000",
        "a person's document, code and one-time code included, p95 250 ms; an authorised batch 0.98 of a seal's",
    ),
    "once": (
        once,
        "500 rounds of 64 redeemers, on each database",
        "row 1.2: of 64 parallel redeemers of an authorisation exactly one wins, in each of 500 rounds",
    ),
    "canaries": (
        flood.flooded,
        "1 GB of output",
        "row 7.2: canaries in every call and refusal, at DEBUG: in a gigabyte of what is written none is found",
    ),
    "visits": (
        visits,
        "200 guests",
        "row 7.3: a person's code is in no process's memory a second after she has gone, in 95 of 100 runs",
    ),
    "pulls": (
        pulls,
        "200 pulls and insertions, 20 restarts of pcscd",
        "row 2.6: a card pulled at random moments under load: nothing lost, no wrong key, signing within 3 s of insertion",
    ),
    "interleavings": (
        interleavings,
        "100 000 steps",
        "row 2.1: people on own and shared tokens, killed lanes and crashing modules: 0 foreign signatures",
    ),
    "machine": (
        machine,
        "20 000 steps",
        "row 3.2, I1 to I8: people, callers and an operator in any order, with restarts and crashes",
    ),
    **{
        f"pins-{stack}": (
            partial(pins, stack),
            "2 500 sequences of up to 5 steps",
            f"row 2.5: PINs right and wrong, crashes, lies and persons over {stack}: no token is locked by us",
        )
        for stack in ("softhsm", "opencryptoki", "tpm", "card")
    },
    "modules": (
        all_modules,
        "40 cases of 5 modules",
        "row 2.11: SoftHSM, opencryptoki, tpm2-pkcs11, OpenSC and NSS answer as pool/MODULES.md says",
    ),
    "pages": (
        sights.all_faults,
        "every page and state in both languages, at two widths",
        "UI-01, UI-07: axe-core finds nothing wrong with any page of the portal, and nothing is said on the console",
    ),
    "portal": (
        partial(load.measured, 120),
        "2 400 pages",
        "at 20 pages a second p95 50 ms of every page; 60 kB a page; up in 2 s, with 120 MB",
    ),
    "procedures": (
        partial(load_procedures.measured, 60),
        "1 200 requests in a space of 1 000 procedures",
        "list, open, save and send: p95 50 ms at 20 a second, with 120 MB",
    ),
    "simulation": (
        simulation,
        "10 000 seeds",
        "row 3.1, I1 to I8: pool, scheduler, ledger and gate under schedules and faults that seeds draw",
    ),
    "histories": (
        histories,
        "100 000 correct histories, 10 000 tampered ones",
        "row 4.4: the offline verifier accuses no correct ledger, and finds whatever was done without the key",
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Run one full figure.")
    parser.add_argument("part", nargs="?", choices=PARTS, help="without it: list the parts")
    part = parser.parse_args().part
    if part is None:
        for name, (_, _, line) in PARTS.items():
            print(f"{name:18s} {line}")
        return 0
    run, size, _ = PARTS[part]
    try:
        outcome, code = run(), 0
    except AssertionError as error:
        outcome, code = f"FAILED: {error}", 1
    print(f"{part}: {outcome}")
    lines = (OUTCOMES.read_text() if OUTCOMES.exists() else HEAD).splitlines(keepends=True)
    before = "".join(line for line in lines if f"| {part} |" not in line)
    today = datetime.now(UTC).date().isoformat()
    words = " ".join(outcome.split()).replace("|", "\\|")
    OUTCOMES.write_text(f"{before}| {today} | {part} | {size} | {words} |\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
