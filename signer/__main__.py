"""paraph: the daemon and every operator's and user's command."""

import argparse
import atexit
import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterable
from importlib.metadata import version

from signer.cli.exits import MEANINGS

COMMANDS = (
    "serve",
    "sign",
    "verify",
    "enrol",
    "code",
    "credential",
    "subject",
    "otp",
    "clock",
    "tokens",
    "audit",
    "backup",
    "restore",
    "demo",
)


def parser(names: Iterable[str] = COMMANDS) -> argparse.ArgumentParser:
    """The parser of these commands: the file of each gives HELP, EXAMPLE, `arguments(parser)` and `run(options)`."""
    codes = "\n".join(f"  {code:3d}  {meaning}" for code, meaning in MEANINGS.items())
    top = argparse.ArgumentParser(
        prog="paraph",
        description="Sign documents and digests with keys that never leave their tokens.",
        epilog=f"exit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"paraph {version('paraph')}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for name in names:
        module = importlib.import_module(f"signer.cli.{name}")
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog=f"example:\n  {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.arguments(command)
        command.set_defaults(run=module.run)
    return top


def main() -> None:
    named = sys.argv[1:2]
    # The other commands' files cost a tenth of a second, and are imported only for who asks for help or mistypes.
    options = parser(named if set(named) & set(COMMANDS) else COMMANDS).parse_args()
    # The interpreter's last search for unreachable objects took longer than all else at the daemon's end.
    atexit.register(gc.freeze)
    code = 128 + signal.SIGPIPE  # as of a program that the signal has ended
    try:
        code = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head`: whoever reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        code = 130
    except ModuleNotFoundError as error:
        print(
            f"paraph: this command needs the extra 'daemon': pip install 'paraph[daemon,pdf]' ({error})",
            file=sys.stderr,
        )
        code = 69
    sys.exit(code)


if __name__ == "__main__":
    main()
