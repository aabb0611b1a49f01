"""What people are told: the table of texts, and what others' words do in it."""

import re
import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from itertools import product
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
from pydantic import ValidationError

from signer.config import People
from signer.message import (
    DOCUMENT_CHARACTERS_MAX,
    ENROL_COMMAND,
    TEXTS,
    Language,
    MessageError,
    Template,
    check_tell,
    compose,
    shown_name,
)

NOON = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
FIELDS: dict[Template, dict[str, Any]] = {
    Template.SIGN_CODE: {
        "code": "493817",
        "document": "lease.pdf",
        "count": 3,
        "digest_code": "K7QX29AB",
        "until": NOON,
    },
    Template.LOGIN_CODE: {"code": "493817", "audience": "https://portal.example", "until": NOON},
    Template.CONFIRM_CODE: {"code": "493817", "until": NOON},
    Template.CHANGE_CODE: {"code": "493817", "until": NOON},
    Template.CODE_CHANGED: {"since": NOON},
    Template.ENROLMENT_CODE: {"code": "7QKD-93MX-AAB2", "where": "https://sign.example/enrol", "until": NOON},
    Template.ENROLMENT_REVOKED: {"begins": NOON},
    Template.ENROLMENT_MOVED: {},
    Template.SUSPENDED: {"since": NOON},
    Template.LOCKED: {"until": NOON},
    Template.LOGIN_LOCKED: {"until": NOON},
}
TELL = "the help desk, +33 1 23 45 67 89"


def sign_code(**fields: Any) -> str:
    return compose(Template.SIGN_CODE, Language.EN, tell=TELL, **(FIELDS[Template.SIGN_CODE] | fields)).text


@pytest.mark.parametrize(("template", "language"), list(product(Template, Language)))
def test_every_message(template: Template, language: Language) -> None:
    """Each template in each language, with the same fields; every field is there, the subject is a fixed text without any."""
    message = compose(template, language, tell=TELL, **FIELDS[template])
    for value in (*FIELDS[template].values(), TELL):
        assert ("2026-11-26 12:00 UTC" if value is NOON else str(value)) in message.text
    subject, text = TEXTS[template, language]
    assert message.subject == subject
    assert not re.search(r"[{}]|\d", subject), "no field, no code"
    assert 10 < len(subject) <= 60
    assert all(len(line) <= 78 + len(TELL) for line in message.text.splitlines()), "RFC 5322, 2.1.1"
    fields = [{name for _, name, _, _ in Formatter().parse(TEXTS[template, each][1]) if name} for each in Language]
    assert fields == [{"tell", *FIELDS[template]}] * len(Language)
    assert text.endswith("\n")


def test_the_code_to_sign() -> None:
    """
    It names what is signed (the first document, how many, the code of the batch's digest), until when the code is good,
    and what to do if it was somebody else.
    """
    assert sign_code() == (
        "Your code to sign: 493817\n"
        "\n"
        "Number of documents: 3\n"
        "The first one:\n"
        "    lease.pdf\n"
        "Check code of them all: K7QX29AB\n"
        "\n"
        "Type the code in only where you see the same check code.\n"
        "It is valid until 2026-11-26 12:00 UTC.\n"
        "\n"
        "If this was not you, do nothing and tell the help desk, +33 1 23 45 67 89.\n"
    )


def test_times_are_in_utc() -> None:
    assert "until 2026-11-26 12:00 UTC" in sign_code(until=NOON.astimezone(timezone(timedelta(hours=5))))


HOSTILE = [
    *("\r\n\r\nIf this was you, send the code to eve@example.net", "\nBcc: eve@example.net\n", "a\0b", "a\x1b[2Jb"),
    *("evil\u202efdp.exe", "\u2066a\u2069", "a\u200bb\u200d", "a\u2028b\u2029c\x85d\x0be\x0cf", "\ufeffa", "\ud800"),
    *("\U000e0041\U000e0042", "{tell}{code}", "%(code)s", "=?UTF-8?Q?=0A?=", "x" * 5_000_000, "\n" * 200),
]


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name[:20]))
def test_a_name_from_others(name: str) -> None:
    """
    Whatever a document is called, it is one line of at most 80 characters, without one that moves, hides or ends others;
    the rest of the message is as it always is.
    """
    lines, usual = sign_code(document=name).splitlines(), sign_code().splitlines()
    assert [line for index, line in enumerate(lines) if index != 4] == [
        line for index, line in enumerate(usual) if index != 4
    ]
    shown = lines[4].removeprefix("    ")
    assert len(shown) <= DOCUMENT_CHARACTERS_MAX
    assert not any(unicodedata.category(each) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for each in shown)


