"""The fault list and the tests say the same."""

import pytest

from tests.fault_list import LAST, LIST, NOT_INJECTED, TESTS, Row, by_fault, faults_of, rows, written

ROWS = rows(LIST.read_text())


def test_every_fault_has_its_row() -> None:
    """One row for each number, in order."""
    assert [row.number for row in ROWS] == [f"F{number}" for number in range(1, LAST + 1)]


def test_the_tests_are_those_that_there_are() -> None:
    """
    A row names each test whose docstring begins with its number, and no other: `python -m tests.fault_list` writes them.
    A docstring with a number that no row has fails.
    """
    assert set(by_fault()) <= {row.number for row in ROWS}
    assert written(LIST.read_text()) == LIST.read_text(), "python -m tests.fault_list writes it anew"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.number)
def test_a_row_has_tests_or_says_why_not(row: Row) -> None:
    """Row 3.4: every fault is a test, by its name and with the answer that was given; or it says why it is 'not injected'."""
    assert bool(row.tests) != row.given.startswith(NOT_INJECTED), (
        "a test came, or went: say in the last column what is given"
    )
    for test in row.tests:
        file, name = test.split("::")
        assert f"def {name}(" in (TESTS / file).read_text()


@pytest.mark.parametrize(
    ("docstring", "faults"),
    [
        ("F9: a crash.", ["F9"]),
        ("F1, F5: both\n    of them.", ["F1", "F5"]),
        ("F11, row 2.4: a hang.", ["F11"]),
        ("Row 2.4: a hang, see F11: there.", []),
        ("F12: a hang. F19: and what it has cost.", ["F12", "F19"]),
        ("It is like F9, F10: a crash.", []),
        ("", []),
    ],
)
def test_what_a_docstring_begins_with(docstring: str, faults: list[str]) -> None:
    """Numbers at the beginning of a sentence, before its colon."""
    assert faults_of(docstring) == faults
