"""When would it be done? What is compared where several could do it, and what is refused before it waits. Pure."""

import itertools
import random
from collections import Counter

import pytest

from pool import forecast
from pool.assign import Frame, assign
from pool.backlog import Backlog
from pool.errors import Busy
from pool.forecast import KINDS_LOOKED_AT, MARGIN, RETRY_LEAST_S, check, done_in_s, wait_s
from pool.lane import HALF_BELIEVED_S, Lane, State
from pool.work import SHORT_ITEMS_MAX, Work
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


def test_a_short_request_is_compared_by_its_own_turn() -> None:
    """A fast lane with bulk of the caller's does a short request before an idle card would; more bulk it does later."""
    backlog, fast, card = Backlog(), a_lane(0.001, busy_s=0.08), a_lane(0.5)
    backlog.add(work(5_000))
    assert done_in_s(KIND, 1, "a", backlog, [fast], NOW) < 0.03 < done_in_s(KIND, 1, "a", Backlog(), [card], NOW)
    assert done_in_s(KIND, SHORT_ITEMS_MAX + 1, "a", backlog, [fast], NOW) > 5


@pytest.mark.parametrize(("waiting", "limit_s"), [(0, 0.0), (9, 9 * 0.5), (100, 50.0)])
def test_a_short_request_waits_for_short_ones_alone(waiting: int, limit_s: float) -> None:
    """
    It is refused where those of its caller, each at its turn, would not leave it time; his bulk has a turn in four among
    them, and what others have waiting delays it by their share.
    """
    backlog, lane = Backlog(), a_lane(0.5)
    backlog.add(work(1000))
    for _ in range(waiting):
        backlog.add(work(1))
    wait_s = limit_s * 4 / 3
    least_s = (wait_s + 0.5) * MARGIN
    check(KIND, 1, "a", least_s + 0.1, backlog, [lane], NOW)
    if waiting:
        with pytest.raises(Busy) as busy:
            check(KIND, 1, "a", least_s - 0.1, backlog, [lane], NOW)
        assert busy.value.retry_s >= RETRY_LEAST_S
    check(KIND, 1, "b", 1.0, backlog, [lane], NOW)


def test_what_waits_at_other_lanes_is_no_reason() -> None:
    """
    A caller whose card has much to do is not refused at another card where nothing of his waits; nor for callers who wait
    somewhere else.
    """
    backlog = Backlog()
    backlog.lanes_of = lambda key: key
    lane = Lane("other", 0, state=State.IDLE, keys=frozenset({"other"}), item_s={("other", RSA): 0.5})
    for _ in range(10):
        backlog.add(work(1, caller="portal"))
    backlog.add(work(1000, caller="archive", key="other"))
    for timeout_s in (1.0, 10.0):
        check(("other", RSA), 1, "portal", timeout_s, backlog, [a_lane(0.5), lane], NOW)
    for name in "bcdefghij":
        backlog.add(work(1, caller=name))
    backlog.add(work(2, caller="portal", key="other"))
    check(("other", RSA), 1, "portal", 5.0, backlog, [a_lane(0.5), lane], NOW)
    with pytest.raises(Busy):
        check(("other", RSA), 1, "portal", 2.0, backlog, [a_lane(0.5), lane], NOW)


def test_what_waits_at_one_of_the_lanes_is_no_reason() -> None:
    """A lane that does not have the key of what waits is free for the caller's next request with another key."""
    hsm = Lane("hsm", 0, state=State.IDLE, keys=frozenset({"other"}), item_s={("other", RSA): 0.01})
    card = Lane("card", 0, state=State.IDLE, keys=frozenset({"k", "other"}), item_s={KIND: 0.5, ("other", RSA): 0.5})
    backlog = Backlog()
    for _ in range(100):
        backlog.add(work(1))
    for count in (1, 100):
        check(("other", RSA), count, "a", 5.0, backlog, [card, hsm], NOW)
    with pytest.raises(Busy):
        check(("other", RSA), 1, "a", 5.0, backlog, [card], NOW)


def test_what_is_faster_at_the_same_lane_is_no_reason() -> None:
    """Fifty thousand digests of a fast key are not taken for as many of a slow one."""
    lane = Lane("hsm", 0, state=State.IDLE, keys=frozenset("ks"), item_s={KIND: 0.00005, ("s", RSA): 0.010})
    backlog = Backlog()
    backlog.add(work(50_000))
    for _ in range(500):
        backlog.add(work(1))
    check(("s", RSA), 100, "a", 30.0, backlog, [lane], NOW)
    check(("s", RSA), 1, "a", 5.0, backlog, [lane], NOW)


