"""
When would it be done? What a request is promised, or refused for, before it waits.

Pure: it looks at the line and the lanes, and changes nothing.
"""

from collections.abc import Iterable
from itertools import islice

from pool.assign import UNMEASURED_S
from pool.backlog import REQUEST_S, SHORTS_BEFORE_BULK, Backlog, Share
from pool.errors import Busy
from pool.lane import FRAME_S, Lane
from pool.work import SHORT_ITEMS_MAX, Kind

RETRY_LEAST_S, RETRY_MOST_S = 0.05, 60.0  # what a caller is told who came too early
# Of an estimated time: a processor that others use, the ledger's writer first, is that much slower in one second than in
# the next. A longer margin costs no goodput: the line is still longer than a frame.
MARGIN = 1.25
KINDS_LOOKED_AT = 16  # of one caller, for each request: 0.1 ms with eight lanes
LAST_S = 1e9  # behind all that was measured: no request takes as long


def per_second(kind: Kind, lanes: Iterable[Lane]) -> float:
    """What all lanes together make of a kind; 0 where none was measured yet."""
    measured = [lane.item_s.get(kind) for lane in lanes if kind[0] in lane.keys]
    return sum(1 / item_s for item_s in measured if item_s)


def wait_s(
    kind: Kind, caller: str, backlog: Backlog, lanes: Iterable[Lane], now: float, *, short: bool = False
) -> float:
    """
    When a request of this caller would begin, seconds from now: after what the lanes have, and what the caller has
    waiting, and what of this kind others get meanwhile; a `short` one after its short ones, and the turns that bulk has
    among them. 0 where nothing is known yet; the deadline will tell.
    """
    lanes = list(lanes)
    able = [lane for lane in lanes if kind[0] in lane.keys]
    rate = per_second(kind, able)
    if not rate:
        return 0.0
    own_s, clock_s = _own_s(caller, backlog.share(kind), able, lanes, short=False)
    if short:
        shorts_s, shorts_clock_s = _own_s(caller, backlog.share(kind), able, lanes, short=True)
        with_bulk = 1 + 1 / SHORTS_BEFORE_BULK
        own_s, clock_s = min(own_s, shorts_s * with_bulk), min(clock_s, shorts_clock_s * with_bulk)
    # Each of the others until his clock is where the caller's will be, or he has nothing more. What they have of other kinds
    # delays this one, and is no reason to refuse it.
    item_s = _token_s(kind, able, rate)
    others = sum(
        min(line.items, clock_s / (item_s + REQUEST_S * line.requests(short=False) / line.items))
        for name, line in (backlog.lines(kind) if clock_s else ())
        if name != caller and line.items
    )
    ahead_s = own_s + others / rate
    busy = [max(0.0, lane.busy_until - now) for lane in able]
    if not short:
        return ahead_s + sum(busy) / len(able)
    # The first lane that is free takes it; one at work upon bulk is cut short, and has it within a frame of short ones.
    return ahead_s + min(left if lane.is_slow else min(left, FRAME_S) for lane, left in zip(able, busy, strict=True))


def _own_s(caller: str, share: Share, able: list[Lane], lanes: list[Lane], *, short: bool) -> tuple[float, float]:
    """
    How long the lanes have to do with what a caller has waiting, in `short` requests or in all, and how far its clock goes
    meanwhile, seconds: at that of the `able` lanes which is the first to be done with all that it can sign of it, other kinds
    too. What was never measured is taken for free; of many kinds the rest is taken for like those that are looked at.
    """
    total, seen = share.waiting(caller, short=short), 0
    if not total:
        return 0.0, 0.0
    busy_s, clock_s = [0.0] * len(able), [0.0] * len(able)
    for kind, line in islice(share.lines_of(caller), KINDS_LOOKED_AT):
        count = line.waiting(short=short)
        rate = per_second(kind, lanes) if count else 0.0
        seen += count
        if not rate:
            continue
        token_s = count * _token_s(kind, lanes, rate) + REQUEST_S * line.requests(short=short)
        for place, lane in enumerate(able):
            if kind[0] in lane.keys:
                busy_s[place] += count / rate
                clock_s[place] += token_s
    first = min(range(len(able)), key=busy_s.__getitem__)
    more = total / seen if seen else 0.0
    return busy_s[first] * more, clock_s[first] * more


def _token_s(kind: Kind, lanes: Iterable[Lane], rate: float) -> float:
    """What an item costs its caller, seconds of token time: the mean of the lanes, which make so many together in a second."""
    return sum(kind[0] in lane.keys and bool(lane.item_s.get(kind)) for lane in lanes) / rate


def done_in_s(kind: Kind, count: int, caller: str, backlog: Backlog, lanes: Iterable[Lane], now: float) -> float:
    """
    When so many items would be done, seconds from now. A short request finds out what is not known: what was never measured
    is taken for free, and so gets measured; meanwhile what it has, or what waits for it, counts; what was measured long ago
    is believed less (`Lane.expected_s`). Bulk is not risked: all of it would be at a card that is as slow as it was.
    """
    lanes = [lane for lane in lanes if kind[0] in lane.keys]
    is_short = count <= SHORT_ITEMS_MAX
    known = [lane.expected_s(kind, now) if is_short else lane.item_s.get(kind) for lane in lanes]
    rate = sum(1 / item_s for item_s in known if item_s)
    if not rate:
        busy_s = sum(max(0.0, lane.busy_until - now) for lane in lanes)
        waiting_s = backlog.waiting(kind) * UNMEASURED_S + busy_s / max(1, len(lanes))
        return waiting_s if is_short else LAST_S + waiting_s
    return wait_s(kind, caller, backlog, lanes, now, short=is_short) + count / rate


def check(
    kind: Kind, count: int, caller: str, timeout_s: float, backlog: Backlog, lanes: Iterable[Lane], now: float
) -> None:
    """
    What would not be done before its deadline because others are before it is refused at once, and told when to come
    back: raises `Busy`. What is too long by itself is begun: its answer says how far it came. Short requests go before bulk, and
    wait for one another: on a card of half a second ten of them are five seconds.
    """
    lanes = list(lanes)
    if _at_most_s(count, backlog.share(kind), lanes, now) * MARGIN <= timeout_s:
        return
    wait = wait_s(kind, caller, backlog, lanes, now, short=count <= SHORT_ITEMS_MAX)
    if not wait:
        return
    own = count / per_second(kind, lanes)
    if (wait + min(own, timeout_s / 2)) * MARGIN > timeout_s:
        retry_s = min(RETRY_MOST_S, max(RETRY_LEAST_S, wait - timeout_s / 2))
        raise Busy("BACKLOG_FULL", retry_s, f"it would be done in {wait + own:.1f} s")


def _at_most_s(count: int, share: Share, lanes: Iterable[Lane], now: float) -> float:
    """
    When so many items would be done if they came last, one after the other, each as slow as the slowest thing that these lanes
    sign: of a fast token nearly always in time, without looking at who waits for what, which would take 15 us a request.
    """
    item_s, busy_s = 0.0, 0.0
    for lane in lanes:
        item_s = max(item_s, *lane.item_s.values(), 0.0)
        busy_s = max(busy_s, lane.busy_until - now)
    return busy_s + (share.items + count) * item_s
