"""The planted defects can still be planted; which seed finds each is asked by `python -m tests.simulation.mutants`."""

import pytest

from tests.simulation.mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_each_has_its_place(mutant: Mutant) -> None:
    """Code that has moved on would leave a defect that nothing looks for any more."""
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
