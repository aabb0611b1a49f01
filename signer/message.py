"""
What people are told: one table of texts, by template and language, and what may be put into them.

A message is plain text. Its subject is a fixed text of the table; what comes from others, the name of a document, stands
only in the body, on a line of its own, cut and without what could move or hide other text.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from string import Formatter
from typing import Any

DOCUMENT_CHARACTERS_MAX = 80  # a line of a mail; who chose the name has no room for a letter of his own
TELL_CHARACTERS_MAX = 120  # a name, a place and a telephone number
ENROL_COMMAND = "`paraph enrol`"
_WHERE = re.compile(rf"https://[!-~]{{1,120}}|{ENROL_COMMAND}")
_CODE = re.compile("[0-9A-Za-z-]{4,64}")
_DIGEST_CODE = re.compile("[0-9A-Za-z]{8}")


class MessageError(ValueError):
    """The message cannot be made: a field is missing, unknown or no value of its kind; the message names it."""


class Language(StrEnum):
    EN = "en"
    FR = "fr"


class Template(StrEnum):
    SIGN_CODE = "sign-code"  # code, document, count, digest_code, until
    LOGIN_CODE = "login-code"  # code, audience, until
    CONFIRM_CODE = "confirm-code"  # code, until; the first one-time code, that completes an enrolment
    ENROLMENT_CODE = "enrolment-code"  # code, where, until
    CHANGE_CODE = "change-code"  # code, until; the one-time code with which a secret code is changed
    CODE_CHANGED = "code-changed"  # since
    ENROLMENT_REVOKED = "enrolment-revoked"  # begins; to the contact that it had before
    ENROLMENT_MOVED = "enrolment-moved"  # nothing; to the contact that it had before, where it was not completed
    SUSPENDED = "suspended"  # since
    LOCKED = "locked"  # until
    LOGIN_LOCKED = "login-locked"  # until


@dataclass(frozen=True, slots=True, repr=False)
class Message:
    """`text` has lines of any length that end with a line feed. It may hold a code, so it is not shown."""

    template: Template
    language: Language
    subject: str
    text: str

    def __repr__(self) -> str:
        return f"Message({self.template}, {self.language})"


def compose(template: Template, language: Language, *, tell: str, **fields: Any) -> Message:
    """
    The template's own fields are named in `Template`; `tell` is whom a person tells that something is wrong.

    code                    what is to be typed in: 4 to 64 letters, digits and hyphens
    document                the first document's name, as it came
    audience                where it logs in, as it came
    where                   it is typed in: an https address, or `ENROL_COMMAND`
    count                   of documents, at least 1
    digest_code             of the batch: 8 letters and digits
    until, begins, since    datetime with its zone

    Raises `MessageError`.
    """
    subject, text = TEXTS[template, language]
    given = {"tell": tell, **fields}
    wrong = given.keys() ^ _names(text)
    if wrong:
        raise MessageError(f"{template}: {', '.join(sorted(wrong))}: missing, or not in this template")
    return Message(template, language, subject, text.format_map({name: _shown(name, given[name]) for name in given}))


def _names(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def _shown(name: str, value: Any) -> str:
    try:
        return _FIELDS[name](value)
    except (TypeError, ValueError, AttributeError):
        raise MessageError(f"{name}: is no value of its kind") from None  # nor repeated: it may be a code


def shown_name(name: str) -> str:
    """
    A document's name for a person to read: of each character that is not printable on its line (control, format as the
    bidirectional ones, line ends, surrogates, unassigned: `str.isprintable`) U+FFFD is shown, of any space a plain one,
    and what is too long ends with '…'.
    """
    if len(name) > DOCUMENT_CHARACTERS_MAX:
        name = f"{name[: DOCUMENT_CHARACTERS_MAX - 1]}…"
    return "".join(character if character.isprintable() else "\ufffd" for character in _plain_spaces(name))


def check_tell(tell: str) -> str:
    """Whom a person tells that something is wrong, as messages name it: one line. Raises `ValueError`."""
    tell = _plain_spaces(tell)
    if not 1 <= len(tell) <= TELL_CHARACTERS_MAX or not tell.isprintable():
        raise ValueError(f"whom to tell is one line of 1 to {TELL_CHARACTERS_MAX} printable characters")
    return tell


def _plain_spaces(text: str) -> str:
    """People type others without knowing (U+00A0, U+202F), and `str.isprintable` knows only this one."""
    return "".join(" " if unicodedata.category(character) == "Zs" else character for character in text)


def _exactly(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def check(value: str) -> str:
        if pattern.fullmatch(value) is None:
            raise ValueError
        return value

    return check


def _count(value: int) -> str:
    if value < 1:
        raise ValueError
    return f"{value:d}"


def _time(value: datetime) -> str:
    """In UTC, which is said: nobody told this service where a person is."""
    if value.tzinfo is None:
        raise ValueError
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


_FIELDS: Mapping[str, Callable[[Any], str]] = {
    "tell": check_tell,
    "code": _exactly(_CODE),
    "where": _exactly(_WHERE),
    "document": shown_name,
    "audience": shown_name,
    "count": _count,
    "digest_code": _exactly(_DIGEST_CODE),
    "until": _time,
    "begins": _time,
    "since": _time,
}

# (template, language) -> (subject, text). A subject is no place for a code: telephones show it while they are locked.
TEXTS: Mapping[tuple[Template, Language], tuple[str, str]] = {
    (Template.SIGN_CODE, Language.EN): (
        "Your code to sign",
        """\
