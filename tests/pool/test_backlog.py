"""The waiting line: bounded, fair by token time, and never wrong about its counts."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pool.backlog import REQUEST_S, Backlog, BacklogFull, TooMuch
from pool.errors import Busy
from pool.forecast import RETRY_MOST_S
from pool.lane import Lane, State
from pool.line import Line
from pool.work import Outcome, Status, Work
from tests.pool.rig import RSA, work


def clocks(backlog: Backlog) -> dict[str, float]:
    return backlog.share(("k", RSA)).clocks()


def line(backlog: Backlog, caller: str) -> list[Work]:
    """One caller's work of the one kind that these tests know: short before bulk."""
    return [*backlog.line(("k", RSA), caller, short=True), *backlog.line(("k", RSA), caller, short=False)]


def serve(backlog: Backlog, seconds: dict[str, float], rounds: int) -> Counter[str]:
    """One item at a time of the caller with the lowest clock; answers the token time each got."""
    got: Counter[str] = Counter()
    for _ in range(rounds):
        now = clocks(backlog)
        caller = min(now, key=now.__getitem__)
        first = line(backlog, caller)[0]
        first.take(1)
        backlog.taken(first, 1, seconds[caller])
        got[caller] += seconds[caller]
    return got


def test_the_pool_s_limit() -> None:
    """Up to the last digest, and not one more; what was refused left no trace."""
    backlog = Backlog(items_max=10, caller_items_max=10)
    backlog.add(work(6))
    with pytest.raises(BacklogFull, match="6 digests are waiting; the pool takes 10"):
        backlog.add(work(5, caller="b"))
    assert (backlog.items, len(backlog), list(clocks(backlog))) == (6, 1, ["a"])
    backlog.add(work(4, caller="b"))
    assert backlog.items == 10


def test_a_caller_s_limit() -> None:
    """One caller never fills the line for the others, not even with a first request."""
    backlog = Backlog(items_max=100, caller_items_max=10)
    backlog.add(work(6))
    with pytest.raises(BacklogFull, match="of this caller"):
        backlog.add(work(5, caller="a"))
    with pytest.raises(TooMuch, match="11 digests; a request has at most 10"):
        backlog.add(work(11, caller="b"))
    backlog.add(work(10, caller="b"))
    assert (backlog.items, len(backlog)) == (16, 2)


def test_what_a_lane_returns_is_never_turned_away() -> None:
    """It was taken once; it goes before its caller's other work."""
    backlog = Backlog(items_max=4, caller_items_max=4)
    first, second = work(2), work(2)
    backlog.add(first)
    backlog.add(second)
    start, stop = first.take(2)
    backlog.taken(first, 2, 0.1)
    backlog.add(work(2, caller="b"))
    first.give_back(start, stop)
    backlog.put_back(first, 2, 0.05)
    assert line(backlog, "a") == [first, second]
    assert backlog.items == 6
    with pytest.raises(BacklogFull):
        backlog.add(work(1, caller="c"))


def test_first_come_first_served_within_a_caller() -> None:
    """Work of one caller keeps its order, and leaves the line when nothing of it waits."""
    backlog = Backlog()
    works = [work(2), work(1), work(3)]
    for one in works:
        backlog.add(one)
    assert line(backlog, "a") == works
    works[0].take(2)
    backlog.taken(works[0], 2, 0.1)
    assert line(backlog, "a") == works[1:]
    backlog.remove(works[2])
    assert line(backlog, "a") == works[1:2]
    backlog.remove(works[2])
    assert backlog.items == 1


def test_callers_get_equal_token_time() -> None:
    """Not equal counts: who asks for slow signatures gets fewer of them."""
    backlog = Backlog()
    seconds = {"slow": 0.010, "fast": 0.001}
    for caller in seconds:
        backlog.add(work(2_000, caller=caller))
    got = serve(backlog, seconds, 1_500)
    assert abs(got["slow"] - got["fast"]) <= 0.010 + 1e-9


def test_a_flood_takes_nothing_from_the_others() -> None:
    """A thousand requests of one caller weigh as much as one of another."""
    backlog = Backlog()
    for _ in range(1_000):
        backlog.add(work(1, caller="flood"))
    backlog.add(work(50, caller="calm"))
    got = serve(backlog, {"flood": 0.001, "calm": 0.001}, 100)
    assert got["calm"] == pytest.approx(0.050, abs=0.0011)


