"""
Kill -9 in a loop, under load, with a history of its own: what every caller was told, and what the token was really asked.

The clients keep what they were answered. What had no definite answer is asked again with the same id until it has one.
Afterwards three witnesses are compared: the clients' history, the ledger, and the shim's log of C_Sign. A call that ends at
its deadline without a word of the service's is an error.
"""

import contextlib
import random
import signal
import subprocess
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import grpc
import psutil

from pool import Algorithm, Hash, Scheme
from signer.chain import Kind, items_hash
from signer.v1 import operator_pb2 as op
from signer.v1 import signing_pb2 as pb
from signer.writer import EX_IOERR
from tests.daemon import Rig, until
from tests.disk import Disk
from tests.pool.rig import token_input
from tests.processes import children, gone
from tests.signer.access.calls import Answer, Caller, ask, digest, shim_of
from tests.signer.ledger.book import book, found, recorded, result, signatures

ALGORITHM = Algorithm(Scheme.ECDSA, Hash.SHA256)
ITEMS = (1, 1, 2, 7, 40)  # of a request: mostly few, as people send them
DEFINITE = {"OK"}
TIMEOUT_S = 5.0
AGAIN_S = 0.05
Process = subprocess.Popen[bytes] | None  # a daemon
SERVING = 1


@dataclass
class Told:
    """One request, and each set of signatures that somebody was given for it."""

    digests: list[bytes]
    given: list[list[bytes]] = field(default_factory=list)


@dataclass
class History:
    requests: dict[str, Told] = field(default_factory=dict)
    codes: Counter[str] = field(default_factory=Counter)
    late: int = 0  # calls that had no answer of the service's at their deadline, but gRPC's own
    lock: threading.Lock = field(default_factory=threading.Lock)


class Clients:
    """So many threads that ask, until told to stop; each request until its answer is definite."""

    def __init__(self, rig: Rig, count: int, history: History) -> None:
        self._rig = rig
        self._history = history
        self._stopping = threading.Event()
        rig.files("portal")  # made once, and not by six threads at one time
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, seed: int) -> None:
        chance = random.Random(seed)
        number = seed * 10_000_000
        with Caller(self._rig) as caller:
            answering: Process = None
            while not self._stopping.is_set():
                count = chance.choice(ITEMS)
                told = Told([digest(number + i) for i in range(count)])
                number += count
                name = str(uuid.uuid4())
                with self._history.lock:
                    self._history.requests[name] = told
                answering = self._until_definite(caller, ask(request_id=name, digests=told.digests), told, answering)

    def _until_definite(self, caller: Caller, message: Any, told: Told, answering: Process) -> Process:
        """Answers which daemon was it that answered last."""
        while True:
            answer, answering = self._call(caller, message, answering)
            if answer.code in DEFINITE and all(item.status == pb.SIGNED for item in answer.value.items):
                told.given.append(signatures(answer))
                return answering
            if answer.code in DEFINITE:  # some of it came to nothing: what was signed of it was released
                told.given.append(signatures(answer))
            time.sleep(AGAIN_S)
            if self._stopping.is_set():
                return answering

    def _call(self, caller: Caller, message: Any, answering: Process) -> tuple[Answer, Process]:
        began = self._rig.process
        answer = caller.sign(message, timeout_s=TIMEOUT_S)
        is_same = self._rig.process is began and began is not None and began.poll() is None
        is_late = answer.brief == ("DEADLINE_EXCEEDED", "")
        with self._history.lock:
            self._history.codes[answer.reason or answer.code] += 1
            # Of a daemon that has answered before and lives on; one that is starting takes connections, and its time for them.
            self._history.late += is_late and is_same and answering is began
        has_answered = is_same and (answer.code in DEFINITE or bool(answer.reason))
        return answer, began if has_answered else answering


def crash(rig: Rig, what: str, chance: random.Random, token: bytes) -> None:
    """
    Kill -9 of the daemon, of a lane or of what commits, at any moment; with 'power' what was not synced is lost as well.
    `token` is the card's own object: the card outlives whoever is killed while logging in to it.
    """
    time.sleep(chance.uniform(0.0, 0.4))  # many requests long
    assert rig.process is not None
    lanes = children(rig.process.pid, "pool.worker")
    if what == "lane":
        if lanes:
            killed = chance.choice(lanes)
            with contextlib.suppress(psutil.NoSuchProcess):
                killed.kill()
            until(lambda: gone(killed), 5, "the end of the lane")
            rig.store.mend("card", token)
        return
    committers = children(rig.process.pid, "signer.committer")
    if what == "committer":
        [committer] = committers
        committer.kill()
        assert rig.process.wait(10) == EX_IOERR, "nobody knows what it wrote"
    rig.stop(signal.SIGKILL)
    until(lambda: all(map(gone, [*committers, *lanes])), 5, "the end of what writes")
    rig.store.mend("card", token)
    if what == "power":
        Disk.power_cut(rig.state)
    rig.launch()
    until(lambda: _serves(rig), 30, "SERVING")


