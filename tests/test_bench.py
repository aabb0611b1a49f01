"""What the bench reckons by itself, where a wrong sum would flatter us."""

import pytest

from bench.latency import added_ms

LANE = [(0.0, 0.2), (0.2, 0.4), (0.4, 0.6)]  # three signatures, one after the other


@pytest.mark.parametrize(
    ("case", "call", "expected"),
    [
        ("the rest of the first and its own are the token's", (0.01, 0.405), 5.0),
        ("its own alone, where none was under way", (0.2, 0.41), 10.0),
        ("one more that it had to wait for is ours", (0.01, 0.605), 205.0),
        ("the time before the first is ours", (-0.1, 0.205), 105.0),
    ],
)
def test_a_card_s_signatures_are_no_time_of_ours(case: str, call: tuple[float, float], expected: float) -> None:
    assert added_ms([call], LANE) == pytest.approx([expected]), case
