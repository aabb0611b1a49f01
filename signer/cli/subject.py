"""paraph subject: people, as the operator sees them: named, suspended, unlocked. Their codes are theirs."""

import argparse
import json
from typing import Any

from signer import person
from signer.cli import session
from signer.cli.exits import OK
from signer.client import Client

HELP = "enrol, suspend, resume or unlock a person"
EXAMPLE = "paraph subject enrol ada --email ada@example.org --factor totp"


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    enrol = actions.add_parser("enrol", help="name a person; the enrolment code goes to the contact")
    contact = enrol.add_mutually_exclusive_group(required=True)
    contact.add_argument("--email", metavar="ADDRESS")
    contact.add_argument("--webhook", metavar="URL", help="a service that reaches the person, e.g. by SMS")
    enrol.add_argument(
        "--factor", choices=("totp", "hotp", "sent"), default="totp", help="one-time codes (default: %(default)s)"
    )
    enrol.add_argument("--language", choices=("en", "fr"), default="en", help="of messages (default: %(default)s)")
    others = {
        "suspend": "nothing of this person's works any more",
        "resume": "take a suspension back",
        "unlock": "forget wrong attempts",
    }
    for name, text in others.items():
        actions.add_parser(name, help=text)
    for action in actions.choices.values():
        action.add_argument("subject", metavar="SUBJECT")
        action.add_argument("--json", action="store_true", help="print as JSON")
        session.arguments(action)


def run(options: argparse.Namespace) -> int:
    return session.with_client(options, lambda client: _run(client, options))


async def _run(client: Client, options: argparse.Namespace) -> int:
    told: dict[str, Any] = {"subject": options.subject, "action": options.action}
    if options.action == "enrol":
        kind = "email" if options.email else "webhook"
        begins = await person.enrol(
            client,
            options.subject,
            kind,
            options.email or options.webhook,
            factor=options.factor,
            language=options.language,
        )
        told["begins"] = begins
        said = f"{options.subject}: the enrolment code goes to the contact at {begins}"
    else:
        await person.change(client, options.action, options.subject)
        said = f"{options.subject}: {options.action} done"
    print(json.dumps(told) if options.json else said)
    return OK
