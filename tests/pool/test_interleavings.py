"""
People who come, are wrong, sign, go and are interrupted, all at once, on tokens of their own and on shared ones.

What the token saw is the oracle: each process of the shim's log belongs to one lease, and each digest to one lease, too.
A failure names its seed; `storm` with that seed does the same again, as far as the machine's time allows.
"""

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pool import Key, Lease, Outcome, Pin, Pool, PoolError, Status, Unavailable
from pool.lane import State as LaneState
from pool.token import Event
from pool.tries import TokenIdentity, Tries
from tests.pool.persons import CKU_USER, Resets, spki
from tests.pool.rig import ECDSA, check, config, digests, open_tries, pids, pool_over, state, until, view
from tests.shim import Call, Shim
from tests.softhsm import MODULE, Store

# Each token's PIN has a length of its own: the shim's log tells by it whose was sent, and never holds one.
PINS = {"ann": "4" * 4, "bob": "5" * 5, "cat": "6" * 6, "desk": "7" * 7}
PEOPLE = {"ann": "ann", "bob": "bob", "cat": "cat", "dan": "desk", "eve": "desk"}  # dan and eve share a token
TRIES = 10_000  # nobody is kept from being wrong here: test_login.py has the guards
FAULTS = (
    "C_Sign %37 crash",
    "C_Sign %53 return 0x32",
    "C_Sign * delay 0.001",
    "C_Login %11 return 0x100",
    "C_Login %13 crash-after",
)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return everybodys(tmp_path_factory.mktemp("people"))


def everybodys(directory: Path) -> Store:
    """Everybody's token with a P-256 key."""
    made = Store(directory / "softhsm")
    for label, pin in PINS.items():
        made.token(label, pin)
        made.keys(label, ["P-256"])
    return made


@pytest.fixture(autouse=True)
async def the_loop_is_quiet() -> AsyncIterator[None]:
    """Nothing of the pool fails in a callback or a task where nobody looks."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    yield
    assert heard == []


@dataclass
class Had:
    """A lease that somebody had: by which process, and what came of its digests."""

    who: str
    token: str
    pid: int
    items: list[bytes] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)


@dataclass
class Seen:
    leases: list[Had] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)  # what wrong PINs were told, by reason
    right: Counter[str] = field(default_factory=Counter)  # and right ones, '' where the lease was given
    digests: int = 0
    steps: Counter[str] = field(default_factory=Counter)  # what people did: open, login, sign, cancel, leave

    def fresh(self, count: int) -> list[bytes]:
        self.digests += count
        return digests(count, self.digests - count, ECDSA)


class Interrupted(Exception):
    """Somebody's block is left by an error."""


async def storm(pool: Pool, store: Store, seed: int, things: int, signs: int = 3) -> Seen:
    """Everybody does so many things, each as the seed says; who has a lease signs up to `signs` times."""
    seen = Seen()
    keys = {label: Key(*reversed(made["P-256"])).ref for label, made in store.made.items()}

    async def live(who: str) -> None:
        dice = random.Random(f"{seed} {who}")
        for _ in range(things):
            await asyncio.sleep(dice.choice((0, 0.01, 0.05)))
            what = dice.choices(("sign", "wrong", "another's", "none", "kill"), (6, 2, 2, 1, 1))[0]
            token = PEOPLE[who]
            if what == "sign":
                await come(pool, who, dice, seen, signs)
            elif what == "wrong":
                await wrong(pool, who, token, PINS[token] + "0", seen, dice.choice((0.2, 1, 20)))
            elif what == "another's":
                other = dice.choice([label for label in PINS if label != token])
                await wrong(pool, who, other, PINS[token], seen, dice.choice((0.2, 1, 20)))
            elif what == "none":
                with pytest.raises(Unavailable, match="LOGIN_REQUIRED"):
                    await pool.sign(keys[token], ECDSA, seen.fresh(1), caller=who)
            else:
                kill(pool, token)

    await asyncio.gather(*(live(who) for who in PEOPLE))
    return seen


