"""`paraph-portal handover`: what the administrations' back end was given, or not yet; and another attempt."""

import argparse
import json

from portal_adapter.cli.operator import note, opened, queued, when
from portal_adapter.clock import Clock
from portal_adapter.domain import handover
from portal_adapter.store.database import reading, writing


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    one = actions.add_parser("list", help="all of them, what is due next first")
    one.add_argument("--state", choices=handover.STATES, default="", help="only those")
    one.add_argument("--json", action="store_true", help="print as JSON")
    one = actions.add_parser("retry", help="give at once what was given up, or waits")
    one.add_argument("transmission", metavar="REFERENCE/NUMBER", nargs="+", type=_transmission)
    one.add_argument("--json", action="store_true", help="print as JSON")


def _transmission(text: str) -> tuple[str, int]:
    reference, _, number = text.partition("/")
    if not reference or not (number.isascii() and number.isdigit()):
        raise argparse.ArgumentTypeError("write it as `handover list` does: REFERENCE/NUMBER")
    return reference, int(number)


def run(options: argparse.Namespace) -> int:
    return _list(options) if options.action == "list" else _retry(options)


def _list(options: argparse.Namespace) -> int:
    with opened(options) as engine, reading(engine) as connection:
        found = handover.listed(connection, options.state)
    if options.json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return 0
    for row in found:
        name, said = (
            f"{row['reference']}/{row['number']}",
            f", {row['tries']} tries: {row['error']}" if row["error"] else "",
        )
        at = row["settled"] or row["next"]
        print(f"{name}  {when(at)}  {row['state']:6}  {row['administration']}{said}")
    return 0


def _retry(options: argparse.Namespace) -> int:
    """1 where one is not a transmission that was given up or waits; the others are queued all the same."""
    now = Clock().now()
    with opened(options) as engine, writing(engine) as connection:
        done = {
            f"{reference}/{number}": handover.retry(connection, now, reference, number)
            for reference, number in options.transmission
        }
        for one, is_done in done.items():
            if is_done:
                note(connection, now, "handover-retry", transmission=one)
    return queued(done, "is no transmission that was given up or waits for a later time", as_json=options.json)
