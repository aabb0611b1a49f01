"""`paraph-portal space`: what an operator does with spaces (ESP-18, ESP-24)."""

import argparse
import json
from collections.abc import Mapping
from typing import Any

from portal_adapter.cli.operator import changing, name, opened
from portal_adapter.clock import Clock
from portal_adapter.domain import oversight, team
from portal_adapter.domain.ids import shown
from portal_adapter.settings import load
from portal_adapter.store.database import reading

_SHOWN = (
    "identifier", "kind", "title", "company", "registration", "state", "certification", "certified", "certified_by",
    "certification_asked", "created", "members", "administrators",
)  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    one = actions.add_parser("list", help="all spaces, by title")
    one.add_argument("--certification", choices=["no", "asked", "yes"], help="only those")
    one.add_argument("--json", action="store_true", help="print as JSON")
    for action, text in (
        ("members", "who is in the team, with the ids that `appoint` takes"),
        ("suspend", "make it read-only"),
        ("resume", "take that back"),
        ("certify", "open the procedures that want a certified space"),
        ("uncertify", "take that back, or decline what was asked for"),
        ("appoint", "make a member an administrator, where the last one is lost"),
    ):
        one = actions.add_parser(action, help=text)
        one.add_argument("identifier", metavar="IDENTIFIER", help="of the space, as its members see it")
        if action == "appoint":
            one.add_argument("member", metavar="MEMBER", help="an id of `members`")
        one.add_argument("--json", action="store_true", help="print as JSON")


def run(options: argparse.Namespace) -> int:
    with opened(options) as engine:
        if options.action == "list":
            with reading(engine) as connection:
                spaces = [{name: one[name] for name in _SHOWN} for one in oversight.listed(connection)]
            chosen = [one for one in spaces if options.certification in {None, one["certification"]}]
            _print(options, chosen, [_line(one) for one in chosen])
        elif options.action == "members":
            with reading(engine) as connection:
                members = team.listed(connection, oversight.business_space(connection, options.identifier)["id"])
            people = [{name: one[name] for name in ("account", "role", "given", "family", "email")} for one in members]
            _print(options, people, ["  ".join(map(str, one.values())) for one in people])
        elif options.action == "appoint":
            business = load(options.config).business
            with changing(engine, "administrator-appointed", identifier=options.identifier) as connection:
                oversight.appoint(connection, Clock().now(), name(), options.identifier, options.member, business)
            done = {"identifier": options.identifier, "member": options.member, "role": "administrator"}
            _print(options, done, [f"{options.member}: administrator of {options.identifier}"])
        else:
            with changing(engine, f"space-{options.action}", identifier=options.identifier) as connection:
                state = oversight.fire(connection, Clock().now(), name(), options.identifier, options.action)
            column = oversight.EVENTS[options.action].column
            done = {"identifier": options.identifier, column: state}
            _print(options, done, [f"{options.identifier}: {column} {state}"])
    return 0


def _line(one: Mapping[str, Any]) -> str:
    counts = f"{one['members']} members, {one['administrators']} administrators"
    return f"{shown(one['identifier'])}  {one['kind']:8}  {one['state']:9}  certified: {one['certification']:5}  {counts}  {one['title']}"


def _print(options: argparse.Namespace, data: object, lines: list[str]) -> None:
    print(json.dumps(data, ensure_ascii=False, indent=2) if options.json else "\n".join(lines))
