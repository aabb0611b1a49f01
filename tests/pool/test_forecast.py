"""When would it be done? What is compared where several could do it. Pure."""

from pool.backlog import Backlog
from pool.forecast import done_in_s
from pool.lane import HALF_BELIEVED_S, Lane, State
from pool.work import SHORT_ITEMS_MAX
from tests.pool.rig import RSA, work

NOW = 100.0
KIND = ("k", RSA)


def a_lane(item_s: float | None = None, age_s: float = 0.0, busy_s: float = 0.0) -> Lane:
    lane = Lane("token", 0, state=State.IDLE, keys=frozenset({"k"}), busy_until=NOW + busy_s)
    if item_s is not None:
        lane.item_s, lane.measured_at = {KIND: item_s}, {KIND: NOW - age_s}
    return lane


def soon(lane: Lane, count: int = SHORT_ITEMS_MAX, waiting: int = 0) -> float:
    backlog = Backlog()
    if waiting:
        backlog.add(work(waiting))
    return done_in_s(KIND, count, "a", backlog, [lane], NOW)


def test_what_was_never_measured_is_asked_first() -> None:
    """By a short request, before the fastest that is known; and no more once it has something or something waits for it."""
    known = soon(a_lane(0.00005))
    assert soon(a_lane()) == 0.0 < known
    assert soon(a_lane(busy_s=0.04)) > known
    assert soon(a_lane(), waiting=40) > known


def test_who_was_slow_once_is_asked_again() -> None:
    """One slow measurement, at a moment when the machine stood still, does not keep a member from short requests for good."""
    fast = soon(a_lane(0.0001))
    assert soon(a_lane(0.010)) > fast
    assert soon(a_lane(0.010, age_s=8 * HALF_BELIEVED_S)) < fast


def test_bulk_goes_to_whom_is_known_for_fast() -> None:
    """
    Thousands of digests are no attempt: who was slow, however long ago, is taken for as slow, and who was never measured
    comes behind it; of several such the one that has less to do.
    """
    count = SHORT_ITEMS_MAX + 1
    fast, card = soon(a_lane(0.0001), count), soon(a_lane(0.185, age_s=20 * HALF_BELIEVED_S), count)
    assert fast < card == count * 0.185 < soon(a_lane(), count) < soon(a_lane(busy_s=0.5), count)
    assert soon(a_lane(0.185, busy_s=100.0), 1_000_000) < soon(a_lane(), 1_000_000)


def test_what_a_lane_has_comes_first() -> None:
    """An idle one that is a little slower is done sooner than a fast one at work."""
    assert soon(a_lane(0.0001, busy_s=0.02)) > soon(a_lane(0.0002))
