"""`paraph-portal audit show`: what was done, by whom, and what was refused."""

import argparse
import json
from datetime import UTC, datetime

from portal_adapter.cli.operator import opened, when
from portal_adapter.domain import audit
from portal_adapter.store.database import reading


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    one = actions.add_parser("show", help="its lines, the oldest first")
    one.add_argument(
        "--since", type=_time, default=0, metavar="TIME", help="as 2026-11-27 or 2026-11-27T09:30Z; without a zone UTC"
    )
    one.add_argument("--json", action="store_true", help="print each line as JSON")


def run(options: argparse.Namespace) -> int:
    """Each line as soon as it is read: there may be many."""
    with opened(options) as engine, reading(engine) as connection:
        for line in audit.lines(connection, options.since):
            if options.json:
                print(json.dumps(line, ensure_ascii=False, sort_keys=True))
                continue
            about = " ".join(f"{name}={value}" for name, value in line["detail"].items())
            who = line["account"] or "-"
            print(f"{when(line['time'])}  {line['event']}  {line['outcome']}  {who}  {line['space'] or '-'}  {about}")
    return 0


def _time(text: str) -> int:
    """Seconds since the epoch; argparse makes a message of `ValueError`."""
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
