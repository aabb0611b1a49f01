"""Which request ids a restore has burnt, and for how long."""

import time
import uuid

import pytest

from signer.burnt_ids import CLOCK_S, BurntIds
from signer.ledger import KEEP_S
from signer.request_id import new_request_id
from tests.signer.ledger.ids import made_at

RESTORED = 1_800_000_000.0


@pytest.mark.parametrize(
    ("made", "burnt"), [(-KEEP_S * 9, True), (-1, True), (0, True), (CLOCK_S, True), (CLOCK_S + 0.001, False)]
)
def test_what_was_made_before_the_restore(made: float, burnt: bool) -> None:
    """By the id's own time, and a little more, because clocks differ."""
    ids = BurntIds(RESTORED, lambda: RESTORED + 1)
    assert ids.has(uuid.UUID(made_at(RESTORED + made)).bytes) == burnt


def test_ids_that_do_not_say_when() -> None:
    """Random ones, and what only looks like a UUID of version 7 in one place, are never burnt."""
    ids = BurntIds(RESTORED, lambda: RESTORED + 1)
    old = uuid.UUID(made_at(RESTORED - 9))
    assert ids.has(old.bytes)
    for other in (uuid.uuid4(), uuid.uuid1(), uuid.UUID(int=old.int & ~(0xC << 60)), uuid.UUID(int=0)):
        assert not ids.has(other.bytes), other


def test_for_a_day() -> None:
    """As long as the answer would have been kept; and never without such a restore."""
    now = [RESTORED]
    old = uuid.UUID(made_at(RESTORED - 9)).bytes
    ids = BurntIds(RESTORED, lambda: now[0])
    now[0] = RESTORED + KEEP_S - 1
    assert ids.has(old)
    now[0] = RESTORED + KEEP_S
    assert not ids.has(old)
    assert not BurntIds(0.0, time.time).has(uuid.UUID(new_request_id()).bytes)
