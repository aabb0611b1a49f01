"""The two state tables: a token's life and a lane's."""

from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pool import Pin, lane, token
from pool.errors import REASONS
from pool.keeper import ABLE
from pool.lane import HALF_BELIEVED_S, Lane
from pool.token import State, TokenConfig, WrongEvent, after
from pool.wire import FRAME_ITEMS_MAX, FRAMES_IN_FLIGHT
from tests.pool.rig import PSS, RSA

FIRST = {token: token.State.OPEN, lane: lane.State.RESTING}
PAIRS = [(table, state, event) for table in (token, lane) for state in table.State for event in table.Event]


def step(table: ModuleType, state: Any, event: Any) -> StrEnum:
    if table is token:
        return after(state, event)
    one = Lane("card", 0, state=state)
    try:
        one.on(event)
    except WrongEvent:
        assert one.state is state, "a refused event changed the state"
        raise
    return one.state


def ways_out(state: State) -> set[str]:
    return {event.value for event in token.TRANSITIONS[state]}


@pytest.mark.parametrize(("table", "state", "event"), PAIRS, ids=lambda value: getattr(value, "value", ""))
def test_every_event_steps_or_is_refused(table: ModuleType, state: StrEnum, event: StrEnum) -> None:
    """What the table has is the state that follows; what it lacks raises WrongEvent and changes nothing."""
    wanted = table.TRANSITIONS[state].get(event)
    if wanted is None:
        with pytest.raises(WrongEvent, match=f"{event} means nothing .* {state}"):
            step(table, state, event)
    else:
        assert step(table, state, event) is wanted
        assert wanted in table.State


@pytest.mark.parametrize("table", [token, lane], ids=["token", "lane"])
def test_every_state_is_reached_from_the_first(table: ModuleType) -> None:
    """No state is decoration, and none is a trap: from each the first can be reached again."""
    assert set(table.TRANSITIONS) == set(table.State)

    def reached(start: StrEnum) -> set[StrEnum]:
        seen, new = {start}, [start]
        while new:
            follow = set(table.TRANSITIONS[new.pop()].values()) - seen
            seen |= follow
            new += follow
        return seen

    assert reached(FIRST[table]) == set(table.State)
    assert all(FIRST[table] in reached(state) for state in table.State)


def test_a_person_is_the_only_way_out() -> None:
    """
    LOCKED and QUARANTINED are left by UNLOCK: no look, no login, no time. LOCKED can be drained, because its count of
    tries is asked again after a RESUME.
    """
    assert ways_out(State.LOCKED) == {"UNLOCK", "DRAIN"}
    assert ways_out(State.QUARANTINED) == {"UNLOCK"}


def test_drained_is_left_by_resume_only() -> None:
    """What an operator took out, only an operator puts back; every token in order, or away, can be drained."""
    assert ways_out(State.DRAINED) == {"RESUME"}
    assert all("DRAIN" in ways_out(state) for state in set(State) - {State.DRAINED, State.QUARANTINED})


def test_only_a_login_makes_a_token_ready() -> None:
    """No other event leads to READY, and none but OPEN can become it."""
    ways = {(state, event) for state in State for event, to in token.TRANSITIONS[state].items() if to is State.READY}
    assert ways == {(State.OPEN, token.Event.LOGGED_IN)}


def test_a_wrong_signature_and_a_refused_pin_take_a_ready_token_out() -> None:
    """From READY they lead to where only a person helps, and lanes may run in neither."""
    assert after(State.READY, token.Event.WRONG_SIGNATURE) is State.QUARANTINED
    assert after(State.READY, token.Event.PIN_REFUSED) is after(State.OPEN, token.Event.PIN_REFUSED) is State.LOCKED
    assert after(State.LEASED, token.Event.WRONG_SIGNATURE) is State.QUARANTINED
    assert {State.OPEN, State.READY, State.LEASED, State.WAITING} == ABLE


def test_a_lease_begins_and_ends_at_open() -> None:
    """A token that a service uses is never leased, and a leased one never becomes READY, nor is leased again."""
    ways = {(state, event) for state in State for event, to in token.TRANSITIONS[state].items() if to is State.LEASED}
    assert ways == {(State.OPEN, token.Event.LEASE), (State.WAITING, token.Event.ANSWERED)}
    assert after(State.LEASED, token.Event.RELEASED) is State.OPEN
    assert ways_out(State.LEASED) == {"AWAIT", "RELEASED", "WRONG_SIGNATURE", "DRAIN"}


def test_what_waits_at_the_token_is_still_the_leases() -> None:
    """From WAITING it goes on, or ends as a lease does; only a lease gets there."""
    into = {state for state in State if State.WAITING in token.TRANSITIONS[state].values()}
    assert into == {State.LEASED}
    assert ways_out(State.WAITING) == {"ANSWERED", "RELEASED", "WRONG_SIGNATURE", "DRAIN"}