def test_bulk_that_is_cut_short_is_no_reason() -> None:
    """A single call of 50 ms is taken beside two frames of bulk of 40; and with 0.6 s where one of two cards is free."""
    check(KIND, 1, "a", 0.05, Backlog(), [a_lane(0.002, busy_s=0.08)], NOW)
    check(KIND, 1, "a", 0.65, Backlog(), [a_lane(0.5), a_lane(0.5, busy_s=0.4)], NOW)
    with pytest.raises(Busy):
        check(KIND, 1, "a", 0.65, Backlog(), [a_lane(0.5, busy_s=0.3), a_lane(0.5, busy_s=0.4)], NOW)


SLOW = ("slow", RSA)  # a key of 50 ms at the same lane


def an_hsm() -> Lane:
    item_s = {KIND: 0.00005, SLOW: 0.05}
    return Lane("hsm", 0, state=State.IDLE, keys=frozenset({"k", "slow"}), item_s=item_s)


def begins_s(asked: Work, backlog: Backlog, lane: Lane) -> float:
    """When the lane really comes to a request that waits, seconds from now, where nothing else comes."""
    now = NOW
    while True:
        frames, _ = assign(backlog, [lane], now)
        for frame in frames:
            for run in frame.runs:
                if run.work is asked:
                    return now - NOW
                count = run.stop - run.start
                run.work.take(count)
                backlog.taken(run.work, count, count * frame.seconds)
                now += count * frame.seconds


def many(*asked: tuple[str, str, int, int]) -> list[Work]:
    """Each so many requests of a caller, with a key, of so many items."""
    return [work(items, caller=who, key=key) for who, key, requests, items in asked for _ in range(requests)]


TWENTY = [(f"other-{number}", "k", 1, 1) for number in range(20)]


@pytest.mark.parametrize(
    ("lane", "waiting", "asked", "most_s"),
    [
        pytest.param(
            an_hsm(), many(("a", "k", 250, 1), ("b", "slow", 1, 5_000)), ("slow", 1), 0.3, id="singles-of-a-fast-key"
        ),
        pytest.param(
            an_hsm(), many(("a", "k", 1, 5_000), ("b", "slow", 1, 5_000)), ("slow", 100), 0.7, id="bulk-of-a-fast-key"
        ),
        pytest.param(
            an_hsm(), many(("a", "slow", 40, 1), ("b", "k", 1, 50_000)), ("k", 1), 5.0, id="singles-of-a-slow-key"
        ),
        pytest.param(
            an_hsm(), many(("a", "slow", 1, 100), ("b", "k", 300, 1)), ("k", 500), 6.0, id="bulk-of-a-slow-key"
        ),
        pytest.param(
            a_lane(0.5), many(("a", "k", 3, 1), ("bulk", "k", 1, 1_000), *TWENTY), ("k", 1), 13.1, id="one-each"
        ),
        pytest.param(
            a_lane(0.5), many(("a", "k", 1, 30), ("b", "k", 1, 50), ("c", "k", 4, 1)), ("k", 20), 32.1, id="all-bulk"
        ),
    ],
)
def test_what_really_happens(lane: Lane, waiting: list[Work], asked: tuple[str, int], most_s: float) -> None:
    """
    A request is told what the scheduler will do: a caller who waits is before it with no more than he has, and what its own
    caller has of other keys with the time that it takes. Of that nothing is forgotten, either.
    """
    backlog, (key, count) = Backlog(), asked
    for one in waiting:
        backlog.add(one)
    kind, short = (key, RSA), count <= SHORT_ITEMS_MAX
    said_s = wait_s(kind, "a", backlog, [lane], NOW, short=short)
    least_s = (said_s + count * lane.item_s[kind]) * MARGIN
    check(kind, count, "a", least_s + 0.1, backlog, [lane], NOW)
    with pytest.raises(Busy):
        check(kind, count, "a", said_s * MARGIN, backlog, [lane], NOW)
    mine = work(count, caller="a", key=key)
    backlog.add(mine)
    really_s = begins_s(mine, backlog, lane)
    assert said_s <= most_s
    assert abs(said_s - really_s) <= 0.3 * really_s + max(lane.item_s.values())


