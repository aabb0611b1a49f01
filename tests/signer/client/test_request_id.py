"""New request ids: what RFC 9562 says of version 7, and that they grow with the time."""

import time
import uuid

from signer.request_id import new_request_id
from signer.requests import request_id


def test_a_new_one_is_of_version_7() -> None:
    """RFC 9562, 5.7: the time in milliseconds, the version, the variant; the service takes it as it is."""
    before = time.time_ns() // 1_000_000
    text = new_request_id()
    after = time.time_ns() // 1_000_000
    made = uuid.UUID(text)
    assert request_id(text) == text == str(made)
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before <= made.int >> 80 <= after


def test_ids_are_unlike_each_other_and_grow() -> None:
    """Within a millisecond in any order; those of a later one come behind."""
    made = [uuid.UUID(new_request_id()) for _ in range(20_000)]
    assert len(set(made)) == len(made)
    times = [one.int >> 80 for one in made]
    assert times == sorted(times)
    random = [one.int & ((1 << 76) - 1) for one in made]
    for bit in {*range(62), *range(64, 76)}:  # each of the 74 is one as often as not
        assert 0.45 < sum(one >> bit & 1 for one in random) / len(random) < 0.55, bit
