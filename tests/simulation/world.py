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
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import insert

import pool.settle
from pool import Pin, Pool, PoolError, TokenConfig, TryRefused, WrongEvent, libcrypto
from pool.fake import Fakes, Process
from pool.lane import State as LaneState
from pool.process import Child
from pool.reader import ResetFailed
from pool.token import State
from signer import recovery
from signer.batch import Ask, Batches
from signer.cipher import Cipher
from signer.clock import Clock as SignerClock
from signer.clock import Steady
from signer.config import Caller
from signer.consent import Consent
from signer.credential import Credential, Output, Purpose
from signer.errors import Refusal
from signer.gate import Bounds, Gate, Terms
from signer.ledger import Ledger
from signer.sqlite import SqliteDatabase
from signer.store import credentials, open_store, subjects
from signer.writer import Writer
from tests.simulation import keys
from tests.simulation.books import Disk, Stream
from tests.simulation.judge import Allowed, Guard, Judge, Request, Violation, Visit
from tests.simulation.loop import Clock, Crashed, Loop, bury, simulated
from tests.simulation.module import Card, Module, Slot

CALLERS = ("portal", "batch", "other")
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
_ZERO = datetime(2020, 1, 1, tzinfo=UTC)


class WallClock(SignerClock):
    def wall(self) -> datetime:
        return datetime.fromtimestamp(int(time.time()), UTC)


class NothingRevoked:
    """Stands for signer.revocation: no list is configured."""

    def check(self, *_: Any) -> None:
        pass


@functools.cache
def certificate(name: str) -> bytes:
    """Of a key that is played: signed by itself."""
    private = keys.private(name)
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    usage = x509.KeyUsage(*(index == 1 for index in range(9)))  # contentCommitment
    made = x509.CertificateBuilder(who, who, private.public_key(), 1, _ZERO, _ZERO + timedelta(days=36_500))
    return made.add_extension(usage, critical=True).sign(private, hashes.SHA256()).public_bytes(Encoding.DER)


def credential(name: str, gate: Gate, subject: str, lifetime_s: int = 120) -> Credential:
    bounds = Bounds(lifetime_s=lifetime_s, claimed=True)
    outputs = frozenset({Output.RAW})
    who = (gate, subject, bounds)
    return Credential(name, Purpose.SIGNATURE, (certificate(name),), keys.key(name), outputs, _active(), *who)


def _active() -> Any:
    from signer.credential import State as CredentialState

    return CredentialState.ACTIVE


CREDENTIALS = {
    "seal": credential("seal", Gate.CALLER, ""),
    "stamp": credential("stamp", Gate.CALLER, ""),
    "ada": credential("ada", Gate.CODE_TOTP, "ada", 4),
    "eve": credential("eve", Gate.TOKEN_PIN, "eve"),
}