def test_silence_saves_nothing_up() -> None:
    """A caller who comes late, or back, starts at the clock of the one being served: no arrears to claim."""
    backlog = Backlog()
    backlog.add(work(500, caller="busy"))
    early = work(1, caller="idle")
    backlog.add(early)
    serve(backlog, {"busy": 0.01, "idle": 0.01}, 100)
    assert "idle" not in clocks(backlog)
    backlog.add(work(100, caller="idle"))
    got = serve(backlog, {"busy": 0.01, "idle": 0.01}, 40)
    assert got["idle"] == pytest.approx(got["busy"], abs=0.011)


def test_coming_back_pays_no_less() -> None:
    """Who sends piece by piece keeps its clock: going away for a moment does not set it back."""
    backlog = Backlog()
    backlog.add(work(1_000, caller="whole"))
    got: Counter[str] = Counter()
    for _ in range(100):
        backlog.add(work(1, caller="pieces"))
        for _ in range(2):
            got += serve(backlog, {"whole": 0.001, "pieces": 0.010}, 1)
    assert got["pieces"] <= got["whole"] + 0.011


class Counts(RuleBasedStateMachine):
    """Whatever happens to it, the line's counts are those of the work in it."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog(items_max=60, caller_items_max=30)
        self.out: list[tuple[Work, int, int]] = []

    @rule(caller=st.sampled_from("abc"), count=st.integers(1, 40))
    def add(self, caller: str, count: int) -> None:
        waiting = sum(w.waiting_count for w in line(self.backlog, caller))
        fits = self.backlog.items + count <= 60 and waiting + count <= 30
        try:
            self.backlog.add(work(count, caller=caller))
        except (BacklogFull, TooMuch):
            assert not fits
        else:
            assert fits

    @precondition(lambda self: self.backlog.items)
    @rule(pick=st.integers(0), most=st.integers(1, 20), seconds=st.floats(0, 1))
    def take(self, pick: int, most: int, seconds: float) -> None:
        one = list(self.backlog)[pick % len(self.backlog)]
        start, stop = one.take(most)
        assert 0 < stop - start <= most
        self.backlog.taken(one, stop - start, seconds)
        self.out.append((one, start, stop))

    @precondition(lambda self: self.out)
    @rule(pick=st.integers(0))
    def give_back(self, pick: int) -> None:
        one, start, stop = self.out.pop(pick % len(self.out))
        one.give_back(start, stop)
        self.backlog.put_back(one, stop - start, 0.01)

    @precondition(lambda self: self.out)
    @rule(pick=st.integers(0))
    def settle(self, pick: int) -> None:
        one, start, stop = self.out.pop(pick % len(self.out))
        for index in range(start, stop):
            assert not one.outcomes.signatures[index], "an item was given out twice"
            one.settle(index, Outcome(Status.SIGNED, b"s"))
        one.answer()

    @precondition(lambda self: len(self.backlog))
    @rule(pick=st.integers(0))
    def remove(self, pick: int) -> None:
        one = list(self.backlog)[pick % len(self.backlog)]
        self.backlog.remove(one)
        self.out = [entry for entry in self.out if entry[0] is not one]

    @invariant()
    def counts_are_right(self) -> None:
        works = list(self.backlog)
        assert self.backlog.items == sum(one.waiting_count for one in works)
        assert len(self.backlog) == len(works) == len(set(map(id, works)))
        assert all(one.waiting_count for one in works), "work with nothing waiting is in the line"
        assert set(clocks(self.backlog)) == {one.caller for one in works}
        share = self.backlog.share(("k", RSA))
        for caller, line_ in self.backlog.lines(("k", RSA)):
            own = [one for one in works if one.caller == caller]
            assert line_.items == sum(one.waiting_count for one in own)
            assert line_.in_shorts == sum(one.waiting_count for one in own if one.is_short)
            assert line_.requests(short=False) == len(own)
            assert [*share.lines_of(caller)] == [(("k", RSA), line_)]

    @invariant()
    def no_item_is_lost(self) -> None:
        for one in self.backlog:
            ranges = [*one.waiting, *((a, b) for w, a, b in self.out if w is one)]
            known = sum(map(bool, one.outcomes.signatures))
            assert sum(b - a for a, b in ranges) + known == len(one.items)
            assert one.left == len(one.items) - known


Counts.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_counts_stay_consistent = Counts.TestCase


def test_an_item_has_one_outcome() -> None:
    """A second one is ignored, and the request is answered once, when nothing is left."""
    one = work(2)
    one.settle(0, Outcome(Status.SIGNED, b"first"))
    one.settle(0, Outcome(Status.FAILED, reason="TOKEN_FAULT"))
    one.answer()
    assert not one.done.done()
    one.settle_rest(Outcome(Status.NOT_ATTEMPTED, reason="CANCELLED"))
    one.answer()
    one.answer()
    assert [outcome.status.value for outcome in one.done.result] == ["SIGNED", "NOT_ATTEMPTED"]
    assert one.done.result[0].signature == b"first"


def test_what_comes_back_is_taken_next() -> None:
    """Ranges given back go to the front, and are cut like any other."""
    one = work(10)
    assert [one.take(4), one.take(4)] == [(0, 4), (4, 8)]
    one.give_back(0, 4)
    assert [one.take(3), one.take(3), one.take(3)] == [(0, 3), (3, 4), (8, 10)]
    assert one.waiting_count == 0


def test_what_comes_back_unsigned_costs_nothing() -> None:
    """The time that was counted for it goes back with it, and its part of what its request costs; a clock is never below zero."""
    backlog, one = Backlog(), work(100)
    backlog.add(one)
    for count in (40, 10):
        start, stop = one.take(count)
        backlog.taken(one, count, count * 0.01)
    assert clocks(backlog) == {"a": pytest.approx(0.5 + REQUEST_S / 2)}
    one.give_back(start, stop)
    backlog.put_back(one, 10, 0.01)
    assert clocks(backlog) == {"a": pytest.approx(0.4 + 0.4 * REQUEST_S)}
    backlog.put_back(one, 0, 1.0)
    assert clocks(backlog) == {"a": pytest.approx(0.4 + 0.4 * REQUEST_S)}


def test_who_came_meanwhile_does_not_wait_for_what_comes_back() -> None:
    """
    A lane's frames are cut short for a person, and the bulk's clock is set back by what was given back: hers is set back
    with it, or the bulk would be next again. A clock that she brought is hers.
    """
    backlog, one = Backlog(), work(200, caller="bulk")
    backlog.add(one)
    taken = [one.take(40) for _ in range(2)]
    backlog.taken(one, 40, 0.04)
    backlog.taken(one, 40, 0.04)
    backlog.add(work(1, caller="person"))
    backlog.add(work(1, caller="other"))
    assert clocks(backlog)["person"] == pytest.approx(0.04 + 0.2 * REQUEST_S), "that of the frame given out last"
    for start, stop in reversed(taken):
        one.give_back(start + 1, stop)
        backlog.put_back(one, stop - start - 1, 0.001)
    now = clocks(backlog)
    assert now["person"] == now["other"] == now["bulk"] == pytest.approx(0.002 + 0.01 * REQUEST_S)
    [short] = line(backlog, "person")
    short.take(1)
    backlog.taken(short, 1, 0.5)
    backlog.add(work(1, caller="person"))
    one.take(1)
    backlog.taken(one, 1, 0.001)
    one.give_back(1, 2)
    backlog.put_back(one, 1, 0.001)
    assert clocks(backlog)["person"] == pytest.approx(0.502 + 1.01 * REQUEST_S), "she was served, and it counts"


def test_a_batch_of_which_nothing_waits_gets_all_of_its_time_back() -> None:
    """Whether its caller has left the line meanwhile, or something else of it waits there."""
    for has_more in (False, True):
        backlog, one = Backlog(), work(80, caller="bulk")
        backlog.add(one)
        taken = []
        for _ in range(2):
            taken.append(one.take(40))
            backlog.taken(one, 40, 0.04)
        more = work(1, caller="bulk")
        if has_more:
            backlog.add(more)
        backlog.add(work(1, caller="person"))
        for start, stop in taken:  # as a lane gives them back: the oldest frame first
            left = stop - start - (start == 0)
            one.give_back(stop - left, stop)
            backlog.put_back(one, left, 0.001)
        assert clocks(backlog)["bulk"] == pytest.approx(0.001 + REQUEST_S / 80)
        assert clocks(backlog)["person"] <= clocks(backlog)["bulk"]
        backlog.remove(one)
        backlog.remove(more)
        backlog.add(work(1, caller="bulk"))
        assert clocks(backlog)["bulk"] == pytest.approx(0.001 + REQUEST_S / 80), "also when it left without a turn"


def test_a_clock_is_not_washed() -> None:
    """Who comes and goes without a turn has the clock that he brought, also where the others' is set back meanwhile."""
    backlog, before, long = Backlog(), work(100), work(200, caller="b")
    backlog.add(before)
    before.take(100)
    backlog.taken(before, 100, 0.032)
    backlog.add(long)
    for _ in range(2):
        long.take(40)
        backlog.taken(long, 40, 0.04)
    gone = work(17)
    backlog.add(gone)
    backlog.remove(gone)
    backlog.add(work(1))
    long.give_back(1, 80)
    backlog.put_back(long, 79, 0.001)
    assert clocks(backlog)["a"] == pytest.approx(0.032 + REQUEST_S)
    assert clocks(backlog)["b"] < clocks(backlog)["a"]


