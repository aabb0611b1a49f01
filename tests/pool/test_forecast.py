"""When would it be done? What is compared where several could do it. Pure."""

from pool.backlog import Backlog
from pool.forecast import done_in_s
from pool.lane import HALF_BELIEVED_S, Lane, State
from tests.pool.rig import RSA, work

NOW = 100.0
KIND = ("k", RSA)


def a_lane(item_s: float | None = None, age_s: float = 0.0, busy_s: float = 0.0) -> Lane:
    lane = Lane("token", 0, state=State.IDLE, keys=frozenset({"k"}), busy_until=NOW + busy_s)
    if item_s is not None:
        lane.item_s, lane.measured_at = {KIND: item_s}, {KIND: NOW - age_s}
    return lane


def soon(lane: Lane, count: int = 40, waiting: int = 0) -> float:
    backlog = Backlog()
    if waiting:
        backlog.add(work(waiting))
    return done_in_s(KIND, count, "a", backlog, [lane], NOW)


def test_what_was_never_measured_is_asked_first() -> None:
    """Before the fastest that is known, whatever the size; and no more once it has something or something waits for it."""
    known = soon(a_lane(0.00005), count=40)
    assert soon(a_lane(), count=40) == 0.0 < known
    assert soon(a_lane(busy_s=0.04)) > known
    assert soon(a_lane(), waiting=40) > known


def test_who_was_slow_once_is_asked_again() -> None:
    """One slow measurement, at a moment when the machine stood still, does not keep a member from work for good."""
    fast = soon(a_lane(0.0001))
    assert soon(a_lane(0.010)) > fast
    assert soon(a_lane(0.010, age_s=8 * HALF_BELIEVED_S)) < fast


def test_what_a_lane_has_comes_first() -> None:
    """An idle one that is a little slower is done sooner than a fast one at work."""
    assert soon(a_lane(0.0001, busy_s=0.02)) > soon(a_lane(0.0002))
