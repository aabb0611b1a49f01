"""Whose turn it is: at the loop, at the assembly, and how much unread may be held."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest

from signer.errors import Refusal
from signer.limits import CALLER_ANSWER_BYTES_MAX
from signer.promises import Promises
from signer.turns import ROUND_LEAST_S, SEEN_S, START_BYTES, STARTS_A_ROUND, WAITING_MAX, Places, Starts


async def loop_turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def started(order: list[str], take: Callable[[str], Awaitable[None]], caller: str) -> asyncio.Task[None]:
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


async def test_places_alternate_between_callers() -> None:
    """Two places; ten of one wait before two of another come, who have every second place from then on."""
    places, order = Places(2), []
    for caller in "aa":
        await places.take(caller)
    waiting = [started(order, places.take, caller) for caller in "a" * 10 + "bb"]
    await loop_turns(1)
    assert order == []
    for _ in range(12):
        places.give_back()
        await loop_turns(2)
    await asyncio.gather(*waiting)
    assert order[:4] in (["a", "b", "a", "b"], ["b", "a", "b", "a"])
    places.give_back()
    places.give_back()
    await asyncio.wait_for(places.take("c"), 1)


async def test_a_place_is_not_lost_with_who_waited_for_it() -> None:
    """Cancelled before or after it was given: the next one gets it."""
    places, order = Places(1), []
    await places.take("a")
    early, late, last = (started(order, places.take, caller) for caller in "bcd")
    await loop_turns(1)
    early.cancel()
    await loop_turns(1)
    places.give_back()  # to `late`, whose task has not run yet
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