def test_a_caller_of_many_keys() -> None:
    """What waits for more keys than are looked at counts like those that are."""
    keys = [f"k{number}" for number in range(5 * KINDS_LOOKED_AT)]
    lane = Lane("hsm", 0, state=State.IDLE, keys=frozenset(keys), item_s={(key, RSA): 0.01 for key in keys})
    backlog = Backlog()
    for key in keys:
        backlog.add(work(1, key=key))
    mine = work(1, key=keys[-1])
    said_s = wait_s(mine.kind, "a", backlog, [lane], NOW, short=True)
    backlog.add(mine)
    assert said_s == pytest.approx(begins_s(mine, backlog, lane), rel=0.01)


@pytest.mark.parametrize("callers", [1, 3])
@pytest.mark.parametrize("load", [0.8, 1.2, 2.0, 5.0])
def test_a_card_that_is_asked_for_too_much_signs_for_somebody(load: float, callers: int) -> None:
    """
    Single calls of 5 s at a card of half a second a signature: however many come, nearly all that it can do is done in time,
    and what cannot be done is refused when it comes, and not signed for nobody.
    """
    item_s, timeout_s, seconds = 0.5, 5.0, 100.0
    backlog, lane, now = Backlog(), a_lane(item_s), NOW
    names = itertools.cycle("abc"[:callers])
    outcomes: Counter[str] = Counter()
    under_way: Frame | None = None
    arrival = NOW
    while now < NOW + seconds:
        now = min(arrival, lane.busy_until if under_way is not None else arrival)
        if under_way is not None and lane.busy_until <= now:
            (run,) = under_way.runs
            outcomes["in time" if now <= run.work.deadline else "for nobody"] += 1
            lane.measured(*KIND, item_s, 1, now)
            lane.in_flight, lane.busy_until, under_way = 0, 0.0, None
        if arrival <= now:
            asked = work(1, caller=next(names), deadline=now + timeout_s)
            try:
                check(KIND, 1, asked.caller, timeout_s, backlog, [lane], now)
                backlog.add(asked)
                outcomes["taken"] += 1
            except Busy as busy:
                outcomes["refused"] += 1
                assert 0 < busy.retry_s <= timeout_s
            arrival += item_s / load
        for late in [one for one in backlog if one.deadline <= now]:
            backlog.remove(late)
            outcomes["late"] += 1
        if under_way is None:
            frames, _ = assign(backlog, [lane], now)
            for frame in frames:
                (run,) = frame.runs
                run.work.take(1)
                backlog.taken(run.work, 1, frame.seconds)
                under_way, lane.in_flight, lane.busy_until = frame, 1, now + item_s
    capacity = seconds / item_s
    assert outcomes["in time"] >= 0.95 * min(1.0, load) * capacity, outcomes
    assert outcomes["for nobody"] <= 0.01 * capacity, outcomes
    assert outcomes["late"] <= 0.02 * capacity, outcomes
    if load > 1:
        assert outcomes["refused"] >= 0.9 * (load - 1) * capacity - timeout_s / item_s, outcomes


def test_a_glance_never_lets_in_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is let in without a look at who waits for what would be let in with one, too: in whatever state."""
    looked = Counter[bool]()
    for seed in range(300):
        chance = random.Random(seed)
        lanes = [a_lane(busy_s=chance.choice([0.0, 0.04, 3.0])) for _ in range(chance.randint(1, 3))]
        for lane in lanes:
            lane.keys = frozenset({"k", *chance.sample(["l", "m"], chance.randint(0, 2))})
            lane.item_s = {
                (key, RSA): chance.choice([0.00005, 0.001, 0.2, 2.0]) for key in lane.keys if chance.random() < 0.9
            }
        backlog = Backlog(1_000_000, 1_000_000)
        for _ in range(chance.randint(0, 12)):
            keys = sorted(set.union(*(set(lane.keys) for lane in lanes)))
            backlog.add(work(chance.choice([1, 9, 300]), caller=chance.choice("abc"), key=chance.choice(keys)))
        count, timeout_s = chance.choice([1, 20, 500]), chance.choice([0.1, 1.0, 30.0, 600.0])

        def refuses(
            count: int = count, timeout_s: float = timeout_s, backlog: Backlog = backlog, lanes: list[Lane] = lanes
        ) -> bool:
            try:
                check(KIND, count, "a", timeout_s, backlog, lanes, NOW)
            except Busy:
                return True
            return False

        told = refuses()
        with monkeypatch.context() as patched:
            patched.setattr(forecast, "_at_most_s", lambda *_: float("inf"))
            assert refuses() == told, seed
        looked[told] += 1
    assert min(looked[True], looked[False]) > 50