def _serves(rig: Rig) -> bool:
    """
    Whether it signs. Two crashes, each within a login, leave two PINs without an answer; the token is LOCKED then, and no
    third PIN goes out before a person says so, which is what happens here.
    """
    with Caller(rig, "operator") as operator, contextlib.suppress(grpc.RpcError):
        for token in operator.operator.ListTokens(op.ListTokensRequest(), timeout=2).tokens:
            if token.state == op.Token.LOCKED:
                unlock = op.UnlockTokenRequest(token=token.name, override_final_try=True)
                operator.operator.UnlockToken(unlock, timeout=2)
    return rig.health() == SERVING


def run(rig: Rig, crashes: int, seed: int, clients: int = 8) -> str:
    """So many crashes; raises AssertionError, answers what happened."""
    chance, history = random.Random(seed), History()
    load = Clients(rig, clients, history)
    token = rig.store.own_object("card")
    kinds: Counter[str] = Counter()
    try:
        for _ in range(crashes):
            what = chance.choice(["daemon", "committer", "lane", "power"])
            kinds[what] += 1
            crash(rig, what, chance, token)
    finally:
        load.stop()
    with Caller(rig) as caller:
        judge(rig, caller, history)
    possible = sum(row.kind == Kind.POSSIBLE for row in book(rig.state))
    signed = sum(bool(told.given) for told in history.requests.values())
    return (
        f"{dict(kinds)} with seed {seed}: {len(history.requests)} requests, {signed} of them answered with signatures, "
        f"{possible} chunks possibly signed and not released; answers {dict(history.codes)}"
    )


def judge(rig: Rig, caller: Caller, history: History) -> None:
    """The three witnesses, one against the other."""
    _released_once(caller, history)
    _recorded_before(rig, history)
    _covered_by_intents(rig, history)
    assert not history.late, "row 4.7: the service answers before its caller gives up"
    assert found(rig.state).epoch >= 1, "the chain is whole: looking through it raises nothing"


def _released_once(caller: Caller, history: History) -> None:
    """I2, I3: for each item one signature at the most was ever given out, and what was given is still there."""
    for name, told in history.requests.items():
        if not told.given:
            continue
        kept = signatures(result(caller, name))
        for given in told.given:
            for place, signature in enumerate(given):
                assert not signature or signature == kept[place], f"{name}[{place}] was released twice, or lost"


def _recorded_before(rig: Rig, history: History) -> None:
    """I3: no release without SIGNED: what was given is what an OUTCOME of its request names, by its hash."""
    known = recorded(rig)
    for name, told in history.requests.items():
        for given in told.given:
            for place, signature in enumerate(given):
                assert not signature or signature in known[name][place], f"{name}[{place}] is in no OUTCOME"


def _covered_by_intents(rig: Rig, history: History) -> None:
    """I4: no C_Sign without an INTENT before it, and none more often than it was intended."""
    _, spki = rig.store.made["card"]["P-256"]
    intended: Counter[str] = Counter()
    outcomes: set[tuple[int, int]] = set()
    intents: list[tuple[int, int]] = []
    possible: list[tuple[int, int]] = []
    epochs = 0
    for row in book(rig.state):
        fields = row.fields
        if row.kind == Kind.EPOCH:
            epochs = row.epoch
        elif row.kind == Kind.OUTCOME and fields["closed"]:
            outcomes.add((row.epoch, fields["intent"]))
        elif row.kind == Kind.POSSIBLE:
            possible.append(tuple(fields["intent"]))
        elif row.kind == Kind.INTENT and fields["request"] in history.requests:
            intents.append((row.epoch, row.sequence))
            digests = history.requests[fields["request"]].digests
            items = [digests[place] for start, stop in fields["items"] for place in range(start, stop)]
            assert fields["signed"] == items_hash(items)
            intended.update(token_input(ALGORITHM, spki, item).hex() for item in items)
    asked = Counter(call.data or "" for call in shim_of(rig).signs())
    ours = {token_input(ALGORITHM, spki, one).hex() for told in history.requests.values() for one in told.digests}
    for data in asked.keys() & ours:
        assert asked[data] <= intended[data], "C_Sign was called without an INTENT"
    # INDETERMINATE exactly where it must be: what an ended daemon had intended and never closed, once each.
    left_open = {place for place in intents if place not in outcomes and place[0] < epochs}
    assert Counter(place for place in possible if place in set(intents)) == Counter(left_open)
