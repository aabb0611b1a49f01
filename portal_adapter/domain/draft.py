"""
One step of a form as somebody has sent it: what of it is well-formed, and what is wrong with the rest (PROC-10, PROC-11).

Only answers of this step are taken, and one that was not sent stays as it is: so a program sends what it wants to change.
What is empty is no mistake before the confirmation.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from portal_adapter.definitions.answers import Answers, mistake, normal, visible
from portal_adapter.definitions.definition import RESERVED, Definition, Question, Step
from portal_adapter.domain.procedure import CHECK
from portal_adapter.refusal import FieldError


@dataclass(frozen=True, slots=True)
class Draft:
    """`answers` are all of the form, with what could be taken; `errors` tell of the others."""

    answers: dict[str, str]
    errors: list[FieldError]


def read(definition: Definition, step: Step, before: Answers, form: Mapping[str, str]) -> Draft:
    """`before` are the answers that are stored."""
    questions = {question.id: question for question in step.field}
    typed = {id_: normal(question, form[id_]) for id_, question in questions.items() if id_ in form}
    wrong = {id_: error for id_, value in typed.items() if (error := mistake(questions[id_], value)) is not None}
    answers = {**before, **{id_: value for id_, value in typed.items() if id_ not in wrong}}
    shown = {question.id for question in visible(definition, answers)}
    errors = [error for id_, error in wrong.items() if id_ in shown]
    errors += [
        FieldError(name, "unknown", "There is no such field here.")
        for name in form
        if name not in questions.keys() | RESERVED
    ]
    return Draft({id_: value for id_, value in answers.items() if value}, errors)


def shown_in(definition: Definition, step: Step, answers: Answers) -> list[Question]:
    """The fields of a step that are asked."""
    asked = {question.id for question in visible(definition, answers)}
    return [question for question in step.field if question.id in asked]


def steps_shown(definition: Definition, answers: Answers) -> list[Step]:
    """Those that ask anything."""
    return [step for step in definition.step if shown_in(definition, step, answers)]


def after(definition: Definition, step: Step, answers: Answers) -> str:
    """The id of the next step that asks anything; `CHECK` after the last one."""
    rest = definition.step[definition.step.index(step) + 1 :]
    return next((one.id for one in rest if shown_in(definition, one, answers)), CHECK)


def before(definition: Definition, step: Step, answers: Answers) -> str:
    """The one that comes before it; itself, if it is the first."""
    earlier = definition.step[: definition.step.index(step)]
    return next((one.id for one in reversed(earlier) if shown_in(definition, one, answers)), step.id)
