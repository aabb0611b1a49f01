"""paraph tokens: how the tokens are, and the few things a person can do about it."""

import argparse
import json
from typing import Any

from google.protobuf.json_format import MessageToDict
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from signer.cli import session
from signer.cli.console import for_tables
from signer.cli.exits import OK
from signer.client import Client
from signer.v1 import operator_pb2 as pb

HELP = "show the tokens and their lanes; unlock, drain or resume one"
EXAMPLE = "paraph tokens --watch"
_COLOURS = {"READY": "green", "LEASED": "green", "OPEN": "yellow", "DRAINED": "cyan"}
_NAMES = ("unlock", "drain", "resume")


def arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--watch", action="store_true", help="keep showing, until Ctrl-C")
    what.add_argument("--unlock", metavar="TOKEN", help="you have seen to it: allow one more PIN try")
    what.add_argument("--drain", metavar="TOKEN", help="finish what it has, then leave it alone")
    what.add_argument("--resume", metavar="TOKEN", help="put a drained token back into service")
    parser.add_argument("--override-final-try", action="store_true", help="with --unlock: even if it is the last try")
    parser.add_argument("--json", action="store_true", help="print as JSON; with --watch a line for each change")
    session.arguments(parser)


def run(options: argparse.Namespace) -> int:
    return session.with_client(options, lambda client: _run(client, options))


async def _run(client: Client, options: argparse.Namespace) -> int:
    if options.watch:
        return await _watch(client, options)
    for what in _NAMES:
        if name := getattr(options, what):
            tokens = [await client.change_token(what, name, override_final_try=options.override_final_try)]
            break
    else:
        tokens = await client.tokens()
    if options.json:
        print(json.dumps([_dict(token) for token in tokens], indent=2))
    else:
        for_tables().print(_table(tokens))
    return OK


async def _watch(client: Client, options: argparse.Namespace) -> int:
    if options.json:
        async for tokens in client.watch_tokens():
            print(json.dumps([_dict(token) for token in tokens]), flush=True)
        return OK
    with Live(auto_refresh=False, console=Console()) as live:
        async for tokens in client.watch_tokens():
            live.update(_table(tokens), refresh=True)
    return OK


def _table(tokens: list[Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("token", "kind", "state", "lanes"):
        table.add_column(column)
    for column in ("signed", "errors", "a second", "waiting"):
        table.add_column(column, justify="right")
    table.add_column("what to know")
    for token in tokens:
        state = pb.Token.State.Name(token.state)
        errors = sum(sum(lane.errors.values()) for lane in token.lanes)
        colour = _COLOURS.get(state, "red")
        table.add_row(
            token.name,
            token.kind,
            f"[{colour}]{state}[/]",
            " ".join(_lane(lane) for lane in token.lanes),
            f"{sum(lane.signatures for lane in token.lanes):,}",
            f"{errors:,}" if errors else "-",
            f"{sum(lane.per_second for lane in token.lanes):,.0f}" if any(x.per_second for x in token.lanes) else "-",
            f"{token.waiting:,}" if token.waiting else "-",
            escape(token.detail or ", ".join(token.credentials)),
        )
    return table


def _lane(lane: Any) -> str:
    """A lane as one word, with how often it was lost."""
    name = pb.Lane.State.Name(lane.state).lower()
    return f"{name}({lane.losses} lost)" if lane.losses else name


def _dict(token: Any) -> dict[str, Any]:
    found: dict[str, Any] = MessageToDict(
        token, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found
