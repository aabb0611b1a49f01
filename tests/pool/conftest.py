"""No test of the pool leaves a process behind, however it ends."""

from collections.abc import Iterator

import pytest

from tests.pool.rig import children


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    left = children()
    for child in left:
        child.kill()
    assert not left, f"lanes or probes outlived their pool: {left}"
