"""What the portal takes of a machine, in a small size; `make soak PART=portal` is the full one."""

import pytest

from tests.portal import load_codes
from tests.portal.load import measured
from tests.portal.real import Real


@pytest.mark.alone
def test_pages_come_quickly_and_weigh_little() -> None:
    """UI-01: at 20 pages a second p95 is 50 ms of every page; 60 kB a page; up in 2 s, with 120 MB."""
    print(measured(6))


@pytest.mark.alone
def test_codes_are_answered_quickly(real: Real) -> None:
    """UI-01: beside 20 pages a second, whose p95 stays 50 ms, who types her codes has the answer within 300 ms."""
    print(load_codes.measured(real, 21))
