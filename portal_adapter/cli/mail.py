"""`paraph-portal mail`: what waits, what was sent, what was given up; and another attempt."""

import argparse
import json

from portal_adapter.cli.operator import note, opened, queued, when
from portal_adapter.clock import Clock
from portal_adapter.mail import outbox
from portal_adapter.store.database import reading, writing


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    one = actions.add_parser("list", help="all mails, the newest first")
    one.add_argument("--state", choices=outbox.STATES, default="", help="only those")
    one.add_argument("--json", action="store_true", help="print as JSON")
    one = actions.add_parser("retry", help="send at once what was given up, or waits")
    one.add_argument("id", metavar="ID", nargs="+")
    one.add_argument("--json", action="store_true", help="print as JSON")


def run(options: argparse.Namespace) -> int:
    return _list(options) if options.action == "list" else _retry(options)


def _list(options: argparse.Namespace) -> int:
    with opened(options) as engine, reading(engine) as connection:
        found = outbox.listed(connection, options.state)
    if options.json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return 0
    for row in found:
        said = f", {row['tries']} tries: {row['error']}" if row["error"] else ""
        print(f"{row['id']}  {when(row['created'])}  {row['state']:6}  {row['template']:10}  {row['recipient']}{said}")
    return 0


def _retry(options: argparse.Namespace) -> int:
    """1 where one is not a mail that was given up or waits; the others are queued all the same."""
    now = Clock().now()
    with opened(options) as engine, writing(engine) as connection:
        done = {one: outbox.retry(connection, now, one) for one in options.id}
        for one, is_done in done.items():
            if is_done:
                note(connection, now, "mail-retry", mail=one)
    return queued(done, "is no mail that was given up or waits for a later time", as_json=options.json)
