"""A procedure's answers as a paper: what the person confirms, signs and sends."""

from dataclasses import dataclass

from portal_adapter.definitions.answers import Answers
from portal_adapter.definitions.definition import Definition
from portal_adapter.definitions.sheet import sheet
from portal_adapter.form.paper import Paper, Part, legible
from portal_adapter.language import Language


@dataclass(frozen=True, slots=True)
class Head:
    """Whose declaration it is. `moment` is that of the confirmation, in seconds: the same arguments make the same bytes."""

    portal: str
    reference: str
    space: str
    person: str
    moment: int


def declaration(definition: Definition, answers: Answers, language: Language, head: Head) -> Paper:
    """The answers have been checked; in them nothing is replaced (`coverage.undrawable`)."""
    shown = sheet(definition, answers, language)
    parts = [Part(step.title, tuple((line.label, line.value) for line in step.lines)) for step in shown.steps]
    if shown.pieces:
        pieces = tuple(("", piece) for piece in shown.pieces)
        parts.append(Part(language.text("Supporting documents to be attached"), pieces))
    return Paper(
        language=language.code,
        portal=legible(head.portal),
        title=shown.title,
        subject=f"{shown.title} · {legible(head.reference)}",
        moment=head.moment,
        head=(
            (language.text("Reference"), legible(head.reference)),
            (language.text("Space"), legible(head.space)),
            (language.text("Filled in by"), legible(head.person)),
            (language.text("Confirmed"), language.moment(head.moment)),
        ),
        parts=tuple(parts),
        foot=language.text("{name}, version {version}", name=shown.definition, version=shown.version),
    )