def test_what_comes_back_moves_others_by_no_more_than_it_was() -> None:
    """Clocks of who waits for slow tokens and of who waits for fast ones are far apart, and stay so."""
    backlog = Backlog()
    slow, fast = work(200, caller="slow", key="card"), work(20_000, caller="fast")
    backlog.add(slow)
    slow.take(1)
    backlog.taken(slow, 1, 0.3)
    backlog.add(work(1, caller="early", key="card"))
    backlog.add(fast)
    for _ in range(20):
        fast.take(400)
        backlog.taken(fast, 400, 1.0)
    backlog.add(work(1, caller="new"))
    was = clocks(backlog)
    slow.give_back(0, 1)
    backlog.put_back(slow, 1, 0.3)
    assert was["new"] - 0.31 < clocks(backlog)["new"] <= was["new"]
    backlog.add(work(1, caller="newer"))
    assert clocks(backlog)["newer"] > was["new"] - 0.31
    fast.give_back(7_900, 8_000)
    backlog.put_back(fast, 100, 0.0025)
    assert clocks(backlog)["new"] >= was["new"] - 0.57
    assert clocks(backlog)["slow"] <= was["slow"]
    assert clocks(backlog)["early"] <= was["early"], "nobody is set forward"


def test_ranges_that_meet_become_one() -> None:
    """A frame cut short a hundred times leaves no hundred pieces."""
    one = work(10)
    one.take(8)
    one.give_back(4, 8)
    one.give_back(0, 4)
    assert list(one.waiting) == [(0, 10)]