@functools.cache
def _store() -> bytes:
    """The daemon's database as it is before the first start, with the people in it."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "paraph.sqlite"
        engine = open_store(path)
        with engine.begin() as connection:
            for one in CREDENTIALS.values():
                row = {"name": one.name, "purpose": "SIGNATURE", "certificates": "", "outputs": "RAW"}
                connection.execute(
                    insert(credentials).values(**row, state="ACTIVE", gate=one.gate, subject=one.subject)
                )
            row = {"contact_kind": "webhook", "contact": "", "language": "en", "code": "", "factor": "totp"}
            connection.execute(insert(subjects).values(name="ada", state="ACTIVE", seed=b"", last=0, **row))
        engine.dispose()
        return path.read_bytes()


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
            self.say(f"{name}[{process.pid}]", f"{fn}{data}{answer}")
            if fn == "C_Login":
                if event == "enter":
                    self.judged(self.judge.c_login, name, card, what)
                else:
                    self.judged(self.judge.login_left, card, what, said["rv"])
            elif event == "enter":
                self.judged(self.judge.c_sign, process.pid, name, what)
        elif fn in {"C_Initialize", "C_Logout", "C_Finalize"} and event == "enter":
            self.say(f"[{process.pid}]", fn)

    def _name(self, digest: bytes) -> str:
        found = self.judge.of(digest)
        return f"{found[0].name[:8]}/{found[1]}" if found is not None else digest.hex()[:8]

    # ---- lives

    def run(self) -> None:
        """Raises what was found."""
        base = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self._calls: dict[tuple[str, int, int], Any] = {}
        with tempfile.TemporaryDirectory(dir=base) as directory, self._played():
            self.state = Path(directory)
            (self.state / "paraph.sqlite").write_bytes(_store())
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
            for error in self.fakes.errors:
                self.failed(error)
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


class Life:
    """From a start of the daemon to its end."""

    def __init__(self, world: World, loop: Loop, *, is_last: bool) -> None:
        self.world = world
        self.loop = loop
        self.is_last = is_last
        self.chance = world.chance
        self.pool: Pool | None = None
        self.tasks: dict[asyncio.Task[Any], None] = {}  # in the order they were begun
        self.calls: set[Request] = set()
        self.is_calm = False
        self._idle_since: dict[str, float] = {}
        self._unwell_since: dict[str, float] = {}
        self._stream: Stream | None = None
        self._reader: Any = None
        self._engine: Any = None

    def say(self, who: str, what: str) -> None:
        self.world.say(who, what)

    async def main(self) -> None:
        world, chance = self.world, self.chance
        self.say("daemon", "starts")
        ends_in = 3 + 17 * chance.random()
        crashes = not self.is_last and chance.random() < 0.8
        if crashes:
            self.loop.call_later(ends_in, self._crash)
        self._open_books()
        async with self._pool() as self.pool:
            self._batches()
            self.loop.look = self._look
            with contextlib.suppress(TimeoutError):
                await self.pool.ready(chance.choice((0.1, 5.0)))
            actors = [self._callers(), self._person(), self._operator(), self._mischief()]
            actors += [self._visitor()] if world.has_people else []
            acting = [self._task(actor) for actor in actors]
            await asyncio.sleep(ends_in + (1000 if crashes else 0))
            if self.is_last:
                self.is_calm = True
                for actor in acting:
                    actor.cancel()
                await asyncio.gather(*acting, return_exceptions=True)
                await self._calm()
        self.loop.look = lambda: None
        await self._settle()

    def _crash(self) -> None:
        self.say("daemon", "is killed")
        raise Crashed(-9)

    def crashed(self) -> None:
        """What is left of it after any end."""
        for request in self.calls:
            request.calls = 0
            request.over_at = self.world.clock.now
        if self._stream is not None:
            self._stream.close()
        if self._reader is not None:
            self._reader._db.close()
        if self._engine is not None:
            self._engine.dispose()
        if self.pool is not None and self.pool._tries is not None:
            self.pool._tries.close()

    # ---- the daemon

    def _open_books(self) -> None:
        world = self.world
        path = world.state / "paraph.sqlite"
        database = SqliteDatabase(path)
        self._engine = open_store(path)
        past, backend = database.past(), database.backend()
        found = recovery.look(past)
        epoch, sequence, hash_ = recovery.begin(past, backend, found, world.cipher, "simulated")
        past.close()
        backend.close()
        place = (found.instance, epoch, sequence, hash_)

        def written(entries: Any, first: int) -> None:
            world.judged(world.judge.committed, entries, first)

        stream = self._stream = Stream(
            self.loop, path, world.disk, world.cipher, place, written, functools.partial(world.say, "disk")
        )

        def writer(flushed: Any) -> Writer:
            return Writer(stream, found.instance, epoch, hash_, sequence, flushed)  # type: ignore[arg-type]

        self._reader = database.reader()
        self.signer_clock = WallClock()
        self.ledger = Ledger(writer, self._reader, world.cipher, self.signer_clock)

    def _batches(self) -> None:
        nothing: Any = None
        self.steady = Steady(self.signer_clock)
        self.consent = Consent(
            self._engine, self.ledger, nothing, nothing, b"", nothing, nothing, self.steady, "", "", 0.0
        )
        assert self.pool is not None
        revocations: Any = NothingRevoked()
        self.batches = Batches(self.pool, self.ledger, self.signer_clock, self.consent.redeem, revocations, lambda: ())

    def _pool(self) -> Pool:
        world = self.world
        limits = {"backlog_items_max": 300, "caller_items_max": 150} if self.chance.random() < 0.3 else {}
        is_open = not world.names_keys and self.chance.random() < 0.5
        named = None if is_open else [keys.key(name) for name in CREDENTIALS]
        return Pool(world.configs, state=world.state, keys=named, reset=self._reset, start=self._start, **limits)

    async def _start(self, program: str, *args: str, **more: Any) -> Child:
        await asyncio.sleep(self.world.clock.chance.random() * 0.002)
        if not self.is_calm and self.world.clock.chance.random() < 0.005:
            raise OSError(24, "Too many open files")
        return await self.world.fakes.start(program, *args, **more)

    async def _reset(self, config: TokenConfig) -> None:
        await asyncio.sleep(self.world.clock.chance.random() * 0.1)
        if not self.is_calm and self.world.clock.chance.random() < 0.03:
            raise ResetFailed("the reader is busy")
        card = self.world.slots[config.name].card
        self.say(config.name, "the card is reset")
        if card is not None:
            card.power_lost()

    async def _settle(self) -> None:
        """The daemon's orderly end."""
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        async with asyncio.timeout(30):
            await self.ledger.settled()
        await self.ledger.writer.close()
        self._stream = None
        self.say("daemon", "has ended")
        if self.world.judge.open:
            self.world.failed(f"I4: after an orderly end {len(self.world.judge.open)} items are under an open INTENT")

    # ---- callers

    def _task(self, coroutine: Any) -> asyncio.Task[Any]:
        task = self.loop.create_task(coroutine)
        self.tasks[task] = None
        task.add_done_callback(self._task_over)
        return task

    def _task_over(self, task: asyncio.Task[Any]) -> None:
        del self.tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self.world.failed(error)

    def _new(self, caller: str, credential: str, count: int, **more: Any) -> Request:
        world = self.world
        digests = tuple(keys.digest(number) for number in range(world.digests, world.digests + count))
        world.digests += count
        return self._request(caller, credential, digests, **more)

    def _request(self, caller: str, credential: str, digests: tuple[bytes, ...], **more: Any) -> Request:
        name = str(uuid.UUID(bytes=self.world.ids.randbytes(16)))
        request = Request(name, caller, credential, digests, **more)
        self.world.judge.new_request(request)
        return request

    def _ask(self, request: Request, timeout_s: float, **changes: Any) -> Ask:
        role = Caller(name=request.caller, uri=f"uri:{request.caller}", role="submit", rpcs=frozenset())
        wanted = {
            "caller": role,
            "request_id": request.name,
            "credential": CREDENTIALS[request.credential],
            "output": Output.RAW,
            "algorithm": keys.ECDSA,
            "digests": list(request.digests),
            "deadline": time.monotonic() + timeout_s,
            "accepted": self.signer_clock.wall(),
            "authorisation": request.allowed.reference if request.allowed is not None else b"",
        }
        return Ask(**(wanted | changes))

    async def _call(self, request: Request, timeout_s: float, lease: Any = None, **changes: Any) -> None:
        """One call of a caller, to its answer."""
        world, judge = self.world, self.world.judge
        ask = self._ask(request, timeout_s, **changes)
        stalled, who = world.clock.stalled, request.caller
        is_twin = request.calls > 0
        judge.call_begins(request)
        self.calls.add(request)
        self.say(who, f"asks {request.name[:8]} {request.credential} {len(ask.digests)} items, {timeout_s:.2f} s")
        before = sum(len(judge.signs.get((request.name, place), ())) for place in range(len(request.digests)))
        try:
            outcomes, record = await self.batches.sign(ask, lease)
        except (Refusal, PoolError) as error:
            world.outputs.append(str(error))
            self.say(who, f"{request.name[:8]} is refused: {error.reason}")
            after = [s for p in range(len(request.digests)) for s in judge.signs.get((request.name, p), ())][before:]
            written_late = error.reason in {"AUDIT_UNWRITABLE", "STORE_BUSY"}
            if not is_twin and request.calls == 1 and not written_late and after:
                world.failed(f"I2: {request.name} is refused ({error.reason}), and cards were asked")
            judge.counts[f"refused {error.reason}"] += 1
        except asyncio.CancelledError:
            self.say(who, f"{request.name[:8]} is cancelled")
            judge.counts["cancelled"] += 1
            raise
        else:
            counts = {str(status): count for status, count in outcomes.statuses().items()}
            reasons = sorted({problem.reason for problem in outcomes.problems.values()})
            self.say(who, f"{request.name[:8]} is answered: {counts} {reasons}")
            world.outputs += [problem.detail for problem in outcomes.problems.values()]
            judge.counts.update({f"item {name}": count for name, count in counts.items()})
            if changes:
                world.failed(f"I1: {request.name} is answered although it was {sorted(changes)} that was asked")
            world.judged(judge.answered, request, record.attempt, outcomes)
            record.release(delivered=self.chance.random() < 0.9)
        finally:
            judge.call_ends(request)
            if not request.calls:
                self.calls.discard(request)
            world.judged(judge.in_time, f"{who}'s {request.name}", ask.deadline, stalled)

    async def _some_time(self, mean_s: float) -> None:
        await asyncio.sleep(min(10 * mean_s, self.chance.expovariate(1 / mean_s)))

    async def _callers(self) -> None:
        """Portals: new requests, the same again, floods, and what they should not ask."""
        chance, mean_s = self.chance, self.chance.choice((0.05, 0.3, 1.0))
        left = 60
        while left > 0:
            await self._some_time(mean_s)
            if self.is_calm:
                return
            left -= 1
            what, caller = chance.random(), chance.choice(CALLERS)
            mine = [one for one in self.world.judge.requests.values() if one.allowed is None and one.lease is None]
            if what < 0.25 and mine:
                self._begin(chance.choice(mine[-8:]))
            elif what < 0.30 and mine:
                one = chance.choice(mine[-8:])
                other = keys.digest(10_000_000)
                change = chance.choice(({"digests": [other] * len(one.digests)}, {"credential": CREDENTIALS["stamp"]}))
                if one.credential != "stamp" or "digests" in change:
                    self._task(self._refused(one, change))
            elif what < 0.35:
                for _ in range(chance.randrange(5, 25)):
                    self._begin(self._new(caller, chance.choice(("seal", "stamp")), 1))
                left -= 10
            else:
                count = chance.choice((1, 1, 1, 2, 5, 17, 40))
                self._begin(self._new(caller, chance.choice(("seal", "seal", "stamp")), count))

    def _begin(self, request: Request, timeout_s: float = 0.0) -> None:
        chance = self.chance
        task = self._task(self._call(request, timeout_s or chance.choice((0.02, 0.2, 1.0, 3.0, 10.0))))
        if chance.random() < 0.15:
            self.loop.call_later(chance.random() * 0.5, task.cancel)

    async def _refused(self, request: Request, change: dict[str, Any]) -> None:
        """The same id with another body is nobody's request."""
        if not any((request.name, place) in self.world.judge.signs for place in range(len(request.digests))):
            return  # it may be unknown to the ledger, and then it is a new one
        await self._call(request, 3.0, **change)

    # ---- people

    async def _person(self) -> None:
        """Ada allows, and the portal redeems: what she has allowed, or something else, in time or too late."""
        chance = self.chance
        for _ in range(8):
            await self._some_time(1.5)
            if self.is_calm:
                return
            request = self._new("portal", "ada", chance.choice((1, 2, 6)))
            if (allowed := await self._allow(request.digests)) is None:
                continue
            await asyncio.sleep(chance.choice((0.0, 0.2, 1.0, 3.5, 5.0)))
            what = chance.random()
            if what < 0.15:  # something else than she has allowed
                other = self._new("portal", "ada", len(request.digests), allowed=allowed)
                await self._call(other, 2.0)
            elif what < 0.25:
                other = self._new("other", "ada", len(request.digests), allowed=allowed)
                await self._call(other, 2.0, digests=list(request.digests))
            else:
                request.allowed = allowed
                self._begin(request)
            if chance.random() < 0.4:  # twice
                self.say("portal", f"tries what {request.name[:8]} was allowed once more")
                self._begin(self._request("portal", "ada", request.digests, allowed=allowed))
            elif chance.random() < 0.3:
                await self._some_time(0.5)
                self._begin(request)

    async def _allow(self, digests: Sequence[bytes]) -> Allowed | None:
        credential = CREDENTIALS["ada"]
        terms = self._terms(credential, digests)
        try:
            reference, ends = await self.consent._allow(credential, terms, "ada", "window")
        except Refusal as refusal:
            self.say("ada", f"cannot allow: {refusal.reason}")
            return None
        self.say("ada", f"allows {len(digests)} items")
        return Allowed("portal", "ada", tuple(digests), time.monotonic() + ends - self.steady.now(), reference)

    def _terms(self, credential: Credential, digests: Sequence[bytes], caller: str = "portal") -> Terms:
        nothing = (b"",) * len(digests)
        return Terms(caller, credential.name, credential.key.ref, "RAW", str(keys.ECDSA), nothing, tuple(digests))

    async def _visitor(self) -> None:
        """Eve at her stick: the right PIN or a wrong one; she signs, waits, goes, or is cut off."""
        chance = self.chance
        for _ in range(10):
            await self._some_time(1.0)
            if self.is_calm:
                return
            pin = self.world.cards["stick"].pin if chance.random() < 0.8 else f"pin-wrong-{self.world.seed}"
            task = self._task(self._visit(pin, chance.choice((0.3, 2.0, 5.0)), override=chance.random() < 0.05))
            if chance.random() < 0.2:
                self.loop.call_later(chance.random() * 2, task.cancel)
            if chance.random() < 0.7:
                await asyncio.wait({task})

    async def _visit(self, pin: str, timeout_s: float, *, override: bool = False, count: int = 0) -> bool:
        """Whether everything of it was signed."""
        world, judge, chance = self.world, self.world.judge, self.chance
        credential = CREDENTIALS["eve"]
        guard = judge.guards[world.cards["stick"].serial]
        guard.visits += 1
        guard.overrides += override
        stalled, deadline = world.clock.stalled, time.monotonic() + timeout_s
        request = self._new("window", "eve", count or chance.choice((1, 2, 8)))
        self.say("eve", f"comes for {len(request.digests)} items, {timeout_s:.1f} s")
        is_in = False
        leaves = count or chance.random() < 0.8
        try:
            async with (
                self.consent.pin_given(credential, len(request.digests), "192.0.2.7", override=override),
                self.pool.lease(  # type: ignore[union-attr]
                    credential.key.ref if chance.random() < 0.5 else "stick",
                    caller="eve", pin=Pin(pin), timeout_s=timeout_s, override=override,
                ) as lease,
            ):  # fmt: skip
                is_in = True
                self.say("eve", "is let in")
                visit = judge.visits["stick"] = Visit("stick", lease)
                if not next(one for one in reversed(world.cards["stick"].logins) if not one.is_context).is_right:
                    world.failed("I1: a lease was given for a PIN that the card has not taken")
                terms = self._terms(credential, request.digests, "window")
                reference, ends = await self.consent.allow_with_pin(credential, terms, "window")
                lives = time.monotonic() + ends - self.steady.now()
                request.allowed = Allowed("window", "eve", request.digests, lives, reference)
                request.lease = visit
                await self._call(request, timeout_s, lease)
                if not leaves:
                    await asyncio.sleep(chance.random() * timeout_s * 2)
        except (Refusal, PoolError) as error:
            world.outputs.append(str(error))
            judge.counts[f"lease {error.reason}"] += 1
            self.say("eve", f"is turned away: {error.reason}")
        finally:
            self.say("eve", "goes")
            if not is_in:
                world.judged(judge.in_time, "a lease", deadline, stalled)
        return len(request.given) == len(request.digests)

    # ---- an operator, and what goes wrong

    async def _operator(self) -> None:
        chance, mean_s = self.chance, self.chance.choice((0.7, 3.0))
        while not self.is_calm:
            await self._some_time(mean_s)
            names = [name for name in self.world.cards if name not in self.world.well]
            if self.is_calm or not names:
                return
            name, what = (
                chance.choice(names),
                chance.choice(("drain", "resume", "resume", "unlock", "unlock", "reload")),
            )
            try:
                match what:
                    case "drain":
                        self.pool.drain(name)  # type: ignore[union-attr]
                    case "resume":
                        self.pool.resume(name)  # type: ignore[union-attr]
                    case "unlock":
                        self._unlock(name, override=False)
                    case "reload" if chance.random() < 0.3:
                        self.pool.set_keys([keys.key(one) for one in CREDENTIALS])  # type: ignore[union-attr]
            except (WrongEvent, TryRefused):
                continue
            self.say("operator", f"{what} {name}")

    def _unlock(self, name: str, *, override: bool) -> None:
        was = self._state(name)
        self.pool.unlock(name, override=override)  # type: ignore[union-attr]
        if was is State.LOCKED:
            self.world.judge.granted(self.world.cards[name], override=override)

    def _state(self, name: str) -> State:
        return self.pool._keeper(name).state  # type: ignore[union-attr]

    async def _mischief(self) -> None:
        """Cards are pulled, swapped and put back, PINs changed; the disk is full, slow or sick."""
        world, chance, mean_s = self.world, self.chance, self.chance.choice((1.0, 4.0, 30.0))
        while not self.is_calm:
            await self._some_time(mean_s)
            names = [name for name in world.cards if name not in world.well]
            what = chance.random()
            if self.is_calm:
                return
            if what < 0.25:
                await self._bad_disk()
            elif names:
                name = chance.choice(names)
                if what < 0.85:
                    await self._pull(name)
                elif world.cards[name].wrong == 0:
                    self.say(name, "its PIN is changed elsewhere")
                    world.cards[name].pin += "x"

    async def _pull(self, name: str) -> None:
        world, chance = self.world, self.chance
        self.say(name, "is pulled")
        self._put(name, None)
        await asyncio.sleep(chance.choice((0.02, 0.3, 2.0)))
        if chance.random() < 0.3:
            self.say(name, "another card is in its place")
            self._put(name, world.others[name])
            await asyncio.sleep(chance.choice((0.3, 2.5)))
            self._put(name, None)
            await asyncio.sleep(0.1)
        self.say(name, "is put back")
        self._put(name, world.cards[name])

    def _put(self, name: str, card: Card | None) -> None:
        slot = self.world.slots[name]
        if slot.card is not None:
            slot.card.power_lost()
        slot.card = card

    async def _bad_disk(self) -> None:
        disk, chance = self.world.disk, self.chance
        what = chance.choice(("full", "slow", "slow", "sick"))
        self.say("disk", f"is {what}")
        if what == "slow":
            disk.slow_s = chance.choice((0.05, 0.4, 1.0))
        else:
            disk.state = what
        if what == "sick" and self.is_last:
            disk.state = "full"
        await asyncio.sleep(chance.choice((0.2, 1.0)))
        disk.slow_s = 0.0
        disk.state = "well" if disk.state != "sick" else "sick"
        self.say("disk", "is well" if disk.state == "well" else "is sick")

    # ---- what must hold at each turn

    def _look(self) -> None:
        world, pool = self.world, self.pool
        if world.problem is not None:
            raise Crashed(1)
        assert pool is not None
        now = world.clock.now
        for visit in world.judge.visits.values():
            if visit.ended is None and visit.lease.over:
                visit.ended = now
        line = pool._line
        backlog = line._backlog
        if backlog.items:
            self._idle_lanes(pool, backlog, now)
        else:
            self._idle_since.clear()
        for name in world.well:
            self._is_well(name, now)

    def _idle_lanes(self, pool: Pool, backlog: Any, now: float) -> None:
        """I7: what waits while every lane that could do it has nothing."""
        kinds = {kind[0] for kind in backlog.kinds()}
        for key in kinds:
            able = [lane.lane for lane in pool._service_lanes if key in lane.lane.keys and lane.lane.is_up]
            if able and not any(lane.in_flight for lane in able):
                since, stalled = self._idle_since.setdefault(key, (now, self.world.clock.stalled))
                if now - since - (self.world.clock.stalled - stalled) > 0.5:
                    self.world.failed(f"I7: work waits {now - since:.2f} s beside idle lanes")
            else:
                self._idle_since.pop(key, None)
        for key in self._idle_since.keys() - kinds:
            del self._idle_since[key]

    def _is_well(self, name: str, now: float) -> None:
        """I5."""
        state = self._state(name)
        if state in {State.OPEN, State.READY}:
            return
        self.world.failed(f"I5: nobody disturbs {name}, and it is {state}")

    # ---- afterwards

    async def _calm(self) -> None:
        """Nothing fails any more, an operator sees to everything: then everything is in service again."""
        world, pool = self.world, self.pool
        assert pool is not None
        self.say("world", "calm")
        world.rates = dict.fromkeys(world.rates, 0.0)
        world.disk.state, world.disk.slow_s = "well", 0.0
        for name, card in world.cards.items():
            card.wrong = 0
            world.pins[name] = card.pin
            if world.slots[name].card is not card:
                self._put(name, card)
        await asyncio.sleep(4)  # lanes learn that their card was pulled meanwhile, the last slow commit is over
        await self._in_service()
        for name in ("seal", "stamp", "ada", "eve"):
            await self._still_signs(name)
        await self._asked_again()

    async def _in_service(self) -> None:
        world = self.world
        deadline = time.monotonic() + 150
        waits = set(world.cards)
        while waits:
            for name in sorted(waits):
                state = self._state(name)
                with contextlib.suppress(WrongEvent):
                    if state is State.DRAINED:
                        self.pool.resume(name)  # type: ignore[union-attr]
                    elif state in {State.LOCKED, State.QUARANTINED, State.TRIPPED}:
                        self._unlock(name, override=True)
                lanes = [lane.lane.state for lane in self.pool._lanes() if lane.token.config.name == name]  # type: ignore[union-attr]
                up = {LaneState.OPEN} if name == "stick" else {LaneState.IDLE, LaneState.SIGNING}
                if all(lane in up for lane in lanes):
                    waits.discard(name)
            if waits and time.monotonic() > deadline:
                raise Violation(f"I5: {[(n, str(self._state(n))) for n in waits]} come not back into service")
            await asyncio.sleep(0.25)
        self.say("world", "everything is in service")

    async def _still_signs(self, name: str) -> None:
        if name == "eve":
            if self.world.has_people and not await self._calm_visit():
                self.world.failed("I7: eve cannot sign although nothing fails")
            return
        holders = [card for card in self.world.cards.values() if name in card.keys]
        if not holders:
            return
        for _ in range(6):  # a session that was lost while nobody signed is only found out now
            request = self._new("portal", name, 3)
            if name == "ada":
                request.allowed = await self._allow(request.digests)
            await self._call(request, 20.0)
            if len(request.given) == 3:
                return
            await self._in_service()
        self.world.failed(f"I7: {name} does not sign although nothing fails")

    async def _calm_visit(self) -> bool:
        for _ in range(3):
            with self._engine.begin() as connection:
                connection.exec_driver_sql("DELETE FROM guesses")
            if await self._visit(self.world.cards["stick"].pin, 60.0, override=True, count=2):
                return True
            await self._in_service()
        return False

    async def _asked_again(self) -> None:
        """I3: what was given out is given out again."""
        for request in list(self.world.judge.requests.values()):
            given = dict(request.given)
            if given and request.credential != "eve":
                await self._call(request, 20.0)
                if not given.items() <= request.given.items() or not request.given:
                    self.world.failed(f"I3: {request.name} is not answered as before")


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
