"""paraph: the daemon and every operator's and user's command."""

import argparse
import importlib
import sys

from signer.cli.exits import MEANINGS

COMMANDS = (
    "serve",
    "sign",
    "verify",
    "enrol",
    "credential",
    "subject",
    "otp",
    "tokens",
    "audit",
    "backup",
    "restore",
    "demo",
)


def parser() -> argparse.ArgumentParser:
    """Every command's file gives HELP, EXAMPLE, `arguments(parser)` and `run(options)`."""
    codes = "\n".join(f"  {code:3d}  {meaning}" for code, meaning in MEANINGS.items())
    top = argparse.ArgumentParser(
        prog="paraph",
        description="Sign documents and digests with keys that never leave their tokens.",
        epilog=f"exit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
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
    options = parser().parse_args()
    try:
        code = options.run(options)
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
