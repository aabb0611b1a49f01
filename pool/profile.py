"""
What a PKCS#11 module and its token do, case by case: `cases.py`, asked and put into a table.

    python -m pool.profile /usr/lib/x86_64-linux-gnu/opensc-pkcs11.so my-card --pin-file pin
    python -m pool.profile MODULE LABEL --pin-file pin --wrong-pins     wrong PINs too: four, and the right one after each
    python -m pool.profile MODULE LABEL --pin-file pin --by-hand        you are asked to pull the token and put it back

For a token that no service has at the moment. MODULES.md has what the modules do that Paraph is tested with.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pool.cases import CASES, Given, ask
from pool.pin import PinError, PinFile

CASE_S = 20.0  # a card with RSA-4096 signs 20 times in this
BY_HAND_S = 120.0  # somebody looks for the card


def profile(
    given: Given, environment: Mapping[str, str] | None = None, hands: Callable[[str], None] | None = None
) -> Iterator[tuple[str, str, str]]:
    """Name, question and answer of each case, as they come."""
    for name, (question, _) in CASES.items():
        yield name, question, ask(name, given, BY_HAND_S if given.hands else CASE_S, environment, hands)


def by_hand(what: str) -> None:
    input(f"    please {what}: the token; then press Enter ")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pool.profile", description="What a PKCS#11 module and its token do."
    )
    parser.add_argument("module", type=Path)
    parser.add_argument("label", help="of the token")
    parser.add_argument("--pin-file", type=Path, required=True)
    parser.add_argument("--wrong-pins", action="store_true", help="send wrong PINs too, the right one after each")
    parser.add_argument("--by-hand", action="store_true", help="ask for the token to be pulled and put back")
    options = parser.parse_args()
    try:
        pin = PinFile(options.pin_file)().reveal()
    except PinError as error:
        print(error, file=sys.stderr)
        return 66
    given = Given(str(options.module), options.label, pin, options.wrong_pins, options.by_hand)
    width = max(len(question) for question, _ in CASES.values())
    for _, question, answer in profile(given, hands=by_hand):
        print(f"{question:{width}}  {answer}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
