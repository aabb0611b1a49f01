"""
One run: machines, cards and people as the seed makes them, and the lives of the daemon between them.

What is real: Pool and everything under it, the worker, the ledger with its committer and recovery, the gate with its
store. What is played: processes and threads (pool/fake.py, loop.py), cards (module.py), the disk (books.py), people.
"""

import asyncio
import contextlib
import functools
import logging
import random
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pool.settle
from pool import Pin, TokenConfig, libcrypto
from pool.fake import FIRST_PID, Fakes, Process
from signer.cipher import Cipher
from tests.simulation import keys
from tests.simulation.books import Disk
from tests.simulation.credentials import store
from tests.simulation.judge import Guard, Judge, Violation
from tests.simulation.life import Life
from tests.simulation.loop import Clock, Crashed, Loop, bury, simulated
from tests.simulation.module import Card, Module, Slot

# What may be done to one call of a function, by name; chosen with equal chances.
FAULTS = {
    "C_Initialize": ["crash", "hang", "delay 1", "return 0x5"],
    "C_GetTokenInfo": ["return 0xE0", "return 0x30", "hang", "delay 2"],
    "C_OpenSession": ["return 0xB1", "return 0xE0", "crash"],
    "C_FindObjectsInit": ["return 0x30", "crash"],
    "C_Login": ["crash", "crash-after", "hang", "return 0x5", "after 0x5", "delay 1", "return 0x100", "after 0x32"],
    "C_SignInit": ["return 0x70", "return 0xB3", "return 0x101", "crash"],
    "C_Sign": [
        *("crash", "crash-after", "hang", "corrupt", "zero", "short", "exit 3", "delay 0.3", "hang 1.5"),
        *("return 0x30", "after 0x30", "return 0xB3", "return 0x21", "after 0x5", "return 0x90", "return 0x80000001"),
    ],
    "C_Finalize": ["hang", "crash"],
}


class _Ears(logging.Handler):
    """Whatever is logged: part of the story, and searched for PINs."""

    def __init__(self, world: "World") -> None:
        super().__init__(logging.INFO)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        self._world.say("log", text.splitlines()[0])
        self._world.outputs.append(text)
        if record.levelno >= logging.ERROR and record.exc_info:
            self._world.failed(f"the daemon logs an error of its own: {text}")


