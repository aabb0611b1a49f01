"""The checklist of OWASP ASVS 5.0 is whole, and says what is so."""

from collections import Counter

from tests.portal.asvs_list import CHAPTERS, LIST, exists, items, written

OF_LEVEL_3 = {"8.3.3", "7.5.3", "5.2.4", "15.4.2"}
# Of version 5.0.0: how many items of level 1, and of level 2, a chapter has; the four of level 3 are beside them.
LEVELS_1_2 = {
    1: (8, 19), 2: (4, 7), 3: (8, 11), 4: (2, 8), 5: (4, 5), 6: (13, 22), 7: (6, 12), 8: (4, 3), 9: (4, 3), 10: (5, 24),
    11: (3, 11), 12: (3, 6), 13: (1, 12), 14: (2, 7), 15: (3, 10), 16: (0, 16), 17: (0, 7),
}  # fmt: skip


def test_every_item_has_its_tests_or_its_reason() -> None:
    """
    Row 6.1: ASVS L2 checklist as code: each item of levels 1 and 2, and of level 3 8.3.3, 7.5.3, 5.2.4 and 15.4.2, has an
    automated test, or says why it does not apply.
    """
    found = items()
    assert {one.id for one in found if one.level == 3} == OF_LEVEL_3
    count = Counter((one.chapter, one.level) for one in found)
    assert {chapter: (count[chapter, 1], count[chapter, 2]) for chapter in CHAPTERS} == LEVELS_1_2
    order = [tuple(map(int, one.id.split("."))) for one in found]
    assert order == sorted(set(order)) and all(len(one) == 3 for one in order)
    for one in found:
        assert one.text.endswith("."), one.id
        assert sum(map(bool, (one.tests, one.not_applicable, one.missing))) == 1, one.id
        assert one.tests or not one.note, one.id
        assert len(set(one.tests)) == len(one.tests), one.id
        assert [test for test in one.tests if not exists(test)] == [], one.id


def test_a_test_that_there_is_not_is_found_out() -> None:
    """By its file, its name, and a name that is no test's."""
    assert exists("test_asvs.py::test_a_test_that_there_is_not_is_found_out")
    assert exists("tests/test_layers.py::test_imports_point_one_way")
    assert not exists("test_asvs.py::test_nothing")
    assert not exists("test_nothing.py::test_nothing")
    assert not exists("asvs_list.py::items")


def test_the_list_is_the_one_that_there_is() -> None:
    """`python -m tests.portal.asvs_list` writes it."""
    assert LIST.read_text() == written(), "python -m tests.portal.asvs_list writes it anew"
