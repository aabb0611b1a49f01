"""paraph enrol: a person sets the secret code, and shows a first one-time code."""

import argparse
import shutil
import sys
from typing import Any

from signer import person
from signer.cli import chosen, prompt, session
from signer.cli.exits import OK
from signer.cli.printable import printable
from signer.cli.session import UsageError
from signer.client import Client, ServiceError
from signer.qr import qr, size_of

HELP = "set your secret code, with the enrolment code that was sent to you"
EXAMPLE = "paraph enrol"

# What a person can mend herself, and how.
_AGAIN = {
    "OTP_INCORRECT": "Type it again, or the next one.",
    "OTP_EXPIRED": "Another one is sent.",
    "CODE_WEAK": "The one-time code is still good.",
    "CODES_BUSY": "Type it again.",
    "CODES_FAILED": "Type it again.",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    session.arguments(parser)


def run(options: argparse.Namespace) -> int:
    return session.with_client(options, _run)


async def _run(client: Client) -> int:
    prompt.check()
    if not sys.stdout.isatty():  # what is shown there makes one-time codes
        raise UsageError("standard output is no terminal, and what is shown there is a secret; start this at one")
    enrolment, begun = await _begun(client)
    print(f"This enrols you as {printable(begun.subject)}: {_STEPS[bool(begun.otp_uri)]}")
    if begun.otp_uri:
        _show(begun.otp_uri)
    else:
        _say_sent(begun)
    await _complete(client, enrolment, is_sent=not begun.otp_uri)
    print("Done. You sign with your secret code and a one-time code: paraph sign FILE --credential NAME")
    if begun.otp_uri:
        print("Clear or close this window: whoever sees it could make your one-time codes.")
    return OK


_STEPS = {
    True: "give your app or device what it makes one-time codes from, set a secret code, and type a first one-time code.",
    False: "set a secret code, and type the one-time code that is sent to you.",
}


async def _begun(client: Client) -> tuple[str, Any]:
    """
    The enrolment code, and what is said to it; asked for again where it was typed wrong. It is no argument of the command:
    those are seen by everybody on the machine, and kept by shells.
    """
    left = prompt.TRIES
    while True:
        left -= 1
        enrolment = prompt.visible("Enrolment code, as it was sent to you: ")
        try:
            return enrolment, await person.begin_enrolment(client, enrolment)
        except ServiceError as error:
            if error.reason != "ENROLMENT_UNKNOWN" or not left:
                raise
            prompt.tell(f"{session.say(error)} Type it again, as it stands in the message.")


def _show(uri: str) -> None:
    """As a picture, where the terminal shows all of it at once: a camera reads no half."""
    try:
        picture = qr(uri)
    except ValueError:  # too much for a terminal's picture
        print("Give this to your app or device:")
    else:
        columns, lines = size_of(picture)
        terminal = shutil.get_terminal_size()
        if columns <= terminal.columns and lines < terminal.lines:
            print(picture, end="")
            print("Scan it with your app. An app or device that does not scan takes this instead:")
        else:
            print(f"For a picture to scan make this window {columns} columns by {lines + 1} lines, and start again.")
            print("Or give this to your app or device:")
    print(printable(uri))


def _say_sent(begun: Any) -> None:
    print(f"A one-time code was sent to {printable(begun.contact)}.")


async def _complete(client: Client, enrolment: str, *, is_sent: bool) -> None:
    left, code = prompt.TRIES, chosen.ask()
    while True:
        left -= 1
        otp = prompt.code("One-time code: ")
        try:
            await person.complete_enrolment(client, enrolment, code, otp)
        except ServiceError as error:
            if error.reason not in _AGAIN or not left:
                raise
            prompt.tell(f"{session.say(error)} {_AGAIN[error.reason]}")
            if error.reason == "CODE_WEAK":
                code = chosen.ask()
            if is_sent and error.reason == "OTP_EXPIRED":
                _say_sent(await person.begin_enrolment(client, enrolment))
        else:
            return