class World:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.clock = Clock(random.Random(seed ^ 0x5EED))
        self.judge = Judge(self.clock)
        self.disk = Disk()
        self.story: list[tuple[float, str, str]] = []
        self.outputs: list[str] = []
        self.problem: BaseException | None = None
        self.digests = 0
        self.cipher = Cipher(bytes(32))
        self.steps = 0
        self.graves: list[tuple[Loop, Life, list[asyncio.Task[Any]]]] = []  # held: see `bury`
        self.is_over = False
        self.fakes = Fakes(self._load, self._delay)
        self.clock.lane = lambda: self.fakes.running
        self._plan()

    # ---- the story

    def say(self, who: str, what: str) -> None:
        if not self.is_over:
            self.story.append((self.clock.now, who, what))

    def failed(self, why: str | BaseException) -> None:
        """The first violation is the run's; whoever catches it, it is not forgotten."""
        if self.problem is None and not self.is_over:
            self.problem = why if isinstance(why, BaseException) else Violation(why)
            self.say("JUDGE", str(self.problem))

    def judged(self, act: Callable[..., None], *args: Any) -> None:
        try:
            act(*args)
        except Violation as violation:
            self.failed(violation)

    # ---- what there is

    def _plan(self) -> None:
        chance = self.chance
        self.modules: dict[str, Module] = {}
        self.rates: dict[str, float] = {}  # of faults, by module
        self.slots: dict[str, Slot] = {}
        self.cards: dict[str, Card] = {}
        self.others: dict[str, Card] = {}  # what may be put in a card's place
        self.configs: list[TokenConfig] = []
        self.pins: dict[str, str] = {}  # as configured
        self.well: set[str] = set()  # tokens that nobody disturbs
        self.names_keys = False  # whether the pool is told which keys it is for
        names = [f"hsm{number}" for number in range(chance.choice((1, 2, 2, 3)))]
        if chance.random() < 0.75:
            names.append("stick")
        self.has_people = "stick" in names
        shared = chance.random() < 0.25
        for name in names:
            path = "/module/shared" if shared and name != "stick" else f"/module/{name}"
            self._add(name, path)
        for path in list(self.modules):
            lies_in = [n for n in names if self._path(n) == path]
            is_well = chance.random() < 0.25 and path != "/module/shared" and lies_in != ["stick"]
            self.rates[path] = 0.0 if is_well else chance.choice((0.0, 0.003, 0.01, 0.05))
            if is_well and self.pins[lies_in[0]] == self.cards[lies_in[0]].pin:
                self.well.add(lies_in[0])
        self.lives = chance.choice((1, 1, 2, 3))

    def _path(self, name: str) -> str:
        return str(next(config.module for config in self.configs if config.name == name))

    def _add(self, name: str, path: str) -> None:
        chance, is_personal = self.chance, name == "stick"
        held = ["eve"] if is_personal else chance.choice((["seal", "ada"], ["seal", "stamp", "ada"], ["seal"]))
        if name == "hsm0":
            held = ["seal", "ada", "stamp"]
        usual = chance.choice((0.0003, 0.003, 0.03, 0.18, 0.5))
        pin = f"pin-{name}-{self.seed}"
        card = Card(name, f"01{len(self.cards)}", pin, held, lies=chance.random() < 0.2)
        card.asks_each_time = is_personal and chance.random() < 0.3
        card.sign_s = lambda: usual * (0.5 + self.clock.chance.random())
        # Without a configured serial it is by its keys that a card is known at the first start.
        is_named = chance.random() < 0.6
        other = Card(name, f"99{len(self.cards)}", f"pin-foreign-{name}", held if is_named else ["x"])
        self.names_keys = self.names_keys or not is_named
        self.cards[name], self.others[name] = card, other
        self.judge.guards[card.serial] = Guard(card, is_personal)
        self.judge.guards[other.serial] = Guard(other, is_personal, is_foreign=True)
        self.pins[name] = pin if chance.random() > 0.08 else f"pin-stale-{name}"
        slot = self.slots[name] = Slot(card)
        if path in self.modules:
            self.modules[path].slots = [*self.modules[path].slots, slot]
        else:
            rules = functools.partial(self._rules, path)
            module = Module([slot], lambda: self.clock.now, rules, self._seen, is_direct=chance.random() < 0.8)
            self.modules[path] = module
        self.configs.append(
            TokenConfig(
                name=name,
                module=Path(path),
                label=name,
                serial=card.serial if is_named else None,
                pin=None if is_personal else lambda: Pin(self.pins[name]),
                lanes=1 if is_personal or usual > 0.01 else chance.choice((1, 2, 3)),
                start_timeout_s=4.0,
                sign_timeout_s=3.0,
                personal=is_personal,
            )
        )

    def _rules(self, path: str, fn: str, _number: int) -> Sequence[tuple[str, str]]:
        rate = self.rates[path]
        if not rate or fn not in FAULTS or self.clock.chance.random() >= rate:
            return ()
        action, _, argument = self.clock.chance.choice(FAULTS[fn]).partition(" ")
        self.say(path, f"{fn} will {action} {argument}".rstrip())
        return [(action, argument)]

    def _seen(self, process: Process, fn: str, event: str, number: int, **said: Any) -> None:
        """A module is called, or answers."""
        card: Card | None = said.get("card")
        if fn in {"C_Sign", "C_Login"}:
            if card is not None:
                self._calls[fn, number, process.pid] = (card, said["said"])
            card, what = self._calls[fn, number, process.pid]
            name = card.label
            data = "" if fn == "C_Login" else " " + self._name(what.data)
            answer = f" -> {said['rv']:#x}" if event == "leave" else ""
            self.say(f"{name}[{process.pid - FIRST_PID}]", f"{fn}{data}{answer}")
            if fn == "C_Login":
                if event == "enter":
                    self.judged(self.judge.c_login, name, card, what)
                    self._one_login(process, name)
                else:
                    self._logging_in.pop(self._path(name), None)
                    self.judged(self.judge.login_left, card, what, said["rv"])
            elif event == "enter":
                self.judged(self.judge.c_sign, process.pid, name, what)
        elif fn == "C_OpenSession" and card is not None:
            self.judged(self.judge.opened, process.pid, card)
        elif fn in {"C_Initialize", "C_Logout", "C_Finalize"} and event == "enter":
            self.say(f"[{process.pid - FIRST_PID}]", fn)

    def _one_login(self, process: Process, name: str) -> None:
        """Two at a time would make some modules refuse a right PIN."""
        path = self._path(name)
        before = self._logging_in.get(path)
        if before is not None and before is not process and before in self.fakes.living:
            self.failed(f"I8: two logins at a time in {path}")
        self._logging_in[path] = process

    def _name(self, digest: bytes) -> str:
        found = self.judge.of(digest)
        return f"{found[0].name[:8]}/{found[1]}" if found is not None else digest.hex()[:8]

    # ---- lives

    def run(self) -> None:
        """Raises what was found."""
        base = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self._calls: dict[tuple[str, int, int], Any] = {}
        self._logging_in: dict[str, Process] = {}
        with tempfile.TemporaryDirectory(dir=base) as directory, self._played():
            self.state = Path(directory)
            (self.state / "paraph.sqlite").write_bytes(store())
            for number in range(self.lives):
                if self.problem is None:
                    self._live(is_last=number == self.lives - 1)
            self.is_over = True
            for loop, _, tasks in self.graves:
                bury(loop, tasks)
        if self.problem is not None:
            raise self.problem

    @contextlib.contextmanager
    def _played(self) -> Iterator[None]:
        ears, names = _Ears(self), ("pool", "signer", "asyncio")
        ids = random.Random(self.seed + 1)
        self.ids = ids
        with (
            simulated(self.clock),
            mock.patch.object(pool.settle, "verify", _VERIFY),
            mock.patch.object(libcrypto, "verifier", _lanes_verifier),
            mock.patch.object(secrets, "token_bytes", ids.randbytes),
            mock.patch.object(secrets, "token_hex", lambda count: ids.randbytes(count).hex()),
        ):
            before = [(log, log.level, log.propagate) for log in map(logging.getLogger, names)]
            for log, _, _ in before:
                log.addHandler(ears)
                log.setLevel(logging.INFO)
                log.propagate = False
            try:
                yield
            finally:
                for log, level, propagate in before:
                    log.removeHandler(ears)
                    log.setLevel(level)
                    log.propagate = propagate

    def _live(self, *, is_last: bool) -> None:
        loop = Loop(self.clock)
        loop.set_exception_handler(self._loop_failed)
        life = Life(self, loop, is_last=is_last)
        try:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(life.main())
        except Crashed as crash:
            self.say("daemon", f"is gone ({crash.code})")
            if self.disk.state == "sick":
                self.disk.state = "well"
        except Violation as violation:
            self.failed(violation)
        except AssertionError as error:
            self.failed(error)
        finally:
            asyncio.set_event_loop(None)
            self.fakes.kill_all()
            for raised in self.fakes.errors:
                self.failed(raised)
            self.steps += loop.turns
            life.crashed()
            self.graves.append((loop, life, list(asyncio.all_tasks(loop))))
            self.judge.new_life()

    def _loop_failed(self, _loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.failed(error if error is not None else Violation(context["message"]))

    def _load(self, path: str, process: Process) -> Any:
        return self.modules[path].load(path, process)

    def _delay(self, what: str) -> float:
        chance = self.clock.chance
        if what == "exec":
            return 0.02 + 0.06 * chance.random()
        if what == "exit":
            return 0.03 * chance.random()
        return 0.05 * chance.random() if chance.random() < 0.01 else 0.001 * chance.random()


_VERIFY = keys.verified(pool.settle.verify)
_REAL_VERIFIER = libcrypto.verifier


@functools.cache
def _lanes_verifier(algorithm: Any, spki: bytes) -> Any:
    real = _REAL_VERIFIER(algorithm, spki)
    if real is None:
        return None
    look = keys.verified(lambda _algorithm, _spki, item, signature: real(item, signature))
    return lambda item, signature: look(algorithm, spki, item, signature)


def play(seed: int) -> World:
    """The whole run of a seed; raises what it found, with the world as `world`."""
    world = World(seed)
    try:
        world.run()
        for text in world.outputs:
            if "pin-" in text:
                raise Violation(f"I6: a PIN is in what is written: {text}")
    except BaseException as error:
        error.world = world  # type: ignore[attr-defined]
        raise
    return world
