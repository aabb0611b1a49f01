"""paraph code: a person chooses another secret code, by the one that she has and a one-time code."""

import argparse

from signer import person
from signer.cli import chosen, prompt, session
from signer.cli.exits import OK
from signer.cli.printable import printable
from signer.client import Client, ServiceError

HELP = "change your secret code"
EXAMPLE = "paraph code --credential ada"

# What a person can mend herself, and how; what she is asked for again.
_AGAIN = {
    "OTP_INCORRECT": "Type both again; a device shows another one-time code each time.",
    "OTP_USED": "Type the next one-time code.",
    "OTP_EXPIRED": "Type both again, with the newest one-time code.",
    "CODE_RULES": "The one-time code is still good.",
    "CODE_WEAK": "The one-time code is still good.",
    "CODES_BUSY": "Type both again.",
    "CODES_FAILED": "Type both again.",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    session.arguments(parser)
    parser.add_argument("--credential", required=True, metavar="NAME", help="any of yours that asks the secret code")


def run(options: argparse.Namespace) -> int:
    return session.with_client(options, lambda client: _run(client, options.credential))


async def _run(client: Client, name: str) -> int:
    prompt.check()
    is_sent = (await client.credential(name)).gate == "code+sent-otp"
    secret, new, left = prompt.hidden("Present secret code: "), chosen.ask(), prompt.TRIES
    if is_sent:
        await _send(client, name)
    while True:
        left -= 1
        otp = prompt.code("One-time code: ")
        try:
            subject = await person.change_code(client, name, secret, otp, new)
        except ServiceError as error:
            if error.reason not in _AGAIN or not left:
                raise
            prompt.tell(f"{session.say(error)} {_AGAIN[error.reason]}")
            if error.reason in {"CODE_RULES", "CODE_WEAK"}:
                new = chosen.ask()
            elif error.reason != "OTP_USED":
                secret = prompt.hidden("Present secret code: ")
            if is_sent and error.reason == "OTP_EXPIRED":
                await _send(client, name)
        else:
            print(f"Done. {printable(subject)} signs with the new secret code from now on.")
            return OK


async def _send(client: Client, name: str) -> None:
    sent = await person.request_change_otp(client, name)
    prompt.tell(f"A one-time code was sent to {printable(sent.contact)}.")
