"""Whose turn it is: at the loop, at the assembly, and how much unread may be held."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest

from signer.errors import Refusal
from signer.limits import CALLER_ANSWER_BYTES_MAX, CALLER_WAITING_BYTES_MAX
from signer.promises import Promises
from signer.turns import ROUND_LEAST_S, SEEN_S, START_BYTES, STARTS_A_ROUND, WAITING_MAX, Place, Places, Starts


async def loop_turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def started(order: list[str], take: Callable[[str], Awaitable[object]], caller: str) -> asyncio.Task[None]:
    async def one() -> None:
        await take(caller)
        order.append(caller)

    return asyncio.ensure_future(one())


async def test_a_lone_call_starts_at_once() -> None:
    """No turn of the loop passes."""
    turn = Starts().turn("a")
    with pytest.raises(StopIteration):
        turn.send(None)


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is 0.1 ms after the last, however long the machine stands still."""
    looks = itertools.count()
    monkeypatch.setattr("signer.turns.time", SimpleNamespace(monotonic=lambda: 100.0 + next(looks) / 10_000))


@pytest.mark.usefixtures("still")
async def test_each_caller_starts_a_few_in_a_round() -> None:
    """A flood of one is begun a round at a time; another's call is before all that wait, and all are begun in the end."""
    starts, order = Starts(), []
    flood = [started(order, starts.turn, "flood") for _ in range(50)]
    await loop_turns(2)
    assert order == ["flood"] * STARTS_A_ROUND
    calm = started(order, starts.turn, "calm")
    await loop_turns(1)
    assert order[STARTS_A_ROUND] == "calm"
    await asyncio.gather(*flood, calm)
    assert order.count("flood") == 50


async def test_callers_wait_side_by_side() -> None:
    """Of two who both flood, neither is ahead by more than a round, and each one's first comes first."""
    starts, order = Starts(), []
    both = [started(order, starts.turn, caller) for caller in "a" * 40 + "b" * 40]
    await asyncio.gather(*both)
    for count in range(1, len(order)):
        ahead = abs(order[:count].count("a") - order[:count].count("b"))
        assert ahead <= 2 * STARTS_A_ROUND or count > 80 - STARTS_A_ROUND


async def test_long_requests_hold_up_nobody_for_good() -> None:
    """They count for more, also those that were woken when their round was over: each is begun, and so is who comes then."""
    starts, order = Starts(), []
    for count in range(1, 3 * STARTS_A_ROUND):
        long = [started(order, lambda caller: starts.turn(caller, 3 * START_BYTES), "a") for _ in range(count)]
        await asyncio.wait_for(asyncio.gather(*long), 5)
        await asyncio.wait_for(starts.turn("a"), 5)
        order.clear()


