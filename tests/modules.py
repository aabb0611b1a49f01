"""
The modules that Paraph is tested with, each with its forty cases (`pool/profile.py`): `python -m tests.modules` asks them
all and writes the table of pool/MODULES.md.
"""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pool.cases import CASES, Given
from pool.profile import profile
from tests import softhsm
from tests.card.client import has_card
from tests.card.pcscd import OPENSC, Pcscd
from tests.card.piv import PIN as PIV_PIN
from tests.card.piv import Card
from tests.daemon import until
from tests.opencryptoki import Opencryptoki
from tests.tpm import Tpm

PAGE = Path(__file__).parent.parent / "pool" / "MODULES.md"
BEGIN, END = "<!-- table -->", "<!-- end -->"
VARYING = ("speed",)  # what another machine answers otherwise


@dataclass(frozen=True, slots=True)
class Asked:
    """A token of a module as it is profiled. `between` is called after each case."""

    given: Given
    environment: Mapping[str, str]
    hands: Callable[[str], None] | None = None
    between: Callable[[], None] = field(default=lambda: None)

    def answers(self) -> dict[str, str]:
        found = {}
        for name, _, answer in profile(self.given, os.environ | self.environment, self.hands):
            found[name] = answer
            self.between()
        return found


@contextlib.contextmanager
def soft_hsm() -> Iterator[Asked]:
    with tempfile.TemporaryDirectory() as directory:
        store = softhsm.Store(Path(directory) / "softhsm")
        store.token("card")
        store.keys("card", ["RSA-2048", "P-256", "P-384", "Ed25519"])
        yield Asked(Given(str(softhsm.MODULE), "card", softhsm.PIN, wrong_pins=True), store.environment)


@contextlib.contextmanager
def opencryptoki() -> Iterator[Asked]:
    with Opencryptoki() as house:
        house.token("card")
        house.keys(["RSA-2048"])
        yield Asked(Given(str(house.module), "card", house.pin, wrong_pins=True), house.environment)


@contextlib.contextmanager
def tpm() -> Iterator[Asked]:
    """It cannot be pulled, but lose its power."""
    with Tpm() as chip:
        chip.token("card")
        chip.keys(["RSA-2048", "P-256"])
        hands = {"pull": chip.kill, "put back": chip.start}

        def between() -> None:
            chip.tidy()
            chip.unblock()

        given = Given(str(chip.module), "card", chip.pin, wrong_pins=True, hands=True)
        yield Asked(given, chip.environment, lambda what: hands[what](), between)


@contextlib.contextmanager
def open_sc() -> Iterator[Asked]:
    """A PIV card: 9A RSA-2048, 9C P-256 with its PIN for each signature, and two retired keys."""
    card = Card()
    for reference, kind in ((0x9A, "rsa2048"), (0x9C, "p256"), (0x82, "p256"), (0x83, "p384")):
        card.add(reference, kind, "card")
    with Pcscd("reader") as pcscd:
        reader = pcscd["reader"]

        def sees_card() -> bool:
            return has_card(pcscd.environment, reader.name)

        def pull() -> None:
            reader.remove()
            until(lambda: not sees_card(), 5, "pcscd sees that the card is gone")

        def put_back() -> None:
            reader.insert(card)
            until(sees_card, 5, "pcscd sees the card")

        put_back()
        hands = {"pull": pull, "put back": put_back}
        given = Given(str(OPENSC), "card", PIV_PIN, wrong_pins=True, hands=True)
        yield Asked(given, pcscd.environment, lambda what: hands[what](), card.unblock)


@contextlib.contextmanager
def nss() -> Iterator[Asked]:
    """A database of NSS, which wants to be told where it is when it is initialised, and a lane says nothing."""
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["certutil", "-N", "-d", f"sql:{directory}", "--empty-password"], check=True)
        module = softhsm.found("libsoftokn3.so")
        yield Asked(Given(str(module), "NSS Certificate DB", "none"), {})


STACKS: Mapping[str, Callable[[], contextlib.AbstractContextManager[Asked]]] = {
    "SoftHSM 2.6.1": soft_hsm,
    "opencryptoki 3.8.1, soft token": opencryptoki,
    "tpm2-pkcs11 1.9.0, swtpm": tpm,
    "OpenSC 0.23.0, virtual PIV card": open_sc,
    "NSS 3.87.1": nss,
}


def table(columns: Mapping[str, Mapping[str, str]]) -> str:
    lines = [f"| | Case | {' | '.join(columns)} |", "|---|" * 1 + "---|" * (len(columns) + 1)]
    for number, (name, (question, _)) in enumerate(CASES.items(), 1):
        lines.append(f"| {number} | {question} | {' | '.join(column[name] for column in columns.values())} |")
    return "\n".join(lines)


def published() -> dict[str, dict[str, str]]:
    """The answers of pool/MODULES.md, by module and case."""
    text = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.strip().splitlines()]
    assert [row[1] for row in rows] == [question for question, _ in CASES.values()], "the table has other cases"
    return {
        module: {name: row[place] for name, row in zip(CASES, rows, strict=True)}
        for place, module in enumerate(head)
        if place > 1
    }


def main() -> None:
    columns = {}
    for module, stack in STACKS.items():
        with stack() as asked:
            columns[module] = asked.answers()
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table(columns)}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
