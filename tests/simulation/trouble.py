"""An operator at work, and whatever goes wrong with cards and disks."""

import asyncio
from typing import TYPE_CHECKING

from pool import TryRefused, WrongEvent
from pool.token import State
from tests.simulation import keys
from tests.simulation.credentials import CREDENTIALS
from tests.simulation.module import Card

if TYPE_CHECKING:
    from tests.simulation.life import Life


class Trouble:
    """Both draw what they do; what nobody may disturb (`World.well`) they leave alone."""

    def __init__(self, life: "Life") -> None:
        self.life = life
        self.world = life.world
        self.chance = life.chance
        self.say = life.say

    async def operator(self) -> None:
        chance, mean_s = self.chance, self.chance.choice((0.7, 3.0))
        while not self.life.is_calm:
            await self.life.some_time(mean_s)
            names = [name for name in self.world.cards if name not in self.world.well]
            if self.life.is_calm or not names:
                return
            name, what = (
                chance.choice(names),
                chance.choice(("drain", "resume", "resume", "unlock", "unlock", "reload")),
            )
            try:
                match what:
                    case "drain":
                        self.life.pool.drain(name)  # type: ignore[union-attr]
                    case "resume":
                        self.life.pool.resume(name)  # type: ignore[union-attr]
                    case "unlock":
                        self.unlock(name, override=False)
                    case "reload" if chance.random() < 0.3:
                        self.life.pool.set_keys([keys.key(one) for one in CREDENTIALS])  # type: ignore[union-attr]
            except (WrongEvent, TryRefused):
                continue
            self.say("operator", f"{what} {name}")

    def unlock(self, name: str, *, override: bool) -> None:
        was = self.life.state_of(name)
        self.life.pool.unlock(name, override=override)  # type: ignore[union-attr]
        if was is State.LOCKED:
            self.world.judge.granted(self.world.cards[name], override=override)
        if was is State.QUARANTINED:
            self.world.judge.examined(self.world.cards[name])

    async def mischief(self) -> None:
        """Cards are pulled, swapped and put back, PINs changed; the disk is full, slow or sick."""
        world, chance, mean_s = self.world, self.chance, self.chance.choice((1.0, 4.0, 30.0))
        while not self.life.is_calm:
            await self.life.some_time(mean_s)
            names = [name for name in world.cards if name not in world.well]
            what = chance.random()
            if self.life.is_calm:
                return
            if what < 0.25:
                await self.bad_disk()
            elif names:
                name = chance.choice(names)
                if what < 0.85:
                    await self.pull(name)
                elif world.cards[name].wrong == 0:
                    self.say(name, "its PIN is changed elsewhere")
                    world.cards[name].pin += "x"

    async def pull(self, name: str) -> None:
        world, chance = self.world, self.chance
        self.say(name, "is pulled")
        self.put(name, None)
        await asyncio.sleep(chance.choice((0.02, 0.3, 2.0)))
        if chance.random() < 0.3:
            self.say(name, "another card is in its place")
            self.put(name, world.others[name])
            await asyncio.sleep(chance.choice((0.3, 2.5)))
            self.put(name, None)
            await asyncio.sleep(0.1)
        self.say(name, "is put back")
        self.put(name, world.cards[name])

    def put(self, name: str, card: Card | None) -> None:
        slot = self.world.slots[name]
        if slot.card is not None:
            slot.card.power_lost()
        slot.card = card

    async def bad_disk(self) -> None:
        disk, chance = self.world.disk, self.chance
        what = chance.choice(("full", "slow", "slow", "sick"))
        self.say("disk", f"is {what}")
        if what == "slow":
            disk.slow_s = chance.choice((0.05, 0.4, 1.0))
        else:
            disk.state = what
        if what == "sick" and self.life.is_last:
            disk.state = "full"
        await asyncio.sleep(chance.choice((0.2, 1.0)))
        disk.slow_s = 0.0
        disk.state = "well" if disk.state != "sick" else "sick"
        self.say("disk", "is well" if disk.state == "well" else "is sick")