def kill(pool: Pool, token: str) -> None:
    """Its lane's process, but not in C_Login, in which SoftHSM writes to a file that it then could not read any more."""
    ((lane, pid),) = view(pool, token).lanes
    if lane.is_up or (lane.state is LaneState.OPEN and state(pool, token) == "OPEN"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def wrong(pool: Pool, who: str, token: str, pin: str, seen: Seen, timeout_s: float) -> None:
    """A PIN that is not the token's."""
    seen.steps["open"] += 1
    try:
        async with pool.lease(token, caller=who, pin=Pin(pin), timeout_s=timeout_s):
            seen.wrong["a lease was given"] += 1
    except PoolError as error:
        seen.wrong[error.reason] += 1
        seen.steps["login"] += error.reason == "PIN_INCORRECT"


async def come(pool: Pool, who: str, dice: random.Random, seen: Seen, signs: int) -> None:
    """With the right PIN: sign something, and leave in one of the ways there are."""
    token, way = PEOPLE[who], dice.choice(("leave", "leave", "error", "cancel", "deadline"))
    timeout_s = 20.0 if way != "deadline" else dice.uniform(0.05, 0.6)

    async def sign(lease: Lease, had: Had) -> None:
        seen.steps["sign"] += 1
        items = seen.fresh(dice.choice((1, 3, 30)))
        had.items += items
        place = len(had.outcomes)
        had.outcomes += [Outcome(Status.INDETERMINATE)] * len(items)  # what a cancelled caller knows
        with contextlib.suppress(Unavailable):  # the lease is over
            had.outcomes[place : place + len(items)] = list(await lease.sign(ECDSA, items))

    async def visit() -> None:
        async with pool.lease(token, caller=who, pin=Pin(PINS[token]), timeout_s=timeout_s) as lease:
            had = Had(who, token, pids(pool, token)[0])
            seen.leases.append(had)
            seen.right[""] += 1
            seen.steps["login"] += 1
            for _ in range(dice.randint(1, signs)):
                await sign(lease, had)
            seen.steps["leave"] += 1
            if way == "error":
                raise Interrupted

    seen.steps["open"] += 1
    task = asyncio.create_task(visit())
    if way == "cancel":
        asyncio.get_running_loop().call_later(dice.uniform(0.0, 0.4), task.cancel)
    try:
        await task
    except PoolError as error:
        seen.right[error.reason] += 1
    except Interrupted:
        pass
    except asyncio.CancelledError:
        seen.steps["cancel"] += 1


def foreign(shim: Shim, store: Store, seen: Seen) -> list[str]:
    """What the token saw that it should not have seen, in words: nothing, one hopes."""
    owner = {item.hex(): had for had in seen.leases for item in had.items}
    key_of = {label: made["P-256"][0].hex() for label, made in store.made.items()}
    logins: dict[int, list[Call]] = defaultdict(list)
    processes: dict[int, set[int]] = defaultdict(set)
    asked: Counter[str] = Counter()
    found = []
    for call in shim.log():
        if call.fn == "C_Login" and call.user == CKU_USER:
            logins[call.pid].append(call)
            if sum(login.ev == "enter" for login in logins[call.pid]) > 1:
                found.append(f"process {call.pid} logged in twice")
        if call.fn != "C_Sign" or call.ev != "enter" or call.query:
            continue
        had = owner.get(call.data)
        asked[call.data] += 1
        if had is None:
            found.append(f"a digest that no lease had: {call}")
            continue
        processes[call.pid].add(id(had))
        good = [login for login in logins[call.pid] if login.ev == "leave" and login.rv == 0]
        if call.pid != had.pid:
            found.append(f"{had.who}'s digest by another lease's process: {call}")
        if call.key != key_of[had.token]:
            found.append(f"{had.who}'s digest by another's key: {call}")
        if [login.pinlen for login in good] != [len(PINS[had.token])]:
            found.append(f"{had.who}'s digest after the login of somebody else: {call}")
    found += [f"process {pid} served {len(leases)} leases" for pid, leases in processes.items() if len(leases) > 1]
    found += [f"a digest was signed {times} times" for times in asked.values() if times > 1]
    return found


@contextlib.asynccontextmanager
async def everybody(store: Store, shim: Shim, resets: Resets, directory: Path) -> AsyncIterator[Pool]:
    configs = [config(store, label, shim=shim, pin=None, personal=True, pin_tries=TRIES) for label in PINS]
    async with pool_over(*configs, state=directory, reset=resets) as pool:
        yield pool


def not_reset(shim: Shim, resets: Resets, seen: Seen) -> list[str]:
    """Leases after which somebody came to the token before its card was reset."""
    log, found = shim.log(), []
    for had in seen.leases:
        last = max(call.t for call in log if call.pid == had.pid)
        reset = min((t for t, name in resets.made if name == had.token and t > last), default=None)
        later = [other.pid for other in seen.leases if other.token == had.token and other.pid != had.pid]
        nexts = [call.t for call in log if call.pid in later and call.t > last]
        if reset is None or (nexts and min(nexts) < reset):
            found.append(f"{had.who}'s {had.token}, process {had.pid}")
    return found


async def weather(store: Store, shim: Shim, directory: Path, seed: int, things: int, signs: int = 3) -> Seen:
    """A storm on fresh lanes, and everything that must be true of it."""
    resets = Resets()
    shim.script(*FAULTS)
    async with everybody(store, shim, resets, directory) as pool:
        seen = await storm(pool, store, seed, things, signs)
        shim.clear()
        await until(lambda: not any(lane.is_up for view in pool.snapshot() for lane, _ in view.lanes), 5)
        await until(lambda: all(state(pool, label) in {"OPEN", "TRIPPED"} for label in PINS), 10)
    assert foreign(shim, store, seen) == [], seed
    assert not_reset(shim, resets, seen) == [], seed
    assert seen.wrong["a lease was given"] == 0, seed
    asked = {call.data for call in shim.signs()}
    for had in seen.leases:
        for item, outcome in zip(had.items, had.outcomes, strict=True):
            if outcome.status is Status.SIGNED:
                check(ECDSA, spki(store, had.token), item, outcome.signature)
            assert outcome.status is not Status.NOT_ATTEMPTED or item.hex() not in asked, seed
    return seen


@pytest.mark.parametrize("seed", [1, 2])
async def test_one_s_login_never_serves_another(tokens: Store, shim: Shim, tmp_path: Path, seed: int) -> None:
    """
    Row 2.1: five people on four tokens, one of them shared, sign, leave, fail, cancel, run out of time and are wrong, at
    random and at once, while lanes are killed, modules crash in C_Login and C_Sign, and tokens claim that somebody is
    logged in: no digest is ever signed by another's process, login or key, none twice, and no lease without a reset
    behind it; the shim's log is the oracle. (10^5 steps are the soak part `interleavings`.)
    """
    seen = await weather(tokens, shim, tmp_path / "state", seed, 4)
    assert seen.right[""] >= 3, (seed, seen.right)


async def test_the_oracle_finds_what_it_looks_for(tokens: Store, tmp_path: Path) -> None:
    """A digest by another's process, a second lease by one process, a second signature: each is told."""
    shim = Shim(tmp_path / "shim", str(MODULE))
    one, other = digests(2, 0, ECDSA)
    id_of = {label: made["P-256"][0].hex() for label, made in tokens.made.items()}
    login = '{"t":%d,"pid":%d,"fn":"C_Login","ev":"%s","n":1,"user":1,"pinlen":4%s}\n'
    sign = '{"t":5,"pid":%d,"fn":"C_Sign","ev":"enter","n":1,"key":"%s","data":"%s","datalen":32}\n'
    begun = "".join(login % (t, pid, "enter", "") + login % (t, pid, "leave", ',"rv":0') for t, pid in ((1, 7), (2, 8)))
    seen = Seen([Had("ann", "ann", 7, [one]), Had("bob", "bob", 8, [other])])
    for lines, words in (
        (sign % (8, id_of["ann"], one.hex()), "another lease's process"),
        (sign % (7, id_of["bob"], one.hex()), "another's key"),
        (sign % (8, id_of["bob"], other.hex()), "login of somebody else"),  # bob's PIN has five characters
        (sign % (7, id_of["ann"], one.hex()) * 2, "2 times"),
        (sign % (7, id_of["ann"], one.hex()) + sign % (7, id_of["bob"], other.hex()), "served 2 leases"),
        (sign % (7, id_of["ann"], "00" * 32), "no lease had"),
        (login % (3, 7, "enter", ""), "logged in twice"),
    ):
        (shim.directory / "log").write_text(begun + lines)
        assert any(words in found for found in foreign(shim, tokens, seen)), words
    (shim.directory / "log").write_text(begun + sign % (7, id_of["ann"], one.hex()))
    assert foreign(shim, tokens, seen) == []


async def test_no_pin_for_a_token_that_is_quarantined_meanwhile(
    tokens: Store, shim: Shim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token turns out to sign wrongly while the try is written: the PIN is not sent, and the try is given back."""
    begin, loop = Tries.begin, asyncio.get_running_loop()
    ann = config(tokens, "ann", shim=shim, pin=lambda: Pin(PINS["ann"]))
    async with Pool([ann], state=tmp_path / "state") as pool:

        def begun(tries: Tries, identity: TokenIdentity) -> None:
            begin(tries, identity)
            loop.call_soon_threadsafe(pool._keepers["ann"].on, Event.WRONG_SIGNATURE)

        monkeypatch.setattr(Tries, "begin", begun)
        await until(lambda: shim.logins() or "taken out of service" in view(pool, "ann").lanes[0][0].problem)
        assert (state(pool, "ann"), shim.logins(), open_tries(tmp_path / "state")) == ("QUARANTINED", [], 0)


async def test_a_wrong_pin_is_always_told_as_wrong(tokens: Store, shim: Shim, resets: Resets, tmp_path: Path) -> None:
    """
    Row 2.2: while other logins live, on this token and on others of the same module, 20 wrong PINs and PINs of somebody
    else's token are each told: TOKEN_BUSY by their own deadline where somebody keeps the token, PIN_INCORRECT where it
    was their turn; none is taken for a login that was already there, and nothing is signed for any of them.
    """
    async with everybody(tokens, shim, resets, tmp_path / "state") as pool:
        stop, signed, seen, dice = asyncio.Event(), [], Seen(), random.Random(3)

        async def keep(who: str, *, for_good: bool) -> None:
            """Somebody who is there all the time, or always about to come again."""
            while not stop.is_set():
                async with pool.lease(who, caller=who, pin=Pin(PINS[who]), timeout_s=60) as lease:
                    signed.append(await lease.sign(ECDSA, seen.fresh(3)))
                    await (stop.wait() if for_good else asyncio.sleep(0.05))

        async def guess(number: int) -> None:
            token = ("ann", "desk", "bob", "cat")[number % 4]
            pin = dice.choice([other for label, other in PINS.items() if label != token] + [PINS[token] + "1"])
            await wrong(pool, f"guest {number}", token, pin, seen, 0.2 if token == "ann" else 60)

        keepers = [asyncio.create_task(keep(who, for_good=who == "ann")) for who in ("ann", "desk")]
        await until(lambda: len(signed) >= 2)
        await asyncio.gather(*(guess(number) for number in range(20)))
        stop.set()
        await asyncio.gather(*keepers)
        assert seen.wrong == {"PIN_INCORRECT": 15, "TOKEN_BUSY": 5}
        assert all(outcome.status is Status.SIGNED for outcomes in signed for outcome in outcomes)
    assert len(shim.signs()) == 3 * len(signed)
    refusals = [call.rv for call in shim.log() if call.fn == "C_Login" and call.ev == "leave" and call.rv]
    assert refusals == [0xA0] * 15
