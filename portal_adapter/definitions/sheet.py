"""
What a person has answered, ready to be read: the check page, JSON and the document all show this one object.

    sheet(definition, answers, language)     steps with their lines, and the supporting documents that the answers call for
"""

from dataclasses import dataclass

from portal_adapter.definitions.answers import Answers, required_pieces, visible
from portal_adapter.definitions.definition import Definition
from portal_adapter.definitions.shown import shown
from portal_adapter.language import Language

NOTHING = "—"  # where an answer may be empty, and is


@dataclass(frozen=True, slots=True)
class Line:
    """One question that is asked, by its id, and what was answered as people read it."""

    field: str
    label: str
    value: str


@dataclass(frozen=True, slots=True)
class SheetStep:
    step: str
    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Sheet:
    definition: str
    version: int
    title: str
    steps: tuple[SheetStep, ...]  # without those of which nothing is asked
    pieces: tuple[str, ...]  # compulsory supporting documents, by their labels


def sheet(definition: Definition, answers: Answers, language: Language) -> Sheet:
    asked = {question.id for question in visible(definition, answers)}
    steps = []
    for step in definition.step:
        lines = tuple(
            Line(
                question.id,
                question.label.in_(language.code),
                shown(question, answers.get(question.id, ""), language) or NOTHING,
            )
            for question in step.field
            if question.id in asked
        )
        if lines:
            steps.append(SheetStep(step.id, step.title.in_(language.code), lines))
    pieces = tuple(piece.label.in_(language.code) for piece in required_pieces(definition, answers))
    return Sheet(definition.name, definition.version, definition.title.in_(language.code), tuple(steps), pieces)
