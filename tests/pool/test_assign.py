"""The one decision: which digests go to which lane. Pure, so it is tried on arbitrary situations."""

import copy
import statistics
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool.assign import Frame, Run, assign, to_cut
from pool.backlog import REQUEST_S, SHORTS_BEFORE_BULK, Backlog
from pool.lane import HALF_BELIEVED_S, Lane, State, connected
from pool.wire import FRAME_BYTES_MAX, FRAME_ITEMS_MAX, FRAMES_IN_FLIGHT
from pool.work import Work
from tests.pool.rig import EDDSA, PSS, RSA, work

NOW = 100.0


def a_lane(index: int = 0, *keys: str, item_s: float | None = None, **more: Any) -> Lane:
    lane = Lane("card", index, state=State.IDLE, keys=frozenset(keys or {"k"}), **more)
    if item_s is not None:
        lane.item_s = {(key, RSA): item_s for key in lane.keys}
    return lane


def line(*works: Work) -> Backlog:
    backlog = Backlog()
    for one in works:
        backlog.add(one)
    return backlog


def clocks(backlog: Backlog) -> dict[str, float]:
    return backlog.share(("k", RSA)).clocks()


def runs(frame: Frame) -> list[tuple[str, int, int]]:
    return [(run.work.caller, run.start, run.stop) for run in frame.runs]


def test_an_unmeasured_lane_gets_one_item_a_frame() -> None:
    """A card might take a second for each: nobody knows yet."""
    frames, _ = assign(line(work(10)), [a_lane()], NOW)
    assert [runs(frame) for frame in frames] == [[("a", 0, 1)], [("a", 1, 2)]]


def test_a_measured_lane_gets_forty_milliseconds_a_frame() -> None:
    """Two frames of 40 for a millisecond each, half of it where somebody waits; one frame of one item for a card."""
    frames, _ = assign(line(work(100)), [a_lane(item_s=0.001)], NOW)
    assert [runs(frame) for frame in frames] == [[("a", 0, 40)], [("a", 40, 80)]]
    frames, _ = assign(line(*(work(10) for _ in range(5))), [a_lane(item_s=0.001)], NOW)
    assert [frame.count for frame in frames] == [20, 20]
    frames, _ = assign(line(work(100)), [a_lane(item_s=0.3)], NOW)
    assert [frame.count for frame in frames] == [1]


def test_lanes_share_the_work_the_emptiest_first() -> None:
    """An idle lane is not left out while another gets its second frame; among equals the fastest comes first."""
    lanes = [a_lane(0, item_s=0.004), a_lane(1, item_s=0.002), a_lane(2, item_s=0.002, in_flight=1)]
    frames, _ = assign(line(work(40)), lanes, NOW)
    assert [(frame.lane.index, frame.count) for frame in frames][:2] == [(1, 20), (0, 10)]
    assert sum(frame.count for frame in frames) == 38, "but for crumbs"
    assert {frame.lane.index for frame in frames[2:]} >= {1, 2}, "what is left is shared out, too"
    frames, _ = assign(line(work(1)), lanes, NOW)
    assert [frame.lane.index for frame in frames] == [1]


def test_what_would_not_be_done_in_time_is_passed_over() -> None:
    """
    By the fastest lane that could take it: others are signed instead, and its own time answers it. What was never measured is
    begun; and no lane is left idle for it, because what it was measured at may not be so any more.
    """
    late, later, soon = (work(1, deadline=NOW + left_s) for left_s in (0.3, 0.4, 5.0))
    assert [runs(frame)[0][0] for frame in assign(line(late), [a_lane(item_s=0.5)], NOW)[0]] == ["a"]
    frames, expired = assign(line(late, later, soon), [a_lane(item_s=0.5)], NOW)
    assert ([run.work for frame in frames for run in frame.runs], expired) == ([soon], [])
    frames, expired = assign(line(late, later), [a_lane(item_s=0.5)], NOW)
    assert ([run.work for frame in frames for run in frame.runs], expired) == ([later], [])
    elsewhere = work(500, caller="b", key="elsewhere")
    frames, _ = assign(line(late, elsewhere), [a_lane(item_s=0.5), a_lane(1, "elsewhere", item_s=0.001)], NOW)
    assert {run.work for frame in frames for run in frame.runs} == {late, elsewhere}
    frames, _ = assign(line(late, later, soon), [a_lane(0, item_s=0.5), a_lane(1, item_s=0.35)], NOW)
    assert {run.work for frame in frames for run in frame.runs} == {later, soon}
    frames, _ = assign(line(late, later, soon), [a_lane()], NOW)
    assert late in {run.work for frame in frames for run in frame.runs}