def test_the_short_requests_that_have_waited_longest() -> None:
    """One of each kind and caller, the oldest first; none where only bulk waits."""
    backlog = Backlog()
    backlog.add(work(500))
    assert backlog.oldest_shorts() == []
    first, second, third = work(1, caller="b", key="other"), work(1, caller="a"), work(1, caller="a")
    for one in (first, second, third):
        backlog.add(one)
    assert backlog.oldest_shorts() == [first, second]


def test_who_waits_for_other_lanes_has_no_part_in_it() -> None:
    """
    A card's callers and an HSM's have clocks that run apart: whoever comes to the card, from nowhere or with work at the HSM,
    starts at the clock of the card. What counts against a caller's limit is all that he has.
    """
    backlog = Backlog(items_max=200_000, caller_items_max=100_000)
    backlog.lanes_of = lambda key: "card/0" if key.startswith("card") else "hsm/0"
    archive, billing = work(1_000, caller="archive", key="card"), work(90_000, caller="billing", key="hsm")
    backlog.add(archive)
    backlog.add(billing)
    for _ in range(40):
        archive.take(1)
        backlog.taken(archive, 1, 0.5)
        billing.take(1_000)
        backlog.taken(billing, 1_000, 4.0)
    for caller in ("person", "billing"):
        backlog.add(work(1, caller=caller, key="card-too"))
    card, hsm = backlog.share(("card", RSA)), backlog.share(("hsm", RSA))
    assert card is backlog.share(("card-too", RSA))
    assert card.clocks()["person"] == card.clocks()["billing"] == pytest.approx(20, abs=0.6)
    assert hsm.clocks() == {"billing": pytest.approx(160, abs=4.5)}
    assert (card.items, card.waiting("billing"), hsm.waiting("billing")) == (962, 1, 50_000)
    assert backlog.caller_items("billing") == 50_001
    with pytest.raises(BacklogFull):
        backlog.add(work(50_000, caller="billing", key="card"))


