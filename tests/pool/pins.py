"""
Random sequences of PINs (row 2.5): right and wrong ones, sent by a service and by persons, over a token that counts. Lanes
and daemons end between a login and its answer, answers say nothing, flags lie; persons unlock, override and are wrong.

After each step: the token is locked only by a try that a person has overridden for; by our count it has lost no fewer
tries than it really has; and no more logins were refused than persons have acted.

`python -m tests.pool.pins opencryptoki 4711` plays the sequence of a seed again and tells it.
"""

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from pool import Pin, Pool, PoolError, TokenConfig, TokenView, TryRefused
from tests.card.client import has_card
from tests.card.pcscd import OPENSC, Pcscd
from tests.card.piv import PIN as PIV_PIN
from tests.card.piv import PIN_REF, Card
from tests.daemon import until as seen
from tests.opencryptoki import Opencryptoki
from tests.shim import Shim
from tests.softhsm import MODULE, PIN, Store
from tests.tpm import Tpm

TRIES = 3
STEPS_MAX = 5
CKR_PIN_INCORRECT = 0xA0
LOCKED = ("LOCKED", "QUARANTINED", "TRIPPED")


class Counted(Protocol):
    """A token whose tries are counted, by itself or by the shim before it."""

    module: Path
    environment: dict[str, str]
    pin: str
    wrong: str
    rules: tuple[str, ...]  # the shim's, always

    def fresh(self) -> None:
        """All tries are there, before a sequence."""

    def tidy(self) -> None:
        """What a process left behind that was killed."""

    def lost(self, shim: Shim) -> int:
        """How many tries it has lost, in truth."""

    def clear(self) -> None:
        """An operator clears its count; nothing where a right PIN does that."""


class SoftHsm:
    """SoftHSM locks nothing: the shim counts, and locks."""

    wrong = "9999"
    rules = (f"C_Login * tries {TRIES}", f"C_GetTokenInfo * pin-flags {TRIES}")

    def __init__(self, directory: Path) -> None:
        store = Store(directory / "softhsm")
        store.token("card")
        store.keys("card", ["P-256"])
        self.module, self.environment, self.pin = MODULE, store.environment, PIN

    def fresh(self) -> None:
        pass  # a shim of its own for each sequence

    tidy = clear = fresh

    def lost(self, shim: Shim) -> int:
        return shim.wrong_pins()


class Soft:
    """opencryptoki's counts and locks by itself."""

    wrong = "99999999"
    rules = ()

    def __init__(self, house: Opencryptoki) -> None:
        self.house = house
        house.token("card")
        house.keys(["RSA-2048"])
        self.module, self.environment, self.pin = house.module, house.environment, house.pin

    def fresh(self) -> None:
        if self.house.flags():
            self.house.unblock()

    def tidy(self) -> None:
        pass

    clear = tidy

    def lost(self, shim: Shim) -> int:
        says = {"count low": 1, "final try": 2, "locked": 3}
        lost = max((says[flag] for flag in self.house.flags()), default=0)
        assert lost == min(shim.wrong_pins(), TRIES), "token and shim count the same"
        return lost


class Chip:
    """A TPM locks by itself, and keeps its count until its owner clears it."""

    wrong = "9999"
    rules = ()

    def __init__(self, tpm: Tpm) -> None:
        self.tpm = tpm
        tpm.token("card")
        tpm.keys(["P-256"])
        self.module, self.environment, self.pin = tpm.module, tpm.environment, tpm.pin

    def fresh(self) -> None:
        self.tidy()
        self.tpm.unblock()

    def tidy(self) -> None:
        self.tpm.tidy()

    def lost(self, shim: Shim) -> int:
        return self.tpm.failed_tries()

    def clear(self) -> None:
        self.tpm.unblock()


class Piv:
    """A PIV card behind OpenSC, which sends the PIN when it wants to; the card counts what really came."""

    wrong = "999999"
    rules = ()
    module = OPENSC

    def __init__(self, pcscd: Pcscd) -> None:
        self.card = Card()
        self.card.add(0x9A, "p256", "card")
        pcscd["reader"].insert(self.card)
        seen(lambda: has_card(pcscd.environment, pcscd["reader"].name), 5, "pcscd sees the card")
        self.environment, self.pin = pcscd.environment, PIV_PIN

    def fresh(self) -> None:
        self.card.unblock()
        self.tidy()

    def tidy(self) -> None:
        self.card.reset()

    def lost(self, shim: Shim) -> int:
        left = self.card.tries[PIN_REF]
        assert TRIES - left <= shim.wrong_pins() or not left, "OpenSC has sent a wrong PIN that was not ours"
        return TRIES - left

    def clear(self) -> None:
        pass


