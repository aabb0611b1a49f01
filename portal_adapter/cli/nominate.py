"""`paraph-portal nominate`: who may be the administrator of a business space, where that is asked for (ESP-21)."""

import argparse
import json

from portal_adapter.cli.operator import changing, name, opened, when
from portal_adapter.clock import Clock
from portal_adapter.domain import nomination
from portal_adapter.store.database import reading


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    one = actions.add_parser("list", help="all nominations")
    one.add_argument("--json", action="store_true", help="print as JSON")
    for action, text in (("add", "nominate a person"), ("remove", "take that back; who administers already goes on")):
        one = actions.add_parser(action, help=text)
        one.add_argument("serial", metavar="SERIAL", help="of the person's certificate: the subject's, else its own")
        one.add_argument("--json", action="store_true", help="print as JSON")


def run(options: argparse.Namespace) -> int:
    with opened(options) as engine:
        if options.action == "list":
            with reading(engine) as connection:
                found = nomination.listed(connection)
            lines = [f"{one['serial']}  {when(one['noted'])}  by {one['operator']}" for one in found]
            print(json.dumps(found, ensure_ascii=False, indent=2) if options.json else "\n".join(lines))
            return 0
        change = nomination.add if options.action == "add" else nomination.remove
        event = "nominated" if options.action == "add" else "nomination-removed"
        with changing(engine, event, serial=options.serial) as connection:
            serial = change(connection, Clock().now(), name(), options.serial)
    done = {"serial": serial, "nominated": options.action == "add"}
    print(json.dumps(done) if options.json else f"{serial}: {'nominated' if done['nominated'] else 'removed'}")
    return 0
