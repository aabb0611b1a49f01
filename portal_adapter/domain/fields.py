"""
What people type, checked. All of a form's mistakes are found at once.

    fields = Fields(form)
    title = fields.text("title", most=limits.space_title)
    kind = fields.choice("kind", KINDS)
    fields.check()                       # raises Refusal `validation` with every mistake

A character is a Unicode code point after NFC; blanks at the ends are trimmed, CRLF is one character, control characters
are refused. Numbers of characters in limits are inclusive.
"""

import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

from portal_adapter.language import msgid
from portal_adapter.refusal import FieldError, Refusal

_EMAIL = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@"
    r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+"
)

VERSION_DIGITS_MAX = 9  # what the databases' integers hold


class Fields:
    def __init__(self, form: Mapping[str, str]) -> None:
        self._form = form
        self.errors: list[FieldError] = []

    def refuse(self, field: str, code: str, message: str, *, limit: int | None = None, **values: Any) -> None:
        self.errors.append(FieldError(field, code, message, values, limit))

    def text(self, field: str, *, most: int, least: int = 1, lines: bool = False) -> str:
        """`least` 0: it may be empty. `lines`: it may have several."""
        value = clean(self._form.get(field, ""))
        if has_controls(value, lines=lines):
            self.refuse(field, "control_characters", "Take out characters that cannot be seen.")
        elif not value and least:
            self.refuse(field, "required", "This field is mandatory.")
        elif value and len(value) < least:
            self.refuse(
                field, "too_short", "Use at least {limit} characters; this has {count}.", limit=least, count=len(value)
            )
        elif len(value) > most:
            self.refuse(
                field, "too_long", "Use at most {limit} characters; this has {count}.", limit=most, count=len(value)
            )
        return value

    def email(self, field: str, *, most: int) -> str:
        before = len(self.errors)
        value = self.text(field, most=most)
        if len(self.errors) == before and not is_email(value):
            self.refuse(field, "email_invalid", "Give an e-mail address such as name@example.org.")
        return value

    def choice(self, field: str, choices: Collection[str]) -> str:
        value = self._form.get(field, "")
        if not value:
            self.refuse(field, "required", "Choose one.")
        elif value not in choices:
            self.refuse(field, "unknown", "Choose one of those offered.")
        return value

    def version(self) -> int:
        """Of what the form was made from; every form that changes something has it."""
        return self.number("version", msgid("Say which version you have seen."))

    def number(self, field: str, message: str) -> int:
        """Of a hidden field; `message` is said where it is missing."""
        value = self._form.get(field, "")
        if not (value.isascii() and value.isdigit() and len(value) <= VERSION_DIGITS_MAX):
            self.refuse(field, "required", message)
            return 0
        return int(value)

    def ticked(self, field: str, message: str) -> None:
        """A box that must be ticked."""
        if self._form.get(field) not in {"yes", "on", "true"}:
            self.refuse(field, "not_ticked", message)

    def read_only(self, field: str, value: str) -> None:
        """What cannot be changed here, and may be posted only as it is (TOK-07)."""
        if field in self._form and clean(self._form[field]) != value:
            self.refuse(field, "read-only", "This cannot be changed here.")

    def check(self) -> None:
        if self.errors:
            raise Refusal("validation", "Some fields need your attention.", errors=self.errors)


def clean(text: str) -> str:
    """As it is counted and kept."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def has_controls(text: str, *, lines: bool = False) -> bool:
    """Control characters, surrogates, and what turns a line round or ends it (Unicode Cc, Cs, Zl, Zp, bidi controls)."""
    allowed = "\n\t" if lines else ""
    return any(
        (unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} and c not in allowed)
        or c in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
        for c in text
    )


def is_email(text: str) -> bool:
    """The form that HTML's type=email takes, with a dot in the domain; ASCII."""
    return _EMAIL.fullmatch(text) is not None


def masked(email: str) -> str:
    """'a***@example.org'."""
    return email[:1] + "***" + email[email.rindex("@") :]


def folded(text: str) -> str:
    """For comparing names: without case, accents, hyphens, apostrophes and blanks."""
    text = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in text if unicodedata.category(c)[0] in {"L", "N"})
