"""paraph-portal: `serve`, `window`, `check`, `user` and what else an operator of the portal does."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from portal_adapter.cli import audit, check, mail, nominate, serve, sharing, space, user, window
from portal_adapter.refusal import Refusal
from portal_adapter.serving import ListenError
from portal_adapter.settings import SettingsError
from portal_adapter.store.database import StoreError

EX_REFUSED = 1  # what was asked for cannot be done; nothing is changed
EX_OK, EX_USAGE, EX_CONFIG, EX_UNAVAILABLE = 0, 64, 78, 69

COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]] = {
    "serve": ("run the portal", serve.arguments, serve.run),
    "window": ("run the window where codes are typed", window.arguments, window.run),
    "space": ("list, suspend, certify spaces; appoint administrators", space.arguments, space.run),
    "nominate": ("say who may administer business spaces", nominate.arguments, nominate.run),
    "sharing": ("say what one institution may be shown of another's", sharing.arguments, sharing.run),
    "mail": ("what waits, was sent or was given up; send again", mail.arguments, mail.run),
    "user": ("who has an account; end a person's sessions", user.arguments, user.run),
    "audit": ("what was done and what was refused", audit.arguments, audit.run),
    "check": ("say what is wrong with the configuration", check.arguments, check.run),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="paraph-portal", description="The web portal over paraph.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, arguments, run) in COMMANDS.items():
        one = commands.add_parser(name, help=text, description=text)
        one.add_argument("--config", type=Path, required=True, metavar="FILE")
        arguments(one)
        one.set_defaults(run=run)
    options = parser.parse_args()
    try:
        sys.exit(options.run(options))
    except SettingsError as error:
        print(error, file=sys.stderr)
        sys.exit(EX_CONFIG)
    except (StoreError, ListenError) as error:
        print(f"paraph-portal: {error}", file=sys.stderr)
        sys.exit(EX_UNAVAILABLE)
    except Refusal as refusal:
        mistakes = [one.message.format(**(one.values or {}), limit=one.limit) for one in refusal.errors]
        said = "; ".join([refusal.message, *mistakes]).strip("; ")
        print(f"paraph-portal: {refusal.code}{': ' if said else ''}{said}", file=sys.stderr)
        sys.exit(EX_REFUSED)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
