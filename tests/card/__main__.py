"""
The virtual card as a program: a private pcscd with readers, a card in each, and a control socket.

    python -m tests.card --readers left,right --keys 9A=rsa2048,9C=p256 --control /tmp/card.sock
    export PCSCLITE_CSOCK_NAME=...          # as it says when it is ready
    echo 'left remove' | nc -U /tmp/card.sock

A command is a line, a reader's name before it: insert | remove | status | latency SECONDS | hang SECONDS | word HHHH N |
die N | unblock; or, without a reader: kill | start (of pcscd). Each is answered by one line of JSON.
"""

import argparse
import json
import signal
import socketserver
import sys
from pathlib import Path
from typing import Any

from tests.card.pcscd import Pcscd
from tests.card.piv import PIN, PIN_REF, PUK, PUK_REF, Card
from tests.card.reader import Reader


def obey(pcscd: Pcscd, cards: dict[str, Card], line: str) -> dict[str, Any]:
    """Do what a line says; answers what became of it."""
    match line.split():
        case ["kill"]:
            pcscd.kill()
            return {"pcscd": 0}
        case ["start"]:
            pcscd.start()
            return {"pcscd": pcscd.pid}
        case [name, *words] if name in cards:
            _obey_card(pcscd[name], cards[name], words)
            return _status(pcscd[name], cards[name])
    raise ValueError(f"no such command: {line.strip()!r}; `python -m tests.card --help` lists them")


def _obey_card(reader: Reader, card: Card, words: list[str]) -> None:
    match words:
        case ["status"]:
            pass
        case ["insert"]:
            reader.insert(card)
        case ["remove"]:
            reader.remove()
        case ["latency", seconds]:
            card.latency_s = float(seconds)
        case ["hang", seconds]:
            card.hang_s = float(seconds)
        case ["word", word, times]:
            card.words = [int(word, 16)] * int(times)
        case ["die", signatures]:
            card.dies_in = int(signatures)
        case ["unblock"]:
            card.unblock()
        case _:
            raise ValueError(f"a card cannot {' '.join(words)}; `python -m tests.card --help` lists what it can")


def _status(reader: Reader, card: Card) -> dict[str, Any]:
    count = {what: len(card.seen(what)) for what in ("verify", "sign")}
    tries = {"pin_tries": card.tries[PIN_REF], "puk_tries": card.tries[PUK_REF]}
    return {"reader": reader.name, "inserted": reader.card is card, "serial": card.serial, **tries, **count}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.card", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--readers", default="desk", help="names, with a comma between them; a card in each")
    parser.add_argument("--keys", default="9A=rsa2048,9C=p256", help="of each card: reference=kind, ...")
    parser.add_argument("--pin", default=PIN)
    parser.add_argument("--puk", default=PUK)
    parser.add_argument("--control", type=Path, required=True, help="path of the socket that takes commands")
    options = parser.parse_args()
    names = options.readers.split(",")
    with Pcscd(*names) as pcscd:
        cards = {}
        for name in names:
            card = cards[name] = Card(options.pin, options.puk)
            for pair in options.keys.split(","):
                reference, kind = pair.split("=")
                card.add(int(reference, 16), kind, f"Card {name}")
            pcscd[name].insert(card)

        class Control(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                for line in self.rfile:
                    try:
                        answer = obey(pcscd, cards, line.decode())
                    except (ValueError, AssertionError, RuntimeError) as error:  # whatever is typed, the cards go on
                        answer = {"error": str(error)}
                    self.wfile.write(json.dumps(answer).encode() + b"\n")

        def stop(_number: int, _frame: object) -> None:
            raise SystemExit(0)

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        options.control.unlink(missing_ok=True)
        with socketserver.UnixStreamServer(str(options.control), Control) as server:
            try:
                print(
                    "".join(f"export {name}={value}\n" for name, value in pcscd.environment.items()), end="", flush=True
                )
                server.serve_forever()
            finally:
                options.control.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
