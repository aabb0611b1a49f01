"""`paraph-portal sharing`: which item of one institution's another one may be shown, by what law, and for how long (ESP-28)."""

import argparse
import json
from datetime import date, datetime
from zoneinfo import ZoneInfo

from portal_adapter.cli.operator import name, note, opened, when
from portal_adapter.clock import Clock
from portal_adapter.domain import sharing
from portal_adapter.settings import load
from portal_adapter.store.database import reading, writing


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    one = actions.add_parser("add", help="note a rule")
    one.add_argument("--source", required=True, metavar="NAME", help="the institution whose item it is")
    one.add_argument("--target", required=True, metavar="NAME", help="the institution that may be shown it")
    one.add_argument("--item", required=True, metavar="NAME", help="the item of data")
    one.add_argument("--basis", required=True, metavar="TEXT", help="the law that allows it")
    one.add_argument("--from", dest="begins", type=date.fromisoformat, metavar="YYYY-MM-DD", help="(default: now)")
    one.add_argument("--until", type=date.fromisoformat, metavar="YYYY-MM-DD", help="the first day without it")
    one.add_argument("--json", action="store_true", help="print as JSON")
    one = actions.add_parser("list", help="all rules")
    one.add_argument("--json", action="store_true", help="print as JSON")
    one = actions.add_parser("end", help="end a rule now")
    one.add_argument("id", metavar="ID")
    one.add_argument("--json", action="store_true", help="print as JSON")


def run(options: argparse.Namespace) -> int:
    now = Clock().now()
    with opened(options) as engine:
        if options.action == "list":
            with reading(engine) as connection:
                rules = sharing.listed(connection, now)
            print(json.dumps(rules, ensure_ascii=False, indent=2) if options.json else "\n".join(map(_line, rules)))
            return 0
        with writing(engine) as connection:
            if options.action == "add":
                zone = ZoneInfo(load(options.config).portal.time_zone)
                form = {field: getattr(options, field) for field in ("source", "target", "item", "basis")}
                begins, ends = _midnight(options.begins, zone), _midnight(options.until, zone)
                rule = sharing.add(connection, now, name(), form, begins, ends)
                note(connection, now, "sharing-rule-added", rule=rule, **form)
            else:
                rule = options.id
                sharing.end(connection, now, rule)
                note(connection, now, "sharing-rule-ended", rule=rule)
    print(json.dumps({"id": rule}) if options.json else rule)
    return 0


def _midnight(day: date | None, zone: ZoneInfo) -> int | None:
    return None if day is None else int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())


def _line(rule: sharing.Rule) -> str:
    ends = "" if rule["ends"] is None else f" to {when(rule['ends'])}"
    return (
        f"{rule['id']}  {rule['state']:8}  from {when(rule['begins'])}{ends}\n"
        f"    {rule['item']} of {rule['source']} for {rule['target']}: {rule['basis']}"
    )
