"""
When would it be done? What a request is promised, or refused for, before it waits.

Pure: it looks at the line and the lanes, and changes nothing.
"""

from collections.abc import Iterable

from pool.assign import UNMEASURED_S
from pool.backlog import SHORTS_BEFORE_BULK, Backlog
from pool.errors import Busy
from pool.lane import FRAME_S, Lane
from pool.work import SHORT_ITEMS_MAX, Kind

RETRY_LEAST_S, RETRY_MOST_S = 0.05, 60.0  # what a caller is told who came too early
# Of an estimated time: a processor that others use, the ledger's writer first, is that much slower in one second than in
# the next. A longer margin costs no goodput: the line is still longer than a frame.
MARGIN = 1.25
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
    waiting, at its share of the lanes' time; a `short` one after its short ones, and the turns that bulk has among them.
    0 where nothing is known yet; the deadline will tell.
    """
    able = [lane for lane in lanes if kind[0] in lane.keys]
    rate = per_second(kind, able)
    if not rate:
        return 0.0
    share = backlog.share(kind)
    own: float = share.waiting(caller)
    if short:
        own = min(own, share.waiting(caller, short=True) * (1 + 1 / SHORTS_BEFORE_BULK))
    # Of other kinds nobody knows here how long they take: they delay this one, and are no reason to refuse it.
    ahead = min(backlog.waiting(kind), own * max(1, len(share.callers)))
    busy = [max(0.0, lane.busy_until - now) for lane in able]
    if not short:
        return ahead / rate + sum(busy) / len(able)
    # The first lane that is free takes it; one at work upon bulk is cut short, and has it within a frame of short ones.
    return ahead / rate + min(
        left if lane.is_slow else min(left, FRAME_S) for lane, left in zip(able, busy, strict=True)
    )


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
    return wait_s(kind, caller, backlog, lanes, now) + count / rate


def check(
    kind: Kind, count: int, caller: str, timeout_s: float, backlog: Backlog, lanes: Iterable[Lane], now: float
) -> None:
    """
    What would not be done before its deadline because others are before it is refused at once, and told when to come
    back: raises `Busy`. What is too long by itself is begun: its answer says how far it came. Short requests go before bulk, and
    wait for one another: on a card of half a second ten of them are five seconds.
    """
    lanes = list(lanes)
    wait = wait_s(kind, caller, backlog, lanes, now, short=count <= SHORT_ITEMS_MAX)
    if not wait:
        return
    own = count / per_second(kind, lanes)
    if (wait + min(own, timeout_s / 2)) * MARGIN > timeout_s:
        retry_s = min(RETRY_MOST_S, max(RETRY_LEAST_S, wait - timeout_s / 2))
        raise Busy("BACKLOG_FULL", retry_s, f"it would be done in {wait + own:.1f} s")
