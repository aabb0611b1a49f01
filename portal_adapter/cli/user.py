"""`paraph-portal user`: who has an account, what belongs to it, and the end of its sessions."""

import argparse
import json
import sys

from portal_adapter.auth import session as sessions
from portal_adapter.cli.operator import note, opened, when
from portal_adapter.clock import Clock
from portal_adapter.domain import account
from portal_adapter.settings import load
from portal_adapter.store.database import reading, writing


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    texts = {
        "list": "everybody, by name",
        "show": "one person with products and spaces",
        "end-sessions": "log a person out everywhere, at once",
    }
    for name, text in texts.items():
        one = actions.add_parser(name, help=text)
        if name != "list":
            one.add_argument("id", metavar="ID", help="as `list` shows it")
        one.add_argument("--json", action="store_true", help="print as JSON")


def run(options: argparse.Namespace) -> int:
    return {"list": _list, "show": _show, "end-sessions": _end}[options.action](options)


def _list(options: argparse.Namespace) -> int:
    with opened(options) as engine, reading(engine) as connection:
        found = account.listed(connection)
    if options.json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return 0
    for one in found:
        print(f"{one['id']}  {one['family']}, {one['given']}  {one['email']}  since {when(one['created'])}")
    return 0


def _show(options: argparse.Namespace) -> int:
    with opened(options) as engine, reading(engine) as connection:
        found = account.shown(connection, Clock().now(), options.id, load(options.config).limits)
    if found is None:
        return _nobody(options)
    if options.json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return 0
    print(f"{found['given']} {found['family']}, {found['email']}, mails in {found['language']}")
    print(f"since {when(found['created'])}, open sessions: {found['sessions']}")
    for one in found["products"]:
        print(f"product  {one['kind']:9}  {one['number'] or '-'}  {one['fingerprint']}  since {when(one['added'])}")
    for one in found["spaces"]:
        print(f"space    {one['identifier']}  {one['role']}  {one['title']}")
    return 0


def _end(options: argparse.Namespace) -> int:
    now = Clock().now()
    with opened(options) as engine, writing(engine) as connection:
        found = account.shown(connection, now, options.id, load(options.config).limits)
        if found is None:
            return _nobody(options)
        sessions.end_all(connection, now, options.id)
        note(connection, now, "sessions-ended", account=options.id, sessions=found["sessions"])
    ended = found["sessions"]
    print(json.dumps({"id": options.id, "ended": ended}) if options.json else f"{options.id}: {ended} sessions ended")
    return 0


def _nobody(options: argparse.Namespace) -> int:
    print(f"paraph-portal: {options.id}: there is no such account", file=sys.stderr)
    return 1
