"""The end of a run: nothing fails any more, and everything must come back into service."""

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from pool import WrongEvent
from pool.lane import State as LaneState
from pool.token import State
from tests.simulation.judge import Violation

if TYPE_CHECKING:
    from tests.simulation.life import Life


class Calm:
    """I3, I5 and I7 once more, when no fault can be the excuse."""

    def __init__(self, life: "Life") -> None:
        self.life = life
        self.world = life.world
        self.chance = life.chance
        self.say = life.say

    async def come(self) -> None:
        """Nothing fails any more, an operator sees to everything: then everything is in service again."""
        world, pool = self.world, self.life.pool
        assert pool is not None
        self.say("world", "calm")
        world.rates = dict.fromkeys(world.rates, 0.0)
        world.disk.state, world.disk.slow_s = "well", 0.0
        for name, card in world.cards.items():
            card.wrong = 0
            world.pins[name] = card.pin
            if world.slots[name].card is not card:
                self.life.trouble.put(name, card)
        await asyncio.sleep(4)  # lanes learn that their card was pulled meanwhile, the last slow commit is over
        await self.in_service()
        for name in ("seal", "stamp", "ada", "eve"):
            await self.still_signs(name)
        await self.asked_again()

    async def in_service(self) -> None:
        world = self.world
        deadline = time.monotonic() + 150
        waits = set(world.cards)
        while waits:
            for name in sorted(waits):
                state = self.life.state_of(name)
                with contextlib.suppress(WrongEvent):
                    if state is State.DRAINED:
                        self.life.pool.resume(name)  # type: ignore[union-attr]
                    elif state in {State.LOCKED, State.QUARANTINED, State.TRIPPED}:
                        self.life.trouble.unlock(name, override=True)
                lanes = [lane.lane.state for lane in self.life.pool._lanes() if lane.token.config.name == name]  # type: ignore[union-attr]
                up = {LaneState.OPEN} if name == "stick" else {LaneState.IDLE, LaneState.SIGNING}
                if all(lane in up for lane in lanes):
                    waits.discard(name)
            if waits and time.monotonic() > deadline:
                raise Violation(f"I5: {[(n, str(self.life.state_of(n))) for n in waits]} come not back into service")
            await asyncio.sleep(0.25)
        self.say("world", "everything is in service")

    async def still_signs(self, name: str) -> None:
        if name == "eve":
            if self.world.has_people and not await self.visit():
                self.world.failed("I7: eve cannot sign although nothing fails")
            return
        holders = [card for card in self.world.cards.values() if name in card.keys]
        if not holders:
            return
        for _ in range(6):  # a session that was lost while nobody signed is only found out now
            request = self.life.callers.new("portal", name, 3)
            if name == "ada":
                request.allowed = await self.life.people.allow(request.digests)
            await self.life.callers.call(request, 20.0)
            if len(request.given) == 3:
                return
            await self.in_service()
        self.world.failed(f"I7: {name} does not sign although nothing fails")

    async def visit(self) -> bool:
        for _ in range(3):
            with self.life.engine.begin() as connection:
                connection.exec_driver_sql("DELETE FROM guesses")
            if await self.life.people.visit(self.world.cards["stick"].pin, 60.0, override=True, count=2):
                return True
            await self.in_service()
        return False

    async def asked_again(self) -> None:
        """I3: what was given out is given out again."""
        for request in list(self.world.judge.requests.values()):
            given = dict(request.given)
            if given and request.credential != "eve":
                await self.life.callers.call(request, 20.0)
                if not given.items() <= request.given.items() or not request.given:
                    self.world.failed(f"I3: {request.name} is not answered as before")
