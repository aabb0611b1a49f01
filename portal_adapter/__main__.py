"""paraph-portal: `serve`, `window`, `check`, `user` and what else an operator of the portal does."""

import argparse
import importlib
import sys
from pathlib import Path

import portal_adapter.openssl  # noqa: F401 -- first of all
from portal_adapter.refusal import Refusal
from portal_adapter.settings import SettingsError
from portal_adapter.unusable import Unusable

EX_REFUSED = 1  # what was asked for cannot be done; nothing is changed
EX_OK, EX_USAGE, EX_CONFIG, EX_UNAVAILABLE = 0, 64, 78, 69

# Each is a file of cli/, which gives `arguments(parser)` and `run(options)`.
COMMANDS = {
    "serve": "run the portal",
    "window": "run the window where codes are typed",
    "space": "list, suspend, certify spaces; appoint administrators",
    "nominate": "say who may administer business spaces",
    "agent": "say who works for which administration",
    "sharing": "say what one institution may be shown of another's",
    "mail": "what waits, was sent or was given up; send again",
    "handover": "what back ends were given, or not yet; give again",
    "user": "who has an account; add a product, end a person's sessions",
    "audit": "what was done and what was refused",
    "check": "say what is wrong with the configuration",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="paraph-portal", description="The web portal over paraph.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    named = sys.argv[1] if len(sys.argv) > 1 else ""
    for name, text in COMMANDS.items():
        one = commands.add_parser(name, help=text, description=text)
        if name != named:  # the others' files cost a second, and bring the database to the window
            continue
        module = importlib.import_module(f"portal_adapter.cli.{name}")
        one.add_argument("--config", type=Path, required=True, metavar="FILE")
        module.arguments(one)
        one.set_defaults(run=module.run)
    options = parser.parse_args()
    try:
        sys.exit(options.run(options))
    except SettingsError as error:
        print(error, file=sys.stderr)
        sys.exit(EX_CONFIG)
    except Unusable as error:
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