async def test_who_calls_now_and_then_slows_nobody_down() -> None:
    """Beside a caller with nothing at the tokens a round ends when no more calls come."""
    starts, order = Starts(), []
    starts.at_work = lambda caller: caller == "flood"
    await starts.turn("calm")
    began = time.monotonic()
    await asyncio.gather(*(started(order, starts.turn, "flood") for _ in range(WAITING_MAX)))
    assert len(order) == WAITING_MAX
    assert time.monotonic() - began < 10 * ROUND_LEAST_S < WAITING_MAX / (STARTS_A_ROUND // 2) * ROUND_LEAST_S


async def test_long_requests_are_paid_for() -> None:
    """
    Beside another caller so many bytes of requests a second are begun and no more, whatever they are cut into: what is
    over in one round is taken off the next ones.
    """
    starts = Starts()
    size, rounds = 10 * START_BYTES, 30

    async def calm() -> None:
        while True:
            await starts.turn("calm")
            await asyncio.sleep(SEEN_S / 4)

    beside = asyncio.create_task(calm())
    await asyncio.sleep(0)
    begun, end = 0, time.monotonic() + rounds * ROUND_LEAST_S
    while time.monotonic() < end:
        await starts.turn("long", size)
        begun += 1
    beside.cancel()
    may = rounds * (STARTS_A_ROUND // 2) / (1 + size // START_BYTES)
    assert may / 4 < begun <= may + 2


async def test_a_start_that_was_cancelled_holds_up_nobody() -> None:
    """Its place goes to the next of its caller."""
    starts, order = Starts(), []
    flood = [started(order, starts.turn, "a") for _ in range(3 * STARTS_A_ROUND)]
    await loop_turns(1)
    for task in flood[STARTS_A_ROUND : 2 * STARTS_A_ROUND]:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)
    assert len(order) == 2 * STARTS_A_ROUND


async def test_so_many_starts_wait_and_no_more() -> None:
    """What is over that is for the caller of this to refuse at once."""
    starts, order = Starts(), []
    assert not starts.is_full("a")
    flood = [started(order, starts.turn, "a") for _ in range(WAITING_MAX + STARTS_A_ROUND)]
    await loop_turns(1)
    assert starts.is_full("a")
    assert not starts.is_full("b")
    await asyncio.gather(*flood)
    assert not starts.is_full("a")


class StandingClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def places_of(count: int, things: int) -> tuple[Places[int], StandingClock]:
    clock = StandingClock()
    places: Places[int] = Places(count, clock)
    for number in range(things):
        places.add(number)
    return places, clock


async def work(
    places: Places[int], clock: StandingClock, costs: dict[str, float], until_s: float, comes_s: dict[str, float]
) -> list[str]:
    """The order of turns at the one place, for which each caller always waits from the time on when it comes."""
    order: list[str] = []
    tasks: dict[str, asyncio.Task[Place[int]]] = {}
    while clock.now < until_s:
        for caller in costs:
            if caller not in tasks and clock.now >= comes_s.get(caller, 0.0):
                tasks[caller] = asyncio.create_task(places.take(caller))
        await loop_turns(2)
        ((caller, task),) = [(caller, task) for caller, task in tasks.items() if task.done()]
        tasks[caller] = asyncio.create_task(places.take(caller))
        await loop_turns(1)
        clock.now += costs[caller]
        order.append(caller)
        places.end(task.result())
        places.add(task.result().given.result())
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    return order


async def test_places_go_by_time_and_not_by_turn() -> None:
    """Whose documents take ten seconds has one, and another two thousand of five milliseconds, before it has the next."""
    places, clock = places_of(1, 1)
    order = await work(places, clock, {"slow": 10.0, "short": 0.005}, 200.0, {})
    slow_s, short_s = order.count("slow") * 10.0, order.count("short") * 0.005
    assert slow_s + short_s >= 100
    assert abs(slow_s - short_s) <= 10.01


async def test_who_was_away_has_no_places_saved_up() -> None:
    """After a hundred seconds of one alone both have half; and clocks that are behind are not kept."""
    places, clock = places_of(1, 1)
    order = await work(places, clock, {"a": 1.0, "b": 1.0}, 220.0, {"b": 200.0})
    assert order[:100] == ["a"] * 100
    assert 9 <= order[100:].count("b") <= 11
    await work(places, clock, {"c": 1.0}, 300.0, {})
    assert places._used.keys() <= {"c"}


async def test_what_is_in_work_counts() -> None:
    """Of two who have a place each, the next is given to who has had his for a shorter time."""
    places, clock = places_of(3, 2)
    await places.take("a")
    clock.now += 5
    await places.take("b")
    clock.now += 1
    order: list[str] = []
    both = [started(order, places.take, caller) for caller in "ab"]
    await loop_turns(1)
    places.add(3)
    await loop_turns(2)
    assert order == ["b"]
    places.add(4)  # all three are taken, and both have one
    await loop_turns(2)
    assert order == ["b"]
    for task in both:
        task.cancel()


async def test_what_a_place_costs_besides_counts() -> None:
    """Who took a process down in a moment is behind who needed a little longer, and left it."""
    places, clock = places_of(1, 1)
    order: list[str] = []
    place = await places.take("a")
    waiting = [started(order, places.take, caller) for caller in "abb"]
    await loop_turns(1)
    clock.now += 0.1
    places.end(place, 0.5)
    places.add(0)
    await loop_turns(2)
    (place,) = places._taken["b"]
    clock.now += 0.2
    places.end(place)
    places.add(0)
    await loop_turns(2)
    assert order == ["b", "b"]
    for task in waiting:
        task.cancel()


async def test_no_caller_has_all_places() -> None:
    """One alone has as many as there are but the spare one, which another finds whenever he comes, again and again."""
    places, _ = places_of(2, 3)
    order: list[str] = []
    flood = [started(order, places.take, "a") for _ in range(10)]
    await loop_turns(1)
    assert order == ["a", "a"]
    for _ in range(5):
        place = await asyncio.wait_for(places.take("b"), 1)
        places.end(place)
        places.add(place.given.result())
        await loop_turns(2)
    assert order == ["a", "a"]
    for task in flood:
        task.cancel()


async def test_a_place_is_not_lost_with_who_waited_for_it() -> None:
    """Cancelled before or after it was given: the next one gets it."""
    places, _ = places_of(1, 1)
    order: list[str] = []
    first = await places.take("a")
    early, late, last = (started(order, places.take, caller) for caller in "bcd")
    await loop_turns(1)
    early.cancel()
    await loop_turns(1)
    places.end(first)
    places.add(first.given.result())  # to `late`, whose task has not run yet
    late.cancel()
    await asyncio.wait_for(last, 1)
    assert order == ["d"]


async def test_promises_are_bounded_for_each_caller() -> None:
    """One answer always fits; past the limit a call is refused with a time to come back, another caller's is not."""
    promises = Promises()
    promises.make("a", 2 * CALLER_ANSWER_BYTES_MAX)
    with pytest.raises(Refusal, match="ANSWERS_UNREAD") as refused:
        promises.make("a", 1)
    assert refused.value.retry_s
    promises.make("b", CALLER_ANSWER_BYTES_MAX)
    promises.keep("a", 2 * CALLER_ANSWER_BYTES_MAX)
    promises.make("a", 1)


async def test_a_stream_waits_for_room() -> None:
    """Its sender is held back until what was promised has been taken."""
    promises, order = Promises(), []
    promises.make("a", CALLER_ANSWER_BYTES_MAX)
    waiting = started(order, lambda caller: promises.make_when_it_fits(caller, 10), "a")
    await loop_turns(3)
    assert order == []
    promises.keep("a", CALLER_ANSWER_BYTES_MAX)
    await asyncio.wait_for(waiting, 1)
    assert order == ["a"]


async def test_beside_others_a_caller_is_paced() -> None:
    """Of two at work each begins half of a round's starts, and a round lasts 5 ms; another's call waits for none of it."""
    starts, order = Starts(), []
    await starts.turn("calm")
    await starts.turn("flood")
    began = time.monotonic()
    flood = [started(order, starts.turn, "flood") for _ in range(5 * STARTS_A_ROUND // 2)]
    await loop_turns(2)
    rounds = 1 + int((time.monotonic() - began) / ROUND_LEAST_S)  # one, unless the machine has stood still
    assert order == ["flood"] * len(order)
    assert STARTS_A_ROUND // 2 - 1 <= len(order) < rounds * STARTS_A_ROUND // 2
    waited = time.monotonic()
    await started(order, starts.turn, "calm")
    assert "calm" in order
    assert order.index("calm") < STARTS_A_ROUND // 2 * (rounds + int((time.monotonic() - waited) / ROUND_LEAST_S))
    await asyncio.gather(*flood)
    assert time.monotonic() - began >= 4 * ROUND_LEAST_S


async def test_who_is_idle_slows_nobody_down() -> None:
    """A caller who began nothing for 0.1 s, whatever streams it has open, is not counted."""
    starts, order = Starts(), []
    for caller in "bcdefgh":
        await starts.turn(caller)
    await asyncio.sleep(SEEN_S)
    await starts.turn("a")
    await asyncio.sleep(2 * ROUND_LEAST_S)
    began = time.monotonic()
    await asyncio.gather(*(started(order, starts.turn, "a") for _ in range(20 * STARTS_A_ROUND)))
    assert time.monotonic() - began < 10 * ROUND_LEAST_S


async def test_so_many_bytes_wait_and_no_more() -> None:
    """Of requests that have their turn at once nothing is held; one that waits always may, and gives its room back."""
    starts, order = Starts(), []
    size = CALLER_WAITING_BYTES_MAX
    await starts.turn("a", size)
    assert starts.has_room("a", 2 * size)
    waiting = started(order, lambda caller: starts.turn(caller, size - 1), "a")
    given_up = started(order, lambda caller: starts.turn(caller, 1), "a")
    await loop_turns(1)
    assert starts.has_room("a", 0)
    assert not starts.has_room("a", 1)
    assert starts.has_room("b", size)
    given_up.cancel()
    await loop_turns(2)
    assert starts.has_room("a", 1)
    waiting.cancel()
    await asyncio.gather(waiting, given_up, return_exceptions=True)
    assert not starts._bytes