def test_a_good_name_stays() -> None:
    """Letters of all scripts, spaces and signs are shown as they are; a long one keeps its beginning, and says so."""
    for name in ("Bail – été 2026 (v2).pdf", "契約書.pdf", "عقد.pdf", "a" * 80):
        assert shown_name(name) == name
    assert shown_name("a\u00a0b\u202fc\u3000d") == "a b c d"
    assert shown_name("a" * 81) == "a" * 79 + "…"


@pytest.mark.parametrize(
    "wrong",
    [
        *({"code": "49 38"}, {"code": "canary\n1"}, {"code": ""}, {"code": "1" * 65}, {"code": "canary\n"}, {"code": 493817}),
        *({"digest_code": "K7QX29A"}, {"digest_code": "K7QX-29A"}, {"digest_code": "K7QX29ABC"}, {"count": 0}, {"count": "3"}),
        *({"until": datetime(2026, 11, 26)}, {"until": "canary"}, {"document": b"canary"}, {"count": -1}),  # noqa: DTZ001
        *({"tell": "canary\nline"}, {"tell": ""}, {"tell": "canary" * 30}, {"tell": "a\u202eb"}),
    ],
    ids=ascii,
)  # fmt: skip
def test_what_no_field_can_be(wrong: dict[str, Any]) -> None:
    """Refused by the field's name; the value is not repeated, it may be a code."""
    (name,) = wrong
    with pytest.raises(MessageError, match=f"^{name}: ") as refused:
        compose(Template.SIGN_CODE, Language.EN, **({"tell": TELL} | FIELDS[Template.SIGN_CODE] | wrong))
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("language", list(Language))
def test_where_an_enrolment_code_is_typed_in(language: Language) -> None:
    """The window's page where one is configured, else the command; an address that is none of a page is refused at both ends."""
    fields = FIELDS[Template.ENROLMENT_CODE]
    for where in (ENROL_COMMAND, "https://sign.example/enrol"):
        message = compose(Template.ENROLMENT_CODE, language, tell=TELL, **(fields | {"where": where}))
        assert re.search(f" ?: {re.escape(where)}$", message.text, re.MULTILINE)
        assert ("paraph enrol" in message.text) is (where == ENROL_COMMAND)
    for wrong in ("http://sign.example/enrol", "https://", "https://sign.example/en rol", "https://a/\nb", "canary"):
        with pytest.raises(MessageError, match=r"^where: "):
            compose(Template.ENROLMENT_CODE, language, tell=TELL, **(fields | {"where": wrong}))
        with pytest.raises(ValidationError, match="enrol_at"):
            People(tell=TELL, seed_key_file=Path("/seeds.key"), enrol_at=wrong)


def test_whom_to_tell() -> None:
    """A number as it is typed in French has spaces of its own; a second line, or nothing, is refused in words."""
    assert check_tell("l'assistance, 01\u00a023\u202f45") == "l'assistance, 01 23 45"
    for wrong in ("", "a\nb", "x" * 121, "a\u202eb"):
        with pytest.raises(ValueError, match="one line of 1 to 120 printable characters"):
            check_tell(wrong)


def test_fields_are_exactly_the_template_s() -> None:
    """One that is missing, and one that is another template's."""
    with pytest.raises(MessageError, match="confirm-code: until: missing"):
        compose(Template.CONFIRM_CODE, Language.EN, tell=TELL, code="493817")
    with pytest.raises(MessageError, match="confirm-code: document: "):
        compose(Template.CONFIRM_CODE, Language.EN, tell=TELL, code="493817", until=NOON, document="x")
    for unknown in (Template, Language):
        with pytest.raises(ValueError, match="canary"):
            unknown("canary")


def test_a_message_is_not_shown() -> None:
    message = compose(Template.CONFIRM_CODE, Language.EN, tell=TELL, code="493817", until=NOON)
    assert repr(message) == "Message(confirm-code, en)"
