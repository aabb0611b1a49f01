"""`paraph-portal agent`: who works for which administration, and has its desk (TRK-11)."""

import argparse
import json

from portal_adapter.app import read_files
from portal_adapter.cli.operator import changing, name, opened
from portal_adapter.clock import Clock
from portal_adapter.domain import agent
from portal_adapter.settings import load
from portal_adapter.store.database import reading


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    one = actions.add_parser("list", help="all agents, by administration")
    one.add_argument("--json", action="store_true", help="print as JSON")
    for action, text in (
        ("add", "give a person the desk of an administration"),
        ("remove", "take it back, at once"),
    ):
        one = actions.add_parser(action, help=text)
        one.add_argument("id", metavar="ID", help="of the account, as `user list` shows it")
        if action == "add":
            one.add_argument("administration", metavar="ADMINISTRATION", help="its name in administrations.toml")
        one.add_argument("--json", action="store_true", help="print as JSON")


def run(options: argparse.Namespace) -> int:
    with opened(options) as engine:
        if options.action == "list":
            with reading(engine) as connection:
                found = agent.listed(connection)
            lines = [
                f"{one['administration']}  {one['account']}  {one['family']}, {one['given']}  {one['email']}"
                for one in found
            ]
            print(json.dumps(found, ensure_ascii=False, indent=2) if options.json else "\n".join(lines))
            return 0
        if options.action == "add":
            known = read_files(load(options.config)).catalogue.administrations
            administration = options.administration
            with changing(engine, "agent-added", id=options.id, administration=administration) as connection:
                agent.add(connection, Clock().now(), name(), options.id, administration, known)
        else:
            with changing(engine, "agent-removed", id=options.id) as connection:
                administration = agent.remove(connection, Clock().now(), name(), options.id)
    done = {"id": options.id, "administration": administration, "agent": options.action == "add"}
    said = f"agent of {administration}" if done["agent"] else f"no agent of {administration} any more"
    print(json.dumps(done) if options.json else f"{options.id}: {said}")
    return 0
