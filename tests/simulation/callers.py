"""Callers of the daemon: portals that ask, ask again, flood, and ask what they should not."""

import asyncio
import time
import uuid
from typing import TYPE_CHECKING, Any

from pool import PoolError
from signer.batch import Ask
from signer.config import Caller
from signer.credential import Output
from signer.errors import Refusal
from tests.simulation import keys
from tests.simulation.credentials import CREDENTIALS
from tests.simulation.judge import Request

if TYPE_CHECKING:
    from tests.simulation.life import Life


CALLERS = ("portal", "batch", "other")


class Callers:
    """What they ask, and how each call ends."""

    def __init__(self, life: "Life") -> None:
        self.life = life
        self.world = life.world
        self.chance = life.chance
        self.say = life.say

    def new(self, caller: str, credential: str, count: int, **more: Any) -> Request:
        world = self.world
        digests = tuple(keys.digest(number) for number in range(world.digests, world.digests + count))
        world.digests += count
        return self.request(caller, credential, digests, **more)

    def request(self, caller: str, credential: str, digests: tuple[bytes, ...], **more: Any) -> Request:
        name = str(uuid.UUID(bytes=self.world.ids.randbytes(16)))
        request = Request(name, caller, credential, digests, **more)
        self.world.judge.new_request(request)
        return request

    def ask(self, request: Request, timeout_s: float, **changes: Any) -> Ask:
        role = Caller(name=request.caller, uri=f"uri:{request.caller}", role="submit", rpcs=frozenset())
        wanted = {
            "caller": role,
            "request_id": request.name,
            "credential": CREDENTIALS[request.credential],
            "output": Output.RAW,
            "algorithm": keys.ECDSA,
            "digests": list(request.digests),
            "deadline": time.monotonic() + timeout_s,
            "accepted": self.life.signer_clock.wall(),
            "authorisation": request.allowed.reference if request.allowed is not None else b"",
        }
        return Ask(**(wanted | changes))

    async def call(self, request: Request, timeout_s: float, lease: Any = None, **changes: Any) -> None:
        """One call of a caller, to its answer."""
        world, judge = self.world, self.world.judge
        ask = self.ask(request, timeout_s, **changes)
        stalled, who = world.clock.stalled, request.caller
        is_twin = request.calls > 0
        judge.call_begins(request)
        self.life.calls.add(request)
        self.say(who, f"asks {request.name[:8]} {request.credential} {len(ask.digests)} items, {timeout_s:.2f} s")
        before = sum(len(judge.signs.get((request.name, place), ())) for place in range(len(request.digests)))
        try:
            outcomes, record = await self.life.batches.sign(ask, lease)
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
                self.life.calls.discard(request)
            world.judged(judge.in_time, f"{who}'s {request.name}", ask.deadline, stalled)

    async def portals(self) -> None:
        """Portals: new requests, the same again, floods, and what they should not ask."""
        chance, mean_s = self.chance, self.chance.choice((0.05, 0.3, 1.0))
        left = 60
        while left > 0:
            await self.life.some_time(mean_s)
            if self.life.is_calm:
                return
            left -= 1
            what, caller = chance.random(), chance.choice(CALLERS)
            mine = [one for one in self.world.judge.requests.values() if one.allowed is None and one.lease is None]
            if what < 0.25 and mine:
                self.begin(chance.choice(mine[-8:]))
            elif what < 0.30 and mine:
                one = chance.choice(mine[-8:])
                other = keys.digest(10_000_000)
                change = chance.choice(({"digests": [other] * len(one.digests)}, {"credential": CREDENTIALS["stamp"]}))
                if one.credential != "stamp" or "digests" in change:
                    self.life.task(self.refused(one, change))
            elif what < 0.35:
                for _ in range(chance.randrange(5, 25)):
                    self.begin(self.new(caller, chance.choice(("seal", "stamp")), 1))
                left -= 10
            else:
                count = chance.choice((1, 1, 1, 2, 5, 17, 40))
                self.begin(self.new(caller, chance.choice(("seal", "seal", "stamp")), count))

    def begin(self, request: Request, timeout_s: float = 0.0) -> None:
        chance = self.chance
        task = self.life.task(self.call(request, timeout_s or chance.choice((0.02, 0.2, 1.0, 3.0, 10.0))))
        if chance.random() < 0.15:
            self.life.loop.call_later(chance.random() * 0.5, task.cancel)

    async def refused(self, request: Request, change: dict[str, Any]) -> None:
        """The same id with another body is nobody's request."""
        if not any((request.name, place) in self.world.judge.signs for place in range(len(request.digests))):
            return  # it may be unknown to the ledger, and then it is a new one
        await self.call(request, 3.0, **change)
