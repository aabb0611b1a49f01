"""Procedure definitions: their files, their answers, the catalogue."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal_adapter.definitions import answers, catalogue
from portal_adapter.definitions.catalogue import SHIPPED, Catalogue
from portal_adapter.definitions.definition import DefinitionError, load
from portal_adapter.domain import draft

SHIPPED_FILES = sorted(SHIPPED.glob("*.toml"))
ADDRESS = load(SHIPPED / "change-of-address-1.toml")
LEASE = load(SHIPPED / "transfer-of-lease-1.toml")
GOOD = {
    "given": "Ada", "family": "Lovelace", "street": "12 Mill Lane", "postcode": "L-1234", "town": "Millbrook",
    "since": "2026-11-01", "tenure": "tenant",
}  # fmt: skip


def _routed(when: str) -> tuple[str, str]:
    """The change that makes an answer send it to the moon."""
    return '[[step]]\nid = "person"', f'[[route]]\nadministration = "moon"\n{when}\n\n[[step]]\nid = "person"'


def errors(definition, given):
    return [(one.field, one.code) for one in answers.check_whole(definition, given)]


@pytest.mark.parametrize("path", SHIPPED_FILES, ids=lambda path: path.stem)
def test_what_is_shipped_can_be_used(path: Path) -> None:
    """PROC-03: three definitions are shipped (private, business with required pieces, double signature); each file is named by its name and version."""
    found = load(path)
    assert path.stem == f"{found.name}-{found.version}"
    assert {"private", "business", "both"} == {load(one).audience for one in SHIPPED_FILES}
    assert any(load(one).signatures == 2 for one in SHIPPED_FILES)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('audience = "private"', 'audience = "anybody"'), "audience"),
        (("version = 1", "version = 1\ncolour = 2"), "colour"),
        (('id = "family"', 'id = "given"'), "there twice"),
        (('id = "family"', 'id = "version"'), "no field is called version"),
        (
            ('when = { field = "tenure", is = ["guest"] }', 'when = { field = "nowhere", is = ["guest"] }'),
            "not asked before",
        ),
        (('when = { field = "tenure", is = ["guest"] }', 'when = { field = "tenure", is = ["squatter"] }'), "squatter"),
        (
            ('when = { field = "tenure", is = ["guest"] }', 'when = { field = "street", is = ["guest"] }'),
            "neither a choice",
        ),
        (("most = 100", "most = 100000"), "most"),
        (('type = "phone"', 'type = "phone"\nleast = 3'), "mean nothing"),
        (('type = "date"', 'type = "choice"'), "choices"),
        (('themes = ["family", "housing"]', "themes = []"), "themes"),
        (_routed('when = { field = "street", is = ["x"] }'), "the route to moon depends on street"),
        (_routed('when = { field = "tenure", is = ["squatter"] }'), "squatter"),
        (_routed(""), "route.0.when"),
    ],
)
def test_a_file_names_its_mistakes(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    """PROC-10: a definition that does not hang together is refused at the start, and its file says where."""
    text = (SHIPPED / "change-of-address-1.toml").read_text()
    assert change[0] in text
    (tmp_path / "bad.toml").write_text(text.replace(*change, 1))
    with pytest.raises(DefinitionError, match=said) as raised:
        load(tmp_path / "bad.toml")
    assert "bad.toml" in str(raised.value)


def test_a_whole_form_has_no_mistakes() -> None:
    """PROC-13: confirming needs a complete and valid form."""
    assert errors(ADDRESS, GOOD) == []


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("street", "", "required"),
        ("street", "x" * 121, "too_long"),
        ("postcode", "1", "too_short"),
        ("since", "1999-12-31", "date_early"),
        ("since", "end of 2026", "date_invalid"),
        ("since", "2026-02-30", "date_invalid"),
        ("tenure", "squatter", "unknown"),
        ("phone", "12", "phone_invalid"),
        ("town", "Mill\x00brook", "control_characters"),
    ],
)
def test_a_wrong_answer_has_its_mistake(field: str, value: str, code: str) -> None:
    """PROC-10: type and limit of each field are checked, by themselves and as a whole."""
    assert errors(ADDRESS, {**GOOD, field: value}) == [(field, code)]


def test_what_is_empty_does_not_block_a_draft() -> None:
    """PROC-11: while a step is filled in, missing mandatory fields are no mistake, ill-typed values are."""
    [_, step] = ADDRESS.step
    given = {"street": "12 Mill Lane"}
    empty = draft.read(ADDRESS, step, given, {"since": ""})
    assert (empty.answers, empty.errors) == (given, [])
    wrong = draft.read(ADDRESS, step, given, {"since": "soon", "town": "Millbrook"})
    assert wrong.answers == {**given, "town": "Millbrook"}
    assert [(one.field, one.code) for one in wrong.errors] == [("since", "date_invalid")]


def test_hidden_questions_are_neither_asked_nor_kept() -> None:
    """PROC-10: a field whose condition is false is not mandatory, and its answer is not kept at confirmation."""
    assert errors(ADDRESS, {**GOOD, "tenure": "guest"}) == [("host", "required")]
    assert "host" not in answers.kept(ADDRESS, {**GOOD, "host": "Babbage"})
    assert answers.kept(ADDRESS, {**GOOD, "tenure": "guest", "host": "Babbage"})["host"] == "Babbage"


def test_required_pieces_follow_from_the_answers() -> None:
    """ATT-03: one slot for each required piece, computed from the answers."""
    assert [one.type for one in answers.required_pieces(ADDRESS, GOOD)] == ["lease"]
    assert [one.type for one in answers.required_pieces(ADDRESS, {**GOOD, "tenure": "guest"})] == ["host_statement"]
    assert answers.required_pieces(ADDRESS, {**GOOD, "tenure": "owner"}) == []


@pytest.mark.parametrize(
    ("typed", "kept"),
    [("LU28 0019 4006 4475 0000", []), ("LU28 0019 4006 4475 0001", ["iban_invalid"]), ("LU28", ["iban_invalid"])],
)
def test_an_account_number_has_its_check_digits(typed: str, kept: list[str]) -> None:
    """PROC-10: an IBAN is taken with blanks, and refused where a digit is wrong (ISO 7064)."""
    question = next(one for one in LEASE.questions() if one.type == "iban")
    value = answers.normal(question, typed)
    found = answers.mistake(question, value)
    assert ([found.code] if found else []) == kept


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.text(max_size=5)))
def test_the_canonical_form_knows_a_real_change_only(given_answers: dict[str, str]) -> None:
    """PROC-14: blanks at the ends, order and empty answers are no change; another text is."""
    same = {key: f" {value} " for key, value in reversed(given_answers.items())} | {"empty": ""}
    assert answers.canonical(same) == answers.canonical(given_answers)
    assert answers.canonical({**given_answers, "a": given_answers.get("a", "") + "x"}) != answers.canonical(
        given_answers
    )


def test_the_catalogue_is_searched_by_words_and_theme() -> None:
    """PROC-04, PROC-05: whatever case and accents; both means combine; only what suits the space's kind is listed."""
    found = Catalogue.read(SHIPPED)

    def names(kind: str, language: str = "fr", **more: str) -> list[str]:
        return [one.name for one in found.search(kind, language, **more)]

    assert names("private") == ["transfer-of-lease", "change-of-address"]
    assert names("private", "en") == ["change-of-address", "transfer-of-lease"]
    assert names("private", words="DEMENAGEMENT") == ["change-of-address"]
    assert names("business", words="établissement classe") == ["operating-permit"]
    assert names("private", theme="housing", words="bail") == ["transfer-of-lease"]
    assert names("private", words="nothing of the kind") == []
    assert found.themes("business") == ["housing", "business", "environment"]


def test_versions_stay_and_the_newest_is_created(tmp_path: Path) -> None:
    """PROC-20: a draft keeps the version it was created with, also when a newer one is there or it is withdrawn."""
    text = (SHIPPED / "change-of-address-1.toml").read_text()
    (tmp_path / "one.toml").write_text(text)
    (tmp_path / "two.toml").write_text(text.replace("version = 1", "version = 2\nwithdrawn = true", 1))
    found = catalogue.Catalogue.read(tmp_path)
    assert found.current("change-of-address") is None
    assert found.version("change-of-address", 1).version == 1
    (tmp_path / "three.toml").write_text(text)
    with pytest.raises(DefinitionError, match="twice"):
        catalogue.Catalogue.read(tmp_path)
