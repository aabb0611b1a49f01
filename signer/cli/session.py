"""What commands that call the daemon share: the profile, and what each error means as an exit code."""

import argparse
import asyncio
import math
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from signer.cli import exits
from signer.cli.exits import CONFIG, FAILED, USAGE
from signer.cli.printable import printable
from signer.client import Client, ProfileError, ServiceError

_MINUTE_S = 120.0  # from here on times are told in minutes
_DEFAULT = "~/.config/paraph/client.toml"


class UsageError(Exception):
    """The command cannot be followed as it was given; the message says what to do instead."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile",
        type=Path,
        default=Path(os.environ.get("PARAPH_PROFILE", _DEFAULT)),
        help="TOML file with server, ca, certificate, key (default: $PARAPH_PROFILE or %(default)s)",
    )


def with_client(options: argparse.Namespace, action: Callable[[Client], Awaitable[int]]) -> int:
    """Run a command against the daemon; its errors are one line that says what to do."""

    async def main() -> int:
        async with client(options) as made:
            return await action(made)

    return told(main)


def client(options: argparse.Namespace) -> Client:
    """Raises `ProfileError`."""
    return Client.from_profile(options.profile.expanduser())


def told(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run it to its end; errors are one line that says what to do."""
    try:
        return asyncio.run(main())
    except ProfileError as error:
        print(f"paraph: {error}", file=sys.stderr)
        return CONFIG
    except UsageError as error:
        print(f"paraph: {error}", file=sys.stderr)
        return USAGE
    except ServiceError as error:
        print(f"paraph: {say(error)}", file=sys.stderr)
        return exits.of(error.reason, error.code, error.status)
    except BrokenPipeError:
        raise  # nobody reads on: no mistake of the command's
    except OSError as error:
        print(f"paraph: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return FAILED


def say(error: ServiceError) -> str:
    """An error for a person, on one line whatever the other side says."""
    # Who has the ledger finds by its request what became of it.
    request = f" The request is {error.request_id}." if error.request_id and not error.reason else ""
    if not error.reason and error.code == "UNAVAILABLE":
        return f"the daemon cannot be reached; is it running, and is the profile its? ({printable(error.message)}){request}"
    again = f" Try again in {_time(error.retry_s)}." if error.retry_s else ""
    return f"{printable(f'{error.reason or error.code}: {error.message}')}{again}{request}"


def _time(seconds: float) -> str:
    # The service rounds to whole seconds, upwards: a quarter of an hour may come as 900.7 s.
    return f"{seconds:.1f} s" if seconds < _MINUTE_S else f"{math.ceil((seconds - 1) / 60)} minutes"
