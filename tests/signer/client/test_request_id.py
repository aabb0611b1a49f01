"""New request ids: what RFC 9562 says of version 7, and that they grow with the time."""

import ast
import time
import uuid
from pathlib import Path

import pytest

from signer.request_id import new_request_id
from signer.requests import request_id


def test_a_new_one_is_of_version_7(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9562, 5.7: the time in milliseconds, the version, the variant; the service takes it as it is."""
    monkeypatch.setattr(time, "time_ns", lambda: 1_764_288_000_123_999_999)
    text = new_request_id()
    made = uuid.UUID(text)
    assert request_id(text) == text == str(made)
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == 1_764_288_000_123


def test_ids_are_unlike_each_other_and_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a millisecond in any order; those of a later one come behind, as long as the clock goes forward."""
    ticks = iter(range(10**18, 2 * 10**18, 250_000))
    monkeypatch.setattr(time, "time_ns", lambda: next(ticks))
    made = [uuid.UUID(new_request_id()) for _ in range(20_000)]
    assert len(set(made)) == len(made)
    times = [one.int >> 80 for one in made]
    assert times == sorted(times)
    assert len(set(times)) == len(made) // 4
    random = [one.int & ((1 << 76) - 1) for one in made]
    for bit in {*range(62), *range(64, 76)}:  # each of the 74 is one as often as not
        assert 0.45 < sum(one >> bit & 1 for one in random) / len(random) < 0.55, bit


ROOT = Path(__file__).parents[3]


def test_whoever_asks_makes_its_ids_so() -> None:
    """Nothing of ours names a request in another way: where a UUID is made at random, it is no request id."""
    found = set()
    for package in ("signer", "portal_adapter"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and node.attr in {"uuid1", "uuid4"}:
                    found.add(str(path.relative_to(ROOT)))
    assert found == {
        "signer/request_id.py",
        "signer/postgresql.py",  # an instance's name
        "signer/sqlite.py",  # the same
        "signer/queued.py",  # a message's
        "portal_adapter/files/blobs.py",  # a file's
        "portal_adapter/domain/ids.py",  # in addresses of pages
    }
