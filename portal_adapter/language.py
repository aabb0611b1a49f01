"""
French and English. A text in code or template is its English; the files in `locale/fr` have the French, one for each part
of the portal, and a test holds them complete.

Read at the start by Babel, so that no compiled file can be old. A text with a number has both forms.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date, format_datetime, format_time
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po
from babel.numbers import format_decimal

LANGUAGES = ("fr", "en")
NAMES = {"fr": "Français", "en": "English"}
_LOCALES = Path(__file__).parent / "locale"


def msgid(text: str) -> str:
    """Marks a text of a table: it is looked up where it is shown."""
    return text


@cache
def _french() -> tuple[Mapping[str, str], Mapping[str, tuple[str, ...]]]:
    texts: dict[str, str] = {}
    plurals: dict[str, tuple[str, ...]] = {}
    for message in (message for path in sorted((_LOCALES / "fr").glob("*.po")) for message in _messages(path)):
        forms = message.string
        if isinstance(message.id, str) and isinstance(forms, str) and message.id and forms:
            texts[message.id] = forms
        elif not isinstance(message.id, str) and isinstance(forms, tuple | list):
            plurals[message.id[0]] = tuple(forms)
    return texts, plurals


def _messages(path: Path) -> Catalog:
    with path.open("rb") as file:
        return read_po(file, locale="fr")


_MEGABYTE = 1024 * 1024


class Language:
    """One of `LANGUAGES`, in one time zone."""

    def __init__(self, code: str, zone: str) -> None:
        self.code = code if code in LANGUAGES else "en"
        self._zone = ZoneInfo(zone)
        self._locale = Locale.parse("fr_FR" if self.code == "fr" else "en_GB")

    def text(self, message: str, /, **values: Any) -> str:
        """The text in this language; `values` stand in its braces, as texts: nothing in them is looked up."""
        if self.code == "fr":
            message = _french()[0].get(message, message)
        return message.format(**values) if values else message

    def count(self, one: str, many: str, number: int, /, **values: Any) -> str:
        """With a number: French has its plural from 2 on, English but for 1."""
        forms = (one, many)
        if self.code == "fr":
            forms = _french()[1].get(one, forms)  # type: ignore[assignment]
            return forms[number >= 2].format(number=number, **values)
        return forms[number != 1].format(number=number, **values)

    def size(self, octets: int) -> str:
        """In kilobytes of 1024, rounded up, or megabytes with one digit."""
        if octets < _MEGABYTE:
            return self.text(msgid("{size} kB"), size=-(-octets // 1024))
        return self.text(msgid("{size} MB"), size=format_decimal(octets / _MEGABYTE, "0.#", locale=self._locale))

    def moment(self, seconds: int) -> str:
        return format_datetime(self._local(seconds), "d MMM y, HH:mm", locale=self._locale)

    def day(self, seconds: int) -> str:
        return format_date(self._local(seconds), "long", locale=self._locale)

    def date(self, iso: str) -> str:
        """Of a calendar date as it is kept, 2026-12-31: it has no time zone."""
        return format_date(date.fromisoformat(iso), "long", locale=self._locale)

    def hour(self, seconds: int) -> str:
        return format_time(self._local(seconds), "HH:mm", locale=self._locale, tzinfo=self._zone)

    def iso(self, seconds: int) -> str:
        """With the zone's offset, for `<time datetime>`."""
        return self._local(seconds).isoformat()

    def _local(self, seconds: int) -> datetime:
        return datetime.fromtimestamp(seconds, UTC).astimezone(self._zone)


def preferred(accept: str, default: str) -> str:
    """Out of Accept-Language (RFC 9110, 12.5.4): the first of ours with the greatest weight."""
    best, found = 0.0, default
    for part in accept.split(",")[:20]:
        name, _, weight = part.strip().partition(";q=")
        try:
            quality = float(weight) if weight else 1.0
        except ValueError:
            continue
        code = name.strip()[:2].lower()
        if code in LANGUAGES and quality > best:
            best, found = quality, code
    return found
