"""paraph subject: people, as the operator sees them: named, listed, suspended, unlocked. Their codes are theirs."""

import argparse
import json
from typing import Any

from google.protobuf.json_format import MessageToDict
from rich.markup import escape
from rich.table import Table

from signer import person
from signer.cli import session
from signer.cli.console import for_tables
from signer.cli.exits import OK
from signer.cli.printable import printable
from signer.client import Client

HELP = "enrol, list, suspend, resume or unlock people"
EXAMPLE = "paraph subject enrol ada --email ada@example.org --factor totp"
_COLOURS = {"ACTIVE": "green", "PENDING": "yellow"}


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
        "list": "who is enrolled, pending, suspended or locked: everybody, or one",
        "suspend": "nothing of this person's works any more",
        "resume": "take a suspension back",
        "unlock": "forget wrong attempts",
    }
    for name, text in others.items():
        actions.add_parser(name, help=text)
    for name, action in actions.choices.items():
        action.add_argument("subject", metavar="SUBJECT", nargs="?" if name == "list" else None, default="")
        action.add_argument("--json", action="store_true", help="print as JSON")
        session.arguments(action)


def run(options: argparse.Namespace) -> int:
    return session.with_client(options, lambda client: _run(client, options))


async def _run(client: Client, options: argparse.Namespace) -> int:
    if options.action == "list":
        _list(await person.subjects(client, options.subject), as_json=options.json)
        return OK
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
    print(json.dumps(told) if options.json else printable(said))
    return OK


def _list(found: list[Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([_dict(one) for one in found], indent=2))
        return
    table = Table("subject", "state", "codes", "contact", "credentials", "what to know", box=None, pad_edge=False)
    for one in found:
        table.add_row(
            _plain(one.name),
            f"[{_COLOURS.get(one.state, 'red')}]{_plain(one.state)}[/]",
            _plain(one.factor),
            _plain(one.contact),
            _plain(" ".join(one.credentials) or "-"),
            _plain("; ".join(_to_know(one))),
        )
    for_tables().print(table)


def _plain(text: str) -> str:
    """No markup, and nothing that moves the cursor."""
    return escape(printable(text))


def _to_know(one: Any) -> list[str]:
    known = []
    if one.locked_until:
        known.append(f"LOCKED until {one.locked_until}")
    elif one.attempts:
        known.append(f"wrong attempts within a day: {one.attempts}")
    if one.enrolment_ends:
        known.append(f"enrolment code good from {one.enrolment_begins} to {one.enrolment_ends}")
    return known


def _dict(one: Any) -> dict[str, Any]:
    found: dict[str, Any] = MessageToDict(
        one, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found