@contextlib.contextmanager
def counted(name: str) -> Iterator[Counted]:
    """One of the stacks, running: 'softhsm', 'opencryptoki', 'tpm', 'card'."""
    with contextlib.ExitStack() as stack:
        if name == "softhsm":
            yield SoftHsm(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        elif name == "opencryptoki":
            yield Soft(stack.enter_context(Opencryptoki()))
        elif name == "card":
            yield Piv(stack.enter_context(Pcscd("reader")))
        else:
            yield Chip(stack.enter_context(Tpm()))


# What happens to the next login: before it reaches the token, behind it, or not at all.
ACCIDENTS: Sequence[tuple[str, int]] = (("", 6), ("crash", 1), ("crash-after", 2), ("return 0x5", 1), ("after 0x5", 2))
LIES: Sequence[tuple[tuple[str, ...], int]] = (
    ((), 4),
    (("C_GetTokenInfo * pin-flags 0x0",), 2),  # it never warns
    (("C_GetTokenInfo * pin-flags 0x0", "C_Login * wrong 0x5"), 2),  # and never says that it was the PIN
    (("C_GetTokenInfo * pin-flags 0x10000",), 1),  # it warns of nothing
)


class Story:
    """One sequence: what happens is drawn from its seed, `told` says what did."""

    def __init__(self, token: Counted, seed: int, directory: Path) -> None:
        self.token = token
        self.draw = random.Random(seed)
        self.state = directory / "state"
        self.shim = Shim(directory / "shim", str(token.module))
        self.lie = self._of(LIES)
        self.acts = 0  # of persons: a PIN put into the configuration, a lease asked for, an unlock
        self.overridden = False  # since the token had all its tries
        self.told: list[str] = [f"lies: {self.lie}" if self.lie else "honest"]
        self.tally: Counter[str] = Counter(sequences=1)

    def _of(self, weighted: Sequence[tuple[Any, int]]) -> Any:
        return self.draw.choices([each for each, _ in weighted], [weight for _, weight in weighted])[0]

    def tell(self, what: str) -> None:
        self.told.append(what)

    async def run(self) -> Counter[str]:
        self.token.fresh()
        kind, play = self.draw.choice((("service", self._service), ("person", self._person)))
        self.tell(kind)
        await play()
        logins = [call for call in self.shim.log() if call.fn == "C_Login" and call.ev == "enter"]
        self.tally.update(logins=len(logins), refused=self.refused())
        return self.tally

    def refused(self) -> int:
        """How many logins were answered by a refusal."""
        log = self.shim.log()
        return sum(call.fn == "C_Login" and call.ev == "leave" and call.rv == CKR_PIN_INCORRECT for call in log)

    def accident(self) -> str:
        """Script what befalls the next login."""
        what = self._of(ACCIDENTS)
        rules = [f"C_Login {self.shim.number('C_Login') + 1} {what}"] if what else []
        # The shim follows the first rule of a kind; a lie goes before what the token says of itself.
        flags = any("pin-flags" in rule for rule in self.lie)
        own = [rule for rule in self.token.rules if not (flags and "pin-flags" in rule)]
        self.shim.script(*rules, *self.lie, *own)
        return what

    def config(self, **more: Any) -> TokenConfig:
        environment = self.token.environment | self.shim.env
        return TokenConfig(
            name="card", module=Path(self.shim.module), label="card", environment=environment, pin_tries=TRIES, **more
        )

    def check(self) -> None:
        """What holds after each step."""
        lost = self.token.lost(self.shim)
        known = self.known()
        self.tell(f"  lost {lost}, known {known}, refused {self.refused()}, acts {self.acts}")
        assert lost < TRIES or self.overridden, "we have locked it"
        assert known >= lost, "it has lost more tries than we know of"
        assert self.refused() <= self.acts, "more logins were refused than persons have acted"
        if lost >= TRIES:
            self.tally["locked by an override"] += 1
            raise Over
        if not lost:
            self.overridden = False

    def known(self) -> int:
        if not (self.state / "tries.sqlite").exists():
            return 0
        database = sqlite3.connect(self.state / "tries.sqlite")
        try:
            [[known]] = database.execute("SELECT coalesce(sum(refused + open + kept), 0) FROM tries").fetchall()
        finally:
            database.close()
        return int(known)

    # ---- a service's token

    async def _service(self) -> None:
        with contextlib.suppress(Over):
            pin = ""
            for _ in range(self.draw.randint(2, STEPS_MAX)):
                if not pin or self.draw.random() < 0.5:
                    pin = self.draw.choice((self.token.pin, self.token.pin, self.token.wrong))
                    self.acts += 1
                self.token.tidy()
                await self._daemon(pin)
                self.check()

    async def _daemon(self, pin: str) -> None:
        """One life of a daemon: it starts, a lane may be lost, an operator may see to the token."""
        what = self.accident()
        self.tell(f"daemon, PIN {'right' if pin == self.token.pin else 'wrong'}, next login: {what or 'as it is'}")
        async with Pool([self.config(pin=lambda: Pin(pin))], state=self.state) as pool:
            if what.startswith("crash") and self.draw.random() < 0.5:
                # The daemon ends with the lane: what it would have done about it is done by the next one.
                await until(pool, lambda card: card.state in LOCKED or bool(card.lanes[0][0].problem))
                self.tell("  the daemon ends")
                return
            await settled(pool)
            if view(pool).state == "READY" and self.draw.random() < 0.3:
                what = self.accident()
                self.tell(f"  its lane is lost, next login: {what or 'as it is'}")
                os.kill(view(pool).lanes[0][1], signal.SIGKILL)
                await until(pool, lambda card: card.state != "READY")
                await settled(pool)
            if view(pool).state in LOCKED and self.draw.random() < 0.7:
                self.unlock(pool)
                await settled(pool)
            self.tell(f"  {view(pool).state}: {view(pool).detail}")

    def unlock(self, pool: Pool) -> None:
        """An operator unlocks; where that is refused, perhaps with the override, after doing what is asked."""
        self.accident()
        self.acts += 1
        try:
            pool.unlock("card")
            self.tell("  unlocked")
            self.tally["unlocks"] += 1
        except TryRefused as refused:
            self.tally["guarded"] += 1
            self.tell(f"  unlock refused: {refused}")
            if self.draw.random() < 0.5:
                self.tell("  unlocked with the override")
                self.tally["overrides"] += 1
                self.overridden = True
                self.token.clear()
                pool.unlock("card", override=True)

    # ---- a person's token

    async def _person(self) -> None:
        with contextlib.suppress(Over):
            async with Pool([self.config(personal=True)], state=self.state, reset=no_reset) as pool:
                for _ in range(self.draw.randint(2, STEPS_MAX)):
                    self.token.tidy()
                    await settled(pool)
                    if view(pool).state in LOCKED:
                        self.unlock(pool)
                        await settled(pool)
                    else:
                        await self._lease(pool)
                    await settled(pool)
                    self.check()

    async def _lease(self, pool: Pool) -> None:
        what = self.accident()
        right, override = self.draw.random() < 0.4, self.draw.random() < 0.35
        pin = Pin(self.token.pin if right else self.token.wrong)
        self.tell(f"lease, PIN {'right' if right else 'wrong'}{', override' * override}, login: {what or 'as it is'}")
        self.acts += 1
        before = self.known()
        try:
            async with pool.lease("card", caller="ann", pin=pin, timeout_s=20, override=override):
                self.tell("  given")
                self.tally["leases"] += 1
        except PoolError as error:
            self.tell(f"  {error.reason}: {error.detail}")
            self.tally["guarded"] += error.reason == "PIN_FINAL_TRY_GUARD"
        if override and before >= TRIES - 1:
            self.overridden = True
            self.tally["overrides"] += 1


class Over(Exception):
    """The token is locked, by a person."""


async def no_reset(_: TokenConfig) -> None:
    """It is in no reader."""


def view(pool: Pool) -> TokenView:
    [card] = pool.snapshot()
    return card


async def until(pool: Pool, wanted: Callable[[TokenView], bool]) -> None:
    async with asyncio.timeout(20):
        async for [card] in pool.watch():
            if wanted(card):
                return


async def settled(pool: Pool) -> None:
    """Nothing happens any more by itself: signing, waiting for its person, or for whoever sees to it."""
    await until(pool, lambda card: card.state in LOCKED or (not card.is_starting and card.state != "LEASED"))


async def play(token: Counted, seed: int) -> Counter[str]:
    """One sequence; what breaks is told with its seed and all that led to it."""
    with tempfile.TemporaryDirectory(prefix="paraph-pins-") as directory:
        story = Story(token, seed, Path(directory))
        try:
            return await story.run()
        except BaseException as error:
            error.add_note("\n".join([f"seed {seed}, {type(token).__name__}:", *story.told]))
            raise


def main() -> None:
    name, *seeds = sys.argv[1:]
    with counted(name) as token:
        for seed in map(int, seeds):
            with tempfile.TemporaryDirectory(prefix="paraph-pins-") as directory:
                story = Story(token, seed, Path(directory))
                try:
                    asyncio.run(story.run())
                finally:
                    print(f"seed {seed}", *story.told, dict(story.tally), sep="\n")


if __name__ == "__main__":
    main()