def test_every_refusal_has_its_words() -> None:
    """A state without service has a reason, and a reason has a sentence."""
    assert set(token.REFUSAL) == set(State) - {State.READY}
    assert all(reason in REASONS for reason in token.REFUSAL.values())
    assert all(sentence.endswith(".") for sentence in REASONS.values())


def test_a_lane_takes_work_only_when_it_is_up() -> None:
    """IDLE and SIGNING with fewer than two frames out; never before, after, or while it stops."""
    for state in lane.State:
        for in_flight in range(FRAMES_IN_FLIGHT + 1):
            wanted = FRAMES_IN_FLIGHT - in_flight if state in {"IDLE", "SIGNING"} else 0
            assert Lane("card", 0, state=state, in_flight=in_flight).room == wanted
    for event, to in lane.TRANSITIONS[lane.State.STOPPING].items():
        assert to is (lane.State.RESTING if event == "LOST" else lane.State.STOPPING)


@pytest.mark.parametrize(("short", "most"), [(True, 20), (False, 40)])
def test_a_frame_holds_about_so_many_milliseconds(short: bool, most: int) -> None:
    """One item until it was measured; then lane time, within 1 and the page's size; each key and algorithm apart."""
    one = Lane("card", 0)
    assert one.frame_items("k", RSA, short=short) == 1
    for seconds, items in ((0.001, most), (0.25, 1), (0.00001, FRAME_ITEMS_MAX), (0.0, FRAME_ITEMS_MAX)):
        one.item_s.clear()
        one.measured("k", RSA, seconds * 8, 8, 1.0)
        assert one.frame_items("k", RSA, short=short) in {items, items - 1}
        assert one.frame_items("k", PSS, short=short) == one.frame_items("other", RSA, short=short) == 1


def test_a_measurement_moves_slowly() -> None:
    """One slow frame does not turn a fast lane into a card; a fast one after slow ones is believed sooner."""
    one = Lane("card", 0)
    one.measured("k", RSA, 0.001, 1, 1.0)
    one.measured("k", RSA, 0.011, 1, 1.0)
    assert one.item_s["k", RSA] == pytest.approx(0.0015)
    one.measured("k", RSA, 0.0005, 1, 1.0)
    assert one.item_s["k", RSA] == pytest.approx(0.0012)
    assert (one.tally.busy_s, sum(one.tally.latency)) == (pytest.approx(0.0125), 3)


def test_an_old_measurement_is_believed_less() -> None:
    """
    A lane that was slow once is compared as half as slow after every `HALF_BELIEVED_S` without work, so that it is tried
    again; frames and patience go by what was measured. What was never measured is not guessed.
    """
    one = Lane("card", 0)
    assert one.expected_s(("k", RSA), 100.0) is None
    one.measured("k", RSA, 0.185, 1, 100.0)
    assert one.expected_s(("k", RSA), 100.0 + HALF_BELIEVED_S / 2) == 0.185
    assert one.expected_s(("k", RSA), 100.0 + 2 * HALF_BELIEVED_S) == pytest.approx(0.185 / 4)
    assert 0 < (one.expected_s(("k", RSA), 1e9) or 0) < 1e-9
    assert one.item_s["k", RSA] == 0.185
    one.measured("k", RSA, 0.2, 1, 200.0)
    assert one.expected_s(("k", RSA), 200.0) == one.item_s["k", RSA] > 0.185


def test_rest_doubles_and_starts_anew() -> None:
    """0.1 s after the first loss, twice as long after each more, at most 30 s; nothing after a healthy minute."""
    one = Lane("card", 0)
    assert one.rest_s(0.0) == 0.0
    rests = []
    for now in range(5):
        one.lost(float(now))
        rests.append(one.rest_s(float(now)))
    assert rests == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert one.rest_s(4 + lane.HEALTHY_S + 1) == 0.0
    assert max(rests) <= lane.REST_MOST_S


def test_the_fifth_loss_within_a_minute_opens_the_breaker() -> None:
    """Not the fourth, and not the fifth of a longer time."""
    one = Lane("card", 0)
    assert [one.lost(now) for now in (0.0, 10.0, 20.0, 30.0)] == [False] * 4
    assert one.lost(60.0)
    slow = Lane("card", 0)
    assert not any(slow.lost(now * 20.0) for now in range(20))
    assert slow.tally.losses == 20


def test_a_token_is_configured_within_limits() -> None:
    """
    A relative module path, a wild number of lanes, a person's token with a PIN or with two lanes, and a card with two
    lanes are told by the token's name.
    """
    of_a_person = (
        {"personal": True, "lanes": 2},
        {"personal": True, "pin": lambda: Pin("1234")},
        {"reader": "Reader 0", "lanes": 2},
    )
    for wrong in ({"module": Path("lib.so")}, {"lanes": 0}, {"lanes": 65}, *of_a_person):
        with pytest.raises(ValueError, match="token card"):
            TokenConfig(**{"name": "card", "module": Path("/lib.so"), "label": "x"} | wrong)
