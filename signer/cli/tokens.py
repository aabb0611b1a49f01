"""paraph tokens: how the tokens are, and the few things a person can do about it."""

import argparse
import json
import os
import sys
import time
from functools import partial

from signer.cli import session
from signer.cli.board import board, can_sign, stopped, summary
from signer.cli.console import for_tables
from signer.cli.exits import OK, UNAVAILABLE
from signer.cli.watching import as_dict, watch
from signer.client import Client

HELP = "show the tokens and their lanes; unlock, drain or resume one"
EXAMPLE = "paraph tokens --watch"
_NAMES = ("unlock", "drain", "resume")


def arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--watch", action="store_true", help="keep showing, over restarts of the daemon too, until Ctrl-C"
    )
    what.add_argument("--unlock", metavar="TOKEN", help="you have seen to it: allow one more PIN try")
    what.add_argument("--drain", metavar="TOKEN", help="finish what it has, then leave it alone")
    what.add_argument("--resume", metavar="TOKEN", help="put a drained token back into service")
    parser.add_argument("--override-final-try", action="store_true", help="with --unlock: even if it is the last try")
    parser.add_argument("--json", action="store_true", help="print as JSON; with --watch a line for each change")
    session.arguments(parser)


def run(options: argparse.Namespace) -> int:
    if options.watch:
        return session.told(partial(_watch, options))
    return session.with_client(options, lambda client: _run(client, options))


async def _watch(options: argparse.Namespace) -> int:
    try:
        await watch(partial(session.client, options), as_json=options.json)
    except BrokenPipeError:  # `| head`: whoever reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OK


async def _run(client: Client, options: argparse.Namespace) -> int:
    for what in _NAMES:
        if name := getattr(options, what):
            tokens, ledger = [await client.change_token(what, name, override_final_try=options.override_final_try)], ""
            code = OK
            break
    else:
        answer = await client.tokens_and_ledger()
        tokens, ledger = list(answer.tokens), answer.ledger
        code = UNAVAILABLE if ledger or not can_sign(tokens) else OK
    if options.json:
        print(json.dumps([as_dict(token) for token in tokens], indent=2))
        if ledger:
            print(f"paraph: {stopped(ledger)}", file=sys.stderr)
    else:
        console = for_tables()
        console.print(summary(tokens, None, ledger))
        console.print(board(tokens, None, time.time(), console.width))
    return code
