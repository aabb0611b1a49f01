"""
Answers to a definition's questions: checked one by one while somebody fills them in, as a whole before they are confirmed.

Answers are texts by field id, as they are kept and shown; `canonical` is the one form that is compared and hashed. What is
hidden, because the answer that it depends on is another one, is neither asked nor kept at the confirmation (PROC-10).
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from datetime import date

from portal_adapter.definitions.definition import Definition, Piece, Question, When
from portal_adapter.domain.fields import clean, has_controls
from portal_adapter.domain.kinds import KINDS
from portal_adapter.form.coverage import undrawable
from portal_adapter.refusal import FieldError

_WHOLE = re.compile(r"-?[0-9]{1,15}")

Answers = Mapping[str, str]


def holds(when: When | None, answers: Answers) -> bool:
    return when is None or answers.get(when.field, "") in when.is_


def visible(definition: Definition, answers: Answers) -> Iterator[Question]:
    """The questions that these answers leave to be asked, in order; what depends on a hidden one is hidden, too."""
    shown: dict[str, str] = {}
    for question in definition.questions():
        if holds(question.when, shown):
            shown[question.id] = answers.get(question.id, "")
            yield question


def required_pieces(definition: Definition, answers: Answers) -> list[Piece]:
    """The compulsory supporting documents: one slot each (ATT-03)."""
    shown = {question.id: answers.get(question.id, "") for question in visible(definition, answers)}
    return [piece for piece in definition.piece if not piece.optional and holds(piece.when, shown)]


def administration(definition: Definition, answers: Answers) -> str:
    """Who gets what is answered so (SUB-04)."""
    shown = {question.id: answers.get(question.id, "") for question in visible(definition, answers)}
    return next((one.administration for one in definition.route if holds(one.when, shown)), definition.administration)


def has_undecided_pieces(definition: Definition, answers: Answers) -> bool:
    """Whether a compulsory document waits for an answer that is still empty."""
    return any(
        not one.optional and one.when is not None and not answers.get(one.when.field) for one in definition.piece
    )


def normal(question: Question, text: str) -> str:
    """An answer as it is kept: in its kind's one form, or as it was typed where it has none."""
    value = clean(text)
    kind = KINDS.get(question.type)
    return (kind.read(value) if kind is not None and value else None) or value


def check_whole(definition: Definition, answers: Answers) -> list[FieldError]:
    """What stands between these answers and their confirmation (PROC-13)."""
    errors = []
    for question in visible(definition, answers):
        value = answers.get(question.id, "")
        if not value and question.required:
            errors.append(FieldError(question.id, "required", "This field is mandatory."))
        elif (error := mistake(question, value)) is not None:
            errors.append(error)
    return errors


def kept(definition: Definition, answers: Answers) -> dict[str, str]:
    """What a confirmation keeps: answers to visible questions, in the definition's order."""
    return {question.id: answers.get(question.id, "") for question in visible(definition, answers)}


def canonical(answers: Answers) -> bytes:
    """Sorted keys, NFC, trimmed, without empty answers: equal where nothing was changed (PROC-14)."""
    plain = {key: unicodedata.normalize("NFC", value).strip() for key, value in answers.items()}
    return json.dumps(
        {k: v for k, v in plain.items() if v}, sort_keys=True, ensure_ascii=False, separators=(",", ":")
    ).encode()


def mistake(question: Question, value: str) -> FieldError | None:
    """What is wrong with one answer; None for an empty one (PROC-11)."""
    if not value:
        return None
    if has_controls(value, lines=question.type == "lines"):
        return FieldError(question.id, "control_characters", "Take out characters that cannot be seen.")
    if missing := undrawable(value):
        message = "The document cannot show these characters: {characters} Write them in another way."
        return FieldError(question.id, "undrawable", message, {"characters": " ".join(missing)})
    return _CHECKS[question.type](question, value)


def _text(question: Question, value: str) -> FieldError | None:
    assert question.most is not None
    values = {"count": len(value)}
    if question.least is not None and len(value) < question.least:
        message = "Use at least {limit} characters; this has {count}."
        return FieldError(question.id, "too_short", message, values, question.least)
    if len(value) > question.most:
        return FieldError(
            question.id, "too_long", "Use at most {limit} characters; this has {count}.", values, question.most
        )
    return None


def _whole(question: Question, value: str) -> FieldError | None:
    assert question.least is not None
    assert question.most is not None
    if not _WHOLE.fullmatch(value) or not question.least <= int(value) <= question.most:
        values = {"least": question.least, "most": question.most}
        return FieldError(question.id, "number", "Give a whole number from {least} to {most}.", values)
    return None


def _kind(question: Question, value: str) -> FieldError | None:
    """A date, an e-mail address, a telephone number, an account: by the same rules as My information's."""
    kind = KINDS[question.type]
    if kind.read(value) is None:
        return FieldError(question.id, f"{question.type}_invalid", kind.message)
    return None


def _date(question: Question, value: str) -> FieldError | None:
    if (error := _kind(question, value)) is not None:
        return error
    found = date.fromisoformat(normal(question, value))
    if question.not_before and found < question.not_before:
        return FieldError(question.id, "date_early", "This date is too early.")
    if question.not_after and found > question.not_after:
        return FieldError(question.id, "date_late", "This date is too late.")
    return None


def _choice(question: Question, value: str) -> FieldError | None:
    possible = {"yes", "no"} if question.type == "yes_no" else {choice.value for choice in question.choices}
    return None if value in possible else FieldError(question.id, "unknown", "Choose one of those offered.")


_CHECKS = {
    "text": _text,
    "lines": _text,
    "whole": _whole,
    "date": _date,
    "email": _kind,
    "phone": _kind,
    "iban": _kind,
    "choice": _choice,
    "yes_no": _choice,
}
