"""The requirements, the routes, the tests and the list of them say the same."""

import re

import pytest

from portal_adapter.refusal import CODES
from portal_adapter.web.routes import ROUTES
from portal_adapter.web.views.cards import CARDS_ROUTES
from tests.portal.requirement_list import (
    LIST,
    PARTS,
    by_test,
    ids_at_the_beginning,
    ids_of,
    refusals,
    rows,
    sentences,
    waiting,
    written,
)

ROWS = rows()


def test_the_list_is_the_one_that_there_is() -> None:
    """`python -m tests.portal.requirement_list` writes it."""
    assert LIST.read_text() == written(), "python -m tests.portal.requirement_list writes it anew"


def test_no_route_or_test_names_a_requirement_that_there_is_not() -> None:
    """Each id of a route, and at the beginning of a test's docstring, has its sentence."""
    known = sentences().keys()
    for route in (*ROUTES, *CARDS_ROUTES):
        assert set(route.requirements) <= known, (route.path, set(route.requirements) - known)
    assert by_test().keys() <= known, by_test().keys() - known


def test_every_rule_has_a_test_or_says_what_it_waits_for() -> None:
    """A rule without a test names its part; how many wait for which stands at the end of what pytest prints."""
    assert [row.id for row in ROWS if not row.tests and not row.part] == []
    assert {row.part for row in ROWS if row.part} <= set(PARTS)
    said = waiting()
    assert said.startswith(f"{len(ROWS)} rules")
    assert sum(map(int, re.findall(r"(\d+) wait for", said))) == sum(bool(row.part) for row in ROWS)


def test_every_code_of_a_refusal_has_its_row() -> None:
    """0.1: the contract's codes are those of the program."""
    assert set(refusals()) == set(CODES)


@pytest.mark.parametrize(
    ("docstring", "ids"),
    [
        ("ESP-23: an invitation.", ["ESP-23"]),
        ("TOK-06, TOK-15: both\n    of them.", ["TOK-06", "TOK-15"]),
        ("ESP-07, row 6.2, 0.1: a race.", ["ESP-07", "0.1"]),
        ("ESP-07 to ESP-09, UI-01: all of them.", ["ESP-07", "ESP-08", "ESP-09", "UI-01"]),
        ("As ESP-07 says: so.", []),
        ("ESP-07 without a colon", []),
        ("", []),
    ],
)
def test_what_a_docstring_begins_with(docstring: str, ids: list[str]) -> None:
    """Ids before the first colon, between commas."""
    assert ids_at_the_beginning(docstring) == ids


def test_ranges_of_ids() -> None:
    """'ESP-01 to ESP-03' names three."""
    assert set(ids_of("(ESP-01 to ESP-03, UI-02)")) == {"ESP-01", "ESP-02", "ESP-03", "UI-02"}
