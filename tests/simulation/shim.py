"""
What stands for store, shim and processes where the tests of the pool run without any: cards and a module made of Python
objects (tests/simulation/module.py), lanes of pool/fake.py, and the shim's scripts and log.
"""

import random
import re
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from pool.fake import FIRST_PID, Fakes, Process
from tests.pool import rig
from tests.shim import LOGGED, Call, Shim
from tests.simulation import keys
from tests.simulation.loop import Clock
from tests.simulation.module import Card, Module, Slot
from tests.softhsm import PIN

PATH = "/no/module.so"
CLOCK = Clock(random.Random(0))  # of all these tests
CLOCK.late_s = 0.0
_ACTIONS = frozenset(
    {
        *("delay", "hang", "return", "after", "crash", "crash-after"),
        *("exit", "corrupt", "zero", "short", "long", "absent", "log", "swap"),
    }
)


def _matches(which: str, number: int) -> bool:
    """As README.md of the shim has it: n, n-m, n+, *, %k."""
    if which == "*":
        return True
    if which.startswith("%"):
        return number % int(which[1:]) == 0
    found = re.fullmatch(r"([0-9]+)(?:(\+)|-([0-9]+))?", which)
    if found is None:
        raise ValueError(f"{which} is no rule's number")
    first, last = int(found[1]), int(found[3] or found[1])
    return first <= number and (bool(found[2]) or number <= last)


class FakeShim(Shim):
    """The same face; a rule that is not known here is an error at once."""

    def __init__(self) -> None:
        self.module, self.env = PATH, {}
        self._calls: list[Call] = []
        self._rules: list[tuple[str, str, str, str]] = []
        self.cards: dict[str, Card] = {}
        self.inner = Module((), time.monotonic, self._for, self._seen)
        self.fakes = Fakes(self.inner.load)

    def card(self, label: str, kinds: Sequence[str]) -> Card:
        # As SoftHSM's tokens are: after a wrong PIN one flag, and no end of tries.
        card = self.cards[label] = Card(label, f"{len(self.cards) + 1:016}", PIN, kinds, tries=1_000_000)
        self.inner.slots = [*self.inner.slots, Slot(card)]
        return card

    def script(self, *lines: str) -> None:
        rules = [(*line.split(" ", 3), "")[:4] for line in lines]
        unknown = [action for _, _, action, _ in rules if action not in _ACTIONS]
        if unknown:
            raise ValueError(f"this shim cannot {unknown}")
        self._rules = [rule for rule in rules if rule[2] != "swap"]
        for label, other in {(fn.partition("@")[2], other) for fn, _, action, other in rules if action == "swap"}:
            self._swap(self.cards[label], self.cards[other])

    def _swap(self, card: Card, other: Card) -> None:
        """At once, because nothing else happens meanwhile."""
        (place,) = [slot for slot in self.inner.slots if slot.card is card]
        for slot in self.inner.slots:
            if slot.card is other:
                slot.card = None
        place.card = other
        card.power_lost()
        other.power_lost()

    def clear(self) -> None:
        self._rules = []

    def log(self) -> list[Call]:
        return list(self._calls)

    def number(self, fn: str) -> int:
        return self.inner.numbers[fn]

    def _for(self, fn: str, number: int) -> list[tuple[str, str]]:
        return [(action, arg) for action, arg in self._all_for(fn, number) if action != "log"]

    def _all_for(self, fn: str, number: int) -> list[tuple[str, str]]:
        return [(action, arg) for name, which, action, arg in self._rules if name == fn and _matches(which, number)]

    def _seen(self, process: Process, fn: str, event: str, number: int, **said: Any) -> None:
        if fn not in LOGGED and ("log", "") not in self._all_for(fn, number):
            return
        data = said.get("data")
        fields = {name: said[name] for name in ("act", "rv", "user") if name in said}
        if "user" in said:
            fields["token"] = said["card"].label
        hexed = data.hex() if data is not None else None
        self._calls.append(Call(time.monotonic_ns(), process.pid, fn, event, number, data=hexed, **fields))

    # ---- processes

    def kill(self, real: Callable[[int, int], None]) -> Callable[[int, int], None]:
        """`os.kill`, which reaches lanes that are no processes, too."""

        def kill(pid: int, number: int) -> None:
            if pid < FIRST_PID:
                real(pid, number)
                return
            assert number == signal.SIGKILL
            for process in [one for one in self.fakes.living if one.pid == pid]:
                process.kill()

        return kill

    def gone(self, pid: int) -> bool:
        return all(process.pid != pid for process in self.fakes.living) if pid >= FIRST_PID else rig.gone(pid)


class FakeStore:
    """As far as tests look into a store themselves."""

    environment: dict[str, str]

    def __init__(self, shim: FakeShim) -> None:
        self.environment = {}
        self.made: dict[str, dict[str, tuple[bytes, bytes]]] = {}
        self._shim = shim

    def token(self, label: str) -> None:
        self.made[label] = {}

    def keys(self, label: str, kinds: Sequence[str]) -> dict[str, tuple[bytes, bytes]]:
        """All keys of a token at once."""
        self._shim.card(label, kinds)
        self.made[label] = {kind: (kind.encode(), keys.spki(kind)) for kind in kinds}
        return self.made[label]
