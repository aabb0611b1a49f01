"""Answers as people read them: the one object that the check page, JSON and the document show."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal_adapter.definitions.answers import visible
from portal_adapter.definitions.catalogue import SHIPPED
from portal_adapter.definitions.definition import load
from portal_adapter.definitions.sheet import NOTHING, sheet
from portal_adapter.language import LANGUAGES, Language

ADDRESS = load(SHIPPED / "change-of-address-1.toml")
PERMIT = load(SHIPPED / "operating-permit-1.toml")
FRENCH, ENGLISH = (Language(code, "Europe/Luxembourg") for code in ("fr", "en"))
GOOD = {
    "given": "Ada", "family": "Lovelace", "street": "12 Mill Lane", "postcode": "L-1234", "town": "Millbrook",
    "since": "2026-11-01", "tenure": "tenant",
}  # fmt: skip


def lines(made):
    return {line.field: (line.label, line.value) for step in made.steps for line in step.lines}


def test_answers_are_as_people_of_the_language_write_them() -> None:
    """PROC-13: a choice is shown by its label, a date written out, what is empty and may be as a dash."""
    assert lines(sheet(ADDRESS, GOOD, FRENCH)) == {
        "given": ("Prénom(s)", "Ada"),
        "family": ("Nom(s)", "Lovelace"),
        "phone": ("Téléphone", NOTHING),
        "street": ("Numéro et rue", "12 Mill Lane"),
        "postcode": ("Code postal", "L-1234"),
        "town": ("Localité", "Millbrook"),
        "since": ("Date du déménagement", "1 novembre 2026"),
        "tenure": ("Vous êtes", "locataire"),
    }
    english = lines(sheet(ADDRESS, {**GOOD, "tenure": "guest", "host": "Bo"}, ENGLISH))
    assert (english["since"][1], english["tenure"][1]) == ("1 November 2026", "somebody’s guest")
    assert english["host"] == ("Name of your host", "Bo")
    assert [lines(sheet(PERMIT, {"waste": "no"}, one))["waste"][1] for one in (FRENCH, ENGLISH)] == ["Non", "No"]


def test_supporting_documents_are_those_that_the_answers_call_for() -> None:
    """ATT-03: of each compulsory one its label; optional ones are not asked for."""
    assert sheet(ADDRESS, GOOD, FRENCH).pieces == ("Contrat de bail",)
    assert sheet(ADDRESS, {**GOOD, "tenure": "owner"}, FRENCH).pieces == ()
    assert sheet(PERMIT, {"waste": "yes"}, ENGLISH).pieces == (
        "Plan of the site", "Extract of the commercial register", "Contract for the waste’s removal",
    )  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
@given(answers=st.dictionaries(st.sampled_from([q.id for q in ADDRESS.questions()]), st.text(max_size=20)))
def test_whatever_was_typed_is_shown(language, answers) -> None:
    """PROC-13: every question that is asked has its line, in order, with what was typed where that is no answer of its kind."""
    made = sheet(ADDRESS, answers, Language(language, "Europe/Luxembourg"))
    assert list(lines(made)) == [question.id for question in visible(ADDRESS, answers)]
    for line in (line for step in made.steps for line in step.lines):
        typed = answers.get(line.field, "")
        if line.field not in {"tenure", "since"}:
            assert line.value == (typed or NOTHING)
    shown = lines(made)["since"][1]
    try:
        date.fromisoformat(answers.get("since", ""))
    except ValueError:
        assert shown == (answers.get("since") or NOTHING)
