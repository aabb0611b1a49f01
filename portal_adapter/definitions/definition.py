"""
A procedure's definition: one TOML file a version, read at the start and never changed (PROC-20).

    [title] [summary] [keywords]        in French and English
    audience, themes, administration    who may create it, where it is found, who gets it
    [[step]]  [[step.field]]            the assistant: steps with instructions, fields with a type and limits
    [[piece]]                           supporting documents, required always or when an answer says so
    [[route]]                           an answer with which another administration gets it (SUB-04)

A field, a required piece or a route may depend on an earlier answer (`when`). Every mistake of a file is named, all at once.
"""

import tomllib
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from portal_adapter.form.coverage import undrawable


def _drawable(text: str) -> str:
    if missing := undrawable(text):
        raise ValueError(f"the document cannot show {' '.join(f'U+{ord(c):04X}' for c in missing)}")
    return text


Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,59}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000), AfterValidator(_drawable)]
# What the form of a step has beside its answers: no field is called so.
RESERVED = frozenset({"csrf", "form", "version", "go", "confirmed"})
TEXT_MOST = 4000  # characters of an answer, whatever a definition says: the form must fit its page


class DefinitionError(Exception):
    """A definition cannot be used; the message has a line for each mistake."""


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Both(Part):
    """A text in both languages."""

    fr: Text
    en: Text

    def in_(self, language: str) -> str:
        return self.fr if language == "fr" else self.en


class Words(Part):
    fr: tuple[Text, ...] = ()
    en: tuple[Text, ...] = ()

    def in_(self, language: str) -> tuple[str, ...]:
        return self.fr if language == "fr" else self.en


class When(Part):
    """True while the answer to `field` is one of these."""

    field: Name
    is_: tuple[str, ...] = Field(alias="is", min_length=1)


class Choice(Part):
    value: Name
    label: Both


class Question(Part):
    """
    One field. `least` and `most` are characters of a text, or the bounds of a number; `prefill` names what fills it on
    creation; `shareable` says that another administration may be shown the answer, where a rule allows it.
    """

    id: Name
    type: Literal["text", "lines", "whole", "date", "email", "phone", "iban", "choice", "yes_no"]
    label: Both
    hint: Both | None = None
    required: bool = True
    least: int | None = None
    most: int | None = None
    not_before: date | None = None
    not_after: date | None = None
    choices: tuple[Choice, ...] = ()
    when: When | None = None
    prefill: Name | None = None
    shareable: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.id in RESERVED:
            raise ValueError(f"no field is called {self.id}: the form itself has that name")
        if (self.type == "choice") is not bool(self.choices):
            raise ValueError("choices belong to the type choice, and it needs them")
        if self.type in {"text", "lines"}:
            if self.most is None or not 1 <= self.most <= TEXT_MOST:
                raise ValueError(f"a text needs most, from 1 to {TEXT_MOST} characters")
        elif self.type == "whole":
            if self.least is None or self.most is None or self.least > self.most:
                raise ValueError("a whole number needs least and most, in order")
        elif self.least is not None or self.most is not None:
            raise ValueError(f"least and most mean nothing to the type {self.type}")
        if self.type != "date" and (self.not_before or self.not_after):
            raise ValueError(f"not_before and not_after mean nothing to the type {self.type}")
        return self


class Step(Part):
    id: Name
    title: Both
    instructions: Both
    field: tuple[Question, ...] = Field(min_length=1)


class Piece(Part):
    """A supporting document. Without `when` it is required always; `optional` ones are only offered."""

    type: Name
    label: Both
    when: When | None = None
    optional: bool = False


class Route(Part):
    """Who gets it while an answer says so; the first one that holds."""

    administration: Slug
    when: When


class Definition(Part):
    name: Slug
    version: int = Field(ge=1)
    withdrawn: bool = False
    title: Both
    summary: Both
    keywords: Words = Words()
    themes: tuple[Slug, ...] = Field(min_length=1)
    audience: Literal["private", "business", "both"]
    administration: Slug
    requires_certified_space: bool = False
    messaging: bool = False
    signatures: Literal[1, 2] = 1
    step: tuple[Step, ...] = Field(min_length=1)
    piece: tuple[Piece, ...] = ()
    route: tuple[Route, ...] = ()

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        seen: dict[str, Question] = {}
        for question in self.questions():
            if question.id in seen:
                raise ValueError(f"field {question.id} is there twice")
            if question.when is not None:
                _check_when(question.when, seen, f"field {question.id}")
            seen[question.id] = question
        types = [piece.type for piece in self.piece]
        if len(set(types)) < len(types):
            raise ValueError("a piece is there twice")
        for piece in self.piece:
            if piece.when is not None:
                _check_when(piece.when, seen, f"piece {piece.type}")
        for route in self.route:
            _check_when(route.when, seen, f"the route to {route.administration}")
        return self

    def questions(self) -> Iterator[Question]:
        for step in self.step:
            yield from step.field

    def administrations(self) -> tuple[str, ...]:
        """Whoever may get it: first where it goes unless an answer says otherwise."""
        return tuple(dict.fromkeys((self.administration, *(route.administration for route in self.route))))

    def suits(self, kind: str) -> bool:
        """Whether a space of this kind may create it (ESP-19)."""
        return self.audience in {kind, "both"}


def _check_when(when: When, earlier: Mapping[str, Question], where: str) -> None:
    """What something depends on is asked before it, and has such answers."""
    found = earlier.get(when.field)
    if found is None:
        raise ValueError(f"{where} depends on {when.field}, which is not asked before")
    if found.type == "choice":
        possible = {choice.value for choice in found.choices}
    elif found.type == "yes_no":
        possible = {"yes", "no"}
    else:
        raise ValueError(f"{where} depends on {when.field}, which is neither a choice nor yes or no")
    if unknown := set(when.is_) - possible:
        raise ValueError(f"{where} depends on an answer that {when.field} cannot have: {', '.join(sorted(unknown))}")


def load(path: Path) -> Definition:
    """Raises `DefinitionError`."""
    try:
        table: Any = tomllib.loads(path.read_text())
        return Definition.model_validate(table)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DefinitionError(f"{path}: {error}") from None
    except ValidationError as error:
        raise DefinitionError("\n".join(mistakes_of(path, error))) from None


def mistakes_of(path: Path, error: ValidationError) -> list[str]:
    """A line for each."""
    return [
        f"{path}: {'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg'].removeprefix('Value error, ')}"
        for one in error.errors()
    ]