Your code to sign: {code}

Number of documents: {count}
The first one:
    {document}
Check code of them all: {digest_code}

Type the code in only where you see the same check code.
It is valid until {until}.

If this was not you, do nothing and tell {tell}.
""",
    ),
    (Template.SIGN_CODE, Language.FR): (
        "Votre code pour signer",
        """\
Votre code pour signer : {code}

Nombre de documents : {count}
Le premier :
    {document}
Code de contrôle de l'ensemble : {digest_code}

Ne saisissez le code que là où vous voyez le même code de contrôle.
Il est valable jusqu'au {until}.

Si ce n'était pas vous, ne faites rien et prévenez {tell}.
""",
    ),
    (Template.LOGIN_CODE, Language.EN): (
        "Your code to log in",
        """\
Your code to log in: {code}

It logs you in at:
    {audience}

Type the code in only if that is where you want to be.
It is valid until {until}.

If this was not you, do nothing and tell {tell}.
""",
    ),
    (Template.LOGIN_CODE, Language.FR): (
        "Votre code de connexion",
        """\
Votre code de connexion : {code}

Il vous connecte à :
    {audience}

Ne saisissez le code que si c'est bien là que vous voulez aller.
Il est valable jusqu'au {until}.

Si ce n'était pas vous, ne faites rien et prévenez {tell}.
""",
    ),
    (Template.CONFIRM_CODE, Language.EN): (
        "Your code to complete your enrolment",
        """\
Your code to complete your enrolment: {code}

It signs nothing. It is valid until {until}.

If this was not you, do nothing and tell {tell}.
""",
    ),
    (Template.CONFIRM_CODE, Language.FR): (
        "Votre code pour terminer votre inscription",
        """\
Votre code pour terminer votre inscription : {code}

Il ne signe rien. Il est valable jusqu'au {until}.

Si ce n'était pas vous, ne faites rien et prévenez {tell}.
""",
    ),
    (Template.CHANGE_CODE, Language.EN): (
        "Your code to change your secret code",
        """\
Your code to change your secret code: {code}

It signs nothing. It is valid until {until}.

If this was not you, somebody has asked for it with your product's number:
do nothing and tell {tell}.
""",
    ),
    (Template.CHANGE_CODE, Language.FR): (
        "Votre code pour changer de code secret",
        """\
Votre code pour changer de code secret : {code}

Il ne signe rien. Il est valable jusqu'au {until}.

Si ce n'était pas vous, quelqu'un l'a demandé avec le numéro de votre produit :
ne faites rien et prévenez {tell}.
""",
    ),
    (Template.CODE_CHANGED, Language.EN): (
        "Your secret code was changed",
        """\
Your secret code for signing was changed on {since}.

If this was not you, tell {tell} at once:
they can stop that anything is signed in your name.
""",
    ),
    (Template.CODE_CHANGED, Language.FR): (
        "Votre code secret a été changé",
        """\
Votre code secret de signature a été changé le {since}.