def test_who_comes_to_a_card_is_served_beside_an_hsm() -> None:
    """
    The clocks of who waits for a card and of who waits for an HSM run apart: a newcomer to the card is the next there, however
    far the HSM's are ahead.
    """
    lanes = [a_lane(0, "card", item_s=0.5), *(a_lane(index, "hsm", item_s=0.001) for index in range(1, 9))]
    sets = connected({lane.name: lane.keys for lane in lanes})
    backlog = Backlog()
    backlog.lanes_of = sets.__getitem__
    backlog.add(work(1_000, caller="archive", key="card"))
    backlog.add(work(100_000, caller="billing", key="hsm"))
    for _ in range(40):  # 20 s: one signature at the card, and 500 at each of the HSM's lanes
        for frame in assign(backlog, lanes, NOW)[0]:
            for run in frame.runs:
                run.work.take(run.stop - run.start)
                backlog.taken(run.work, run.stop - run.start, 0.5)
    for caller in ("person", "billing"):
        backlog.add(work(1, caller=caller, key="card"))
    served = []
    for _ in range(4):
        (frame,) = (one for one in assign(backlog, lanes, NOW)[0] if one.key == "card")
        (run,) = frame.runs
        run.work.take(1)
        backlog.taken(run.work, 1, 0.5)
        served.append(run.work.caller)
    assert sorted(served[:2]) == ["billing", "person"]


def test_lanes_with_keys_in_common_are_one_set() -> None:
    """Also by way of others; what has nothing in common is apart, and a lane without keys is nobody's."""
    keys = {"a/0": "xy", "b/0": "z", "c/0": "", "d/0": "yw", "e/0": "zv", "f/0": "w"}
    assert connected({name: frozenset(each) for name, each in keys.items()}) == {
        **dict.fromkeys("xyw", "a/0"),
        **dict.fromkeys("zv", "b/0"),
    }


def test_a_lane_at_work_gets_no_crumbs() -> None:
    """What is worth less than 3 ms gains nothing by waiting in the lane, and who comes meanwhile may be more urgent."""
    busy = a_lane(0, item_s=0.002, in_flight=1)
    assert assign(line(work(1)), [busy], NOW)[0] == []
    assert [frame.count for frame in assign(line(work(2)), [busy], NOW)[0]] == [2]
    slow = a_lane(0, item_s=0.016, in_flight=1)
    assert [frame.count for frame in assign(line(work(1)), [slow], NOW)[0]] == [1], "a frame of it has one item"
    idle = a_lane(1, item_s=0.002)
    frames, _ = assign(line(work(21)), [busy, idle], NOW)
    assert [(frame.lane.index, frame.count) for frame in frames] == [(1, 20)]
    frames, _ = assign(line(work(43)), [busy, idle], NOW)
    assert (frames[0].lane.index, frames[0].count) == (1, 20)
    assert all(frame.count >= 2 for frame in frames)


def test_idle_lanes_share_what_is_less_than_a_frame_each() -> None:
    """Four lanes sign forty digests in a quarter of the time; parts of less than 2 ms are not made."""
    lanes = [a_lane(index, item_s=0.0004) for index in range(4)]
    assert [frame.count for frame in assign(line(work(40)), lanes, NOW)[0]] == [10] * 4
    assert [frame.count for frame in assign(line(work(12)), lanes, NOW)[0]][:2] == [5, 5]
    assert [frame.count for frame in assign(line(work(1000)), lanes, NOW)[0]][:4] == [100] * 4


def test_a_frame_is_filled_with_other_callers_work() -> None:
    """Single requests of many callers share a frame; the caller with the least token time comes first."""
    backlog = line(*(work(1, caller=caller) for caller in "abc"))
    (frame,), _ = assign(backlog, [a_lane(item_s=0.001)], NOW)
    assert [run[0] for run in runs(frame)] == ["a", "b", "c"]


def test_a_frame_has_one_key_and_one_algorithm() -> None:
    """Other work waits for the next frame; of the same caller, too."""
    works = [work(1), work(1, key="other"), work(1, algorithm=PSS), work(1)]
    lane = a_lane(0, "k", "other", item_s=0.001)
    frames, _ = assign(line(*works), [lane], NOW)
    assert [[run.work for run in frame.runs] for frame in frames] == [[works[0], works[3]], [works[2]]]


