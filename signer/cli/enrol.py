"""paraph enrol: a person sets the secret code, and shows a first one-time code."""

import argparse
import getpass
import sys

from signer import person
from signer.cli import session
from signer.cli.exits import OK, USAGE
from signer.client import Client

HELP = "set your secret code, with the enrolment code that was sent to you"
EXAMPLE = "paraph enrol"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("enrolment", metavar="CODE", nargs="?", help="the enrolment code (default: it is asked for)")
    session.arguments(parser)


def run(options: argparse.Namespace) -> int:
    if not sys.stdin.isatty():
        print("paraph enrol: codes are typed by a person, at a terminal", file=sys.stderr)
        return USAGE
    return session.with_client(options, lambda client: _run(client, options))


async def _run(client: Client, options: argparse.Namespace) -> int:
    enrolment = options.enrolment or _typed("Enrolment code: ")
    begun = await person.begin_enrolment(client, enrolment)
    print(f"You are enrolled as {begun.subject}.")
    if begun.otp_uri:
        _show(begun.otp_uri)
    else:
        print(f"A one-time code was sent to {begun.contact}.")
    otp = _typed("One-time code: ")
    code = _new_code()
    if code is None:
        print("paraph enrol: the two are not the same; start again", file=sys.stderr)
        return USAGE
    await person.complete_enrolment(client, enrolment, code, otp)
    print("Done. You sign with your secret code and a one-time code.")
    return OK


def _show(uri: str) -> None:
    """As a picture for an app, and as text for everything else."""
    try:
        from signer.qr import qr
    except ModuleNotFoundError:  # the client alone is installed
        print("Give this to your app or device; who has it makes your one-time codes:")
    else:
        print(qr(uri))
        print("Scan it with your app, or give it this; who has it makes your one-time codes:")
    print(uri)


def _typed(question: str) -> str:
    return input(question).strip()


def _new_code() -> str | None:
    code = getpass.getpass("New secret code (6 to 64 characters): ")
    return code if code == getpass.getpass("Once more: ") else None