Si ce n'était pas vous, prévenez {tell} sans attendre :
toute signature en votre nom peut être bloquée.
""",
    ),
    (Template.ENROLMENT_CODE, Language.EN): (
        "Your enrolment for signing",
        """\
Your enrolment code: {code}

Where you type it in: {where}
You then choose the secret code with which you sign; never tell it to anybody.
The enrolment code is valid once, until {until}.

If you do not expect this, do nothing and tell {tell}.
""",
    ),
    (Template.ENROLMENT_CODE, Language.FR): (
        "Votre inscription pour signer",
        """\
Votre code d'inscription : {code}

À saisir ici : {where}
Vous choisirez ensuite votre code secret de signature ; ne le dites à personne.
Le code d'inscription est valable une fois, jusqu'au {until}.

Si vous n'attendiez pas ce message, ne faites rien et prévenez {tell}.
""",
    ),
    (Template.ENROLMENT_REVOKED, Language.EN): (
        "A new enrolment was asked for",
        """\
Somebody has asked that you be enrolled anew for signing.
Your present enrolment is no longer valid.
The new one begins on {begins}.

If this was not you, tell {tell} before then:
they can stop it.
""",
    ),
    (Template.ENROLMENT_REVOKED, Language.FR): (
        "Nouvelle inscription demandée",
        """\
Quelqu'un a demandé que vous soyez inscrit de nouveau pour signer.
Votre inscription actuelle n'est plus valable.
La nouvelle commence le {begins}.

Si ce n'était pas vous, prévenez {tell} avant cette date :
la demande peut être arrêtée.
""",
    ),
    (Template.ENROLMENT_MOVED, Language.EN): (
        "Your enrolment goes to another address",
        """\
Somebody has asked that you be enrolled for signing at another address.
A code that was sent to this one is no longer valid.

If this was not you, tell {tell} at once:
they can stop it.
""",
    ),
    (Template.ENROLMENT_MOVED, Language.FR): (
        "Votre inscription change d'adresse",
        """\
Quelqu'un a demandé que vous soyez inscrit pour signer à une autre adresse.
Un code envoyé à celle-ci n'est plus valable.

Si ce n'était pas vous, prévenez {tell} sans attendre :
la demande peut être arrêtée.
""",
    ),
    (Template.SUSPENDED, Language.EN): (
        "You can no longer sign",
        """\
Your signing was suspended on {since}.
Nothing can be signed in your name until an operator ends this.

If you do not know why, ask {tell}.
""",
    ),
    (Template.SUSPENDED, Language.FR): (
        "Vous ne pouvez plus signer",
        """\
Votre signature a été suspendue le {since}.
Rien ne peut être signé en votre nom tant qu'un opérateur n'y met pas fin.

Si vous n'en connaissez pas la raison, demandez à {tell}.
""",
    ),
    (Template.LOCKED, Language.EN): (
        "Wrong codes: signing is locked",
        """\
Wrong codes were given in your name too often.
Nothing can be signed with your codes until {until}.

If this was not you, somebody may be guessing: tell {tell}.
""",
    ),
    (Template.LOCKED, Language.FR): (
        "Codes erronés : signature bloquée",
        """\
Des codes erronés ont été donnés trop souvent en votre nom.
Rien ne peut être signé avec vos codes jusqu'au {until}.

Si ce n'était pas vous, quelqu'un essaie peut-être de les deviner : prévenez {tell}.
""",
    ),
    (Template.LOGIN_LOCKED, Language.EN): (
        "Wrong codes: logging in is limited",
        """\
Somebody has given wrong codes for you too often.
Until {until} you log in only where you have logged in before:
in the same browser, on the same computer. You can sign as ever.

If this was not you, somebody may be guessing: tell {tell},
who can also end this sooner.
""",
    ),
    (Template.LOGIN_LOCKED, Language.FR): (
        "Codes erronés : connexion limitée",
        """\
Des codes erronés ont été donnés trop souvent pour vous.
Jusqu'au {until}, vous ne pouvez vous connecter que là où
vous l'avez déjà fait : dans le même navigateur, sur le même ordinateur.
Vous pouvez signer comme toujours.

Si ce n'était pas vous, quelqu'un essaie peut-être de les deviner : prévenez {tell},
qui peut aussi y mettre fin plus tôt.
""",
    ),
}