def test_only_lanes_with_the_key() -> None:
    """A lane is never given a key that it did not find on its token; work for it does not hold up the next."""
    frames, _ = assign(line(work(1, key="elsewhere"), work(1, key="k")), [a_lane(item_s=0.001)], NOW)
    assert [frame.key for frame in frames] == ["k"]


@pytest.mark.parametrize("state", [s for s in State if s not in {"IDLE", "SIGNING"}])
def test_only_lanes_that_are_up(state: State) -> None:
    """STARTING, STOPPING and RESTING lanes get nothing."""
    lane = a_lane()
    lane.state = state
    assert assign(line(work(1)), [lane], NOW) == ([], [])


def test_expired_work_is_set_aside() -> None:
    """At its deadline and after: it is told back and never given out; the next is served."""
    late, later, timely = work(5, deadline=NOW), work(5, deadline=NOW - 1, caller="b"), work(5, deadline=NOW + 0.01)
    frames, expired = assign(line(late, later, timely), [a_lane(item_s=0.001)], NOW)
    assert expired == [late, later]
    assert [run.work for frame in frames for run in frame.runs] == [timely]


def test_long_messages_fill_frames_by_their_bytes() -> None:
    """A frame of Ed25519 messages stays within a packet, whatever their lengths are, and joins no other request's."""
    lane = a_lane()
    lane.item_s = {("k", EDDSA): 1e-6}
    sizes = [1, *[4096] * 600]
    messages = [bytes(size) for size in sizes]
    frames, _ = assign(
        line(work(algorithm=EDDSA, items=messages), work(3, algorithm=EDDSA, items=[b"m"] * 3)), [lane], NOW
    )
    assert {frame.count for frame in frames if len(frame.runs[0].work.items) == 3} == {3}  # the short one is first
    for frame in frames:
        (run,) = frame.runs
        assert sum(len(item) for item in run.work.items[run.start : run.stop]) <= FRAME_BYTES_MAX
    assert frames[1].count > 20


def test_the_item_of_a_slot() -> None:
    """Slots count through the runs of a frame; past its end is an error."""
    first, second = work(5), work(5)
    frame = Frame(a_lane(), "k", RSA, (Run(first, 3, 5), Run(second, 0, 1)), 0.001)
    assert [frame.item_at(slot) for slot in range(3)] == [(first, 3), (first, 4), (second, 0)]
    with pytest.raises(IndexError):
        frame.item_at(3)


def test_shares_are_equal_by_token_time_over_many_decisions() -> None:
    """
    Carried out again and again, two callers who both wait get the same of token time and what requests cost besides,
    whatever their requests' sizes.
    """
    backlog = line(work(3_000, caller="batch"), *(work(1, caller="single") for _ in range(1_000)))
    lane, got = a_lane(item_s=0.001), {"batch": 0, "single": 0}
    for _ in range(24):
        frames, _ = assign(backlog, [lane], NOW)
        for frame in frames:
            for run in frame.runs:
                assert run.work.take(run.stop - run.start) == (run.start, run.stop)
                backlog.taken(run.work, run.stop - run.start, (run.stop - run.start) * frame.seconds)
                got[run.work.caller] += run.stop - run.start
    batch_s = got["batch"] * (0.001 + REQUEST_S / 3_000)
    assert abs(batch_s - got["single"] * (0.001 + REQUEST_S)) <= 0.022


KEYS = ["k0", "k1", "k2"]


