"""
Where a person is told something: an e-mail address or a webhook, checked when it is made, masked wherever it is shown.

    e-mail    addr-spec of RFC 5322, 3.4.1, in ASCII: a dot-atom, '@', and a domain name of two labels and more
    webhook   a URL as signer/webhook.py checks it; its path may be a secret

The forms of an address that are allowed and hardly ever meant (quoted strings, comments, address literals) are refused:
each is a way into a header or an SMTP command.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from signer import webhook

EMAIL_CHARACTERS_MAX = 254  # a path of 256 (RFC 5321, 4.5.3.1.3) without its angle brackets
LOCAL_CHARACTERS_MAX = 64  # RFC 5321, 4.5.3.1.1
URL_CHARACTERS_MAX = 2000  # a secret of a kilobyte fits
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"  # RFC 5322, 3.2.3
_LOCAL = re.compile(rf"{_ATOM}(\.{_ATOM})*")
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"  # RFC 1123, 2.1
_DOMAIN = re.compile(rf"({_LABEL}\.)+(?![0-9]+$){_LABEL}")  # the last one has a letter: else it is an IP address
_ENCODED_WORD = "=?"  # RFC 2047, 2: a mail program decodes it, to whatever it is


class ContactError(ValueError):
    """It cannot be used as a contact; the message says why and what to write, and does not repeat it."""


class Kind(StrEnum):
    EMAIL = "email"
    WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True, repr=False)
class Contact:
    """Raises `ContactError`."""

    kind: Kind
    address: str

    def __post_init__(self) -> None:
        _CHECKS[self.kind](self.address)

    @property
    def masked(self) -> str:
        """For people and logs: enough to tell it from another one of theirs."""
        if self.kind is Kind.WEBHOOK:
            return f"{webhook.origin(self.address)}/***"
        local, _, domain = self.address.rpartition("@")
        return f"{local[:1] if len(local) > 1 else ''}***@{domain}"

    def __repr__(self) -> str:
        return f"Contact({self.kind}, {self.masked})"


def _check_email(address: str) -> None:
    if not address.isascii():
        raise ContactError("an e-mail address is ASCII; write an internationalised domain as xn--...")
    local, _, domain = address.rpartition("@")
    if len(address) > EMAIL_CHARACTERS_MAX or len(local) > LOCAL_CHARACTERS_MAX:
        raise ContactError(
            f"an e-mail address has at most {EMAIL_CHARACTERS_MAX} characters, {LOCAL_CHARACTERS_MAX} before its '@'"
        )
    is_address = _LOCAL.fullmatch(local) is not None and _DOMAIN.fullmatch(domain) is not None
    if not is_address or _ENCODED_WORD in address:
        raise ContactError("an e-mail address is written as name@example.org, without quotes, comments and spaces")


def _check_webhook(url: str) -> None:
    if len(url) > URL_CHARACTERS_MAX:
        raise ContactError(f"a webhook's URL has at most {URL_CHARACTERS_MAX} characters")
    try:
        webhook.check_url(url)
    except ValueError as error:
        raise ContactError(str(error)) from None


_CHECKS = {Kind.EMAIL: _check_email, Kind.WEBHOOK: _check_webhook}
