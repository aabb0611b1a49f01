"""
What mails say: one table of texts, by template, and what may be put into them.

A subject is a fixed text with the portal's name; what people typed stands only in the body, on a line of its own, cut, and
without what could end, turn or hide a line. The same paragraphs become plain text and HTML.
"""

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from portal_adapter.domain.procedure import STATUSES
from portal_adapter.language import Language, msgid

LINE_CHARACTERS_MAX = 200  # of what people typed: the longest that a form takes is a company's name
TEXT_CHARACTERS_MAX = 4000  # of a general notification

ROLES: Mapping[str, str] = {
    "administrator": msgid("Administrator"),
    "signatory": msgid("Signatory"),
    "editor": msgid("Editor"),
    "viewer": msgid("Viewer"),
}
EVENTS: Mapping[str, str] = {
    "product-added": msgid("A product was registered for your account:"),
    "product-renewed": msgid("A product of your account was renewed; the new one logs in from now on:"),
    "product-removed": msgid("A product was removed from your account:"),
    "address-changed": msgid("The e-mail address of your account was changed. The new one is:"),
    "member-removed": msgid("You are no longer a member of this space:"),
}
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # Unicode's categories of what is not seen

Kind = Callable[[Language, Any], str]


def one_line(text: str, most: int = LINE_CHARACTERS_MAX) -> str:
    """What people typed, on one line: without line ends, direction marks and whatever else cannot be seen."""
    seen = "".join(" " if unicodedata.category(c) in _HIDDEN else c for c in text)
    seen = " ".join(seen.split())
    return seen if len(seen) <= most else seen[: most - 1] + "…"


def _line(_: Language, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is wanted")
    return one_line(value)


def _text(_: Language, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is wanted")
    lines = (one_line(line, TEXT_CHARACTERS_MAX) for line in value[:TEXT_CHARACTERS_MAX].splitlines())
    return "\n".join(lines)


def _link(_: Language, value: Any) -> str:
    """A page of ours, with its origin."""
    if not isinstance(value, str) or not value.startswith("https://") or one_line(value) != value or " " in value:
        raise ValueError("an https:// address is wanted")
    return value


def _moment(language: Language, value: Any) -> str:
    """Seconds since the epoch."""
    if not isinstance(value, int):
        raise ValueError("seconds since the epoch are wanted")
    return language.moment(value)


def _one_of(texts: Mapping[str, str]) -> Kind:
    def kind(language: Language, value: Any) -> str:
        if value not in texts:
            raise ValueError(f"one of {', '.join(texts)} is wanted")
        return language.text(texts[value])

    return kind


@dataclass(frozen=True, slots=True)
class Template:
    """`subject` and `paragraphs` are msgids; a paragraph that is '{link}' alone becomes a link."""

    subject: str
    paragraphs: tuple[str, ...]
    fields: Mapping[str, Kind]


TEMPLATES: Mapping[str, Template] = {
    # MAIL-09, to whom is invited: space (its title), role (a word of ROLES), link, inviter (a name), expires (a time)
    "invitation": Template(
        msgid("Invitation to a business space on {portal_name}"),
        (
            msgid("You are invited to work in a business space on {portal_name}. The invitation is from:"),
            "    {inviter}",
            msgid("The space:"),
            "    {space}",
            msgid("Your role there: {role}"),
            msgid("Open this link, log in with a product that has your names, and accept or refuse:"),
            "{link}",
            msgid("The link is yours alone. It is good until {expires}."),
            msgid("If you do not expect this, do nothing."),
        ),
        {"space": _line, "role": _one_of(ROLES), "link": _link, "inviter": _line, "expires": _moment},
    ),
    # MAIL-12, to an account: event (a word of EVENTS), about (product, address or space), time
    "notice": Template(
        msgid("Security notice of {portal_name}"),
        (
            "{event}",
            "    {about}",
            msgid("It was done on {time}."),
            msgid("If you do not know why, log in, look at your account, and tell whoever runs {portal_name}."),
        ),
        {"event": _one_of(EVENTS), "about": _line, "time": _moment},
    ),
    # ESP-18, to the portal's address for help: space (its title), identifier, person (a name), time
    "certification-asked": Template(
        msgid("Certification of a space is asked for on {portal_name}"),
        (msgid("The space:"), "    {space}", "    {identifier}", msgid("Asked for on {time} by:"), "    {person}"),
        {"space": _line, "identifier": _line, "person": _line, "time": _moment},
    ),
    # MAIL-08, SIG-17, to a space's address: space (its title), reference, link
    "signature-asked": Template(
        msgid("A procedure is to be signed on {portal_name}"),
        (
            msgid("Another space has transferred a procedure, so that this space signs it, too:"),
            "    {space}",
            msgid("The reference of the procedure:"),
            "    {reference}",
            msgid("Read it, and sign it or refuse:"),
            "{link}",
        ),
        {"space": _line, "reference": _line, "link": _link},
    ),
    # MAIL-08, SIG-17, to the address of the space that has transferred it: space (the other one's title), reference, link
    "signature-given": Template(
        msgid("The second signature is there on {portal_name}"),
        (
            msgid("This procedure of yours is signed by the other space, too:"),
            "    {reference}",
            msgid("Signed in the space:"),
            "    {space}",
            msgid("Open it, to see what is still to be done and to send it:"),
            "{link}",
        ),
        {"space": _line, "reference": _line, "link": _link},
    ),
    # MAIL-01, to a space's address and who has sent it: status (a word of STATUSES), reference, link
    "status": Template(
        msgid("The status of a procedure has changed on {portal_name}"),
        (
            msgid("The status of this procedure is “{status}” now:"),
            "    {reference}",
            msgid("Log in to see what that means for you, and what is to be done:"),
            "{link}",
        ),
        {"status": _one_of(STATUSES), "reference": _line, "link": _link},
    ),
    # MAIL-11, to a space's address: reference, time, service and how to reach it, link
    "received": Template(
        msgid("A procedure was received on {portal_name}"),
        (
            msgid("This procedure was received on {time}:"),
            "    {reference}",
            msgid("The service in charge, and how to reach it:"),
            "    {service}",
            "    {reach}",
            "{link}",
        ),
        {"reference": _line, "time": _moment, "service": _line, "reach": _line, "link": _link},
    ),
    # MAIL-10, to a space's address: link
    "message": Template(
        msgid("A new message of an administration on {portal_name}"),
        (msgid("An administration has written to you about a procedure. Log in to read it:"), "{link}"),
        {"link": _link},
    ),
    # MAIL-08, to a space's address: space (its title), text (of several lines), link
    "general": Template(
        msgid("News for your space on {portal_name}"),
        (msgid("For the space:"), "    {space}", "{text}", "{link}"),
        {"space": _line, "text": _text, "link": _link},
    ),
}


def check(template: str, data: Mapping[str, Any]) -> None:
    """Raise `ValueError` unless the template has exactly these fields, each of its kind."""
    if template not in TEMPLATES:
        raise ValueError(f"there is no mail {template!r}")
    fields = TEMPLATES[template].fields
    if wrong := fields.keys() ^ data.keys():
        raise ValueError(f"{template}: missing or unknown: {', '.join(sorted(wrong))}")
    language = Language("en", "UTC")
    for name, kind in fields.items():
        try:
            kind(language, data[name])
        except ValueError as error:
            raise ValueError(f"{template}, {name}: {error}") from None
