"""
A mail's bytes (RFC 5322, RFC 2046): plain text and HTML of the same paragraphs, no attachment.

Headers are fixed texts, the portal's name and checked addresses. Each is looked at here before it becomes a line, since
the standard library of some Pythons lets line ends through that hide in an encoded word.
"""

import base64
import quopri
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from portal_adapter.domain.fields import is_email
from portal_adapter.language import Language
from portal_adapter.mail.message import TEMPLATES, one_line

_WORD_BYTES = 45  # of text in an encoded word: with its frame it is at most 75 characters (RFC 2047, 2)
_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip


def letter(
    id_: str, created: int, sender: str, recipient: str, language: Language, template: str, data: Mapping[str, Any],
    *, portal_name: str,
) -> bytes:  # fmt: skip
    """
    The same bytes each time, so that a mail which comes twice is seen to be one. `id_` is the outbox row's.

    Raises `ValueError` for what would be more than one line of a header, and for data that is not the template's.
    """
    if not is_email(recipient) or not is_email(sender):
        raise ValueError("a mail goes from one e-mail address to one")
    form = TEMPLATES[template]
    values = {name: kind(language, data[name]) for name, kind in form.fields.items()}
    values["portal_name"] = one_line(portal_name)
    subject = language.text(form.subject, portal_name=values["portal_name"])
    paragraphs = [(language.text(one, **values), one == "{link}") for one in form.paragraphs]
    text = "\n\n".join(said for said, _ in paragraphs) + f"\n\n-- \n{values['portal_name']}\n"
    html = _PAGES.get_template("letter.html").render(
        language=language.code, subject=subject, paragraphs=paragraphs, portal_name=values["portal_name"]
    )
    boundary = f"=_{id_}"  # no encoded line has '=_' in it
    head = (
        ("From", f"{encoded(values['portal_name'])} <{sender}>"),
        ("To", recipient),
        ("Subject", encoded(subject)),
        ("Date", format_datetime(datetime.fromtimestamp(created, UTC))),
        ("Message-ID", f"<{id_}@{sender.rpartition('@')[2]}>"),
        ("Auto-Submitted", "auto-generated"),  # RFC 3834, 5: nobody's out-of-office answers it
        ("Content-Language", language.code),
        ("MIME-Version", "1.0"),
        ("Content-Type", f'multipart/alternative; boundary="{boundary}"'),
    )
    lines = [header(name, value) for name, value in head]
    for kind, body in (("plain", text), ("html", html)):
        lines += [b"", f"--{boundary}".encode(), f"Content-Type: text/{kind}; charset=utf-8".encode()]
        lines += [b"Content-Transfer-Encoding: quoted-printable", b"", _quoted(body)]
    return b"\r\n".join([*lines, f"--{boundary}--".encode(), b""])


def header(name: str, value: str) -> bytes:
    """A header: one line, or several of encoded words that we have folded; raises `ValueError` for anything else."""
    if any(not line.isascii() or not line.isprintable() or len(line) > 990 for line in value.split("\r\n ")):
        raise ValueError(f"{name}: a header is printable ASCII on one line")
    return f"{name}: {value}".encode("ascii")


def encoded(text: str) -> str:
    """A phrase for a header (RFC 2047): as it is where that is plain, else in encoded words of whole characters."""
    if not text.isprintable():
        raise ValueError("a header is printable text")
    if text.isascii() and all(c.isalnum() or c in " -,'" for c in text):
        return text
    words, part = [], b""
    for c in text:
        more = c.encode()
        if len(part) + len(more) > _WORD_BYTES:
            words.append(part)
            part = b""
        part += more
    return "\r\n ".join(f"=?utf-8?b?{base64.b64encode(word).decode()}?=" for word in [*words, part])


def _quoted(text: str) -> bytes:
    return quopri.encodestring(text.replace("\n", "\r\n").encode())
