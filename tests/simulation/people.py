"""People: Ada, who allows what a portal then has signed, and Eve at her own stick."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from pool import Lease, Pin, PoolError
from signer.credential import Credential
from signer.errors import Refusal
from signer.gate import Terms
from tests.simulation import keys
from tests.simulation.credentials import CREDENTIALS
from tests.simulation.judge import Allowed, Visit

if TYPE_CHECKING:
    from tests.simulation.life import Life


class People:
    """Right and wrong PINs, second thoughts, and what was allowed used for something else."""

    def __init__(self, life: "Life") -> None:
        self.life = life
        self.world = life.world
        self.chance = life.chance
        self.say = life.say

    async def ada(self) -> None:
        """Ada allows, and the portal redeems: what she has allowed, or something else, in time or too late."""
        chance = self.chance
        for _ in range(8):
            await self.life.some_time(1.5)
            if self.life.is_calm:
                return
            request = self.life.callers.new("portal", "ada", chance.choice((1, 2, 6)))
            if (allowed := await self.allow(request.digests)) is None:
                continue
            await asyncio.sleep(chance.choice((0.0, 0.2, 1.0, 3.5, 5.0)))
            what = chance.random()
            if what < 0.15:  # something else than she has allowed
                other = self.life.callers.new("portal", "ada", len(request.digests), allowed=allowed)
                await self.life.callers.call(other, 2.0)
            elif what < 0.25:
                other = self.life.callers.new("other", "ada", len(request.digests), allowed=allowed)
                await self.life.callers.call(other, 2.0, digests=list(request.digests))
            else:
                request.allowed = allowed
                self.life.callers.begin(request)
            if chance.random() < 0.4:  # twice
                self.say("portal", f"tries what {request.name[:8]} was allowed once more")
                self.life.callers.begin(self.life.callers.request("portal", "ada", request.digests, allowed=allowed))
            elif chance.random() < 0.3:
                await self.life.some_time(0.5)
                self.life.callers.begin(request)

    async def allow(self, digests: Sequence[bytes]) -> Allowed | None:
        credential = CREDENTIALS["ada"]
        terms = self.terms(credential, digests)
        try:
            reference, ends = await self.life.consent._allow(credential, terms, "ada", "window")
        except Refusal as refusal:
            self.say("ada", f"cannot allow: {refusal.reason}")
            return None
        self.say("ada", f"allows {len(digests)} items")
        return Allowed("portal", "ada", tuple(digests), time.monotonic() + ends - self.life.steady.now(), reference)

    def terms(self, credential: Credential, digests: Sequence[bytes], caller: str = "portal") -> Terms:
        nothing = (b"",) * len(digests)
        return Terms(caller, credential.name, credential.key.ref, "RAW", str(keys.ECDSA), nothing, tuple(digests))

    async def eve(self) -> None:
        """Eve at her stick: the right PIN or a wrong one; she signs, waits, goes, or is cut off."""
        chance = self.chance
        for _ in range(10):
            await self.life.some_time(1.0)
            if self.life.is_calm:
                return
            pin = self.world.cards["stick"].pin if chance.random() < 0.8 else f"pin-wrong-{self.world.seed}"
            task = self.life.task(self.visit(pin, chance.choice((0.3, 2.0, 5.0)), override=chance.random() < 0.05))
            if chance.random() < 0.2:
                self.life.loop.call_later(chance.random() * 2, task.cancel)
            if chance.random() < 0.7:
                await asyncio.wait({task})

    async def visit(self, pin: str, timeout_s: float, *, override: bool = False, count: int = 0) -> bool:
        """Whether everything of it was signed."""
        world, judge, chance = self.world, self.world.judge, self.chance
        credential = CREDENTIALS["eve"]
        guard = judge.guards[world.cards["stick"].serial]
        guard.visits += 1
        guard.overrides += override
        request = self.life.callers.new("window", "eve", count or chance.choice((1, 2, 8, 30)))
        self.say("eve", f"comes for {len(request.digests)} items, {timeout_s:.1f} s")
        leaves = count or chance.random() < 0.8
        try:
            async with (
                self.life.consent.pin_given(credential, len(request.digests), "192.0.2.7", override=override),
                self.leased(pin, timeout_s, override=override) as lease,
            ):
                self.say("eve", "is let in")
                visit = judge.visits["stick"] = Visit("stick", lease)
                if not next(one for one in reversed(world.cards["stick"].logins) if not one.is_context).is_right:
                    world.failed("I1: a lease was given for a PIN that the card has not taken")
                terms = self.terms(credential, request.digests, "window")
                reference, ends = await self.life.consent.allow_with_pin(credential, terms, "window")
                lives = time.monotonic() + ends - self.life.steady.now()
                request.allowed = Allowed("window", "eve", request.digests, lives, reference)
                request.lease = visit
                if leaves and not count and chance.random() < 0.4:  # she goes while her documents are being signed
                    self.life.task(self.life.callers.call(request, timeout_s, lease))
                    await asyncio.sleep(chance.random() * chance.choice((0.01, 0.2)))
                else:
                    await self.life.callers.call(request, timeout_s, lease)
                if not leaves:
                    await asyncio.sleep(chance.random() * timeout_s * 2)
        except (Refusal, PoolError) as error:
            world.outputs.append(str(error))
            judge.counts[f"lease {error.reason}"] += 1
            self.say("eve", f"is turned away: {error.reason}")
        finally:
            self.say("eve", "goes")
        return len(request.given) == len(request.digests)

    @contextlib.asynccontextmanager
    async def leased(self, pin: str, timeout_s: float, *, override: bool) -> AsyncIterator[Lease]:
        assert self.life.pool is not None
        stalled, deadline = self.world.clock.stalled, time.monotonic() + timeout_s
        name = CREDENTIALS["eve"].key.ref if self.chance.random() < 0.5 else "stick"
        leased = self.life.pool.lease(name, caller="eve", pin=Pin(pin), timeout_s=timeout_s, override=override)
        async with contextlib.AsyncExitStack() as stack:
            try:
                lease = await stack.enter_async_context(leased)
            finally:
                self.world.judged(self.world.judge.in_time, "a lease", deadline, stalled)
            yield lease
