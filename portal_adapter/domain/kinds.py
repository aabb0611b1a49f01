"""
Kinds of what people type: how a value is read, and the one form in which it is kept.

A reader takes a clean, not empty text of one line, and answers the value as it is kept, or None for what is none.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date

from portal_adapter import countries
from portal_adapter.domain.fields import is_email

_PHONE = re.compile(r"\+[1-9][0-9]{6,14}")  # E.164: at most 15 digits
_PUNCTUATION = re.compile(r"[ ./()-]")
_IBAN = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}")  # ISO 13616: 15 to 34 characters in all
_BIC = re.compile(r"[A-Z]{4}[A-Z]{2}[A-Z0-9]{2}([A-Z0-9]{3})?")  # ISO 9362
_POSTAL_CODE = re.compile(r"[A-Z0-9](?:[A-Z0-9 -]{0,10}[A-Z0-9])?")
_VAT = re.compile(r"[A-Z]{2}[A-Z0-9+*]{2,12}")  # the form of Directive 2006/112/EC, article 215; no register is asked
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DAY_FIRST = re.compile(r"([0-9]{1,2})[./]([0-9]{1,2})[./]([0-9]{4})")


@dataclass(frozen=True, slots=True)
class Kind:
    """`input` is HTML's type of the field; `message` a msgid that says what is wanted."""

    name: str
    read: Callable[[str], str | None]
    message: str
    input: str = "text"


def read_date(text: str) -> str | None:
    """ISO 8601, also out of 31.12.2026; a day that there is, from 1900 on."""
    if found := _DAY_FIRST.fullmatch(text):
        text = f"{found[3]}-{found[2]:0>2}-{found[1]:0>2}"
    if _DATE.fullmatch(text) is None or text < "1900":
        return None
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        return None


def read_phone(text: str) -> str | None:
    """E.164, with the country's prefix; 00 before it is read as +."""
    plain = _PUNCTUATION.sub("", text)
    plain = re.sub(r"^00", "+", plain)
    return plain if _PHONE.fullmatch(plain) else None


def read_iban(text: str) -> str | None:
    """Without blanks; its check digits are right (ISO 7064, MOD 97-10)."""
    plain = text.replace(" ", "").upper()
    if _IBAN.fullmatch(plain) is None:
        return None
    digits = "".join(str(int(c, 36)) for c in plain[4:] + plain[:4])
    return plain if int(digits) % 97 == 1 else None


def read_bic(text: str) -> str | None:
    plain = text.replace(" ", "").upper()
    return plain if _BIC.fullmatch(plain) and plain[4:6] in countries.CODES else None


def read_postal_code(text: str) -> str | None:
    plain = text.upper()
    return plain if _POSTAL_CODE.fullmatch(plain) else None


def read_vat(text: str) -> str | None:
    plain = re.sub(r"[ .-]", "", text).upper()
    return plain if _VAT.fullmatch(plain) else None


def read_country(text: str) -> str | None:
    return text if text in countries.CODES else None


KINDS: Mapping[str, Kind] = {
    one.name: one
    for one in (
        Kind("text", lambda text: text, ""),
        Kind("date", read_date, "Give a date such as 2026-12-31 or 31.12.2026."),
        Kind(
            "email", lambda text: text if is_email(text) else None,
            "Give an e-mail address such as name@example.org.", "email",
        ),
        Kind("phone", read_phone, "Give a number with its country’s prefix, such as +352 621 123 456.", "tel"),
        Kind("iban", read_iban, "This is no account number (IBAN): a character is wrong."),
        Kind("bic", read_bic, "Give a BIC of 8 or 11 characters, such as BCEELULL."),
        Kind("postal_code", read_postal_code, "Give a postal code of letters, digits, blanks and hyphens."),
        Kind("vat", read_vat, "Give a VAT number with its country’s letters, such as LU12345678."),
        Kind("country", read_country, "Choose one of those offered.", "select"),
    )
}  # fmt: skip
