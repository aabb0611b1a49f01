"""Answers as people read them: on pages, and in the form that is signed."""

from portal_adapter.definitions.definition import Question
from portal_adapter.domain.kinds import read_date
from portal_adapter.language import Language


def shown(question: Question, value: str, language: Language) -> str:
    """Whatever is no answer of the question's type stays as it was typed; '' without one."""
    match question.type:
        case "date" if read_date(value) == value:
            return language.date(value)
        case "yes_no" if value in {"yes", "no"}:
            return language.text("Yes") if value == "yes" else language.text("No")
        case "choice":
            return next((one.label.in_(language.code) for one in question.choices if one.value == value), value)
        case "iban":
            return " ".join(value[at : at + 4] for at in range(0, len(value), 4))
    return value