@st.composite
def situations(draw: st.DrawFn) -> tuple[Backlog, list[Lane]]:
    backlog = Backlog()
    for _ in range(draw(st.integers(0, 12))):
        algorithm = draw(st.sampled_from([RSA, PSS, EDDSA]))
        count = draw(st.integers(1, 40))
        one = work(
            caller=draw(st.sampled_from("abcd")),
            key=draw(st.sampled_from(KEYS)),
            algorithm=algorithm,
            deadline=draw(st.sampled_from([NOW - 1, NOW, NOW + 1, NOW + 60])),
            items=[bytes(draw(st.sampled_from([1, 100, 4096])))] * count if algorithm is EDDSA else [bytes(32)] * count,
        )
        backlog.add(one)
        if count > 3 and draw(st.booleans()):  # some of it is out already, and some came back
            backlog.taken(one, len(range(*one.take(draw(st.integers(1, 3))))), draw(st.floats(0, 0.1)))
            if draw(st.booleans()):
                one.give_back(0, 1)
                backlog.put_back(one, 1, 0.0)
    lanes = []
    for index in range(draw(st.integers(0, 5))):
        lane = Lane("card", index, state=draw(st.sampled_from(list(State))))
        lane.keys = frozenset(draw(st.sets(st.sampled_from(KEYS))))
        lane.in_flight = draw(st.integers(0, FRAMES_IN_FLIGHT))
        for key in draw(st.sets(st.sampled_from(KEYS))):
            for algorithm in (RSA, PSS, EDDSA):
                lane.item_s[key, algorithm] = draw(st.sampled_from([1e-6, 0.0003, 0.004, 0.3]))
        lanes.append(lane)
    return backlog, lanes


def seen(backlog: Backlog, lanes: list[Lane]) -> Any:
    """All there is to see of a situation, as plain values."""
    works = [(id(one), list(one.waiting), list(one.outcomes.signatures), one.left, one.number) for one in backlog]
    counts = [backlog.caller_items(caller) for caller in "abcd"]
    return copy.deepcopy((works, backlog.items, clocks(backlog), counts, vars(backlog)["_shares"], lanes))


@settings(max_examples=150, deadline=None)
@given(situation=situations())
def test_every_plan_keeps_the_rules(situation: tuple[Backlog, list[Lane]]) -> None:
    """
    Nothing given is changed and the same inputs give the same plan; one key and algorithm a frame, on a lane that is up,
    has the key and has room; no item twice, none that does not wait, none expired; no lane is left idle beside work.
    """
    backlog, lanes = situation
    before = seen(backlog, lanes)
    frames, expired = assign(backlog, lanes, NOW)
    assert seen(backlog, lanes) == before
    again, expired_again = assign(backlog, lanes, NOW)
    assert (again, expired_again) == (frames, expired)

    waiting = {id(one): {i for start, stop in one.waiting for i in range(start, stop)} for one in backlog}
    given_out: set[tuple[int, int]] = set()
    for frame in frames:
        assert frame.lane.state in {"IDLE", "SIGNING"}
        assert frame.key in frame.lane.keys
        assert (
            1
            <= frame.count
            <= frame.lane.frame_items(frame.key, frame.algorithm, short=frame.runs[0].work.is_short)
            <= FRAME_ITEMS_MAX
        )
        items = []
        for run in frame.runs:
            assert (run.work.key, run.work.algorithm) == (frame.key, frame.algorithm)
            assert run.work.deadline > NOW
            for index in range(run.start, run.stop):
                assert index in waiting[id(run.work)]
                assert (id(run.work), index) not in given_out
                given_out.add((id(run.work), index))
                items.append(run.work.items[index])
        assert sum(map(len, items)) <= FRAME_BYTES_MAX
    for lane in lanes:
        more = sum(frame.lane is lane for frame in frames)
        assert not more or lane.in_flight + more <= FRAMES_IN_FLIGHT
        if lane.is_up and not lane.in_flight + more:
            left = [
                one for one in backlog
                if one.key in lane.keys and one.deadline > NOW
                and any((id(one), index) not in given_out for index in waiting[id(one)])
                and not a_faster_one(lane, lanes, one)
            ]  # fmt: skip
            assert not left, "an idle lane was left without work that it could do"
    assert all(one.deadline <= NOW for one in expired)
    assert len(set(map(id, expired))) == len(expired)


def test_frames_take_what_a_request_takes() -> None:
    """The plan's runs are what `Work.take` then answers, in order: the pool carries it out blindly."""
    one = work(30)
    backlog = line(one)
    backlog.taken(one, len(range(*one.take(10))), 0.0)
    one.give_back(0, 4)
    backlog.put_back(one, 4, 0.0)
    frames, _ = assign(backlog, [a_lane(item_s=0.002), a_lane(1, item_s=0.002)], NOW)
    for frame in frames:
        for run in frame.runs:
            assert one.take(run.stop - run.start) == (run.start, run.stop)