def test_lanes_that_turn_out_to_be_shared() -> None:
    """
    What waits comes together with what waits there already: who was ahead stays so by as much, and who was served as much as
    the one served last is even. Nothing is lost or counted twice.
    """
    backlog, sets = Backlog(), {"a": "h/0", "b": "h/1", "c": "h/1"}
    backlog.lanes_of = sets.__getitem__
    x, y, z = work(900, caller="x", key="a"), work(900, caller="y", key="b"), work(5, caller="x", key="c")
    for one in (x, y, z):
        backlog.add(one)
    for _ in range(8):
        x.take(10)
        backlog.taken(x, 10, 10.0)
    y.take(10)
    backlog.taken(y, 10, 1.0)
    sets["b"] = sets["c"] = "h/0"
    backlog.regroup()
    backlog.regroup()
    share = backlog.share(("b", RSA))
    assert share is backlog.share(("a", RSA)) is backlog.share(("c", RSA))
    clocks_ = share.clocks()
    assert clocks_["x"] - clocks_["y"] == pytest.approx(9.0, abs=0.1)
    assert (share.items, share.waiting("x"), share.waiting("x", short=True), share.waiting("y")) == (1715, 825, 5, 890)
    assert [(kind, line_.items) for kind, line_ in share.lines_of("x")] == [(("a", RSA), 820), (("c", RSA), 5)]
    for one in (x, y, z):
        backlog.remove(one)
    assert not any(one.items or one.callers for one in vars(backlog)["_shares"].values())


def test_a_lane_that_starts_anew_moves_nobody() -> None:
    """It has no keys meanwhile, and is the same one as before: who comes then waits with the others, and not apart."""
    backlog = Backlog()
    lanes = [Lane("h", index, keys=frozenset("ab")) for index in range(2)]
    attendants: Any = [SimpleNamespace(lane=lane) for lane in lanes]
    line_ = Line(backlog, attendants, lambda _key: None)
    line_._look_at_keys()
    backlog.add(work(900, key="a"))
    share = backlog.share(("a", RSA))
    lanes[0].keys = frozenset()
    line_._look_at_keys()
    backlog.add(work(1, caller="b", key="b"))
    assert backlog.share(("b", RSA)) is share
    lanes[0].keys = frozenset("abc")
    line_._look_at_keys()
    assert backlog.share(("c", RSA)) is backlog.share(("a", RSA)) is share
    assert share.items == 901


async def test_a_full_line_asks_nobody_to_wait_for_hours() -> None:
    """At a slow card, too; and a short request is told when short ones have had their turn, not when the bulk is done."""
    lane = Lane("card", 0, state=State.SIGNING, keys=frozenset("k"), in_flight=1, item_s={("k", RSA): 0.5})
    backlog = Backlog(caller_items_max=100)
    attendants: Any = [SimpleNamespace(lane=lane)]
    line_ = Line(backlog, attendants, lambda _key: None)
    backlog.add(work(96))
    for _ in range(4):
        backlog.add(work(1))
    for count, retry_s in ((1, 4 * 4 / 3 * 0.5), (17, 50.0)):
        with pytest.raises(Busy, match="of this caller") as busy:
            await line_.sign(work(count))
        assert busy.value.retry_s == pytest.approx(retry_s)
    lane.item_s["k", RSA] = 5.0
    with pytest.raises(Busy, match="of this caller") as busy:
        await line_.sign(work(17))
    assert busy.value.retry_s == RETRY_MOST_S
