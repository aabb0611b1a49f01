"""paraph clock: an operator's word that the system's clock is right, after it was set."""

import argparse

from signer import person
from signer.cli import session
from signer.cli.exits import OK
from signer.client import Client

HELP = "confirm the clock of the daemon's host, once you have compared it with another"
EXAMPLE = "paraph clock confirm"


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    confirm = actions.add_parser(
        "confirm", help="it is right now: people may allow something again, and certificates are judged by it alone"
    )
    session.arguments(confirm)


def run(options: argparse.Namespace) -> int:
    return session.with_client(options, _confirm)


async def _confirm(client: Client) -> int:
    print(f"the clock is confirmed; it had been set by {await person.confirm_clock(client):+.1f} s")
    return OK