def test_algorithms_are_measured_apart() -> None:
    """A frame's size is that of its key and algorithm on that lane, not of another."""
    lane = a_lane()
    lane.item_s = {("k", RSA): 0.001, ("k", PSS): 0.010}

    for algorithm, count in ((RSA, 40), (PSS, 4)):
        frames, _ = assign(line(work(100, algorithm=algorithm)), [lane], NOW)
        assert {frame.count for frame in frames} == {count}


def a_faster_one(lane: Lane, lanes: list[Lane], one: Work) -> bool:
    """Whether some other lane that is up makes this kind of signature faster."""
    kind = (one.key, one.algorithm)
    own = lane.item_s.get(kind, 0.0)
    return any(other.is_up and one.key in other.keys and 0 < other.item_s.get(kind, 0.0) < own for other in lanes)


def test_short_requests_go_before_bulk_and_bulk_keeps_its_share() -> None:
    """Within a caller: three turns for short requests, then one for bulk, for as long as both wait."""
    bulk = work(100)
    shorts = [work(1) for _ in range(20)]
    backlog = line(bulk, *shorts)
    order = []
    for _ in range(8):
        lane = a_lane()
        lane.in_flight = 1  # room for one frame
        frames, _ = assign(backlog, [lane], NOW)
        (frame,) = frames
        for run in frame.runs:
            run.work.take(run.stop - run.start)
            backlog.taken(run.work, run.stop - run.start, 0.001)
        order.append("bulk" if frame.runs[0].work is bulk else "short")
    assert order == ["short", "short", "short", "bulk"] * 2


def test_a_slow_lane_leaves_what_a_fast_one_finishes_sooner() -> None:
    """One item waits and the fast lane is busy for 10 ms: the card at 185 ms does not take it. Of a thousand it does."""
    fast, card = a_lane(0), a_lane(1)
    fast.item_s, card.item_s = {("k", RSA): 0.001}, {("k", RSA): 0.185}
    fast.in_flight, fast.busy_until = 2, NOW + 0.010
    assert assign(line(work(1)), [fast, card], NOW)[0] == []
    frames, _ = assign(line(work(1000)), [fast, card], NOW)
    assert {frame.lane.index for frame in frames} == {1}
    assert frames
    assert all(frame.count == 1 for frame in frames)


def test_who_was_slow_once_is_tried_again() -> None:
    """What a lane was measured at long ago keeps it from work no more: beside a busy one it takes what waits."""
    fast, once_slow = a_lane(0), a_lane(1)
    fast.item_s, once_slow.item_s = {("k", RSA): 0.001}, {("k", RSA): 0.185}
    fast.in_flight, fast.busy_until = 2, NOW + 0.010
    fast.measured_at = {("k", RSA): NOW}
    once_slow.measured_at = {("k", RSA): NOW - 10 * HALF_BELIEVED_S}
    (frame,), _ = assign(line(work(1)), [fast, once_slow], NOW)
    assert frame.lane is once_slow


def test_a_decision_costs_what_it_gives_out_and_not_what_waits() -> None:
    """Beside a hundred thousand single digests, short and of other kinds, it takes no longer than beside a hundred."""

    def decided_s(waiting: int) -> float:
        backlog = Backlog()
        for number in range(waiting):
            backlog.add(work(1, caller="flood", key="k" if number % 2 else "elsewhere"))
        backlog.add(work(500, caller="calm"))
        took = []
        for _ in range(9):
            began = time.perf_counter()
            frames, _ = assign(backlog, [a_lane(item_s=0.0002)], NOW)
            took.append(time.perf_counter() - began)
            assert frames[0].count == 26  # their lead, of 20 ms: 0.8 ms each, with what a request costs
        return statistics.median(took)

    assert decided_s(99_000) < 5 * decided_s(400)


def test_a_frame_of_short_requests_takes_no_bulk() -> None:
    """An answer comes with its whole frame; the bulk makes the next one, behind it."""
    backlog = line(work(100, caller="bulk"), work(2, caller="person"))
    frames, _ = assign(backlog, [a_lane(item_s=0.002)], NOW)
    assert [runs(frame) for frame in frames] == [[("person", 0, 2)], [("bulk", 0, 20)]]


def test_a_frame_of_bulk_takes_no_short_request() -> None:
    """It would wait for the whole frame, and the frame could not be cut short any more."""
    backlog = line(*(work(1, caller="a") for _ in range(4)), work(30, caller="a"))
    for _ in range(SHORTS_BEFORE_BULK):
        one = next(iter(backlog.line(("k", RSA), "a", short=True)))
        one.take(1)
        backlog.taken(one, 1, 0.001)
    frames, _ = assign(backlog, [a_lane(item_s=0.001)], NOW)
    assert [[run.work.is_short for run in frame.runs] for frame in frames] == [[False]]


