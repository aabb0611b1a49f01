"""The daemon from a start to its end: its own parts, put together as its server does it, on a simulated loop."""

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING, Any

from pool import Pool, TokenConfig
from pool.process import Child
from pool.reader import ResetFailed
from pool.token import State
from signer import recovery
from signer.batch import Batches
from signer.books import SETTLE_S
from signer.consent import Consent
from signer.ledger import Ledger
from signer.sqlite import SqliteDatabase
from signer.steady import Steady
from signer.store import open_store
from signer.writer import Writer
from tests.simulation import keys
from tests.simulation.books import Stream
from tests.simulation.callers import Callers
from tests.simulation.calm import Calm
from tests.simulation.credentials import CREDENTIALS, NothingRevoked, WallClock
from tests.simulation.judge import Request
from tests.simulation.loop import Crashed, Loop
from tests.simulation.people import People
from tests.simulation.trouble import Trouble
from tests.simulation.watch import Watch

if TYPE_CHECKING:
    from tests.simulation.world import World


class _Writer(Writer):
    """Without pulses, which would be events of their own: each kept seed would meet something else than what it is kept for."""

    def _rest(self) -> None:
        pass


class Life:
    """From a start of the daemon to its end."""

    def __init__(self, world: "World", loop: Loop, *, is_last: bool) -> None:
        self.world = world
        self.loop = loop
        self.is_last = is_last
        self.chance = world.chance
        self.pool: Pool | None = None
        self.tasks: dict[asyncio.Task[Any], None] = {}  # in the order they were begun
        self.calls: set[Request] = set()
        self.is_calm = False
        self.callers = Callers(self)
        self.people = People(self)
        self.trouble = Trouble(self)
        self.watch = Watch(self)
        self.calm = Calm(self)
        self._stream: Stream | None = None
        self._reader: Any = None
        self.engine: Any = None

    def say(self, who: str, what: str) -> None:
        self.world.say(who, what)

    async def main(self) -> None:
        world, chance = self.world, self.chance
        self.say("daemon", "starts")
        ends_in = 2 + 11 * chance.random()
        crashes = not self.is_last and chance.random() < 0.8
        if crashes:
            self.loop.call_later(ends_in, self._crash)
        self._open_books()
        async with self._pool() as self.pool:
            self._batches()
            add = self.pool._line._backlog.add
            self.pool._line._backlog.add = lambda work: (add(work), self.watch.works.setdefault(work))[0]  # type: ignore[method-assign,func-returns-value]
            self.loop.look = self.watch.look
            with contextlib.suppress(TimeoutError):
                await self.pool.ready(chance.choice((0.1, 5.0)))
            actors = [self.callers.portals(), self.people.ada(), self.trouble.operator(), self.trouble.mischief()]
            actors += [self.people.eve()] if world.has_people else []
            acting = [self.task(actor) for actor in actors]
            if self._reader is not None and self._reader.ids is not None:
                acting.append(self.task(self._reader.ids.keep()))
            await asyncio.sleep(ends_in + (1000 if crashes else 0))
            if self.is_last:
                self.is_calm = True
                for actor in acting:
                    actor.cancel()
                await asyncio.gather(*acting, return_exceptions=True)
                await self.calm.come()
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
        if self.engine is not None:
            self.engine.dispose()
        if self.pool is not None and self.pool._tries is not None:
            self.pool._tries.close()

    # ---- the daemon

    def _open_books(self) -> None:
        world = self.world
        path = world.state / "paraph.sqlite"
        database = SqliteDatabase(path)
        self.engine = open_store(path)
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
            return _Writer(stream, found.instance, epoch, hash_, sequence, flushed)  # type: ignore[arg-type]

        self._reader = database.reader()
        self.signer_clock = WallClock()
        self.ledger = Ledger(writer, self._reader, world.cipher, self.signer_clock)

    def _batches(self) -> None:
        nothing: Any = None
        self.steady = Steady(self.signer_clock)
        self.consent = Consent(
            self.engine, self.ledger, nothing, nothing, b"", nothing, nothing, self.steady, "", "", 0.0
        )
        assert self.pool is not None
        revocations: Any = NothingRevoked()
        self.batches = Batches(
            self.pool,
            self.ledger,
            self.signer_clock,
            self.consent.redeem,
            revocations,
            lambda: (),
            lambda _ask: None,
            self.steady,
        )

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
        is_well = self.world.disk.state == "well"
        with contextlib.suppress(*([] if is_well else [TimeoutError])):
            async with asyncio.timeout(30 if is_well else SETTLE_S):
                await self.ledger.settled()
        is_written = self.ledger.writer.problem is None
        await self.ledger.writer.close()
        self._stream = None
        self.say("daemon", "has ended")
        if not is_written:  # its disk is full: the next start sees what is missing, and somebody has made room by then
            self.world.disk.state = "well"
        elif self.world.judge.open:
            self.world.failed(f"I4: after an orderly end {len(self.world.judge.open)} items are under an open INTENT")

    # ---- callers

    def task(self, coroutine: Any) -> asyncio.Task[Any]:
        task = self.loop.create_task(coroutine)
        self.tasks[task] = None
        task.add_done_callback(self.task_over)
        return task

    def task_over(self, task: asyncio.Task[Any]) -> None:
        del self.tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self.world.failed(error)

    async def some_time(self, mean_s: float) -> None:
        await asyncio.sleep(min(10 * mean_s, self.chance.expovariate(1 / mean_s)))

    def state_of(self, name: str) -> State:
        return self.pool._keeper(name).state  # type: ignore[union-attr]