def test_a_short_request_goes_before_bulk_of_who_had_a_little_less() -> None:
    """Callers who differ by less than a frame's time are even; a lead once is no faster clock."""
    backlog = line(work(500, caller="bulk"), *(work(1, caller="person") for _ in range(100)))
    got = {"bulk": 0, "person": 0}
    order = []
    for _ in range(150):
        ((frame, *_), _) = assign(backlog, [a_lane(item_s=0.02)], NOW)
        for run in frame.runs:
            run.work.take(run.stop - run.start)
            backlog.taken(run.work, run.stop - run.start, 0.02)
            got[run.work.caller] += 1
            order.append(run.work.caller)
    assert order[0] == "person"
    assert abs(got["bulk"] - got["person"]) <= 3


def cuttable(item_s: float = 0.001, count: int = 10, caller: str = "bulk", **more: Any) -> tuple[Lane, list[Frame]]:
    """A lane with one frame of somebody's bulk, just begun."""
    lane = a_lane(0, item_s=item_s, in_flight=1, **more)
    lane.busy_until = NOW + count * item_s
    bulk = work(500, caller=caller)
    return lane, [Frame(lane, "k", RSA, (Run(bulk, 0, count),), item_s)]


def test_a_short_request_cuts_bulk_short() -> None:
    """The lane with most left to win; nobody's in turn before it, and no lane is idle."""
    person = work(1, caller="person")
    even = {"person": 1.0, "bulk": 1.0}
    lane, frames = cuttable()
    assert to_cut(person, [(lane, frames)], even, NOW) is lane
    longer, more = cuttable(count=20)
    assert to_cut(person, [(lane, frames), (longer, more)], even, NOW) is longer
    own, its = cuttable(caller="person")
    assert to_cut(person, [(own, its)], {"person": 9.0}, NOW) is own, "short goes before bulk of the same caller"


@pytest.mark.parametrize(
    ("lanes", "why"),
    [
        ([cuttable(), (a_lane(1), [])], "an idle lane takes it at once"),
        ([cuttable(count=2)], "it is served soon anyway"),
        ([cuttable(), cuttable(count=2)], "one lane is free soon"),
        ([cuttable(cut_at=NOW - 0.001)], "it was cut just now"),
        ([cuttable(item_s=0.2, count=1)], "one item cannot be cut"),
        ([(cuttable()[0], [Frame(a_lane(), "k", RSA, (Run(work(1), 0, 1), Run(work(1), 0, 1)), 0.001)])], "no bulk"),
    ],
)
def test_bulk_is_left_alone(lanes: list[tuple[Lane, list[Frame]]], why: str) -> None:
    """Where cutting wins nothing, or somebody waits for what would be cut."""
    assert to_cut(work(1, caller="person"), lanes, {"person": 1.0, "bulk": 1.0, "a": 1.0}, NOW) is None, why


def test_who_had_more_token_time_cuts_nothing() -> None:
    """It would not be the next in turn."""
    lanes = [cuttable()]
    assert to_cut(work(1, caller="person"), lanes, {"person": 2.0, "bulk": 1.0}, NOW) is None


def test_a_lane_that_was_cut_chooses_anew() -> None:
    """It gets nothing until both frames are back, and then what is next in turn, however little that is."""
    bulk, person = work(5_000, caller="bulk"), work(1, caller="person", key="other")
    backlog = line(bulk, person)
    lane = a_lane(0, "k", "other", item_s=0.001, in_flight=1, is_cut=True)
    assert assign(backlog, [lane], NOW)[0] == []
    lane.in_flight, lane.is_cut = 0, False
    frames, _ = assign(backlog, [lane], NOW)
    assert [frame.key for frame in frames] == ["other", "k"]


def test_a_card_that_takes_nothing_takes_no_part() -> None:
    """Ten digests that an HSM signs in 10 ms are one frame of it, and not half of one beside an idle card."""
    hsm, card = a_lane(0, item_s=0.001), a_lane(1, item_s=0.185)
    frames, _ = assign(line(work(10)), [hsm, card], NOW)
    assert [(frame.lane.index, frame.count) for frame in frames] == [(0, 10)]
